"""metrics.jsonl read one record at a time: what is kept of it, what is missing, where it is cut."""

import json
import tracemalloc
from pathlib import Path

import pytest

from gpt_jax.runs.history import (
    copy_until,
    iterate_metrics,
    keep_until,
    read_history,
    read_records,
    steps_after_tokens,
    steps_recorded,
)
from gpt_jax.train.resume import whole_steps


def of_step(step: int, **more) -> dict:
    """As long as a real one."""
    names = ("z_loss", "learning_rate", "gradient_norm", "update_norm", "parameter_norm", "flops")
    record = {"step": step, "tokens": 64 * step, "loss": 5 / step}
    record |= dict.fromkeys(names, step / 7)
    return record | {"tokens_per_second": 1e5 / 3, "step_seconds": 0.5} | more


def of_validation(step: int) -> dict:
    return {"step": step, "tokens": 64 * step, "validation_loss": 3.5}


def write(path: Path, records: list[dict], end: str = "\n") -> Path:
    path.write_text("\n".join(json.dumps(record) for record in records) + end)
    return path


@pytest.mark.smoke
def test_what_is_kept_of_records(tmp_path):
    records = [of_step(1), of_step(2, bad=True, loss="nan"), of_step(3, bad=True), of_step(4)]
    records += [of_validation(4), of_step(5, bad=True), of_step(6, bad=True)]
    path = write(tmp_path / "metrics.jsonl", records)
    history = read_history(path)
    assert list(history.tokens) == [64, 192, 256, 320, 384]
    assert list(history.losses) == [5, 5 / 3, 5 / 4, 1, 5 / 6]
    assert history.validations == [of_validation(4)]
    assert history.train_loss == 5 / 6
    assert history.training_seconds == 3.0
    assert (history.n_left_out, history.left_out_in_a_row) == (4, 2)
    assert read_history(path, 4).n_left_out == 2
    assert read_history(path, 4).left_out_in_a_row == 0
    assert len(read_history(path, 4).validations) == 1
    assert read_history(tmp_path / "absent").train_loss is None


def test_the_step_after_so_many_tokens(tmp_path):
    path = write(tmp_path / "metrics.jsonl", [of_step(step) for step in range(1, 7)])
    assert steps_after_tokens(path, [200, 64, 65, 10_000], 6) == {64: 1, 65: 2, 200: 4}
    assert steps_after_tokens(path, [200], 3) == {}
    assert steps_after_tokens(tmp_path / "absent", [200], 3) == {}


def test_memory_does_not_hold_the_records(tmp_path):
    """5,000 records of 400 bytes: 16 bytes of each are kept, and no more is held meanwhile."""
    path = write(tmp_path / "metrics.jsonl", [of_step(step) for step in range(1, 5001)])
    peaks = []
    for _ in range(3):  # threads that other tests left behind may allocate meanwhile
        tracemalloc.start()
        try:
            history = read_history(path)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    peak = min(peaks)
    assert len(history.losses) == 5000
    assert peak < path.stat().st_size / 4
    assert peak < 5000 * 60


def test_steps_are_counted_up_to_the_first_that_is_missing(tmp_path):
    path = tmp_path / "metrics.jsonl"
    steps = [of_step(step) for step in range(1, 11)]
    with_validation = [*steps[:4], of_validation(4), *steps[4:]]
    assert steps_recorded(write(path, with_validation)) == 10
    assert steps_recorded(write(path, [*steps[:4], *steps[6:]])) == 4
    assert steps_recorded(write(path, [*steps[:4], *steps[3:]])) == 4, "a step twice"
    assert steps_recorded(write(path, steps[1:])) == 0
    assert steps_recorded(tmp_path / "absent") == 0
    text = write(path, steps).read_bytes()
    path.write_bytes(text[:-20])
    assert steps_recorded(path) == 9, "the last line is cut short"
    path.write_bytes(text[:-20] + bytes(4000))
    assert steps_recorded(path) == 9, "as a power cut leaves it"


def test_a_run_goes_back_before_what_is_missing_or_is_refused(tmp_path):
    path = write(tmp_path / "metrics.jsonl", [of_step(step) for step in range(1, 8)])
    assert whole_steps(tmp_path, path, [3, 6, 7]) == [3, 6, 7]
    assert whole_steps(tmp_path, path, [3, 6, 9]) == [3, 6]
    with pytest.raises(ValueError, match=r"lacks the record of step 8, .* that of step 9: restore"):
        whole_steps(tmp_path, path, [9, 12])


@pytest.mark.parametrize("end", ["\n", "", '\n{"step": 7, "lo', "\n" + "\0" * 99])
def test_what_is_computed_again_is_cut_off(end, tmp_path):
    records = [of_step(1), of_step(2), of_validation(2), of_step(3)]
    path = write(tmp_path / "metrics.jsonl", records, end)
    keep_until(path, 9)
    assert path.read_bytes().endswith(b"}\n")
    assert read_records(path) == records
    keep_until(path, 2)
    assert read_records(path) == records[:3]
    keep_until(path, 0)
    assert path.read_text() == ""
    keep_until(tmp_path / "absent", 3)
    assert not (tmp_path / "absent").exists()


def test_a_branch_takes_over_records(tmp_path):
    records = [of_step(1), of_step(2), of_validation(2), of_step(3)]
    copy_until(write(tmp_path / "a", records, '\n{"st'), tmp_path / "new" / "b", 2)
    assert read_records(tmp_path / "new" / "b") == records[:3]
    copy_until(tmp_path / "a", tmp_path / "c", 5)
    assert read_records(tmp_path / "c") == records


def test_damage_is_named_by_its_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "tokens": 8}\n{"loss": 2}\n')
    with pytest.raises(ValueError, match="record 2 has no step"):
        list(iterate_metrics(path))
    for line in ("[1]", "3", '{"st'):
        path.write_text(f'{{"step": 1, "tokens": 8}}\n{line}\n{{"step": 3}}\n')
        with pytest.raises(ValueError, match="line 2 is not JSON"):
            list(iterate_metrics(path))
