"""The steps of an experiment compiled over a mesh: where each array lives, and which configs share
a program. Must not import flax.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax

from gpt_jax import overrides
from gpt_jax.adapt import make_adaptation
from gpt_jax.config import Config
from gpt_jax.data.batch import Batch
from gpt_jax.finetune.heads import fresh_axes, fresh_parameters, with_fresh
from gpt_jax.losses import LossSums
from gpt_jax.models.gpt import GPT, Params, make_gpt
from gpt_jax.sharding import Layout
from gpt_jax.step import Settings, Steps, TrainState, make_steps

AS_SETTINGS = (
    "name",
    "base",
    "distill.teacher",
    "seed",
    "model.init_std",
    "model.init_matrices",
    "model.init_residual",
    "data",
    "task.train",
    "task.validation",
    "task.test",
    "task.images",
    "task.epochs",
    "task.class_weights",
    "task.robustness",
    "task.metric",
    "task.patience",
    "train.tokens",
    "train.batch_sequences",
    "train.ramp_from_sequences",
    "train.ramp_tokens",
    "optimizer.learning_rate",
    "optimizer.adam_learning_rate",
    "optimizer.b1",
    "optimizer.b2",
    "optimizer.epsilon",
    "optimizer.weight_decay",
    "optimizer.clip_norm",
    "schedule",
    "evaluate",
    "checkpoint",
    "tracking",
)
"""Fields, or sections, on which the compiled train and evaluate steps do not depend: they are
`Settings`, shapes of arguments, initial values, or the loop's."""


def program_config(config: Config) -> Config:
    """The config with everything in `AS_SETTINGS` at one value for all: what steps are made of.

    Equal program configs share their compiled steps. Whether there is clipping stays part of it.
    """
    neutral = overrides.flatten(Config())
    changes = {
        key: value
        for key, value in neutral.items()
        if key in AS_SETTINGS or key.split(".")[0] in AS_SETTINGS
    }
    changes["optimizer.clip_norm"] = None if config.optimizer.clip_norm is None else 1.0
    changes["train.batch_sequences"] = config.compute.microbatches
    return overrides.draft(config, changes)  # not to be trained: sections need not agree


def adapted_axes(config: Config, model: GPT) -> tuple[Params, Params, Params]:
    """Logical names of the dims of the parameters that are not trained, of those that are, and of
    all that the model takes."""
    base = with_fresh(model.param_axes(), fresh_axes(config))
    return make_adaptation(config.adapt, model).axes(base)


def state_shardings(config: Config, steps: Steps, model: GPT, layout: Layout) -> Any:
    """A TrainState of shardings: where each array lives. Moments lie as their parameters do."""
    abstract = jax.eval_shape(steps.init, jax.random.key(0))
    params = layout.shardings(adapted_axes(config, model)[1])
    return abstract._replace(
        step=layout.everywhere,
        params=params,
        opt_state=optimizer_shardings(abstract.opt_state, abstract.params, params, layout),
        ema=None if abstract.ema is None else params,
        mean_loss=layout.everywhere,
    )


def optimizer_shardings(opt_state: Any, abstract_params: Params, params: Params, layout: Layout):
    """Shardings of an optimizer state: an array that has its parameter's shape lies as it does.

    An optimizer keeps moments in copies of the parameter tree, so the end of an array's path names
    its parameter. Counters and factored moments (Adafactor) are small and copied everywhere.
    """
    shapes = jax.tree_util.tree_leaves_with_path(abstract_params)
    homes = {
        path: (abstract.shape, sharding)
        for (path, abstract), sharding in zip(shapes, jax.tree.leaves(params), strict=True)
    }

    def place(path: tuple, leaf: jax.ShapeDtypeStruct):
        for start in range(len(path)):
            shape, sharding = homes.get(path[start:], (None, None))
            if shape == leaf.shape:
                return sharding
        return layout.everywhere

    return jax.tree_util.tree_map_with_path(place, opt_state)


def abstract_params(config: Config, model: GPT, layout: Layout | None) -> tuple[Params, Params]:
    """(frozen, trained) parameters as shapes, with their shardings on the layout's mesh."""
    adaptation = make_adaptation(config.adapt, model)

    def made(key: jax.Array) -> tuple[Params, Params]:
        return adaptation.init(key, with_fresh(model.init(key), fresh_parameters(config, key)))

    abstract = jax.eval_shape(made, jax.random.key(0))
    if layout is None:
        return abstract
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        abstract,
        tuple(map(layout.shardings, adapted_axes(config, model)[:2])),
    )


def combine_params(config: Config, model: GPT, base: Params, trained: Params) -> Params:
    """All of the model's parameters, of the model that training began at and the trained ones."""
    steps = make_steps(config, model)

    def combined(base: Params, trained: Params) -> Params:
        frozen = steps.begin(jax.random.key(config.seed), base)[1]
        return steps.combine(frozen, trained)

    return jax.jit(combined)(base, trained)


@dataclasses.dataclass(frozen=True)
class CompiledSteps:
    """`Steps` as jitted functions with fixed shardings; the training state is donated."""

    init: Callable[[jax.Array], TrainState]
    begin: Callable[[jax.Array, Params], tuple[TrainState, Params]]
    train: jax.stages.Wrapped
    """(TrainState, Batch, steps, Settings) -> (TrainState, Metrics): `Steps.train_many`, one
    compilation for each shape of the stacked batches."""
    evaluate: Callable[[Params, Batch], LossSums]
    outputs: Callable[[Params, Batch], tuple[LossSums, jax.Array]]
    combine: Callable[[Params, Params], Params]
    abstract_state: TrainState
    """Shapes, types and shardings, for restoring a checkpoint."""


def compile_steps(
    config: Config, model: GPT, layout: Layout, teacher: GPT | None = None
) -> CompiledSteps:
    """Jit the steps over the layout's mesh; each compiles at its first call.

    teacher: the model of config.distill.teacher.

    `train`, `evaluate` and `outputs` are shared, with what they have compiled, by all configs of
    one process that have the same `program_config` and teacher.
    """
    steps = make_steps(config, model, teacher)
    shardings = state_shardings(config, steps, model, layout)
    abstract = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        jax.eval_shape(steps.init, jax.random.key(0)),
        shardings,
    )
    frozen, _, whole = map(layout.shardings, adapted_axes(config, model))
    train, evaluate, outputs = _compiled_program(program_config(config), layout, teacher)
    return CompiledSteps(
        init=jax.jit(steps.init, out_shardings=shardings),
        begin=jax.jit(steps.begin, out_shardings=(shardings, frozen)),
        train=train,
        evaluate=evaluate,
        outputs=outputs,
        # Where all is trained, nothing is computed or copied.
        combine=jax.jit(steps.combine, out_shardings=whole) if frozen else steps.combine,
        abstract_state=abstract,
    )


@functools.lru_cache(maxsize=4)
def _compiled_program(program: Config, layout: Layout, teacher: GPT | None) -> tuple[Any, Any, Any]:
    """(train, evaluate, outputs) of every config that has this program config."""
    model = make_gpt(program.model, program.compute, layout)
    steps = make_steps(program, model, teacher)
    taught = {} if teacher is None else layout.shardings(teacher.param_axes())
    shardings = state_shardings(program, steps, model, layout)
    frozen, _, whole = map(layout.shardings, adapted_axes(program, model))
    everywhere: Any = [layout.everywhere] * len(Settings._fields)
    train = jax.jit(
        steps.train_many,
        in_shardings=(
            shardings,
            layout.batches,
            layout.everywhere,
            Settings(*everywhere)._replace(frozen=frozen, teacher=taught),
        ),
        out_shardings=(shardings, layout.everywhere),
        donate_argnums=0,
        compiler_options=dict(model.execution.compiler_options),
    )
    in_shardings = whole, layout.batch
    evaluate, outputs = (
        jax.jit(function, in_shardings=in_shardings, out_shardings=layout.everywhere)
        for function in (steps.evaluate, steps.outputs)
    )
    return train, evaluate, outputs
