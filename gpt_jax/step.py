"""One training step and one evaluation step, as pure functions to be compiled whole.

A step sums losses and gradients over the batch (in microbatches if asked), divides once by the
number of target tokens, and updates. Randomness is `fold_in(seed, step)`; the learning rate is a
function of the step: the state needs nothing else to resume.

What a run may set without computing another function (seed, schedule, the numbers of the
optimizer) is an argument, `Settings`, and no constant of the program: runs that differ in nothing
else share one compilation, and a packed sweep maps over it. Must not import flax.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gpt_jax import overrides
from gpt_jax.buckets import round_up
from gpt_jax.config import Config, ModelConfig
from gpt_jax.data.batch import Batch
from gpt_jax.losses import LossSums, LossWeights, batch_loss, no_sums
from gpt_jax.models.gpt import GPT, Params, make_gpt
from gpt_jax.optim import (
    Hyperparameters,
    clip_factor,
    learning_rate_schedule,
    make_optimizer,
)
from gpt_jax.sharding import Layout
from gpt_jax.timetable import Timetable

LOSS_MEMORY = 0.98
"""Weight of the past in the running mean of the loss, against which a spike is measured."""


class TrainState(NamedTuple):
    """Everything that training changes."""

    step: jax.Array
    """Steps done, int32."""
    params: Params
    opt_state: Any
    ema: Params | None
    """Moving average of the parameters, if optimizer.ema_decay is set."""
    mean_loss: jax.Array
    """Running mean of the loss; 0 before the first good step."""


class Settings(NamedTuple):
    """What the compiled step takes as an argument of a run's config; all arrays float32 scalars
    but for the first and the last."""

    learning_rates: jax.Array | np.ndarray
    """[S] of each step, the schedule applied. S is the number of steps, padded to a power of two
    so that runs of about a length share a program."""
    hyperparameters: Hyperparameters
    seed: jax.Array | np.uint32
    """Of dropout."""


AS_SETTINGS = (
    "name",
    "seed",
    "model.init_std",
    "model.init_matrices",
    "model.init_residual",
    "data",
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


def make_settings(config: Config, timetable: Timetable) -> Settings:
    """The numbers of a config that its steps take as arguments, on the host."""
    n_steps = timetable.n_steps
    padded = round_up(n_steps)
    steps = np.minimum(np.arange(padded), n_steps - 1)
    numbers = Hyperparameters.of(config.optimizer)
    return Settings(
        learning_rates=np.asarray(learning_rate_schedule(config, timetable)(steps), np.float32),
        hyperparameters=jax.tree.map(np.float32, numbers),
        seed=np.uint32(config.seed % 2**32),
    )


class Metrics(NamedTuple):
    """Scalars of one step, on the device until somebody reads them."""

    loss: jax.Array
    """Mean cross-entropy in nats per target token, before the update."""
    z_loss: jax.Array
    """Mean squared log-normaliser, not weighted."""
    target_tokens: jax.Array
    learning_rate: jax.Array
    gradient_norm: jax.Array
    """Global norm before clipping."""
    update_norm: jax.Array
    parameter_norm: jax.Array
    bad: jax.Array
    """Whether loss or gradient is not finite, or the loss a spike."""
    router_load_balance_loss: jax.Array | None = None
    """Experts: mean over tokens and layers, not weighted; 1 if experts share tokens evenly."""
    router_z_loss: jax.Array | None = None
    """Experts: mean squared log-normaliser of router logits over layers, not weighted."""
    dropped_choices: jax.Array | None = None
    """Experts with a capacity: the share of tokens' choices that found no place."""

    def columns(self) -> dict[str, Any]:
        """{name: array} of those that the model has."""
        return {name: column for name, column in self._asdict().items() if column is not None}


@dataclasses.dataclass(frozen=True)
class Steps:
    """The functions of one experiment: `init`, `train` and `evaluate`, not yet compiled."""

    init: Callable[[jax.Array], TrainState]
    train: Callable[[TrainState, Batch, Settings], tuple[TrainState, Metrics]]
    """One step."""
    evaluate: Callable[[Params, Batch], LossSums]

    def train_many(
        self, state: TrainState, batches: Batch, n_steps: jax.Array, settings: Settings
    ) -> tuple[TrainState, Metrics]:
        """`n_steps` steps, on the first n_steps of K batches stacked along a dim in front.

        n_steps: from 1 to K; an argument, so that one program of K batches takes any number of
        steps, each computed by the same instructions. Returns Metrics of [K] arrays, of which the
        first n_steps hold anything. For K = 1 the program has no loop, and n_steps is not read.
        """
        (capacity,) = {x.shape[0] for x in jax.tree.leaves(batches)}
        if capacity == 1:
            state, metrics = self.train(state, jax.tree.map(lambda x: x[0], batches), settings)
            return state, jax.tree.map(lambda x: x[None], metrics)

        def one(i: jax.Array, carry: tuple[TrainState, Metrics]) -> tuple[TrainState, Metrics]:
            state, all_metrics = carry
            batch = jax.tree.map(lambda x: x[i], batches)
            state, metrics = self.train(state, batch, settings)
            return state, jax.tree.map(lambda all, x: all.at[i].set(x), all_metrics, metrics)

        first = jax.tree.map(lambda x: x[0], batches)
        _, metrics = jax.eval_shape(self.train, state, first, settings)
        empty = jax.tree.map(lambda x: jnp.zeros((capacity, *x.shape), x.dtype), metrics)
        return jax.lax.fori_loop(0, n_steps, one, (state, empty))


def make_steps(config: Config, model: GPT) -> Steps:
    """The pure functions of a config; see `compile_steps` for the compiled ones."""

    def init(key: jax.Array) -> TrainState:
        params = model.init(key)
        optimizer = make_optimizer(config.optimizer, params, learning_rate=0.0, model=config.model)
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            opt_state=optimizer.init(params),
            # A copy: the state is donated, and a buffer can be donated once.
            ema=jax.tree.map(jnp.copy, params) if config.optimizer.ema_decay else None,
            mean_loss=jnp.zeros(()),
        )

    def train(state: TrainState, batch: Batch, settings: Settings) -> tuple[TrainState, Metrics]:
        key = dropout_key(config, settings.seed, state.step)
        gradients, sums = sum_gradients(config, model, state.params, batch, key)
        return apply_gradients(config, settings, state, gradients, sums)

    def evaluate(params: Params, batch: Batch) -> LossSums:
        return batch_loss(model, params, batch)[1]

    return Steps(init, train, evaluate)


def dropout_key(config: Config, seed: Any, step: jax.Array) -> jax.Array | None:
    """The step's key for dropout; None if the model has none."""
    model = config.model
    if not (model.dropout_embedding or model.dropout_residual or model.dropout_attention):
        return None
    return jax.random.fold_in(jax.random.key(seed), step)


def sum_gradients(
    config: Config, model: GPT, params: Params, batch: Batch, key: jax.Array | None
) -> tuple[Params, LossSums]:
    """Gradients of the summed objective, and its sums, over compute.microbatches parts.

    Sums add over any split of the batch, so data-parallel code only has to add them (`psum`).
    """

    def objective(params: Params, part: Batch, key: jax.Array | None):
        return batch_loss(model, params, part, LossWeights.of(config.train), key)

    gradient = jax.grad(objective, has_aux=True)
    n_parts = config.compute.microbatches
    if n_parts == 1:
        return gradient(params, batch, key)

    def add_part(total, part_and_index):
        part, index = part_and_index
        part_key = None if key is None else jax.random.fold_in(key, index)
        return jax.tree.map(jnp.add, total, gradient(params, part, part_key)), None

    def split(x: jax.Array) -> jax.Array:
        # Strided: each part takes rows from every device, so that none has to move.
        return x.reshape(x.shape[0] // n_parts, n_parts, *x.shape[1:]).swapaxes(0, 1)

    parts = jax.tree.map(split, batch)
    zeros = (jax.tree.map(jnp.zeros_like, params), no_sums(config.model))
    total, _ = jax.lax.scan(add_part, zeros, (parts, jnp.arange(n_parts)))
    return total


@jax.named_scope("optimizer")
def apply_gradients(
    config: Config,
    settings: Settings,
    state: TrainState,
    gradients: Params,
    sums: LossSums,
) -> tuple[TrainState, Metrics]:
    """Divide the summed gradients by the target tokens, once, and update the state."""
    target_tokens = jnp.maximum(sums.weight, 1.0)
    loss = sums.cross_entropy / target_tokens
    gradient_norm = optax.global_norm(gradients) / target_tokens
    numbers, factor = settings.hyperparameters, 1 / target_tokens
    if numbers.clip_norm is not None:  # in the one pass over the gradients that divides them
        factor *= clip_factor(gradient_norm, numbers.clip_norm)
        numbers = numbers._replace(clip_norm=None)
    gradients = jax.tree.map(lambda g: factor * g, gradients)
    learning_rate = jnp.asarray(settings.learning_rates)[state.step]
    optimizer = make_optimizer(
        config.optimizer, state.params, learning_rate, numbers, model=config.model
    )
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    update_norm = optax.global_norm(updates)
    # Nothing, but it makes the new parameters follow the norm: who reads the old ones has done so,
    # and XLA keeps no copy of them to write the new ones in their place.
    nothing = jnp.minimum(0.0, update_norm)
    params = jax.tree.map(lambda p, u: p + (u + nothing), state.params, updates)

    bad = ~(jnp.isfinite(loss) & jnp.isfinite(gradient_norm))
    # Not step == 0: where the first steps were left out there is no mean to compare with yet.
    first = state.mean_loss == 0
    if config.train.spike_threshold is not None:
        bad |= ~first & (loss > state.mean_loss + config.train.spike_threshold)
    mean_loss = jnp.where(first, loss, LOSS_MEMORY * state.mean_loss + (1 - LOSS_MEMORY) * loss)
    ema, decay = state.ema, config.optimizer.ema_decay
    if ema is not None and decay is not None:
        ema = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, ema, params)
    new = TrainState(state.step + 1, params, opt_state, ema, mean_loss)
    if config.train.on_bad_step == "skip":
        kept = state._replace(step=new.step)
        new = jax.tree.map(lambda old, updated: jnp.where(bad, old, updated), kept, new)
    metrics = Metrics(
        loss=loss,
        z_loss=sums.z_loss / target_tokens,
        target_tokens=sums.weight,
        learning_rate=learning_rate,
        gradient_norm=gradient_norm,
        update_norm=update_norm,
        parameter_norm=optax.global_norm(params),
        bad=bad,
    )
    return new, _with_routers(metrics, sums, config.model)


def _with_routers(metrics: Metrics, sums: LossSums, model: ModelConfig) -> Metrics:
    """The metrics with those of the routers, if there are any."""
    if sums.router is None:
        return metrics
    each = jnp.maximum(sums.weight, 1.0) * model.n_layers
    has_capacity = model.expert_capacity is not None
    return metrics._replace(
        router_load_balance_loss=sums.router.load_balance / each,
        router_z_loss=sums.router.z_loss / each,
        dropped_choices=sums.router.dropped / each if has_capacity else None,
    )


def evaluation_params(state: TrainState) -> Params:
    """What is evaluated and sampled: the moving average if there is one."""
    return state.params if state.ema is None else state.ema


def state_shardings(steps: Steps, model: GPT, layout: Layout) -> Any:
    """A TrainState of shardings: where each array lives. Moments lie as their parameters do."""
    abstract = jax.eval_shape(steps.init, jax.random.key(0))
    params = layout.shardings(model.param_axes())
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


@dataclasses.dataclass(frozen=True)
class CompiledSteps:
    """`Steps` as jitted functions with fixed shardings; the training state is donated."""

    init: Callable[[jax.Array], TrainState]
    train: Callable[[TrainState, Batch, jax.Array, Settings], tuple[TrainState, Metrics]]
    """`Steps.train_many`: one compilation for each shape of the stacked batches."""
    evaluate: Callable[[Params, Batch], LossSums]
    abstract_state: TrainState
    """Shapes, types and shardings, for restoring a checkpoint."""


def compile_steps(config: Config, model: GPT, layout: Layout) -> CompiledSteps:
    """Jit the steps over the layout's mesh; each compiles at its first call.

    `train` and `evaluate` are shared, with what they have compiled, by all configs of one process
    that have the same `program_config`.
    """
    steps = make_steps(config, model)
    shardings = state_shardings(steps, model, layout)
    abstract = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        jax.eval_shape(steps.init, jax.random.key(0)),
        shardings,
    )
    train, evaluate = _compiled_program(program_config(config), layout)
    return CompiledSteps(
        init=jax.jit(steps.init, out_shardings=shardings),
        train=train,
        evaluate=evaluate,
        abstract_state=abstract,
    )


@functools.lru_cache(maxsize=4)
def _compiled_program(program: Config, layout: Layout) -> tuple[Any, Any]:
    """(train, evaluate) of every config that has this program config."""
    model = make_gpt(program.model, program.compute, layout)
    steps = make_steps(program, model)
    shardings = state_shardings(steps, model, layout)
    train = jax.jit(
        steps.train_many,
        in_shardings=(shardings, layout.batches, layout.everywhere, layout.everywhere),
        out_shardings=(shardings, layout.everywhere),
        donate_argnums=0,
    )
    evaluate = jax.jit(
        steps.evaluate,
        in_shardings=(shardings.params, layout.batch),
        out_shardings=layout.everywhere,
    )
    return train, evaluate
