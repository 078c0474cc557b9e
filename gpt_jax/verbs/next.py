"""`gpt-jax next SWEEP|RUNS.csv --budget F --target C`: which runs to make next, and what each buys.

Imports numpy and the rest when it is run. Must not import jax.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from gpt_jax.scaling.arguments import collect, pairs, positive

if TYPE_CHECKING:
    from gpt_jax.scaling.next_runs import Candidates, Next
    from gpt_jax.scaling.table import RunTable

EPILOG = """\
examples:
  gpt-jax next runs.csv --budget 1e20 --target 1e21 --json next.json
  gpt-jax next sweep.py --budget 7200 --target 1e14 --out next_sweep.py  # seconds of this machine
  gpt-jax next sweep.py --budget 64 --chip h100 --target 1e21  # chip-hours
"""
MFU = 0.4
VARY = ("auto", "learning_rate", "none")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `gpt-jax next`."""
    parser.description = (
        "Choose the next runs: those from which a target's loss would be known best, for a budget."
    )
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("source", metavar="SWEEP|RUNS.csv", help="a sweep file (its missing trials are the "
        "candidates) or a table of runs (a grid of sizes and tokens is)")  # fmt: skip
    add("--budget", type=positive, required=True, metavar="F", help="FLOPs (6 N D) with a table; "
        "seconds of this machine with a sweep; chip-hours with --chip")  # fmt: skip
    add("--target", type=positive, required=True, metavar="C", help="compute, in FLOPs, at which "
        "the loss is wanted")  # fmt: skip
    add("--vary", choices=VARY, default="auto", help="whether the learning rate is a dimension of "
        "the choice (auto: where runs of one size and length have several)")  # fmt: skip
    add("--most", type=int, metavar="K", help="at most so many runs")
    add("--chip", metavar="NAME", help="a sweep's cost in hours of this chip")
    add("--mfu", type=positive, default=MFU, help=f"of the chip's peak (default {MFU})")
    add("--workdir", help="the sweep's directory (default: runs/NAME)")
    add("--columns", action="append", default=[], metavar="NAME=COLUMN[,...]",
        help="which column of the table is n_params, n_tokens, loss, ...")  # fmt: skip
    add("--where", action="append", default=[], metavar="COLUMN=VALUE", help="only such rows")
    add("--out", metavar="FILE.py", help="write a sweep file of the chosen runs")
    add("--json", metavar="OUT", help="write everything to this file")


def run(arguments: argparse.Namespace) -> int:
    """Choose, print, write; raises ValueError for a user's mistake."""
    from gpt_jax.scaling.next_runs import choose_next, text, to_json
    from gpt_jax.storage.atomic import write_json

    if arguments.most is not None and arguments.most < 1:
        raise ValueError(f"--most {arguments.most}; allowed: 1 or more")
    _check_out(arguments)
    is_sweep = Path(arguments.source).suffix == ".py" or Path(arguments.source).is_dir()
    runs, candidates = _from_sweep(arguments) if is_sweep else _from_table(arguments)
    for note in runs.notes:
        print(note)
    if arguments.vary == "auto" and candidates.learning_rate is not None:
        print(
            "runs of one size and length differ in learning rate, which is varied; --vary none: no"
        )
    found = choose_next(runs, candidates, arguments.target, arguments.budget, arguments.most)
    print("\n".join(text(found, arguments.budget)))
    if arguments.out and not found.chosen:
        print(f"{arguments.out}: not written, no run was chosen")
    elif arguments.out:
        _write_sweep(arguments, found)
    if arguments.json:
        write_json(Path(arguments.json), to_json(found), allow_nan=False)
    return 0


def _check_out(arguments: argparse.Namespace) -> None:
    """Refuse what --out and --chip cannot do, before anything is computed."""
    source, out = Path(arguments.source), arguments.out and Path(arguments.out)
    if source.is_dir() and (out or arguments.chip) and not (source / "sweep.py").is_file():
        raise ValueError(f"{source}: --out and --chip need the sweep's file; give it instead")
    if out and out.exists() and HEADER not in out.read_text(errors="replace")[:200]:
        raise ValueError(f"--out {out}: there is another file; choose another name")


def _from_table(arguments: argparse.Namespace) -> tuple["RunTable", "Candidates"]:
    """The runs, and a grid over their sizes and tokens (and learning rates) and beyond."""
    from gpt_jax.scaling.next_runs import grid_candidates
    from gpt_jax.scaling.table import read_runs, with_values

    columns = pairs("--columns", ",".join(arguments.columns))
    where = collect("--where", arguments.where)
    runs = read_runs(arguments.source, columns=columns, where=where)
    asked = ["learning_rate"] if arguments.vary == "learning_rate" else []
    runs = with_values(runs, ["n_params", "n_tokens", "loss", *asked])
    return runs, grid_candidates(runs, _with_rate(arguments, runs))


def _with_rate(arguments: argparse.Namespace, runs: "RunTable") -> bool:
    from gpt_jax.scaling.next_runs import varies_rate

    return varies_rate(runs) if arguments.vary == "auto" else arguments.vary == "learning_rate"


def _from_sweep(arguments: argparse.Namespace) -> tuple["RunTable", "Candidates"]:
    """The sweep's finished runs, and its trials without a result."""
    import numpy as np

    from gpt_jax.storage import places
    from gpt_jax.sweep.cost import cost_rows
    from gpt_jax.sweep.load import read_sweep
    from gpt_jax.sweep.machine import named_chips
    from gpt_jax.sweep.missing import (
        as_candidates,
        finished_runs,
        missing_candidates,
        missing_rows,
    )
    from gpt_jax.sweep.status import find_directory
    from gpt_jax.sweep.store import SweepDirectory
    from gpt_jax.sweep.table import gather, make_rows

    directory = places.on_disk(find_directory(arguments.source, arguments.workdir))
    rows = make_rows(directory.name, gather(SweepDirectory.open(directory)))
    runs = finished_runs(rows, str(directory))
    missing = missing_rows(rows, str(directory))
    with_rate = _with_rate(arguments, runs)
    if arguments.chip is None:
        return runs, missing_candidates(rows, missing, with_rate)
    machine = named_chips(arguments.chip, 1)
    priced = cost_rows(
        read_sweep(arguments.source, {}),
        directory,
        machine,
        lambda cfg, tokens: machine.seconds(cfg, tokens, arguments.mfu),
    )
    hours = {row.name: (row.seconds or np.inf) / 3600 for row in priced}
    cost = np.array([hours.get(str(row["run"]), np.inf) for row in missing])
    return runs, as_candidates(missing, cost, f"{arguments.chip}-hours", with_rate)


HEADER = "chosen by `gpt-jax next`"
"""First words of the files that --out writes; only such a file may be replaced."""
SWEEP_OF_A_SWEEP = '''"""The next runs of {source}, chosen by `gpt-jax next`."""

from gpt_jax.sweep.load import read_sweep

CHOSEN = {names!r}


def get_sweep():
    """The chosen trials of the sweep."""
    return [trial for trial in read_sweep({source!r}, {{}}).trials if trial.name in CHOSEN]
'''
SWEEP_OF_A_TABLE = '''"""The next runs of {source}, chosen by `gpt-jax next`.

The table does not say how its runs were configured: set BASE to their config.
"""

from gpt_jax.config import Config
from gpt_jax.sweep import grid, ladder
from gpt_jax.sweep.trial import make_trials

BASE = Config()
RUNS = {runs!r}
"""(parameters, training tokens{rate_named})"""


def get_sweep():
    """One trial a run, of the shape nearest to its size."""
    return make_trials(
        BASE,
        grid.zipped(
            ladder.by_parameters(BASE.model, [run[0] for run in RUNS]),
            grid.values("budget.tokens", [run[1] for run in RUNS]),
{rates}        ),
    )
'''
RATES = """            grid.values("optimizer.learning_rate", [run[2] for run in RUNS]),
"""


def _write_sweep(arguments: argparse.Namespace, found: "Next") -> None:
    """A file that `gpt-jax sweep run` takes."""
    from gpt_jax.scaling.next_runs import picked
    from gpt_jax.storage.atomic import write_atomically

    candidates, names = found.candidates, [found.name(pick) for pick in found.chosen]
    if candidates.unit == "FLOPs":
        columns: list[list[float]] = [
            [round(value) for value in picked(found, candidates.n_params)],
            [round(value) for value in picked(found, candidates.n_tokens)],
        ]
        rate = candidates.learning_rate
        if rate is not None:
            columns.append([float(f"{value:.4g}") for value in picked(found, rate)])
        text = SWEEP_OF_A_TABLE.format(
            source=arguments.source,
            runs=list(zip(*columns, strict=True)),
            rates="" if rate is None else RATES,
            rate_named="" if rate is None else ", learning rate",
        )
    else:
        source = str(Path(arguments.source).resolve())
        text = SWEEP_OF_A_SWEEP.format(source=source, names=names)
    write_atomically(Path(arguments.out), text)
    print(f"written: {arguments.out}: gpt-jax sweep plan {arguments.out}")
