"""`gpt-jax fit hyperparameters RUNS.csv`: the best rate, batch and weight decay against N and D.

Importing this module is quick. Must not import jax.
"""

import argparse
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt_jax.scaling.arguments import pair, pairs, positive

if TYPE_CHECKING:
    from gpt_jax.scaling.bowls import Cell, Grid, PowerLaw

DESCRIPTION = """\
Laws of the best learning rate lr*(N, D), batch B*(D) and weight decay (of D / N) from grids: a
quadratic bowl over logarithms in each (N, D), and a power law through the minima; beside it one
surface for all cells, and Step Law's own way, through all runs near the best of their cell. How far
the exponents depend on the runs that count is printed.
"""
EPILOG = """\
examples:
  gpt-jax fit hyperparameters runs.csv
  gpt-jax fit hyperparameters steplaw_dense.csv.gz --tokens-per-sequence 2048 \\
      --columns n_params=N,n_tokens=D,loss='smooth loss',learning_rate=lr,batch_tokens=bs \\
      --at n_params=1e9,n_tokens=1e11
"""
WINDOWS = (0.005, 0.01, 0.02, 0.05, 0.1)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `gpt-jax fit hyperparameters`."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("runs", metavar="RUNS.csv")
    add(
        "--columns",
        action="append",
        default=[],
        metavar="NAME=COLUMN[,...]",
        help="which column is n_params, n_tokens, loss, learning_rate, batch_tokens, weight_decay",
    )
    add("--where", action="append", default=[], metavar="COLUMN=VALUE", help="only these rows")
    add("--tokens-per-sequence", type=positive, default=1.0, metavar="T",
        help="where batch_tokens counts sequences")  # fmt: skip
    add("--window", type=positive, default=0.02, metavar="SHARE",
        help="runs up to this share above a cell's lowest loss count (default 0.02)")  # fmt: skip
    add("--at", metavar="n_params=N,n_tokens=D", help="the best values for this run")
    add("--json", metavar="OUT", help="write everything to this file, which by_law of a sweep's "
        "grid takes")  # fmt: skip
    add("--plots", metavar="DIR", help="draw figures (PNG and SVG) into this directory")


def run(arguments: argparse.Namespace) -> int:
    """Fit, print, write; raises ValueError for a user's mistake."""
    from gpt_jax.scaling.bowls import cells_of, fit_cell, fit_near, fit_surface, law_through
    from gpt_jax.storage.atomic import write_json

    grid, notes = _read(arguments)
    rows = cells_of(grid)
    cells = [fit_cell(grid.take(r), arguments.window) for r in rows]
    by_bowls = {name: law_through(cells, name) for name in grid.hyper}
    by_surface = fit_surface(grid, arguments.window)
    ways = {"bowls": by_bowls, "surface": by_surface, "near": fit_near(grid)}
    spread = _over_windows(grid, rows)
    lines = [f"hyperparameters: {grid.loss.size} runs in {len(rows)} cells of (N, D)"]
    lines += [f"  {note}" for note in notes]
    lines += text(cells, ways, spread, arguments.window)
    lines += _at(arguments.at, by_bowls, by_surface, grid)
    print("\n".join(lines))
    if arguments.json:
        document = {
            "law": "hyperparameters", "window": arguments.window,
            "columns": pairs("--columns", ",".join(arguments.columns)),
            "cells": [vars(cell) for cell in cells],
            **{way: {k: law_json(v) for k, v in laws.items()} for way, laws in ways.items()},
            "over_windows": spread,
        }  # fmt: skip
        write_json(Path(arguments.json), document, allow_nan=False)
    if arguments.plots:
        from gpt_jax.scaling.form_plots import draw_bowls

        for path in draw_bowls(cells, by_bowls, by_surface, Path(arguments.plots)):
            print(f"drawn: {path}")
    return 0


def _read(arguments: argparse.Namespace) -> "tuple[Grid, list[str]]":
    import numpy as np

    from gpt_jax.scaling.bowls import VARIABLES, Grid
    from gpt_jax.scaling.table import stopped_early
    from gpt_jax.scaling.wide import read_wide

    wide = read_wide(arguments.runs, [pair("--where", text) for text in arguments.where])
    mapping = pairs("--columns", ",".join(arguments.columns))
    known = ("n_params", "n_tokens", "loss", *VARIABLES)
    for name in mapping:
        if name not in known:
            raise ValueError(f"--columns {name}: allowed are {', '.join(known)}")
    required = {n: wide.numbers(mapping.get(n, n), "--columns") for n in known[:3]}
    hyper = {
        name: wide.numbers(mapping.get(name, name), "--columns")
        for name in VARIABLES
        if mapping.get(name, name) in wide.columns or name in mapping
    }
    if "batch_tokens" in hyper:
        hyper["batch_tokens"] = hyper["batch_tokens"] * arguments.tokens_per_sequence
    whole = np.all([np.nan_to_num(v, nan=-1) > 0 for v in (*required.values(), *hyper.values())], 0)
    notes = []
    if not whole.all():
        states = wide.labels("state", "") if "state" in wide.columns else [""] * whole.size
        stopped = stopped_early([s for s, kept in zip(states, whole, strict=True) if not kept])
        notes = [f"{(~whole).sum()} rows without a number above 0 left out{stopped}"]
    varied = {n: v[whole] for n, v in hyper.items() if np.unique(v[whole]).size > 1}
    notes += [f"{n} has one value: no law of it" for n in hyper if n not in varied]
    if not varied:
        raise ValueError(f"{arguments.runs}: none of {', '.join(VARIABLES)} varies; see --columns")
    return Grid(varied, *(v[whole] for v in required.values())), notes


def _over_windows(grid: "Grid", rows: Any) -> dict[str, Any]:
    """Exponents and their 95% intervals by bowls and surface at several windows."""
    from gpt_jax.scaling.bowls import fit_cell, fit_surface, law_through

    found: dict[str, Any] = {name: [] for name in grid.hyper}
    for window in WINDOWS:
        cells = [fit_cell(grid.take(r), window) for r in rows]
        surface = fit_surface(grid, window)
        for name in grid.hyper:
            ways = {"surface": surface[name]}
            # Too few bowls in a narrow window: the other way is shown.
            with contextlib.suppress(ValueError):
                ways["bowls"] = law_through(cells, name)
            for way, law in sorted(ways.items()):
                found[name].append({
                    "window": window, "way": way, "exponents": list(law.exponents),
                    "95": [list(law.intervals(k)[95]) for k in range(len(law.exponents))],
                })  # fmt: skip
    return found


LETTERS = {"n_params": "N", "n_tokens": "D", "tokens_per_param": "(D/N)"}


def text(
    cells: "list[Cell]", ways: "dict[str, dict[str, PowerLaw]]", spread: dict[str, Any],
    window: float,
) -> list[str]:  # fmt: skip
    """The laws for a terminal."""
    from gpt_jax.scaling.bowls import NEAR

    out = [cell for cell in cells if cell.problem]
    lines = [
        f"  bowls over runs within {window:.2g} of a cell's lowest loss; "
        f"{len(cells) - len(out)} have a minimum; near: all runs within {NEAR:.2%} of it"
    ]
    lines += [f"    left out: N {c.n_params:.3g}, D {c.n_tokens:.3g}: {c.problem}" for c in out]
    for name in ways["bowls"]:
        for way, laws in ways.items():
            one = laws[name]
            powers = " ".join(
                f"{LETTERS[v]}^{e:.3f}" for v, e in zip(one.variables, one.exponents, strict=True)
            )
            edges = "; ".join(
                f"{LETTERS[v]} 80% [{one.intervals(k)[80][0]:.3f}, {one.intervals(k)[80][1]:.3f}] "
                f"95% [{one.intervals(k)[95][0]:.3f}, {one.intervals(k)[95][1]:.3f}]"
                for k, v in enumerate(one.variables)
            )
            lines.append(f"    {name:14s} by {way:7s} = {_scale(one):.3g} {powers}   {edges}")
    lines.append(
        f"  the same at windows {', '.join(f'{w:g}' for w in WINDOWS)} by bowls and surface"
    )
    for name, law in ways["bowls"].items():
        for k, variable in enumerate(law.variables):
            values = [one["exponents"][k] for one in spread[name]]
            low = min(one["95"][k][0] for one in spread[name])
            high = max(one["95"][k][1] for one in spread[name])
            lines.append(
                f"    {name:14s} exponent of {LETTERS[variable]:5s} {min(values):.3f} to "
                f"{max(values):.3f}; with their 95% intervals {low:.3f} to {high:.3f}"
            )
            own = law.intervals(k)[95]
            if high - low > 2 * (own[1] - own[0]):
                lines.append(
                    f"  warning: {name}: the exponent of {LETTERS[variable]} "
                    f"hangs on which runs count and how: say {low:.2f} to {high:.2f}, "
                    f"not {own[0]:.2f} to {own[1]:.2f}"
                )
    return lines


def _scale(law: "PowerLaw") -> float:
    import math

    return math.exp(law.log_scale)


def _at(
    given: str | None,
    by_bowls: "dict[str, PowerLaw]",
    by_surface: "dict[str, PowerLaw]",
    grid: "Grid",
) -> list[str]:
    from gpt_jax.scaling.arguments import number

    if not given:
        return []
    values = {k: number("--at", v) for k, v in pairs("--at", given).items()}
    if set(values) != {"n_params", "n_tokens"} or min(values.values()) <= 0:
        raise ValueError(f"--at {given}: expected n_params=N,n_tokens=D, above 0")
    n, d = values["n_params"], values["n_tokens"]
    shown = "; ".join(
        f"{name} {by_bowls[name].at(n, d):.4g} (surface {by_surface[name].at(n, d):.4g})"
        for name in by_bowls
    )
    lines = [f"  at N {n:g}, D {d:g}: {shown}"]
    for value, known, letter in ((n, grid.n_params, "N"), (d, grid.n_tokens, "D")):
        beyond = max(value / known.max(), known.min() / value)
        if beyond > 1:
            lines.append(f"  warning: {letter} is {beyond:.3g} times beyond the runs")
    return lines


def law_json(law: "PowerLaw") -> dict[str, Any]:
    """Scale, exponents and intervals of a law."""
    return {
        "scale": _scale(law),
        "exponents": dict(zip(law.variables, law.exponents, strict=True)),
        "intervals": {
            v: {str(level): list(edge) for level, edge in law.intervals(k).items()}
            for k, v in enumerate(law.variables)
        },
    }
