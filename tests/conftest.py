"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine is not a failure.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

REPOSITORY = Path(__file__).resolve().parent.parent

# Tests compile many programs more than once, here and in the processes that they start.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(REPOSITORY / ".pytest_cache" / "compiled"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# And compute little: without most of XLA's passes all of them take two thirds of the time. With
# JAX_DISABLE_MOST_OPTIMIZATIONS=0 they run what users run; the smoke tests of .ci/run do.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout: configs/, experiments/ and README.md are there."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data for tests, or a skip: GPT_JAX_SHARED_DATA, else ../shared/data beside the clone."""
    path = Path(os.environ.get("GPT_JAX_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no shared data at {path} (set GPT_JAX_SHARED_DATA)")
    return path
