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
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gpt_jax.config import ComputeConfig, ModelConfig
from gpt_jax.models.execution import Execution, decide_execution
from gpt_jax.models.kernels import Kernel
from gpt_jax.models.transformer import Transformer, output_logits
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

    def apply_module(self, *inputs: Any, **options: Any) -> Any:
        """`Transformer.apply` with the interceptors: for this package's own functions of a GPT."""
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
        y, _ = self.apply_module(
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

    def output_table(self, params: Params) -> jax.Array:
        """The output embeddings of all ids [V, D], without padding; a soft cap comes after them."""
        tied = self.config.tied_embeddings
        table = params["embedding"]["tokens"] if tied else params["head"]["kernel"].T
        return table[: self.config.vocab_size]

    def output_matrix(self, params: Params) -> jax.Array:
        """Matrix of the output projection, as stored: token embeddings or the head kernel."""
        if self.config.tied_embeddings:
            return params["embedding"]["tokens"]
        return params["head"]["kernel"]

    @property
    def output_axes(self) -> Axes:
        """The logical names of the dims of `output_matrix`."""
        return ("vocab", "embed") if self.config.tied_embeddings else ("embed", "vocab")

    def logits(self, x_BTD: jax.Array, matrix: jax.Array) -> jax.Array:
        """Logits [B, T, padded V] of the last activations; matrix: `output_matrix`."""
        return output_logits(self.config, self.execution.how, self.layout, x_BTD, matrix)

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
