"""What tests of the model share."""

import jax
import pytest


@pytest.fixture(scope="package", autouse=True)
def quick_compilation():
    """These tests compile much and compute little: leave out most of the compiler's passes."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="session")
def equations():
    """A function: the equations of a traced function, inner ones included."""

    def walk(jaxpr):
        for equation in jaxpr.eqns:
            yield equation
            for inner in jax.core.jaxprs_in_params(equation.params):
                yield from walk(inner)

    return lambda function, *arguments: list(walk(jax.make_jaxpr(function)(*arguments).jaxpr))
