"""Mixture of experts in place of an MLP: a router sends each token to the K best of E experts.

Sources: Shazeer et al. 2017 (arXiv:1701.06538), top-k gating; GShard, Lepikhin et al. 2020
(arXiv:2006.16668), capacity and experts split over devices; Switch, Fedus et al. 2021
(arXiv:2101.03961), K = 1, a router in float32; ST-MoE, Zoph et al. 2022 (arXiv:2202.08906);
MegaBlocks, Gale et al. 2022 (arXiv:2211.15841), dropless; gates as in Mixtral, Jiang et al. 2024
(arXiv:2401.04088). The losses that keep routers balanced are in `gpt_jax.objectives.routers`.

Two forms. Dropless: tokens are sorted by expert and all are computed. With a capacity: an expert
takes the first C tokens of a sequence that chose it; what the others would get of it is zero, and
the residual stream carries them on. Places go by position alone (GShard gives them to all first
choices before any second one): no token sees a later one through what is dropped. Decoding through
a cache drops nothing.

Over several devices each computes its own experts (mesh axis `expert`), on tokens that come from
its fellows along that axis: with a capacity by all-to-all; dropless, whose numbers are known when
it runs and not when it is compiled, by gathering the fellows' tokens, and scattering the sums back.

Dims: B T D F as elsewhere, E experts, K choices of a token, C capacity, M tokens, S slots (rows
that experts compute, each for one choice of one token, or empty).
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from gpt_jax.config import ModelConfig
from gpt_jax.models.expert_products import project_batched, project_grouped
from gpt_jax.models.layers import ROUTERS, Projection, activate, parameter, projection_std
from gpt_jax.models.products import Precision
from gpt_jax.optim.parametrization import matrix_std, output_multiplier
from gpt_jax.parallel.sharding import EXPERT_AXIS, Axes, Layout, is_axes

BLOCKS = (8, 128)
"""Fewest and most rows of a CPU's block, whose rows go to one expert."""

Weights = dict[str, tuple[jax.Array, jax.Array | None]]
"""up, gate (if gated), down -> (kernel [E, inputs, outputs], bias [E, outputs] if any)."""


class Experts(nn.Module):
    """E times D -> F -> D, K of them a token: y = sum over its choices of gate x expert."""

    config: ModelConfig
    how: Precision
    layout: Layout | None = None

    @nn.compact
    def __call__(self, x_BTD: jax.Array, decoding: bool = False) -> jax.Array:
        config, how, layout = self.config, self.how, self.layout
        assert config.n_experts is not None
        weights = ExpertWeights(config, name="experts")()
        float32 = jnp.dtype(jnp.float32)
        exact = dataclasses.replace(how, operands=float32, activations=float32)
        std = matrix_std(config, config.d_model, "router")
        outer = ((config.d_model,), (config.n_experts,), ("embed",), (None,))
        router = Projection(*outer, std, False, exact, name="router")
        logits_BTE = router(x_BTD)
        multiplier = output_multiplier(config)
        logits_BTE = logits_BTE if multiplier == 1 else multiplier * logits_BTE
        if layout is not None:
            logits_BTE = layout.constrain_even(logits_BTE, "act_batch", "act_seq", None)
        self.sow(ROUTERS, "logits", logits_BTE)
        gates_BTK, choices_BTK = choose(
            logits_BTE, config.n_experts_per_token, config.expert_gates == "normalized"
        )
        compute = dropless if decoding or config.expert_capacity is None else with_capacity
        if layout is None or layout.mesh.size == 1 or not _is_even(layout, x_BTD):
            return compute(x_BTD, gates_BTK, choices_BTK, weights, Setting(config, how))
        return _on_devices(compute, x_BTD, gates_BTK, choices_BTK, weights, config, how, layout)


class ExpertWeights(nn.Module):
    """The parameters of all experts."""

    config: ModelConfig

    @nn.compact
    def __call__(self) -> Weights:
        config = self.config
        n_experts, width, hidden = config.n_experts or 0, config.d_model, config.d_ff
        into = (n_experts, width, hidden), ("expert", "embed", "mlp")
        out = (n_experts, hidden, width), ("expert", "mlp", "embed")

        def of(name: str, shape: tuple[int, ...], axes: Axes) -> tuple[jax.Array, jax.Array | None]:
            std = projection_std(config, shape[1], residual=name == "down")
            return KernelAndBias(shape, axes, std, config.has_bias("mlp"), name=name)()

        weights = {name: of(name, *into) for name in (("up", "gate") if config.gated else ("up",))}
        return weights | {"down": of("down", *out)}


class KernelAndBias(nn.Module):
    """[E, inputs, outputs] and [E, outputs]."""

    shape: tuple[int, ...]
    axes: Axes
    std: float
    bias: bool

    @nn.compact
    def __call__(self) -> tuple[jax.Array, jax.Array | None]:
        zeros = nn.initializers.zeros
        normal = nn.initializers.normal(self.std) if self.std else zeros
        kernel = parameter(self, "kernel", normal, self.shape, self.axes)
        if not self.bias:
            return kernel, None
        shape, axes = self.shape[::2], self.axes[::2]
        return kernel, parameter(self, "bias", zeros, shape, axes)


@dataclasses.dataclass(frozen=True)
class Setting:
    """How experts are computed; static."""

    config: ModelConfig
    how: Precision
    expert_axis: str | None = None
    """The mesh axis along which experts lie, inside of `shard_map`."""
    tensor_parts: int = 1
    """Devices that split the hidden units, whose results are still to be added."""


def choose(
    logits: jax.Array, n_choices: int, normalized: bool = True
) -> tuple[jax.Array, jax.Array]:
    """(gates, experts) [..., K] of router logits [..., E] in float32, the best first.

    Gates are the chosen probabilities over their sum (GShard, Mixtral: a softmax over the chosen
    logits) if `normalized`, else as they are (OLMoE, arXiv:2409.02060); a single choice keeps its
    probability (Switch, equation 2): over its sum it would be 1, and the router would learn
    nothing. By K maxima: XLA would gather what `top_k` sorts from all
    devices.
    """
    probabilities = jax.nn.softmax(logits, axis=-1)
    left, gates, experts = jax.lax.stop_gradient(probabilities), [], []
    for _ in range(n_choices):
        experts.append(jnp.argmax(left, axis=-1))
        is_best = jax.nn.one_hot(experts[-1], logits.shape[-1], dtype=bool)
        gates.append(jnp.sum(jnp.where(is_best, probabilities, 0.0), axis=-1))
        left = jnp.where(is_best, -1.0, left)
    chosen = jnp.stack(gates, axis=-1)
    if n_choices > 1 and normalized:
        chosen /= jnp.sum(chosen, axis=-1, keepdims=True)
    return chosen, jnp.stack(experts, axis=-1)


# --- slots --------------------------------------------------------------------------------------


class Slots(NamedTuple):
    """Which choice of which token each slot computes. Choice c is number c % K of token c // K."""

    choice_S: jax.Array
    """Choice of a slot; M K = empty."""
    slot_MK: jax.Array
    """Slot of a choice; S = dropped."""


def _placed(slot_MK: jax.Array, n_slots: int) -> Slots:
    choices = jnp.arange(slot_MK.size, dtype=jnp.int32)
    empty = jnp.full(n_slots, slot_MK.size, jnp.int32)
    return Slots(empty.at[slot_MK.reshape(-1)].set(choices, mode="drop"), slot_MK)


def capacity_slots(choices_TK: jax.Array, n_experts: int, capacity: int) -> Slots:
    """Slots [E C] of one sequence: each expert's first C tokens, by position."""
    chosen_TE = jnp.sum(jax.nn.one_hot(choices_TK, n_experts, dtype=jnp.int32), axis=1)
    before_TE = jnp.cumsum(chosen_TE, axis=0) - chosen_TE
    place_TK = jnp.take_along_axis(before_TE, choices_TK, axis=1)
    n_slots = n_experts * capacity
    slot_TK = jnp.where(place_TK < capacity, choices_TK * capacity + place_TK, n_slots)
    return _placed(slot_TK, n_slots)


def sorted_slots(
    choices_MK: jax.Array, n_experts: int, block: int, n_slots: int
) -> tuple[Slots, jax.Array]:
    """Slots sorted by expert, and how many each expert has [E], counted in whole blocks of slots.

    A choice of n_experts or more is nobody's. n_slots: enough for all others and the empty slots
    that fill up blocks; those behind the last expert's are empty too.
    """
    sorted_experts, order = jax.lax.sort_key_val(
        choices_MK.reshape(-1), jnp.arange(choices_MK.size, dtype=jnp.int32)
    )
    first = jnp.searchsorted(sorted_experts, jnp.arange(n_experts + 1)).astype(jnp.int32)
    sizes_E = -(-jnp.diff(first) // block) * block
    shift = jnp.cumsum(sizes_E) - sizes_E - first[:-1]  # from place in the order to slot
    moved = jnp.arange(choices_MK.size, dtype=jnp.int32)
    moved += shift[jnp.minimum(sorted_experts, n_experts - 1)]
    moved = jnp.where(sorted_experts < n_experts, moved, n_slots)
    slot_MK = jnp.zeros_like(order).at[order].set(moved).reshape(choices_MK.shape)
    return _placed(slot_MK, n_slots), sizes_E


@jax.custom_vjp
def spread(x_MD: jax.Array, slots: Slots) -> jax.Array:
    """[S, D]: each slot's token; zero where a slot is empty.

    Its gradient, and that of `collect`, look up where autodiff would scatter.
    """
    n_choices = slots.slot_MK.shape[1]
    return jnp.take(x_MD, slots.choice_S // n_choices, axis=0, mode="fill", fill_value=0)


@jax.custom_vjp
def collect(y_SD: jax.Array, slots: Slots) -> jax.Array:
    """[M, K, D]: what each choice's slot holds; zero where the choice was dropped."""
    return jnp.take(y_SD, slots.slot_MK, axis=0, mode="fill", fill_value=0)


def _spread_backward(slots: Slots, gradient_SD: jax.Array):
    return jnp.sum(collect(gradient_SD, slots), axis=1), None


def _collect_backward(slots: Slots, gradient_MKD: jax.Array):
    flat = gradient_MKD.reshape(-1, gradient_MKD.shape[-1])
    return jnp.take(flat, slots.choice_S, axis=0, mode="fill", fill_value=0), None


spread.defvjp(lambda x, slots: (spread(x, slots), slots), _spread_backward)
collect.defvjp(lambda y, slots: (collect(y, slots), slots), _collect_backward)


# --- the two forms ------------------------------------------------------------------------------


def dropless(
    x_BTD: jax.Array, gates_BTK: jax.Array, choices_BTK: jax.Array, weights: Weights, of: Setting
) -> jax.Array:
    """Every choice of every token. [B, T, D]."""
    config, axis = of.config, of.expert_axis
    n_local = weights["up"][0].shape[0]
    if axis is not None:
        inputs = x_BTD, gates_BTK, choices_BTK
        x_BTD, gates_BTK, choices_BTK = (
            jax.lax.all_gather(x, axis, axis=0, tiled=True) for x in inputs
        )
        choices_BTK = choices_BTK - n_local * jax.lax.axis_index(axis)
        choices_BTK = jnp.where(choices_BTK < 0, n_local, jnp.minimum(choices_BTK, n_local))
    x_MD = x_BTD.reshape(-1, config.d_model)
    choices_MK = choices_BTK.reshape(-1, config.n_experts_per_token)
    n_most = x_MD.shape[0] * min(config.n_experts_per_token, n_local)
    block = _block(n_most, n_local) if of.how.cpu_forms else 1
    n_slots = (n_most + n_local * (block - 1)) // block * block
    slots, sizes_E = sorted_slots(choices_MK, n_local, block, n_slots)
    ends_E = jnp.cumsum(sizes_E)
    expert_S = jnp.searchsorted(ends_E, jnp.arange(n_slots), side="right")
    rows_SD = _hidden_and_back(
        spread(x_MD, slots),
        weights,
        functools.partial(project_grouped, sizes_E=sizes_E, block=block, how=of.how),
        lambda bias_EO: jnp.take(bias_EO, expert_S, axis=0, mode="fill", fill_value=0),
        of,
    )
    gates_MK = gates_BTK.reshape(choices_MK.shape)
    y_BTD = _weigh(collect(rows_SD, slots), gates_MK).reshape(x_BTD.shape)
    if axis is None:
        return y_BTD
    return jax.lax.psum_scatter(y_BTD, axis, scatter_dimension=0, tiled=True)


def with_capacity(
    x_BTD: jax.Array, gates_BTK: jax.Array, choices_BTK: jax.Array, weights: Weights, of: Setting
) -> jax.Array:
    """The choices that have a place: of each sequence, an expert's first C tokens. [B, T, D]."""
    config, axis = of.config, of.expert_axis
    n_batch, n_tokens, width = x_BTD.shape
    assert config.n_experts is not None
    assert config.expert_capacity is not None
    capacity = min(config.expert_capacity, n_tokens)
    place = functools.partial(capacity_slots, n_experts=config.n_experts, capacity=capacity)
    slots = jax.vmap(place)(choices_BTK)
    rows_BECD = jax.vmap(spread)(x_BTD, slots)
    rows_BECD = rows_BECD.reshape(n_batch, config.n_experts, capacity, width)
    if axis is not None:
        rows_BECD = jax.lax.all_to_all(rows_BECD, axis, split_axis=1, concat_axis=0, tiled=True)
    n_rows, n_local = rows_BECD.shape[:2]
    rows_ERD = _hidden_and_back(
        rows_BECD.swapaxes(0, 1).reshape(n_local, n_rows * capacity, width),
        weights,
        functools.partial(project_batched, how=of.how),
        lambda bias_EO: bias_EO[:, None],
        of,
    )
    rows_BECD = rows_ERD.reshape(n_local, n_rows, capacity, width).swapaxes(0, 1)
    if axis is not None:
        rows_BECD = jax.lax.all_to_all(rows_BECD, axis, split_axis=0, concat_axis=1, tiled=True)
    rows_BSD = rows_BECD.reshape(n_batch, config.n_experts * capacity, width)
    y_MKD = jax.vmap(collect)(rows_BSD, slots).reshape(-1, config.n_experts_per_token, width)
    return _weigh(y_MKD, gates_BTK.reshape(y_MKD.shape[:2])).reshape(x_BTD.shape)


def _hidden_and_back(
    rows: jax.Array,
    weights: Weights,
    multiply: Callable[[jax.Array, jax.Array], jax.Array],
    spread_bias: Callable[[jax.Array], jax.Array],
    of: Setting,
) -> jax.Array:
    """The MLP of each row's expert. multiply: (rows, kernels of all experts) -> rows."""

    def into(name: str, rows: jax.Array, share: int = 1) -> jax.Array:
        kernel, bias = weights[name]
        y = multiply(rows, kernel)
        return y if bias is None else y + (spread_bias(bias) / share).astype(y.dtype)

    hidden = into("up", rows)
    gated = of.config.gated
    gate = into("gate", rows) if gated else None
    hidden = activate(of.config.activation, of.how, hidden, gate)
    return into("down", hidden, of.tensor_parts)


def _weigh(y_MKD: jax.Array, gates_MK: jax.Array) -> jax.Array:
    """Sum over choices, times their gates, in float32."""
    return jnp.sum(gates_MK[..., None] * y_MKD, axis=1).astype(y_MKD.dtype)


def _block(n_choices: int, n_experts: int) -> int:
    """Rows of a CPU's block: about an expert's even share, a power of 2."""
    least, most = BLOCKS
    block = least
    while block < most and 2 * block * n_experts <= n_choices:
        block *= 2
    return block


# --- over several devices -----------------------------------------------------------------------


def _is_even(layout: Layout, x_BTD: jax.Array) -> bool:
    """Whether batch and sequence divide; else XLA splits the plain form as it can."""
    n_batch, n_tokens, _ = x_BTD.shape
    return n_batch % layout.n_parts("act_batch") == 0 and n_tokens % layout.n_parts("act_seq") == 0


def _on_devices(
    compute: Callable[..., jax.Array],
    x_BTD: jax.Array,
    gates_BTK: jax.Array,
    choices_BTK: jax.Array,
    weights: Weights,
    config: ModelConfig,
    how: Precision,
    layout: Layout,
) -> jax.Array:
    """`compute` on each device: its tokens, its experts, its hidden units.

    Each sorts its own tokens: a sort over all would gather them.
    """
    tensor_axes = layout.mesh_axes("mlp")
    of = Setting(
        config,
        dataclasses.replace(how, cpu_forms=False),  # the CPU's forms are for a single one
        EXPERT_AXIS if layout.mesh_axes("expert") else None,
        layout.n_parts("mlp"),
    )
    everywhere = (*layout.mesh_axes("act_batch"), *layout.mesh_axes("act_seq"), *tensor_axes)
    tokens: Axes = ("act_batch", "act_seq", None)
    dims: dict[str, Axes] = dict.fromkeys(("up", "gate"), ("expert", None, "mlp"))
    dims["down"] = ("expert", "mlp", None)
    bias = {name: None if weights[name][1] is None else dims[name][::2] for name in weights}
    axes = tokens, tokens, tokens, {name: (dims[name], bias[name]) for name in weights}

    def vary(x: jax.Array, axes: Axes) -> jax.Array:
        """Each device has a gradient of its own by what it shares with others: they are added."""
        split = {a for axis in axes for a in layout.mesh_axes(axis)}
        missing = tuple(a for a in everywhere if a not in split)
        return jax.lax.pcast(x, missing, to="varying") if missing else x

    def one_device(*inputs) -> jax.Array:
        x_BTD, gates_BTK, choices_BTK, weights = jax.tree.map(vary, inputs, axes)
        y_BTD = compute(x_BTD, gates_BTK, choices_BTK, weights, of)
        return jax.lax.psum(y_BTD, tensor_axes)

    inputs = x_BTD, gates_BTK, choices_BTK, weights
    return jax.shard_map(
        one_device,
        mesh=layout.mesh,
        in_specs=jax.tree.map(layout.spec, axes, is_leaf=is_axes),
        out_specs=layout.spec(tokens),
    )(*inputs)
