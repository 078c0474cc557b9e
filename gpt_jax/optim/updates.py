"""From gradients to updates: clipping, the update rule, weight decay and learning rates.

The rule is an entry (`gpt_jax.optim.entry`); how a parameter is treated follows from its role
(`gpt_jax.optim.roles`). Everything numeric may be a JAX tracer: an optimizer is built inside the
traced step, from the learning rate of that step, and holds no schedule of its own, so an update
that is left out does not shift the schedule, and a packed sweep can `vmap` over `Hyperparameters`.

Imports Optax; must not import flax or anything of `gpt_jax.models`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gpt_jax.config import ModelConfig, OptimizerConfig
from gpt_jax.optim.entry import OPTIMIZERS, Build, Hyperparameters, OptimizerEntry, Scalar
from gpt_jax.optim.parametrization import Group, gradient_factor, learning_rate_factor
from gpt_jax.optim.roles import Params, decay_mask, roles, rule_at


def make_optimizer(
    config: OptimizerConfig,
    params_like: Params,
    learning_rate: Scalar,
    hyperparameters: Hyperparameters | None = None,
    model: ModelConfig | None = None,
) -> optax.GradientTransformation:
    """The update of one step: clip, direction, weight decay, times minus the learning rate.

    Args:
      config: decides the rule, what decays, and the numbers where `hyperparameters` is None.
      params_like: parameters, or anything with their structure; only paths are read.
      learning_rate: of this step, the schedule applied. `init` depends on no number, so any
        value will do for it.
      hyperparameters: numbers that take the place of those in `config`.
      model: its parametrization sets learning rate, weight decay and epsilon of each parameter in
        relation to these numbers; None: the standard one, which has the same for all.

    Weight decay is decoupled, times the learning rate of the step, except where the entry has it
    in the gradient (`adam`): there it is the classic L2 term, added to the clipped gradient.
    """
    entry = OPTIMIZERS.find(config.name)
    h = hyperparameters or Hyperparameters.of(config)
    options = entry.read_options(config.options, "optimizer.options")
    clip = optax.identity() if h.clip_norm is None else _clip(h.clip_norm)
    mask = decay_mask(params_like, config.decay)
    decay = optax.add_decayed_weights(h.weight_decay, mask)
    rule = entry.direction(Build(params_like, h, learning_rate, options))
    direction = _parametrized(rule, entry, options, model)
    if entry.complete:
        decay = optax.add_decayed_weights(-learning_rate * h.weight_decay, mask)
        return optax.chain(clip, direction, decay)
    rates = _learning_rates(entry, params_like, h, learning_rate)
    descend = optax.stateless(
        lambda updates, _: jax.tree.map(lambda rate, u: -rate * u, rates, updates)
    )
    if entry.decay_in_gradient:
        return optax.chain(clip, decay, direction, descend)
    return optax.chain(clip, direction, decay, descend)


def _learning_rates(
    entry: OptimizerEntry, params_like: Params, h: Hyperparameters, learning_rate: Scalar
) -> Params:
    """The learning rate of every parameter: the step's, or `adam_learning_rate` in its place."""
    adam_rate = learning_rate * (h.adam_learning_rate / h.learning_rate)
    return jax.tree.map(
        lambda role: learning_rate if entry.at_learning_rate(role) else adam_rate,
        roles(params_like),
    )


def _parametrized(
    direction: optax.GradientTransformation,
    entry: OptimizerEntry,
    options: Any,
    model: ModelConfig | None,
) -> optax.GradientTransformation:
    """`direction` with the learning rates and epsilons of the model's parametrization.

    Adam with f times the epsilon is Adam of gradients divided by f. Weight decay comes after, so
    that times the learning rate it is the same for all parameters.
    """
    if model is None or model.parametrization == "standard" or entry.mup is None:
        return direction
    mup = entry.mup

    def scaled(tree: Any, of_group: Callable[[Group], float]) -> Any:
        def scale(path: tuple[Any, ...], x: jax.Array) -> jax.Array:
            by = of_group(rule_at(path).group)
            return x if by == 1 else by * x

        return jax.tree_util.tree_map_with_path(scale, tree)

    def update(gradients: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        if entry.follows_epsilon:
            gradients = scaled(gradients, lambda group: 1 / gradient_factor(model, group))
        updates, state = direction.update(gradients, state, params)

        def rate(group: Group) -> float:
            return learning_rate_factor(model, mup(group, options), group)

        return scaled(updates, rate), state

    return optax.GradientTransformation(direction.init, update)


def clip_factor(norm: jax.Array, limit: Scalar) -> jax.Array:
    """Factor that scales gradients with global norm `norm` down to at most `limit`: a scalar.

    `optax.clip_by_global_norm` divides every value instead.
    """
    return jnp.minimum(1.0, limit / norm)


def _clip(limit: Scalar) -> optax.GradientTransformation:
    def scale(updates: Any, _: Any) -> Any:
        factor = clip_factor(optax.global_norm(updates), limit)
        return jax.tree.map(lambda u: factor * u, updates)

    return optax.stateless(scale)
