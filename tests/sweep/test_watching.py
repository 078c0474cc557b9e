"""What is said of a sweep while it runs and when it has ended: names, times, what comes next."""

import argparse
import contextlib
import io
import shlex

import pytest
from rich.console import Console

from gpt_jax import cli
from gpt_jax.config import Config
from gpt_jax.sweep import launch, view
from gpt_jax.sweep.status import TrialProgress
from gpt_jax.sweep.store import Entry, SweepDirectory

SWEEP = """
from gpt_jax.config import *
from gpt_jax.sweep.grid import *
from gpt_jax.sweep.trial import make_trials

BASE = Config(data=DataConfig(source="text", path={path!r}, tokenizer="byte"),
              model=ModelConfig(vocab_size=257, d_model=16, n_heads=2, n_layers=1, seq_len=16))

def get_sweep():
    return make_trials(BASE, values("seed", {seeds}))
"""


def progress(name: str, share: float = 0.0, state: str = "running") -> TrialProgress:
    return TrialProgress(Entry(name, "", {}, None, Config()), state, share, 100.0)


@pytest.fixture(autouse=True)
def leave_this_process_alone(monkeypatch):
    monkeypatch.setattr(cli, "prepare_process", lambda: None)


def test_the_time_left_counts_neither_start_nor_compilation(monkeypatch):
    """50 s until the first of 100 steps is seen, then one a second: 90 s are left after ten more,
    not five times that."""
    now = [0.0]
    monkeypatch.setattr(view.time, "monotonic", lambda: now[0])
    clock = view.Clock([progress("a")])
    left = {}
    for second, share in ((20, 0.0), (50, 0.01), (55, 0.06), (60, 0.11)):
        now[0] = second
        left[second] = clock.seconds_left([progress("a", share)])
    assert left[20] is None
    assert left[50] is None
    assert left[55] == pytest.approx(94)
    assert left[60] == pytest.approx(89)


def test_names_on_a_terminal_keep_what_tells_trials_apart():
    names = [
        f"learning_rate=0.01,batch_sequences={b},weight_decay=0.1,d_model=256,seed={s}"
        for b in (16, 32)
        for s in (1, 2)
    ]
    trials = [progress(name, 0.5) for name in names]
    live = view.LiveView("runs/x", view.Clock(trials))
    console = Console(width=80, file=io.StringIO())
    live._live.console = console
    console.print(live._drawn(trials))
    shown = [line for line in console.file.getvalue().splitlines() if "50%" in line]
    begins = [line.split()[0] for line in shown]
    assert len(set(begins)) == 4, begins
    assert begins[0] == "batch_sequences=16,seed=1", "what all share is left out"
    assert "…" not in "".join(shown)


def test_what_went_wrong_is_taken_up_again_by_a_command_that_can_be_pasted(tmp_path):
    arguments = argparse.Namespace(
        sweep="my sweep.py", workdir=None, launcher="packed", rest=["--train.tokens", "64"], ray=[]
    )
    trials = [progress("a", state="failed"), progress("b", state="done"), progress("c", 1, "done")]
    found = launch._next(None, arguments, trials)
    assert [shlex.split(command)[1:] for command, _ in found] == [
        ["sweep", "report", "my sweep.py"],
        "sweep run|my sweep.py|--launcher packed --retry failed --train.tokens 64".replace(
            " ", "|"
        ).replace("my|sweep.py", "my sweep.py").split("|"),
    ]  # fmt: skip
    assert len(launch._next(None, arguments, trials[1:])) == 1


def test_trials_that_are_no_longer_in_the_file_are_told(tmp_path, monkeypatch, capsys):
    text = tmp_path / "text.txt"
    text.write_text("some text " * 100)
    file, runs = tmp_path / "mine.py", tmp_path / "runs"

    class Nobody(contextlib.nullcontext):
        def __init__(self, *_):
            super().__init__(self)

        def alive(self):
            return False

    monkeypatch.setattr(launch, "Workers", Nobody)
    file.write_text(SWEEP.format(path=str(text), seeds=[1, 2, 3]))
    command = ["sweep", "run", str(file), "--workdir", str(runs)]
    assert cli.main(command) == 0
    for entry in SweepDirectory.open(runs).entries:
        (runs / "trials" / entry.name).mkdir(parents=True)
    capsys.readouterr()
    file.write_text(SWEEP.format(path=str(text), seeds=[1, 2, 2]))
    assert cli.main(command) == 0
    said = capsys.readouterr().err
    assert "1 trial of 3 left out: an earlier one computes the same" in said
    assert f"left out: 1 trial of {runs}, no longer in {file} (first seed=3)" in said


@pytest.mark.parametrize(
    ("path", "changes", "said"),
    [
        ("text.txt", [], ""),
        ("nowhere.txt", [], "2 of 2 trials cannot be trained here (first seed=1): "),
        ("text.txt", ["--model.vocab_size", "256"], "257 ids, more than model.vocab_size = 256"),
        ("text.txt", ["--data.tokenizer", "bpe:300"], "300 ids, more than model.vocab_size = 257"),
    ],
)
def test_a_plan_looks_at_data_and_vocabulary(tmp_path, capsys, path, changes, said):
    (tmp_path / "text.txt").write_text("some text")
    file = tmp_path / "mine.py"
    file.write_text(SWEEP.format(path=str(tmp_path / path), seeds=[1, 2]))
    command = ["sweep", "plan", str(file), "--workdir", str(tmp_path / "runs"), "--chip", "h100"]
    assert cli.main([*command, *changes]) == 0
    warnings = [x for x in capsys.readouterr().out.splitlines() if "cannot be trained here" in x]
    assert len(warnings) == bool(said)
    assert said in "".join(warnings)
