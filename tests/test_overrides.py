"""Overrides read back what they show, refuse the rest in one line, and name what was meant.

The fingerprint is checked field by field, and every field must be read by some code.
"""

import ast
import dataclasses
import json
import typing
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_jax.config import Config, DataConfig, MixtureComponent, ModelConfig, overrides, wording
from gpt_jax.config.fields import setting

QUICK = settings(max_examples=50, deadline=None)
FIELDS = overrides.fields()
ONE_LINE = r"^[^\n]+$"

RAMP = {"train.ramp_from_sequences": 8, "train.ramp_tokens": 1000}
MIXTURE = {"data.source": "mixture", "data.mixture": [{"path": "a"}, {"path": "b", "weight": 2}]}
MUP = {"model.parametrization": "mup", "model.base_d_model": 64}
TASK = {"task.name": "classify", "task.train": "x.jsonl"}
IMAGES = {
    "task.name": "respond",
    "task.train": "x.jsonl",
    "task.images": "x.npy",
    "task.image_encoder": "convolution",
}
EXTENSION = str(Path(__file__).parent.parent / "configs" / "extensions" / "my_source.py")
SQLITE = {"extensions": [EXTENSION], "data.source": "sqlite", "data.path": "x"}
ROTARY = {"model.position": "rotary"}
LLAMA3 = ROTARY | {"model.rotary_scaling": "llama3", "model.rotary_trained_len": 64}
NOT_BY_TYPE: dict[str, dict[str, Any]] = {
    "extensions": {"extensions": [EXTENSION]},
    "data.options": SQLITE | {"data.options": {"column": "x"}},
    "model.norm": {"model.norm": "rmsnorm"},
    "model.activation": {"model.activation": "relu"},
    "model.position": {"model.position": "rotary"},
    "model.scores": {"model.scores": ["sinks", "soft_cap"]},
    "model.options": {
        "model.scores": ["soft_cap"],
        "model.options": {"soft_cap": {"cap": 30.0}},
    },
    "model.n_kv_heads": {"model.n_kv_heads": 4},
    "model.n_heads": {"model.n_heads": 6},
    "model.layer_pattern": {"model.layer_pattern": ["dense", "dense"]},
    "model.expert_gates": {"model.n_experts": 8, "model.expert_gates": "plain"},
    "model.biases": {"model.biases": ["qkv", "norm"]},
    "model.parallel_norms": {"model.parallel_block": True, "model.parallel_norms": "separate"},
    "model.qk_norm_over": {"model.qk_norm": True, "model.qk_norm_over": "heads"},
    "model.rotary_size": ROTARY | {"model.rotary_size": 16},
    "model.rotary_base_banded": ROTARY
    | {"model.layer_pattern": ["banded"], "model.window": 8, "model.rotary_base_banded": 500.0},
    "model.rotary_scaling": ROTARY | {"model.rotary_scaling": "linear"},
    "model.rotary_factor": ROTARY | {"model.rotary_scaling": "linear", "model.rotary_factor": 4.0},
    "model.rotary_amplitude": ROTARY | {"model.rotary_amplitude": 1.25},
    "model.rotary_trained_len": LLAMA3,
    "model.rotary_turns": LLAMA3 | {"model.rotary_turns": [2.0, 8.0]},
    "model.parametrization": MUP,
    "model.base_d_model": MUP,
    "model.base_n_layers": MUP | {"model.parametrization": "completep", "model.base_n_layers": 2},
    "model.base_head_size": MUP | {"model.base_head_size": 8},
    "train.ramp_from_sequences": RAMP,
    "train.ramp_tokens": RAMP,
    "data.source": {"data.source": "text", "data.path": "x"},
    "data.mixture": MIXTURE,
    "mesh.data": {"mesh.data": 4},
    "model.n_experts_per_token": {"model.n_experts": 8, "model.n_experts_per_token": 1},
    "model.expert_capacity_factor": {"model.n_experts": 8, "model.expert_capacity_factor": 1.25},
    **dict.fromkeys(("task.name", "task.train"), TASK),
    **{f"task.{name}": TASK | {f"task.{name}": "x"} for name in ("validation", "test")},
    "task.labels": TASK | {"task.labels": ["a", "b"]},
    "task.fields": TASK | {"task.fields": ["a"]},
    "task.metric": TASK | {"task.metric": "macro_f1"},
    "task.warmup": TASK | {"task.epochs": 2.0, "task.warmup": 0.1},
    "task.validations": TASK | {"task.epochs": 2.0, "task.validations": 2},
    "task.robustness": TASK | {"task.robustness": True},
    "task.adversarial": TASK | {"task.adversarial": "pgd"},
    "task.repeat": TASK | {"task.name": "tag", "task.repeat": True},
    "task.pack": TASK | {"task.name": "respond", "task.pack": True},
    **dict.fromkeys(("task.images", "task.image_encoder"), IMAGES),
    "task.image_shape": IMAGES | {"task.image_shape": [8, 8, 1]},
    "optimizer.name": {"optimizer.name": "lion"},
    "optimizer.options": {
        "optimizer.name": "normuon",
        "optimizer.options": {"neuron_decay": 0.9},
    },
    "train.objective": {"train.objective": "label_smoothing"},
    "train.options": {"train.objective": "label_smoothing", "train.options": {"share": 0.2}},
    "schedule.name": {"schedule.name": "wsd"},
    "schedule.options": {"schedule.name": "power", "schedule.options": {"exponent": 0.4}},
    "adapt.targets": {"adapt.targets": ["up"]},
    "adapt.train": {"adapt.method": "pattern", "adapt.train": [".*"]},
    "adapt.dropout": {"adapt.method": "lora", "adapt.dropout": 0.1},
    "adapt.initial_rank": {"adapt.initial_rank": 9},
    "checkpoint.keep_at_tokens": {"checkpoint.keep_at_tokens": [100, 200]},
}
"""Changes to fields that a value made from the type alone would leave inconsistent."""


def bare(annotation: Any) -> Any:
    """The type without its constraints and without `| None`."""
    if typing.get_origin(annotation) is typing.Annotated:
        return bare(typing.get_args(annotation)[0])
    if type(None) in typing.get_args(annotation):
        return bare(typing.get_args(annotation)[0])
    return annotation


def changed(key: str) -> Config:
    """The default config with another value in this field."""
    if key in NOT_BY_TYPE:
        return overrides.override(Config(), NOT_BY_TYPE[key])
    kind, default = bare(FIELDS[key].annotation), FIELDS[key].default
    if typing.get_origin(kind) is Literal:
        value: Any = next(x for x in typing.get_args(kind) if x != default)
    elif kind is bool:
        value = not default
    elif kind is int:
        value = 2 * (default or 8)
    elif kind is float:
        value = 0.5 if default is None else default / 2 or 0.25
    else:
        value = f"{default}-other"
    return overrides.override(Config(), {key: value})


# --- parsing and showing ------------------------------------------------------------------------


@pytest.mark.smoke
@pytest.mark.parametrize("key", FIELDS)
def test_what_is_shown_is_read_back(key):
    config, default = changed(key), overrides.flatten(Config())
    values = overrides.flatten(config)
    assert values[key] != default[key]
    shown = {k: wording.show(v) for k, v in values.items() if v != default[k]}
    assert overrides.override(Config(), shown) == config
    assert overrides.override(config, {k: wording.show(default[k]) for k in shown}) == Config()


@QUICK
@given(st.integers(1, 10**15))
def test_integers_in_any_notation_that_is_exact(n):
    for text in (str(n), f"{n}.0", f"{n:e}" if float(f"{n:e}") == n else str(n)):
        assert overrides.override(Config(), {"train.tokens": text}).train.tokens == n


@QUICK
@given(st.floats(1e-30, 1e30))
def test_floats_are_read_exactly(x):
    config = overrides.override(Config(), {"optimizer.learning_rate": repr(x)})
    assert config.optimizer.learning_rate == x


@QUICK
@given(st.text(max_size=30))
def test_text_is_taken_as_it_is(text):
    assert overrides.override(Config(), {"name": text}).name == text


@QUICK
@given(st.lists(st.sampled_from(["dense", "banded"]), min_size=1, max_size=6))
def test_lists_with_commas_or_as_json(pattern):
    for text in (",".join(pattern), json.dumps(pattern)):
        changes = {
            "model.layer_pattern": text,
            "model.window": "8",
            "model.n_layers": str(2 * len(pattern)),
        }
        assert overrides.override(Config(), changes).model.layer_pattern == tuple(pattern)


def test_none_booleans_and_scientific_notation():
    changes = {"optimizer.clip_norm": "none", "model.bias": "false", "train.tokens": "1e9"}
    config = overrides.override(Config(), changes)
    assert config.optimizer.clip_norm is None
    assert config.model.bias is False
    assert config.train.tokens == 10**9
    assert overrides.override(config, {"optimizer.clip_norm": "0.5"}).optimizer.clip_norm == 0.5


def test_command_line_forms_agree():
    for given_ in (
        ["--model.d-model", "96", "--tracking.wandb"],
        ["--model.d_model=96", "--tracking.wandb=true"],
        ["model.d_model=96", "tracking.wandb=true"],
    ):
        parsed = overrides.parse_arguments(given_)
        assert parsed == {"model.d_model": "96", "tracking.wandb": "true"}


# --- mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"model.d_modle": "3"},
            "unknown config key 'model.d_modle'; did you mean 'model.d_model'",
        ),
        ({"learning_rate": "3"}, "did you mean 'optimizer.learning_rate'"),
        ({"model": "3"}, "unknown config key 'model'"),
        ({"model.n_layers": "0"}, "model.n_layers = 0; allowed: integer > 0"),
        ({"model.n_layers": "1.5"}, "model.n_layers = 1.5; allowed: integer > 0"),
        ({"model.dropout_residual": "1"}, "model.dropout_residual = 1; allowed: number >= 0 < 1"),
        ({"optimizer.learning_rate": "nan"}, "optimizer.learning_rate = nan; allowed: number > 0"),
        ({"optimizer.learning_rate": "none"}, "optimizer.learning_rate = none; allowed: number"),
        ({"optimizer.name": "adamv"}, "optimizer.name = adamv; allowed: adafactor|adam|adamw|"),
        ({"optimizer.clip_norm": "-1"}, "clip_norm = -1; allowed: number > 0 or none"),
        ({"model.layer_pattern": "dense,sparse"}, "= sparse; allowed: banded|dense|nope|"),
        ({"tracking.wandb": "maybe"}, "tracking.wandb = maybe; allowed: true|false"),
        ({"model.d_model": 100, "model.n_heads": 3}, "model.d_model = 100 is not divisible"),
        ({"model.n_layers": -1}, "model.n_layers = -1; allowed: integer > 0"),
        ({"schedule.warmup_tokens": 10**12}, "schedule.warmup_tokens = 1,000,000,000,000 exceeds"),
        ({"train.batch_sequences": 6, "compute.microbatches": 4}, "a batch of 6 sequences"),
        ({"train.ramp_tokens": 10}, "train.ramp_from_sequences and train.ramp_tokens go together"),
        ({"data.source": "text"}, "data.source = text needs data.path"),
    ],
)
def test_mistakes_are_one_line_that_says_what_is_allowed(changes, said):
    with pytest.raises(ValueError, match=ONE_LINE) as caught:
        overrides.override(Config(), changes)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--optimizer.lr", "3"], "unknown config key 'optimizer.lr'"),
        (["--seed"], "--seed needs a value (integer >= 0)"),
        (["--seed", "--name", "x"], "--seed needs a value"),
        (["seed"], "unexpected argument 'seed'; overrides look like"),
    ],
)
def test_mistakes_on_the_command_line(arguments, said):
    with pytest.raises(ValueError, match=ONE_LINE) as caught:
        overrides.parse_arguments(arguments)
    assert said in str(caught.value)


def test_overrides_are_validated_together():
    both = {"model.d_model": "96", "model.n_heads": "3"}
    start = Config(model=ModelConfig(d_model=128, n_heads=4))
    with pytest.raises(ValueError, match="not divisible"):
        overrides.override(start, {"model.n_heads": "3"})
    for order in (both, dict(reversed(both.items()))):
        assert overrides.override(start, order).model.d_head == 32


# --- files --------------------------------------------------------------------------------------


def mixed() -> Config:
    components = (MixtureComponent(path="a", weight=0.25), MixtureComponent(path="b"))
    return Config(seed=3, data=DataConfig(source="mixture", mixture=components))


def test_json_round_trip(tmp_path):
    for config in (Config(), mixed()):
        text = json.dumps(overrides.to_dict(config))
        assert overrides.from_dict(json.loads(text)) == config
        for content in (text, json.dumps({"config": json.loads(text), "fingerprint": "x"})):
            path = tmp_path / "config.json"
            path.write_text(content)
            assert overrides.load(path) == config
            assert overrides.load(path, {"seed": "9"}) == dataclasses.replace(config, seed=9)


def test_a_saved_config_with_an_unknown_key_is_refused():
    tree = overrides.to_dict(Config())
    tree["model"]["d_modle"] = 3
    with pytest.raises(ValueError, match=r"'model.d_modle'; did you mean 'model.d_model'"):
        overrides.from_dict(tree)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("absent.py", None, "no config file"),
        ("tinny.py", None, "did you mean"),
        ("empty.py", "", "defines no get_config"),
        ("number.py", "def get_config():\n    return 3\n", "returned int, not a Config"),
        ("config.txt", "x", "is not a Python file"),
    ],
)
def test_files_that_hold_no_config(tmp_path, name, content, said):
    (tmp_path / "tiny.py").write_text("")
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=ONE_LINE) as caught:
        overrides.load(tmp_path / name)
    assert said in str(caught.value)


# --- fingerprint --------------------------------------------------------------------------------


@pytest.mark.parametrize("key", FIELDS)
def test_fingerprint_covers_what_is_computed_and_nothing_else(key):
    # A field that only changes together with others is judged by itself: from a base with them.
    others = {k: v for k, v in NOT_BY_TYPE.get(key, {}).items() if k != key}
    base, new = Config(), changed(key)
    differing = {k for k, v in overrides.flatten(new).items() if v != overrides.flatten(base)[k]}
    assert key in differing
    assert differing - {key} == others.keys()
    covered = overrides.fields()[key].facts.scope == "what"
    assert (overrides.fingerprint(new) != overrides.fingerprint(base)) == covered
    assert (key in overrides.differences(base, new)) == covered


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "f321c3e12513"),
        ({"model.n_experts": 4, "train.tokens": "9e8"}, "6fa9c3717042"),
        ({"data.unique_tokens": 7, "data.cache": "x"}, "d20a26c33cd9"),
    ],
)
def test_fingerprints_are_those_of_earlier_versions(changes, expected):
    """Computed by commit b5f30d3, before facts were declared beside fields."""
    assert overrides.fingerprint(overrides.override(Config(), changes)) == expected


def test_younger_fields_change_no_fingerprint_at_the_value_of_older_runs(monkeypatch):
    values = overrides.flatten(Config())
    younger = {key: info.neutral for key, info in FIELDS.items() if info.facts.added}
    assert {"base": "", "model.n_experts": None}.items() < younger.items()
    assert {key: values[key] for key in younger} == younger
    older = {key: value for key, value in values.items() if key not in younger}
    before = overrides.fingerprint(Config())
    monkeypatch.setattr(overrides, "flatten", lambda _: older)
    assert overrides.fingerprint(Config()) == before


def test_a_fact_that_does_not_exist_is_refused():
    with pytest.raises(TypeError, match="units"):
        setting(1, units="tokens")


# --- every field matters ------------------------------------------------------------------------


def test_every_field_is_read_somewhere(repository):
    """Read outside config.py, as `section.field` where two sections share the field's name; in the
    file of a section also as `self.field`."""
    package = repository / "gpt_jax"
    chains: set[tuple[str, str]] = set()
    for path in package.rglob("*.py"):
        chains |= attribute_chains(path, properties_only=path.name == "config.py")
    names = [key.rsplit(".", 1)[-1] for key in FIELDS]
    sections = {key.rsplit(".", 1)[0] for key in FIELDS if "." in key}
    unread = []
    for key in FIELDS:
        section, _, name = key.rpartition(".")
        owners = {owner for owner, attribute in chains if attribute == name}
        if names.count(name) > 1 and owners & sections:
            owners &= {section or "config"}
        if not owners:
            unread.append(key)
    assert not unread


def attribute_chains(path: Path, properties_only: bool) -> set[tuple[str, str]]:
    """(what it is an attribute of, attribute) for every attribute that the file reads."""
    tree: ast.AST = ast.parse(path.read_text())
    if properties_only:
        body = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef)
            and any(isinstance(d, ast.Name) and d.id == "property" for d in node.decorator_list)
        ]
        tree = ast.Module(body=list(body), type_ignores=[])
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            owner = node.value
            name = owner.attr if isinstance(owner, ast.Attribute) else ""
            name = owner.id if isinstance(owner, ast.Name) else name
            found.add((path.stem if name == "self" else name, node.attr))
    return found
