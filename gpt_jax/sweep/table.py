"""Results of a sweep as rows: one for each run, and one for each validation before the decay.

`runs.csv` holds them under the names that `gpt_jax.scaling.table` reads, so that `gpt-jax fit
runs.csv` needs no options. A trial without a result has a row as well: its state, and no loss.
Must not import jax.
"""

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from gpt_jax.config import Config, overrides
from gpt_jax.config.timetable import is_cooled, make_timetable
from gpt_jax.cost import flops
from gpt_jax.data.stream import unique_samples
from gpt_jax.runs.history import read_history
from gpt_jax.runs.tracking import Record
from gpt_jax.scaling.ladder import settings_of
from gpt_jax.storage import csv_cells
from gpt_jax.storage.atomic import write_atomically
from gpt_jax.storage.json_files import Damaged
from gpt_jax.sweep.stopping import Stop, read_stop

if TYPE_CHECKING:
    from gpt_jax.sweep.store import Entry, SweepDirectory

Row = dict[str, Any]
"""{column: value}; None = missing."""

CONVENTION = "N all parameters; C all products, as executed"
"""Meaning of n_params and flops, the columns that a fit reads by default."""
LOSS_UNIT = "nats per token"

FINAL, TRUNK = "final", "trunk"
"""`point` of a row: the end of a run, or a validation before its learning rate decays."""

FLOPS_COLUMNS = {"exact": "flops"} | {
    name: f"flops_{name}" for name in get_args(flops.Convention) if name != "exact"
}
"""{convention of gpt_jax.cost.flops: column}"""

COLUMNS = (
    "run", "sweep", "point", "state", "cooled",
    "n_params", "n_params_non_embedding", "n_params_matmul",
    "n_params_active", "n_tokens", "unique_tokens",
    *FLOPS_COLUMNS.values(),
    "loss", "loss_standard_error", "bits_per_byte", "validation_tokens", "best_loss", "train_loss",
    "batch_tokens", "n_steps", "n_steps_left_out", "learning_rate", "seed",
    "tokenizer", "vocab_size", "model_settings", "corpus", "convention", "loss_unit",
    "training_seconds", "fingerprint", "commit",
)  # fmt: skip
"""First columns of runs.csv; one for each key that the sweep varies follows."""
SCORES = ("score_", "bits_per_byte_")
"""Prefixes of columns of a task: its headline accuracy, and bits per byte of the right answers."""
STOP_COLUMNS = ("stopped_at_tokens", "stopped_by", "predicted_loss")
"""Columns of runs.csv where a trial was ever stopped early."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """A trial and what is known of it."""

    entry: "Entry"
    state: str
    message: str = ""
    """Why it did not finish."""
    result: Record | None = None
    """result.json"""
    facts: Record | None = None
    """config.json"""
    curve: np.ndarray = dataclasses.field(default_factory=lambda: np.empty((0, 2)))
    """(steps, 2): tokens, training loss"""
    validations: tuple[Record, ...] = ()
    stop: Stop | None = None
    """The note of a trial that was ever stopped early, also if it was finished since"""
    metrics: Path | None = None
    """metrics.jsonl"""

    @property
    def loss(self) -> float | None:
        """Final validation loss in nats per token."""
        return _number(self.result, "validation_loss")


def gather(sweep: "SweepDirectory") -> list[Measured]:
    """Every trial with what its directory holds; one whose files cannot be read is damaged."""
    found = []
    for entry in sweep.entries:
        try:
            found.append(_measured(sweep, entry))
        except Damaged as error:
            found.append(Measured(entry=entry, state="damaged", message=str(error)))
    return found


def _measured(sweep: "SweepDirectory", entry: "Entry") -> Measured:
    run, state = sweep.run(entry.name), sweep.state(entry.name)
    outcome, history = sweep.outcome(entry.name), read_history(run.metrics)
    return Measured(
        entry=entry,
        state=state,
        message="" if outcome is None or state == "done" else str(outcome["message"]),
        result=run.read_result() if state == "done" else None,
        facts=run.read_facts(),
        curve=np.stack([history.tokens, history.losses], axis=1),
        validations=tuple(history.validations),
        stop=read_stop(sweep, entry),
        metrics=run.metrics,
    )


def make_rows(sweep_name: str, trials: Sequence[Measured]) -> list[Row]:
    """A row for each trial, each followed by its points before the decay, in the sweep's order."""
    keys, scores = varied_keys(trials), dict.fromkeys(score_columns(trials))
    return [scores | row for trial in trials for row in _rows_of(sweep_name, trial, keys)]


def varied_keys(trials: Sequence[Measured]) -> list[str]:
    """The keys that the sweep sets, in the order in which they first appear."""
    return list(dict.fromkeys(key for trial in trials for key in trial.entry.varied))


def varied_value(trial: Measured, key: str) -> Any:
    """As declared; of a trial that does not declare it, the config's, or None."""
    if key in trial.entry.varied:
        return trial.entry.varied[key]
    return overrides.flatten(trial.entry.config).get(key)


def columns(trials: Sequence[Measured]) -> list[str]:
    """The header of runs.csv."""
    stops = STOP_COLUMNS if any(trial.stop for trial in trials) else ()
    return list(dict.fromkeys([*COLUMNS, *stops, *score_columns(trials), *varied_keys(trials)]))


def score_columns(trials: Sequence[Measured]) -> list[str]:
    """Two columns for each task that trials score along the way (evaluate.tasks)."""
    tasks = dict.fromkeys(task for trial in trials for task in trial.entry.config.evaluate.tasks)
    return [f"{prefix}{task}" for task in tasks for prefix in SCORES]


def to_csv(rows: Sequence[Row], header: Sequence[str]) -> str:
    """CSV text; what is missing is empty."""
    return csv_cells.as_csv(header, ([cell(row[name]) for name in header] for row in rows))


def write_runs(path: Path, rows: Sequence[Row], header: Sequence[str]) -> None:
    """runs.csv, whole or not at all."""
    write_atomically(path, to_csv(rows, header))


def cell(value: Any) -> str:
    """A value as text that reads back as the same number."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict | list | tuple):
        return json.dumps(value)
    return str(value)


def trunk_validations(trial: Measured) -> list[Record]:
    """Validations at the full learning rate: after warmup, before the decay, before the end.

    A schedule that decays from the start has none. A branch leaves them to its trunk, and a run
    that went wrong is believed nothing.
    """
    config, state = trial.entry.config, trial.state
    decays_at = {
        "constant": config.train.tokens,
        "wsd": config.train.tokens - config.schedule.cooldown_tokens,
    }.get(config.schedule.name, 0)
    if trial.entry.trunk is not None or state in ("diverged", "failed", "damaged"):
        return []
    n_tokens = make_timetable(config).n_tokens
    return [
        record
        for record in trial.validations
        if config.schedule.warmup_tokens <= record["tokens"] <= decays_at
        and record["tokens"] < n_tokens
        and _number(record, "validation_loss") is not None
    ]


def _rows_of(sweep_name: str, trial: Measured, keys: Sequence[str]) -> list[Row]:
    config, timetable = trial.entry.config, make_timetable(trial.entry.config)
    # What was done, where it is: a run may have stopped early, or changed its batch.
    n_steps = _number(trial.result, "n_steps") or timetable.n_steps
    n_tokens = _number(trial.result, "n_tokens") or timetable.n_tokens
    settings = {key: varied_value(trial, key) for key in keys}
    constant = settings | _settings(sweep_name, trial)
    final = constant | {
        "point": FINAL,
        "cooled": is_cooled(config),
        "n_steps": n_steps,
        "n_steps_left_out": _number(trial.result, "n_steps_left_out"),
        **_cost(trial, n_tokens),
        **_losses(trial.result),
        "best_loss": _number(trial.result, "best_validation_loss"),
        "train_loss": _number(trial.result, "train_loss"),
        "training_seconds": _number(trial.result, "training_seconds"),
    }
    points = [
        constant
        | {
            "point": TRUNK,
            "cooled": False,
            "n_steps": record["step"],
            "n_steps_left_out": None,
            **_cost(trial, record["tokens"]),
            **_losses(record),
            "best_loss": None,
            "train_loss": None,
            "training_seconds": None,
        }
        for record in trunk_validations(trial)
    ]
    return [*points, final]


def _settings(sweep_name: str, trial: Measured) -> Row:
    """Columns that all points of a run share."""
    config, entry = trial.entry.config, trial.entry
    counts = flops.count_parameters(config.model)
    return {
        "run": entry.name,
        "sweep": sweep_name,
        "state": trial.state,
        "n_params": counts.n_params,
        "n_params_non_embedding": counts.n_params_non_embedding,
        "n_params_matmul": counts.n_params_matmul,
        "n_params_active": counts.n_params_active,
        "batch_tokens": config.train.batch_sequences * config.model.seq_len,
        "learning_rate": config.optimizer.learning_rate,
        "seed": config.seed,
        "tokenizer": _tokenizer(config),
        "vocab_size": config.model.vocab_size,
        "model_settings": settings_of(config.model),
        "corpus": _corpus(trial),
        "convention": CONVENTION,
        "loss_unit": LOSS_UNIT,
        "fingerprint": entry.fingerprint,
        "commit": None if trial.facts is None else trial.facts["commit"],
        "stopped_at_tokens": None if trial.stop is None else trial.stop.n_tokens,
        "stopped_by": None if trial.stop is None else trial.stop.rule,
        "predicted_loss": None if trial.stop is None else trial.stop.predicted,
    }


def _cost(trial: Measured, n_tokens: int) -> Row:
    """D, the distinct tokens among them once a run has counted its text, and C by convention."""
    tokens = {"n_tokens": n_tokens, "unique_tokens": _unique_tokens(trial, n_tokens)}
    return tokens | {
        column: flops.training_flops(trial.entry.config.model, n_tokens, convention)
        for convention, column in FLOPS_COLUMNS.items()
    }


def _unique_tokens(trial: Measured, n_tokens: int) -> int | None:
    """The distinct ones among the first n_tokens; None where the run has not said.

    A corpus of a mixture may be read again and again while others are not (earlier versions did not
    write down what that takes to know).
    """
    config, facts = trial.entry.config, trial.facts or {}
    unique = _number(facts, "unique_tokens")
    if facts.get("mixture"):
        seq_len = config.model.seq_len
        return seq_len * unique_samples(facts["mixture"], config.seed, n_tokens // seq_len)
    if unique is None or len(config.data.mixture) > 1:
        return None
    return min(unique, n_tokens)


def _losses(record: Record | None) -> Row:
    """Losses of result.json or of a validation's record, under the table's names."""
    return {
        "loss": _number(record, "validation_loss"),
        "loss_standard_error": _number(record, "validation_loss_standard_error"),
        "bits_per_byte": _number(record, "validation_bits_per_byte"),
        "validation_tokens": _number(record, "validation_tokens"),
    } | {
        name.removeprefix("validation_"): _number(record, name)
        for name in record or ()
        if name.startswith(tuple(f"validation_{prefix}" for prefix in SCORES))
    }


def _number(record: Record | None, name: str) -> Any:
    """None for what is not there or not finite (`tracking.finite` writes it as text)."""
    value = None if record is None else record.get(name)
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def _tokenizer(config: Config) -> str:
    """Prepared shards bring their own; the corpus says which."""
    prepared = config.data.source in ("shards", "mixture")
    return "of the shards" if prepared else config.data.tokenizer


def _corpus(trial: Measured) -> str:
    """Its source, and the fingerprint of its tokens once a run has seen them."""
    data = trial.entry.config.data
    parts = [component.path for component in data.mixture] or [data.path]
    name = ":".join([data.source, *(p for p in [",".join(parts)] if p)])
    if trial.facts is None:
        return name
    return f"{name} ({', '.join(trial.facts['data'])})"
