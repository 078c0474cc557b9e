"""Closed forms of a plan against counts made in another way, and how they scale."""

import math

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jaxprs import product_flops

from gpt_jax.config import Config, overrides
from gpt_jax.config.mesh_sizes import MeshSizes
from gpt_jax.cost import flops, hardware, memory
from gpt_jax.cost.estimate import (
    attention_flops_per_sequence,
    executed_flops_per_sequence,
    make_plan,
)
from gpt_jax.cost.mesh import mesh_sizes
from gpt_jax.cost.search import OTHERS, SETTINGS, as_overrides, candidates, search
from gpt_jax.cost.topology import parse_topology
from gpt_jax.models.gpt import make_gpt
from gpt_jax.optim.updates import make_optimizer
from gpt_jax.plan import text

SMALL = overrides.override(
    Config(),
    {
        "model.vocab_size": 512,
        "model.seq_len": 128,
        "model.n_layers": 4,
        "model.d_model": 64,
        "model.n_heads": 8,
        "train.batch_sequences": 64,
        "train.tokens": 128 * 64 * 10,
    },
)
V4 = parse_topology("v4:2x2x2")


def changed(**changes) -> Config:
    return overrides.override(SMALL, {key.replace("__", "."): v for key, v in changes.items()})


# --- topologies ---------------------------------------------------------------------------------


@given(
    chip=st.sampled_from(hardware.CHIPS),
    sizes=st.lists(st.integers(1, 64), min_size=3, max_size=3),
    slices=st.integers(1, 9),
)
def test_a_topology_is_read_as_it_is_written(chip, sizes, slices):
    shape = tuple(sizes[: chip.interconnect.dims or 1])
    slices = slices if chip.backend == "tpu" else 1
    name = f"{chip.name.removeprefix('tpu_')}:{'x'.join(map(str, shape))}"
    name = f"{slices}x{name}" if slices > 1 else name
    topology = parse_topology(name)
    assert (topology.chip, topology.shape, topology.slices) == (chip, shape, slices)
    assert topology.name == name
    assert topology.n_devices == math.prod(shape) * slices * chip.devices_per_chip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("v5p", "allowed: CHIP:SIZE"),
        ("v5p:8x8x", "allowed: CHIP:SIZE"),
        ("v5p:8x8", "a slice of tpu_v5p has 3 dims"),
        ("v6e:4x4x4", "a slice of tpu_v6e has 2 dims"),
        ("h100:8x8", "of GPUs give their number"),
        ("2xh100:8", "of GPUs give their number"),
        ("0xv4:2x2x2", "at least 1"),
        ("v4:0x2x2", "at least 1"),
        ("v5:8x8x8", "unknown chip 'v5'; known: .*did you mean 'v5"),
        ("h200s:8", "did you mean 'h200'"),
    ],
)
def test_other_topologies_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_topology(text)


def test_an_axis_has_its_share_of_the_links():
    torus = parse_topology("v5p:8x8x8")
    assert torus.axis_bandwidth(8) == pytest.approx(200e9)
    assert torus.axis_bandwidth(64) == pytest.approx(400e9)
    assert torus.axis_bandwidth(512) == pytest.approx(600e9)
    gpus = parse_topology("h100:64")
    assert gpus.axis_bandwidth(8) == pytest.approx(450e9)
    assert gpus.axis_bandwidth(8, outer=8) == gpus.axis_bandwidth(16) == pytest.approx(50e9)


# --- memory and FLOPs ---------------------------------------------------------------------------


def test_the_state_is_what_is_allocated():
    """Bytes of the arrays that training creates, from their shapes."""
    config = changed(optimizer__ema_decay=0.9)
    model = make_gpt(config.model)
    params = jax.eval_shape(model.init, jax.random.key(0))
    optimizer = make_optimizer(config.optimizer, params, learning_rate=0.0, model=config.model)
    state = jax.eval_shape(optimizer.init, params)

    def n_bytes(tree):
        return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree) if x.ndim)

    got = memory.estimate(config, MeshSizes(1, 1, 1))
    assert (got.params, got.optimizer, got.ema) == (n_bytes(params), n_bytes(state), got.params)
    split = memory.estimate(config, MeshSizes(2, 2, 4))
    assert split.state == got.state / 8
    assert split.gradients == got.gradients / 8


def test_less_is_kept_the_more_is_recomputed():
    kept = {
        remat: memory.estimate(changed(compute__remat=remat), MeshSizes(1, 1, 1)).kept
        for remat in ("full", "dots", "attention", "none")
    }
    assert list(kept.values()) == sorted(kept.values())
    # One residual stream a layer, in bfloat16.
    assert kept["full"] == 64 * 128 * 4 * 64 * 2


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"compute__remat": "attention"},
        {"compute__remat": "dots"},
        {"compute__remat": "full"},
        {"model__activation": "swiglu", "model__norm": "rmsnorm", "model__bias": False},
        {"model__activation": "gelu", "model__n_kv_heads": 2},
        {"compute__remat": "dots", "model__layer_pattern": ("dense", "banded"), "model__window": 9},
    ],
    ids=str,
)
def test_what_is_kept_is_what_the_gradient_waits_for(changes):
    """Arrays of all layers' tokens that autodiff hands from the forward to the backward pass."""
    how = {"compute__dtype": "bfloat16", "compute__attention": "blockwise"}
    config = changed(**{"compute__remat": "none"} | how | changes)
    model = make_gpt(config.model, config.compute, backend="gpu")
    params = jax.eval_shape(model.init, jax.random.key(0))
    tokens = jax.ShapeDtypeStruct((64, 128), np.int32)

    def backward(params, tokens):
        return jax.vjp(lambda params: model.apply(params, tokens), params)[1]

    n_groups = 4 // len(config.model.layer_pattern)
    found = [
        x.size * x.dtype.itemsize
        for x in jax.tree.leaves(jax.eval_shape(backward, params, tokens))
        if x.shape[:3] == (n_groups, 64, 128)
    ]
    assert sum(found) == memory.estimate(config, MeshSizes(1, 1, 1), "gpu").kept


def test_microbatches_tensor_and_batch_axes_divide_what_is_kept():
    whole = memory.estimate(SMALL, MeshSizes(1, 1, 1)).kept
    assert memory.estimate(changed(compute__microbatches=4), MeshSizes(1, 1, 1)).kept == whole / 4
    assert memory.estimate(SMALL, MeshSizes(2, 4, 1)).kept == whole / 8
    full = changed(compute__remat="full")
    alone = memory.estimate(full, MeshSizes(1, 1, 1)).kept
    assert memory.estimate(full, MeshSizes(1, 1, 8)).kept == alone / 8


def test_experts_lie_along_their_axis_and_nothing_else_does():
    config = changed(model__n_experts=4, optimizer__name="lion")
    shapes = flops.parameter_shapes(config.model)
    experts = sum(4 * math.prod(shape) for path, shape in shapes.items() if "/experts/" in path)
    others = sum(4 * math.prod(shape) for path, shape in shapes.items() if "/experts/" not in path)
    assert experts > others
    got = memory.estimate(config, MeshSizes(data=1, fsdp=2, tensor=1, expert=4))
    assert got.params == got.optimizer == got.gradients == (others + experts / 4) / 2
    # A device has a fourth of the tokens, and places for all that its fellows may send.
    alone = memory.estimate(config, MeshSizes(1, 1, 1))
    assert got.kept > alone.kept / 8
    capacity = changed(model__n_experts=4, model__expert_capacity_factor=1.0)
    kept = [memory.estimate(capacity, MeshSizes(1, 1, 1, expert=n)).kept for n in (1, 4)]
    assert kept[1] == kept[0] / 4


def test_a_split_sequence_divides_the_tokens():
    full = changed(compute__remat="full")
    whole, split = (memory.estimate(full, MeshSizes(1, 1, 1, sequence=n)) for n in (1, 4))
    assert split.kept == whole.kept / 4
    assert split.state == whole.state
    none = [memory.estimate(SMALL, MeshSizes(1, 1, 1, sequence=n)).kept for n in (1, 4)]
    assert none[1] == none[0] / 4
    # What goes around, and float32 gradients with it.
    assert split.working > whole.working / 4


def test_a_ring_multiplies_whole_pairs_of_chunks():
    """Two a device at each of the P steps, three at the first (gpt_jax.models.ring)."""
    layers, width, chunk, parts = 4, 64, 128 // 8, 4
    pairs = layers * parts * (2 * parts + 1) * chunk**2
    ring = changed(mesh__sequence=parts)
    assert attention_flops_per_sequence(ring) == 3.5 * 4 * width * pairs
    banded = {"model__layer_pattern": ("banded",), "model__window": 17}
    # A chunk of queries sees itself and the chunk before; one query also the last key before that.
    seen = changed(mesh__sequence=parts, **banded)
    pairs = layers * (8 + 7 + 0) * chunk**2
    assert attention_flops_per_sequence(seen) == 3.5 * 4 * width * pairs
    wider = changed(mesh__sequence=parts, **banded | {"model__window": 18})
    assert attention_flops_per_sequence(wider) == 3.5 * 4 * width * layers * (8 + 7 + 6) * chunk**2


EXPERTS = {"model__n_experts": 4, "model__expert_capacity_factor": 1.5}


@pytest.mark.parametrize("remat", ["none", "attention", "dots", "full"])
@pytest.mark.parametrize("model", [{}, EXPERTS], ids=["dense", "experts"])
def test_executed_flops_are_those_of_the_program(remat, model):
    """The products in the traced gradient; the attention that it runs is counted apart."""
    how = {"compute__remat": remat, "compute__attention": "reference", "compute__loss": "whole"}
    config = changed(**how, **model)
    model = make_gpt(config.model, config.compute, backend="gpu")
    params = jax.eval_shape(model.init, jax.random.key(0))
    batch = jax.ShapeDtypeStruct((1, 128), np.int32)

    def loss(params, tokens):
        return model.apply(params, tokens).mean()

    products = product_flops(jax.make_jaxpr(jax.grad(loss))(params, batch).jaxpr)
    attention = 4 * 4 * 64 * 128**2
    # The whole square, by plain products. Of recomputed attention alone only scores are asked for.
    reference = {"none": 3, "attention": 3.5, "dots": 4, "full": 4}[remat] * attention
    ours = executed_flops_per_sequence(config)
    fused = (4.5 + (remat != "none")) * 4 * 4 * 64 * (128 * 129 // 2)
    assert ours - fused == pytest.approx(products - reference, rel=1e-6)


def test_one_device_sends_nothing_and_more_send_along_their_axis():
    one = make_plan(changed(), parse_topology("v4:1x1x1"))
    assert one.traffic == ()
    axes = {
        axis: make_plan(changed(**{f"mesh__{axis}": 8, **rest}), V4).traffic
        for axis, rest in (("data", {}), ("fsdp", {}), ("tensor", {}))
    }
    assert {axis: [t.axis for t in found] for axis, found in axes.items()} == {
        axis: [axis] for axis in axes
    }
    # An all-reduce of float32 gradients, in a ring.
    n_params = flops.count_parameters(SMALL.model).n_params_padded
    assert axes["data"][0].sent_bytes == pytest.approx(2 * 4 * n_params * 7 / 8)


@pytest.mark.parametrize(
    ("parallel", "remat", "passes"),
    [(False, "none", 10), (False, "dots", 10), (False, "full", 12), (True, "none", 6),
     (True, "full", 7)],
)  # fmt: skip
def test_a_layer_sends_along_tensor_what_compiled_programs_do(parallel, remat, passes):
    """GPT-2 124M on v5p:2x2x1, libtpu 0.0.42: gathers 6, 6, 7, 3, 4 and scatters 4, 4, 5, 3, 3 a
    layer, counted in the programs' text."""
    config = changed(mesh__tensor=4, model__parallel_block=parallel, compute__remat=remat)
    longer = changed(
        mesh__tensor=4, model__parallel_block=parallel, compute__remat=remat, model__n_layers=8
    )
    four, eight = (make_plan(c, parse_topology("v4:2x2x1")).traffic[0] for c in (config, longer))
    stream = 2 * 64 * 128 * 64  # bytes of the tokens, bfloat16
    assert eight.sent_bytes - four.sent_bytes == pytest.approx(4 * passes * stream * 3 / 4)


def test_what_experts_and_rings_and_slices_send():
    stream = 2 * 64 * 128 * 64 / 8  # bytes of a device's tokens, bfloat16
    parts = flops.count_parameters(changed(**EXPERTS).model)
    shared = 2 * 4 * (parts.n_params_padded - parts.n_params_experts)
    by_capacity = make_plan(changed(mesh__expert=4, mesh__data=2, **EXPERTS), V4).traffic
    assert [t.axis for t in by_capacity] == ["data", "expert"]
    # Each token's 1.5 x 2 places there and back, and their gradients, in 4 layers.
    rows = 4 * 3 * 4 * stream
    assert by_capacity[1].sent_bytes == pytest.approx((rows + shared) * 3 / 4)
    dropless = changed(mesh__expert=4, mesh__data=2, model__n_experts=4)
    gathered = make_plan(dropless, V4).traffic[1]
    assert gathered.sent_bytes == pytest.approx((4 * 4 * 4 * stream + shared) * 3 / 4)

    ring = make_plan(changed(mesh__sequence=8), V4).traffic
    (along,) = ring
    tokens, n_params = 64 * 128 / 8, flops.count_parameters(SMALL.model).n_params_padded
    tours = 3 * 8 * 4 * (2 * 4 * tokens * 64)  # keys and values in float32
    assert along.sent_bytes == pytest.approx(tours + 2 * stream + 2 * 4 * n_params * 7 / 8)

    two = parse_topology("2xv5p:2x2x2")
    slices = make_plan(changed(mesh__slices=2, mesh__data=8), two).traffic
    assert [t.axis for t in slices] == ["slices", "data"]
    # Reduced within a slice first: each device sends an eighth between the two.
    assert slices[0].sent_bytes == pytest.approx(2 * 4 * n_params / 8 / 2)
    assert slices[0].seconds == pytest.approx(slices[0].sent_bytes / 6.25e9)


def test_slices_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match=r"mesh.slices = 2, but v4:2x2x2 is 1 slice; .* 2xv4:2x2x"):
        make_plan(changed(mesh__slices=2), V4)
    with pytest.raises(ValueError, match=r"mesh.slices = 1, but 2xv5p:2x2x2 is 2 slices; set mesh"):
        make_plan(SMALL, parse_topology("2xv5p:2x2x2"))
    with pytest.raises(ValueError, match="no source gives the bandwidth between slices of tpu_v4"):
        make_plan(changed(mesh__slices=2), parse_topology("2xv4:2x2x2"))
    on_gpus = make_plan(changed(mesh__slices=2, mesh__fsdp=8), parse_topology("h100:16"))
    assert on_gpus.traffic[0].seconds == on_gpus.traffic[0].sent_bytes / 50e9


def test_the_bound_is_the_slowest_of_three():
    plan = make_plan(changed(mesh__fsdp=8), V4, price=2.0)
    times = plan.compute_seconds, plan.memory_seconds, plan.network_seconds
    assert plan.bound_seconds == max(times)
    assert plan.in_turn_seconds == max(times[0] + times[1], times[2])
    assert plan.n_steps == 10
    assert plan.days(0.5) * 86_400 == pytest.approx(plan.n_steps * 0.5)
    assert plan.cost(0.5) == pytest.approx(2.0 * plan.n_steps * 0.5 / 3600 * 8)
    peak = 275e12
    palm = flops.training_flops_per_sequence(SMALL.model, "palm") * 64 / 8
    assert plan.mfu(0.5) == pytest.approx(palm / (0.5 * peak))
    assert plan.mfu(0.5, "exact_causal") < plan.mfu(0.5, "exact")


def test_more_than_all_of_the_peak_is_explained():
    """Where scores are the most of it, PaLM's count is more than a causal kernel executes."""
    sizes = {"model__d_model": 512, "model__n_heads": 4, "model__position": "rotary"}
    plan = make_plan(changed(model__seq_len=2**18, **sizes), parse_topology("v5p:2x2x1"))
    assert plan.mfu(plan.bound_seconds) > 1
    assert "; over 100%, for PaLM's count" in text.whole(plan)
    short = make_plan(changed(mesh__fsdp=8), V4)
    assert ("over 100%" in text.whole(short)) == (short.mfu(short.bound_seconds) > 1)


# --- meshes and the search ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mesh__fsdp": 3}, "mesh.fsdp = 3 does not divide 8 devices"),
        ({"mesh__data": 16}, "mesh.data = 16 does not make up 8 devices"),
        ({"train__batch_sequences": 4}, "= 4 is not divisible by mesh.data x mesh.fsdp = 8"),
        ({"model__n_heads": 4, "mesh__tensor": 8}, "model.n_heads = 4 is not divisible"),
    ],
)
def test_a_mesh_that_does_not_fit_says_which_number(changes, message):
    with pytest.raises(ValueError, match=message):
        mesh_sizes(changed(**changes), V4)


def test_the_search_finds_plans_that_fit_and_ranks_them():
    found = search(SMALL, V4)
    assert found
    assert all(plan.fits for plan in found)
    times = [(p.compute_seconds, p.memory_seconds, p.network_seconds) for p in found]
    steps = [float(f"{sum(time):.3g}") for time in times]
    assert steps == sorted(steps)
    tried = candidates(SMALL, V4)
    assert len({tuple(c.items()) for c in tried}) == len(tried) >= len(found)
    assert all(set(c) == set(SETTINGS + OTHERS) for c in tried)
    # What is printed gives the plan back.
    pasted = overrides.parse_arguments(as_overrides(found[0], SMALL).split())
    assert make_plan(overrides.override(SMALL, pasted), V4) == found[0]


def test_the_search_splits_experts_and_where_it_must_the_sequence():
    """Four experts a layer; a sequence of which a device can hold no whole one."""
    experts = search(changed(model__n_experts=4), V4)
    assert {plan.mesh.expert for plan in experts} == {1, 2, 4}
    long = changed(
        model__seq_len=1 << 22, model__position="rotary", train__batch_sequences=1,
        train__tokens=1 << 24,
    )  # fmt: skip
    found = search(long, parse_topology("v5p:4x4x4"))
    assert all(plan.mesh.sequence > 1 for plan in found)
    pasted = overrides.parse_arguments(as_overrides(found[0], long).split())
    assert pasted["mesh.sequence"] == str(found[0].mesh.sequence)
    assert make_plan(overrides.override(long, pasted), parse_topology("v5p:4x4x4")) == found[0]
    slices = search(SMALL, parse_topology("2xv5p:2x2x2"))
    assert {plan.mesh.slices for plan in slices} == {2}


def test_a_model_that_fits_nowhere_says_by_how_much():
    huge = changed(model__d_model=65_536, model__n_layers=64, model__n_heads=64)
    with pytest.raises(ValueError, match=r"fits no mesh of v4:2x2x2: the least is [\d,.]+ GB"):
        search(huge, V4)
