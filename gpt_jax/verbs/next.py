"""`gpt-jax next SWEEP|RUNS.csv --budget F --target C`: which runs to make next, and what each buys.

Imports numpy and the rest when it is run. Must not import jax.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt_jax.scaling.arguments import collect, pairs, positive

if TYPE_CHECKING:
    from gpt_jax.scaling.choose import Belief, Chosen
    from gpt_jax.scaling.laws import Array
    from gpt_jax.scaling.table import RunTable

EPILOG = """\
examples:
  gpt-jax next runs.csv --budget 1e20 --target 1e21 --json next.json
  gpt-jax next sweep.py --budget 7200 --target 1e14 --out next_sweep.py  # seconds of this machine
  gpt-jax next sweep.py --budget 64 --chip h100 --target 1e21  # chip-hours
"""
NEAR = (0.5, 1.0, 2.0)
"""Sizes around the best one at the target's compute, whose losses are the target."""
GRID_SIZES, GRID_TOKENS = 9, 9
MFU = 0.4
OPEN = ("pending", "preempted")
"""States of trials that can still be run; those that went wrong would again."""


@dataclass(frozen=True)
class Candidates:
    """Runs that could be made."""

    names: list[str]
    n_params: "Array"
    n_tokens: "Array"
    cost: "Array"
    unit: str


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
    from gpt_jax.scaling.choose import plan
    from gpt_jax.storage.atomic import write_json

    if arguments.most is not None and arguments.most < 1:
        raise ValueError(f"--most {arguments.most}; allowed: 1 or more")
    _check_out(arguments)
    is_sweep = Path(arguments.source).suffix == ".py" or Path(arguments.source).is_dir()
    runs, candidates = _from_sweep(arguments) if is_sweep else _from_table(arguments)
    belief, where, targets = _believe(runs, candidates, arguments.target)
    cost = _placed(candidates.cost, where, belief.mean.size)
    chosen, enough = plan(belief, targets, where, cost, arguments.budget, most=arguments.most)
    names = {int(place): candidates.names[k] for k, place in enumerate(where)}
    for note in runs.notes:
        print(note)
    print(_text(belief, targets, chosen, enough, names, candidates, arguments))
    if arguments.out and not chosen:
        print(f"{arguments.out}: not written, no run was chosen")
    elif arguments.out:
        _write_sweep(arguments, [names[pick.place] for pick in chosen], candidates)
    if arguments.json:
        write_json(
            Path(arguments.json),
            _json(belief, targets, chosen, enough, names, candidates),
            allow_nan=False,
        )
    return 0


def _check_out(arguments: argparse.Namespace) -> None:
    """Refuse what --out and --chip cannot do, before anything is computed."""
    source, out = Path(arguments.source), arguments.out and Path(arguments.out)
    if source.is_dir() and (out or arguments.chip) and not (source / "sweep.py").is_file():
        raise ValueError(f"{source}: --out and --chip need the sweep's file; give it instead")
    if out and out.exists() and HEADER not in out.read_text(errors="replace")[:200]:
        raise ValueError(f"--out {out}: there is another file; choose another name")


def _from_table(arguments: argparse.Namespace) -> tuple["RunTable", Candidates]:
    """The runs, and a grid over their sizes and tokens and up to three times beyond."""
    import numpy as np

    from gpt_jax.scaling.table import FLOPS_PER_PARAMETER_AND_TOKEN, read_runs, with_values

    columns = pairs("--columns", ",".join(arguments.columns))
    where = collect("--where", arguments.where)
    runs = read_runs(arguments.source, columns=columns, where=where)
    runs = with_values(runs, ["n_params", "n_tokens", "loss"])
    sizes, tokens = (
        np.geomspace(runs[name].min(), 3 * runs[name].max(), count)
        for name, count in (("n_params", GRID_SIZES), ("n_tokens", GRID_TOKENS))
    )
    n, d = (grid.ravel() for grid in np.meshgrid(sizes, tokens, indexing="ij"))
    ratio = d / n
    seen = runs["n_tokens"] / runs["n_params"]
    inside = (ratio >= seen.min() / 2) & (ratio <= seen.max() * 2)
    n, d = n[inside], d[inside]
    names = [f"N={a:.3g},D={b:.3g}" for a, b in zip(n, d, strict=True)]
    return runs, Candidates(names, n, d, FLOPS_PER_PARAMETER_AND_TOKEN * n * d, "FLOPs")


def _from_sweep(arguments: argparse.Namespace) -> tuple["RunTable", Candidates]:
    """The sweep's finished runs, and its trials without a result."""
    import numpy as np

    from gpt_jax.scaling.table import make_table
    from gpt_jax.sweep.cost import cost_rows
    from gpt_jax.sweep.load import read_sweep
    from gpt_jax.sweep.machine import named_chips
    from gpt_jax.sweep.status import find_directory
    from gpt_jax.sweep.store import SweepDirectory
    from gpt_jax.sweep.table import FINAL, gather, make_rows

    directory = find_directory(arguments.source, arguments.workdir)
    trials = gather(SweepDirectory.open(directory))
    rows = [r for r in make_rows(directory.name, trials) if r["point"] == FINAL and r["cooled"]]
    done = [r for r in rows if r["loss"] is not None]
    if len(done) < 3:
        raise ValueError(f"{directory} has {len(done)} finished runs; at least three are needed")
    kept = ("n_params", "n_tokens", "flops", "loss")
    runs = make_table(**{name: [float(r[name]) for r in done] for name in kept})
    missing = [r for r in rows if r["loss"] is None and r["state"] in OPEN]
    if not missing:
        raise ValueError(f"{directory}: no trial is missing; add trials to the sweep's grid")
    n, d, c = (np.array([float(r[name]) for r in missing]) for name in kept[:3])
    names = [str(r["run"]) for r in missing]
    if arguments.chip is not None:
        machine = named_chips(arguments.chip, 1)
        sweep = read_sweep(arguments.source, {})
        priced = cost_rows(
            sweep,
            directory,
            machine,
            lambda cfg, tokens: machine.seconds(cfg, tokens, arguments.mfu),
        )
        hours = {row.name: (row.seconds or np.inf) / 3600 for row in priced}
        cost = np.array([hours.get(name, np.inf) for name in names])
        return runs, Candidates(names, n, d, cost, f"{arguments.chip}-hours")
    timed = [r["training_seconds"] / r["flops"] for r in done if r["training_seconds"]]
    if not timed:
        raise ValueError("no finished run says how long it took; price the trials with --chip NAME")
    return runs, Candidates(names, n, d, float(np.median(timed)) * c, "s")


def _believe(
    runs: "RunTable", candidates: Candidates, target: float
) -> tuple["Belief", "Array", "Array"]:
    """Belief about candidates and target given the runs, and the places of both."""
    import numpy as np

    from gpt_jax.scaling.choose import believe
    from gpt_jax.scaling.table import cost_per_parameter_and_token

    made, ahead = len(runs), len(candidates.names)
    nd = np.log(target / cost_per_parameter_and_token(runs))
    ratio = np.log(runs["n_tokens"] / runs["n_params"])
    sizes = (nd - np.linspace(ratio.min(), ratio.max(), 25)) / 2
    places = np.concatenate(
        [
            np.log(np.stack([runs["n_params"], runs["n_tokens"]], 1)),
            np.log(np.stack([candidates.n_params, candidates.n_tokens], 1)),
            np.stack([sizes, nd - sizes], 1),
        ]
    )
    observed = np.arange(made)
    first = believe(places, observed, runs["loss"])
    best = sizes[int(np.argmin(first.mean[made + ahead :]))]
    near = best + np.log(NEAR)
    places = np.concatenate([places[: made + ahead], np.stack([near, nd - near], 1)])
    belief = believe(places, observed, runs["loss"])
    return belief, made + np.arange(ahead), made + ahead + np.arange(len(NEAR))


def _placed(cost: "Array", where: "Array", size: int) -> "Array":
    import numpy as np

    found = np.full(size, np.inf)
    found[where] = cost
    return found


def _text(
    belief: "Belief",
    targets: "Array",
    chosen: Sequence["Chosen"],
    enough: bool,
    names: dict[int, str],
    candidates: Candidates,
    arguments: argparse.Namespace,
) -> str:
    """For a terminal."""
    middle = float(belief.mean[targets[1]])
    lines = [
        f"at {arguments.target:.3g} FLOPs the runs predict a loss of {middle:.4f}, standard "
        f"deviation {belief.deviation(targets):.4f}, over {len(belief.weights)} laws:"
    ]
    top = sorted(belief.weights.items(), key=lambda law: -law[1])[:3]
    lines += [f"  {weight:.2f}  {name}" for name, weight in top]
    if chosen:
        width = max(len(names[pick.place]) for pick in chosen)
        head = f"  {'run':{width}s} {candidates.unit:>10s}  standard deviation after"
        lines.append(head)
    spent = 0.0
    for pick in chosen:
        spent += pick.cost
        share = 1 - pick.after / pick.before
        lines.append(
            f"  {names[pick.place]:{width}s} {pick.cost:10.3g}  {pick.after:.4f} ({-share:+.0%})"
        )
    count = "1 run" if len(chosen) == 1 else f"{len(chosen)} runs"
    lines.append(f"{count}, {spent:.3g} of {arguments.budget:.3g} {candidates.unit}")
    if enough:
        lines.append("another run buys nothing: none would narrow the target by 1%")
    elif not chosen:
        cheapest = float(candidates.cost.min())
        lines.append(f"the cheapest candidate costs {cheapest:.3g} {candidates.unit}")
    return "\n".join(lines)


def _json(
    belief: "Belief",
    targets: "Array",
    chosen: Sequence["Chosen"],
    enough: bool,
    names: dict[int, str],
    candidates: Candidates,
) -> dict[str, Any]:
    return {
        "predicted_loss": float(belief.mean[targets[1]]),
        "standard_deviation": belief.deviation(targets),
        "laws": belief.weights,
        "unit": candidates.unit,
        "runs": [
            {"run": names[p.place], "cost": p.cost, "before": p.before, "after": p.after}
            for p in chosen
        ],
        "another_run_buys_nothing": enough,
    }


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
"""(parameters, training tokens)"""


def get_sweep():
    """One trial a run, of the shape nearest to its size."""
    return make_trials(
        BASE,
        grid.zipped(
            ladder.by_parameters(BASE.model, [n for n, _ in RUNS]),
            grid.values("budget.tokens", [d for _, d in RUNS]),
        ),
    )
'''


def _write_sweep(
    arguments: argparse.Namespace, chosen: Sequence[str], candidates: Candidates
) -> None:
    """A file that `gpt-jax sweep run` takes."""
    from gpt_jax.storage.atomic import write_atomically

    source = str(Path(arguments.source).resolve())
    if candidates.unit == "FLOPs":
        places = [candidates.names.index(name) for name in chosen]
        runs = [(round(candidates.n_params[k]), round(candidates.n_tokens[k])) for k in places]
        text = SWEEP_OF_A_TABLE.format(source=arguments.source, runs=runs)
    else:
        text = SWEEP_OF_A_SWEEP.format(source=source, names=list(chosen))
    write_atomically(Path(arguments.out), text)
    print(f"written: {arguments.out}: gpt-jax sweep plan {arguments.out}")
