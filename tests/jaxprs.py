"""What a traced function computes, for tests that look into it."""

import math
from collections.abc import Iterator
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn


def equations(jaxpr: Jaxpr, repeats: int = 1) -> Iterator[tuple[JaxprEqn, int]]:
    """Each equation, those of inner functions included, and how often scans around it run it."""
    for equation in jaxpr.eqns:
        yield equation, repeats
        length = equation.params["length"] if equation.primitive.name == "scan" else 1
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr):
            if _is_jaxpr(inner):
                inner = inner.jaxpr if isinstance(inner, ClosedJaxpr) else inner
                yield from equations(inner, repeats * length)


def product_flops(jaxpr: Jaxpr) -> int:
    """FLOPs of all matrix products, two for a multiply-add."""
    total = 0
    for equation, repeats in equations(jaxpr):
        assert equation.primitive.name != "while", "a loop without a known length"
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            added = math.prod(left[i] for i in contracted)
            total += repeats * 2 * equation.outvars[0].aval.size * added
    return total


def _is_jaxpr(value: Any) -> bool:
    return isinstance(value, Jaxpr | ClosedJaxpr)
