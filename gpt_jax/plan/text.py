"""Plans as text: one in full, or several as the rows of a table. Must not import jax."""

from typing import TYPE_CHECKING, get_args

from gpt_jax.config import meshes
from gpt_jax.config.mesh_sizes import MeshSizes
from gpt_jax.cost import flops
from gpt_jax.cost.estimate import Plan, weight_flops_per_sequence
from gpt_jax.cost.memory import JAX_GPU_SHARE, MEMORY_SHARE
from gpt_jax.cost.units import compact, duration, scientific, size
from gpt_jax.published.step_times import about_seconds, expected

if TYPE_CHECKING:
    from gpt_jax.plan.compiled import Compiled

GIB = 2.0**30
Lines = list[tuple[str, str, str]]
"""What, how much, and a remark."""


def gib(n_bytes: float) -> str:
    return f"{n_bytes / GIB:,.2f} GiB"


def seconds(value: float) -> str:
    """A step's time in seconds, with three decimals."""
    return f"{value:,.3f} s"


def whole(plan: Plan) -> str:
    """One plan: memory, time and cost, aligned."""
    parts = [
        headline(plan),
        _section("size", _size(plan)),
        _section("memory of a device, closed form", _memory(plan)),
        _section("a step, closed form", _step(plan)),
        _section("model FLOPs utilization of that step, by convention", _mfu(plan)),
        _section("the whole run, at the expected step (at the bound)", _run(plan)),
    ]
    return "\n\n".join(parts)


def headline(plan: Plan) -> str:
    config, chips = plan.config, plan.topology.n_chips
    parts = config.compute.microbatches
    return (
        f"{config.name} on {plan.topology.name} ({chips} chip{'s' * (chips != 1)}): mesh "
        f"{plan.mesh.shown()}, remat {config.compute.remat}, "
        f"{parts} microbatch{'es' * (parts != 1)}"
    )


def _section(title: str, lines: Lines) -> str:
    name = max(24, *(len(line[0]) for line in lines))
    value = max(12, *(len(line[1]) for line in lines))
    rows = [f"  {n:<{name}}  {v:>{value}}  {r}".rstrip() for n, v, r in lines]
    return "\n".join([title, *rows])


def _size(plan: Plan) -> Lines:
    counts = flops.count_parameters(plan.config.model)
    batch = plan.config.train.batch_sequences
    ramp = []
    if not_in_ramp := meshes.obstacle(plan.config, plan.topology.n_devices):
        ramp = [("", "", f"but {not_in_ramp}: change train.ramp_from_sequences")]
    active = []
    if counts.n_params_inactive:
        active = [
            ("", compact(counts.n_params_active), "of a token: the experts that it is sent to")
        ]
    return [
        ("parameters", compact(counts.n_params), "all"),
        *active,
        ("", compact(counts.n_params_non_embedding), "without embeddings"),
        ("batch", compact(plan.step_tokens), f"tokens: {batch} x {plan.config.model.seq_len}"),
        *ramp,
        ("training", compact(plan.n_tokens), f"tokens in {plan.n_steps:,} steps"),
    ]


def _memory(plan: Plan) -> Lines:
    memory = plan.memory
    optimizer = plan.config.optimizer.name
    lines = [
        ("parameters", gib(memory.params), "float32"),
        ("optimizer state", gib(memory.optimizer), optimizer),
        ("moving average", gib(memory.ema), ""),
        ("gradients", gib(memory.gradients), "float32"),
        ("activations kept", gib(memory.kept), f"remat {plan.config.compute.remat}"),
        ("layers at hand, loss", gib(memory.working), "activations, gathered weights, logits"),
        ("total", gib(memory.total), f"{'fits' if plan.fits else 'DOES NOT FIT'}: "),
    ]
    total = lines.pop()
    room = (
        f"{gib(plan.available_bytes)}, {MEMORY_SHARE:.0%} of {gib(plan.topology.chip.memory_bytes)}"
    )
    shown = [line for line in lines if line[1] != gib(0)]
    shown.append((total[0], total[1], total[2] + f"of {room}"))
    chip = plan.topology.chip
    if chip.backend == "gpu" and JAX_GPU_SHARE * chip.memory_bytes < memory.total and plan.fits:
        takes = f"jax takes {JAX_GPU_SHARE:.0%} of a GPU by default"
        shown.append(("", "", f"needs XLA_PYTHON_CLIENT_MEM_FRACTION={MEMORY_SHARE}: {takes}"))
    return shown


def _step(plan: Plan) -> Lines:
    repeated = plan.executed_flops / plan.model_flops
    lines = [
        ("FLOPs of a device", scientific(plan.executed_flops), f"{repeated:.2f} x PaLM's count"),
        ("compute", seconds(plan.compute_seconds), "at the peak"),
        ("memory", seconds(plan.memory_seconds), "at its bandwidth"),
    ]
    lines += [
        (f"along {t.axis}", seconds(t.seconds), f"{t.sent_bytes / 1e9:,.2f} GB sent: {t.what}")
        for t in plan.traffic
    ]
    factor, about = expected(plan), about_seconds(plan)
    rate = f"{compact(plan.tokens_per_second(about))} tokens/s"
    return [
        *lines,
        ("closed form", seconds(plan.in_turn_seconds), _in_turn(plan)),
        ("step", f"about {seconds(about)}", f"{factor.shown}; {rate}"),
        ("bound", seconds(plan.bound_seconds), f"by {plan.bound_by}, if all overlap"),
    ]


def _in_turn(plan: Plan) -> str:
    if plan.in_turn_seconds == plan.network_seconds:
        return "what is sent takes longer than compute and memory in turn"
    return "compute and memory in turn"


def _mfu(plan: Plan) -> Lines:
    """MFU in every convention: papers differ in which FLOPs of the model they count."""
    about, bound = about_seconds(plan), plan.bound_seconds
    lines = []
    for name in get_args(flops.Convention):
        at_bound = f"{plan.mfu(bound, name):.1%} at the bound{_over_one(plan, name)}"
        lines.append((name, f"{plan.mfu(about, name):.1%}", at_bound))
    return lines


def _over_one(plan: Plan, convention: flops.Convention) -> str:
    """Reason why PaLM's MFU exceeds 100%, where it does."""
    if convention != "palm" or plan.mfu(plan.bound_seconds) <= 1:
        return ""
    executed = plan.executed_flops / plan.model_flops
    return (
        f"; over 100%, for PaLM's count has scores of whole T x T squares, and a causal kernel "
        f"skips what the mask hides: {executed:.0%} of that count is executed, at most at the peak"
    )


def _run(plan: Plan) -> Lines:
    about, bound = about_seconds(plan), plan.bound_seconds
    days = duration(plan.days(bound) * 86_400)
    lines = [
        ("time", duration(plan.days(about) * 86_400), f"({days}) of steps alone"),
        ("chip-hours", compact(plan.chip_hours(about)), f"({compact(plan.chip_hours(bound))})"),
    ]
    if plan.price is not None:
        at_least = f"({compact(plan.cost(bound))}) at {plan.price:g} a chip-hour"
        lines.append(("cost", compact(plan.cost(about)), at_least))
    return lines


def beside(plan: Plan, compiled: "Compiled") -> str:
    """The compiler's figures beside the closed form's."""
    by = "libtpu" if plan.topology.chip.backend == "tpu" else "XLA for GPUs"
    title = f"compiled by {by} in {duration(compiled.compile_seconds)} ({compiled.attention})"
    if not compiled.total_bytes:
        return f"{title}\n  does not fit: {compiled.message}"
    costs = compiled.costs
    mfu, theirs = plan.mfu(plan.in_turn_seconds), plan.mfu(compiled.step_seconds)
    pairs = [
        ("arguments", plan.memory.state / GIB, compiled.argument_bytes / GIB, "GiB"),
        ("temporaries", plan.memory.temporaries / GIB, compiled.temporary_bytes / GIB, "GiB"),
        ("total", plan.memory.total / GIB, compiled.total_bytes / GIB, "GiB"),
        ("FLOPs, no attention", _no_attention(plan), costs.flops / 1e12, "TFLOP"),
        ("step", plan.in_turn_seconds, compiled.step_seconds, "s"),
        ("MFU, palm", 100 * mfu, 100 * theirs, "%"),
    ]
    lines = [title, f"  {'':<22}{'closed form':>14}{'compiler':>14}{'difference':>12}"]
    for name, ours, compiler, unit in pairs:
        difference = f"{ours / compiler - 1:+.1%}" if compiler else "-"
        lines.append(f"  {name:<22}{ours:>14,.2f}{compiler:>14,.2f}{difference:>12}  {unit}")
    if not compiled.fits:
        lines.append(f"  does not fit: {compiled.message}")
    return "\n".join([*lines, *_buffers(compiled), *_seconds(compiled), *_sent(plan, compiled)])


def _buffers(compiled: "Compiled") -> list[str]:
    copies = compiled.costs.copies
    copied = sum(times * n_bytes for times, n_bytes in copies)
    lines = [
        f"  alive at once: {gib(compiled.peak_bytes)}; temporaries as memory_analysis sums them: "
        f"{gib(compiled.summed_temporary_bytes)}",
        f"  results in the place of arguments: {gib(compiled.donated_bytes)}; copies or transposes "
        f"of parameters: {len(copies)}, {copied / 1e9:,.2f} GB",
        f"  read and written: {compiled.costs.n_bytes / 1e12:,.2f} TB",
    ]
    if compiled.once_flops is not None:
        lines.append(
            f"  each loop's body once, as the compiler reports: {scientific(compiled.once_flops)} "
            f"FLOPs, {size(compiled.once_bytes)}"
        )
    return lines


def _seconds(compiled: "Compiled") -> list[str]:
    """How the compiled step's seconds are made up; a warning where they cannot be."""
    exposed = compiled.costs.exposed_seconds
    how = "the compiler's cycles" if compiled.peak_share else "a roofline of each operation"
    lines = [
        f"  step: {compiled.work_seconds:.3f} s by {how}, {compiled.kernel_seconds:.3f} assumed "
        f"for fused attention,",
        f"  {exposed:.3f} of collectives beside which nothing runs, at the links' bandwidth",
    ]
    if compiled.peak_share:
        lines.append(f"  matmuls attain at most {compiled.peak_share:.0%} of the peak by cycles")
    if compiled.peak_share > PEAK_ROUNDING:
        lines.append(
            "  WARNING: more than all of it, so the clock is wrong, and so are the seconds"
        )
    kernels = [
        f"{kind} {n} ({runs:,.0f} runs)" for kind, (n, runs) in compiled.costs.kernels().items()
    ]
    return [*lines, f"  kernels: {', '.join(kernels)}"]


PEAK_ROUNDING = 1.02
"""Share of the peak up to which cycles are taken for rounded."""


def _sent(plan: Plan, compiled: "Compiled") -> list[str]:
    lines = ["  collectives in a step      count   async       GB  GB sent  seconds  exposed"]
    for c in compiled.costs.collectives:
        lines.append(
            f"    {c.kind:<20}{c.count:>10,.0f}{c.n_asynchronous:>8,.0f}{c.n_bytes / 1e9:>9,.1f}"
            f"{c.sent_bytes / 1e9:>9,.1f}{c.seconds:>9.3f}{c.exposed_seconds:>9.3f}"
        )
    sent = sum(t.sent_bytes for t in plan.traffic) / 1e9
    lines.append(f"    {'closed form':<20}{'':>27}{sent:>9,.1f}{plan.network_seconds:>9.3f}")
    return lines


def _no_attention(plan: Plan) -> float:
    """TFLOP of the products with weights: the compiler does not look into attention kernels."""
    sequences = plan.config.train.batch_sequences / plan.mesh.n_devices
    return weight_flops_per_sequence(plan.config) * sequences / 1e12


HEADER = (
    "config", "topology", "mesh", "remat", "mb", "params", "tokens", "state", "total", "fits",
    "step ~", "step >=", "by", "MFU ~", "tok/s", "days", "chip-h", "cost",
)  # fmt: skip
COMPILED_HEADER = ("compiled", "diff", "its MFU", "compiling")


def table(plans: list[Plan], compiled: "list[Compiled | None]") -> str:
    """A row a plan: memory in GiB a device; the compiler's total beside it where it was asked."""
    with_compiler = any(compiled)
    header = [*HEADER, *(COMPILED_HEADER if with_compiler else ())]
    rows = [
        [*_row(plan), *(_compiled_row(plan, one) if with_compiler else ())]
        for plan, one in zip(plans, compiled, strict=True)
    ]
    if all(plan.price is None for plan in plans):
        at = header.index("cost")
        for line in [header, *rows]:
            line.pop(at)
    widths = [max(len(line[i]) for line in [header, *rows]) for i in range(len(header))]
    lines = [
        "  ".join(
            text.ljust(width) if i < 4 else text.rjust(width)
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in [header, *rows]
    ]
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)


def _row(plan: Plan) -> list[str]:
    mesh, config, about = plan.mesh, plan.config, about_seconds(plan)
    return [
        config.name,
        plan.topology.name,
        _short(mesh),
        config.compute.remat,
        str(config.compute.microbatches),
        compact(flops.count_parameters(config.model).n_params),
        compact(plan.n_tokens),
        f"{plan.memory.state / GIB:.2f}",
        f"{plan.memory.total / GIB:.2f}",
        "yes" if plan.fits else "no",
        seconds(about),
        seconds(plan.bound_seconds),
        plan.bound_by,
        f"{plan.mfu(about):.1%}",
        compact(plan.tokens_per_second(about)),
        f"{plan.days(about):,.1f}" if plan.days(about) < 1000 else compact(plan.days(about)),
        compact(plan.chip_hours(about)),
        compact(plan.cost(about)),
    ]


def _short(mesh: MeshSizes) -> str:
    """4x16x1; other axes behind it where they have several devices."""
    others = {"e": mesh.expert, "s": mesh.sequence, "sl": mesh.slices}
    more = "".join(f" {name}{n}" for name, n in others.items() if n > 1)
    return f"{mesh.data}x{mesh.fsdp}x{mesh.tensor}{more}"


def _compiled_row(plan: Plan, compiled: "Compiled | None") -> list[str]:
    if compiled is None:
        return ["-"] * len(COMPILED_HEADER)
    took = duration(compiled.compile_seconds)
    if not compiled.total_bytes:
        return ["too large", "-", "-", took]
    return [
        f"{compiled.total_bytes / GIB:.2f}" + ("" if compiled.fits else " too large"),
        f"{plan.memory.total / compiled.total_bytes - 1:+.1%}",
        f"{plan.mfu(compiled.step_seconds):.1%}",
        took,
    ]


TABLE_NOTES = """\
mesh: data x fsdp x tensor (e expert, s sequence, sl slices); mb: microbatches. state, total,
compiled: GiB of a device. step ~: expected, by what programs of the kind took on real chips
(gpt-jax table step-times); MFU (PaLM's count), tok/s, days and chip-hours at it. step >=: the
bound, if compute, memory and interconnect overlap perfectly."""
