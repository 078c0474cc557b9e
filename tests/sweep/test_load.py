"""Reading sweep files: names, overrides, uniqueness, and mistakes in one line."""

import textwrap

import pytest

from gpt_jax.config import overrides
from gpt_jax.sweep.load import load_sweep, read_sweep

HEADER = """
import dataclasses
from gpt_jax.config import *
from gpt_jax.sweep.branches import wsd_branches
from gpt_jax.sweep.grid import *
from gpt_jax.sweep.trial import Trial, make_trials

BASE = Config(
    model=ModelConfig(vocab_size=256, seq_len=32, n_layers=2, d_model=32, n_heads=2),
    train=TrainConfig(tokens=10_240, batch_sequences=8),
)
"""


@pytest.fixture
def sweep_file(tmp_path):
    def write(body: str, name: str = "sweep.py", header: str = HEADER):
        directory = tmp_path / "learning_rates"
        directory.mkdir(exist_ok=True)
        path = directory / name
        path.write_text(header + textwrap.dedent(body))
        return path

    return write


GRID = """
def get_sweep():
    return make_trials(BASE, values("optimizer.learning_rate", [1e-2, 1e-3]))
"""


@pytest.mark.smoke
def test_the_directory_names_sweep_py_and_another_file_itself(sweep_file):
    path = sweep_file(GRID)
    name, trials = load_sweep(path, {})
    assert name == "learning_rates"
    assert [t.name for t in trials] == ["learning_rate=0.01", "learning_rate=0.001"]
    assert load_sweep(path.parent, {})[0] == "learning_rates"
    assert load_sweep(sweep_file(GRID, "mine.py"), {})[0] == "mine"


def test_overrides_apply_to_every_trial_and_trunk(sweep_file):
    body = """
    def get_sweep():
        yield from wsd_branches(BASE, seeds(2), [5120, 10240])
    """
    _, trials = load_sweep(sweep_file(body), {"optimizer.learning_rate": "2e-3"})
    assert len(trials) == 6
    for trial in trials:
        for config in (trial.config, trial.trunk or trial.config):
            assert config.optimizer.learning_rate == 2e-3
    prints = {overrides.fingerprint(t.config) for t in trials}
    assert all(overrides.fingerprint(t.trunk) in prints for t in trials if t.trunk)


def test_an_override_of_what_varies_leaves_one_trial(sweep_file):
    _, trials = load_sweep(sweep_file(GRID), {"optimizer.learning_rate": "0.5"})
    assert len(trials) == 1


def test_hand_made_trials_keep_their_names_where_they_can(sweep_file):
    body = """
    def get_sweep():
        def named(name, seed):
            return Trial(dataclasses.replace(BASE, name=name, seed=seed))
        yield from [named("first", 1), named("same", 2), named("same", 3), named("same", 3)]
        yield named("a/b", 4)
        yield from make_trials(BASE, values("seed", [5, 6]))
        yield from make_trials(dataclasses.replace(BASE, seed=7), values("model.n_layers", [2, 4]))
    """
    _, trials = load_sweep(sweep_file(body), {})
    names = [t.name for t in trials]
    assert names[0] == "first"
    assert [name.split("-")[0] for name in names[1:3]] == ["same", "same"]
    assert names[3:] == ["a_b", "seed=5", "seed=6", "n_layers=2", "n_layers=4"]
    assert len(set(names)) == len(names) == 8


INFEASIBLE = """
def get_sweep():
    return make_trials(BASE, values("model.d_model", [32, 33, 64, 65]))
"""


def test_infeasible_cells_are_listed_for_plans_and_refused_for_runs(sweep_file):
    path = sweep_file(INFEASIBLE)
    sweep = read_sweep(path, {})
    assert [t.name for t in sweep.trials] == ["d_model=32", "d_model=64"]
    assert [bad.name for bad in sweep.infeasible] == ["d_model=33", "d_model=65"]
    with pytest.raises(ValueError, match=r"^2 of 4 cells .* first model.d_model = 33: model.d_mo"):
        load_sweep(path, {})


def test_infeasible_cells_of_one_name_are_told_apart(sweep_file):
    body = """
    def get_sweep():
        for width in (32, 33, 35):
            yield from make_trials(BASE, values("model.d_model", [width]))
    """
    names = [bad.name for bad in read_sweep(sweep_file(body), {}).infeasible]
    assert names == ["model.d_model = 33", "model.d_model = 35"]


def test_an_override_can_make_cells_infeasible(sweep_file):
    sweep = read_sweep(sweep_file(GRID), {"model.d_model": "33"})
    assert not sweep.trials
    assert len(sweep.infeasible) == 2


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("x = 1", r"defines no get_sweep\(\)"),
        ("def get_sweep(): return 3", "returned int; need trials"),
        ("def get_sweep(): return [BASE]", "yields Config; need Trial"),
        ("def get_sweep(): return []", "yields no trials"),
        ("def get_sweep(): return make_trials(BASE, values('seeed', [1]))", "unknown config key"),
        (
            "def get_sweep(): return make_trials(BASE, [{'seed': 1, 'model.d_model': 33}])",
            "1 of 1 cells .* first seed = 1, model.d_model = 33: model.d_model = 33 is not div",
        ),
    ],
)
def test_mistakes_are_one_line(sweep_file, body, message):
    with pytest.raises(ValueError, match=message) as caught:
        load_sweep(sweep_file(body), {})
    assert "\n" not in str(caught.value)


def test_missing_and_foreign_files(sweep_file, tmp_path):
    with pytest.raises(ValueError, match="no sweep file"):
        load_sweep(tmp_path / "none.py", {})
    with pytest.raises(ValueError, match="is not a Python file"):
        load_sweep(sweep_file("", "sweep.txt", ""), {})
    path = sweep_file(GRID)
    with pytest.raises(ValueError, match="a sweep's trials name themselves"):
        load_sweep(path, {"name": "x"})
    with pytest.raises(ValueError, match=r"unknown config key 'model.depth'"):
        load_sweep(path, {"model.depth": "3"})
