"""What tests of the model share."""

import jax
import jaxprs
import pytest


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

    def of(function, *arguments):
        return [found for found, _ in jaxprs.equations(jax.make_jaxpr(function)(*arguments).jaxpr)]

    return of
