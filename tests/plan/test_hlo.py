"""Costs read from a program's text: a small one whose counts are known by hand."""

import pytest

from gpt_jax.plan import costs as program_costs
from gpt_jax.plan import hlo

PROGRAM = """\
HloModule jit_step

%fused (p.0: bf16[8,16], p.1: bf16[16,32]) -> bf16[8,32] {
  %p.0 = bf16[8,16]{1,0} parameter(0)
  %p.1 = bf16[16,32]{1,0} parameter(1)
  ROOT %convolution.1 = bf16[8,32]{1,0} convolution(%p.0, %p.1), dim_labels=bf_io->bf
}

%scattered (input.1: f32[64,4]) -> f32[16,4] {
  %input.1 = f32[64,4]{1,0} parameter(0)
  %all-reduce.9 = f32[64,4]{1,0} all-reduce(%input.1), replica_groups={{0,1,2,3},{4,5,6,7}}
  ROOT %slice.1 = f32[16,4]{1,0} slice(%all-reduce.9), slice={[0:16], [0:4]}
}

%condition (state.1: (u32[], bf16[8,16], bf16[16,32])) -> pred[] {
  %limit = u32[]{:T(128)} constant(6)
  %state.1 = (u32[], bf16[8,16], bf16[16,32]) parameter(0)
  %counter.1 = u32[]{:T(128)} get-tuple-element(%state.1), index=0
  ROOT %compare.1 = pred[]{:T(512)} compare(%counter.1, %limit), direction=LT
}

%body (state.2: (u32[], bf16[8,16], bf16[16,32])) -> (u32[], bf16[8,16], bf16[16,32]) {
  %two = u32[]{:T(128)} constant(2)
  %state.2 = (u32[], bf16[8,16], /*index=2*/bf16[16,32]) parameter(0)
  %counter.2 = u32[]{:T(128)} get-tuple-element(%state.2), index=0
  %x = bf16[8,16]{1,0} get-tuple-element(%state.2), index=1
  %w = bf16[16,32]{1,0} get-tuple-element(%state.2), index=2
  %y = bf16[8,32]{1,0} fusion(%x, %w), kind=kOutput, calls=%fused, \
backend_config={"window_config":{"estimated_cycles":"1000"}}
  %all-gather.1 = bf16[8,64]{1,0} all-gather(%y), replica_groups=[4,2]<=[8], dimensions={1}
  %next = u32[]{:T(128)} add(%counter.2, %two)
  ROOT %tuple.1 = (u32[], bf16[8,16], bf16[16,32]) tuple(%next, %x, %w)
}

ENTRY %main (a: bf16[8,16], b: bf16[16,32], c: f32[64,4]) -> bf16[8,16] {
  %a = bf16[8,16]{1,0} parameter(0)
  %b = bf16[16,32]{1,0} parameter(1)
  %c = f32[64,4]{1,0} parameter(2)
  %zero = u32[]{:T(128)} constant(0)
  %init = (u32[], bf16[8,16], bf16[16,32]) tuple(%zero, %a, %b)
  %while.1 = (u32[], bf16[8,16], bf16[16,32]) while(%init), condition=%condition, body=%body
  %part = f32[16,4]{1,0} fusion(%c), kind=kCustom, calls=%scattered
  %sent = (f32[16,4]{1,0}, f32[16,4]{1,0}, u32[]) collective-permute-start(%part), \
source_target_pairs={{0,1},{1,0}}
  %came = f32[16,4]{1,0} collective-permute-done(%sent)
  %whole = f32[16,4]{1,0} all-reduce(%came), \
replica_groups=mesh['axis_0'=4,'axis_1'=8] {'axis_1'}, to_apply=%add
  ROOT %result = bf16[8,16]{1,0} get-tuple-element(%while.1), index=1
}
"""


DEVICE = program_costs.Device(
    peak=1e12, bandwidth=1e9, link=lambda group: 1e6 * len(group), clock=1e6
)


def test_loops_count_as_often_as_they_run():
    program = hlo.parse(PROGRAM)
    (loop,) = [o for o in program[hlo.ENTRY] if o.kind == "while"]
    assert hlo.trips(program, loop) == 3  # 0, 2 and 4 are below 6
    costs = program_costs.count(PROGRAM, DEVICE)
    assert costs.flops == pytest.approx(3 * 2 * 8 * 16 * 32)
    assert costs.cycles == 3 * 1000
    assert costs.seconds(DEVICE) == pytest.approx(3 * 1000 / 1e6)
    assert costs.flops_per_cycle == pytest.approx(2 * 8 * 16 * 32 / 1000)
    # A product's operands and result, and the counter's update, in each round.
    assert costs.n_bytes == 3 * (2 * (8 * 16 + 16 * 32 + 8 * 32) + (4 + 4 + 4))


def test_collectives_are_counted_by_kind_with_what_a_ring_sends():
    found = {c.kind: c for c in program_costs.count(PROGRAM, DEVICE).collectives}
    assert found.keys() == {"all-gather", "reduce-scatter", "collective-permute", "all-reduce"}
    gathered = found["all-gather"]
    assert (gathered.count, gathered.n_bytes) == (3, 3 * 8 * 64 * 2)
    assert gathered.sent_bytes == gathered.n_bytes / 2  # groups of two
    assert found["reduce-scatter"].n_bytes == 64 * 4 * 4  # an all-reduce whose slice is kept
    assert found["reduce-scatter"].sent_bytes == 64 * 4 * 4 * 3 / 4
    assert found["collective-permute"].sent_bytes == 16 * 4 * 4
    assert found["all-reduce"].sent_bytes == 2 * (16 * 4 * 4) * 7 / 8


BATCHED = """\
ENTRY %main (a: {a}, b: {b}) -> {out} {{
  %a = {a} parameter(0)
  %b = {b} parameter(1)
  ROOT %product = {out} {kind}(%a, %b), {how}
}}
"""


@pytest.mark.parametrize(
    ("kind", "a", "b", "out", "how"),
    [
        # Batch dims of a dot are named; of a convolution they are spatial and everywhere alike.
        (
            "dot",
            "f32[5,8,16]{2,1,0}",
            "f32[5,16,32]{2,1,0}",
            "f32[5,8,32]{2,1,0}",
            "lhs_batch_dims={0}, lhs_contracting_dims={2}, rhs_batch_dims={0}, "
            "rhs_contracting_dims={1}",
        ),
        (
            "convolution",
            "f32[5,8,16]{2,1,0}",
            "f32[5,16,32]{2,1,0}",
            "f32[5,8,32]{2,1,0}",
            "window={size=5}, dim_labels=0bf_0io->0bf",
        ),
        (
            "convolution",
            "f32[5,8,16]{2,1,0}",
            "f32[1,16,32]{2,1,0}",
            "f32[5,8,32]{2,1,0}",
            "window={size=1}, dim_labels=0bf_0io->0bf",
        ),
    ],
    ids=["dot", "convolution", "one operand"],
)
def test_products_side_by_side(kind, a, b, out, how):
    costs = program_costs.count(BATCHED.format(kind=kind, a=a, b=b, out=out, how=how), DEVICE)
    assert costs.flops == pytest.approx(5 * 2 * 8 * 16 * 32)


GPU = """\
%sliced (p.0: bf16[12,8,16], p.1: s32[]) -> bf16[8,16] {
  %p.0 = bf16[12,8,16]{2,1,0} parameter(0)
  %p.1 = s32[] parameter(1)
  %zero.1 = s32[] constant(0)
  %slice.1 = bf16[1,8,16]{2,1,0} dynamic-slice(%p.0, %p.1, %zero.1, %zero.1), \
dynamic_slice_sizes={1,8,16}
  ROOT %bitcast.1 = bf16[8,16]{1,0} bitcast(%slice.1)
}

%placed (q.0: bf16[12,8,16], q.1: bf16[8,16], q.2: s32[]) -> bf16[12,8,16] {
  %q.0 = bf16[12,8,16]{2,1,0} parameter(0)
  %q.1 = bf16[8,16]{1,0} parameter(1)
  %q.2 = s32[] parameter(2)
  %bitcast.2 = bf16[1,8,16]{2,1,0} bitcast(%q.1)
  %zero.2 = s32[] constant(0)
  ROOT %update = bf16[12,8,16]{2,1,0} dynamic-update-slice(%q.0, %bitcast.2, %q.2, %zero.2, %zero.2)
}

%condition (s.1: (s32[], bf16[12,8,16])) -> pred[] {
  %s.1 = (s32[], bf16[12,8,16]) parameter(0)
  ROOT %unknown = pred[] custom-call(%s.1), custom_call_target="compares"
}

%body (s.2: (s32[], bf16[12,8,16])) -> (s32[], bf16[12,8,16]) {
  %s.2 = (s32[], bf16[12,8,16]) parameter(0)
  %i = s32[] get-tuple-element(%s.2), index=0
  %all = bf16[12,8,16]{2,1,0} get-tuple-element(%s.2), index=1
  %layer = bf16[8,16]{1,0} fusion(%all, %i), kind=kLoop, calls=%sliced
  %begin = (bf16[8,16]{1,0}, bf16[16,16]{1,0}) all-gather-start(%layer), channel_id=7, \
replica_groups=[4,2]<=[8], dimensions={0}
  %beside = bf16[8,16]{1,0} fusion(%layer), kind=kCustom, calls=%sliced, \
backend_config={"fusion_backend_config":{"kind":"__triton_nested_gemm_fusion"}}
  %end = bf16[16,16]{1,0} all-gather-done(%begin)
  %part = bf16[8,16]{1,0} reduce-scatter(%end), channel_id=8, replica_groups=[4,2]<=[8], \
dimensions={0}, to_apply=%add
  %kept = bf16[12,8,16]{2,1,0} fusion(%all, %part, %i), kind=kLoop, calls=%placed
  ROOT %t = (s32[], bf16[12,8,16]) tuple(%i, %kept)
}

ENTRY %main (a: bf16[12,8,16], b: f32[4,4]) -> bf16[12,8,16] {
  %a = bf16[12,8,16]{2,1,0} parameter(0)
  %b = f32[4,4]{1,0} parameter(1)
  %copy.1 = f32[4,4]{0,1} copy(%b)
  %attention = (bf16[8,16]{1,0}, u8[0]{0}) custom-call(%a), \
custom_call_target="__cudnn$fmhaSoftmax"
  %product = (f32[4,4]{1,0}, s8[64]{0}) custom-call(%copy.1, %b), \
custom_call_target="__cublas$lt$matmul"
  %zero = s32[] constant(0)
  %init = (s32[], bf16[12,8,16]) tuple(%zero, %a)
  %while.1 = (s32[], bf16[12,8,16]) while(%init), condition=%condition, body=%body, \
backend_config={"known_trip_count":{"n":"12"},"known_induction_variable":{"tuple_index":"0"}}
  ROOT %out = bf16[12,8,16]{2,1,0} get-tuple-element(%while.1), index=1
}
"""
"""In the words of XLA's compiler for GPUs."""
WITHOUT_CYCLES = program_costs.Device(peak=1e12, bandwidth=1e9, link=lambda group: 1e6 * len(group))


def test_a_program_of_a_gpu_tells_its_kernels_loops_and_copies():
    costs = program_costs.count(GPU, WITHOUT_CYCLES)
    assert costs.kernels() == {
        "Triton matmul": (1, 12),
        "XLA fusion": (2, 24),
        "cuBLAS": (1, 1),
        "cuDNN attention": (1, 1),
        "other operation": (1, 1),
    }
    assert costs.copies == ((1, 64),)
    assert costs.flops_per_cycle == 0
    assert costs.seconds(WITHOUT_CYCLES) == pytest.approx(costs.n_bytes / 1e9)


def test_a_slice_of_all_layers_moves_its_own_bytes_alone():
    program = hlo.parse(GPU)
    known = {operation.name: operation for operation in program["body"]}
    layer = 8 * 16 * 2
    assert (
        program_costs.moved_bytes(program, known["layer"], known) == 2 * layer + 4
    )  # and the index
    assert program_costs.moved_bytes(program, known["kept"], known) == 2 * layer + 4


def test_what_runs_beside_a_collective_is_taken_off_it():
    found = {c.kind: c for c in program_costs.count(GPU, WITHOUT_CYCLES).collectives}
    gathered, scattered = found["all-gather"], found["reduce-scatter"]
    assert (gathered.count, gathered.n_asynchronous) == (12, 12)
    assert (scattered.count, scattered.n_asynchronous) == (12, 0)
    sent = 16 * 16 * 2 / 2
    assert gathered.sent_bytes == 12 * sent
    assert gathered.seconds == pytest.approx(12 * sent / 2e6)
    beside = (2 * 8 * 16 * 2 + 4) / 1e9
    assert gathered.exposed_seconds == pytest.approx(12 * (sent / 2e6 - beside))
    assert scattered.exposed_seconds == scattered.seconds == pytest.approx(12 * sent / 2e6)


IN_STEPS = """\
ENTRY %main (a: f32[8,4], b: f32[8,4]) -> f32[16,4] {
  %a = f32[8,4]{1,0} parameter(0)
  %b = f32[8,4]{1,0} parameter(1)
  %start = (f32[8,4]{1,0}, f32[16,4]{1,0}) all-gather-start(%a), channel_id=3, \
replica_groups=[4,2]<=[8], dimensions={0}
  %y = f32[8,4]{1,0} add(%a, %b)
  %step = (f32[8,4]{1,0}, f32[16,4]{1,0}) all-gather-start(%start), channel_id=3, \
replica_groups=[4,2]<=[8], dimensions={0}
  %z = f32[8,4]{1,0} add(%y, %b)
  ROOT %done = f32[16,4]{1,0} all-gather-done(%step), channel_id=3
}
"""


def test_a_collective_in_steps_is_one():
    (found,) = program_costs.count(IN_STEPS, WITHOUT_CYCLES).collectives
    assert (found.count, found.n_bytes, found.n_asynchronous) == (1, 16 * 4 * 4, 1)


@pytest.mark.parametrize(
    ("text", "devices"),
    [
        ("replica_groups={{0,2},{1,3}}, x", (0, 2)),
        ("replica_groups=[4,2]<=[8], x", (0, 1)),
        ("replica_groups=[4,2]<=[2,4]T(1,0), x", (0, 4)),
        ("replica_groups=mesh['a'=2,'b'=4] {'b'}, x", (0, 1, 2, 3)),
        ("replica_groups=mesh['a'=2,'b'=4] {'a'}, x", (0, 4)),
        # Two hosts of eight: along a within a host, along b between them.
        ("replica_groups=mesh['a'=8,'b'=2], device_ids=([2,8]T(1,0)) {'a'}, x", tuple(range(8))),
        ("replica_groups=mesh['a'=8,'b'=2], device_ids=([2,8]T(1,0)) {'b'}, x", (0, 8)),
        ("source_target_pairs={{0,1},{1,0}}", (0,)),
    ],
)
def test_the_devices_of_a_collective_in_every_notation(text, devices):
    assert hlo.group(text) == devices


COMBINED = """\
ENTRY %main (a: f32[8,4], b: bf16[8]) -> f32[16,4] {
  %a = f32[8,4]{1,0} parameter(0)
  %b = bf16[8]{0} parameter(1)
  %start = ((f32[8,4]{1,0}, bf16[8]{0}), (f32[16,4]{1,0}, bf16[16]{0})) \
all-gather-start(%a, %b), channel_id=3, replica_groups=[4,2]<=[8], dimensions={0}
  %done = (f32[16,4]{1,0}, bf16[16]{0}) all-gather-done(%start)
  ROOT %out = f32[16,4]{1,0} get-tuple-element(%done), index=0
}
"""


def test_all_arrays_of_a_combined_collective_count():
    (found,) = program_costs.count(COMBINED, WITHOUT_CYCLES).collectives
    assert (found.count, found.n_bytes) == (1, 16 * 4 * 4 + 16 * 2)
