"""The GPT: GPT-1, GPT-2 and GPT-3 by config, as a pair of pure functions.

`make_gpt(...)` gives `init(key) -> params` and `apply(params, tokens) -> logits`; parameters are a
plain tree of float32 arrays, with the logical names of their dims in `param_axes`. Linen stays
inside this package.
"""

import contextlib
import dataclasses
import functools
import threading
from collections.abc import Callable
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from gpt_jax.config import ComputeConfig, ModelConfig
from gpt_jax.models.attention_module import ACTIVATIONS
from gpt_jax.models.execution import Execution, decide_execution
from gpt_jax.models.kernels import Kernel
from gpt_jax.models.layers import ROUTERS, make_norm
from gpt_jax.models.transformer import Cache, Transformer, output_logits
from gpt_jax.optim.parametrization import output_multiplier
from gpt_jax.parallel.sharding import Axes, Layout

Params = dict[str, Any]
InterceptorContext = nn.module.InterceptorContext
Interceptor = Callable[[Callable[..., Any], tuple, dict[str, Any], InterceptorContext], Any]
"""(the method, its arguments, keyword arguments, context) -> result: Linen's own form."""

_TRACING = threading.RLock()
"""One thread at a time: flax changes its modules' fields for a moment when it makes one."""


@dataclasses.dataclass(frozen=True)
class GPT:
    """A GPT as pure functions of its parameters."""

    config: ModelConfig
    execution: Execution
    layout: Layout | None = None
    interceptors: tuple[Interceptor, ...] = ()
    """Changes to what modules compute (`flax.linen.intercept_methods`), the innermost first."""

    def intercepted(self, *interceptors: Interceptor, innermost: bool = False) -> "GPT":
        """The model with more interceptors: around those it has, or within them."""
        if innermost:
            return dataclasses.replace(self, interceptors=interceptors + self.interceptors)
        return dataclasses.replace(self, interceptors=self.interceptors + interceptors)

    @property
    def _module(self) -> Transformer:
        return Transformer(self.config, self.execution, self.layout)

    def _apply(self, *inputs: Any, **options: Any) -> Any:
        with _TRACING, contextlib.ExitStack() as stack:
            for interceptor in self.interceptors:
                stack.enter_context(nn.intercept_methods(interceptor))
            return self._module.apply(*inputs, **options)

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
        prefix_BPD: jax.Array | None = None,
        positions_BT: jax.Array | None = None,
    ) -> jax.Array:
        """Logits [B, T, padded V] in float32 of the token after each; dropout only with a key.

        logits: False = the last activations [B, T, D], whose products with `output_table` they are.
        prefix_BPD: embeddings (of an image, say) in the place of each row's first P tokens.
        positions_BT: of the tokens; None = 0 to T - 1 in every row.
        """
        y, _ = self._apply(
            {"params": params},
            tokens_BT,
            positions_BT,
            segments_BT=segments_BT,
            train=dropout_key is not None,
            logits=logits,
            prefix_BPD=prefix_BPD,
            rngs=None if dropout_key is None else {"dropout": dropout_key},
        )
        return y

    def apply_with_routers(
        self,
        params: Params,
        tokens_BT: jax.Array,
        segments_BT: jax.Array | None = None,
        dropout_key: jax.Array | None = None,
        logits: bool = True,
        prefix_BPD: jax.Array | None = None,
        positions_BT: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """`apply`, of a model with experts, and the router logits of every layer [L, B, T, E]."""
        (y, _), variables = self._apply(
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
        seen, n_members = variables[ROUTERS]["blocks"], len(self.config.layer_pattern)
        routers = self._by_layer([seen[str(i)]["mlp"]["logits"] for i in range(n_members)])
        if self.execution.kernel.name == "ring":  # back from the order of the ring
            from gpt_jax.models.ring import zigzag

            assert self.layout is not None
            routers_BTLE = jnp.moveaxis(routers, 0, 2)
            axes: Axes = ("act_batch", "act_seq", None, None)
            routers = jnp.moveaxis(zigzag(routers_BTLE, self.layout, axes, back=True), 2, 0)
        return y, routers

    def _by_layer(self, arrays: list[tuple[jax.Array]]) -> jax.Array:
        """[L, ...] of what each member of layer_pattern sowed: layer g P + i is i of group g."""
        stacked = jnp.stack([array for (array,) in arrays], axis=1)
        return stacked.reshape(self.config.n_layers, *stacked.shape[2:])

    def output_table(self, params: Params) -> jax.Array:
        """The output embeddings of all ids [V, D], without padding; a soft cap comes after them."""
        tied = self.config.tied_embeddings
        table = params["embedding"]["tokens"] if tied else params["head"]["kernel"].T
        return table[: self.config.vocab_size]

    def output_weights(self, params: Params) -> jax.Array:
        """Weights of the output projection, as stored: token embeddings or the head kernel."""
        if self.config.tied_embeddings:
            return params["embedding"]["tokens"]
        return params["head"]["kernel"]

    @property
    def output_axes(self) -> Axes:
        """The logical names of the dims of `output_weights`."""
        return ("vocab", "embed") if self.config.tied_embeddings else ("embed", "vocab")

    def logits(self, x_BTD: jax.Array, weights: jax.Array) -> jax.Array:
        """Logits [B, T, padded V] of the last activations; weights: `output_weights`."""
        return output_logits(self.config, self.execution.how, self.layout, x_BTD, weights)

    def decoding_params(self, params: Params) -> Params:
        """Parameters as `apply_cached` takes them: all of them are read for every token.

        Kernels and token embeddings have the type that products round them to (a router's stay
        float32); each group of layers that are unrolled has a tree of its own.
        """
        return self.unstacked_params(self.rounded_params(params, ("kernel", "tokens")))

    def unstacked_params(self, params: Params) -> Params:
        """Parameters with a tree for each group of layers, where these are unrolled: the program
        then slices none out of arrays of all layers. A copy of them."""
        if "blocks" not in params or not self.execution.unroll:
            return params
        params = dict(params)
        stacked = params.pop("blocks")
        for i in range(self.config.n_layers // len(self.config.layer_pattern)):
            params[f"blocks_{i}"] = jax.tree.map(lambda x, i=i: x[i], stacked)
        return params

    def rounded_params(self, params: Params, names: tuple[str, ...] = ("kernel",)) -> Params:
        """Parameters of these names in the type that products round them to, which `apply` then
        does not do again; a router's stay float32."""
        operands = self.execution.how.operands

        def rounded(path: tuple[Any, ...], x: jax.Array) -> jax.Array:
            of_router = len(path) > 1 and path[-2].key == "router"
            return x.astype(operands) if path[-1].key in names and not of_router else x

        return jax.tree_util.tree_map_with_path(rounded, params)

    def activations(self, params: Params, tokens_BT: jax.Array) -> dict[str, jax.Array]:
        """Activations by name, computed as in training but without dropout.

        embedding [B, T, D]; of every layer, on a leading dim L: scores [L, B, N, T, T] (attention
        scores, 0 where unseen), weights [L, B, N, T, T] (what attention weighs values with, masks
        and changes of scores applied), attention and mlp [L, B, T, D] (what these put out, before
        the residual multiplier), stream [L, B, T, D] (after the layer); logits [B, T, V].
        """
        config = self.config
        (logits, _), variables = self._apply({"params": params}, tokens_BT, mutable=[ACTIVATIONS])
        seen = variables[ACTIVATIONS]
        members = [seen["blocks"][str(i)] for i in range(len(config.layer_pattern))]
        by_layer = self._by_layer
        return {
            "embedding": seen["embedded"][0],
            "scores": by_layer([member["attention"]["scores"] for member in members]),
            "weights": by_layer([member["attention"]["weights"] for member in members]),
            "attention": by_layer([member["attention_output"] for member in members]),
            "mlp": by_layer([member["mlp_output"] for member in members]),
            "stream": by_layer([seen["blocks"][f"stream_{i}"] for i in range(len(members))]),
            "logits": logits[..., : config.vocab_size],
        }

    def lens(self, params: Params, stream_BTD: jax.Array) -> jax.Array:
        """Logits [B, T, V] as if the stream left the model here: the logit lens; of the last layer
        they are the model's."""
        config, how = self.config, self.execution.how
        x_BTD = stream_BTD
        if config.final_norm:
            of_norm = params.get("final_norm", {})  # without gain and bias there are none
            x_BTD = cast(jax.Array, make_norm(config, how)().apply({"params": of_norm}, x_BTD))
        x_BTD = output_multiplier(config) * x_BTD
        return self.logits(x_BTD, self.output_weights(params))[..., : config.vocab_size]

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
        self,
        params: Params,
        tokens_BT: jax.Array,
        positions_BT: jax.Array,
        cache: Cache,
        prefix_BPD: jax.Array | None = None,
    ) -> tuple[jax.Array, Cache]:
        """Logits of tokens at consecutive positions of each row, and the cache with them in it.

        params: `decoding_params`. positions_BT[b, 0] is where row b continues: rows may be of
        different lengths. prefix_BPD: as in `apply`.
        """
        logits, new_cache = self._apply(
            {"params": params}, tokens_BT, positions_BT, cache=cache, prefix_BPD=prefix_BPD
        )
        return logits, cast(Cache, new_cache)

    def _boxed(self, key: jax.Array) -> Params:
        # Neither structure nor values depend on how the model runs: the plainest form compiles
        # fastest, one layer scanned, on any device.
        plain = dataclasses.replace(
            self.execution, kernel=Kernel("reference", "init"), unroll=False
        )
        return _fresh(Transformer(self.config, plain, None), key)


@functools.partial(jax.jit, static_argnums=0, inline=True)
def _fresh(module: Transformer, key: jax.Array) -> Params:
    """Parameters with the names of their dims; traced once for shapes, axes and values."""
    with _TRACING:
        return module.init(key, jnp.zeros((1, 1), jnp.int32))["params"]


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
