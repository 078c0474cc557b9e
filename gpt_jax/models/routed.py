"""Values that layers sow beside their outputs: the router logits of a model with experts."""

import jax
import jax.numpy as jnp

from gpt_jax.models.gpt import GPT, Params
from gpt_jax.models.layers import ROUTERS
from gpt_jax.parallel.sharding import Axes


def by_layer(model: GPT, arrays: list[tuple[jax.Array]]) -> jax.Array:
    """[L, ...] of what each member of layer_pattern sowed: layer g P + i is i of group g."""
    stacked = jnp.stack([array for (array,) in arrays], axis=1)
    return stacked.reshape(model.config.n_layers, *stacked.shape[2:])


def apply_with_routers(
    model: GPT,
    params: Params,
    tokens_BT: jax.Array,
    segments_BT: jax.Array | None = None,
    dropout_key: jax.Array | None = None,
    logits: bool = True,
    prefix_BPD: jax.Array | None = None,
    positions_BT: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """`apply`, of a model with experts, and the router logits of every layer [L, B, T, E]."""
    (y, _), variables = model.apply_module(
        {"params": params},
        tokens_BT,
        positions_BT,
        segments_BT=segments_BT,
        train=dropout_key is not None,
        logits=logits,
        prefix_BPD=prefix_BPD,
        rngs=None if dropout_key is None else {"dropout": dropout_key},
        mutable=[ROUTERS],
    )
    seen, n_members = variables[ROUTERS]["blocks"], len(model.config.layer_pattern)
    routers = by_layer(model, [seen[str(i)]["mlp"]["logits"] for i in range(n_members)])
    if model.execution.kernel.name == "ring":  # back from the order of the ring
        from gpt_jax.models.ring import zigzag

        assert model.layout is not None
        routers_BTLE = jnp.moveaxis(routers, 0, 2)
        axes: Axes = ("act_batch", "act_seq", None, None)
        routers = jnp.moveaxis(zigzag(routers_BTLE, model.layout, axes, back=True), 2, 0)
    return y, routers
