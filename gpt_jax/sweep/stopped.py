"""Compute that stopping trials early saved, and how often it was wrong. Must not import jax."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gpt_jax.config.timetable import make_timetable
from gpt_jax.cost import flops
from gpt_jax.hints import counted
from gpt_jax.sweep.stopping import RULES, Stop, same_cell
from gpt_jax.sweep.table import Measured

LEVEL = 95


@dataclass(frozen=True)
class StoppedTrial:
    """A trial that a rule stopped, finished later or not."""

    run: str
    stop: Stop
    flops: float
    """FLOPs of the whole trial"""
    final_loss: float | None
    """Final loss of one that was finished after all"""
    wrong: bool
    """It was finished, and beat the loss that it was said not to beat"""

    @property
    def saved(self) -> float:
        """FLOPs that were not spent."""
        return 0.0 if self.final_loss is not None else (1 - self.stop.share) * self.flops


@dataclass(frozen=True)
class Stopped:
    """All stopped trials of a sweep."""

    trials: tuple[StoppedTrial, ...]
    flops: float
    """FLOPs of the whole sweep, as if no trial had been stopped"""

    @property
    def saved(self) -> float:
        return sum(trial.saved for trial in self.trials)

    @property
    def finished(self) -> list[StoppedTrial]:
        return [trial for trial in self.trials if trial.final_loss is not None]

    @property
    def n_wrong(self) -> int:
        return sum(trial.wrong for trial in self.trials)

    def interval(self) -> tuple[float, float]:
        """LEVEL percent interval of the share of wrong stops (Clopper and Pearson 1934)."""
        from scipy.special import betaincinv

        n, k, tail = len(self.finished), self.n_wrong, (1 - LEVEL / 100) / 2
        low = 0.0 if k == 0 else float(betaincinv(k, n - k + 1, tail))
        high = 1.0 if k == n else float(betaincinv(k + 1, n - k, 1 - tail))
        return low, high


def stopped_trials(trials: Sequence[Measured]) -> Stopped | None:
    """None where no trial was ever stopped.

    A trial was stopped wrongly if its final loss is below the one that it was said not to beat: of
    successive halving, which says none, the best of its cell that was never stopped; where there is
    none of these, every finished one counts as wrong.
    """
    found, total = [], 0.0
    for trial in trials:
        config = trial.entry.config
        cost = flops.training_flops(config.model, make_timetable(config).n_tokens, "exact")
        total += cost
        if trial.stop is not None:
            best = _to_beat(trial, trial.stop, trials)
            wrong = trial.loss is not None and (best is None or trial.loss < best)
            found.append(StoppedTrial(trial.entry.name, trial.stop, cost, trial.loss, wrong))
    return Stopped(tuple(found), total) if found else None


def _to_beat(trial: Measured, stop: Stop, trials: Sequence[Measured]) -> float | None:
    if stop.best is not None:
        return stop.best
    never = (
        t.loss
        for t in trials
        if t.stop is None and t.loss is not None and same_cell(t.entry, trial.entry)
    )
    return min(never, default=None)


def text(stopped: Stopped) -> list[str]:
    """For a terminal."""
    trials, finished = stopped.trials, stopped.finished
    waiting = len(trials) - len(finished)
    share = stopped.saved / stopped.flops
    lines = [
        f"{counted(len(trials), 'trial')} stopped early, {waiting} of them not finished since: "
        f"{stopped.saved:.3g} of {stopped.flops:.3g} FLOPs saved ({share:.0%})"
    ]
    for trial in trials:
        said = f"  {trial.run}: at {trial.stop.share:.0%} by {trial.stop.rule}"
        if trial.stop.predicted is not None:
            said += (
                f", predicted {trial.stop.predicted:.4f} [{trial.stop.low:.4f}, "
                f"{trial.stop.high:.4f}], to beat {trial.stop.best:.4f}"
            )
        if trial.final_loss is not None:
            said += (
                f"; finished: {trial.final_loss:.4f}{', stopped wrongly' if trial.wrong else ''}"
            )
        lines.append(said)
    return [*lines, f"  {how_often(stopped)}"]


def how_often(stopped: Stopped) -> str:
    """How often stopping was wrong, by the trials that were finished after all."""
    n = len(stopped.finished)
    if not n:
        return (
            "how often that was wrong is not known: gpt-jax sweep run --finish-sample SHARE "
            "finishes some of them"
        )
    low, high = stopped.interval()
    return (
        f"wrong in {stopped.n_wrong} of the {n} that were finished: {stopped.n_wrong / n:.0%}, "
        f"{LEVEL}% [{low:.0%}, {high:.0%}]"
    )


def to_json(stopped: Stopped) -> dict[str, Any]:
    """Everything."""
    return {
        "rules": {t.stop.rule: RULES[t.stop.rule] for t in stopped.trials},
        "flops": stopped.flops,
        "flops_saved": stopped.saved,
        "finished": len(stopped.finished),
        "wrong": stopped.n_wrong,
        "share_wrong_95": list(stopped.interval()) if stopped.finished else None,
        "trials": [
            {
                "run": t.run, **asdict(t.stop), "flops": t.flops, "final_loss": t.final_loss,
                "wrong": t.wrong,
            }
            for t in stopped.trials
        ],
    }  # fmt: skip
