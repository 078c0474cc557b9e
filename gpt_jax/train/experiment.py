"""A config made into an experiment by phases: each is a value, built once from the ones before.

    config      = resolved(config)                 with what a task's examples decide
    prepared    = prepare(config, run)              data, mesh, model, timetable, compiled steps
    base        = bind_base(prepared, params)       what is frozen, and the state to begin with
    given       = teacher_params(config, run, layout)    a teacher's parameters
    experiment  = bind(prepared, base, given)       the settings on the devices: ready to train

`gpt_jax.train.start` walks through the last three, for it knows where a run goes on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal, Protocol

import jax

from gpt_jax.config import Config
from gpt_jax.config.timetable import Timetable, make_timetable
from gpt_jax.cost import cpu_speed, flops
from gpt_jax.data import Corpus, Stream, prepare_mixture
from gpt_jax.data.shards import TokenShards
from gpt_jax.data.stream import Samples
from gpt_jax.data.tokenizers import Tokenizer
from gpt_jax.evaluate.validation import Validation, validate_lanes, validation_batches
from gpt_jax.models.gpt import GPT, Params, make_gpt
from gpt_jax.parallel import dispatch
from gpt_jax.parallel.sharding import Layout, make_layout
from gpt_jax.runs.directory import RunDirectory
from gpt_jax.runs.tracking import Record
from gpt_jax.steps.compiled_steps import CompiledSteps, compile_steps
from gpt_jax.steps.step import Settings, TrainState, evaluation_params, make_settings


class TrainingData(Protocol):
    """The data that a run trains and is validated on."""

    @property
    def stream(self) -> Samples:
        """Training samples by index."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of all texts."""

    @property
    def fingerprints(self) -> list[str]:
        """Digests of the data, for config.json."""

    @property
    def unique_tokens(self) -> int | None:
        """Number of training tokens in one epoch; None for examples."""

    @property
    def shares(self) -> list[tuple[int, int]] | None:
        """`Stream.shares` of a mixture of corpora; None for anything else."""

    def begun_at(self, params: Params, config: Config, model: GPT, layout: Layout) -> TrainingData:
        """The data with what the model that training begins from says of it (preferences)."""

    def validate(
        self,
        config: Config,
        steps: CompiledSteps,
        layout: Layout,
        params: Params,
        max_sequences: int | None,
    ) -> Validation:
        """Held-out loss, and scores of a task; params: all of the model's."""


class TaskScorer(Protocol):
    """Tasks that are scored along a run."""

    def scores(self, params: Params) -> dict[str, float]:
        """Scores by name, as `Validation.scores` has them; params: all of the model's."""


@dataclasses.dataclass(frozen=True)
class Prepared:
    """All that follows from a config alone, before parameters are read or made."""

    config: Config
    run: RunDirectory
    data: TrainingData
    layout: Layout
    model: GPT
    teacher: GPT | None
    """Model whose predictions are learned (config.distill); None without one."""
    timetable: Timetable
    steps: CompiledSteps
    steps_per_dispatch: int
    """Batches that the compiled step takes, and steps it computes at most: `dispatch.capacity`."""
    peak_flops: float | None
    """FLOP/s of all devices, at the operands' type; None for an unknown device."""
    tasks: TaskScorer | None
    """Tasks that are scored at each validation (evaluate.tasks); None without them."""

    @property
    def stream(self) -> Samples:
        return self.data.stream

    @property
    def n_params_trained(self) -> int:
        """All, or those of the small tree (config.adapt), with the rows that pad a vocabulary."""
        return sum(x.size for x in jax.tree.leaves(self.steps.abstract_state.params))

    @property
    def optimizer_bytes(self) -> int:
        """Bytes of the optimizer's state, summed over its arrays at their unsharded shapes."""
        leaves = jax.tree.leaves(self.steps.abstract_state.opt_state)
        return sum(x.size * x.dtype.itemsize for x in leaves)

    @property
    def needs_base(self) -> bool:
        """Whether parameters, or what they say of the examples, are needed at every start."""
        return self.config.adapt.method != "full" or self.config.task.labels_by_base


@dataclasses.dataclass(frozen=True)
class Base:
    """The model that training begins from, bound to a prepared run."""

    state: TrainState
    """State of a run that begins with these parameters."""
    frozen: Params
    """Parameters that are not trained; empty where all are."""
    data: TrainingData
    """The data with what the model says of it (preferences)."""


@dataclasses.dataclass(frozen=True)
class Experiment(Prepared):
    """A prepared run with the arguments of its compiled steps: everything but the state."""

    settings: Settings
    """On the devices."""

    def validate(self, params: Params, max_sequences: int | None = None) -> Validation:
        """Held-out loss, and scores of a task; params: all of the model's."""
        return self.data.validate(self.config, self.steps, self.layout, params, max_sequences)

    def whole(self, state: TrainState) -> Params:
        """All of the model's parameters (their moving average if kept), to be evaluated."""
        return self.steps.combine(self.settings.frozen, evaluation_params(state))


@dataclasses.dataclass(frozen=True)
class CorpusData:
    """Token shards: pretraining."""

    corpora: tuple[tuple[Corpus, float], ...]
    stream: Stream

    @property
    def tokenizer(self) -> Tokenizer:
        return self.corpora[0][0].tokenizer

    @property
    def fingerprints(self) -> list[str]:
        return [str(corpus.fingerprint) for corpus, _ in self.corpora]

    @property
    def unique_tokens(self) -> int | None:
        """Number of training tokens in one epoch."""
        return self.stream.unique_tokens

    @property
    def shares(self) -> list[tuple[int, int]] | None:
        """`Stream.shares` of a mixture; None for a single corpus."""
        return self.stream.shares if len(self.corpora) > 1 else None

    @property
    def validation_split(self) -> TokenShards:
        """Validation split of the first corpus: the only one, or the first of a mixture."""
        return self.corpora[0][0].split("validation")

    def begun_at(self, params: Params, config: Config, model: GPT, layout: Layout) -> CorpusData:
        """The same data: where training begins changes nothing."""
        return self

    def validate(
        self,
        config: Config,
        steps: CompiledSteps,
        layout: Layout,
        params: Params,
        max_sequences: int | None,
    ) -> Validation:
        """The loss on the first corpus; with evaluate.all_corpora, on the others beside it."""
        splits = self.validation_split, self.other_splits(config)
        return validate_lanes(config, steps.evaluate, params, *splits, layout, max_sequences)[0]

    def other_splits(self, config: Config) -> dict[str, TokenShards]:
        """Validation splits beside the first corpus', by the corpora's names, where
        evaluate.all_corpora asks for them."""
        if not config.evaluate.all_corpora:
            return {}
        first, *others = [corpus for corpus, _ in self.corpora]
        return {c.name: c.split("validation") for c in others if c.name != first.name}


def prepare(
    config: Config, run: RunDirectory, devices: Sequence[jax.Device] | None = None
) -> Prepared:
    """Corpus or examples, mesh, model and compiled steps of a config; checks all that can be
    checked. config: `resolved`.

    devices: of the mesh; none = all there are.
    """
    layout = make_layout(config, devices)
    data = _training_data(config, layout)
    if data.tokenizer.vocab_size > config.model.vocab_size:
        raise ValueError(
            f"the tokenizer has {data.tokenizer.vocab_size:,} ids, more than model.vocab_size = "
            f"{config.model.vocab_size:,}; raise model.vocab_size"
        )
    model = make_gpt(config.model, config.compute, layout)
    timetable = make_timetable(config)
    teacher = None
    if config.distill.teacher:
        from gpt_jax.train.teacher import make_teacher

        teacher = make_teacher(config, data.tokenizer, layout)
    steps = compile_steps(config, model, layout, teacher)
    return Prepared(
        config=config,
        data=data,
        run=run,
        layout=layout,
        model=steps.model,
        teacher=teacher,
        timetable=timetable,
        steps=steps,
        steps_per_dispatch=dispatch.capacity(
            config, layout.mesh.devices.flat[0].platform, layout.mesh.size
        ),
        peak_flops=_peak_flops(model, layout),
        tasks=_tasks(config, data.tokenizer, steps.model, layout),
    )


def bind_base(prepared: Prepared, params: Params) -> Base:
    """The model that training begins from; params: all of its parameters, on the mesh."""
    config = prepared.config
    state, frozen = prepared.steps.begin(jax.random.key(config.seed), params)
    data = prepared.data.begun_at(params, config, prepared.model, prepared.layout)
    return Base(state, frozen, data)


def bind(
    prepared: Prepared, base: Base | None, given: Params, timetable: Timetable | None = None
) -> Experiment:
    """The experiment, ready to train.

    base: None = all parameters are trained. given: `teacher_params`, or nothing. timetable: of a
    run that goes on after steps in other batches or to another length; None = the config's own.
    """
    timetable = timetable or prepared.timetable
    numbers = jax.device_put(make_settings(prepared.config, timetable), prepared.layout.everywhere)
    data = prepared.data if base is None else base.data
    values = vars(prepared) | {"timetable": timetable, "data": data}
    frozen = {} if base is None else base.frozen
    return Experiment(**values, settings=numbers._replace(frozen=frozen, given=given))


def resolved(config: Config) -> Config:
    """The config with what its task's training examples decide; of pretraining, as it is."""
    if not config.task.has_examples:
        return config
    from gpt_jax.train.task_data import resolved_task

    return resolved_task(config)


def _tasks(config: Config, tokenizer: Tokenizer, model: GPT, layout: Layout) -> TaskScorer | None:
    """Tasks that are scored at each validation; their files are read here."""
    if not config.evaluate.tasks:
        return None
    from gpt_jax.evaluate.along import make_task_scorer

    return make_task_scorer(config.evaluate, tokenizer, model, layout)


def _training_data(config: Config, layout: Layout) -> TrainingData:
    """Token shards, or the examples of a task."""
    if not config.task.has_examples:
        return _corpus_data(config, layout)
    from gpt_jax.train.task_data import make_task_data

    return make_task_data(config)


def _corpus_data(config: Config, layout: Layout) -> CorpusData:
    corpora = prepare_mixture(config.data)
    # A split too short to validate on should not be found at the end of training.
    for corpus, _ in corpora if config.evaluate.all_corpora else corpora[:1]:
        next(validation_batches(config, corpus.split("validation"), layout, 1))
    stream = Stream(
        [(corpus.split("train"), weight) for corpus, weight in corpora],
        config.model.seq_len,
        config.seed,
        config.data.separate_documents,
        config.data.unique_tokens,
    )
    return CorpusData(corpora, stream)


def _peak_flops(model: GPT, layout: Layout) -> float | None:
    device = layout.mesh.devices.flat[0]
    dtype = str(model.execution.how.operands)
    if device.platform == "cpu":
        # Simulated devices share the same cores: one peak for all of them.
        return cpu_speed.measured_cpu_peak(dtype)
    from gpt_jax.cost import hardware

    chip = hardware.identify(device.device_kind)
    return None if chip is None else chip.peak(dtype) * layout.mesh.size


def facts(experiment: Prepared) -> Record:
    """Facts that config.json records beside the config: sizes, devices, kernels, data."""
    counts = flops.count_parameters(experiment.config.model)
    execution, devices = experiment.model.execution, experiment.layout.mesh.devices
    return {
        "n_params": counts.n_params,
        "n_params_non_embedding": counts.n_params_non_embedding,
        "n_params_matmul": counts.n_params_matmul,
        "n_params_active": counts.n_params_active,
        "n_params_trained": experiment.n_params_trained,
        "devices": f"{devices.size} x {devices.flat[0].device_kind}",
        "mesh": dict(experiment.layout.mesh.shape),
        "operands": str(execution.how.operands),
        "attention": f"{execution.kernel.name} ({execution.kernel.reason})",
        "layers": "unrolled" if execution.unroll else "scanned",
        "compiler_options": dict(execution.compiler_options),
        "loss": "parts of logits" if execution.loss_in_parts else "whole logits",
        "steps_per_dispatch": experiment.steps_per_dispatch,
        "peak_flops": experiment.peak_flops,
        "data": experiment.data.fingerprints,
        "unique_tokens": experiment.data.unique_tokens,
        "mixture": experiment.data.shares,
        "base": _digest(experiment.run, "base", experiment.config.base),
        "teacher": _digest(experiment.run, "teacher", experiment.config.distill.teacher),
    }


def _digest(run: RunDirectory, other: Literal["base", "teacher"], path: str) -> str | None:
    """The digest of the checkpoint that a run began with, of its base or teacher; None without."""
    if not path:
        return None
    from gpt_jax.runs.loading import begun_with

    found = begun_with(run, other, path)
    return found and found.digest
