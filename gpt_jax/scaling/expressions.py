"""Formulas and conditions that a user writes: parsed by a list of what is allowed, never run.

A formula is arithmetic over columns and parameters; its value comes with exact derivatives to the
parameters (forward mode: every part carries its own). Dims: F fits, R runs; a part that depends on
no parameter is (1, R), on no column (F, 1).

Must not import jax.
"""

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from gpt_jax.hints import did_you_mean

Array = np.ndarray


class Dual(NamedTuple):
    """A value and its derivatives to the parameters that it depends on."""

    value: Array
    slopes: dict[str, Array]


def _sigmoid(v: Array) -> Array:
    return 0.5 * (1 + np.tanh(0.5 * v))


FUNCTIONS: dict[str, tuple[Callable[[Array], Array], Callable[[Array, Array], Array]]] = {
    "exp": (np.exp, lambda v, f: f),
    "expm1": (np.expm1, lambda v, f: f + 1),
    "log": (np.log, lambda v, f: 1 / v),
    "log10": (np.log10, lambda v, f: 1 / (v * np.log(10.0))),
    "log1p": (np.log1p, lambda v, f: 1 / (1 + v)),
    "sqrt": (np.sqrt, lambda v, f: 0.5 / f),
    "tanh": (np.tanh, lambda v, f: 1 - f**2),
    "sigmoid": (_sigmoid, lambda v, f: f * (1 - f)),
}
"""{name: (function, (argument, result) -> derivative)}"""

CHOICES = {"min": np.less_equal, "max": np.greater_equal}
"""Functions of two arguments, of which they take one."""

COMPARISONS: dict[type[ast.cmpop], Callable[[Array, Array], Array]] = {
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
    ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
}


def parse(text: str, option: str) -> ast.expr:
    """The formula as a tree; raises ValueError for what is no formula, naming the option."""
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(f"{option} '{text}': not a formula; example: E + A*N**-alpha") from None


def names_of(tree: ast.expr) -> list[str]:
    """Columns and parameters of a formula, in the order in which they appear."""
    return list(dict.fromkeys(_names(tree)))


def _names(tree: ast.AST) -> Iterator[str]:
    if isinstance(tree, ast.Call):
        for argument in tree.args:
            yield from _names(argument)
    elif isinstance(tree, ast.Name):
        yield tree.id
    else:
        for child in ast.iter_child_nodes(tree):
            yield from _names(child)


def check_formula(tree: ast.expr, option: str) -> None:
    """Raises ValueError, naming the option, for what a formula may not have."""
    for node in ast.walk(tree):
        match node:
            case ast.BinOp(op=ast.BitXor()):
                raise ValueError(f"{option}: a power is written with **, not with ^")
            case ast.BinOp(op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div() | ast.Pow()):
                pass
            case ast.UnaryOp(op=ast.USub() | ast.UAdd()) | ast.Name() | ast.operator():
                pass
            case ast.unaryop() | ast.expr_context():
                pass
            case ast.Constant(value=bool()):
                raise ValueError(f"{option}: {node.value!r} is not a number")
            case ast.Constant(value=int() | float()):
                pass
            case ast.Call(func=ast.Name(id=name), keywords=[]):
                _check_call(name, len(node.args), option)
            case _:
                raise ValueError(
                    f"{option}: '{ast.unparse(node)}' is not allowed; allowed are numbers, names, "
                    f"+ - * / **, and {', '.join([*FUNCTIONS, *CHOICES])}"
                )


def _check_call(name: str, count: int, option: str) -> None:
    known = [*FUNCTIONS, *CHOICES]
    if name not in known:
        hint = did_you_mean(name, known)
        raise ValueError(f"{option}: no function {name}; known: {', '.join(known)}{hint}")
    wanted = 2 if name in CHOICES else 1
    if count != wanted:
        raise ValueError(f"{option}: {name} takes {wanted} argument{'s' * (wanted > 1)}")


def evaluate(tree: ast.expr, leaves: Mapping[str, Dual]) -> Dual:
    """The value of a checked formula with its derivatives, from those of its names."""
    match tree:
        case ast.Constant(value=int() | float() as number):
            return Dual(np.full((1, 1), float(number)), {})
        case ast.Name(id=name):
            return leaves[name]
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return evaluate(operand, leaves)
        case ast.UnaryOp(operand=operand):
            inner = evaluate(operand, leaves)
            return Dual(-inner.value, {p: -s for p, s in inner.slopes.items()})
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _power(evaluate(left, leaves), evaluate(right, leaves))
        case ast.BinOp(left=left, op=op, right=right):
            return _combine(op, evaluate(left, leaves), evaluate(right, leaves))
        case ast.Call(func=ast.Name(id=name), args=[one]):
            inner = evaluate(one, leaves)
            function, derivative = FUNCTIONS[name]
            value = function(inner.value)
            return Dual(value, _scaled(inner.slopes, derivative(inner.value, value)))
        case ast.Call(func=ast.Name(id=name), args=[one, other]):
            a, b = evaluate(one, leaves), evaluate(other, leaves)
            first = CHOICES[name](a.value, b.value)
            slopes = _sum(
                _scaled(a.slopes, first.astype(float)), _scaled(b.slopes, (~first).astype(float))
            )
            return Dual(np.where(first, a.value, b.value), slopes)
    raise AssertionError(ast.dump(tree))


def _scaled(slopes: dict[str, Array], factor: Array) -> dict[str, Array]:
    return {p: s * factor for p, s in slopes.items()}


def _sum(one: dict[str, Array], other: dict[str, Array]) -> dict[str, Array]:
    found = {**one, **other}
    return found | {p: one[p] + other[p] for p in one if p in other}


def _combine(op: ast.operator, a: Dual, b: Dual) -> Dual:
    match op:
        case ast.Add():
            return Dual(a.value + b.value, _sum(a.slopes, b.slopes))
        case ast.Sub():
            return Dual(a.value - b.value, _sum(a.slopes, {p: -s for p, s in b.slopes.items()}))
        case ast.Mult():
            slopes = _sum(_scaled(a.slopes, b.value), _scaled(b.slopes, a.value))
            return Dual(a.value * b.value, slopes)
        case _:
            value = a.value / b.value
            slopes = _sum(_scaled(a.slopes, 1 / b.value), _scaled(b.slopes, -value / b.value))
            return Dual(value, slopes)


def _power(base: Dual, exponent: Dual) -> Dual:
    """base ** exponent. Where the exponent is a number, the base may be negative."""
    if not exponent.slopes and exponent.value.size == 1:
        power = exponent.value
        value = base.value**power
        return Dual(value, _scaled(base.slopes, power * base.value ** (power - 1)))
    log = np.log(base.value)
    value = np.exp(exponent.value * log)
    slopes = _scaled(exponent.slopes, value * np.where(value == 0, 0.0, log))
    if base.slopes:
        slopes = _sum(slopes, _scaled(base.slopes, value * exponent.value / base.value))
    return Dual(value, slopes)


def check_condition(tree: ast.expr, option: str) -> None:
    """Raises ValueError, naming the option, for what a condition may not have."""
    match tree:
        case ast.BoolOp(values=values):
            for value in values:
                check_condition(value, option)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            check_condition(operand, option)
        case ast.Compare(ops=[ast.In() | ast.NotIn()], comparators=[ast.Tuple(elts=items)]):
            for item in [tree.left, *items]:
                _check_side(item, option)
        case ast.Compare(left=left, ops=ops, comparators=comparators) if all(
            type(op) in COMPARISONS for op in ops
        ):
            for side in [left, *comparators]:
                _check_side(side, option)
        case _:
            raise ValueError(
                f"{option}: '{ast.unparse(tree)}' is not a condition; allowed are < <= > >= == != "
                f"and in (...), joined by and, or, not"
            )


def _check_side(tree: ast.expr, option: str) -> None:
    if not (isinstance(tree, ast.Constant) and isinstance(tree.value, str)):
        check_formula(tree, option)


def holds(tree: ast.expr, columns: Mapping[str, Array]) -> Array:
    """(R) bool: where a checked condition holds. columns: numbers, or text."""
    match tree:
        case ast.BoolOp(op=op, values=values):
            parts = [holds(value, columns) for value in values]
            return np.all(parts, axis=0) if isinstance(op, ast.And) else np.any(parts, axis=0)
        case ast.UnaryOp(operand=operand):
            return ~holds(operand, columns)
        case ast.Compare(left=left, ops=[ast.In() | ast.NotIn() as op], comparators=[ast.Tuple()]):
            items = tree.comparators[0]
            assert isinstance(items, ast.Tuple)
            found = np.any([_compare(left, ast.Eq, item, columns) for item in items.elts], axis=0)
            return found if isinstance(op, ast.In) else ~found
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            sides = [left, *comparators]
            pairs = zip(sides[:-1], ops, sides[1:], strict=True)
            return np.all([_compare(a, type(op), b, columns) for a, op, b in pairs], axis=0)
    raise AssertionError(ast.dump(tree))


def _compare(
    one: ast.expr, op: type[ast.cmpop], other: ast.expr, columns: Mapping[str, Array]
) -> Array:
    a, b = _side(one, columns), _side(other, columns)
    if (a.dtype.kind == "U") != (b.dtype.kind == "U"):
        text = ast.unparse(one if a.dtype.kind == "U" else other)
        raise ValueError(f"--where: {text} is text, and is compared with a number")
    with np.errstate(invalid="ignore"):
        return COMPARISONS[op](a, b) & np.ones(len(next(iter(columns.values()))), bool)


def _side(tree: ast.expr, columns: Mapping[str, Array]) -> Array:
    if isinstance(tree, ast.Constant) and isinstance(tree.value, str):
        return np.array(tree.value)
    if isinstance(tree, ast.Name):
        return columns[tree.id]
    texts = [n for n in names_of(tree) if columns[n].dtype.kind == "U"]
    if texts:
        raise ValueError(f"--where: {texts[0]} is text; it cannot be computed with")
    leaves = {n: Dual(columns[n][None], {}) for n in names_of(tree)}
    return evaluate(tree, leaves).value[0]


def unknown_name(name: str, known: Sequence[str]) -> str:
    """End of an error message: the known names, and the nearest to this one if there is one."""
    return f"known: {', '.join(known)}{did_you_mean(name, known)}"
