"""experiments/: READMEs say what their commands print, sweeps load, tasks are what they claim."""

import csv
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from gpt_jax.config import python_file
from gpt_jax.sweep.load import load_sweep

ROOT = Path(__file__).resolve().parent.parent
EXPERIMENTS = ROOT / "experiments"
READMES = sorted(p for p in EXPERIMENTS.glob("*/README.md") if "<!-- end -->" in p.read_text())
SWEEPS = sorted(p for p in EXPERIMENTS.glob("*/*.py") if "def get_sweep" in p.read_text())


def load(path: Path) -> ModuleType:
    return python_file.execute(path, "experiment")


@pytest.fixture(scope="module")
def readme_tables() -> ModuleType:
    return load(ROOT / "tools" / "readme_tables.py")


@pytest.mark.parametrize("path", READMES, ids=lambda p: p.parent.name)
def test_a_readme_says_what_its_commands_print(path, readme_tables):
    text = path.read_text()
    assert list(readme_tables.commands(text))
    for command, said in readme_tables.commands(text):
        assert said == readme_tables.printed(command), command


@pytest.mark.parametrize("path", SWEEPS, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_a_sweep_loads_and_all_of_it_can_be_trained(path, tmp_path, monkeypatch):
    if path.parent.name == "finetune":  # it needs a run, which a user may have in the checkout
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ValueError, match=r"runs/\w+ is not a run directory"):
            load_sweep(path, {})
        return
    _, trials = load_sweep(path, {})
    assert trials


def test_the_papers_have_their_folders():
    for paper in ("gpt1", "gpt2", "gpt3", "gpt4", "kaplan2020", "chinchilla"):
        assert (EXPERIMENTS / paper / "README.md") in READMES


def test_the_ladders_runs_are_its_sweeps():
    _, trials = load_sweep(EXPERIMENTS / "ladder" / "sweep.py", {})
    with (EXPERIMENTS / "ladder" / "runs.csv").open(newline="") as file:
        runs = {row["run"] for row in csv.DictReader(file) if row["state"] == "done"}
    assert {trial.name for trial in trials} == runs


def test_the_prediction_of_the_dearest_run_follows_from_cheap_runs():
    predict = load(EXPERIMENTS / "gpt4" / "predict.py")
    said = json.loads(predict.PREDICTION.read_text())
    runs = predict.read_runs(predict.RUNS)
    loss, fit = predict.predict(runs, said["flops"] / 1000, said["flops"])
    assert loss == pytest.approx(said["predicted_loss"], rel=1e-4)
    assert fit.runs["flops"].max() <= 1.01 * said["flops"] / 1000


@pytest.mark.parametrize("shots", [0, 3])
def test_the_best_guesser_of_the_ciphers_is_the_best(shots):
    tasks = load(EXPERIMENTS / "in_context" / "tasks.py")
    random, hits, n_items = np.random.default_rng(0), 0.0, 4000
    for _ in range(n_items):
        *shown, (letter, capital) = tasks.document(random, shots + 1)
        known = dict(shown)
        hidden = len(tasks.LETTERS) - len(known)
        hits += known[letter] == capital if letter in known else 1 / hidden
    assert hits / n_items == pytest.approx(tasks.best_accuracy(shots), abs=0.03)
    item = tasks.items(0, shots)[0]
    assert item.choices[0].isupper()
    assert item.context.count(" ") == shots
