"""What a run writes: records that survive kills, mirrors that agree with them, what one sees."""

import errno
import fcntl
import json
import math
import os
import pty
import struct
import subprocess
import sys
import termios
import time
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_jax import failures
from gpt_jax.config import Config, overrides
from gpt_jax.errors import WriteFailed
from gpt_jax.output import say
from gpt_jax.runs.history import History
from gpt_jax.runs.mirrors import (
    TensorBoardMirror,
    WandbMirror,
    make_mirrors,
    wandb_run_id,
)
from gpt_jax.runs.tracking import (
    MetricsLog,
    Progress,
    ProgressReport,
    code_commit,
    draw_loss_curve,
    finite,
    format_seconds,
    provenance,
    read_records,
)
from gpt_jax.storage.atomic import write_json


class Listener:
    """A mirror that remembers."""

    def __init__(self):
        self.records, self.finished = [], None

    def log(self, record):
        self.records.append(record)

    def close(self, finished):
        self.finished = finished


def record(step: int) -> dict:
    return {"step": step, "tokens": 10 * step, "loss": 5 / step}


# --- metrics.jsonl ------------------------------------------------------------------------------


@pytest.mark.smoke
def test_records_are_on_disk_at_once_and_told_to_mirrors(tmp_path):
    listener = Listener()
    log = MetricsLog(tmp_path / "metrics.jsonl", 0, [listener])
    for step in (1, 2):
        log.log(record(step))
        assert read_records(tmp_path / "metrics.jsonl")[-1] == record(step)
    log.close(finished=True)
    assert listener.records == [record(1), record(2)]
    assert listener.finished is True


def test_resuming_drops_what_is_computed_again(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, 0)
    for step in range(1, 8):
        log.log(record(step))
    log.close(finished=False)
    with path.open("a") as file:
        file.write('{"step": 8, "lo')
    log = MetricsLog(path, 5)
    assert list(log.history.losses) == [5 / step for step in (1, 2, 3, 4, 5)]
    log.log(record(6))
    log.close(finished=False)
    assert [r["step"] for r in read_records(path)] == [1, 2, 3, 4, 5, 6]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=5), st.data())
def test_a_file_cut_anywhere_in_its_last_line_is_read(tmp_path_factory, steps, data):
    path = tmp_path_factory.mktemp("cut") / "metrics.jsonl"
    whole = "".join(json.dumps({"step": step, "loss": 1.5}) + "\n" for step in steps)
    last = len(json.dumps({"step": steps[-1], "loss": 1.5})) + 1
    cut = data.draw(st.integers(0, last))
    path.write_text(whole[: len(whole) - cut])
    # Without its line's end a record may be whole all the same.
    kept = steps if cut <= 1 else steps[:-1]
    assert [r["step"] for r in read_records(path)] == kept


def test_damage_in_the_middle_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2 is not JSON"):
        read_records(path)
    assert read_records(tmp_path / "absent.jsonl") == []


def test_what_is_not_finite_is_valid_json(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl", 0)
    log.log({"step": 1, **finite({"loss": math.nan, "norm": math.inf, "rate": 0.5})})
    text = (tmp_path / "metrics.jsonl").read_text()
    assert "NaN" not in text
    assert json.loads(text) == {"step": 1, "loss": "nan", "norm": "inf", "rate": 0.5}


def test_json_is_replaced_at_once(tmp_path, monkeypatch):
    write_json(tmp_path / "result.json", {"loss": 1})

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_json(tmp_path / "result.json", {"loss": 2})
    assert json.loads((tmp_path / "result.json").read_text()) == {"loss": 1}


def test_provenance_names_versions_and_commit(repository):
    found = provenance()
    assert {"jax", "flax", "gpt-jax"} <= found["versions"].keys()
    if (repository / ".git").exists():
        git = ["git", "-C", str(repository), "rev-parse", "--short=12", "HEAD"]
        head = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
        assert (code_commit() or "").rstrip("+") == head


# --- mirrors ------------------------------------------------------------------------------------


def test_tensorboard_event_files_hold_the_records(tmp_path):
    pytest.importorskip("tensorboardX", reason="tensorboardX is an extra")
    from tensorboardX.proto.event_pb2 import Event

    mirror = TensorBoardMirror(tmp_path)
    for step in (1, 2, 3):
        mirror.log({**record(step), "bad": "nan"})
    mirror.close(finished=True)
    (file,) = tmp_path.glob("events.out.tfevents.*")
    curves: dict[str, list[tuple[int, float]]] = defaultdict(list)
    content = file.read_bytes()
    while content:
        # TFRecord: length (8 bytes), its checksum (4), data, checksum of the data (4).
        (length,) = struct.unpack("<Q", content[:8])
        event = Event.FromString(content[12 : 12 + length])
        content = content[16 + length :]
        for value in event.summary.value:
            curves[value.tag].append((event.step, value.simple_value))
    assert set(curves) == {"tokens", "loss"}
    assert curves["loss"] == [(s, pytest.approx(5 / s)) for s in (1, 2, 3)]


def test_wandb_run_ids_belong_to_a_directory(tmp_path):
    """Two runs of one config are two pages; each is continued, also when its config changes."""
    config = overrides.override(Config(), {"name": "my run/1"})
    one, two = (wandb_run_id(config, tmp_path / name) for name in ("one", "two"))
    assert one != two
    assert one.startswith("my-run-1-")
    changed = overrides.override(config, {"seed": 3})
    assert wandb_run_id(changed, tmp_path / "one") == one
    long = wandb_run_id(overrides.override(config, {"name": "x" * 300}), tmp_path / "long")
    assert len(long) <= 128


def test_a_wandb_run_of_an_earlier_version_keeps_its_id(tmp_path):
    config = overrides.override(Config(), {"name": "old"})
    old = f"old-{overrides.fingerprint(config)}"
    (tmp_path / "wandb" / f"offline-run-20260101_000000-{old}").mkdir(parents=True)
    assert wandb_run_id(config, tmp_path) == old


def test_wandb_offline_run(tmp_path, monkeypatch):
    """A real one: the same id when it is resumed, and the records inside."""
    pytest.importorskip("wandb", reason="wandb is an extra")
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    config = overrides.override(Config(), {"name": "tiny", "tracking.wandb": True})
    mirror = WandbMirror(config, tmp_path)
    for step in (1, 2):
        mirror.log({**record(step), "remarkable_key": 1})
    mirror.close(finished=True)
    (directory,) = tmp_path.glob("wandb/offline-run-*")
    assert directory.name.endswith(wandb_run_id(config, tmp_path))
    (file,) = directory.glob("*.wandb")
    give_up = time.monotonic() + 60  # wandb writes it in a process of its own
    while b"remarkable_key" not in (content := file.read_bytes()) and time.monotonic() < give_up:
        time.sleep(0.1)
    assert b"remarkable_key" in content
    assert b"optimizer.learning_rate" in content


def test_mirrors_are_those_that_the_config_asks_for(tmp_path):
    assert make_mirrors(Config(), tmp_path) == []
    pytest.importorskip("tensorboardX", reason="tensorboardX is an extra")
    config = overrides.override(Config(), {"tracking.tensorboard": True})
    (mirror,) = make_mirrors(config, tmp_path)
    assert isinstance(mirror, TensorBoardMirror)
    mirror.close(finished=False)
    assert (tmp_path / "tensorboard").is_dir()


@pytest.mark.parametrize(
    ("module", "key", "extra"),
    [("wandb", "tracking.wandb", "wandb"), ("tensorboardX", "tracking.tensorboard", "tensorboard")],
)
def test_a_mirror_that_is_not_installed_names_the_extra(tmp_path, monkeypatch, module, key, extra):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=rf"pip install 'gpt-jax\[{extra}\]'"):
        make_mirrors(overrides.override(Config(), {key: True}), tmp_path)


# --- what one sees ------------------------------------------------------------------------------

REPORT = """
import time
from gpt_jax.runs.tracking import Progress, ProgressReport

report = ProgressReport(40, 0, lambda step: step % 10 == 0 or step == 40)
report.say("starting [now]")
for step in range(1, 41):
    report.update(Progress(step, 40, 5 / step, 1234.0, 0.25, 40.0 - step, 2.5))
    time.sleep(0.01)
report.close()
"""


def test_plain_lines_where_there_is_no_terminal():
    output = subprocess.run(
        [sys.executable, "-c", REPORT], capture_output=True, text=True, check=True
    )
    assert output.stdout == ""
    lines = output.stderr.splitlines()
    assert lines[0] == "starting [now]"
    assert lines[1:] == [
        f"step {s}/40  loss {5 / s:.4f}  1,234 tokens/s  MFU 25%  validation 2.5000  "
        f"ETA 0:{40 - s:02}"
        for s in (10, 20, 30, 40)
    ]


def test_a_bar_on_a_terminal():
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 160, 0, 0))
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "160"}
    process = subprocess.Popen([sys.executable, "-c", REPORT], stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    while True:
        try:
            chunk = os.read(ours, 4096)
        except OSError:  # Linux: the other side is closed
            break
        if not chunk:
            break
        shown += chunk
    os.close(ours)
    assert process.wait() == 0
    text = shown.decode()
    assert "\x1b[" in text
    assert "starting [now]" in text
    assert "step 40/40" in text
    assert "1,234 tokens/s  MFU 25%" in text
    assert "━" in text


def test_a_report_of_an_unknown_device_has_no_mfu():
    text = Progress(1, 2, 3.0, 10.0, None, 3725.0).text()
    assert text == "loss 3.0000  10 tokens/s  ETA 1:02:05"


@given(st.floats(0, 1e6))
def test_seconds_read_back(seconds):
    *hours, minutes, rest = format_seconds(seconds).split(":")
    assert int(hours[0] if hours else 0) * 3600 + int(minutes) * 60 + int(rest) == round(seconds)


def test_the_loss_curve_is_drawn(tmp_path):
    from matplotlib import image

    path = tmp_path / "loss.png"
    records = [{"step": s, "tokens": 64 * s, "loss": 5 - s / 50} for s in range(1, 101)]
    history = History()
    draw_loss_curve(history, path, "empty")
    empty = image.imread(path)
    for found in records:
        history.add(found)
    draw_loss_curve(history, path, "training")
    curve = image.imread(path)
    validation = [{"step": 100, "tokens": 6400, "validation_loss": 3.1}]
    # A loss that is not finite is a string in the records.
    spoiled = [{"step": 101, "tokens": 6464, "loss": "nan"}]
    for found in [*validation, *spoiled]:
        history.add(found)
    draw_loss_curve(history, path, "training")
    both = image.imread(path)
    assert empty.shape == curve.shape == both.shape == (480, 840, 4)
    assert (empty != curve).any()
    assert (curve != both).any()
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture(params=["broken pipe", "full", "closed", "none"])
def lost_stderr(request, monkeypatch):
    """stderr whose reader is gone, whose disk is full, that was closed, or never there."""
    if request.param == "none":
        monkeypatch.setattr(sys, "stderr", None)
        yield
        return
    reader, writer = os.pipe()
    os.close(reader)
    full = request.param == "full"
    stream = open("/dev/full", "w") if full else open(writer, "w")  # noqa: SIM115
    if request.param == "closed":
        stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    yield
    stream.close()  # nothing is left in its buffer that would fail now


def test_nobody_watching_is_no_error(lost_stderr):
    report = ProgressReport(2, 0, lambda step: True)
    for step in (1, 2):
        report.update(Progress(step, 2, 3.0, 10.0, None, 1.0))
    report.close()
    say("done")


def test_a_full_disk_is_named_where_records_are_written(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, 0)
    log._file = open("/dev/full", "w", buffering=1)  # noqa: SIM115
    with pytest.raises(OSError, match=r"cannot write .*metrics\.jsonl: No space left on device"):
        log.log(record(1))


def test_a_report_only_draws_where_stderr_is_a_terminal(capsys):
    report = ProgressReport(2, 0, lambda step: False)
    report.update(Progress(1, 2, 3.0, 10.0, None, 1.0))
    report.close()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_is_one_line_and_the_old_text_stays(tmp_path, monkeypatch, call, code):
    path = tmp_path / "result.json"
    write_json(path, {"a": 1})

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    place = {"open": "builtins.open"}.get(call, f"gpt_jax.runs.tracking.os.{call}")
    monkeypatch.setattr(place, fail)
    with pytest.raises(WriteFailed) as caught:
        write_json(path, {"a": 2})
    monkeypatch.undo()
    assert str(caught.value) == f"cannot write {path}: {os.strerror(code)}"
    assert failures.tell(caught.value) == (failures.DISK, str(caught.value))
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]
