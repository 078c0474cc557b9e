"""Finished trials of a sweep as runs, and its missing ones as candidates for `gpt-jax next`.

Must not import jax.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from gpt_jax.hints import counted
from gpt_jax.scaling.next_runs import Candidates
from gpt_jax.scaling.table import STOPPED, RunTable, make_table
from gpt_jax.sweep.table import FINAL, Row

OPEN = ("pending", "preempted")
"""States of trials that can still be run; those that went wrong would again."""
FEWEST = 3
"""Finished runs that say anything of others."""


def finished_runs(rows: Sequence[Row], name: str) -> RunTable:
    """The cooled runs that are done; raises ValueError where there are fewer than FEWEST."""
    final = [row for row in rows if row["point"] == FINAL and row["cooled"]]
    done = [row for row in final if row["loss"] is not None]
    if len(done) < FEWEST:
        raise ValueError(f"{name} has {len(done)} finished runs; at least three are needed")
    kept = ("n_params", "n_tokens", "flops", "loss", "learning_rate")
    runs = make_table(**{column: [float(row[column]) for row in done] for column in kept})
    stopped = sum(row["state"] == STOPPED for row in final)
    if not stopped:
        return runs
    note = f"{counted(stopped, 'trial')} stopped early, as not the best of its settings, left out"
    return dataclasses.replace(runs, notes=(*runs.notes, note))


def missing_rows(rows: Sequence[Row], name: str) -> list[Row]:
    """Trials that are still to be run; raises ValueError where there are none."""
    found = [
        row for row in rows if row["point"] == FINAL and row["cooled"] and row["state"] in OPEN
    ]
    if not found:
        raise ValueError(f"{name}: no trial is missing; add trials to the sweep's grid")
    return found


def missing_candidates(rows: Sequence[Row], missing: Sequence[Row], rate: bool) -> Candidates:
    """The missing trials, at the FLOP/s of the finished ones; raises ValueError where no finished
    run says how long it took. rate: as of `as_candidates`."""
    done = [row for row in rows if row["point"] == FINAL and row["loss"] is not None]
    timed = [row["training_seconds"] / row["flops"] for row in done if row["training_seconds"]]
    if not timed:
        raise ValueError("no finished run says how long it took; price the trials with --chip NAME")
    seconds = float(np.median(timed)) * _column(missing, "flops")
    return as_candidates(missing, seconds, "s", rate)


def as_candidates(missing: Sequence[Row], cost: np.ndarray, unit: str, rate: bool) -> Candidates:
    """Trials with a cost; rate: their learning rate is a dimension of the choice."""
    return Candidates(
        [str(row["run"]) for row in missing],
        _column(missing, "n_params"),
        _column(missing, "n_tokens"),
        cost,
        unit,
        _column(missing, "learning_rate") if rate else None,
    )


def _column(rows: Sequence[Row], name: str) -> np.ndarray:
    return np.array([float(row[name]) for row in rows])
