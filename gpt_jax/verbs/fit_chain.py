"""`gpt-jax fit chain RUNS.csv`: scores of tasks predicted from size and data, by way of a loss.

Importing this module is quick. Must not import jax.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt_jax.scaling.arguments import names, number, pairs

if TYPE_CHECKING:
    from gpt_jax.scaling.chain import Chain, Prediction, RunCurve
    from gpt_jax.scaling.chain_spec import ChainSpec, Task
    from gpt_jax.scaling.wide import Wide

DESCRIPTION = """\
(N, D) -> loss -> score. Step 1 fits E + A/N^alpha + B/D^beta to the mean of each run's last
evaluations; step 2 a sigmoid (or error = eps - k exp(-gamma L)) to all evaluations of the runs.
A row of the table is an evaluation; rows of one run stand in order.
"""
EPILOG = """\
examples:
  gpt-jax fit chain evals.csv --loss bpb --score accuracy --target 7B
  gpt-jax fit chain evals.csv --loss bpb --score accuracy --at n_params=7e9,n_tokens=4e12
  gpt-jax fit chain olmo_ladder.csv.gz --spec experiments/olmo_ladder/chain.json --plots figures
"""
OPTIONS = ("run", "n_params", "n_tokens", "target", "average", "skip", "link")
"""Options that stand for the spec's field of that name."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `gpt-jax fit chain`."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("runs", metavar="RUNS.csv", help="evaluations, one a row")
    add("--spec", metavar="JSON", help="several tasks, and N by patterns of run names; see the "
        "example; options given beside it win")  # fmt: skip
    add("--loss", metavar="COLUMN", help="the task's loss, such as bits per byte")
    add("--score", metavar="COLUMN", help="the task's score, 0 to 1; without one only step 1")
    add("--run", metavar="COLUMN", help="the run of a row (default run)")
    add("--n-params", metavar="COLUMN", help="default n_params")
    add("--n-tokens", metavar="COLUMN", help="default n_tokens")
    add("--fitted", action="append", metavar="PATTERN[,PATTERN]",
        help="runs to fit, with * and ? (default: all but the target)")  # fmt: skip
    add("--target", metavar="RUN", help="the run to predict, held out")
    add("--at", metavar="n_params=N,n_tokens=D", help="a run to predict that is not in the table")
    add("--average", type=int, metavar="K", help="evaluations averaged (default 5)")
    add("--skip", type=float, metavar="SHARE",
        help="of a run's first evaluations, left out of step 2 (default 0.1)")  # fmt: skip
    add("--link", choices=("sigmoid", "exponential"), help="step 2 (default sigmoid)")
    add("--bootstrap", type=int, default=1000, metavar="N", help="refits to resampled runs")
    add("--seed", type=int, default=0, help="of the resampling (default 0)")
    add("--json", metavar="OUT", help="write everything to this file")
    add("--plots", metavar="DIR", help="draw figures (PNG and SVG) into this directory")


def run(arguments: argparse.Namespace) -> int:
    """Fit, print, write; raises ValueError for a user's mistake."""
    from gpt_jax.scaling.chain import Settings, fit_chain
    from gpt_jax.scaling.wide import read_wide
    from gpt_jax.storage.atomic import write_json

    if arguments.bootstrap < 0:
        raise ValueError(f"--bootstrap {arguments.bootstrap}; allowed: 0 or more refits")
    spec = _spec(arguments)
    settings = Settings(
        average=spec.average, skip=spec.skip, link=spec.link, n_refits=arguments.bootstrap,
        seed=arguments.seed,
    )  # fmt: skip
    wide = read_wide(arguments.runs)
    chains, notes = [], []
    for name, task in spec.tasks.items():
        runs, target, note = _curves(wide, spec, task)
        notes += [f"  {name}: {note}"] if note else []
        if len(runs) < 6:
            raise ValueError(
                f"{len(runs)} runs to fit; step 1 has 5 parameters and needs 6 or more"
            )
        chains.append(fit_chain(name, runs, target, settings))
    print("\n".join([*text(chains), *notes]))
    if arguments.json:
        write_json(
            Path(arguments.json), {"chains": [to_json(chain) for chain in chains]}, allow_nan=False
        )
    if arguments.plots:
        from gpt_jax.scaling.form_plots import draw_chains

        for path in draw_chains(chains, Path(arguments.plots)):
            print(f"drawn: {path}")
    return 0


def _spec(arguments: argparse.Namespace) -> "ChainSpec":
    """The spec file with the options that win over it; raises ValueError for what is wrong."""
    from gpt_jax.scaling.chain_spec import make_spec
    from gpt_jax.storage.json_files import read_object

    values: dict[str, Any] = {}
    if arguments.spec:
        if not Path(arguments.spec).is_file():
            raise ValueError(f"--spec {arguments.spec}: no such file")
        values = dict(read_object(Path(arguments.spec)))
    given = {key: value for key, value in vars(arguments).items() if value is not None}
    values |= {key: given[key] for key in OPTIONS if key in given}
    if arguments.fitted:
        values["fitted"] = names(arguments.fitted)
    if arguments.loss:
        task = {"loss": arguments.loss} | ({"score": arguments.score} if arguments.score else {})
        values["tasks"] = {arguments.loss: task}
    elif arguments.score:
        raise ValueError("--score belongs to --loss, which is not given")
    if "tasks" not in values:
        raise ValueError("no task: name its column with --loss COLUMN (and --score COLUMN)")
    if arguments.at:
        if arguments.target:
            raise ValueError("--target and --at are two runs to predict; give one")
        values["at"] = {k: number("--at", v) for k, v in pairs("--at", arguments.at).items()}
    return make_spec(values, arguments.spec or "options")


def _curves(
    wide: "Wide", spec: "ChainSpec", task: "Task"
) -> "tuple[list[RunCurve], RunCurve | None, str]":
    """Runs to fit, the one to predict, and a note of evaluations that lack a number."""
    import math

    import numpy as np

    from gpt_jax.scaling.chain import RunCurve
    from gpt_jax.scaling.wide import by_pattern, matches

    label = np.array(wide.labels(spec.run, "--run"))
    tokens = wide.numbers(spec.n_tokens, "--n-tokens")
    loss = _mean(wide, task.loss, "--loss")
    score = np.full(loss.size, np.nan)
    if task.score is not None:
        score = _mean(wide, task.score, "--score")
    if spec.target is not None and spec.target not in label:
        raise ValueError(f"--target {spec.target}: {wide.path} has no such run in '{spec.run}'")
    sizes = None
    if isinstance(spec.n_params, str):
        sizes = wide.numbers(spec.n_params, "--n-params")
    lacking = np.isnan(loss) | (np.isnan(score) & (task.score is not None))
    found, aim, left_out = [], None, 0
    for name in dict.fromkeys(label):
        is_aim = spec.at is None and name == spec.target
        if not is_aim and (name == spec.target or not matches(name, spec.fitted)):
            continue
        left_out += int((lacking & (label == name)).sum())
        rows = np.flatnonzero((label == name) & ~lacking)
        if not rows.size:
            raise ValueError(f"run {name}: no row has a number in {task.loss}, {task.score}")
        n = by_pattern(name, spec.n_params) if sizes is None else float(sizes[rows[-1]])  # type: ignore[arg-type]
        d = float(tokens[rows[-1]])
        for value, what in ((n, "n_params"), (d, "n_tokens")):
            if not 0 < value < math.inf:
                raise ValueError(
                    f"run {name} has no {what} above 0: see --{what.replace('_', '-')}"
                )
        per_token = by_pattern(name, spec.flops_per_token)
        curve = RunCurve(name, n, d, per_token * d, loss[rows], score[rows])
        if is_aim:
            aim = curve
        else:
            found.append(curve)
    if spec.at is not None:
        nothing = np.empty(0)
        aim = RunCurve("target", spec.at.n_params, spec.at.n_tokens, math.nan, nothing, nothing)
    return (
        found,
        aim,
        f"{left_out} evaluations lack a loss or a score: left out" if left_out else "",
    )


def _mean(wide: "Wide", columns: Any, option: str) -> Any:
    """A column, or the weighted mean of several."""
    if isinstance(columns, str):
        return wide.numbers(columns, option)
    total = sum(columns.values())
    return sum(weight / total * wide.numbers(name, option) for name, weight in columns.items())


def text(chains: "list[Chain]") -> list[str]:
    """The chains for a terminal."""
    first = chains[0]
    n_points = first.points[0].size
    lines = [
        f"chain: {len(first.runs)} runs; step 1 {first.step1.law.formula} on the mean of the last "
        f"{first.settings.average} evaluations; step 2 on {n_points} evaluations: "
        f"{first.link.formula if first.link else 'none'}"
    ]
    if first.target is not None:
        lines.append(
            f"  target {first.target.name}: N {first.target.n_params:,.0f}, "
            f"D {first.target.n_tokens:,.0f}; [95% of the law] (95% of a measurement)"
        )
    lines += _table(chains, "step 1: loss", "loss", 0)
    lines += _table(chains, "step 2: score at the measured loss", "score_from_loss", 1)
    lines += _table(chains, "chained: score from N and D", "score", 1)
    lines += _table(chains, "chained: score from FLOPs alone", "score_by_flops", 1)
    lines += ["  parameters"]
    width = max(len(chain.name) for chain in chains)
    for chain in chains:
        step1 = ", ".join(f"{k} {v:.4g}" for k, v in chain.step1.parameters.items())
        step2 = ""
        if chain.link:
            pairs_ = zip(chain.link.symbols, chain.theta2[0], strict=True)
            step2 = "; " + ", ".join(f"{k} {v:.4g}" for k, v in pairs_)
        lines.append(f"    {chain.name:{width}s} {step1}{step2}")
    return lines + _warnings(chains)


def _warnings(chains: "list[Chain]") -> list[str]:
    import math

    found = []
    for chain in chains:
        if chain.step1.parameters["E"] < 1e-6:
            found.append(f"{chain.name}: the runs leave no irreducible loss (E = 0)")
        if chain.target is not None and chain.loss is not None:
            low = min(float(run.loss.min()) for run in chain.runs)
            if chain.loss.value < low:
                found.append(
                    f"{chain.name}: predicted loss {chain.loss.value:.4g} is below every fitted "
                    f"evaluation ({low:.4g}): step 2 is extrapolated"
                )
        if chain.score is not None and math.isfinite(chain.actual[1]) and chain.score.with_noise:
            low, high = chain.score.with_noise[95]
            if not low <= chain.actual[1] <= high:
                found.append(
                    f"{chain.name}: measured {chain.actual[1]:.4g} lies outside the 95% interval "
                    f"[{low:.4g}, {high:.4g}]: the chain's form is off, which no interval holds"
                )
    return [f"  warning: {line}" for line in found]


def _table(chains: "list[Chain]", title: str, field: str, which: int) -> list[str]:
    import math

    rows = []
    for chain in chains:
        predicted: Prediction | None = vars(chain)[field]
        if predicted is not None:
            actual = chain.actual[which]
            rows.append((chain.name, predicted, actual))
    if not rows:
        return []
    width = max(len(row[0]) for row in rows)
    lines = [f"  {title}", f"    {'task':{width}s} {'predicted':>9s}  {'actual':>7s}  {'off':>7s}"]
    for name, predicted, actual in rows:
        known = math.isfinite(actual)
        off = f"{predicted.value / actual - 1:+.1%}" if known else "-"
        shown = f"{actual:.5f}" if known else "-"
        edges = ""
        if predicted.intervals:
            (a, b), (c, d) = predicted.intervals[95], predicted.with_noise[95]
            edges = f"  [{a:.4f}, {b:.4f}] ({c:.4f}, {d:.4f})"
        lines.append(f"    {name:{width}s} {predicted.value:9.5f}  {shown:>7s}  {off:>7s}{edges}")
    return lines


def to_json(chain: "Chain") -> dict[str, Any]:
    """Everything that is known of a chain, without infinities."""
    import math

    loss, score = (v if math.isfinite(v) else None for v in chain.actual)
    predictions = {}
    for field in ("loss", "score_from_loss", "score", "score_by_flops"):
        value: Prediction | None = vars(chain)[field]
        if value is not None:
            predictions[field] = {
                "value": value.value,
                "intervals": {str(k): list(v) for k, v in value.intervals.items()},
                "intervals_of_a_measurement": {
                    str(k): list(v) for k, v in value.with_noise.items()
                },
            }
    link = (
        dict(zip(chain.link.symbols, map(float, chain.theta2[0]), strict=True))
        if chain.link
        else {}
    )
    return {
        "task": chain.name,
        "runs": [run.name for run in chain.runs],
        "step1": chain.step1.parameters,
        "step2": {"formula": chain.link.formula if chain.link else None, **link},
        "noise_of_an_evaluation": [v if math.isfinite(v) else None for v in chain.noise],
        "actual": {"loss": loss, "score": score},
        "predictions": predictions,
    }
