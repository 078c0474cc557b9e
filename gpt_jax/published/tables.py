"""The tables that `gpt-jax table` knows, by name.

Must not import jax.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from gpt_jax.hints import did_you_mean
from gpt_jax.published import chinchilla, laws, scores, shapes, step_times
from gpt_jax.published.compare import Comparison
from gpt_jax.published.fits import Fits

CHINCHILLA_LAWS = ("chinchilla-envelope", "chinchilla-isoflop", "chinchilla-parametric")
KAPLAN_LAWS = ("kaplan-n", "kaplan-d", "kaplan-c", "critical-batch")


State = Literal["reproduced here", "reproduced at small scale here", "ready to run"]
HERE: State = "reproduced here"
SMALL: State = "reproduced at small scale here"
READY: State = "ready to run"


@dataclass(frozen=True)
class Table:
    """How a comparison is made."""

    build: Callable[[Fits], Comparison]
    laws: tuple[str, ...] = ()
    """Laws of `gpt-jax fit` whose parameters it compares."""
    state: State = HERE
    """`ready to run`: needs more than an ordinary machine; the folder says what and how."""
    folder: str = ""
    """Folder of the paper under experiments/."""


TABLES: Mapping[str, Table] = {
    "gpt1-architecture": Table(shapes.gpt1_architecture, folder="gpt1"),
    "gpt1-table-2": Table(
        shapes.gpt1_scores("table_2_nli_accuracy", "GPT-1, Table 2: inference accuracy"),
        state=READY, folder="gpt1",
    ),
    "gpt1-table-3": Table(
        shapes.gpt1_scores("table_3_qa_accuracy", "GPT-1, Table 3: question answering"),
        state=READY, folder="gpt1",
    ),
    "gpt1-table-4": Table(
        shapes.gpt1_scores("table_4", "GPT-1, Table 4: similarity and classification"),
        state=READY, folder="gpt1",
    ),
    "gpt2-table-2": Table(shapes.gpt2_table_2, folder="gpt2"),
    "gpt2-table-3": Table(lambda _: scores.gpt2_table_3(), state=READY, folder="gpt2"),
    "gpt3-table-2.1": Table(shapes.gpt3_table_2_1, folder="gpt3"),
    "gpt3-table-d1": Table(shapes.gpt3_table_d1, folder="gpt3"),
    "gpt4-loss-law": Table(laws.gpt4_loss_law, ("compute-power",), SMALL, "gpt4"),
    "kaplan-table-1": Table(shapes.kaplan_table_1, folder="kaplan2020"),
    "kaplan-table-2": Table(laws.kaplan_table_2, ("kaplan-nd",), SMALL, "kaplan2020"),
    "kaplan-table-3": Table(laws.kaplan_table_3, ("kaplan-ns",), SMALL, "kaplan2020"),
    "kaplan-power-laws": Table(laws.kaplan_power_laws, KAPLAN_LAWS, SMALL, "kaplan2020"),
    "chinchilla-70b": Table(chinchilla.chinchilla_70b, folder="chinchilla"),
    "chinchilla-approach-3": Table(
        chinchilla.approach_3, ("chinchilla-parametric",), SMALL, "chinchilla"
    ),
    "chinchilla-table-2": Table(chinchilla.table_2, CHINCHILLA_LAWS, SMALL, "chinchilla"),
    "chinchilla-table-3": Table(chinchilla.table_3, folder="chinchilla"),
    "chinchilla-table-a3": Table(chinchilla.table_a3, folder="chinchilla"),
    "chinchilla-table-a4": Table(chinchilla.table_a4, folder="chinchilla"),
    "chinchilla-table-a9": Table(chinchilla.table_a9, folder="chinchilla"),
    "step-times": Table(lambda _: step_times.step_times(), folder="plan"),
}  # fmt: skip


def find_table(name: str) -> Table:
    """The table of that name; raises ValueError naming the nearest."""
    if name not in TABLES:
        hint = did_you_mean(name, TABLES, cutoff=0.5)
        raise ValueError(f"no table '{name}'; there are {', '.join(TABLES)}{hint}")
    return TABLES[name]


def build_table(name: str, fits: Fits, scored: Sequence[scores.Scored] = ()) -> Comparison:
    """The named comparison, with a note on each of our fits in it.

    scored: evaluations of runs. Raises ValueError for a table that has no place for them.
    """
    table = find_table(name)
    state = f"state: {table.state} (experiments/{table.folder})"
    if scored:
        if name not in scores.BUILDERS:
            raise ValueError(
                f"{name} compares no evaluations; leave --results out (tables that do: "
                f"{', '.join(scores.BUILDERS)})"
            )
        return replace(scores.BUILDERS[name](scored), notes=(state,))
    built = table.build(fits)
    return replace(built, notes=(state, *built.notes, *fits.notes(table.laws)))


def listing() -> str:
    """Every table with its state and its folder, a line each."""
    width, states = max(map(len, TABLES)), max(len(table.state) for table in TABLES.values())
    return "\n".join(
        f"{name:{width}}  {table.state:{states}}  experiments/{table.folder}"
        for name, table in TABLES.items()
    )


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Plain values."""
    return {
        "title": comparison.title,
        "paper": comparison.paper,
        "conventions": comparison.conventions,
        "rows": [
            {"label": r.label, "cells": [asdict(c) for c in r.cells]} for r in comparison.rows
        ],
        "oddities": list(comparison.oddities),
        "notes": list(comparison.notes),
    }
