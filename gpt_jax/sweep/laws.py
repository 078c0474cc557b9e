"""Which scaling laws a sweep's runs can carry, and their fits.

Must not import jax.
"""

import collections
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from gpt_jax.hints import counted
from gpt_jax.scaling.catalog import LawEntry, find_law
from gpt_jax.scaling.study import Options, Study, make_study
from gpt_jax.scaling.table import QUANTITIES, RunTable, pareto, read_runs
from gpt_jax.sweep.table import Measured, Row, varied_keys, varied_value

TRIED = ("chinchilla-isoflop", "chinchilla-parametric", "chinchilla-envelope", "compute-power")
"""Laws that are fitted to every sweep; the report says why where one does not apply."""
FEWEST_VALUES = 3
"""Fewest values of each variable of a law: an exponent has no meaning with fewer."""
ENOUGH_VALUES = 4
"""From which a law that is not always tried is tried."""
FEWEST_CURVES = 3
"""From which the envelope is one of curves, not of final losses."""


def fit_laws(
    path: Path,
    trials: Sequence[Measured],
    rows: Sequence[Row],
    laws: Sequence[str] | None,
    options: Options,
) -> tuple[list[Study], dict[str, str]]:
    """The studies of a runs.csv, and {law: why it was not fitted}.

    laws: by name, as the user asked for them; none = those that suit the sweep. Raises ValueError
    for an unknown name.
    """
    entries = [find_law(name) for name in (suitable(trials) if laws is None else laws)]
    if not any(row["loss"] is not None for row in rows):
        return [], {entry.name: "no trial is done yet" for entry in entries}
    tuned, note = best_settings(trials)
    studies, not_fitted = [], {}
    for entry in entries:
        try:
            runs = _runs_for(entry, path, rows, tuned, note)
            _require_values(entry, runs)
            study = make_study(entry, runs, options)
            _require_freedom(study)
            studies.append(study)
        except ValueError as error:
            not_fitted[entry.name] = str(error)
    return studies, not_fitted


def suitable(trials: Sequence[Measured]) -> list[str]:
    """Names of the laws to try without being asked."""
    done = [t for t in trials if t.loss is not None]
    varied = {key: len({repr(varied_value(t, key)) for t in done}) for key in varied_keys(done)}
    sizes = len({_size(t) for t in done})
    lengths = len({t.entry.config.train.tokens for t in done})
    names = list(TRIED)
    if sizes >= ENOUGH_VALUES and lengths == 1:
        names.append("kaplan-n")
    if sizes == 1 and lengths >= ENOUGH_VALUES:
        names.append("kaplan-d")
    several_computes = sizes * lengths > 1
    for key, name in (
        ("optimizer.learning_rate", "learning-rate-power"),
        ("train.batch_sequences", "batch-size-power"),
    ):
        if varied.get(key, 0) >= ENOUGH_VALUES and several_computes:
            names.append(name)
    return names


def best_settings(trials: Sequence[Measured]) -> tuple[set[str], str]:
    """Runs that a law of N, D and C is about, and a note if that leaves any out.

    Where runs of one size and length on the same data differ in what else the sweep varies (a
    learning rate, say), those of the setting with the lowest mean loss over seeds.
    """
    done = [t for t in trials if t.loss is not None]
    groups: dict[Any, dict[Any, list[Measured]]] = {}
    for trial in done:
        values = {key: repr(varied_value(trial, key)) for key in varied_keys(trials)}
        data = tuple(v for k, v in values.items() if k.startswith("data."))
        rest = tuple(v for k, v in values.items() if k != "seed" and not k.startswith("data."))
        place = (_size(trial), trial.entry.config.train.tokens, data)
        groups.setdefault(place, {}).setdefault(rest, []).append(trial)
    best = [min(settings.values(), key=_mean_loss) for settings in groups.values()]
    names = {trial.entry.name for runs in best for trial in runs}
    if len(names) == len(done):
        return names, ""
    return names, f"the best setting at each size and length: {len(names)} of {len(done)} runs"


def _runs_for(
    entry: LawEntry, path: Path, rows: Sequence[Row], tuned: set[str], note: str
) -> RunTable:
    """The part of the table that the law is about."""
    curves = entry.kind == "envelope" and _n_curves(rows) >= FEWEST_CURVES
    runs = read_runs(path, prefer=entry.prefer, where={"cooled": "false"} if curves else None)
    if curves or entry.kind == "optimum":
        return runs
    if note:
        runs = runs.take(np.array([run in tuned for run in runs.labels["run"]]), note)
    return pareto(runs) if entry.needs == ("flops",) else runs


def _n_curves(rows: Sequence[Row]) -> int:
    """Runs measured at two points or more before their decay."""
    points = [row["run"] for row in rows if row["loss"] is not None and not row["cooled"]]
    return sum(count > 1 for count in collections.Counter(points).values())


def _require_values(entry: LawEntry, runs: RunTable) -> None:
    """Raises ValueError where a formula would be fitted to one or two values of a variable, or
    what repetition is worth to runs without any."""
    if entry.kind != "loss":
        return
    knows = "unique_tokens" in entry.needs and "unique_tokens" in runs
    if knows and not (runs["n_tokens"] > runs["unique_tokens"]).any():
        raise ValueError("no run is known to read a token twice (data.unique_tokens)")
    for name in entry.needs:
        if name not in runs:
            continue  # the fit says how to name the column
        known = runs[name][~np.isnan(runs[name]) & ~np.isnan(runs["loss"])]
        count = np.unique(np.round(np.log(known), 2)).size
        if count < FEWEST_VALUES:
            raise ValueError(
                f"{counted(count, 'value')} of {name} ({QUANTITIES[name]}) in "
                f"the runs that it is about, at least {FEWEST_VALUES} are needed"
            )


def _require_freedom(study: Study) -> None:
    """Raises ValueError where a law passes through all of its runs, whatever they are."""
    if study.fit is not None and len(study.runs) <= study.fit.theta.size:
        raise ValueError(
            f"{len(study.runs)} runs for {study.fit.theta.size} parameters; more are needed"
        )


def _size(trial: Measured) -> int:
    assert trial.result is not None
    return int(trial.result["n_params"])


def _mean_loss(trials: Sequence[Measured]) -> float:
    return fmean(trial.loss for trial in trials if trial.loss is not None)
