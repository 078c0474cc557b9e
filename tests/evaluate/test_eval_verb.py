"""`gpt-jax eval` on a real run: numbers, provenance, cache, and a kill that loses nothing."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from once import once
from tiny_run import Workspace, make_workspace

from gpt_jax import cli
from gpt_jax.evaluate.cache import Cache
from gpt_jax.runs.checkpoint_choice import best_step


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return Workspace(once(tmp_path_factory, "tiny_run", make_workspace))


@pytest.fixture(autouse=True)
def leave_this_process_alone(monkeypatch):
    monkeypatch.setattr(cli, "prepare_process", lambda: None)


@pytest.fixture
def data(tmp_path):
    words = ["the cat sat", "two dogs run far", "a mat and the cat", "dogs saw"]
    records = [
        {"query": f"{words[i % 4]} {i}", "choices": ["on a mat.", "and run."], "gold": i % 2}
        for i in range(40)
    ]
    (tmp_path / "copa.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    return tmp_path


def test_numbers_provenance_and_cache(workspace, data, capsys):
    run = str(workspace.reference.path)
    command = ["eval", run, "--tasks", "copa", "--data", str(data), "--out", str(data / "out")]
    (data / "text.txt").write_text("the cat sat on a mat\n" * 30)
    command += ["--text", str(data / "text.txt"), "--stride", "8", "--bias", "occupations"]
    assert cli.main(command) == 0
    printed = capsys.readouterr().out
    results = json.loads((data / "out" / "results.json").read_text())
    assert results["checkpoint"] == best_step(workspace.reference.checkpoints) != 160
    assert {"fingerprint", "commit", "command", "operands"} <= results.keys()
    task, text, bias = results["results"]
    assert (task["items"], task["chance"], len(bias["rows"])) == (40, 0.5, 3)
    assert 0 < text["bits_per_byte"] < 8
    assert text["loss_per_token"] * text["tokens"] == pytest.approx(
        text["bits_per_byte"] * text["bytes"] * 0.6931471805599453
    )
    (items,) = (data / "out").glob("items-*.jsonl")
    content = items.read_text()
    assert cli.main(command) == 0
    assert capsys.readouterr().out == printed
    assert items.read_text() == content  # nothing was computed again
    assert cli.main([*command[:8], "--shots", "3", "--limit", "5"]) == 0
    assert "(5 items, 3 shots)" in capsys.readouterr().out
    # Other settings stand beside, the same ones in their place; a table reads what is there.
    path = data / "out" / "results.json"
    kept = json.loads(path.read_text())
    assert len(kept["results"]) == 4
    assert [r.get("limit") for r in kept["results"]] == [None, None, None, 5]
    assert all(r["checkpoint"] == results["checkpoint"] for r in kept["results"])
    assert cli.main(["table", "gpt2-table-3", "--results", str(path)]) == 0
    said = capsys.readouterr().out
    assert f"tiny, {kept['n_params']:,} parameters" not in said, "it has none of the columns"


@pytest.mark.slow
def test_written_answers_are_scored_kept_and_cached(workspace, data, capsys):
    """Texts of a generation task do not change with the batch or the cache; religion's table."""
    records = [{"question": f"where is dog {i}", "answer": ["on a mat"]} for i in range(3)]
    (data / "triviaqa.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    command = ["eval", str(workspace.reference.path), "--tasks", "triviaqa", "--data", str(data)]
    command += ["--out", str(data / "out"), "--bias", "religion"]
    read = []
    for limit in ("1", "3"):
        assert cli.main([*command, "--limit", limit]) == 0
        read.append(json.loads((data / "out" / "results.json").read_text())["results"])
    few, all_, religion = read[0][0], *read[1][-2:]
    assert len(read[1]) == 4, "of other limits: results of their own"
    assert few["texts"] == all_["texts"][:1]
    assert len(all_["texts"]) == 3
    assert all("\n" not in text for text in all_["texts"])
    assert 0 <= all_["exact_match"] <= 1
    assert [row[0] for row in religion["rows"]][:2] == ["Atheism", "Buddhism"]
    assert religion["texts_a_prompt"] == 3
    assert "exact match" in capsys.readouterr().out


def test_a_killed_evaluation_continues(workspace, data):
    """SIGKILL as soon as some items are in the cache; the same command computes the rest alone."""
    command = [
        sys.executable, "-m", "gpt_jax", "eval", str(workspace.reference.path), "--tasks", "copa",
        "--data", str(data), "--out", str(data / "out"), "--batch-tokens", "16",
    ]  # fmt: skip
    environment = os.environ | workspace.environment
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    give_up = time.monotonic() + 300

    def lines():
        found = list((data / "out").glob("items-*.jsonl"))
        return found[0].read_text().split("\n")[:-1] if found else []

    while process.poll() is None and not lines():
        assert time.monotonic() < give_up
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = lines()
    assert not (data / "out" / "results.json").exists()
    assert 1 <= len(before) < 40
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True, timeout=300
    )
    assert f"copa: {len(before)} of 40 from the cache" in done.stderr
    after = lines()
    assert after[: len(before)] == before
    assert sorted(json.loads(line)["item"] for line in after) == list(range(40))


def test_a_line_cut_by_a_kill_is_dropped(tmp_path):
    path = tmp_path / "items.jsonl"
    cache = Cache(path, {"model": "m"})
    cache.put("t", 0, 2, "d0", [1.5])
    cache.put("t", 1, 2, "d1", [2.5])
    cache.close()
    whole = path.read_text()
    path.write_text(whole[:-5])
    cache = Cache(path, {"model": "m"})
    assert cache.get("t", 2, "d0") == [1.5]
    assert cache.get("t", 2, "d1") is None
    assert cache.get("t", 1, "d0") is None
    cache.put("t", 1, 2, "d1", [2.5])
    cache.close()
    assert path.read_text() == whole


def test_mistakes_are_one_line(workspace, data, capsys):
    run = str(workspace.reference.path)
    cases = {
        ("eval",): "which run",
        ("eval", run): "nothing to evaluate",
        ("eval", run, "--tasks", "copa", "--shots", "-1"): "--shots -1; allowed: 0 or more",
        ("eval", run, "--tasks", "copas"): "did you mean 'copa'",
        ("eval", run, "--text", "x.txt", "--limit", "5"): "--limit is of tasks",
        ("eval", run, "--text", "x.txt", "--shots", "5"): "--shots is of tasks",
        ("eval", run, "--tasks", "copa", "--stride", "5"): "--stride and --detokenize are of a",
        ("eval", run, "--bias", "religion", "--text", "x.txt"): "x.txt: no such file",
        ("eval", run, "--bias", "race", "--lexicon", "x"): "x: No such file",
        ("eval", run, "--tasks", "piqa", "--data", str(data)): "none of piqa.jsonl",
        ("eval", str(data), "--tasks", "copa"): "is not a run directory",
        ("eval", run, "--tasks", "copa", "--seed", "1", "--model.d_model", "8"): "allowed: mesh",
    }
    for command, message in cases.items():
        assert cli.main(list(command)) == 2
        assert message in capsys.readouterr().err
    (data / "lambada.jsonl").write_text('{"text": "a b"}\n{"txt": "a b"}\n')
    command = ["eval", run, "--tasks", "copa,lambada", "--data", str(data)]
    assert cli.main([*command, "--out", str(data / "out")]) == 2
    said = capsys.readouterr()
    assert f"{data}/lambada.jsonl line 2: task lambada: fields found: txt; forms" in said.err
    assert said.out == ""  # every task is read before any is scored
    assert cli.main(["eval", "--list"]) == 0
    assert "lambada" in capsys.readouterr().out
