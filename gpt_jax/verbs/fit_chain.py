"""`gpt-jax fit chain RUNS.csv`: scores of tasks predicted from size and data, by way of a loss.

Importing this module is quick. Must not import jax.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt_jax.scaling.arguments import names, number, pairs

if TYPE_CHECKING:
    from gpt_jax.scaling.chain import Chain, Prediction, RunCurve, Settings
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
KEYS = (
    "run", "n_params", "n_tokens", "flops_per_token", "fitted", "target", "average", "skip",
    "link", "tasks",
)  # fmt: skip
"""What a spec may hold."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `gpt-jax fit chain` understands."""
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
    from gpt_jax.scaling.chain import fit_chain
    from gpt_jax.scaling.wide import read_wide
    from gpt_jax.storage.atomic import write_json

    spec = _spec(arguments)
    settings = _settings(spec, arguments)
    wide = read_wide(arguments.runs)
    chains = []
    for name, columns in spec["tasks"].items():
        runs, target = _curves(wide, spec, columns)
        if len(runs) < 6:
            raise ValueError(
                f"{len(runs)} runs to fit; step 1 has 5 parameters and needs 6 or more"
            )
        chains.append(fit_chain(name, runs, target, settings))
    print("\n".join(text(chains)))
    if arguments.json:
        write_json(
            Path(arguments.json), {"chains": [to_json(chain) for chain in chains]}, allow_nan=False
        )
    if arguments.plots:
        from gpt_jax.scaling.form_plots import draw_chains

        for path in draw_chains(chains, Path(arguments.plots)):
            print(f"drawn: {path}")
    return 0


def _spec(arguments: argparse.Namespace) -> dict[str, Any]:
    from gpt_jax.storage.json_files import read_object

    given = vars(arguments)
    spec: dict[str, Any] = {
        "run": "run", "n_params": "n_params", "n_tokens": "n_tokens", "average": 5, "skip": 0.1,
        "link": "sigmoid",
    }  # fmt: skip
    if arguments.spec:
        if not Path(arguments.spec).is_file():
            raise ValueError(f"--spec {arguments.spec}: no such file")
        found = read_object(Path(arguments.spec))
        for key in found:
            if key not in KEYS:
                raise ValueError(f"{arguments.spec}: '{key}'; allowed: {', '.join(KEYS)}")
        spec |= found
    spec |= {key: given[key] for key in KEYS if key in given and given[key] is not None}
    if arguments.fitted:
        spec["fitted"] = names(arguments.fitted)
    if arguments.loss:
        spec["tasks"] = {arguments.loss: {"loss": arguments.loss}}
        if arguments.score:
            spec["tasks"][arguments.loss]["score"] = arguments.score
    if not spec.get("tasks"):
        raise ValueError("no task: name its column with --loss COLUMN (and --score COLUMN)")
    if arguments.at:
        spec["at"] = {k: number("--at", v) for k, v in pairs("--at", arguments.at).items()}
        if set(spec["at"]) != {"n_params", "n_tokens"} or min(spec["at"].values()) <= 0:
            raise ValueError(f"--at {arguments.at}: expected n_params=N,n_tokens=D, above 0")
        spec.pop("target", None)
    return spec


def _settings(spec: dict[str, Any], arguments: argparse.Namespace) -> "Settings":
    from gpt_jax.scaling.chain import Settings

    if spec["average"] < 1:
        raise ValueError(f"--average {spec['average']}; allowed: 1 or more")
    if not 0 <= spec["skip"] < 1:
        raise ValueError(f"--skip {spec['skip']}; allowed: from 0 to below 1")
    if arguments.bootstrap < 0:
        raise ValueError(f"--bootstrap {arguments.bootstrap}; allowed: 0 or more refits")
    return Settings(
        average=spec["average"], skip=spec["skip"], link=spec["link"],
        n_refits=arguments.bootstrap, seed=arguments.seed,
    )  # fmt: skip


def _curves(
    wide: "Wide", spec: dict[str, Any], columns: dict[str, Any]
) -> "tuple[list[RunCurve], RunCurve | None]":
    """Runs to fit, and the one to predict."""
    import math

    import numpy as np

    from gpt_jax.scaling.chain import RunCurve
    from gpt_jax.scaling.wide import by_pattern, matches

    label = np.array(wide.labels(spec["run"], "--run"))
    tokens = wide.numbers(spec["n_tokens"], "--n-tokens")
    loss = _mean(wide, columns["loss"], "--loss")
    score = _mean(wide, columns["score"], "--score") if "score" in columns else 0 * loss + np.nan
    patterns, target = spec.get("fitted", ["*"]), spec.get("target")
    if target is not None and target not in label:
        raise ValueError(f"--target {target}: {wide.path} has no such run in '{spec['run']}'")
    sizes = None
    if isinstance(spec["n_params"], str):
        sizes = wide.numbers(spec["n_params"], "--n-params")
    found, aim = [], None
    for name in dict.fromkeys(label):
        if name != target and not matches(name, patterns):
            continue
        rows = np.flatnonzero((label == name) & ~np.isnan(loss))
        if "score" in columns:
            rows = rows[~np.isnan(score[rows])]
        if not rows.size:
            raise ValueError(f"run {name}: no row has a number in {columns}")
        n = float(sizes[rows[-1]]) if sizes is not None else by_pattern(name, spec["n_params"])
        per_token = by_pattern(name, spec.get("flops_per_token", {}))
        if not n > 0:
            raise ValueError(f"run {name} has no n_params; give a column or a pattern in the spec")
        d = float(tokens[rows[-1]])
        curve = RunCurve(name, n, d, per_token * d, loss[rows], score[rows])
        if name == target:
            aim = curve
        else:
            found.append(curve)
    if "at" in spec:
        n, d = spec["at"]["n_params"], spec["at"]["n_tokens"]
        aim = RunCurve("target", n, d, math.nan, np.empty(0), np.empty(0))
    return found, aim


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
