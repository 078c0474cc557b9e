"""AdamW: Adam with decoupled weight decay. Must not import jax at its top."""

from typing import TYPE_CHECKING, Any

from gpt_jax.optim.entry import Build, Hyperparameters, OptimizerEntry, bytes_of

if TYPE_CHECKING:
    import optax


def adam(h: Hyperparameters) -> "optax.GradientTransformation":
    """`optax.scale_by_adam` (Kingma and Ba 2015), with one division of each value, not three.

    XLA writes down whatever is divided and used twice: on a CPU a pass over memory each.
    """
    import jax
    import jax.numpy as jnp
    import optax

    def update(gradients: Any, state: Any, _: Any = None) -> tuple[Any, Any]:
        count = optax.safe_increment(state.count)
        mu = jax.tree.map(lambda m, g: h.b1 * m + (1 - h.b1) * g, state.mu, gradients)
        nu = jax.tree.map(lambda v, g: h.b2 * v + (1 - h.b2) * g * g, state.nu, gradients)
        unbias_mu, unbias_nu = (1 / (1 - b**count) for b in (h.b1, h.b2))
        updates = jax.tree.map(
            lambda m, v: unbias_mu * m / (jnp.sqrt(unbias_nu * v) + h.epsilon), mu, nu
        )
        return updates, optax.ScaleByAdamState(count, mu, nu)

    init = optax.scale_by_adam(h.b1, h.b2, h.epsilon).init
    return optax.GradientTransformation(init, update)


def direction(build: Build) -> "optax.GradientTransformation":
    """Adam of all parameters."""
    return adam(build.numbers)


ENTRY = OptimizerEntry(
    name="adamw",
    summary="Adam, weight decay decoupled",
    source="Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2",
    direction=direction,
    state_bytes=bytes_of(2),
    mup=lambda group, options: "adam",
)
