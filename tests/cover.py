"""Parametrisations of which a part runs by default and all of it with the slow tests."""

import itertools
from collections.abc import Collection, Sequence
from typing import Any

import pytest


def covered(options: Sequence[Sequence[str]], default: Collection[tuple[str, ...]]) -> list[Any]:
    """The product of the options; all but the `default` combinations are marked slow.

    Each option has to be in a default combination, so that none is lost unnoticed.
    """
    product = list(itertools.product(*options))
    assert set(default) <= set(product)
    for kind, names in enumerate(options):
        assert {one[kind] for one in default} == set(names)
    return [
        pytest.param(*one, id="-".join(one), marks=() if one in default else pytest.mark.slow)
        for one in product
    ]
