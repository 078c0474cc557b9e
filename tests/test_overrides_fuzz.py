"""Configs and overrides at random: taken, or one line that names the field."""

import json
import os
import sys

import pytest
from fuzzed import mistakes
from hypothesis import example, given
from hypothesis import strategies as st

from gpt_jax import runtime
from gpt_jax.config import Config, overrides
from gpt_jax.storage.json_files import Damaged

KEYS = list(overrides.fields())
MANY = mistakes(300)
ODD = [
    "",
    "none",
    "nan",
    "-inf",
    "1e400",
    "9" * 5000,
    "[" * 50_000,
    "{}",
    '{"a":',
    "\n",
    "\0",
    "é\n\r",
]
TEXTS = st.one_of(
    st.sampled_from(ODD), st.text(max_size=20), st.integers().map(str), st.floats().map(repr)
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


def one_line(error: ValueError, *names: str) -> None:
    said = str(error)
    assert said
    assert said.isprintable(), said
    assert len(said) < 3000
    assert any(name in said for name in names), said


@MANY
@example({"task.train": "9" * 5000})
@example({"task.train": "\ud7fc"})  # which no terminal shows, in a message of a section's check
@given(st.dictionaries(st.sampled_from(KEYS), TEXTS, min_size=1, max_size=3))
def test_overrides_as_typed(changes):
    try:
        overrides.override(Config(), changes)
    except ValueError as error:
        sections = {part for key in KEYS for part in key.split(".")}
        one_line(error, *changes, *sections)


@MANY
@given(st.lists(st.one_of(TEXTS, st.sampled_from(KEYS).map(lambda key: f"--{key}")), max_size=4))
def test_arguments(arguments):
    try:
        overrides.parse_arguments(arguments)
    except ValueError as error:
        one_line(error, "config key", "unexpected argument", "needs a value")


@MANY
@given(st.sampled_from(KEYS), PLAIN)
def test_values_of_another_type_in_a_saved_config(key, value):
    tree = overrides.to_dict(Config())
    *parents, leaf = key.split(".")
    node = tree
    for parent in parents:
        node = node[parent]
    node[leaf] = value
    try:
        overrides.from_dict(tree)
    except ValueError as error:
        one_line(error, *key.split("."))


@mistakes(100)
@given(st.one_of(PLAIN.map(lambda x: json.dumps(x).encode()), st.binary(max_size=60)))
def test_saved_configs_that_are_none(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "fuzzed.json"
    path.write_bytes(content)
    try:
        overrides.load(path)
    except ValueError as error:
        one_line(error, str(path), "config key")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def get_config(:\n", "line 1: SyntaxError"),
        ("import nowhere_to_be_found\n", "line 1: ModuleNotFoundError: No module named"),
        ("\ndef get_config():\n    return Confg()\n", "line 3: NameError: name 'Confg'"),
        ("def get_config():\n    return get_config()\n", "RecursionError"),
        ("def get_config():\n    return 1 / 0\n", "line 2: ZeroDivisionError"),
        ("from gpt_jax.config import *\nModelConfig(d_modle=3)\n", "d_modle"),
    ],
)
def test_a_mistake_in_a_config_file_names_its_line(tmp_path, source, said):
    path = tmp_path / "c.py"
    path.write_text(source)
    with pytest.raises(ValueError, match=r".") as caught:
        overrides.load(path)
    assert said in str(caught.value)


def test_a_user_without_a_home_has_a_cache(monkeypatch):
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def unknown(_: int) -> None:
        raise KeyError("uid not found")

    import pwd

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert runtime.cache_directory().name == f"gpt_jax-{os.getuid()}"
    assert sys.platform


def test_deep_json_is_damage(tmp_path):
    path = tmp_path / "config.json"
    path.write_text("[" * 100_000)
    with pytest.raises(Damaged, match="cannot be read as JSON"):
        overrides.load(path)
