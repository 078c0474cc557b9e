"""An optimizer of your own: the sign of a momentum, with a decay that is an option.

    gpt-jax train quickstart --extension configs/extensions/my_optimizer.py \
        --optimizer.name signum_mix --optimizer.options.fast 0.5 --optimizer.learning_rate 1e-3
"""

import jax
import jax.numpy as jnp
import optax

from gpt_jax.config.fields import Probability, section
from gpt_jax.optim.entry import OPTIMIZERS, OptimizerEntry, bytes_of


@section
class Options:
    """Settings of its own, beside the fields of `optimizer`."""

    fast: Probability = 0.8
    """Decay of the momentum whose sign is taken; the stored one decays with optimizer.b1."""


def direction(build):
    """Gradients to updates, learning rate and sign aside: here the sign of a momentum."""
    h, options = build.numbers, build.options

    def mix(old, new, decay):
        return jax.tree.map(lambda m, g: decay * m + (1 - decay) * g, old, new)

    def init(params):
        return jax.tree.map(jnp.zeros_like, params)

    def update(gradients, momentum, params=None):
        updates = jax.tree.map(jnp.sign, mix(momentum, gradients, options.fast))
        return updates, mix(momentum, gradients, h.b1)

    return optax.GradientTransformation(init, update)


OPTIMIZERS.register(
    OptimizerEntry(
        name="signum_mix",
        summary="sign of a momentum",
        source="Bernstein et al. 2018, arXiv:1802.04434",
        options=Options,
        direction=direction,
        state_bytes=bytes_of(1),  # one float32 copy of each parameter, for memory and plan
        mup=lambda group, options: "adam",  # its size does not depend on the gradient's
        follows_epsilon=False,
    )
)
