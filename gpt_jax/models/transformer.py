"""The transformer as Linen modules: blocks, groups of them, and the whole."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from gpt_jax.config import ModelConfig
from gpt_jax.models.attention_module import ACTIVATIONS, Attention
from gpt_jax.models.execution import Execution
from gpt_jax.models.layers import MLP, ROUTERS, Embedding, Head, make_norm
from gpt_jax.models.pattern import MASKED
from gpt_jax.models.products import Precision, project, table_logits
from gpt_jax.optim import parametrization
from gpt_jax.parallel.sharding import Axes, Layout

Cache = list[dict[str, jax.Array]]
"""Keys and values [B K, S, H]: of each layer if layers are unrolled; if they are scanned, of each
member of layer_pattern, on a leading dim of groups. Rows and heads share a dim, so that products
take the arrays as they are."""


class Block(nn.Module):
    """One layer: attention and MLP, with norms and residual additions as the config says."""

    config: ModelConfig
    execution: Execution
    layout: Layout | None
    kind: str
    """The layer's in `layer_pattern`."""

    @nn.compact
    def __call__(
        self, x_BTD, positions_BT, segments_BT, cache, train: bool, layer: jax.Array | None = None
    ):
        config = self.config
        norm = make_norm(config, self.execution.how)
        attend = Attention(config, self.execution, self.layout, self.kind, name="attention")
        mlp = self._mlp(decoding=cache is not None)
        multiplier = parametrization.residual_multiplier(config)
        after = config.norm_position in ("output", "sandwich")

        def attended(x: jax.Array) -> tuple[jax.Array, dict[str, jax.Array] | None]:
            y, new_cache = attend(x, positions_BT, segments_BT, cache, train, layer)
            self.sow(ACTIVATIONS, "attention_output", y)
            return normed_after(y, "attention"), new_cache

        def fed_forward(x: jax.Array) -> jax.Array:
            y = mlp(x)
            self.sow(ACTIVATIONS, "mlp_output", y)
            return normed_after(y, "mlp")

        def normed_after(y: jax.Array, part: str) -> jax.Array:
            return norm(name=f"{part}_out_norm")(y) if after else y

        def drop(y: jax.Array) -> jax.Array:
            """Scales a sub-block's output by the residual multiplier and applies dropout."""
            y = y if multiplier == 1 else multiplier * y
            return nn.Dropout(config.dropout_residual, deterministic=not train)(y)

        def constrain(y: jax.Array) -> jax.Array:
            if self.layout is None:
                return y
            return self.layout.constrain_stream(y)

        if config.norm_position == "output":
            y_BTD, cache = attended(x_BTD)
            x_BTD = constrain(x_BTD + drop(y_BTD))
            return constrain(x_BTD + drop(fed_forward(x_BTD))), cache
        attention_norm = norm(name="attention_norm")
        if config.parallel_block:
            normed = attention_norm(x_BTD)
            y_BTD, cache = attended(normed)
            if config.parallel_norms == "separate":
                normed = norm(name="mlp_norm")(x_BTD)
            return constrain(x_BTD + drop(y_BTD + fed_forward(normed))), cache
        mlp_norm = norm(name="mlp_norm")
        if config.norm_position == "post":
            y_BTD, cache = attended(x_BTD)
            x_BTD = constrain(attention_norm(x_BTD + drop(y_BTD)))
            return constrain(mlp_norm(x_BTD + drop(fed_forward(x_BTD)))), cache
        y_BTD, cache = attended(attention_norm(x_BTD))
        x_BTD = constrain(x_BTD + drop(y_BTD))
        return constrain(x_BTD + drop(fed_forward(mlp_norm(x_BTD)))), cache

    def _mlp(self, decoding: bool) -> Callable[[jax.Array], jax.Array]:
        config, how = self.config, self.execution.how
        if config.n_experts is None:
            return MLP(config, how, self.layout, name="mlp")
        from gpt_jax.models.experts import Experts

        return functools.partial(Experts(config, how, self.layout, name="mlp"), decoding=decoding)


GROUP_INPUT = "group_input"
"""Checkpoint name of a layer group's input, which compute.remat = offload stores in host memory."""


class LayerGroup(nn.Module):
    """One period of `layer_pattern`: the body that is scanned over depth."""

    config: ModelConfig
    execution: Execution
    layout: Layout | None
    train: bool

    @nn.compact
    def __call__(
        self, x_BTD, cache: Cache | None, positions_BT, segments_BT, group: jax.Array | None
    ):
        """group: its index, where the config scales scores by layer."""
        new_cache = []
        if self.execution.remat == "offload":
            x_BTD = checkpoint_name(x_BTD, GROUP_INPUT)
        for i, kind in enumerate(self.config.layer_pattern):
            block = Block(self.config, self.execution, self.layout, kind, name=str(i))
            layer_cache = None if cache is None else cache[i]
            layer = None if group is None else group * len(self.config.layer_pattern) + i
            seen = (positions_BT, segments_BT, layer_cache, self.train, layer)
            x_BTD, layer_cache = block(x_BTD, *seen)
            self.sow(ACTIVATIONS, f"stream_{i}", x_BTD)
            new_cache.append(layer_cache)
        return x_BTD, None if cache is None else new_cache


class Transformer(nn.Module):
    """Embeddings, layers, final norm and output projection."""

    config: ModelConfig
    execution: Execution
    layout: Layout | None

    @nn.compact
    def __call__(
        self,
        tokens_BT: jax.Array,
        positions_BT: jax.Array | None = None,
        segments_BT: jax.Array | None = None,
        cache: Cache | None = None,
        train: bool = False,
        logits: bool = True,
        prefix_BPD: jax.Array | None = None,
    ) -> tuple[jax.Array, Cache | None]:
        """Logits, or what they are made of; and the cache."""
        config = self.config
        if positions_BT is None:
            positions_BT = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1]), tokens_BT.shape)
        in_ring = self.execution.kernel.name == "ring" and cache is None
        if in_ring:  # from here to the last layer, positions are in the order of the ring
            tokens_BT, positions_BT = self._zigzag(tokens_BT), self._zigzag(positions_BT)
            segments_BT = None if segments_BT is None else self._zigzag(segments_BT)
        embedding = Embedding(config, self.execution.how, self.layout, name="embedding")
        x_BTD = embedding(tokens_BT, positions_BT, prefix_BPD)
        x_BTD = nn.Dropout(config.dropout_embedding, deterministic=not train)(x_BTD)
        if self.layout is not None:
            x_BTD = self.layout.constrain_stream(x_BTD)
        self.sow(ACTIVATIONS, "embedded", x_BTD)
        if self.has_variable("params", "blocks_0"):
            x_BTD, cache = self._layer_by_layer(x_BTD, cache, positions_BT, segments_BT)
        else:
            x_BTD, cache = self._stacked(x_BTD, cache, positions_BT, segments_BT, train)
        if in_ring:
            x_BTD = self._zigzag(x_BTD, back=True)
        if config.final_norm:
            x_BTD = make_norm(config, self.execution.how)(name="final_norm")(x_BTD)
        multiplier = parametrization.output_multiplier(config)
        x_BTD = x_BTD if multiplier == 1 else multiplier * x_BTD
        return self._logits(x_BTD, embedding) if logits else x_BTD, cache

    def _stacked(self, x_BTD, cache: Cache | None, positions_BT, segments_BT, train: bool):
        """All groups of layers, with each parameter of theirs in one array."""
        n_groups = self.config.n_layers // len(self.config.layer_pattern)
        group = LayerGroup
        policies = {
            "full": None,
            "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
            "offload": jax.checkpoint_policies.save_and_offload_only_these_names(
                names_which_can_be_saved=[],
                names_which_can_be_offloaded=[GROUP_INPUT],
                offload_src="device",
                offload_dst="pinned_host",
            ),
        }
        if self.execution.remat in policies and cache is None:
            policy = policies[self.execution.remat]
            # A group at a time: what is kept is one residual stream for each.
            group = nn.remat(LayerGroup, policy=policy, prevent_cse=self.execution.unroll)
        layers = nn.scan(
            group,
            variable_axes={"params": 0, ACTIVATIONS: 0, ROUTERS: 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(0, nn.broadcast, nn.broadcast, 0),
            length=n_groups,
            unroll=n_groups if self.execution.unroll else 1,
            metadata_params={nn.PARTITION_NAME: "layer"},
        )(self.config, self.execution, self.layout, train, name="blocks")
        groups = jnp.arange(n_groups) if self.config.scores_over_layer else None
        return layers(x_BTD, cache, positions_BT, segments_BT, groups)

    def _layer_by_layer(self, x_BTD, cache: Cache | None, positions_BT, segments_BT):
        """The same, not to be trained, with arrays of their own for each group
        (`GPT.unstacked_params`)."""
        period = len(self.config.layer_pattern)
        new_cache: Cache = []
        for i in range(self.config.n_layers // period):
            group = LayerGroup(self.config, self.execution, self.layout, False, name=f"blocks_{i}")
            group_cache = None if cache is None else cache[i * period : (i + 1) * period]
            index = jnp.asarray(i) if self.config.scores_over_layer else None
            x_BTD, group_cache = group(x_BTD, group_cache, positions_BT, segments_BT, index)
            new_cache += group_cache or []
        return x_BTD, None if cache is None else new_cache

    def _zigzag(self, x: jax.Array, back: bool = False) -> jax.Array:
        from gpt_jax.models.ring import zigzag

        assert self.layout is not None
        axes: Axes = ("act_batch", "act_seq", "act_embed")[: x.ndim]
        return zigzag(x, self.layout, axes, back)

    def _logits(self, x_BTD: jax.Array, embedding: Embedding) -> jax.Array:
        if self.config.tied_embeddings:
            matrix = embedding.table()
        else:
            matrix = Head(self.config, name="head")()
        return output_logits(self.config, self.execution.how, self.layout, x_BTD, matrix)


def soft_cap(logits: jax.Array, cap: float | None) -> jax.Array:
    """cap tanh(logits / cap) (model.logit_soft_cap); None = the logits as they are."""
    return logits if cap is None else cap * jnp.tanh(logits / cap)


def output_logits(
    config: ModelConfig, how: Precision, layout: Layout | None, x_BTD: jax.Array, matrix: jax.Array
) -> jax.Array:
    """[B, T, padded V] float32; padded ids hold a very negative number.

    matrix: the token embeddings [padded V, D] where they are tied, else the head's kernel.
    """
    if config.tied_embeddings:
        logits = table_logits(x_BTD, matrix, how)
    else:
        logits = project(x_BTD, matrix, 1, how, result=jnp.dtype(jnp.float32))
    if layout is not None:
        logits = layout.constrain(logits, "act_batch", "act_seq", "act_vocab")
    logits = soft_cap(logits, config.logit_soft_cap)
    if config.padded_vocab_size > config.vocab_size:
        ids = jnp.arange(config.padded_vocab_size)
        logits = jnp.where(ids < config.vocab_size, logits, MASKED)
    return logits
