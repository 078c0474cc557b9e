"""What tests of other code bases' weights share."""

import jax
import pytest


@pytest.fixture
def quick_compilation():
    """These tests compile much and compute little: leave out most of the compiler's passes."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
