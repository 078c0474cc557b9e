"""Strategies that damage a JSON value somewhere inside."""

from typing import Any

from hypothesis import strategies as st

JUNK: st.SearchStrategy = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2**33),
    st.text(max_size=3),
    st.lists(st.integers(0, 3), max_size=2),
    st.just({}),
)


def changed(data: st.DataObject, value: Any) -> Any:
    """A JSON value with something somewhere in it gone, another or of another type."""
    if isinstance(value, dict | list) and value and data.draw(st.integers(0, 4)):
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = data.draw(st.sampled_from(keys))
        copy = value.copy()
        if data.draw(st.integers(0, 5)):
            copy[key] = changed(data, value[key])
        else:
            del copy[key]
        return copy
    return data.draw(JUNK)
