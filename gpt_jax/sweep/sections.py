"""Sections of a sweep's page that only some sweeps have: two recipes compared, the next runs,
chains from loss to a task's score, trials stopped early, steps to a loss.

Each is built from the same rows as runs.csv, or says why it cannot be. Must not import jax.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpt_jax.runs.tracking import Record
from gpt_jax.scaling import next_runs
from gpt_jax.scaling.table import RunTable, read_runs
from gpt_jax.storage.json_files import Damaged, read_object
from gpt_jax.sweep import stopped, to_loss
from gpt_jax.sweep.missing import OPEN, finished_runs, missing_candidates, missing_rows
from gpt_jax.sweep.page_numbers import interval, number
from gpt_jax.sweep.table import FINAL, Measured, Row, varied_keys, varied_value

if TYPE_CHECKING:
    from gpt_jax.scaling.chain import Prediction, RunCurve

TARGET = 4.0
"""Compute at which the page's next runs are to make the loss known, as a multiple of the sweep's
dearest trial."""
MOST_NEXT = 8
NOT_A_RECIPE = (
    "budget.",
    "model.d_model",
    "model.n_layers",
    "model.n_heads",
    "train.",
    "seed",
    "law.",
)
"""Keys whose values are sizes and lengths."""
CHAIN_RUNS = 6
"""Runs that a chain's first step needs."""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of the page."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the page, its lines in the terminal and its document beside the page."""

    title: str
    name: str
    """Name of its JSON file and figures"""
    lines: Sequence[str]
    notes: Sequence[str]
    warnings: Sequence[str]
    tables: Sequence[Table]
    document: Record
    figures: Sequence[Path] = ()
    """SVG files"""


def make_sections(
    trials: Sequence[Measured],
    rows: Sequence[Row],
    directory: Path,
    loss: float | None,
    n_refits: int,
) -> tuple[list[Section], list[str]]:
    """The sections that the trials allow, and why others are not there.

    directory: of the report, with runs.csv. loss: to which steps are counted. Raises ValueError for
    a loss that is not above 0.
    """
    if loss is not None and not (loss > 0 and math.isfinite(loss)):
        raise ValueError(f"--to-loss {loss:g}; allowed: a loss above 0")
    found, why = [], []
    for section in (
        *([_to_loss(trials, loss)] if loss is not None else []),
        *_stopped(trials),
        *_compared(trials, directory),
        *_next(trials, rows),
        *_chains(trials, directory, n_refits),
    ):
        if isinstance(section, str):
            why.append(section)
        else:
            found.append(section)
    return found, why


def _to_loss(trials: Sequence[Measured], loss: float) -> Section:
    settings = to_loss.to_loss(trials, loss)
    table = Table(
        f"Tokens, FLOPs and seconds to a validation loss of {loss:g}: geometric mean over the "
        f"seeds that reach it, {to_loss.LEVEL}% interval",
        ["setting", "seeds", "tokens", "95%", "FLOPs", "95%", "seconds", "95%", "never"],
        to_loss.rows(settings),
    )
    return Section(
        "Steps to loss", "to-loss", to_loss.text(settings, loss), [], [], [table],
        to_loss.to_json(settings, loss),
    )  # fmt: skip


def _stopped(trials: Sequence[Measured]) -> Iterator[Section]:
    found = stopped.stopped_trials(trials)
    if found is None:
        return
    table = Table(
        "Trials stopped early",
        ["trial", "rule", "at", "predicted", "95%", "to beat", "finished"],
        [
            [
                t.run, t.stop.rule, f"{t.stop.share:.0%}", _loss(t.stop.predicted),
                "" if t.stop.low is None else f"[{t.stop.low:.4f}, {t.stop.high:.4f}]",
                _loss(t.stop.best), _loss(t.final_loss) + (" (wrong)" if t.wrong else ""),
            ]
            for t in found.trials
        ],
    )  # fmt: skip
    lines = stopped.text(found)
    notes = [lines[0], stopped.how_often(found)]
    yield Section("Stopped early", "stopped", lines, notes, [], [table], stopped.to_json(found))


def _loss(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def recipes(trials: Sequence[Measured]) -> dict[str, tuple[Any, Any]]:
    """{varied key that names a recipe: its two values}, of the finished trials."""
    done = [t for t in trials if t.loss is not None]
    found = {}
    for key in varied_keys(done):
        values = list(dict.fromkeys(varied_value(t, key) for t in done if _is_plain(t, key)))
        named = any(isinstance(v, str | bool) or v is None for v in values)
        if len(values) == 2 and named and not key.startswith(NOT_A_RECIPE):
            found[key] = (values[0], values[1])
    return found


def _is_plain(trial: Measured, key: str) -> bool:
    value = varied_value(trial, key)
    return value is None or isinstance(value, str | bool | int | float)


def _compared(trials: Sequence[Measured], directory: Path) -> Iterator[Section | str]:
    """A comparison for each key with two recipes."""
    from gpt_jax.scaling.compare import compare
    from gpt_jax.scaling.compare_plots import draw_comparison
    from gpt_jax.scaling.compare_report import text, to_json
    from gpt_jax.scaling.rungs import check_comparable, make_ladder

    for key, values in recipes(trials).items():
        short = key.removesuffix(".name").rsplit(".", 1)[-1]
        title = f"{short}: {_shown(values[0])} and {_shown(values[1])}"
        try:
            a, b = (
                make_ladder(f"{short} {_shown(v)}", _runs_of(trials, key, v, directory))
                for v in values
            )
            check_comparable(a, b, bits_per_byte=False, allow=[])
            result = compare(a, b)
        except ValueError as error:
            yield f"{title}: not compared: {error}"
            continue
        name = f"compare-{short.replace('_', '-')}"
        drawn = draw_comparison(result, directory / "figures" / name)
        rows = [
            [
                cost.kind, f"{cost.target.loss:.4f}", number(cost.target.cost, 3),
                number(cost.target.value, 3), interval(_nones(cost.target.intervals[95])),
            ]
            for cost in result.costs
        ]  # fmt: skip
        table = Table(
            f"How many times the cost A, {a.name}, needs for a loss of B, {b.name}",
            ["cost", "loss", "B spends", "times", "95%"], rows,
        )  # fmt: skip
        notes = [line for cost in result.costs for line in _tests(cost.checks, cost.kind)]
        notes += [*dict.fromkeys([*a.runs.notes, *b.runs.notes])]
        yield Section(
            f"Compared: {title}", name, [f"{title}:", *_indented(text(result))], notes,
            result.warnings, [table], to_json(result),
            [path for path in drawn if path.suffix == ".svg"],
        )  # fmt: skip


def _tests(checks: dict[str, float], kind: str) -> list[str]:
    return [f"{kind}: {question}: p = {p:.2g} (F-test)" for question, p in checks.items()]


def _nones(edges: tuple[float, float]) -> list[float | None]:
    return [None if math.isnan(edge) else edge for edge in edges]


def _shown(value: Any) -> str:
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _runs_of(trials: Sequence[Measured], key: str, value: Any, directory: Path) -> RunTable:
    """The rows of runs.csv whose trials have this value."""
    names = {t.entry.name for t in trials if varied_value(t, key) == value}
    runs = read_runs(directory / "runs.csv")
    return runs.take(np.array([run in names for run in runs.labels["run"]]))


def _next(trials: Sequence[Measured], rows: Sequence[Row]) -> Iterator[Section | str]:
    """The gain of each missing trial for the loss beyond the sweep, if any is missing."""
    if not any(row["point"] == FINAL and row["state"] in OPEN for row in rows):
        return
    try:
        runs, missing = finished_runs(rows, "the sweep"), missing_rows(rows, "the sweep")
        candidates = missing_candidates(rows, missing, next_runs.varies_rate(runs))
        target = TARGET * max(float(row["flops"]) for row in rows)
        found = next_runs.choose_next(
            runs, candidates, target, float(candidates.cost.sum()) * (1 + 1e-9), MOST_NEXT
        )
    except ValueError as error:
        yield f"next runs: not chosen: {error}"
        return
    lines = next_runs.text(found, float(candidates.cost.sum()))
    table = Table(
        f"The missing trials that say most of the loss at {target:.3g} FLOPs, {TARGET:g} times the "
        f"dearest trial, one after another",
        ["trial", "seconds", "standard deviation after", "narrower by"],
        [
            [
                found.name(pick), number(pick.cost, 3), f"{pick.after:.4f}",
                f"{1 - pick.after / pick.before:.0%}",
            ]
            for pick in found.chosen
        ],
    )  # fmt: skip
    rate = "" if found.learning_rate is None else f", learning rate {found.learning_rate:.3g}"
    notes = [
        f"The finished runs predict {found.loss:.4f} (N {found.n_params:.3g}{rate}), standard "
        f"deviation {found.deviation:.4f}, over {len(found.laws)} laws.",
        *runs.notes,
    ]
    notes += [f"Runs of both {key} count as one recipe that scatters." for key in recipes(trials)]
    if found.enough:
        notes.append("Another run buys nothing: none would narrow it by 1%.")
    yield Section(
        "Next runs", "next", lines, notes, [], [table] if found.chosen else [],
        next_runs.to_json(found),
    )  # fmt: skip


def task_scores(trials: Sequence[Measured], trials_directory: Path) -> dict[str, dict[str, float]]:
    """{task: {trial: accuracy}} of what `gpt-jax eval` wrote into the trials' directories."""
    found: dict[str, dict[str, float]] = {}
    for trial in trials:
        path = trials_directory / trial.entry.name / "evaluation" / "results.json"
        if trial.loss is None or not path.is_file():
            continue
        try:
            results = read_object(path, "results")["results"]
        except Damaged:
            continue
        for result in results:
            score = result.get("accuracy") if isinstance(result, dict) else None
            if isinstance(score, float) and math.isfinite(score):
                found.setdefault(str(result["task"]), {})[trial.entry.name] = score
    return found


def _chains(trials: Sequence[Measured], directory: Path, n_refits: int) -> Iterator[Section | str]:
    """(N, D) -> validation loss -> accuracy, for each task that enough trials have a score of."""
    from gpt_jax.scaling.chain import RunCurve, Settings, fit_chain
    from gpt_jax.scaling.form_plots import draw_chains

    chains = []
    for task, scores in task_scores(trials, directory.parent / "trials").items():
        if len(scores) < CHAIN_RUNS:
            yield f"chain of {task}: {len(scores)} trials have a score, {CHAIN_RUNS} are needed"
            continue
        runs = [_run_curve(t, scores[t.entry.name]) for t in trials if t.entry.name in scores]
        dearest = max(runs, key=lambda run: run.flops)
        empty, more = np.empty(0), TARGET**0.5
        target = RunCurve(
            "target", more * dearest.n_params, more * dearest.n_tokens, TARGET * dearest.flops,
            empty, empty,
        )  # fmt: skip
        settings = Settings(average=1, skip=0.0, n_refits=n_refits)
        try:
            chains.append(fit_chain(task, runs, target, settings))
        except ValueError as error:
            yield f"chain of {task}: not fitted: {error}"
    if not chains:
        return
    drawn = draw_chains(chains, directory / "figures")
    more = f"{TARGET:g} times the dearest run's compute"
    table = Table(
        f"Accuracy through the loss, for {more} (N and D each {TARGET**0.5:g} times)",
        ["task", "runs", "loss", "95%", "accuracy", "95%"],
        [[c.name, len(c.runs), *_predicted(c.loss), *_predicted(c.score)] for c in chains],
    )
    lines = [
        f"chain of {c.name}: at {more} loss {_text(c.loss)}, accuracy {_text(c.score)}"
        for c in chains
    ]
    document = {"chains": [
        {"task": c.name, "runs": [run.name for run in c.runs],
         "loss": c.loss and dataclasses.asdict(c.loss),
         "score": c.score and dataclasses.asdict(c.score)}
        for c in chains
    ]}  # fmt: skip
    yield Section(
        "From loss to scores", "chain", lines, [], [], [table], document,
        [path for path in drawn if path.suffix == ".svg"],
    )  # fmt: skip


def _predicted(found: "Prediction | None") -> list[Any]:
    """A value and its 95% interval."""
    if found is None:
        return ["", ""]
    return [number(found.value), interval(_nones(found.intervals.get(95, (math.nan, math.nan))))]


def _text(found: "Prediction | None") -> str:
    if found is None:
        return "unknown"
    edges = found.intervals.get(95)
    return f"{found.value:.4f}" + (f" 95% [{edges[0]:.4f}, {edges[1]:.4f}]" if edges else "")


def _run_curve(trial: Measured, score: float) -> "RunCurve":
    from gpt_jax.scaling.chain import RunCurve

    assert trial.result is not None
    return RunCurve(
        trial.entry.name,
        float(trial.result["n_params"]),
        float(trial.result["n_tokens"]),
        float(trial.result["flops"]),
        np.array([trial.result["validation_loss"]]),
        np.array([score]),
    )


def _indented(text: str) -> list[str]:
    return [f"  {line}".rstrip() for line in text.splitlines()]
