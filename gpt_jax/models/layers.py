"""Building blocks: norms, projections, MLP, embeddings, positions. Dims: B T D N K H F V."""

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from gpt_jax.config import ModelConfig
from gpt_jax.models import cpu
from gpt_jax.models.entry import ACTIVATIONS, NORMS, position_of
from gpt_jax.models.products import Precision, project
from gpt_jax.optim.parametrization import matrix_std, residual_init_layers
from gpt_jax.parallel.sharding import Axes, Layout

ROUTERS = "routers"
"""Linen's collection of router logits [B, T, E]; not collected, it costs nothing."""

Initializer = Callable[..., jax.Array]


def parameter(
    module: nn.Module, name: str, init: Initializer, shape: tuple[int, ...], axes: Axes
) -> jax.Array:
    """A float32 parameter whose dims carry logical names."""
    boxed = nn.with_logical_partitioning(init, axes)
    value: jax.Array = module.param(name, boxed, shape, jnp.float32)  # type: ignore[assignment]
    return value


class Norm(nn.Module):
    """A normalisation of `gpt_jax.models.norms` over the last dims, with its gain and bias.

    Computed in float32, returned in the input's type.
    """

    kind: str
    epsilon: float
    bias: bool
    how: Precision
    gain: str = "plain"
    """model.norm_gain"""
    axes: Axes = ("embed",)
    """Logical names of the dims that are normalised together."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size = x.shape[-len(self.axes) :]
        entry = NORMS.find(self.kind)
        scale = bias = None
        if self.gain != "none":
            one_plus = self.gain == "one_plus"
            init = nn.initializers.zeros if one_plus else nn.initializers.ones
            scale = parameter(self, "scale", init, size, self.axes)
            scale = 1 + scale if one_plus else scale
        if self.bias and entry.has_bias:
            bias = parameter(self, "bias", nn.initializers.zeros, size, self.axes)

        def normed(x: jax.Array, scale: jax.Array | None, bias: jax.Array | None) -> jax.Array:
            rows = x.astype(jnp.float32).reshape(*x.shape[: -len(size)], -1)
            y = entry.normalise(rows, self.epsilon).reshape(x.shape)
            y = y if scale is None else scaled(y, scale, self.how)
            return (y if bias is None else y + bias).astype(x.dtype)

        return (normed if self.how.cpu_forms else recomputed(normed))(x, scale, bias)


def scaled(y: jax.Array, scale: jax.Array, how: Precision) -> jax.Array:
    """y times the scale of its last dims, in the form that is computed."""
    if not how.cpu_forms:
        return y * scale
    rows = y.reshape(*y.shape[: -scale.ndim], -1)
    return cpu.scale_columns(rows, scale.reshape(-1)).reshape(y.shape)


def make_norm(config: ModelConfig, how: Precision) -> functools.partial[Norm]:
    """The norm of a model's residual stream, still without a name."""
    return functools.partial(
        Norm, config.norm, config.norm_epsilon, config.has_bias("norm"), how, config.norm_gain
    )


class Projection(nn.Module):
    """y = x W + b, contracting the last `len(inputs)` dims of x."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    input_axes: Axes
    output_axes: Axes
    std: float
    bias: bool
    how: Precision

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = parameter(
            self,
            "kernel",
            nn.initializers.normal(self.std) if self.std else nn.initializers.zeros,
            self.inputs + self.outputs,
            self.input_axes + self.output_axes,
        )
        y = self.matmul(x, kernel)
        if self.bias:
            zeros = nn.initializers.zeros
            y = y + parameter(self, "bias", zeros, self.outputs, self.output_axes).astype(y.dtype)
        return y

    def matmul(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        """x W, without the bias; a method of its own so that interceptors can add to it."""
        return project(x, kernel, len(self.inputs), self.how)


def projection_std(config: ModelConfig, n_inputs: int, residual: bool) -> float:
    """Standard deviation of a block's projection weights at initialisation.

    GPT-2 (section 2.3) divides those that write to the residual stream by sqrt(number of residual
    additions), 2 L.
    """
    std = matrix_std(config, n_inputs, "hidden")
    if not residual or config.init_residual == "plain":
        return std
    if config.init_residual == "zero":
        return 0.0
    return std / math.sqrt(2 * residual_init_layers(config))


def activate(name: str, how: Precision, x: jax.Array, gate: jax.Array | None = None) -> jax.Array:
    """An activation of `gpt_jax.models.activations` of x, or of the gate and times x, in the form
    that is computed."""
    function = ACTIVATIONS.find(name).function
    if how.cpu_forms:
        y = cpu.activate(x if gate is None else gate, function, how.operands)
        return y if gate is None else y * x
    if gate is None:
        return recomputed(function)(x)
    return recomputed(lambda gate, x: function(gate) * x)(gate, x)


def recomputed(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """The function, of which the backward pass keeps the inputs alone and computes it once more.

    Without it, autodiff keeps an array for each elementwise operation inside: six of GELU's in
    float32. XLA fuses what is computed again into the matmuls that read it.
    """
    return jax.checkpoint(function, prevent_cse=False)


class MLP(nn.Module):
    """D -> F -> D, gated for SwiGLU and GeGLU."""

    config: ModelConfig
    how: Precision
    layout: Layout | None = None

    @nn.compact
    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        config = self.config

        def into(name: str) -> Projection:
            std = projection_std(config, config.d_model, residual=False)
            inner = ((config.d_model,), (config.d_ff,), ("embed",), ("mlp",))
            return Projection(*inner, std, config.has_bias("mlp"), self.how, name=name)

        def constrain(y_BTF: jax.Array) -> jax.Array:
            """Hidden units split over the tensor axis: XLA may gather whole kernels otherwise."""
            if self.layout is None:
                return y_BTF
            return self.layout.constrain_even(y_BTF, "act_batch", "act_seq", "act_mlp")

        hidden_BTF = constrain(into("up")(x_BTD))
        gate_BTF = constrain(into("gate")(x_BTD)) if config.gated else None
        hidden_BTF = activate(config.activation, self.how, hidden_BTF, gate_BTF)
        std = projection_std(config, config.d_ff, residual=True)
        outer = ((config.d_ff,), (config.d_model,), ("mlp",), ("embed",))
        bias = config.has_bias("mlp")
        return Projection(*outer, std, bias, self.how, name="down")(hidden_BTF)


class Embedding(nn.Module):
    """Token embeddings, with positions in them where model.position puts them there."""

    config: ModelConfig
    how: Precision
    layout: Layout | None

    def setup(self) -> None:
        config, init = self.config, nn.initializers.normal(self.config.init_std)
        shape = (config.padded_vocab_size, config.d_model)
        self.tokens = parameter(self, "tokens", init, shape, ("vocab", "embed"))
        self.position, self.position_options = position_of(config)
        if self.position.table is not None:
            shape = (self.position.table(config, self.position_options), config.d_model)
            self.positions = parameter(self, "positions", init, shape, (None, "embed"))
        if config.embedding_norm:
            self.norm = make_norm(config, self.how)()

    def table(self) -> jax.Array:
        """The token embeddings [padded V, D]."""
        return self.tokens

    def __call__(
        self, tokens_BT: jax.Array, positions_BT: jax.Array, prefix_BPD: jax.Array | None = None
    ) -> jax.Array:
        """prefix_BPD: takes the place of the first P positions' tokens in each row."""
        config = self.config
        x_BTD = self.look_up(tokens_BT, positions_BT)
        if config.embedding_multiplier != 1:
            x_BTD = config.embedding_multiplier * x_BTD
        if prefix_BPD is not None:
            x_BTD = put_in_front(prefix_BPD, x_BTD, positions_BT)
        position = self.position
        if position.embed is not None:
            rows = self._by_width(self.positions)[positions_BT] if position.table else None
            x_BTD = position.embed(x_BTD, positions_BT, rows, config, self.position_options)
        if config.embedding_norm:
            x_BTD = self.norm(x_BTD)
        x_BTD = x_BTD.astype(self.how.activations)
        if self.layout is not None:
            x_BTD = self.layout.constrain_even(x_BTD, "act_batch", "act_seq", "act_looked_up")
        return x_BTD

    def look_up(self, tokens_BT: jax.Array, positions_BT: jax.Array) -> jax.Array:
        """Rows of the table [B, T, D]; interceptors that change them by position read positions."""
        del positions_BT
        return self._by_width(self.tokens)[tokens_BT]

    def _by_width(self, table: jax.Array) -> jax.Array:
        """The table with all its rows, and the width split by tensor, before rows are looked up.

        The look-up is then each device's own, of its sequences and its part of the width; XLA
        would replicate its result, or all of the table, to get there.
        """
        if self.layout is None:
            return table
        return self.layout.constrain_even(table, None, "act_looked_up")


def put_in_front(prefix_BPD: jax.Array, x_BTD: jax.Array, positions_BT: jax.Array) -> jax.Array:
    """Embeddings [B, T, D] whose positions 0 to P - 1, wherever these are in T, hold the prefix."""
    n = prefix_BPD.shape[1]
    rows_BT1 = jnp.minimum(positions_BT, n - 1)[..., None]
    prefix_BPD = jnp.broadcast_to(prefix_BPD, (len(x_BTD), *prefix_BPD.shape[1:]))
    placed_BTD = jnp.take_along_axis(prefix_BPD.astype(x_BTD.dtype), rows_BT1, axis=1)
    return jnp.where((positions_BT < n)[..., None], placed_BTD, x_BTD)


class Head(nn.Module):
    """The untied output projection."""

    config: ModelConfig

    @nn.compact
    def __call__(self) -> jax.Array:
        config = self.config
        std = matrix_std(config, config.d_model, "output")
        init = nn.initializers.normal(std)
        shape = (config.d_model, config.padded_vocab_size)
        return parameter(self, "kernel", init, shape, ("embed", "vocab"))
