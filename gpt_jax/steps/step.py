"""One training step and one evaluation step, as pure functions to be compiled whole.

A step sums losses and gradients over the batch (in microbatches if asked), divides once by the
number of target tokens, and updates. Randomness is `fold_in(seed, step)`, and of each of several
microbatches `fold_in` of its number; the learning rate is a function of the step: the state needs
nothing else to resume.

What a run may set without computing another function (seed, schedule, the numbers of the
optimizer) is an argument, `Settings`, and no constant of the program: runs that differ in nothing
else share one compilation, and a packed sweep maps over it. Must not import flax.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gpt_jax.config import Config, ModelConfig
from gpt_jax.config.timetable import Timetable
from gpt_jax.cost.rounding import round_up
from gpt_jax.data.batch import Batch
from gpt_jax.models.gpt import GPT, Params
from gpt_jax.models.trees import join, unflatten
from gpt_jax.objectives.cross_entropy import LossSums
from gpt_jax.objectives.parts import Objective, Transform
from gpt_jax.optim.entry import Hyperparameters
from gpt_jax.optim.schedule import learning_rate_schedule
from gpt_jax.optim.updates import clip_factor, make_optimizer

TRANSFORM = 2**31
"""Folded into the step's key for what a transform draws: beyond the index of any microbatch."""
LOSS_MEMORY = 0.98
"""Weight of the past in the running mean of the loss, against which a spike is measured."""


class TrainState(NamedTuple):
    """Everything that training changes."""

    step: jax.Array
    """Steps done, int32."""
    params: Params
    """Those that are trained."""
    opt_state: Any
    ema: Params | None
    """Moving average of the parameters, if optimizer.ema_decay is set."""
    mean_loss: jax.Array
    """Running mean of the loss, of steps left out too; 0 before the first good step."""


class Settings(NamedTuple):
    """Arguments of the compiled step that belong to a run: numbers of its config, and arrays that
    are not trained. Learning rates are a float32 vector, seed and n_steps integer scalars, the
    other numbers float32 scalars."""

    learning_rates: jax.Array | np.ndarray
    """[S] of each step, the schedule applied. S is the number of steps, padded to a power of two
    so that runs of about a length share a program."""
    hyperparameters: Hyperparameters
    seed: jax.Array | np.uint32
    """Seed of dropout."""
    n_steps: jax.Array | np.int32
    """Number of steps of the whole run."""
    frozen: Params
    """Parameters that are not trained (`Transform.init`); empty where all are."""
    given: Params
    """Arrays that the objective reads and does not train: a teacher's parameters; else empty."""


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
        n_steps=np.int32(n_steps),
        frozen={},
        given={},
    )


class Metrics(NamedTuple):
    """Scalars of one step, on the device until somebody reads them."""

    loss: jax.Array
    """Mean cross-entropy in nats per target token, before the update; of a task, its own loss per
    label."""
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
    distillation_loss: jax.Array | None = None
    """A teacher: mean divergence from its predictions, nats, not weighted."""

    def columns(self) -> dict[str, Any]:
        """{name: array} of those that the model has."""
        return {name: column for name, column in self._asdict().items() if column is not None}


@dataclasses.dataclass(frozen=True)
class Steps:
    """The functions of one experiment, not yet compiled."""

    config: Config
    objective: Objective
    transform: Transform

    @property
    def model(self) -> GPT:
        """The model, computing what the transform adds to it."""
        return self.transform.model

    def init(self, key: jax.Array) -> TrainState:
        """A state of fresh parameters."""
        return self.begin(key, self.model.init(key))[0]

    def begin(self, key: jax.Array, params: Params) -> tuple[TrainState, Params]:
        """(state, frozen parameters) of the parameters that training begins from."""
        fresh_key, transform_key = (jax.random.fold_in(key, i) for i in (1, 2))
        frozen, trained = self.split(transform_key, params, fresh_key)
        optimizer = _make_optimizer(self.config, self.transform, trained, 0.0)
        state = TrainState(
            step=jnp.zeros((), jnp.int32),
            params=trained,
            opt_state=optimizer.init(trained),
            # A copy: the state is donated, and a buffer can be donated once.
            ema=jax.tree.map(jnp.copy, trained) if self.config.optimizer.ema_decay else None,
            mean_loss=jnp.zeros(()),
        )
        return state, frozen

    def split(
        self, key: jax.Array, params: Params, fresh_key: jax.Array | None = None
    ) -> tuple[Params, Params]:
        """(frozen, trained) parameters of a model's, with what the objective adds to them."""
        added = self.objective.fresh(key if fresh_key is None else fresh_key)
        return self.transform.init(key, join(params, unflatten(added)))

    def axes(self) -> tuple[Params, Params, Params]:
        """Logical names of the dims of (frozen, trained, combined) parameters."""
        base = join(self.model.param_axes(), unflatten(self.objective.axes()))
        return self.transform.axes(base)

    def combine(self, frozen: Params, trained: Params) -> Params:
        """All of the model's parameters, as `evaluate` and `outputs` take them."""
        return self.transform.combine(frozen, trained)

    def train(
        self, state: TrainState, batch: Batch, settings: Settings
    ) -> tuple[TrainState, Metrics]:
        """One step."""
        key = self.key(settings.seed, state.step)
        gradients, sums = self.sum_gradients(
            state.params, batch, key, settings.frozen, settings.given
        )
        return apply_gradients(self.config, settings, state, gradients, sums, self.transform)

    def evaluate(self, params: Params, batch: Batch) -> LossSums:
        """The sums of a batch; params: all of the model's."""
        return self.outputs(params, batch)[0]

    def outputs(self, params: Params, batch: Batch) -> tuple[LossSums, jax.Array]:
        """`Objective.outputs`; params: all of the model's."""
        return self.objective.outputs(params, batch)

    def key(self, seed: Any, step: jax.Array) -> jax.Array | None:
        """The key of everything that a step draws: a function of seed and step; None = nothing."""
        model = self.config.model
        dropout = model.dropout_embedding or model.dropout_residual or model.dropout_attention
        if not (dropout or self.objective.draws or self.transform.draws):
            return None
        return jax.random.fold_in(jax.random.key(seed), step)

    def sum_gradients(
        self,
        params: Params,
        batch: Batch,
        key: jax.Array | None,
        frozen: Params | None = None,
        given: Params | None = None,
    ) -> tuple[Params, LossSums]:
        """Gradients of the summed objective, and its sums, over compute.microbatches parts.

        Sums add over any split of the batch, so data-parallel code only has to add them (`psum`).
        frozen, given: as in `Settings`.
        """
        transform, objective = self.transform, self.objective

        def total(params: Params, part: Batch, key: jax.Array | None) -> tuple[Any, LossSums]:
            # Dropout draws from the key itself, a transform from one that follows from it.
            drawn = None if key is None else jax.random.fold_in(key, TRANSFORM)
            whole = transform.combine(frozen or {}, params, drawn)
            summed, sums = objective.loss(whole, part, key, given or {})
            if transform.has_penalty:  # added to the mean
                summed += sums.weight * transform.penalty(params)
            return summed, sums

        gradient = jax.grad(total, has_aux=True)
        n_parts = self.config.compute.microbatches
        if n_parts == 1:
            return gradient(params, batch, key)

        def add_part(carry: Any, part_and_index: Any) -> tuple[Any, None]:
            part, index = part_and_index
            part_key = None if key is None else jax.random.fold_in(key, index)
            return jax.tree.map(jnp.add, carry, gradient(params, part, part_key)), None

        def split(x: jax.Array) -> jax.Array:
            # Strided: each part takes rows from every device, so that none has to move.
            return x.reshape(x.shape[0] // n_parts, n_parts, *x.shape[1:]).swapaxes(0, 1)

        parts = jax.tree.map(split, batch)
        zeros = (jax.tree.map(jnp.zeros_like, params), objective.no_sums())
        summed, _ = jax.lax.scan(add_part, zeros, (parts, jnp.arange(n_parts)))
        return summed

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

        train = jax.jit(self.train, inline=True)  # to be traced once, for shapes and for the loop

        def one(i: jax.Array, carry: tuple[TrainState, Metrics]) -> tuple[TrainState, Metrics]:
            state, all_metrics = carry
            batch = jax.tree.map(lambda x: x[i], batches)
            state, metrics = train(state, batch, settings)
            return state, jax.tree.map(lambda all, x: all.at[i].set(x), all_metrics, metrics)

        first = jax.tree.map(lambda x: x[0], batches)
        _, metrics = jax.eval_shape(train, state, first, settings)
        empty = jax.tree.map(lambda x: jnp.zeros((capacity, *x.shape), x.dtype), metrics)
        return jax.lax.fori_loop(0, n_steps, one, (state, empty))


@jax.named_scope("optimizer")
def apply_gradients(
    config: Config,
    settings: Settings,
    state: TrainState,
    gradients: Params,
    sums: LossSums,
    transform: Transform | None = None,
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
    optimizer = _make_optimizer(config, transform, state.params, learning_rate, numbers, settings)
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
        kept = state._replace(step=new.step, mean_loss=_past(config, state.mean_loss, loss))
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
    if sums.distillation is not None:
        metrics = metrics._replace(distillation_loss=sums.distillation / target_tokens)
    return new, _with_routers(metrics, sums, config.model)


def _past(config: Config, mean_loss: jax.Array, loss: jax.Array) -> jax.Array:
    """The running mean after a step that was left out: it follows, or a loss that stays high would
    be a spike for ever. One step lifts it by the threshold at most, however high its loss."""
    threshold = config.train.spike_threshold
    if threshold is None:
        return mean_loss
    moved = LOSS_MEMORY * mean_loss + (1 - LOSS_MEMORY) * loss
    follows = jnp.isfinite(loss) & (mean_loss != 0)
    return jnp.where(follows, jnp.minimum(moved, mean_loss + threshold), mean_loss)


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


def _make_optimizer(
    config: Config,
    transform: Transform | None,
    params: Params,
    learning_rate: Any,
    numbers: Hyperparameters | None = None,
    settings: Settings | None = None,
) -> optax.GradientTransformation:
    """The optimizer of the trained parameters, as the transform changes it."""
    optimizer = make_optimizer(config.optimizer, params, learning_rate, numbers, config.model)
    if transform is None:
        return optimizer
    return transform.wrap(optimizer, 0 if settings is None else settings.n_steps)


def evaluation_params(state: TrainState) -> Params:
    """Parameters to evaluate and sample with: the moving average if there is one."""
    return state.params if state.ema is None else state.ema
