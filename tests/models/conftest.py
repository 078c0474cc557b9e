"""What tests of the model share."""

import jax
import pytest
from jax.extend.core import ClosedJaxpr, Jaxpr


@pytest.fixture(autouse=True)
def quick_compilation():
    """These tests compile much and compute little: leave out most of the compiler's passes.

    For each test by itself: xdist may put a test of bit-identical training after any of these.
    """
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="session")
def equations():
    """A function: the equations of a traced function, inner ones included."""

    def is_jaxpr(value):
        return isinstance(value, Jaxpr | ClosedJaxpr)

    def walk(jaxpr):
        for equation in jaxpr.eqns:
            yield equation
            for value in jax.tree.leaves(list(equation.params.values()), is_leaf=is_jaxpr):
                if is_jaxpr(value):
                    yield from walk(value.jaxpr if isinstance(value, ClosedJaxpr) else value)

    return lambda function, *arguments: list(walk(jax.make_jaxpr(function)(*arguments).jaxpr))
