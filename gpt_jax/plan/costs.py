"""Costs of a step, from the text of its program: matmuls, bytes, seconds, kernels, collectives.

The compiler's own cost analysis counts the body of a loop once, whatever its length, and layers,
parts of the loss, microbatches and collective matrix products are loops. Here each operation counts
as often as the loops around it run. Of every operation but kernels in Mosaic (splash attention) the
compiler for TPUs writes down `estimated_cycles`; that for GPUs none, so an operation takes what its
FLOPs take at the peak, or its bytes at the memory's bandwidth. Plain text in, numbers out: must not
import jax.
"""

import dataclasses
import re
from collections.abc import Callable

from gpt_jax.plan import hlo

CHANNEL = re.compile(r"channel_id=(\d+)")


@dataclasses.dataclass(frozen=True)
class Device:
    """How fast a device is."""

    peak: float
    """FLOP/s of matmuls."""
    bandwidth: float
    """Bytes/s to its memory."""
    link: Callable[[tuple[int, ...]], float]
    """Bytes/s, one way, of a device in a collective of these."""
    clock: float | None = None
    """Cycles/s; None where the compiler counts no cycles."""

    def seconds(self, work: "Work") -> float:
        """Seconds of one run: the compiler's cycles, or the longer of FLOPs and bytes."""
        if self.clock is not None:
            return work.cycles / self.clock
        return max(work.flops / self.peak, work.n_bytes / self.bandwidth)


@dataclasses.dataclass(frozen=True)
class Work:
    """An operation that is no collective."""

    times: float
    """How often it runs in a step."""
    flops: float
    """FLOPs of its matmuls; 0 of kernels that the compiler does not look into."""
    n_bytes: float
    """Bytes read and written; what stays in fast memory between two operations counts too."""
    cycles: float
    family: str
    """Kind of kernel, as `kernels` names it."""


@dataclasses.dataclass(frozen=True)
class Collective:
    """Collectives of one kind in one step, on one device."""

    kind: str
    count: float
    n_bytes: float
    """Bytes of the largest operand or result, summed over the collectives."""
    sent_bytes: float
    """Bytes that a device sends, in a ring over its group."""
    n_asynchronous: float
    """Collectives with other operations between their start and end."""
    seconds: float
    """At the bandwidth of the links."""
    exposed_seconds: float
    """The part of them beside which nothing runs: all of a synchronous one; of another, what the
    operations between its start and end do not cover."""


@dataclasses.dataclass(frozen=True)
class Costs:
    """Costs of one step on one device."""

    work: tuple[Work, ...]
    collectives: tuple[Collective, ...]
    copies: tuple[tuple[float, float], ...]
    """(times, bytes) of each copy or transpose of a parameter of the program."""

    @property
    def flops(self) -> float:
        """FLOPs of matmuls, without those inside kernels."""
        return sum(w.times * w.flops for w in self.work)

    @property
    def n_bytes(self) -> float:
        """Bytes read and written."""
        return sum(w.times * w.n_bytes for w in self.work)

    @property
    def cycles(self) -> float:
        """The compiler's estimate of cycles, without kernels in Mosaic and collectives."""
        return sum(w.times * w.cycles for w in self.work)

    @property
    def flops_per_cycle(self) -> float:
        """The most of any matmul: more than the device has says that its clock is wrong."""
        return max((w.flops / w.cycles for w in self.work if w.cycles), default=0.0)

    @property
    def exposed_seconds(self) -> float:
        """Seconds of collectives beside which nothing runs."""
        return sum(c.exposed_seconds for c in self.collectives)

    def seconds(self, device: Device) -> float:
        """Time of all work, one operation after another; collectives aside."""
        return sum(w.times * device.seconds(w) for w in self.work)

    def kernels(self) -> dict[str, tuple[int, float]]:
        """{kind of kernel: (how many there are, how often they run in a step)}."""
        found: dict[str, tuple[int, float]] = {}
        for w in self.work:
            n, runs = found.get(w.family, (0, 0.0))
            found[w.family] = (n + 1, runs + w.times)
        return dict(sorted(found.items()))


def count(text: str, device: Device) -> Costs:
    """The costs of a step, from the text of its program."""
    program = hlo.parse(text)
    work: list[Work] = []
    copies: list[tuple[float, float]] = []
    found = _Collectives(program, device)
    parameters = {o.name for o in program[hlo.ENTRY] if o.kind == "parameter"}
    for operations, times in hlo.executed(program, hlo.ENTRY, 1.0):
        known = {operation.name: operation for operation in operations}
        in_turn: list[Work | None] = []
        for operation in operations:
            done = _work(program, operation, known, times)
            in_turn.append(done)
            if done is None:
                continue
            work.append(done)
            if operation.kind in ("copy", "transpose") and parameters & set(operation.operands):
                copies.append((times, operation.n_bytes))
        found.add(operations, in_turn, known, times)
    return Costs(tuple(work), found.summed(), tuple(copies))


def _work(
    program: hlo.Program, operation: hlo.Operation, known: dict[str, hlo.Operation], times: float
) -> Work | None:
    """The work of an operation; None of a collective, and of what does nothing itself."""
    if operation.kind in hlo.FREE or operation.kind.endswith("-done"):
        return None
    if hlo.collective(program, operation) in hlo.COLLECTIVES:
        return None
    flops = hlo.flops(program, operation, known)
    n_bytes = moved_bytes(program, operation, known)
    return Work(times, flops, n_bytes, operation.cycles, family(operation))


def family(operation: hlo.Operation) -> str:
    """The kind of kernel that an operation is."""
    target = re.search(r'custom_call_target="([^"]+)"', operation.text)
    if target:
        name = target[1]
        for part, shown in CUSTOM_CALLS:
            if part in name:
                return shown
        return f"custom call {name}"
    if operation.kind == "fusion":
        kind = re.search(r'"kind":"(__[^"]+)"', operation.text)
        if kind is None or kind[1] == "__custom_fusion":
            return "XLA fusion"
        return FUSIONS.get(kind[1], f"fusion {kind[1]}")
    return {"dot": "matmul", "convolution": "matmul"}.get(operation.kind, "other operation")


CUSTOM_CALLS = (
    ("__cudnn$fmha", "cuDNN attention"),
    ("__cudnn", "cuDNN"),
    ("__cublas", "cuBLAS"),
    ("tpu_custom_call", "Mosaic kernel"),
)
"""(part of a custom call's target, its kind of kernel); the first that is found."""
FUSIONS = {
    "__triton_nested_gemm_fusion": "Triton matmul",
    "__triton_gemm": "Triton matmul",
    "__triton": "Triton fusion",
    "__cublas_fusion": "cuBLAS",
    "__cudnn$fusion": "cuDNN",
}


class _Collectives:
    """Collectives of a program, each counted once: its start, steps and end share a channel."""

    def __init__(self, program: hlo.Program, device: Device):
        self.program, self.device = program, device
        self.rows: dict[str, dict[str, tuple[float, ...]]] = {}
        """{kind: {channel: a row of `Collective`}}."""

    def add(
        self,
        operations: list[hlo.Operation],
        work: list[Work | None],
        known: dict[str, hlo.Operation],
        times: float,
    ) -> None:
        """Adds those of a computation that runs so often; work: what its operations do."""
        begun: dict[str, int] = {}
        ended: dict[str, int] = {}
        channels: dict[str, str] = {}
        for i, operation in enumerate(operations):
            if operation.kind.endswith("-done") and operation.operands[0] in channels:
                ended[channels[operation.operands[0]]] = i
            elif hlo.collective(self.program, operation) in hlo.COLLECTIVES:
                inside = hlo.with_groups(self.program, operation)
                named = CHANNEL.search(inside.text) or CHANNEL.search(operation.text)
                channel = named[1] if named else operation.name
                channels[operation.name] = channel
                begun.setdefault(channel, i)
                ended[channel] = i
        for channel, i in begun.items():
            between = [w for w in work[i + 1 : ended[channel]] if w is not None]
            self._add_one(channel, operations[i], known, times, between)

    def _add_one(
        self,
        channel: str,
        operation: hlo.Operation,
        known: dict[str, hlo.Operation],
        times: float,
        between: list[Work],
    ) -> None:
        kind = hlo.collective(self.program, operation)
        size = _collected_bytes(operation, known)
        grouped = hlo.with_groups(self.program, operation)
        sent = size * hlo.sent(kind, grouped)
        seconds = sent / self.device.link(hlo.group(grouped.text))
        covered = sum(self.device.seconds(w) for w in between)
        exposed = max(0.0, seconds - covered)
        of_kind = self.rows.setdefault(kind, {})
        before = of_kind.get(channel, (0.0,) * 6)
        one = (1.0, size, sent, float(bool(between)), seconds, exposed)
        of_kind[channel] = tuple(b + times * x for b, x in zip(before, one, strict=True))

    def summed(self) -> tuple[Collective, ...]:
        found = []
        for kind in hlo.COLLECTIVES:
            if kind in self.rows:
                columns = zip(*self.rows[kind].values(), strict=True)
                found.append(Collective(kind, *map(sum, columns)))
        return tuple(found)


def _collected_bytes(operation: hlo.Operation, known: dict[str, hlo.Operation]) -> float:
    """Bytes of all operands or of all results, if more; of a fusion, of its largest array."""
    operands = [known[name].n_bytes for name in operation.operands if name in known]
    if operation.kind == "fusion":
        return max([*operands, *map(hlo.shape_bytes, operation.shapes)])
    results = sum(hlo.shape_bytes(shape) for shape in operation.shapes if shape[1])
    if operation.kind.endswith("-start") and results > sum(operands):
        results -= sum(operands)  # they are told again, beside the results
    return max(sum(operands), results)


def moved_bytes(
    program: hlo.Program, operation: hlo.Operation, known: dict[str, hlo.Operation]
) -> float:
    """Bytes that an operation reads and writes: of a slice of an array, those of the slice.

    A layer's weights are sliced from those of all layers, and what it keeps for the backward pass
    is written into an array of all layers, in place.
    """
    parts = [program.get(name, []) for how, name in operation.called if how == "calls"]
    if operation.kind == "fusion" and parts:
        return _fused_bytes(parts[0])
    operands = [known[name].n_bytes for name in operation.operands if name in known]
    if operation.kind in ("dynamic-slice", "gather"):
        return 2 * operation.n_bytes
    if operation.kind == "dynamic-update-slice" and len(operands) > 1:
        return 2 * operands[1]
    return operation.n_bytes + sum(operands)


def _fused_bytes(inside: list[hlo.Operation]) -> float:
    known = {operation.name: operation for operation in inside}
    users: dict[str, list[hlo.Operation]] = {}
    for operation in inside:
        for name in operation.operands:
            users.setdefault(name, []).append(operation)

    def read(name: str) -> float:
        """Bytes of an array that the operations behind it read."""
        total, whole = 0.0, known[name].n_bytes
        for user in users.get(name, []):
            if user.kind == "bitcast":
                total += read(user.name)
            elif user.kind in ("dynamic-slice", "gather"):
                total += user.n_bytes
            elif not (user.kind == "dynamic-update-slice" and user.operands[0] == name):
                return whole
        return min(total, whole)

    def written(operation: hlo.Operation) -> float:
        if operation.kind == "tuple":
            return sum(written(known[name]) for name in operation.operands if name in known)
        if operation.kind == "bitcast" and operation.operands[0] in known:
            return written(known[operation.operands[0]])
        if operation.kind == "dynamic-update-slice" and operation.operands[1] in known:
            return known[operation.operands[1]].n_bytes
        return operation.n_bytes

    reads = sum(read(operation.name) for operation in inside if operation.kind == "parameter")
    return reads + written(inside[-1])
