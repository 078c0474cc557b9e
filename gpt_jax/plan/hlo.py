"""An optimized program, read from its text: operations, how often each runs, what it computes.

A loop's body runs as often as the compiler says (`known_trip_count`), or as the constant that its
condition compares with. Plain text in, numbers out: must not import jax.
"""

import dataclasses
import math
import re
from collections.abc import Iterator

import numpy as np

TYPE_BYTES = {
    "pred": 1, "s8": 1, "u8": 1, "f8e4m3fn": 1, "f8e5m2": 1, "bf16": 2, "f16": 2, "s16": 2,
    "u16": 2, "f32": 4, "s32": 4, "u32": 4, "f64": 8, "s64": 8, "u64": 8,
}  # fmt: skip
COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "collective-permute", "all-to-all")
FREE = (
    "parameter", "constant", "get-tuple-element", "tuple", "bitcast", "while", "iota", "call",
    "conditional", "partition-id", "replica-id", "after-all",
)  # fmt: skip
"""Operations that move nothing themselves."""

_HEADER = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")
_OPERATION = re.compile(r"^\s+(?:ROOT )?%?([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\((.*)$")
_SHAPE = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")
_CALLED = re.compile(r"(condition|body|calls|to_apply|called_computations)=\{?%?([\w.-]+)")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_LISTED_GROUPS = re.compile(r"replica_groups=\{\{([\d,]+)\}")
_COUNTED_GROUPS = re.compile(r"replica_groups=\[\d+,(\d+)\]<=(\[[\d,]+\](?:T\([\d,]+\))?)")
_MESH_GROUPS = re.compile(
    r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\((\[[\d,]+\](?:T\([\d,]+\))?)\))? \{([^}]*)\}"
)
_DOT_BATCH = re.compile(r"lhs_batch_dims=\{([\d,]+)\}")
_LABELS = re.compile(r"dim_labels=(\w+)_(\w+)->(\w+)")
_PARTS = re.compile(r"/\*.*?\*/")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


@dataclasses.dataclass(frozen=True)
class Operation:
    """One line of a computation."""

    name: str
    kind: str
    shapes: tuple[tuple[str, tuple[int, ...]], ...]
    """(type, dims) of each result."""
    operands: tuple[str, ...]
    called: tuple[tuple[str, str], ...]
    """(how, computation)."""
    text: str

    @property
    def n_bytes(self) -> float:
        return sum(TYPE_BYTES.get(kind, 0) * math.prod(dims) for kind, dims in self.shapes)

    @property
    def cycles(self) -> float:
        match = _CYCLES.search(self.text)
        return float(match[1]) if match else 0.0


Program = dict[str, list[Operation]]
"""Computations by name; the entry's is ENTRY."""
ENTRY = "ENTRY"


def parse(text: str) -> Program:
    """The computations of a program's text (`compiled.as_text()`)."""
    program: Program = {}
    lines: list[Operation] = []
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header:
            lines = program.setdefault(ENTRY if header[1] else header[2], [])
            continue
        match = _OPERATION.match(_PARTS.sub("", line))
        if match:
            name, types, kind, rest = match.groups()
            lines.append(_operation(name, types, kind, rest, line))
    return program


def _operation(name: str, types: str, kind: str, rest: str, line: str) -> Operation:
    shapes = tuple(
        (found[1], tuple(int(dim) for dim in found[2].split(",") if dim))
        for found in _SHAPE.finditer(types)
    )
    inside = rest[: rest.find(")")] if ")" in rest else rest
    operands = tuple(part.strip().split(" ")[-1].lstrip("%") for part in inside.split(","))
    called = tuple((found[1], found[2]) for found in _CALLED.finditer(rest))
    return Operation(name, kind, shapes, operands if inside else (), called, line)


def collective(program: Program, operation: Operation) -> str:
    """The kind of collective that an operation is, or its own kind.

    A fusion is one if there is one inside: an all-reduce of which a device keeps its slice is a
    reduce-scatter.
    """
    if operation.kind == "fusion":
        inside = [
            part.kind
            for how, name in operation.called
            if how == "calls"
            for part in program.get(name, [])
            if part.kind in COLLECTIVES
        ]
        if inside:
            return "reduce-scatter" if inside[0] == "all-reduce" else inside[0]
    return operation.kind.removesuffix("-start")


def shape_bytes(shape: tuple[str, tuple[int, ...]]) -> float:
    return float(TYPE_BYTES.get(shape[0], 0) * math.prod(shape[1]))


def executed(program: Program, name: str, times: float) -> Iterator[tuple[list[Operation], float]]:
    """(a computation, how often it runs), from the named one on; what is fused has no costs."""
    operations = program.get(name, [])
    yield operations, times
    for operation in operations:
        called = dict(operation.called)
        if operation.kind == "while":
            yield from executed(program, called["body"], times * trips(program, operation))
        elif operation.kind in ("call", "conditional", "async-start"):
            for _, computation in operation.called:
                yield from executed(program, computation, times)


def trips(program: Program, loop: Operation) -> int:
    """How often a loop's body runs: as the compiler says, or from a counter that goes from 0 to a
    constant in constant steps."""
    told = _TRIPS.search(loop.text)
    if told:
        return int(told[1])
    called = dict(loop.called)
    condition, body = program[called["condition"]], program[called["body"]]
    (index,) = _indices(condition[-1], condition) or (None,)
    compared = _numbers([*condition, *_fused(program, condition[-1])])
    last = max(compared.values(), default=1)
    if index is None or len(body[-1].operands) <= index:
        return last
    known, constants = {operation.name: operation for operation in body}, _numbers(body)
    update = known.get(body[-1].operands[index])
    steps = [constants[name] for name in update.operands if name in constants] if update else []
    if update is not None:
        steps += _numbers(_fused(program, update)).values()
    return -(-last // (steps[0] if steps and steps[0] else 1))


def _fused(program: Program, operation: Operation) -> list[Operation]:
    """The operations inside a fusion; none of another operation."""
    return [
        part for how, name in operation.called if how == "calls" for part in program.get(name, [])
    ]


def _numbers(operations: list[Operation]) -> dict[str, int]:
    """The values of integer constants, by name."""
    found = {}
    for operation in operations:
        match = re.search(r" constant\((\d+)\)", operation.text)
        if operation.kind == "constant" and match:
            found[operation.name] = int(match[1])
    return found


def _indices(root: Operation, operations: list[Operation]) -> tuple[int, ...]:
    """Indices of the loop's state that a comparison reads."""
    known = {operation.name: operation for operation in operations}
    read = [known[name] for name in root.operands if name in known]
    found = [re.search(r"index=(\d+)", o.text) for o in read if o.kind == "get-tuple-element"]
    return tuple(int(match[1]) for match in found if match)[:1]


def flops(program: Program, operation: Operation, known: dict[str, Operation]) -> float:
    """FLOPs of the matmuls in an operation: 2 B M K N = 2 sqrt((B M K) (B K N) (B M N) / B),
    however the compiler writes them as convolutions."""
    if operation.kind == "fusion":
        inside = [program.get(name, []) for how, name in operation.called if how == "calls"]
        return sum(
            flops(program, part, {p.name: p for p in parts}) for parts in inside for part in parts
        )
    if operation.kind not in ("convolution", "dot"):
        return 0.0
    inputs = [known[name].shapes[0][1] for name in operation.operands if name in known]
    shapes = [*inputs, operation.shapes[0][1]]
    cube = math.prod(math.prod(shape) for shape in shapes)
    return 2 * math.sqrt(cube / _batch_size(operation.text, shapes))


def _batch_size(text: str, shapes: list[tuple[int, ...]]) -> int:
    """Products that are computed side by side, with operands of their own.

    A dot names these dims. A convolution has them among its spatial dims (digits in its labels), as
    those that are equally long in both operands and the result.
    """
    dims = _DOT_BATCH.search(text)
    if dims:
        return math.prod(shapes[0][int(i)] for i in dims[1].split(","))
    labels = _LABELS.search(text)
    if labels is None or len(shapes) < 3:
        return 1
    batch = 1
    for name in filter(str.isdigit, labels[1]):
        sizes = {
            shape[label.index(name)] for label, shape in zip(labels.groups(), shapes, strict=True)
        }
        batch *= sizes.pop() if len(sizes) == 1 else 1
    return batch


def with_groups(program: Program, operation: Operation) -> Operation:
    """The operation that says which devices take part: of a fusion, the one inside."""
    for how, name in operation.called:
        for part in program.get(name, []) if how == "calls" else []:
            if part.kind in COLLECTIVES:
                return part
    return operation


def sent(kind: str, operation: Operation) -> float:
    """Bytes that a device sends, over those of the whole array."""
    if kind == "collective-permute":
        return 1.0
    n = len(group(operation.text))
    return (2 if kind == "all-reduce" else 1) * (n - 1) / n


def group(text: str) -> tuple[int, ...]:
    """Devices of the first group that takes part in a collective together, in any of the notations
    of groups; (0,) where none is told."""
    by_mesh = _MESH_GROUPS.search(text)
    if by_mesh:
        sizes = {name: int(n) for name, n in re.findall(r"'(\w+)'=(\d+)", by_mesh[1])}
        axes = re.findall(r"'(\w+)'", by_mesh[3])
        ids = _iota(by_mesh[2]) if by_mesh[2] else np.arange(math.prod(sizes.values()))
        at = tuple(slice(None) if name in axes else 0 for name in sizes)
        return tuple(int(i) for i in ids.reshape(tuple(sizes.values()))[at].flatten())
    listed = _LISTED_GROUPS.search(text)
    if listed:
        return tuple(int(i) for i in listed[1].split(","))
    counted = _COUNTED_GROUPS.search(text)
    if counted is None:
        return (0,)
    return tuple(int(i) for i in _iota(counted[2])[: int(counted[1])])


def _iota(text: str) -> np.ndarray:
    """Device ids in the order of [2,8]T(1,0): counted, in that shape, its dims in that order."""
    dims, _, order = text.partition("T")
    ids = np.arange(math.prod(_integers(dims))).reshape(_integers(dims))
    return (ids.transpose(_integers(order)) if order else ids).flatten()


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", text))
