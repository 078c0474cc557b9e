"""The experiment configuration: what may be set, its meaning, unit, default and allowed values.

A config is frozen data. `model`, `data`, `task`, `adapt`, `distill`, `train`, `optimizer` and
`schedule` say *what* is computed and make up the fingerprint; `compute`, `mesh`, `evaluate`,
`checkpoint` and `tracking` say *how* and may change when a run is resumed. Durations are in tokens,
so that sweeps over the batch size stay comparable. Loading, overriding and saving live in
`gpt_jax.config.overrides`.

Must not import jax.
"""

from typing import Annotated

from pydantic import AfterValidator, ValidationInfo

from gpt_jax.config import entries
from gpt_jax.config.adapt import AdaptConfig
from gpt_jax.config.data import DataConfig
from gpt_jax.config.distill import DistillConfig
from gpt_jax.config.fields import DRAFT, AnyPath, NonNegative, check, fresh, section, setting
from gpt_jax.config.how import (
    CheckpointConfig,
    ComputeConfig,
    EvaluateConfig,
    MeshConfig,
    TrackingConfig,
)
from gpt_jax.config.model import ModelConfig
from gpt_jax.config.task import TaskConfig
from gpt_jax.config.train import OptimizerConfig, ScheduleConfig, TrainConfig


def _run(extension: str) -> str:
    from gpt_jax.config import extensions

    return extensions.run(extension)


Extension = Annotated[str, AfterValidator(_run)]
"""A file that is run when the config is made; PATH@DIGEST from then on."""


@section
class Config:
    """One experiment."""

    name: str = setting("experiment", scope="how", use="lane")
    """Names the run, its directory and its pages."""
    base: AnyPath = setting("", use="loop", added="2026-11-25")
    """Directory of the run whose parameters this one begins with; empty = fresh ones."""
    seed: NonNegative = setting(0, use="lane")
    """Initialisation, data order and dropout all follow from it."""
    extensions: tuple[Extension, ...] = setting((), added="2026-11-28")
    """Python files that register entries (optimizers, scores, sources, ...); in a saved config with
    the digest of their text, path@digest. --extension FILE adds one."""
    model: ModelConfig = fresh(ModelConfig)
    data: DataConfig = fresh(DataConfig, use="loop")
    task: TaskConfig = fresh(TaskConfig, added="2026-11-25")
    adapt: AdaptConfig = fresh(AdaptConfig, added="2026-11-25")
    distill: DistillConfig = fresh(DistillConfig, added="2026-11-26")
    train: TrainConfig = fresh(TrainConfig)
    optimizer: OptimizerConfig = fresh(OptimizerConfig)
    schedule: ScheduleConfig = fresh(ScheduleConfig, use="lane")
    compute: ComputeConfig = fresh(ComputeConfig, scope="how")
    mesh: MeshConfig = fresh(MeshConfig, scope="how")
    evaluate: EvaluateConfig = fresh(EvaluateConfig, scope="how", use="loop")
    checkpoint: CheckpointConfig = fresh(CheckpointConfig, scope="how", use="loop")
    tracking: TrackingConfig = fresh(TrackingConfig, scope="how", use="lane")

    @check()
    def _consistent(self, info: ValidationInfo) -> "Config":
        self._check_names()
        if info.context == DRAFT:
            return self
        tokens = self.train.tokens
        if self.schedule.warmup_tokens > tokens:
            raise ValueError(
                f"schedule.warmup_tokens = {self.schedule.warmup_tokens:,} exceeds train.tokens = "
                f"{tokens:,}"
            )
        if self.schedule.warmup_tokens + self.schedule.cooldown_tokens > tokens:
            raise ValueError(
                f"schedule.warmup_tokens + schedule.cooldown_tokens = "
                f"{self.schedule.warmup_tokens + self.schedule.cooldown_tokens:,} exceed "
                f"train.tokens = {tokens:,}"
            )
        if self.task.has_examples and not self.task.train:
            raise ValueError(f"task.name = {self.task.name} needs task.train, a file of examples")
        if (self.task.length or 0) > self.model.seq_len:
            raise ValueError(
                f"task.length = {self.task.length} exceeds model.seq_len = {self.model.seq_len}"
            )
        if bool(self.task.images) != (self.task.image_encoder != "none"):
            raise ValueError("task.images and task.image_encoder go together; set both")
        whole = self.task.has_head or self.task.image_encoder != "none"
        if whole and self.mesh.sequence > 1:
            raise ValueError(
                f"task.name = {self.task.name} reads whole sequences: mesh.sequence = "
                f"{self.mesh.sequence} must be 1"
            )
        parts = self.compute.microbatches
        for sequences in {self.train.batch_sequences, self.train.ramp_from_sequences or parts}:
            if sequences % parts:
                raise ValueError(
                    f"a batch of {sequences} sequences is not divisible by "
                    f"compute.microbatches = {parts}"
                )
        if self.train.objective != "next_token" and not self.is_pretraining:
            raise ValueError(
                f"train.objective = {self.train.objective} is for pretraining: it does not go with "
                f"task.name, adapt.method or distill.teacher"
            )
        self._check_optimizer()
        self._check_adapt()
        self._check_distill()
        return self

    @property
    def is_pretraining(self) -> bool:
        """Whether all parameters are trained on text alone: no task, adaptation or teacher."""
        plain = not self.task.has_examples and self.adapt.method == "full"
        return plain and not self.distill.teacher

    def _check_distill(self) -> None:
        """Raises ValueError for a task or a model that cannot be distilled."""
        if not self.distill.teacher:
            return
        for wrong, what in (
            (self.task.has_examples and not self.task.generates, f"task.name = {self.task.name}"),
            (self.task.image_encoder != "none", "task.images"),
            (self.model.n_experts is not None, "model.n_experts"),
        ):
            if wrong:
                raise ValueError(f"distill.teacher does not go with {what}; leave one of them out")

    def _check_adapt(self) -> None:
        """Raises ValueError where adapt.method does not go with the task, the mesh or the model."""
        method = self.adapt.method
        apart = self.task.pack or self.data.separate_documents
        if method == "prompt" and not self.task.has_examples:
            raise ValueError("adapt.method = prompt stands before examples; it needs task.name")
        for wrong, what in (
            (method == "prompt" and self.task.image_encoder != "none", "task.images"),
            (apart, "task.pack or data.separate_documents"),
            (method == "prefix" and self.mesh.sequence > 1, "mesh.sequence above 1"),
            (method == "prefix" and self._has_windows(), "banded layers"),
        ):
            if method in ("prefix", "prompt") and wrong:
                raise ValueError(f"adapt.method = {method} does not go with {what}")

    def _has_windows(self) -> bool:
        """Whether a kind of layer sees a window alone."""
        return any(self.model.window_of(kind) is not None for kind in self.model.layer_pattern)

    def _check_names(self) -> None:
        """Raises ValueError for a name that no entry has, or options that its entry has not."""
        for part in (self.model, self.data, self.train, self.optimizer, self.schedule, self.task):
            for table, name in entries.chosen(part):
                table.check(name)
        for key, part in (
            ("optimizer", self.optimizer),
            ("schedule", self.schedule),
            ("data", self.data),
            ("train", self.train),
        ):
            table, name = next(entries.chosen(part))
            if part.options or name not in table:
                table.find(name).read_options(part.options, f"{key}.options")
        self._check_model_options()

    def _check_model_options(self) -> None:
        """Raises ValueError for model.options of what the model has not."""
        position = entries.POSITIONS.find(self.model.position)
        with_options = [(entries.POSITIONS, position.name)]
        with_options += [(entries.SCORES, n) for n in (*position.scores, *self.model.scores)]
        names = [name for _, name in with_options]
        for name in self.model.options:
            if name not in names:
                raise ValueError(
                    f"model.options.{name} belongs to nothing that the model has: model.position = "
                    f"{position.name}, model.scores = {','.join(self.model.scores) or 'none'}"
                )
        for table, name in with_options:
            if name in self.model.options and not (table is entries.POSITIONS and position.scores):
                given = self.model.options[name]
                if not isinstance(given, dict):
                    raise ValueError(
                        f"model.options.{name} = {given!r}; allowed: its options by name, "
                        f"model.options.{name}.OPTION=VALUE"
                    )
                table.find(name).read_options(given, f"model.options.{name}")

    def _check_optimizer(self) -> None:
        """Raises ValueError for fields that the update rule does not read, and for an update rule
        for which the parametrization has no answer."""
        optimizer, parametrization = self.optimizer, self.model.parametrization
        entry = entries.OPTIMIZERS.find(optimizer.name)
        default = OptimizerConfig()
        given, plain = vars(optimizer), vars(default)
        if unread := [name for name in entry.unread if given[name] != plain[name]]:
            from gpt_jax.config import wording

            named = ", ".join(f"optimizer.{name} = {given[name]}" for name in unread)
            reset = " ".join(f"optimizer.{name}={wording.show(plain[name])}" for name in unread)
            raise ValueError(
                f"{named} is not read by optimizer.name = {optimizer.name}; leave it at its "
                f"default ({reset}), or set one of optimizer.options"
            )
        if parametrization == "standard":
            return
        if entry.mup is None:
            able = [
                name
                for name in entries.OPTIMIZERS.names()
                if entries.OPTIMIZERS.find(name).mup is not None
            ]
            raise ValueError(
                f"optimizer.name = {optimizer.name} has no rule under model.parametrization = "
                f"{parametrization}; choose {', '.join(able[:-1])} or {able[-1]}"
            )
        entry.mup("hidden", entry.read_options(optimizer.options, "optimizer.options"))
        if entry.decay_in_gradient and optimizer.weight_decay:
            raise ValueError(
                f"optimizer.name = {optimizer.name} with optimizer.weight_decay = "
                f"{optimizer.weight_decay} (L2 in the gradient) has no rule under "
                f"model.parametrization = {parametrization}; choose adamw, or weight_decay = 0"
            )
