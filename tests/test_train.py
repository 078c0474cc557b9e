"""The real command: killed, interrupted, damaged and misused, it ends in the same run.

One reference run is trained uninterrupted; every other way there must give its very bits.
"""

import contextlib
import json
import math
import os
import random
import shlex
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from once import once
from tiny_run import (
    N_STEPS,
    RAMP_STEPS,
    Workspace,
    abstract_state,
    assert_same_state,
    last_step,
    make_workspace,
    records,
)

from gpt_jax import cli
from gpt_jax.config import overrides
from gpt_jax.config.timetable import make_timetable
from gpt_jax.cost import flops
from gpt_jax.data import Stream
from gpt_jax.evaluate.validation import validate
from gpt_jax.runs import checkpoint_files
from gpt_jax.runs.checkpoint import Checkpoints
from gpt_jax.runs.checkpoint_files import saved_steps
from gpt_jax.runs.directory import RunDirectory
from gpt_jax.runs.loading import load_run
from gpt_jax.runs.restoring import restore_params
from gpt_jax.runs.tracking import read_records
from gpt_jax.train import lanes as train_lanes
from gpt_jax.train import loop as train_loop
from gpt_jax.train.experiment import prepare


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    return Workspace(once(tmp_path_factory, "tiny_run", make_workspace))


@pytest.fixture
def reference(workspace) -> RunDirectory:
    return workspace.reference


@pytest.fixture
def here(workspace, monkeypatch) -> Any:
    """here(workdir, *arguments) -> status: the command in this process, with the shared caches."""
    for name, value in workspace.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(cli, "prepare_process", lambda: None)
    monkeypatch.setattr("gpt_jax.cost.cpu_speed.measured_cpu_peak", lambda dtype: 1e10)

    def train(workdir: Path, *arguments: str) -> int:
        return cli.main(
            ["train", str(workspace.config_file), "--workdir", str(workdir), *arguments]
        )

    return train


@pytest.fixture
def unfinished(reference, tmp_path) -> RunDirectory:
    """A copy of the reference run as if it was killed right before its result was written."""
    run = RunDirectory(shutil.copytree(reference.path, tmp_path / "run"))
    run.result.unlink()
    return run


def rewind(run: RunDirectory) -> int:
    """Drop the last checkpoint; returns the step of the one before."""
    steps = checkpoint_files.saved_steps(run.checkpoints)
    checkpoint_files.delete(run.checkpoints / str(steps[-1]))
    return steps[-2]


def final_state(workspace: Workspace, run: RunDirectory) -> Any:
    config = workspace.config()
    with contextlib.closing(Checkpoints(run.checkpoints, config)) as checkpoints:
        state, step = checkpoints.restore(abstract_state(config))
    assert step == N_STEPS
    return state


def assert_same_run(workspace: Workspace, run: RunDirectory) -> None:
    """Every record of the reference, once, and its state, bit for bit."""
    assert records(run) == records(workspace.reference)
    assert_same_state(final_state(workspace, run), final_state(workspace, workspace.reference))
    assert untimed_result(run) == untimed_result(workspace.reference)


def untimed_result(run: RunDirectory) -> dict[str, Any]:
    result = run.read_result()
    assert result is not None
    return {k: v for k, v in result.items() if k != "training_seconds"}


def one_line(captured) -> str:
    lines = captured.err.splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("gpt-jax: ")
    return lines[0]


# --- the reference run --------------------------------------------------------------------------


def test_every_step_is_recorded_once_and_the_loss_falls(workspace, reference):
    found = read_records(reference.metrics)
    steps = [r for r in found if "loss" in r]
    validations = [r for r in found if "validation_loss" in r]
    table = make_timetable(workspace.config())
    assert [r["step"] for r in steps] == list(range(1, N_STEPS + 1))
    assert [r["tokens"] for r in steps] == [table.tokens_before(r["step"]) for r in steps]
    due = table.due(2048)
    assert [r["step"] for r in validations] == [s for s in range(1, N_STEPS + 1) if due(s)]
    assert steps[0]["loss"] == pytest.approx(math.log(257), abs=0.3)
    assert steps[-1]["loss"] < steps[0]["loss"] - 1
    assert validations[-1]["validation_loss"] < math.log(257) - 1
    model = workspace.config().model
    for record in steps:
        assert record["flops"] == flops.training_flops_per_token(model, "exact") * record["tokens"]
        assert record["mfu"] > 0
        assert record["tokens_per_second"] > 0
    # The ramp: half a batch of target tokens in the first steps.
    targets = [r["target_tokens"] for r in steps]
    assert targets == [32.0] * RAMP_STEPS + [64.0] * (N_STEPS - RAMP_STEPS)


def test_result_and_config_hold_what_tables_need(workspace, reference):
    config, result = workspace.config(), reference.read_result()
    assert result is not None
    last = [r for r in read_records(reference.metrics) if "validation_loss" in r][-1]
    counts = flops.count_parameters(config.model)
    assert result["n_params"] == counts.n_params
    assert result["n_params_non_embedding"] == counts.n_params_non_embedding
    assert result["n_tokens"] == make_timetable(config).n_tokens
    assert result["n_steps"] == N_STEPS
    assert result["flops"] == flops.training_flops(config.model, result["n_tokens"], "exact")
    assert result["flops_6nd"] == flops.training_flops(config.model, result["n_tokens"], "6nd")
    assert result["validation_loss"] == last["validation_loss"]
    assert result["best_validation_loss"] <= result["validation_loss"]
    # The whole split at the end; max_sequences blocks while training.
    assert last["validation_tokens"] > 8 * 16
    assert result["fingerprint"] == overrides.fingerprint(config)
    assert overrides.from_dict(result["config"]) == config == reference.read_config()
    assert reference.loss_curve.read_bytes().startswith(b"\x89PNG")


def test_steps_handed_over_together_are_recorded_as_by_themselves(
    reference, here, tmp_path, monkeypatch
):
    """Calls of up to 7 steps end where a checkpoint or a validation is due or the batch grows."""
    sizes: list[int] = []
    put_count = train_lanes.put_count

    def counting(n: int, sharding: Any) -> jax.Array:
        sizes.append(n)
        return put_count(n, sharding)

    monkeypatch.setattr(train_lanes, "put_count", counting)
    assert here(tmp_path / "run", "--compute.steps_per_dispatch", "7") == 0
    ends = set(np.cumsum(sizes).tolist())
    assert max(sizes) == 7
    assert sum(sizes) == N_STEPS
    assert len(sizes) < N_STEPS / 3
    run = RunDirectory(tmp_path / "run")
    milestones = {r["step"] for r in records(run) if "validation_loss" in r}
    assert milestones | set(saved_steps(run.checkpoints)) | {RAMP_STEPS} <= ends
    ours, theirs = records(run), records(reference)
    assert [r["step"] for r in ours] == [r["step"] for r in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.keys() == other.keys()
        for name, value in mine.items():
            alike = value if isinstance(value, str) else pytest.approx(value, rel=1e-3)
            assert other[name] == alike, name


def test_what_is_printed(workspace):
    out, errors = (workspace.root / "stdout").read_text(), (workspace.root / "stderr").read_text()
    assert "validation loss" in out
    assert "bits per byte" in out
    assert "gpt-jax generate" in out
    assert "attention reference" in errors
    lines = [line for line in errors.splitlines() if line.startswith("step ")]
    assert 10 <= len(lines) <= 21, "about 20 lines where there is no terminal"
    assert "\x1b" not in errors


def test_the_moving_average_is_what_is_evaluated_and_loaded(workspace, reference, here, tmp_path):
    config = workspace.config()
    result = reference.read_result()
    assert result is not None
    experiment = prepare(config, RunDirectory(tmp_path))
    abstract = experiment.steps.abstract_state.params
    losses = {}
    for field in ("params", "ema"):
        params = restore_params(reference.checkpoints, abstract, field=field)
        split = experiment.data.validation_split
        found = validate(config, experiment.steps.evaluate, params, split, experiment.layout)
        losses[field] = found.loss
    assert losses["ema"] == result["validation_loss"]
    assert losses["params"] != losses["ema"]
    loaded_config, _, loaded, tokenizer = load_run(reference.path, "latest")
    assert loaded_config == config
    assert_same_state(loaded, restore_params(reference.checkpoints, abstract, field="ema"))
    assert tokenizer.decode(tokenizer.encode("a cat")) == "a cat"


# --- killed and interrupted ---------------------------------------------------------------------


def survive(workspace: Workspace, run: RunDirectory, signals: list[int], seed: int) -> None:
    """Train, in processes that get these signals at random moments along the run."""
    drawn = random.Random(seed)
    share = 0.8 * N_STEPS / len(signals)
    for i, number in enumerate(signals):
        target = int(share * (i + drawn.random())) + 1
        status, errors = workspace.train_and_stop(run.path, number, target, drawn.random() / 30)
        if number == signal.SIGKILL:
            assert status == -signal.SIGKILL
            continue
        assert status == 130, errors
        assert "saved: the same command continues" in errors
        assert "Traceback" not in errors
        saved = checkpoint_files.saved_steps(run.checkpoints)
        assert saved[-1] == last_step(run.path), "interrupted, nothing is lost"
    assert not run.result.exists()


def test_killed_and_interrupted_the_run_is_the_same(workspace, here, tmp_path, capsys):
    """The first kill falls into the batch-size ramp."""
    run, kill = RunDirectory(tmp_path / "run"), int(signal.SIGKILL)
    signals = [kill, int(signal.SIGTERM), kill, int(signal.SIGINT)]
    survive(workspace, run, signals, seed=0)
    assert here(run.path) == 0
    assert "continuing after step" in capsys.readouterr().err
    assert_same_run(workspace, run)


@pytest.mark.slow
def test_killed_twenty_times_the_run_is_the_same(workspace, here, tmp_path):
    run = RunDirectory(tmp_path / "run")
    survive(workspace, run, [int(signal.SIGKILL)] * 20, seed=1)
    assert here(run.path) == 0
    assert_same_run(workspace, run)


# --- run again ----------------------------------------------------------------------------------


def test_run_again_it_says_that_it_is_done(reference, here, capsys):
    before = reference.metrics.read_bytes()
    assert here(reference.path) == 0
    assert "is done" in capsys.readouterr().out
    assert reference.metrics.read_bytes() == before


def test_how_it_is_computed_may_change(reference, here, capsys):
    assert here(reference.path, "--checkpoint.keep_latest", "5") == 0
    assert "is done" in capsys.readouterr().out


def test_what_is_said_to_be_next_can_be_pasted(workspace, reference, here, capsys):
    """It repeats the settings that were given, and prompts with the run's own text."""
    assert here(reference.path, "--checkpoint.keep_latest", "5", "--name", "it's") == 0
    lines = capsys.readouterr().out.split("next:\n")[1].splitlines()
    asked, again, wider, settings = (shlex.split(line, comments=True)[1:] for line in lines[:4])
    run = ["train", str(workspace.config_file), "--workdir", str(reference.path)]
    assert again == [*run, "--checkpoint.keep_latest", "5", "--name", "it's"]
    assert wider[2:] == [
        "--checkpoint.keep_latest",
        "5",
        "--name",
        "wider",
        "--model.d_model",
        "32",
    ]
    assert settings == ["train", "--help", "all"]
    assert asked[:3] == ["generate", str(reference.path), "--prompt"]
    assert asked[3] in (workspace.root / "corpus.txt").read_text()
    assert len(asked[3].split()) == 3
    for words in (again, settings, [*wider, "--dry-run"], [*asked, "--max-new-tokens", "1"]):
        assert cli.main(words) == 0, words


def test_a_dry_run_checks_everything_and_leaves_nothing(reference, here, tmp_path, capsys):
    assert here(tmp_path / "new", "--dry-run") == 0
    said = capsys.readouterr().out
    assert "vocabulary 257 of model.vocab_size 257" in said
    assert "steps: 160, 9,600 tokens" in said
    assert said.endswith("all checks passed; nothing was trained\n")
    assert not (tmp_path / "new").exists()
    assert here(reference.path, "--dry-run") == 0
    assert f"run: {reference.path} is done" in capsys.readouterr().out
    for options, mistake in (
        (["--model.vocab_size", "256"], "257 ids, more than model.vocab_size = 256"),
        (["--base", str(tmp_path)], "is not a run directory"),
        (["--mesh.tensor", "3"], "mesh.tensor"),
    ):
        assert here(tmp_path / "new", "--dry-run", *options) == 2
        assert mistake in capsys.readouterr().err
    assert here(reference.path, "--dry-run", "--train.z_loss", "1e-4") == 2
    assert "belongs to another config" in capsys.readouterr().err


def test_another_config_is_refused_with_the_fields_that_differ(reference, here, capsys):
    changes = ["--optimizer.learning_rate", "0.5", "--train.z_loss", "1e-4"]
    assert here(reference.path, *changes) == 2
    said = one_line(capsys.readouterr())
    assert "optimizer.learning_rate was 0.03, is 0.5" in said
    assert "train.z_loss was 0.0, is 0.0001" in said
    assert "--resume-changed" in said
    assert "--base" in said


# --- damaged and misused ------------------------------------------------------------------------


def test_a_corrupt_checkpoint_is_named_and_the_one_before_is_used(
    workspace, unfinished, here, capsys
):
    """And, as few steps are left, a short profile is written all the same."""
    *_, before, latest = checkpoint_files.saved_steps(unfinished.checkpoints)
    arrays = unfinished.checkpoints / str(latest) / "state"
    victim = max((p for p in arrays.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    victim.write_bytes(victim.read_bytes()[:-10])
    assert here(unfinished.path, "--profile") == 0
    errors = capsys.readouterr().err
    assert f"{latest} is corrupt" in errors
    assert victim.name in errors
    assert f"continuing after step {before}" in errors
    assert_same_run(workspace, unfinished)
    assert list(unfinished.path.glob("profile/**/*.xplane.pb"))


def test_a_half_written_record_does_not_survive(workspace, unfinished, here):
    rewind(unfinished)
    with unfinished.metrics.open("a") as file:
        file.write('{"step": 161, "lo')
    assert here(unfinished.path) == 0
    assert_same_run(workspace, unfinished)


def test_a_file_in_the_place_of_the_run_directory(here, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert here(tmp_path / "file") == 2
    said = one_line(capsys.readouterr())
    assert "cannot write the run directory" in said
    assert "--workdir" in said


def test_two_processes_do_not_train_in_one_directory(here, tmp_path, capsys):
    with RunDirectory(tmp_path).locked():
        assert here(tmp_path) == 2
    assert "another process is training" in one_line(capsys.readouterr())


def test_a_tokenizer_with_more_ids_than_the_model(here, tmp_path, capsys):
    assert here(tmp_path, "--model.vocab_size", "256") == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "257 ids, more than model.vocab_size = 256" in said


# --- other ways to start ------------------------------------------------------------------------


def poisoned(step: int, monkeypatch, workspace: Workspace, n_steps: int = 1) -> None:
    """The batches of some steps, the first of them `step` (from 0), get a NaN for a loss."""
    table, batch = make_timetable(workspace.config()), Stream.batch
    bad = [table.samples_before(step + i) for i in range(n_steps)]

    def with_nan(self, first_sample, *arguments):
        made = batch(self, first_sample, *arguments)
        weights = made.weights_BT * (np.nan if first_sample in bad else 1)
        return made._replace(weights_BT=weights.astype(np.float32))

    monkeypatch.setattr(Stream, "batch", with_nan)


def test_a_bad_step_stops_the_run_and_names_what_went_wrong(
    workspace, here, tmp_path, capsys, monkeypatch
):
    poisoned(25, monkeypatch, workspace)
    assert here(tmp_path) == 3
    said = capsys.readouterr().err.splitlines()[-1]
    last_good = checkpoint_files.saved_steps(tmp_path / "checkpoints")[-1]
    first = make_timetable(workspace.config()).samples_before(25)
    assert "step 26 went wrong: loss nan" in said
    assert f"in samples {first} to {first + 3}" in said
    assert f"last good checkpoint: step {last_good} in" in said
    assert last_good < 26
    assert read_records(tmp_path / "metrics.jsonl")[-1]["bad"] is True
    assert not (tmp_path / "result.json").exists()


def test_resumed_with_a_change_and_a_bad_step_left_out(
    workspace, unfinished, here, capsys, monkeypatch
):
    done = rewind(unfinished)
    poisoned(done + 2, monkeypatch, workspace)
    change = ["--train.on_bad_step", "skip"]
    assert here(unfinished.path, *change) == 2
    assert "train.on_bad_step was stop, is skip" in one_line(capsys.readouterr())
    assert here(unfinished.path, *change, "--resume-changed") == 0
    errors = capsys.readouterr().err
    assert f"continuing after step {done}" in errors
    assert f"step {done + 3}: loss nan" in errors
    assert "update left out" in errors
    result, found = unfinished.read_result(), read_records(unfinished.metrics)
    assert result is not None
    assert math.isfinite(result["validation_loss"])
    assert [r["step"] for r in found if r.get("bad")] == [done + 3]
    assert [r["step"] for r in found if "loss" in r] == list(range(1, N_STEPS + 1))
    assert unfinished.read_config() == workspace.config(train__on_bad_step="skip")
    assert result["n_steps_left_out"] == 1
    assert f"1 of {N_STEPS} updates were left out" in errors


def test_steps_left_out_in_a_row_end_the_run(workspace, here, tmp_path, capsys, monkeypatch):
    """49 are passed over, at the 50th it is an error; what was skipped before a resume counts."""
    poisoned(21, monkeypatch, workspace, 49)
    poisoned(80, monkeypatch, workspace, 60)
    assert here(tmp_path, "--train.on_bad_step", "skip") == 3
    said = capsys.readouterr().err.splitlines()[-1]
    assert "steps 81 to 130 were all left out, the last: loss nan" in said
    assert "last good checkpoint: step 12" in said
    assert not (tmp_path / "result.json").exists()


def test_records_lost_in_a_power_cut_are_made_again(workspace, unfinished, here, monkeypatch):
    """The latest checkpoint is newer than the records: the one before them is taken. And all that
    with nobody reading what is said."""
    earlier, latest = checkpoint_files.saved_steps(unfinished.checkpoints)[-2:]
    lines = unfinished.metrics.read_text().splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line)["step"] < latest - 1]
    unfinished.metrics.write_text("".join(kept) + kept[-1][:20])
    assert earlier <= json.loads(kept[-1])["step"] < latest
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as nobody:
        monkeypatch.setattr(sys, "stderr", nobody)
        assert here(unfinished.path) == 0
    assert_same_run(workspace, unfinished)


def test_records_that_no_checkpoint_comes_before_are_missed(unfinished, here, capsys):
    rewind(unfinished)
    lines = unfinished.metrics.read_text().splitlines(keepends=True)
    unfinished.metrics.write_text("".join(lines[:4] + lines[5:]))
    assert here(unfinished.path) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "metrics.jsonl lacks the record of step 5" in said
    assert unfinished.read_result() is None


def test_a_warm_start_takes_over_the_parameters_and_nothing_else(reference, here, tmp_path):
    start = ["--base", str(reference.path), "--profile"]
    assert here(tmp_path / "warm", *start) == 0
    warm, cold = records(RunDirectory(tmp_path / "warm")), records(reference)
    assert [r["step"] for r in warm] == [r["step"] for r in cold]
    assert [r["learning_rate"] for r in warm if "loss" in r] == [
        r["learning_rate"] for r in cold if "loss" in r
    ]
    assert warm[0]["loss"] < cold[0]["loss"] - 1
    assert warm[0]["loss"] == pytest.approx(cold[-2]["loss"], abs=0.7)
    assert list(tmp_path.glob("warm/profile/**/*.xplane.pb"))


def test_a_warm_start_from_another_model_is_refused(reference, here, tmp_path, capsys):
    start = ["--base", str(reference.path), "--model.ffn_size", "32"]
    assert here(tmp_path / "other", *start) == 2
    assert "of another architecture: model.ffn_size" in capsys.readouterr().err.splitlines()[-1]


def test_a_finished_run_goes_on_when_told_that_it_is_longer_now(reference, here, tmp_path):
    run = RunDirectory(shutil.copytree(reference.path, tmp_path / "longer"))
    longer = ["--train.tokens", str(reference.read_result()["n_tokens"] + 3 * 4 * 16)]
    assert here(run.path, *longer) == 2
    assert run.read_result() == reference.read_result()
    assert here(run.path, *longer, "--resume-changed") == 0
    assert run.read_result()["n_steps"] == N_STEPS + 3
    steps = [r["step"] for r in read_records(run.metrics) if "loss" in r]
    assert steps == list(range(1, N_STEPS + 4))


def test_what_is_kept_follows_from_what_was_done(here, tmp_path):
    """320 tokens are there after step 10 (2 sequences of 16 each), 1,280 after 30; 6 more steps of
    128 make 2,048, and 20 more 3,840."""
    run = RunDirectory(tmp_path / "run")
    kept = ["--checkpoint.keep_at_tokens", "[320, 2048]", "--checkpoint.keep_best", "0"]
    kept += ["--checkpoint.keep_latest", "1", "--checkpoint.every_tokens", "0"]
    assert here(run.path, *kept, "--train.tokens", "1280") == 0
    assert saved_steps(run.checkpoints) == [10, 30]
    larger = ["--train.batch_sequences", "8", "--train.tokens", "3840", "--resume-changed"]
    assert here(run.path, *kept, *larger) == 0
    assert saved_steps(run.checkpoints) == [10, 36, 50]


def test_a_run_does_not_continue_on_another_corpus(unfinished, here, capsys):
    facts = unfinished.read_facts()
    unfinished.config.write_text(json.dumps({**facts, "data": ["of another text"]}))
    assert here(unfinished.path) == 2
    assert "the corpus has changed" in capsys.readouterr().err
    assert unfinished.read_result() is None


def test_a_closed_terminal_stops_a_run_as_ctrl_c_does_unless_it_is_ignored():
    kept = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with train_loop.stop_signals() as received:
            os.kill(os.getpid(), signal.SIGHUP)
        assert received == [signal.SIGHUP]
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with train_loop.stop_signals() as received:  # under nohup
            os.kill(os.getpid(), signal.SIGHUP)
        assert received == []
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, kept)
