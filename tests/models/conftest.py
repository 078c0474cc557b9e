"""What tests of the model share."""

import jax
import jaxprs
import pytest


@pytest.fixture(scope="session")
def equations():
    """A function: the equations of a traced function, inner ones included."""

    def of(function, *arguments):
        return [found for found, _ in jaxprs.equations(jax.make_jaxpr(function)(*arguments).jaxpr)]

    return of
