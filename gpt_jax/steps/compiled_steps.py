"""The steps of an experiment compiled over a mesh: where each array lives, and which configs share
a program. Must not import flax.
"""

import dataclasses
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import jax

from gpt_jax.config import Config, overrides
from gpt_jax.data.batch import Batch
from gpt_jax.models.gpt import GPT, Params
from gpt_jax.objectives.cross_entropy import LossSums
from gpt_jax.parallel.sharding import Layout
from gpt_jax.steps.program import make_steps
from gpt_jax.steps.step import Settings, Steps, TrainState


def program_config(config: Config) -> Config:
    """The config with every field that is no constant of the program at one value for all: what
    steps are made of (`gpt_jax.config.fields.Use`).

    Equal program configs share their compiled steps. Whether there is clipping stays part of it.
    """
    known = overrides.fields()
    changes = {key: x.default for key, x in known.items() if x.facts.use != "constant"}
    changes["optimizer.clip_norm"] = None if config.optimizer.clip_norm is None else 1.0
    changes["train.batch_sequences"] = config.compute.microbatches
    return overrides.draft(config, changes)  # not to be trained: sections need not agree


def state_shardings(steps: Steps, layout: Layout, shapes: TrainState | None = None) -> Any:
    """A TrainState of shardings. Moments are sharded as their parameters are.

    shapes: the abstract state, if it is known already.
    """
    abstract: Any = jax.eval_shape(steps.init, jax.random.key(0)) if shapes is None else shapes
    params = layout.shardings(steps.axes()[1])
    return abstract._replace(
        step=layout.everywhere,
        params=params,
        opt_state=optimizer_shardings(abstract.opt_state, abstract.params, params, layout),
        ema=None if abstract.ema is None else params,
        mean_loss=layout.everywhere,
    )


def optimizer_shardings(
    opt_state: Any, abstract_params: Params, params: Params, layout: Layout
) -> Any:
    """Shardings of an optimizer state: an array that has its parameter's shape lies as it does.

    An optimizer keeps moments in copies of the parameter tree, so the end of an array's path names
    its parameter. Counters and factored moments (Adafactor) are small and copied everywhere.
    """
    shapes = jax.tree_util.tree_leaves_with_path(abstract_params)
    homes = {
        path: (abstract.shape, sharding)
        for (path, abstract), sharding in zip(shapes, jax.tree.leaves(params), strict=True)
    }

    def place(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> Any:
        for start in range(len(path)):
            shape, sharding = homes.get(path[start:], (None, None))
            if shape == leaf.shape:
                return sharding
        return layout.everywhere

    return jax.tree_util.tree_map_with_path(place, opt_state)


@dataclasses.dataclass(frozen=True)
class CompiledSteps:
    """`Steps` as jitted functions with fixed shardings; the training state is donated."""

    model: GPT
    """Computing what the config's transform adds to it."""
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
    init = jax.jit(steps.init, inline=True)  # to be traced once, for shapes and for values
    shapes = jax.eval_shape(init, jax.random.key(0))
    shardings = state_shardings(steps, layout, shapes)
    abstract = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings
    )
    frozen, _, whole = map(layout.shardings, steps.axes())
    key = program_config(config), layout, teacher
    if key not in _PROGRAMS:
        _PROGRAMS[key] = _jit_program(steps, layout, teacher, shardings, frozen, whole)
    _PROGRAMS.move_to_end(key)
    while len(_PROGRAMS) > SHARED_PROGRAMS:
        _PROGRAMS.popitem(last=False)
    train, evaluate, outputs = _PROGRAMS[key]
    return CompiledSteps(
        model=steps.model,
        init=jax.jit(init, out_shardings=shardings),
        begin=jax.jit(steps.begin, out_shardings=(shardings, frozen)),
        train=train,
        evaluate=evaluate,
        outputs=outputs,
        # Where all is trained, nothing is computed or copied.
        combine=jax.jit(steps.combine, out_shardings=whole) if frozen else steps.combine,
        abstract_state=abstract,
    )


SHARED_PROGRAMS = 4
"""Compiled programs that this process keeps for configs that share one."""
_PROGRAMS: OrderedDict[tuple[Any, ...], tuple[Any, Any, Any]] = OrderedDict()


def _jit_program(
    steps: Steps, layout: Layout, teacher: GPT | None, shardings: Any, frozen: Any, whole: Any
) -> tuple[Any, Any, Any]:
    """(train, evaluate, outputs), jitted; the same for all configs of one `program_config`."""
    taught = {} if teacher is None else layout.shardings(teacher.param_axes())
    everywhere: Any = [layout.everywhere] * len(Settings._fields)
    train = jax.jit(
        steps.train_many,
        in_shardings=(
            shardings,
            layout.batches,
            layout.everywhere,
            Settings(*everywhere)._replace(frozen=frozen, given=taught),
        ),
        out_shardings=(shardings, layout.everywhere),
        donate_argnums=0,
        compiler_options=dict(steps.model.execution.compiler_options),
    )
    in_shardings = whole, layout.batch
    evaluate, outputs = (
        jax.jit(function, in_shardings=in_shardings, out_shardings=layout.everywhere)
        for function in (steps.evaluate, steps.outputs)
    )
    return train, evaluate, outputs
