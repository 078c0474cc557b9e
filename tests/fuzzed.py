"""How many mistakes the tests that draw mistakes draw."""

import os

from hypothesis import HealthCheck, settings


def mistakes(usual: int) -> settings:
    """Settings of a fuzz test: `usual` examples, or GPT_JAX_FUZZ_EXAMPLES where that is more."""
    n = max(usual, int(os.environ.get("GPT_JAX_FUZZ_EXAMPLES", "0")))
    return settings(max_examples=n, deadline=None, suppress_health_check=list(HealthCheck))
