"""`gpt-jax fit curve CURVES.csv|RUN`: loss curves under schedules, the best schedule, what remains.

Importing this module is quick. Must not import jax.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt_jax.scaling.arguments import names, pair, positive

if TYPE_CHECKING:
    from gpt_jax.scaling.curve import Curve, CurveFit
    from gpt_jax.scaling.laws import Array
    from gpt_jax.scaling.schedules import BestSchedule

DESCRIPTION = """\
The multi-power law (arXiv 2503.12811) of whole loss curves. A row is an evaluation: step, lr, loss,
and schedule (the curve it belongs to). Between rows the rate is linear; a change between rows of
constant rates is a jump at the second. Rows without a loss are predicted.
"""
EPILOG = """\
examples:
  gpt-jax fit curve curves.csv --train cosine_24000,constant_24000,wsdcon_9 --warmup 2160
  gpt-jax fit curve curves.csv --warmup 2160 --best-schedule 48000 --peak 3e-4 --json law.json
  gpt-jax fit curve runs/my_run --like law.json --then cosine:steps=20000,end=1e-4
"""
TABLE_OPTIONS = {
    "where": [], "name": "schedule", "step": "step", "rate": "lr", "loss": "loss", "warmup": 0,
}  # fmt: skip
"""Options that only a table has a use for, with their defaults."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `gpt-jax fit curve`."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("curves", metavar="CURVES.csv|RUN", help="a table, or a run's directory (metrics.jsonl)")
    add("--where", action="append", default=[], metavar="COLUMN=VALUE", help="only these rows")
    add("--name", default="schedule", metavar="COLUMN", help="the curve of a row (schedule)")
    add("--step", default="step", metavar="COLUMN")
    add("--rate", default="lr", metavar="COLUMN", help="learning rate (lr)")
    add("--loss", default="loss", metavar="COLUMN")
    add("--warmup", type=int, default=0, metavar="STEPS", help="linear from 0 (default none)")
    add("--train", action="append", metavar="CURVE[,CURVE]",
        help="curves to fit; the others are held out (default: all)")  # fmt: skip
    add("--best-schedule", type=int, metavar="STEPS", help="the best schedule of so many steps")
    add("--peak", type=positive, metavar="RATE", help="its peak (default: the curves')")
    add("--like", metavar="JSON", help="a law from --json: C, beta and gamma are taken from it, "
        "where the runs have not decayed enough to say them")  # fmt: skip
    add("--then", metavar="KIND:steps=N[,end=RATE]",
        help="how the run goes on: constant, cosine, linear or wsd, to N steps")  # fmt: skip
    add("--bootstrap", type=int, default=500, metavar="N", help="of drawn noise (500)")
    add("--seed", type=int, default=0)
    add("--json", metavar="OUT", help="write everything to this file")
    add("--plots", metavar="DIR", help="draw figures (PNG and SVG) into this directory")


def run(arguments: argparse.Namespace) -> int:
    """Fit, print, write; raises ValueError for a user's mistake."""
    from gpt_jax.scaling.curve import HELD, fit_curves, has_decayed
    from gpt_jax.scaling.schedules import best_schedule
    from gpt_jax.storage.atomic import write_json

    if arguments.peak and not arguments.best_schedule:
        raise ValueError("--peak is of --best-schedule, which is not given")
    curves = read_curves(arguments)
    train = names(arguments.train) if arguments.train else [c.name for c in curves]
    known = {curve.name for curve in curves}
    for name in train:
        if name not in known:
            raise ValueError(f"--train {name}: no such curve; there are {', '.join(sorted(known))}")
    like = _like(arguments.like) if arguments.like else None
    fitted = [curve for curve in curves if curve.name in train]
    decayed = any(has_decayed(curve) for curve in fitted)
    if not decayed and like is None:
        raise ValueError(
            "no fitted curve has decayed, so nothing says what a decay brings: give a law of "
            "another run with --like LAW.json (from --json)"
        )
    held = HELD if like is not None and decayed else (*HELD, "B") if like is not None else ()
    fit = fit_curves(
        fitted, like=like, held=held, n_refits=arguments.bootstrap, seed=arguments.seed
    )
    lines = text(fit, curves, train, held)
    best = None
    if arguments.best_schedule:
        if arguments.best_schedule <= arguments.warmup + 100:
            raise ValueError(
                f"--best-schedule {arguments.best_schedule}: needs over 100 steps after --warmup"
            )
        peak = arguments.peak or max(float(c.rates.max()) for c in fitted)
        best = best_schedule(fit.theta, arguments.best_schedule, arguments.warmup, peak)
        lines += schedule_text(best)
    print("\n".join(lines))
    if arguments.json:
        write_json(Path(arguments.json), to_json(fit, curves, train, best), allow_nan=False)
    if arguments.plots:
        from gpt_jax.scaling.form_plots import draw_curves

        for path in draw_curves(fit, curves, train, best, Path(arguments.plots)):
            print(f"drawn: {path}")
    return 0


def read_curves(arguments: argparse.Namespace) -> "list[Curve]":
    """Curves of a table or a run's directory, with the steps that are to come."""
    import numpy as np

    from gpt_jax.scaling.curve import Curve
    from gpt_jax.scaling.schedules import fill_rates
    from gpt_jax.scaling.wide import read_wide

    path = Path(arguments.curves)
    if path.is_dir():
        _refuse_columns(arguments)
        return [_go_on(*_run_records(path), path.name, arguments)]
    wide = read_wide(arguments.curves, [pair("--where", text) for text in arguments.where])
    steps = wide.numbers(arguments.step, "--step")
    rates = wide.numbers(arguments.rate, "--rate")
    loss = wide.numbers(arguments.loss, "--loss")
    label = np.array(
        wide.labels(arguments.name, "--name")
        if arguments.name in wide.columns
        else ["curve"] * len(steps)
    )
    curves = []
    for name in dict.fromkeys(label):
        rows = np.flatnonzero(label == name)
        if np.isnan(steps[rows]).any() or np.isnan(rates[rows]).any():
            raise ValueError(f"{name}: a row has no {arguments.step} or no {arguments.rate}")
        if (np.diff(steps[rows]) <= 0).any():
            raise ValueError(
                f"{name}: steps do not rise; several runs in one curve? give --name or --where"
            )
        at = steps[rows].astype(int)
        curves.append(Curve(name, fill_rates(at, rates[rows], arguments.warmup), at, loss[rows]))
    if arguments.then:
        if len(curves) > 1:
            raise ValueError("--then continues one curve; choose it with --where")
        only = curves[0]
        curves = [_go_on(only.steps, only.rates, only.loss, only.name, arguments)]
    return curves


def _refuse_columns(arguments: argparse.Namespace) -> None:
    """Raise ValueError for an option of tables: a run's records have their own names and rates."""
    for option, default in TABLE_OPTIONS.items():
        if vars(arguments)[option] != default:
            raise ValueError(f"--{option} is for tables; {arguments.curves} is a run's directory")


def _run_records(path: Path) -> "tuple[Array, Array, Array]":
    """Steps, the rate of each step, and losses of a run of this project."""
    import numpy as np

    from gpt_jax.scaling.curve import from_steps
    from gpt_jax.storage import tables

    # A last line without an end is still being written.
    whole = tables.read_text(path / "metrics.jsonl").rpartition("\n")[0]
    rows = tables.parse(whole, ".jsonl", str(path / "metrics.jsonl")).rows
    records = [r for r in rows
               if isinstance(r.get("loss"), float) and "learning_rate" in r]  # fmt: skip
    if not records:
        raise ValueError(f"{path}: metrics.jsonl holds no step")
    steps = np.array([r["step"] for r in records])
    rates = np.interp(np.arange(steps.max() + 1), steps, [r["learning_rate"] for r in records])
    curve = from_steps(str(path), steps, rates, np.array([r["loss"] for r in records]))
    return curve.steps, curve.rates, curve.loss


def _go_on(steps: Any, rates: Any, loss: Any, name: str, arguments: argparse.Namespace) -> "Curve":
    """The curve with the rest of its schedule, as --then says it."""
    import numpy as np

    from gpt_jax.scaling.arguments import number, pairs
    from gpt_jax.scaling.curve import Curve
    from gpt_jax.scaling.schedules import KINDS, make_schedule

    if not arguments.then:
        return Curve(name, rates, steps, loss)
    kind, _, rest = arguments.then.partition(":")
    values = {k: number("--then", v) for k, v in pairs("--then", rest).items()}
    if kind not in KINDS or "steps" not in values or set(values) - {"steps", "end"}:
        raise ValueError(f"--then {arguments.then}: expected {'|'.join(KINDS)}:steps=N[,end=RATE]")
    total, done = int(values["steps"]), int(steps.max()) + 1
    if total <= done:
        raise ValueError(f"--then steps={total}: the run is at step {done - 1} already")
    peak = float(rates[done - 1])
    after = make_schedule(kind, total - done, 0, peak, values.get("end", 0.1 * peak))
    more = np.unique(np.linspace(done, total - 1, 50).astype(int))
    return Curve(name, np.append(rates[:done], after), np.append(steps, more),
                 np.append(loss, np.full(more.size, np.nan)))  # fmt: skip


def _like(path: str) -> "Array":
    from gpt_jax.scaling.curve import SYMBOLS, from_parameters
    from gpt_jax.storage.json_files import read_object

    if not Path(path).is_file():
        raise ValueError(f"--like {path}: no such file")
    values = read_object(Path(path), "parameters")["parameters"]
    if not isinstance(values, dict) or set(values) != set(SYMBOLS):
        raise ValueError(f"--like {path}: its parameters are not {', '.join(SYMBOLS)}")
    for name, value in values.items():
        if not isinstance(value, int | float) or not (value > 0 or name == "gamma"):
            raise ValueError(f"--like {path}: {name} = {value}; allowed: numbers above 0")
    return from_parameters(values)


def text(
    fit: "CurveFit", curves: "list[Curve]", train: list[str], held: tuple[str, ...]
) -> list[str]:
    """The law for a terminal."""
    import numpy as np

    from gpt_jax.scaling.curve import DELTA, quality
    from gpt_jax.scaling.uncertainty import percentiles

    lines = [
        "multi-power law, L0 + A S(t)^-alpha + B sum of drops (arXiv 2503.12811, eq. 3)",
        f"  fitted to {', '.join(train)}: {sum(c.loss.size for c in fit.curves)} evaluations, "
        f"Huber delta {DELTA:g} of log loss",
    ]
    if near := _prior(held):
        lines.append(f"  a weak prior holds {near}: few curves leave these to each other")
    if fit.parameters["L0"] < 1e-6:
        lines.append("  warning: the curves leave no irreducible loss (L0 = 0)")
    samples = fit.samples
    for k, (name, number_) in enumerate(fit.parameters.items()):
        if name in held:
            lines.append(f"    {name:6s} {number_:<10.5g} held")
        elif samples.size:
            low, high = percentiles(samples[:, [k]])[0, 1]
            lines.append(f"    {name:6s} {number_:<10.5g} 95% [{low:.4g}, {high:.4g}]")
        else:
            lines.append(f"    {name:6s} {number_:.5g}")
    lines.append(
        f"    {'curve':24s} {'R2':>7s} {'mean off':>9s} {'worst off':>9s}  last: measured, law"
    )
    scores = []
    for curve in curves:
        known = np.isfinite(curve.loss)
        value, refits = fit.predict(curve)
        if known.sum() > 2:
            q = quality(fit, curve)
            what = "fitted" if curve.name in train else "held out"
            if curve.name not in train:
                scores.append(q)
            edges = _interval(refits[:, known][:, -1])
            lines.append(
                f"    {curve.name:24s} {q['r2']:7.4f} {q['mean_error']:9.3%} "
                f"{q['worst_error']:9.3%}"
                f"  {curve.loss[known][-1]:.4f} {value[known][-1]:.4f} {edges}  {what}"
            )
        if not known.all():
            lines.append(
                f"    {curve.name}: step {curve.steps[-1]}: predicted {value[-1]:.4f} "
                f"{_interval(refits[:, -1])}"
            )
    if scores:
        mean = {k: float(np.mean([q[k] for q in scores])) for k in scores[0]}
        lines.append(
            f"    {'held out, mean':24s} {mean['r2']:7.4f} {mean['mean_error']:9.3%} "
            f"{mean['worst_error']:9.3%}"
        )
    return lines


def _prior(held: tuple[str, ...]) -> str:
    """Centres of the prior on parameters that are not held, with a standard deviation each way;
    empty where all are held."""
    import numpy as np

    from gpt_jax.scaling.curve import LOGS, PRIOR, SYMBOLS

    parts = []
    for name, (centre, width) in PRIOR.items():
        if name not in held:
            edges = np.array([centre, centre - width, centre + width])
            middle, low, high = np.exp(edges) if SYMBOLS.index(name) in LOGS else edges
            parts.append(f"{name} near {middle:.3g} ({low:.3g} to {high:.3g})")
    return ", ".join(parts)


def _interval(samples: Any) -> str:
    import numpy as np

    if not samples.size:
        return ""
    low, high = np.percentile(samples, [2.5, 97.5])
    return f"95% [{low:.4f}, {high:.4f}]"


def schedule_text(best: "BestSchedule") -> list[str]:
    """The best schedule at a few of its steps, beside plain ones."""
    picked = range(0, best.steps.size, max(1, best.steps.size // 10))
    shown = ", ".join(f"{best.steps[k]:.0f}: {best.rates[k]:.3g}" for k in picked)
    others = ", ".join(f"{kind} {loss:.4f}" for kind, loss in best.others.items())
    return [
        f"  best schedule that never rises, {best.steps[-1] + 1:.0f} steps: "
        f"loss {best.loss:.4f} ({others}; these end at a tenth of the peak)",
        f"    rate at step {shown}",
    ]


def to_json(
    fit: "CurveFit", curves: "list[Curve]", train: list[str], best: "BestSchedule | None"
) -> dict[str, Any]:
    """Everything that is known of the law."""
    import numpy as np

    from gpt_jax.scaling.curve import quality

    document: dict[str, Any] = {"law": "multi-power", "parameters": fit.parameters, "fitted": train}
    samples = fit.samples
    if samples.size:
        document["intervals"] = {
            name: {"95": [float(v) for v in np.percentile(samples[:, k], [2.5, 97.5])]}
            for k, name in enumerate(fit.parameters)
        }
    document["curves"] = {}
    for curve in curves:
        value, refits = fit.predict(curve)
        entry: dict[str, Any] = {
            "steps": curve.steps.tolist(),
            "predicted": value.tolist(),
            "measured": [float(v) if np.isfinite(v) else None for v in curve.loss],
        }
        if refits.size:
            entry["predicted_95"] = np.percentile(refits, [2.5, 97.5], axis=0).T.tolist()
        if np.isfinite(curve.loss).sum() > 2:
            entry["quality"] = quality(fit, curve)
        document["curves"][curve.name] = entry
    if best is not None:
        document["best_schedule"] = {
            "steps": best.steps.tolist(), "rates": best.rates.tolist(), "loss": best.loss,
            "others": best.others,
        }  # fmt: skip
    return document
