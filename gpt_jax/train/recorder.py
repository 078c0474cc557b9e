"""Recorder of one run in training: metrics, validations, checkpoints, result.

The loop (`gpt_jax.train.loop`) hands it numbers and states; it does not know how they were made.
"""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

from gpt_jax.config import Config, overrides
from gpt_jax.config.timetable import is_cooled
from gpt_jax.cost import flops
from gpt_jax.errors import Diverged
from gpt_jax.evaluate.validation import Validation
from gpt_jax.parallel.processes import is_writer
from gpt_jax.runs.checkpoint import Checkpoints
from gpt_jax.runs.history import steps_after_tokens
from gpt_jax.runs.tracking import (
    MetricsLog,
    Mirror,
    Record,
    draw_loss_curve,
    finite,
    finite_values,
)
from gpt_jax.steps.step import TrainState
from gpt_jax.storage import places
from gpt_jax.storage.atomic import write_json
from gpt_jax.train.experiment import Experiment

LEFT_OUT_IN_A_ROW = 50
"""Steps left out one after another that end a run: as many as the running mean of the loss
remembers (`step.LOSS_MEMORY`). Parameters have not moved for so long; they will not again."""


class RunRecorder:
    """The records of one run, continued after `done_steps` steps."""

    def __init__(self, experiment: Experiment, checkpoints: Checkpoints, done_steps: int):
        config, timetable = experiment.config, experiment.timetable
        self.experiment, self.checkpoints = experiment, checkpoints
        self.writes = is_writer()
        mirrors = _mirrors(config, experiment.run.path) if self.writes else []
        self.log = MetricsLog(experiment.run.metrics, done_steps, mirrors, self.writes)
        kept = steps_to_keep(experiment, done_steps)
        checkpoints.keep(kept)
        every = timetable.due(config.checkpoint.every_tokens)

        def save_due(done: int) -> bool:
            return done in kept or every(done)

        self.save_due = save_due
        self.validation_due = timetable.due(config.evaluate.every_tokens)
        validations = self.log.history.validations
        self.losses = [loss for _, loss in finite_values(validations, "validation_loss")]
        self.ranked = [(r["step"], ranking(config, r)) for r in validations]
        self.flops_per_token = flops.training_flops_per_token(config.model, "palm")
        self.flops_per_token += self._teacher_flops_per_token("palm")
        self.exact_flops_per_token = flops.training_flops_per_token(config.model, "exact")
        before, recorded = timetable.tokens_before(done_steps), self.log.history.flops
        counted = self.exact_flops_per_token * before
        self.more_flops = 0.0 if recorded is None or recorded == counted else recorded - counted
        """FLOPs of steps done with another model or length, less what this config would count."""

    def _teacher_flops_per_token(self, convention: flops.Convention) -> float:
        """FLOPs of the teacher's forward pass per token (config.distill); 0 without a teacher."""
        teacher, n_tokens = self.experiment.teacher, self.experiment.config.model.seq_len
        if teacher is None:
            return 0.0
        read = dataclasses.replace(teacher.config, seq_len=n_tokens)
        return flops.forward_flops_per_sequence(read, convention) / n_tokens

    def _teacher_flops(self, n_tokens: int) -> Record:
        """The result's `teacher_flops`: exact FLOPs of the teacher for n_tokens tokens, beside the
        `flops` of the trained model; empty without a teacher."""
        if self.experiment.teacher is None:
            return {}
        return {"teacher_flops": self._teacher_flops_per_token("exact") * n_tokens}

    @property
    def last_validation(self) -> float | None:
        return self.losses[-1] if self.losses else None

    @property
    def end_step(self) -> int | None:
        """The step after which task.patience has run out; None as long as it has not."""
        patience, best = self.experiment.config.task.patience, math.inf
        waited = 0
        for step, rank in self.ranked:
            waited = 0 if rank < best else waited + 1
            best = min(best, rank)
            if patience is not None and waited >= patience:
                return step
        return None

    def steps_until_due(self, step: int, most: int) -> int:
        """Steps from `step` on, at most so many, before something is due or the batch grows."""
        timetable = self.experiment.timetable
        sequences = timetable.batch_sequences(step)
        for n in range(1, most):
            done = step + n
            if self.validation_due(done) or self.save_due(done):
                return n
            if timetable.batch_sequences(done) != sequences:
                return n
        return most

    def record_step(
        self, step: int, values: dict[str, float], seconds: float, data_wait: float
    ) -> bool:
        """Write the record of a step that took `seconds`; returns whether it went wrong.

        values: the step's `Metrics` as floats.
        """
        timetable, peak = self.experiment.timetable, self.experiment.peak_flops
        tokens = timetable.tokens_before(step + 1)
        batch_tokens = tokens - timetable.tokens_before(step)
        bad = bool(values["bad"])
        record: Record = {"step": step + 1, "tokens": tokens}
        record |= finite({name: value for name, value in values.items() if name != "bad"})
        record |= {
            "flops": self.exact_flops_per_token * tokens + self.more_flops,
            "tokens_per_second": batch_tokens / seconds,
            "step_seconds": seconds,
            "data_wait_seconds": data_wait,
        }
        if peak is not None:
            record["mfu"] = self.flops_per_token * batch_tokens / seconds / peak
        if bad:
            record["bad"] = True
        self.log.log(record)
        return bad

    def divergence(self, step: int, values: dict[str, float]) -> Diverged | None:
        """The error to raise for a step that went wrong, once checkpoints are written; None if its
        update is left out and the run goes on."""
        skips = self.experiment.config.train.on_bad_step == "skip"
        in_a_row = self.log.history.left_out_in_a_row
        if skips and in_a_row < LEFT_OUT_IN_A_ROW:
            return None
        timetable = self.experiment.timetable
        first, n = timetable.samples_before(step), timetable.batch_sequences(step)
        self.checkpoints.wait()
        saved = self.checkpoints.steps()
        where = f"step {saved[-1]:,}" if saved else "none"
        place = self.experiment.stream.sample_locations(first, 1)[0]
        wrong, advice = f"step {step + 1:,} went wrong", "leave such updates out with"
        rest = "--train.on_bad_step skip"
        if skips:
            wrong = f"steps {step + 2 - in_a_row:,} to {step + 1:,} were all left out, the last"
            advice, rest = "raise train.spike_threshold", "in a run of its own (--workdir)"
        return Diverged(
            f"{wrong}: {describe_bad(values)}, in samples {first:,} to "
            f"{first + n - 1:,} (the first at token {place.first_token:,} of {place.corpus}, epoch "
            f"{place.epoch}); last good checkpoint: {where} in {self.checkpoints.directory}. Lower "
            f"optimizer.learning_rate, set optimizer.clip_norm, or {advice} {rest}"
        )

    def max_sequences(self, done: int) -> int | None:
        """How much is validated after `done` steps: the last time, all."""
        last = done >= self.experiment.timetable.n_steps
        return None if last else self.experiment.config.evaluate.max_sequences

    def milestone(
        self,
        state: Callable[[], TrainState],
        done: int,
        validation: Validation | None,
        saving: bool,
    ) -> None:
        """Record a validation, if there was one, and save the state, where asked or it is best.

        state: asked for only if it is saved.
        """
        config = self.experiment.config
        if validation is not None:
            tokens = self.experiment.timetable.tokens_before(done)
            self.log.log({"step": done, "tokens": tokens, **finite(validation.record())})
            self.losses.append(validation.loss)
            rank = ranking(config, validation.record())
            if config.checkpoint.keep_best and rank < min(
                [r for _, r in self.ranked] or [math.inf]
            ):
                saving = True
            self.ranked.append((done, rank))
        if saving or self.end_step is not None:
            self.log.sync()
            self.checkpoints.save(done, state(), None if validation is None else rank)

    def is_validated(self) -> bool:
        """Whether the end of training has been validated."""
        record = self._last_validation()
        end = self.end_step or self.experiment.timetable.n_steps
        return record is not None and record["step"] == end

    def finish(self, more: Record | None = None) -> Record:
        """Write loss curve and result.json of a run that is trained, validated and saved.

        more: what else result.json is to hold.
        """
        run = self.experiment.run
        self.checkpoints.wait()
        self.log.sync()
        result = self._result() | (more or {})
        if self.writes:
            draw_loss_curve(self.log.history, run.loss_curve, self.experiment.config.name)
            write_json(run.result, result)
            places.commit(run.path, final=True)
        return result

    def _last_validation(self) -> Record | None:
        validations = self.log.history.validations
        return validations[-1] if validations else None

    def _result(self) -> Record:
        config, timetable = self.experiment.config, self.experiment.timetable
        validation = self._last_validation() or {}
        history = self.log.history
        n_steps = self.end_step or timetable.n_steps
        counts, n_tokens = flops.count_parameters(config.model), timetable.tokens_before(n_steps)
        return {
            "name": config.name,
            "fingerprint": overrides.fingerprint(config),
            "n_params": counts.n_params,
            "n_params_non_embedding": counts.n_params_non_embedding,
            "n_params_matmul": counts.n_params_matmul,
            "n_params_active": counts.n_params_active,
            "n_params_trained": self.experiment.n_params_trained,
            "optimizer_bytes": self.experiment.optimizer_bytes,
            "n_tokens": n_tokens,
            "n_steps": n_steps,
            "n_steps_left_out": history.n_left_out,
            "flops": flops.training_flops(config.model, n_tokens, "exact") + self.more_flops,
            "flops_6nd": flops.training_flops(config.model, n_tokens, "6nd"),
            **self._teacher_flops(n_tokens),
            "cooled": is_cooled(config),
            "train_loss": history.train_loss,
            **{k: v for k, v in validation.items() if k.startswith("validation_")},
            "best_validation_loss": min(self.losses, default=math.inf),
            "training_seconds": history.training_seconds,
            "config": overrides.to_dict(config),
        }


def _mirrors(config: Config, directory: Path) -> list[Mirror]:
    """The mirrors of the metrics that a config asks for."""
    if not (config.tracking.wandb or config.tracking.tensorboard):
        return []
    from gpt_jax.runs.mirrors import make_mirrors

    return make_mirrors(config, directory)


def steps_to_keep(experiment: Experiment, done_steps: int) -> frozenset[int]:
    """Steps whose checkpoints checkpoint.keep_at_tokens keeps: the first ones after which so many
    tokens were trained.

    The records say it of steps that are done, maybe with another batch or length; the timetable of
    those to come.
    """
    wanted = experiment.config.checkpoint.keep_at_tokens
    done = steps_after_tokens(experiment.run.metrics, wanted, done_steps)
    to_come = [tokens for tokens in wanted if tokens not in done]
    return frozenset(done.values()) | set(map(experiment.timetable.step_after_tokens, to_come))


def describe_bad(values: dict[str, float]) -> str:
    """Loss and gradient norm of a step that went wrong, as text."""
    return f"loss {values['loss']:.4g}, gradient norm {values['gradient_norm']:.4g}"


def ranking(config: Config, validation: Record) -> float:
    """Sort key of checkpoints, lower is better: the loss, or a task's metric negated; infinite if
    it is nan or no number."""
    metric = config.task.chosen_by
    value = validation[f"validation_{metric}"]
    if not isinstance(value, float) or math.isnan(value):
        return math.inf
    return value if metric == "loss" else -value
