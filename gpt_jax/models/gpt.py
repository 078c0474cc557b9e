"""The GPT: GPT-1, GPT-2 and GPT-3 by config, as a pair of pure functions.

`make_gpt(...)` gives `init(key) -> params` and `apply(params, tokens) -> logits`; parameters are a
plain tree of float32 arrays, with the logical names of their dims in `param_axes`. Linen stays
inside this package.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from gpt_jax import parametrization
from gpt_jax.config import ComputeConfig, ModelConfig
from gpt_jax.models import attention
from gpt_jax.models.layers import (
    MLP,
    Embedding,
    Head,
    Norm,
    Projection,
    alibi_slopes,
    projection_std,
    rotate,
)
from gpt_jax.models.products import Precision, look_up, precision, project
from gpt_jax.models.ring import zigzag
from gpt_jax.sharding import Axes, Layout

Params = dict[str, Any]
Cache = list[dict[str, jax.Array]]
"""Keys and values [B K, S, H]: of each layer if layers are unrolled; if they are scanned, of each
member of layer_pattern, on a leading dim of groups. Rows and heads share a dim, so that products
take the arrays as they are."""

ACTIVATIONS = "intermediates"
"""Linen's collection of what `GPT.activations` looks at; not collected, it costs nothing."""

UNROLL_UP_TO = 24
"""On CPU, `compute.layers = auto` unrolls models of up to this many layers."""


@dataclasses.dataclass(frozen=True)
class Execution:
    """How a model is computed: what `ComputeConfig` asks for, decided for a backend."""

    how: Precision
    kernel: attention.Kernel
    attention_block: int
    unroll: bool
    remat: str
    loss_in_parts: bool
    """Whether the logits of a large vocabulary are never stored whole."""


def decide_execution(
    model: ModelConfig,
    compute: ComputeConfig,
    backend: str,
    n_devices: int = 1,
    sequence_parts: int = 1,
) -> Execution:
    """Resolve every `auto` of the compute config for a backend (cpu, gpu or tpu).

    sequence_parts: of the n_devices, those that split the sequence (`mesh.sequence`).
    """
    unroll = compute.layers == "unroll"
    if compute.layers == "auto":
        unroll = backend == "cpu" and model.n_layers <= UNROLL_UP_TO
    return Execution(
        how=precision(compute.dtype, compute.products, backend, n_devices),
        kernel=attention.choose_kernel(model, compute, backend, sequence_parts),
        attention_block=attention.block_length(model, compute, backend),
        unroll=unroll,
        remat=compute.remat,
        loss_in_parts=compute.loss == "parts"
        or (compute.loss == "auto" and (backend == "tpu" or (backend == "cpu" and n_devices == 1))),
    )


class Attention(nn.Module):
    """Multi-, grouped- or multi-query causal self-attention."""

    config: ModelConfig
    execution: Execution
    layout: Layout | None
    window: int | None

    @nn.compact
    def __call__(
        self,
        x_BTD: jax.Array,
        positions_BT: jax.Array,
        segments_BT: jax.Array | None,
        cache: dict[str, jax.Array] | None,
        train: bool,
    ) -> tuple[jax.Array, dict[str, jax.Array] | None]:
        config, how = self.config, self.execution.how

        def heads(name: str, n_heads: int, axis: str) -> jax.Array:
            std = projection_std(config, config.d_model, residual=False)
            outputs, axes = (n_heads, config.d_head), (axis, "head_dim")
            y = Projection(
                (config.d_model,), outputs, ("embed",), axes, std, config.bias, how, name=name
            )(x_BTD)
            return self._constrain(y, "act_batch", "act_seq", f"act_{axis}", None)

        q_BTNH = heads("query", config.n_heads, "heads")
        k_BTKH = heads("key", config.kv_heads, "kv_heads")
        v_BTKH = heads("value", config.kv_heads, "kv_heads")
        if config.qk_norm:
            norm = functools.partial(
                Norm, "rmsnorm", config.norm_epsilon, bias=False, how=how, axes=("head_dim",)
            )
            q_BTNH, k_BTKH = norm(name="query_norm")(q_BTNH), norm(name="key_norm")(k_BTKH)
        if config.position == "rotary":
            q_BTNH = rotate(q_BTNH, positions_BT, config.rotary_base)
            k_BTKH = rotate(k_BTKH, positions_BT, config.rotary_base)
        slopes = tuple(alibi_slopes(config.n_heads)) if config.position == "alibi" else None
        dropout = config.dropout_attention if train else 0.0
        divisor = parametrization.score_divisor(config)
        pattern = attention.Pattern(self.window, slopes, dropout, divisor)
        if self.is_mutable_collection(ACTIVATIONS):
            self.sow(ACTIVATIONS, "scores", attention.causal_scores(q_BTNH, k_BTKH, pattern))
        if cache is None:
            attend: Callable[..., jax.Array] = functools.partial(
                attention.attend,
                self.execution.kernel.name,
                pattern=pattern,
                how=how,
                block=self.execution.attention_block,
                segments_BT=segments_BT,
                dropout_key=self.make_rng("dropout") if dropout else None,
                layout=self.layout,
            )
            if self.execution.remat == "attention":
                attend = jax.checkpoint(attend)
            out_BTNH = attend(q_BTNH, k_BTKH, v_BTKH)
        else:
            cache = {
                "key": _write(cache["key"], k_BTKH, positions_BT),
                "value": _write(cache["value"], v_BTKH, positions_BT),
            }
            out_BTNH = attention.attend_cached(
                q_BTNH, cache["key"], cache["value"], positions_BT, pattern, how
            )
        out_BTNH = self._constrain(out_BTNH, "act_batch", "act_seq", "act_heads", None)
        n_inputs = config.n_heads * config.d_head
        y_BTD = Projection(
            (config.n_heads, config.d_head),
            (config.d_model,),
            ("heads", "head_dim"),
            ("embed",),
            projection_std(config, n_inputs, residual=True),
            config.bias,
            how,
            name="out",
        )(out_BTNH)
        return y_BTD, cache

    def _constrain(self, x: jax.Array, *axes: str | None) -> jax.Array:
        return x if self.layout is None else self.layout.constrain(x, *axes)


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
    """One layer: attention and MLP with residual additions, pre- or post-norm, or in parallel."""

    config: ModelConfig
    execution: Execution
    layout: Layout | None
    window: int | None

    @nn.compact
    def __call__(self, x_BTD, positions_BT, segments_BT, cache, train: bool):
        config = self.config
        how = self.execution.how
        norm = functools.partial(Norm, config.norm, config.norm_epsilon, config.bias, how)
        attend = Attention(config, self.execution, self.layout, self.window, name="attention")
        mlp = MLP(config, self.execution.how, self.layout, name="mlp")

        multiplier = parametrization.residual_multiplier(config)

        def attended(x: jax.Array) -> tuple[jax.Array, dict[str, jax.Array] | None]:
            y, new_cache = attend(x, positions_BT, segments_BT, cache, train)
            self.sow(ACTIVATIONS, "attention_output", y)
            return y, new_cache

        def fed_forward(x: jax.Array) -> jax.Array:
            y = mlp(x)
            self.sow(ACTIVATIONS, "mlp_output", y)
            return y

        def drop(y: jax.Array) -> jax.Array:
            """What is added to the stream, of a sub-block's output."""
            y = y if multiplier == 1 else multiplier * y
            return nn.Dropout(config.dropout_residual, deterministic=not train)(y)

        def constrain(y: jax.Array) -> jax.Array:
            if self.layout is None:
                return y
            return self.layout.constrain_stream(y)

        attention_norm = norm(name="attention_norm")
        if config.parallel_block:
            normed = attention_norm(x_BTD)
            y_BTD, cache = attended(normed)
            return constrain(x_BTD + drop(y_BTD + fed_forward(normed))), cache
        mlp_norm = norm(name="mlp_norm")
        if config.norm_position == "post":
            y_BTD, cache = attended(x_BTD)
            x_BTD = constrain(attention_norm(x_BTD + drop(y_BTD)))
            return constrain(mlp_norm(x_BTD + drop(fed_forward(x_BTD)))), cache
        y_BTD, cache = attended(attention_norm(x_BTD))
        x_BTD = constrain(x_BTD + drop(y_BTD))
        return constrain(x_BTD + drop(fed_forward(mlp_norm(x_BTD)))), cache


class LayerGroup(nn.Module):
    """One period of `layer_pattern`: the body that is scanned over depth."""

    config: ModelConfig
    execution: Execution
    layout: Layout | None
    train: bool

    @nn.compact
    def __call__(self, x_BTD, cache: Cache | None, positions_BT, segments_BT):
        new_cache = []
        for i, kind in enumerate(self.config.layer_pattern):
            window = self.config.window if kind == "banded" else None
            layer = Block(self.config, self.execution, self.layout, window, name=str(i))
            layer_cache = None if cache is None else cache[i]
            x_BTD, layer_cache = layer(x_BTD, positions_BT, segments_BT, layer_cache, self.train)
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
        x_BTD = embedding(tokens_BT, positions_BT)
        x_BTD = nn.Dropout(config.dropout_embedding, deterministic=not train)(x_BTD)
        if self.layout is not None:
            x_BTD = self.layout.constrain_stream(x_BTD)
        self.sow(ACTIVATIONS, "embedded", x_BTD)
        if cache is not None and self.execution.unroll:
            x_BTD, cache = self._layer_by_layer(x_BTD, cache, positions_BT)
        else:
            x_BTD, cache = self._stacked(x_BTD, cache, positions_BT, segments_BT, train)
        if in_ring:
            x_BTD = self._zigzag(x_BTD, back=True)
        if config.final_norm:
            how = self.execution.how
            norm = Norm(config.norm, config.norm_epsilon, config.bias, how, name="final_norm")
            x_BTD = norm(x_BTD)
        multiplier = parametrization.output_multiplier(config)
        x_BTD = x_BTD if multiplier == 1 else multiplier * x_BTD
        return self._logits(x_BTD, embedding) if logits else x_BTD, cache

    def _stacked(self, x_BTD, cache: Cache | None, positions_BT, segments_BT, train: bool):
        """All groups of layers, with each parameter of theirs in one array."""
        n_groups = self.config.n_layers // len(self.config.layer_pattern)
        group = LayerGroup
        if self.execution.remat in ("full", "dots") and cache is None:
            dots = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
            policy = dots if self.execution.remat == "dots" else None
            # A group at a time: what is kept is one residual stream for each.
            group = nn.remat(LayerGroup, policy=policy, prevent_cse=self.execution.unroll)
        layers = nn.scan(
            group,
            variable_axes={"params": 0, ACTIVATIONS: 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(0, nn.broadcast, nn.broadcast),
            length=n_groups,
            unroll=n_groups if self.execution.unroll else 1,
            metadata_params={nn.PARTITION_NAME: "layer"},
        )(self.config, self.execution, self.layout, train, name="blocks")
        return layers(x_BTD, cache, positions_BT, segments_BT)

    def _layer_by_layer(self, x_BTD, cache: Cache, positions_BT):
        """The same with arrays of their own for each group, so that decoding slices none."""
        period, new_cache = len(self.config.layer_pattern), []
        for i in range(self.config.n_layers // period):
            group = LayerGroup(self.config, self.execution, self.layout, False, name=f"blocks_{i}")
            group_cache = cache[i * period : (i + 1) * period]
            x_BTD, group_cache = group(x_BTD, group_cache, positions_BT, None)
            new_cache += group_cache
        return x_BTD, new_cache

    def _zigzag(self, x: jax.Array, back: bool = False) -> jax.Array:
        assert self.layout is not None
        axes: Axes = ("act_batch", "act_seq", "act_embed")[: x.ndim]
        return zigzag(x, self.layout, axes, back)

    def _logits(self, x_BTD: jax.Array, embedding: Embedding) -> jax.Array:
        if self.config.tied_embeddings:
            weights = embedding.table()
        else:
            weights = Head(self.config, name="head")()
        return _logits(self.config, self.execution.how, self.layout, x_BTD, weights)


def _logits(
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
    if config.logit_soft_cap is not None:
        logits = config.logit_soft_cap * jnp.tanh(logits / config.logit_soft_cap)
    if config.padded_vocab_size > config.vocab_size:
        ids = jnp.arange(config.padded_vocab_size)
        logits = jnp.where(ids < config.vocab_size, logits, attention.MASKED)
    return logits


@dataclasses.dataclass(frozen=True)
class GPT:
    """A GPT as pure functions of its parameters."""

    config: ModelConfig
    execution: Execution
    layout: Layout | None = None

    @property
    def _module(self) -> Transformer:
        return Transformer(self.config, self.execution, self.layout)

    def init(self, key: jax.Array) -> Params:
        """Fresh float32 parameters."""
        return nn.meta.unbox(self._boxed(key))

    def param_axes(self) -> Params:
        """The tree of parameters with, for each, the logical names of its dims."""
        boxed = jax.eval_shape(self._boxed, jax.random.key(0))
        return jax.tree.map(lambda box: tuple(box.names), boxed, is_leaf=_is_box)

    def apply(
        self,
        params: Params,
        tokens_BT: jax.Array,
        segments_BT: jax.Array | None = None,
        dropout_key: jax.Array | None = None,
        logits: bool = True,
    ) -> jax.Array:
        """Logits [B, T, padded V] in float32 of the token after each; dropout only with a key.

        logits: False = the last activations [B, T, D], whose products with `output_table` they are.
        """
        y, _ = self._module.apply(
            {"params": params},
            tokens_BT,
            segments_BT=segments_BT,
            train=dropout_key is not None,
            logits=logits,
            rngs=None if dropout_key is None else {"dropout": dropout_key},
        )
        return y

    def output_table(self, params: Params) -> jax.Array:
        """The output embeddings of all ids [V, D], without padding; a soft cap comes after them."""
        tied = self.config.tied_embeddings
        table = params["embedding"]["tokens"] if tied else params["head"]["kernel"].T
        return table[: self.config.vocab_size]

    def output_weights(self, params: Params) -> jax.Array:
        """What `logits` are made with, as stored: token embeddings or the head's kernel."""
        if self.config.tied_embeddings:
            return params["embedding"]["tokens"]
        return params["head"]["kernel"]

    @property
    def output_axes(self) -> Axes:
        """The logical names of the dims of `output_weights`."""
        return ("vocab", "embed") if self.config.tied_embeddings else ("embed", "vocab")

    def logits(self, x_BTD: jax.Array, weights: jax.Array) -> jax.Array:
        """Logits [B, T, padded V] of the last activations; weights: `output_weights`."""
        return _logits(self.config, self.execution.how, self.layout, x_BTD, weights)

    def decoding_params(self, params: Params) -> Params:
        """Parameters as `apply_cached` takes them: all of them are read for every token.

        Kernels and token embeddings have the type that products round them to; each group of
        layers that are unrolled has a tree of its own.
        """
        operands = self.execution.how.operands

        def rounded(path: tuple[Any, ...], x: jax.Array) -> jax.Array:
            return x.astype(operands) if path[-1].key in ("kernel", "tokens") else x

        params = jax.tree_util.tree_map_with_path(rounded, params)
        if "blocks" not in params or not self.execution.unroll:
            return params
        stacked = params.pop("blocks")
        for i in range(self.config.n_layers // len(self.config.layer_pattern)):
            params[f"blocks_{i}"] = jax.tree.map(lambda x, i=i: x[i], stacked)
        return params

    def activations(self, params: Params, tokens_BT: jax.Array) -> dict[str, jax.Array]:
        """What happens inside, by name, as the model trains (without dropout).

        embedding [B, T, D]; of every layer, on a leading dim L: scores [L, B, N, T, T] (attention
        scores, 0 where unseen), attention and mlp [L, B, T, D] (what these put out, before the
        residual multiplier), stream [L, B, T, D] (after the layer); logits [B, T, V].
        """
        config = self.config
        (logits, _), variables = self._module.apply(
            {"params": params}, tokens_BT, mutable=[ACTIVATIONS]
        )
        seen = variables[ACTIVATIONS]
        members = [seen["blocks"][str(i)] for i in range(len(config.layer_pattern))]

        def by_layer(arrays: list[tuple[jax.Array]]) -> jax.Array:
            """Layer g P + i is member i of group g."""
            stacked = jnp.stack([array for (array,) in arrays], axis=1)
            return stacked.reshape(config.n_layers, *stacked.shape[2:])

        return {
            "embedding": seen["embedded"][0],
            "scores": by_layer([member["attention"]["scores"] for member in members]),
            "attention": by_layer([member["attention_output"] for member in members]),
            "mlp": by_layer([member["mlp_output"] for member in members]),
            "stream": by_layer([seen["blocks"][f"stream_{i}"] for i in range(len(members))]),
            "logits": logits[..., : config.vocab_size],
        }

    def init_cache(self, n_batch: int, n_slots: int) -> Cache:
        """An empty key-value cache for sequences of up to n_slots tokens.

        In the activations' type: on CPU, XLA would convert all of a bfloat16 cache for each write.
        """
        config = self.config
        n_arrays = config.n_layers if self.execution.unroll else len(config.layer_pattern)
        groups = () if self.execution.unroll else (config.n_layers // n_arrays,)
        shape = (*groups, n_batch * config.kv_heads, n_slots, config.d_head)
        zeros = functools.partial(jnp.zeros, shape, self.execution.how.activations)
        return [{"key": zeros(), "value": zeros()} for _ in range(n_arrays)]

    def apply_cached(
        self, params: Params, tokens_BT: jax.Array, positions_BT: jax.Array, cache: Cache
    ) -> tuple[jax.Array, Cache]:
        """Logits of tokens at consecutive positions of each row, and the cache with them in it.

        params: `decoding_params`. positions_BT[b, 0] is where row b continues: rows may be of
        different lengths.
        """
        logits, new_cache = self._module.apply(
            {"params": params}, tokens_BT, positions_BT, cache=cache
        )
        return logits, cast(Cache, new_cache)

    def _boxed(self, key: jax.Array) -> Params:
        tokens = jnp.zeros((1, 1), jnp.int32)
        # Neither structure nor values depend on how the model runs: the plainest form compiles
        # fastest, one layer scanned, on any device.
        plain = dataclasses.replace(
            self.execution, kernel=attention.Kernel("reference", "init"), unroll=False
        )
        module = Transformer(self.config, plain, None)
        return module.init(key, tokens)["params"]


def _is_box(x: Any) -> bool:
    return isinstance(x, nn.meta.AxisMetadata)


def make_gpt(
    config: ModelConfig,
    compute: ComputeConfig | None = None,
    layout: Layout | None = None,
    backend: str | None = None,
) -> GPT:
    """The GPT of a config, computed on `backend` (default: the mesh's, else jax's default)."""
    if backend is None:
        backend = jax.default_backend() if layout is None else layout.mesh.devices.flat[0].platform
    n_devices = 1 if layout is None else layout.mesh.size
    sequence_parts = 1 if layout is None else layout.sequence_parts
    execution = decide_execution(
        config, compute or ComputeConfig(), backend, n_devices, sequence_parts
    )
    return GPT(config, execution, layout)
