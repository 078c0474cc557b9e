"""Attention as a Linen module: projections, positions, changes of scores, and the cache."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gpt_jax.config import ModelConfig
from gpt_jax.models.attention import attend
from gpt_jax.models.entry import LAYERS, Parameter, ScoreEntry, Shape, position_of, score_changes
from gpt_jax.models.execution import Execution
from gpt_jax.models.layers import Norm, Projection, parameter, projection_std
from gpt_jax.models.pattern import Pattern
from gpt_jax.optim import parametrization
from gpt_jax.parallel.sharding import Layout

ACTIVATIONS = "intermediates"
"""Linen's collection of what `gpt_jax.models.probes` looks at; not collected, it costs nothing."""


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
            from gpt_jax.models.attention_probe import attention_weights, causal_scores

            self.sow(ACTIVATIONS, "scores", causal_scores(q_BTNH, k_BTKH, pattern))
            weights_BNTS = attention_weights(q_BTNH, k_BTKH, segments_BT, pattern)
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
        layer = LAYERS.find(self.kind)
        if entry.turn is None or not layer.turns:
            return q_BTNH, k_BTKH
        config = layer.with_positions(self.config)
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
        kernel: Callable[..., jax.Array] = functools.partial(
            attend,
            self.execution.kernel.name,
            pattern=pattern,
            how=self.execution.how,
            block=self.execution.attention_block,
            segments_BT=segments_BT,
            dropout_key=self.make_rng("dropout") if pattern.dropout else None,
            layout=self.layout,
        )
        if self.execution.remat == "attention":
            kernel = jax.checkpoint(kernel)
        return kernel(q_BTNH, k_BTKH, v_BTKH)

    def attend_cached(
        self,
        q_BTNH: jax.Array,
        key_CSH: jax.Array,
        value_CSH: jax.Array,
        positions_BT: jax.Array,
        pattern: Pattern,
    ) -> jax.Array:
        """Attention of new tokens to the cache that already holds them, [B, T, N, H]."""
        from gpt_jax.models.cached_attention import attend_cached

        how = self.execution.how
        return attend_cached(q_BTNH, key_CSH, value_CSH, positions_BT, pattern, how)

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
            init = functools.partial(_around, made)
            values[name] = parameter(self, name, init, made.shape, made.axes)
        return values


def _around(made: Parameter, key: jax.Array, shape: Shape, dtype: Any) -> jax.Array:
    """Normal numbers of a parameter's mean and standard deviation."""
    return made.mean + made.std * jax.random.normal(key, shape, dtype)


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
