"""States and claims: what files say, who may work, and what many workers at once make of it."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gpt_jax.config import Config, overrides
from gpt_jax.runs.directory import RunDirectory
from gpt_jax.runs.history import read_history
from gpt_jax.storage import locks
from gpt_jax.storage.atomic import write_json
from gpt_jax.sweep import claims, status, worker
from gpt_jax.sweep.attempt import attempt
from gpt_jax.sweep.branches import wsd_branches
from gpt_jax.sweep.claims import live_claim
from gpt_jax.sweep.grid import values
from gpt_jax.sweep.store import SweepDirectory
from gpt_jax.sweep.table import gather
from gpt_jax.sweep.trial import Trial, make_trials


def rates(n: int = 3) -> list[Trial]:
    return make_trials(Config(), values("optimizer.learning_rate", [10.0**-i for i in range(n)]))


@pytest.fixture
def sweep(tmp_path) -> SweepDirectory:
    return SweepDirectory.create(tmp_path / "sweep", "rates", "rates.py", rates())


def put_result(sweep: SweepDirectory, name: str, fingerprint: str | None = None) -> None:
    run = sweep.run(name)
    run.path.mkdir(parents=True, exist_ok=True)
    write_json(run.result, {"fingerprint": fingerprint or sweep[name].fingerprint})


def test_a_sweep_reads_back_as_it_was_written(sweep):
    again = SweepDirectory.open(sweep.path)
    assert again.entries == sweep.entries
    assert [e.config for e in again.entries] == [t.config for t in rates()]
    assert [dict(e.varied) for e in again.entries] == [dict(t.varied) for t in rates()]


def test_where_no_sweep_was_begun(tmp_path):
    with pytest.raises(ValueError, match="holds no sweep"):
        SweepDirectory.open(tmp_path)


def test_states_follow_from_files(sweep):
    first, second, third = (entry.name for entry in sweep.entries)
    assert set(sweep.states().values()) == {"pending"}
    put_result(sweep, first)
    sweep.finish(second, "diverged", "loss nan")
    claim = sweep.claim(third)
    assert claim is not None
    assert sweep.states() == {first: "done", second: "diverged", third: "running"}
    claim.release()
    assert sweep.state(third) == "pending"
    assert [e.name for e in sweep.claimable()] == [third]
    assert [e.name for e in sweep.claimable(["diverged"])] == [second, third]
    outcome = sweep.outcome(second)
    assert outcome is not None
    assert (outcome["message"], outcome["attempts"]) == ("loss nan", 1)


def test_attempts_are_counted_and_done_has_no_outcome(sweep):
    name = sweep.entries[0].name
    sweep.finish(name, "preempted", "")
    sweep.finish(name, "failed", "")
    assert sweep.outcome(name)["attempts"] == 2
    put_result(sweep, name)
    assert sweep.outcome(name) is None
    assert sweep.state(name) == "done"


def test_a_result_of_another_config_is_no_result(sweep):
    name = sweep.entries[0].name
    put_result(sweep, name, "0" * 12)
    assert sweep.state(name) == "pending"


def test_a_claim_excludes_others_until_it_is_given_back(sweep):
    name = sweep.entries[0].name
    claim = sweep.claim(name)
    assert claim is not None
    assert claim.is_held()
    assert sweep.claim(name) is None
    claim.release()
    second = sweep.claim(name)
    assert second is not None
    assert second.number == claim.number + 1
    assert not claim.is_held()
    second.release()


def test_a_finished_trial_is_not_claimed(sweep):
    name = sweep.entries[0].name
    put_result(sweep, name)
    assert sweep.claim(name) is None


def hold(path: Path, name: str) -> subprocess.Popen[str]:
    """A process that claims a trial and sits on it."""
    program = (
        "import sys, time\n"
        "from gpt_jax.sweep.store import SweepDirectory\n"
        f"sweep = SweepDirectory.open({str(path)!r})\n"
        "sweep.identity = 'holder'\n"
        f"claim = sweep.claim({name!r})\n"
        "print(claim is not None, flush=True)\n"
        "time.sleep(600)\n"
    )
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)


def test_a_claim_dies_with_its_process(sweep):
    name = sweep.entries[0].name
    process = hold(sweep.path, name)
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    assert sweep.state(name) == "running"
    assert sweep.claim(name) is None
    assert sweep.claimed_by("holder") == [name]
    assert sweep.claimed_by(sweep.identity) == []
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert sweep.state(name) == "pending"
    claim = sweep.claim(name)
    assert claim is not None
    claim.release()


def test_a_claim_of_another_host_lives_by_its_heartbeat(sweep, monkeypatch):
    name = sweep.entries[0].name
    claim = sweep.claim(name)
    assert claim is not None
    claim.release()
    file = claim.directory / f"{claim.number + 1:06}"
    file.write_text(json.dumps({"host": "elsewhere", "pid": os.getpid(), "began": "1"}))
    assert sweep.state(name) == "running"
    old = time.time() - 2 * claims.STALE_SECONDS
    os.utime(file, (old, old))
    assert sweep.state(name) == "pending"


def test_a_paused_worker_keeps_its_claim(sweep, monkeypatch):
    """Its lock decides: not the name of its host, its number, or how long it was silent."""
    name = sweep.entries[0].name
    claim = sweep.claim(name)
    assert claim is not None
    file = claim.directory / f"{claim.number:06}"
    claim._released.set()  # it beats no more
    os.utime(file, (1.0, 1.0))
    for host, machine in (("same-name", "another kernel"), ("elsewhere", "elsewhere")):
        monkeypatch.setattr(claims.socket, "gethostname", lambda host=host: host)
        monkeypatch.setattr(claims, "_machine", lambda machine=machine: machine)
        assert sweep.state(name) == "running"
        assert sweep.claim(name) is None
    os.close(claim.descriptor)  # as the kernel does at its end
    assert sweep.state(name) == "pending"


def test_a_claim_without_a_lock_is_dead_on_its_machine_and_fresh_on_another(sweep, monkeypatch):
    name = sweep.entries[0].name
    claim = sweep.claim(name)
    assert claim is not None
    claim._released.set()
    os.close(claim.descriptor)
    assert sweep.state(name) == "pending"
    monkeypatch.setattr(claims, "_machine", lambda: "another")
    assert sweep.state(name) == "running"  # locks may not reach so far


def test_where_there_are_no_locks_a_claim_is_touched(sweep, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    name = sweep.entries[0].name
    claim = sweep.claim(name)
    assert claim is not None
    assert sweep.state(name) == "running"
    claim._released.set()
    os.utime(claim.directory / f"{claim.number:06}", (1.0, 1.0))
    assert sweep.state(name) == "pending"
    os.close(claim.descriptor)


def test_a_trial_that_somebody_trains_after_all_is_not_noted_failed(sweep, capsys):
    entry = sweep.entries[0]
    run = sweep.run(entry.name)

    def train(sweep, entries):
        with run.locked(), RunDirectory(run.path).locked():
            raise AssertionError("two hold one lock")

    def attempted(sweep, entries):
        return {entries[0].name: attempt(run.path, lambda: train(sweep, entries))}

    worker.work(sweep.only([entry.name]), attempted, worker.one_at_a_time)
    assert sweep.state(entry.name) == "pending"
    assert "another process is training in" in capsys.readouterr().out


DAMAGES = {
    "empty": "",
    "cut short": '{"fingerprint": "a',
    "foreign": '{"loss": 3}',
    "a list": "[1]",
    "no text": b"\xff\xfe\x00".decode("latin1"),
    "deep": "[" * 100_000,
    "a long number": "1" * 5000,
}


@pytest.mark.parametrize("content", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("file", ["result.json", "outcome.json", "config.json"])
def test_a_damaged_trial_is_named_and_the_others_go_on(sweep, tmp_path, content, file, capsys):
    first, second, third = (entry.name for entry in sweep.entries)
    put_result(sweep, second)
    path = sweep.run(first).path
    path.mkdir(parents=True)
    (path / file).write_text(content, encoding="latin1")
    again = SweepDirectory.create(sweep.path, "rates", "rates.py", rates())

    def train(sweep, entries):
        return {
            e.name: attempt(sweep.run(e.name).path, sweep.run(e.name).read_config) for e in entries
        }

    worker.work(again, train, worker.one_at_a_time)
    assert again.state(first) == "damaged"
    assert again.states()[second] == "done"
    outcome = again.outcome(first)
    assert outcome is not None
    assert str(path / file) in outcome["message"]
    assert "\n" not in outcome["message"]
    assert [e.name for e in again.claimable()] == [third]  # this training left no result
    assert again.claimable(["damaged"])[0].name == first
    shown = "\n".join(status.table(status.progress(again)))
    assert f"damaged: {first}: {path / file}" in shown
    (measured, *_) = gather(again)
    assert measured.state == "damaged"
    assert str(path / file) in measured.message


def test_a_damaged_sweep_file_is_one_line(sweep):
    for content in ("", "{}", '{"trials": [{"name": "a"}]}', "[]", '{"trials": 3}'):
        (sweep.path / "sweep.json").write_text(content)
        with pytest.raises(ValueError, match=r"sweep\.json is damaged"):
            SweepDirectory.open(sweep.path)


def test_a_foreign_line_of_metrics_is_damage(sweep):
    run = sweep.run(sweep.entries[0].name)
    run.path.mkdir(parents=True)
    for line in ('{"loss": 3}', "[]", '{"step": "x", "tokens": 1}', "[" * 100_000, "3"):
        run.metrics.write_text(f'{line}\n{{"step": 2, "tokens": 3}}\n')
        with pytest.raises(ValueError, match=r"metrics\.jsonl(, line|: record) 1 ") as caught:
            read_history(run.metrics)
        assert "\n" not in str(caught.value)
        assert gather(sweep)[0].state == "damaged"
        assert status.progress(sweep)[0].state == "pending"


def test_this_process_keeps_its_claim_alive(sweep, monkeypatch):
    monkeypatch.setattr(claims, "HEARTBEAT_SECONDS", 0.01)
    claim = sweep.claim(sweep.entries[0].name)
    assert claim is not None
    file = claim.directory / f"{claim.number:06}"
    os.utime(file, (1.0, 1.0))
    give_up = time.monotonic() + 10
    while file.stat().st_mtime == 1.0:
        assert time.monotonic() < give_up
        time.sleep(0.01)
    claim.release()


CLAIMER = """
import sys
from gpt_jax.sweep.store import SweepDirectory
sweep = SweepDirectory.open(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
won = [e.name for e in sweep.entries if sweep.claim(e.name) is not None]
print(" ".join(won), flush=True)
sys.stdin.readline()
"""


def test_of_many_processes_one_gets_each_trial(tmp_path):
    sweep = SweepDirectory.create(tmp_path / "sweep", "rates", "rates.py", rates(12))
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIMER, str(sweep.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for racer in racers:
        racer.stdout.readline()
    for racer in racers:
        racer.stdin.write("\n")
        racer.stdin.flush()
    won = [name for racer in racers for name in racer.stdout.readline().split()]
    assert sorted(won) == sorted(entry.name for entry in sweep.entries)
    for racer in racers:
        racer.communicate("\n", timeout=60)


# --- a sweep that is declared anew --------------------------------------------------------------


def test_a_run_follows_its_trial_to_a_new_name(sweep):
    before = sweep.entries[1]
    put_result(sweep, before.name)
    longer = make_trials(
        Config(), [{**dict(e.varied), "seed": s} for e in sweep.entries for s in (0, 1)]
    )
    renamed = SweepDirectory.create(sweep.path, "rates", "rates.py", longer)
    (same,) = [e for e in renamed.entries if e.fingerprint == before.fingerprint]
    assert same.name != before.name
    assert renamed.state(same.name) == "done"


def test_a_trial_that_was_run_under_another_config_is_refused(sweep):
    entry = sweep.entries[0]
    run = sweep.run(entry.name)
    run.write_config(overrides.override(entry.config, {"seed": 7}), {})
    with pytest.raises(ValueError, match=r"under another config \(seed was 7, is 0\)"):
        SweepDirectory.create(sweep.path, "rates", "rates.py", rates())


def test_work_may_be_limited_to_some_trials(sweep):
    name = sweep.entries[1].name
    assert [e.name for e in sweep.only([name]).claimable()] == [name]
    with pytest.raises(ValueError, match="did you mean"):
        sweep.only([name + "0"])


# --- branches -----------------------------------------------------------------------------------


def test_a_branch_waits_for_its_trunk_but_not_for_one_that_ended(tmp_path):
    base = overrides.override(Config(), {"train.batch_sequences": 4, "model.seq_len": 16})
    trials = wsd_branches(base, [{}], [6400, 12800], fraction=0.25)
    sweep = SweepDirectory.create(tmp_path / "sweep", "wsd", "wsd.py", trials)
    trunk, short, long = sweep.entries
    assert (trunk.trunk, short.trunk, long.trunk) == (None, trunk.fingerprint, trunk.fingerprint)
    assert [sweep.is_ready(e) for e in sweep.entries] == [True, False, False]
    step = 6400 * 3 // 4 // 64
    (sweep.run(trunk.name).checkpoints / str(step)).mkdir(parents=True)
    found = sweep.branch_step(short)
    assert found is not None
    assert (found[0].path, found[1]) == (sweep.run(trunk.name).path, step)
    assert [sweep.is_ready(e) for e in sweep.entries] == [True, True, False]
    sweep.finish(trunk.name, "failed", "")
    assert sweep.is_ready(long)
    assert live_claim(sweep.run(trunk.name).path / "claims") is None
