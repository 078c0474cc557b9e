"""A sweep's directories made by hand: runs under a planted law, without training anything."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gpt_jax.config import (
    Config,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
    overrides,
)
from gpt_jax.config.timetable import make_timetable
from gpt_jax.cost import flops
from gpt_jax.runs.directory import RunDirectory

TRUTH = {"E": 1.7, "A": 12.0, "B": 60.0, "alpha": 0.30, "beta": 0.32}
"""Chinchilla's law, at sizes of 10^4 to 10^6."""
NOISE = 0.002
UNCOOLED_EXCESS = 0.06
"""Nats by which a loss before the cooldown lies above the law."""
BEST_RATE = 3e-3


@dataclasses.dataclass(frozen=True)
class Entry:
    """As `gpt_jax.sweep.store` has it."""

    name: str
    fingerprint: str
    varied: Mapping[str, Any]
    trunk: str | None
    config: Config


class SimulatedSweep:
    """The interface of `store.SweepDirectory` on hand-made directories."""

    def __init__(self, path: Path):
        self.path = self.place = path
        self.entries: tuple[Entry, ...] = ()
        self.rng = np.random.default_rng(0)

    def refresh(self) -> None:
        """Nothing: it is on a disk."""

    def run(self, name: str) -> RunDirectory:
        return RunDirectory(self.path / "trials" / name)

    def state(self, name: str) -> str:
        outcome = self.outcome(name)
        if self.run(name).result.exists():
            return "done"
        return "pending" if outcome is None else str(outcome["state"])

    def outcome(self, name: str) -> dict[str, Any] | None:
        path = self.run(name).path / "outcome.json"
        return json.loads(path.read_text()) if path.exists() else None

    def add(self, config: Config, varied: Mapping[str, Any], trunk: str | None = None) -> Entry:
        """A pending trial."""
        entry = Entry(config.name, overrides.fingerprint(config), varied, trunk, config)
        self.entries = (*self.entries, entry)
        return entry

    def fail(self, entry: Entry, state: str, message: str, share: float = 0.3) -> None:
        """The trial stops after part of its steps, its loss gone."""
        self._write(entry, share)
        outcome = {"state": state, "message": message, "attempts": 1}
        (self.run(entry.name).path / "outcome.json").write_text(json.dumps(outcome))

    def finish(
        self,
        entry: Entry,
        *,
        cooled: bool = True,
        excess: float = 0.0,
        validations: int = 1,
        worth: float = 1.0,
    ) -> float:
        """The trial trains to its end; returns its final loss.

        worth: of how many times the compute its losses are.
        """
        config, run = entry.config, self.run(entry.name)
        records = self._write(entry, 1.0, validations, excess, worth)
        last, counts = records[-1], flops.count_parameters(config.model)
        result = {
            "name": entry.name,
            "fingerprint": entry.fingerprint,
            "cooled": cooled,
            "n_params": counts.n_params,
            "n_tokens": last["tokens"],
            "flops": flops.training_flops(config.model, last["tokens"]),
            "train_loss": last["validation_loss"] - 0.02,
            **{k: v for k, v in last.items() if k.startswith("validation_")},
            "training_seconds": flops.training_flops(config.model, last["tokens"]) / 4e10,
        }
        run.result.write_text(json.dumps(result))
        return last["validation_loss"]

    def _write(
        self,
        entry: Entry,
        share: float,
        validations: int = 0,
        excess: float = 0.0,
        worth: float = 1.0,
    ) -> list[dict[str, Any]]:
        """config.json and metrics.jsonl; returns the records of the validations."""
        config, run = entry.config, self.run(entry.name)
        run.path.mkdir(parents=True)
        facts = {
            "fingerprint": entry.fingerprint,
            "commit": "0123456789ab",
            "data": ["feedc0ffee00"],
        }
        run.config.write_text(json.dumps({"config": overrides.to_dict(config), **facts}))
        timetable = make_timetable(config)
        n_steps = int(timetable.n_steps * share)
        steps = np.unique(np.linspace(1, n_steps, 200).astype(int))
        records: list[dict[str, Any]] = []
        before, per_token = 0, flops.training_flops_per_token(config.model)
        for step in steps.tolist():
            tokens = timetable.tokens_before(step)
            seconds, before = (tokens - before) * per_token / 4e10, tokens
            loss = planted_loss(config.model, tokens, worth) + excess
            loss += 0.05 * self.rng.standard_normal()
            record = {"step": step, "tokens": tokens, "loss": min(loss, 8.0)}
            records.append({**record, "step_seconds": seconds})
        if share < 1:
            records[-1]["loss"] = "nan"
        found = []
        for step in [n_steps * (k + 1) // validations for k in range(validations)]:
            tokens = timetable.tokens_before(step)
            noise = NOISE * self.rng.standard_normal()
            loss = (planted_loss(config.model, tokens, worth) + excess) * np.exp(noise)
            found.append(
                {
                    "step": step, "tokens": tokens, "validation_loss": loss,
                    "validation_loss_standard_error": 0.0031,
                    "validation_bits_per_byte": loss / np.log(2) / 3.7,
                    "validation_tokens": 65536,
                }
            )  # fmt: skip
        with run.metrics.open("w") as file:
            file.writelines(json.dumps(record) + "\n" for record in [*records, *found])
        return found


def planted_loss(model: ModelConfig, tokens: float, worth: float = 1.0) -> float:
    """worth: of how many times the compute, half of it in size."""
    t, n = TRUTH, flops.count_parameters(model).n_params * worth**0.5
    return t["E"] + t["A"] / n ** t["alpha"] + t["B"] / (tokens * worth**0.5) ** t["beta"]


def make_config(name: str, width: int, tokens: int, **changes: Any) -> Config:
    """A small model of a width, on so many tokens; changes: of dotted keys, `.` written `__`."""
    config = Config(
        name=name,
        model=ModelConfig(vocab_size=256, seq_len=64, n_layers=2, d_model=width, n_heads=2),
        data=DataConfig(source="stdlib", tokenizer="byte"),
        train=TrainConfig(tokens=tokens, batch_sequences=8),
        optimizer=OptimizerConfig(learning_rate=BEST_RATE),
        schedule=ScheduleConfig(name="cosine"),
    )
    return overrides.override(config, {k.replace("__", "."): v for k, v in changes.items()})


WIDTHS = (16, 24, 32, 48, 64, 96)
BUDGETS = (1e11, 3e11, 9e11, 2.7e12)


def isoflop_sweep(path: Path) -> SimulatedSweep:
    """4 budgets of 6 sizes; besides one trial diverged, one failed, one pending."""
    sweep = SimulatedSweep(path)
    for budget in BUDGETS:
        for width in WIDTHS:
            sweep.finish(add_at(sweep, budget, width))
    message = (
        "step 93 went wrong: loss nan, gradient norm inf, in samples 736 to 743 (the first at "
        "token 47,104 of /data/stdlib, epoch 0); last good checkpoint: none. Lower "
        "optimizer.learning_rate, set optimizer.clip_norm, or leave such updates out with "
        "--train.on_bad_step skip"
    )
    sweep.fail(add_at(sweep, BUDGETS[0], 128), "diverged", message)
    sweep.fail(add_at(sweep, BUDGETS[1], 128), "failed", "out of memory: <3.2 GB> & rising")
    add_at(sweep, BUDGETS[2], 128)
    return sweep


def add_at(sweep: SimulatedSweep, budget: float, width: int) -> Entry:
    per_token = flops.training_flops_per_token(make_config("", width, 1).model)
    name = f"flops-{budget:.0e}-width-{width}".replace("+", "")
    varied = {"budget.flops": budget, "model.d_model": width}
    return sweep.add(make_config(name, width, int(budget / per_token)), varied)


def recipes_sweep(path: Path) -> SimulatedSweep:
    """Two optimizers at 4 budgets of 3 sizes, one size with two seeds: the losses of muon are those
    of MULTIPLIER times the compute. One trial of each optimizer is pending; of adamw one was
    stopped early, and another too, but finished since. All that are done were evaluated."""
    sweep = SimulatedSweep(path)
    for optimizer in ("adamw", "muon"):
        for budget in BUDGETS:
            for width, seed in ((32, 0), (48, 0), (48, 1), (64, 0)):
                entry = _recipe(sweep, budget, width, optimizer, seed)
                if (budget, width) == (BUDGETS[3], 64):
                    continue
                if optimizer == "adamw" and (budget, width) == (BUDGETS[2], 32):
                    sweep.fail(entry, "stopped", "stopped early after 30% of its tokens", 0.3)
                    _stop(sweep, entry, 0.3)
                    continue
                worth = MULTIPLIER if optimizer == "muon" else 1.0
                _evaluate(sweep, entry, sweep.finish(entry, validations=5, worth=worth))
                if optimizer == "adamw" and (budget, width) == (BUDGETS[1], 32):
                    _stop(sweep, entry, 0.5)
    return sweep


MULTIPLIER = 1.8
"""Compute of adamw that gives the losses of muon, in `recipes_sweep`."""


def _recipe(sweep: SimulatedSweep, budget: float, width: int, optimizer: str, seed: int) -> Entry:
    per_token = flops.training_flops_per_token(make_config("", width, 1).model)
    name = f"{optimizer}-{budget:.0e}-{width}-{seed}".replace("+", "")
    tokens = int(budget / per_token)
    config = make_config(name, width, tokens, optimizer__name=optimizer, seed=seed)
    varied = {"optimizer.name": optimizer, "budget.flops": budget, "model.d_model": width}
    return sweep.add(config, {**varied, "seed": seed})


def _stop(sweep: SimulatedSweep, entry: Entry, share: float) -> None:
    """The note of a trial that was said not to beat a loss of 2.8."""
    timetable = make_timetable(entry.config)
    step = int(share * timetable.n_steps)
    note = {
        "rule": "hopeless", "fingerprint": entry.fingerprint, "step": step,
        "n_tokens": timetable.tokens_before(step), "share": share, "predicted": 3.0, "low": 2.9,
        "high": 3.1, "best": 2.8, "best_run": "another",
    }  # fmt: skip
    (sweep.run(entry.name).path / "stopped.json").write_text(json.dumps(note))


def _evaluate(sweep: SimulatedSweep, entry: Entry, loss: float) -> None:
    """What `gpt-jax eval` leaves: the accuracy is a sigmoid of the loss, from 0.25."""
    accuracy = 0.25 + 0.75 / (1 + np.exp(3.0 * (loss - 2.6))) + 0.003 * sweep.rng.standard_normal()
    folder = sweep.run(entry.name).path / "evaluation"
    folder.mkdir()
    results = {"results": [{"task": "arc_easy", "items": 2000, "accuracy": float(accuracy)}]}
    (folder / "results.json").write_text(json.dumps(results))


def trunks_sweep(path: Path) -> SimulatedSweep:
    """Warmup-stable-decay: 5 trunks validated along the way, each with two cooled branches."""
    sweep = SimulatedSweep(path)
    for width in WIDTHS[:5]:
        length = 2_000_000
        trunk = make_config(f"trunk-{width}", width, length, schedule__name="wsd")
        entry = sweep.add(trunk, {"model.d_model": width, "train.tokens": length})
        sweep.finish(entry, cooled=False, excess=UNCOOLED_EXCESS, validations=8)
        for tokens in (length // 2, length):
            branch = make_config(
                f"cooled-{width}-{tokens}", width, tokens, schedule__name="wsd",
                schedule__cooldown_tokens=tokens // 5,
            )  # fmt: skip
            varied = {"model.d_model": width, "train.tokens": tokens}
            sweep.finish(sweep.add(branch, varied, entry.fingerprint), validations=2)
    return sweep


def learning_rate_sweep(path: Path) -> SimulatedSweep:
    """3 widths by 7 learning rates at one length; the highest diverges for the widest."""
    sweep = SimulatedSweep(path)
    rates = [BEST_RATE * 2.0**k for k in range(-3, 4)]
    for width in (16, 32, 64):
        best = BEST_RATE * 32 / width
        for rate in rates:
            name = f"width-{width}-rate-{rate:.2e}"
            config = make_config(name, width, 400_000, optimizer__learning_rate=rate)
            varied = {"model.d_model": width, "optimizer.learning_rate": rate}
            entry = sweep.add(config, varied)
            if width == 64 and rate == rates[-1]:
                sweep.fail(entry, "diverged", "loss nan")
            else:
                sweep.finish(entry, excess=0.04 * np.log2(rate / best) ** 2)
    return sweep
