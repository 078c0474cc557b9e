"""The transformer as Linen modules: attention, blocks, groups of them, and the whole."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from gpt_jax.config import ModelConfig
from gpt_jax.models import attention
from gpt_jax.models.entry import ScoreEntry, position_of, score_changes
from gpt_jax.models.execution import Execution
from gpt_jax.models.layers import (
    MLP,
    ROUTERS,
    Embedding,
    Head,
    Norm,
    Projection,
    make_norm,
    parameter,
    projection_std,
)
from gpt_jax.models.pattern import MASKED, Pattern
from gpt_jax.models.products import Precision, look_up, project
from gpt_jax.optim import parametrization
from gpt_jax.parallel.sharding import Axes, Layout

Cache = list[dict[str, jax.Array]]
"""Keys and values [B K, S, H]: of each layer if layers are unrolled; if they are scanned, of each
member of layer_pattern, on a leading dim of groups. Rows and heads share a dim, so that products
take the arrays as they are."""

ACTIVATIONS = "intermediates"
"""Linen's collection of what `GPT.activations` looks at; not collected, it costs nothing."""


class Attention(nn.Module):
    """Multi-, grouped- or multi-query causal self-attention.

    Its seams are methods, so that a Linen interceptor can change one of them: `project_heads`,
    `encode_positions`, `attend_whole` (training) and `attend_cached` (decoding).
    """

    config: ModelConfig
    execution: Execution
    layout: Layout | None
    kind: str
    """The layer's in `layer_pattern`."""

    @nn.compact
    def __call__(
        self,
        x_BTD: jax.Array,
        positions_BT: jax.Array,
        segments_BT: jax.Array | None,
        cache: dict[str, jax.Array] | None,
        train: bool,
        layer: jax.Array | None = None,
    ) -> tuple[jax.Array, dict[str, jax.Array] | None]:
        """layer: its index, from 0; only where the config scales scores by it."""
        q_BTNH, k_BTKH, v_BTKH = self.project_heads(x_BTD)
        q_BTNH, k_BTKH = self.encode_positions(q_BTNH, k_BTKH, positions_BT)
        if layer is not None:
            q_BTNH = (q_BTNH / (layer + 1)).astype(q_BTNH.dtype)
        pattern = self._pattern(train)
        if self.is_mutable_collection(ACTIVATIONS):
            self.sow(ACTIVATIONS, "scores", attention.causal_scores(q_BTNH, k_BTKH, pattern))
            weights_BNTS = attention.weights(q_BTNH, k_BTKH, segments_BT, pattern)
            self.sow(ACTIVATIONS, "weights", weights_BNTS)
        if cache is None:
            out_BTNH = self.attend_whole(q_BTNH, k_BTKH, v_BTKH, segments_BT, pattern)
        else:
            cache = {
                "key": _write(cache["key"], k_BTKH, positions_BT),
                "value": _write(cache["value"], v_BTKH, positions_BT),
            }
            out_BTNH = self.attend_cached(
                q_BTNH, cache["key"], cache["value"], positions_BT, pattern
            )
        return self._project_out(out_BTNH), cache

    def project_heads(self, x_BTD: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Queries [B, T, N, H], keys and values [B, T, K, H], normalised if the config says so."""
        config, how, bias = self.config, self.execution.how, self.config.has_bias("qkv")

        def heads(name: str, n_heads: int, axis: str) -> jax.Array:
            std = projection_std(config, config.d_model, residual=False)
            outputs, axes = (n_heads, config.d_head), (axis, "head_dim")
            y = Projection((config.d_model,), outputs, ("embed",), axes, std, bias, how, name=name)(
                x_BTD
            )
            return self._constrain(y, "act_batch", "act_seq", f"act_{axis}", None)

        q_BTNH = heads("query", config.n_heads, "heads")
        k_BTKH = heads("key", config.kv_heads, "kv_heads")
        v_BTKH = heads("value", config.kv_heads, "kv_heads")
        if config.qk_norm:
            norm = functools.partial(
                Norm, "rmsnorm", config.norm_epsilon, bias=False, how=how, gain=config.norm_gain
            )
            if config.qk_norm_over == "head":
                norm = functools.partial(norm, axes=("head_dim",))
                q_BTNH, k_BTKH = norm(name="query_norm")(q_BTNH), norm(name="key_norm")(k_BTKH)
            else:
                q_BTNH = norm(axes=("heads", "head_dim"), name="query_heads_norm")(q_BTNH)
                k_BTKH = norm(axes=("kv_heads", "head_dim"), name="key_heads_norm")(k_BTKH)
        if config.qkv_clip is not None:
            limits = -config.qkv_clip, config.qkv_clip
            q_BTNH, k_BTKH, v_BTKH = (jnp.clip(x, *limits) for x in (q_BTNH, k_BTKH, v_BTKH))
        return q_BTNH, k_BTKH, v_BTKH

    def encode_positions(
        self, q_BTNH: jax.Array, k_BTKH: jax.Array, positions_BT: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Queries and keys with their positions in them, where the encoding puts them there."""
        entry, options = position_of(self.config)
        if entry.turn is None or self.kind == "nope":
            return q_BTNH, k_BTKH
        config = self.config.of_layer(self.kind)
        return (
            entry.turn(q_BTNH, positions_BT, config, options),
            entry.turn(k_BTKH, positions_BT, config, options),
        )

    def attend_whole(
        self,
        q_BTNH: jax.Array,
        k_BTKH: jax.Array,
        v_BTKH: jax.Array,
        segments_BT: jax.Array | None,
        pattern: Pattern,
    ) -> jax.Array:
        """Attention of whole sequences to themselves, [B, T, N, H]."""
        attend: Callable[..., jax.Array] = functools.partial(
            attention.attend,
            self.execution.kernel.name,
            pattern=pattern,
            how=self.execution.how,
            block=self.execution.attention_block,
            segments_BT=segments_BT,
            dropout_key=self.make_rng("dropout") if pattern.dropout else None,
            layout=self.layout,
        )
        if self.execution.remat == "attention":
            attend = jax.checkpoint(attend)
        return attend(q_BTNH, k_BTKH, v_BTKH)

    def attend_cached(
        self,
        q_BTNH: jax.Array,
        key_CSH: jax.Array,
        value_CSH: jax.Array,
        positions_BT: jax.Array,
        pattern: Pattern,
    ) -> jax.Array:
        """Attention of new tokens to the cache that already holds them, [B, T, N, H]."""
        how = self.execution.how
        return attention.attend_cached(q_BTNH, key_CSH, value_CSH, positions_BT, pattern, how)

    def _pattern(self, train: bool) -> Pattern:
        config, entries = self.config, score_changes(self.config)
        changes = []
        for entry, options in entries:
            made = ScoreParameters(config, entry, options, name=f"scores_{entry.name}")
            changes.append(entry.change(config, options, made()))
        slopes = [change.slopes for change in changes if change.slopes is not None]
        return Pattern(
            window=config.window_of(self.kind),
            slopes=tuple(map(sum, zip(*slopes, strict=True))) if slopes else None,
            dropout=config.dropout_attention if train else 0.0,
            divisor=parametrization.score_divisor(config),
            changes=tuple(changes),
            cpu_form=all("cpu" in entry.kernels for entry, _ in entries),
        )

    def _project_out(self, out_BTNH: jax.Array) -> jax.Array:
        config = self.config
        out_BTNH = self._constrain(out_BTNH, "act_batch", "act_seq", "act_heads", None)
        return Projection(
            (config.n_heads, config.d_head),
            (config.d_model,),
            ("heads", "head_dim"),
            ("embed",),
            projection_std(config, config.n_heads * config.d_head, residual=True),
            config.has_bias("out"),
            self.execution.how,
            name="out",
        )(out_BTNH)

    def _constrain(self, x: jax.Array, *axes: str | None) -> jax.Array:
        return x if self.layout is None else self.layout.constrain(x, *axes)


class ScoreParameters(nn.Module):
    """The parameters of a change of attention scores."""

    config: ModelConfig
    entry: ScoreEntry
    options: Any

    @nn.compact
    def __call__(self) -> dict[str, jax.Array]:
        values = {}
        for name, made in self.entry.parameters(self.config, self.options).items():

            def init(key, shape, dtype, made=made):
                return made.mean + made.std * jax.random.normal(key, shape, dtype)

            values[name] = parameter(self, name, init, made.shape, made.axes)
        return values


def _write(cache_CSH: jax.Array, new_BTKH: jax.Array, positions_BT: jax.Array) -> jax.Array:
    """Each row's new keys or values, stored from its own first position on."""
    n_batch, _, n_kv_heads, head_size = new_BTKH.shape
    new_BKTH = new_BTKH.swapaxes(1, 2).astype(cache_CSH.dtype)
    begin_B = positions_BT[:, 0]
    update = functools.partial(jax.lax.dynamic_update_slice_in_dim, axis=1)
    if n_batch == 1:  # the scatter that follows would copy the cache
        return update(cache_CSH, new_BKTH[0], begin_B[0])
    cache_BKSH = cache_CSH.reshape(n_batch, n_kv_heads, -1, head_size)
    return jax.vmap(update)(cache_BKSH, new_BKTH, begin_B).reshape(cache_CSH.shape)


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
            weights = embedding.table()
        else:
            weights = Head(self.config, name="head")()
        return output_logits(self.config, self.execution.how, self.layout, x_BTD, weights)


def soft_cap(logits: jax.Array, cap: float | None) -> jax.Array:
    """cap tanh(logits / cap) (model.logit_soft_cap); None = the logits as they are."""
    return logits if cap is None else cap * jnp.tanh(logits / cap)


def output_logits(
    config: ModelConfig, how: Precision, layout: Layout | None, x_BTD: jax.Array, weights: jax.Array
) -> jax.Array:
    """[B, T, padded V] float32; padded ids hold a very negative number.

    weights: the token embeddings [padded V, D] where they are tied, else the head's kernel.
    """
    if config.tied_embeddings:
        logits = look_up(x_BTD, weights, how)
    else:
        logits = project(x_BTD, weights, 1, how, result=jnp.dtype(jnp.float32))
    if layout is not None:
        logits = layout.constrain(logits, "act_batch", "act_seq", "act_vocab")
    logits = soft_cap(logits, config.logit_soft_cap)
    if config.padded_vocab_size > config.vocab_size:
        ids = jnp.arange(config.padded_vocab_size)
        logits = jnp.where(ids < config.vocab_size, logits, MASKED)
    return logits
