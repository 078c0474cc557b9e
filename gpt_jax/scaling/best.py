"""The best setting of tuned quantities at each size and compute, for any law.

Must not import jax.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gpt_jax.scaling.table import Array, RunTable, with_values

SAME_COMPUTE = 1.02
"""Computes of one size within this factor are one budget, rounded to whole steps."""
CELL = ("n_params", "flops")
"""Columns in which the runs of a cell agree, besides the law's other variables and the group."""
MOST_NAMED = 3
"""Cells that a warning names."""


def best_over(
    runs: RunTable, names: Sequence[str], target: str = "loss", within: Sequence[str] = ()
) -> RunTable:
    """The best setting of these quantities (learning_rate, ...) in each cell of N and C.

    within: further quantities that a cell shares. Rows of one cell that share the values of
    `names` are seeds of one setting; the table returned has the setting with the lowest mean
    target, with all of its rows (the protocol of Porian et al. 2024). Warns where that is the
    lowest or the highest value tried. Raises ValueError for a quantity that the table lacks.
    """
    for name in names:
        if name in CELL or name in within or name == target:
            raise ValueError(f"--best-over {name}: {name} says which runs are compared, or how")
    given = dict.fromkeys((*CELL, *within))
    shared = [name for name in given if name in runs and name not in names]
    runs = with_values(runs, [target, *shared, *names])
    cells: dict[int, dict[tuple[float, ...], list[int]]] = {}
    for row, cell in enumerate(_cells(runs, shared)):
        setting = tuple(float(runs[name][row]) for name in names)
        cells.setdefault(int(cell), {}).setdefault(setting, []).append(row)
    kept: list[int] = []
    at_edge: list[tuple[str, int]] = []
    for settings in cells.values():
        best = min(settings, key=lambda s: runs[target][settings[s]].mean())
        kept += settings[best]
        tried = np.array(list(settings))
        for name, value, column in zip(names, best, tried.T, strict=True):
            if np.ptp(column) > 0 and value in (column.min(), column.max()):
                at_edge.append((name, settings[best][0]))
    what = " and ".join([name.replace("n_params", "N").replace("flops", "C") for name in shared])
    note = f"the best {', '.join(names)} at each of {len(cells)} {what}"
    table = runs.take(np.sort(kept), f"{note}: {len(kept)} of {len(runs)} runs")
    found = [_edge_warning(runs, name, at_edge, shared, len(cells)) for name in names]
    return replace(table, warnings=(*table.warnings, *filter(None, found)))


def _edge_warning(
    runs: RunTable, name: str, at_edge: list[tuple[str, int]], shared: list[str], n_cells: int
) -> str:
    rows = [row for which, row in at_edge if which == name]
    if not rows:
        return ""
    places = [" ".join(f"{s} = {runs[s][row]:.3g}" for s in shared) for row in rows[:MOST_NAMED]]
    more = f"; and {len(rows) - MOST_NAMED} more" if len(rows) > MOST_NAMED else ""
    return (
        f"the best {name} is the lowest or the highest that was tried in {len(rows)} of {n_cells} "
        f"cells, so a better one may lie beyond ({'; '.join(places)}{more})"
    )


def _cells(runs: RunTable, shared: Sequence[str]) -> Array:
    """(R): index of a row's cell; computes within SAME_COMPUTE are one."""
    exact = [runs[name] for name in shared if name != "flops"]
    exact.append(np.unique(runs.labels.get("group", ("",) * len(runs)), return_inverse=True)[1])
    compute = runs["flops"] if "flops" in shared else np.ones(len(runs))
    order = np.lexsort((compute, *exact))
    step = np.diff(np.log(compute[order])) > np.log(SAME_COMPUTE)
    for values in exact:
        step |= np.diff(values[order]) != 0
    cells = np.empty(len(runs), int)
    cells[order] = np.append(0, np.cumsum(step))
    return cells
