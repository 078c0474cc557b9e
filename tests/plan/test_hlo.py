"""Costs read from a program's text: a small one whose counts are known by hand."""

import pytest

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


def test_loops_count_as_often_as_they_run():
    program = hlo.parse(PROGRAM)
    (loop,) = [o for o in program[hlo.ENTRY] if o.kind == "while"]
    assert hlo.trips(program, loop) == 3  # 0, 2 and 4 are below 6
    costs = hlo.count(PROGRAM)
    assert costs.flops == pytest.approx(3 * 2 * 8 * 16 * 32)
    assert costs.cycles == 3 * 1000
    # A product's operands and result, and the counter's update, in each round.
    assert costs.n_bytes == 3 * (2 * (8 * 16 + 16 * 32 + 8 * 32) + (4 + 4 + 4))


def test_collectives_are_counted_by_kind_with_what_a_ring_sends():
    found = {c.kind: c for c in hlo.count(PROGRAM).collectives}
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
    costs = hlo.count(BATCHED.format(kind=kind, a=a, b=b, out=out, how=how))
    assert costs.flops == pytest.approx(5 * 2 * 8 * 16 * 32)
