"""The tables that `gpt-jax table` knows, by name.

Must not import jax.
"""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from gpt_jax.published import chinchilla, laws, shapes
from gpt_jax.published.compare import Comparison
from gpt_jax.published.fits import Fits

CHINCHILLA_LAWS = ("chinchilla-envelope", "chinchilla-isoflop", "chinchilla-parametric")
KAPLAN_LAWS = ("kaplan-n", "kaplan-d", "kaplan-c", "critical-batch")


@dataclass(frozen=True)
class Table:
    """How a comparison is made."""

    build: Callable[[Fits], Comparison]
    laws: tuple[str, ...] = ()
    """Laws of `gpt-jax fit` whose parameters it compares."""


TABLES: Mapping[str, Table] = {
    "gpt1-architecture": Table(shapes.gpt1_architecture),
    "gpt1-table-2": Table(
        shapes.gpt1_scores("table_2_nli_accuracy", "GPT-1, Table 2: inference accuracy")
    ),
    "gpt1-table-3": Table(
        shapes.gpt1_scores("table_3_qa_accuracy", "GPT-1, Table 3: question answering")
    ),
    "gpt1-table-4": Table(
        shapes.gpt1_scores("table_4", "GPT-1, Table 4: similarity and classification")
    ),
    "gpt2-table-2": Table(shapes.gpt2_table_2),
    "gpt2-table-3": Table(shapes.gpt2_table_3),
    "gpt3-table-2.1": Table(shapes.gpt3_table_2_1),
    "gpt3-table-d1": Table(shapes.gpt3_table_d1),
    "gpt4-loss-law": Table(laws.gpt4_loss_law, ("compute-power",)),
    "kaplan-table-1": Table(shapes.kaplan_table_1),
    "kaplan-table-2": Table(laws.kaplan_table_2, ("kaplan-nd",)),
    "kaplan-table-3": Table(laws.kaplan_table_3, ("kaplan-ns",)),
    "kaplan-power-laws": Table(laws.kaplan_power_laws, KAPLAN_LAWS),
    "chinchilla-70b": Table(chinchilla.chinchilla_70b),
    "chinchilla-approach-3": Table(chinchilla.approach_3, ("chinchilla-parametric",)),
    "chinchilla-table-2": Table(chinchilla.table_2, CHINCHILLA_LAWS),
    "chinchilla-table-3": Table(chinchilla.table_3),
    "chinchilla-table-a3": Table(chinchilla.table_a3),
    "chinchilla-table-a4": Table(chinchilla.table_a4),
    "chinchilla-table-a9": Table(chinchilla.table_a9),
}


def find_table(name: str) -> Table:
    """The table of that name; raises ValueError naming the nearest."""
    if name not in TABLES:
        near = difflib.get_close_matches(name, TABLES, 1, 0.5)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise ValueError(f"no table '{name}'; there are {', '.join(TABLES)}{hint}")
    return TABLES[name]


def build_table(name: str, fits: Fits) -> Comparison:
    """The named comparison, with a note on each of our fits in it."""
    table = find_table(name)
    return replace(table.build(fits), notes=fits.notes(table.laws))


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
