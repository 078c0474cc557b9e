"""`gpt-jax plan`, as it is typed."""

import csv
import dataclasses
import importlib.util
import json
import re

import pytest

from gpt_jax import cli
from gpt_jax.config import meshes, overrides
from gpt_jax.cost.estimate import make_plan
from gpt_jax.cost.search import search
from gpt_jax.cost.topology import parse_topology
from gpt_jax.verbs import plan as plan_verb

GPT3 = [f"gpt3_{size}" for size in ("125m", "350m", "760m", "1p3b", "2p7b", "6p7b", "13b", "175b")]


def plan(capsys, *arguments, status=0) -> str:
    assert cli.main(["plan", *map(str, arguments)]) == status
    captured = capsys.readouterr()
    return captured.out if status == 0 else captured.err


@pytest.mark.smoke
def test_one_config_is_told_in_full(capsys, repository):
    path = repository / "configs" / "gpt3_175b.py"
    given = ["--topology", "v5p:8x8x8", "--mesh", "fsdp=64,tensor=8", "--price", "4.2"]
    text = plan(capsys, path, *given, "--train.ramp_from_sequences", "64")
    config = overrides.load(path, {"mesh.fsdp": 64, "mesh.tensor": 8})
    expected = make_plan(config, parse_topology("v5p:8x8x8"), 4.2)
    assert "mesh data 1 x fsdp 64 x tensor 8" in text
    assert f"{expected.memory.total / 2**30:,.2f} GiB" in text
    assert f"{expected.bound_seconds:,.3f} s  by compute, if all overlap" in text
    assert re.search(
        r"step +about [\d.]+ s  programs of this kind took [\d.]+ to [\d.]+ times", text
    )
    assert re.search(rf"  palm .*{expected.mfu(expected.bound_seconds):.1%} at the bound", text)
    assert "at 4.2 a chip-hour" in text


def test_several_are_rows_and_files_hold_all_numbers(capsys, repository, tmp_path):
    paths = [repository / "configs" / f"{name}.py" for name in GPT3[:3]]
    files = ["--csv", tmp_path / "out" / "plans.csv", "--json", tmp_path / "plans.json"]
    text = plan(capsys, *paths, "--topology", "h100:64", "--mesh", "fsdp=8", *files)
    lines = [line.split()[0] for line in text.splitlines() if line.startswith("gpt3")]
    assert lines == GPT3[:3]
    rows = list(csv.DictReader((tmp_path / "out" / "plans.csv").open()))
    records = json.loads((tmp_path / "plans.json").read_text())
    assert [row["name"] for row in rows] == [r["name"] for r in records] == GPT3[:3]
    for path, row, record in zip(paths, rows, records, strict=True):
        expected = make_plan(overrides.load(path, {"mesh.fsdp": 8}), parse_topology("h100:64"))
        assert float(row["bound_seconds"]) == record["bound_seconds"] == expected.bound_seconds
        assert record["about_seconds"] > record["in_turn_seconds"] > record["bound_seconds"]
        assert record["mfu_palm"] == expected.mfu(record["about_seconds"])
        assert record["data"] == 8
        assert int(row["n_params"]) == record["n_params"] > 1e8


def test_the_search_prints_what_to_paste(capsys, repository):
    path = repository / "configs" / "gpt3_13b.py"
    text = plan(capsys, path, "--topology", "v5p:4x4x4", "--search")
    words = text.split("to paste:\n")[1].splitlines()[0].split()
    assert words[:3] == ["gpt-jax", "train", str(path)]
    again = plan(capsys, path, "--topology", "v5p:4x4x4", *words[3:])
    assert again.splitlines()[0] in text
    assert step_line(again) == step_line(text)


def step_line(text):
    (line,) = [line for line in text.splitlines() if line.startswith("  step ")]
    return line


def test_what_the_search_prints_can_be_trained_as_it_is(capsys, repository):
    """The ramp of GPT-3 13B begins with 16 sequences, which 32 parts of a batch do not divide."""
    path = repository / "configs" / "gpt3_13b.py"
    text = plan(capsys, path, "--topology", "h100:64", "--search")
    words = text.split("to paste:\n")[1].splitlines()[0].split()
    config = overrides.load(path, overrides.parse_arguments(words[3:]))
    assert not meshes.obstacle(config, 64)
    assert config.train.ramp_from_sequences > 16
    assert "but train.ramp" in text, "what does not divide is still said of the config's own ramp"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--topology", "v9:8x8"], "unknown chip 'v9'"),
        (["--mesh", "fsdp:8"], "--mesh fsdp:8: 'fsdp:8'; allowed: data=N,fsdp=N,tensor=N,expert=N"),
        (["--mesh", "pipeline=8"], "allowed: data=N,fsdp=N,tensor=N,expert=N,sequence=N,slices=N"),
        (["--mesh", "fsdp=3"], "mesh.fsdp = 3 does not divide 4 devices"),
        (["--price", "-1"], "--price -1.0; allowed: 0 or more"),
        (["--topology", "h100_pcie:8", "--compile"], "--compile knows no properties of h100_pcie"),
        (["--topology", "h100:12", "--compile"], "up to 8 GPUs or whole hosts of 8, not 12"),
        (["--model.heads", "3"], "unknown config key"),
        (["--distill.teacher", "runs/large"], "plan counts pretraining alone"),
    ],
)
def test_mistakes_are_one_line(capsys, repository, arguments, message):
    text = plan(capsys, repository / "configs" / "gpt3_125m.py", *arguments, status=2)
    assert message in text
    assert text.count("\n") == 1


def test_without_a_compiler_there_is_one_line(capsys, repository, monkeypatch):
    real = importlib.util.find_spec
    absent = {"libtpu", "jax_cuda12_plugin"}
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in absent else real(name)
    )
    path = repository / "configs" / "gpt3_125m.py"
    for topology, missing, extra in (
        ("v5p:2x2x1", "libtpu", "tpu"),
        ("h100:8", "jax-cuda12-plugin", "gpu-plan"),
    ):
        text = plan(capsys, path, "--topology", topology, "--compile", status=2)
        assert text == (
            f"gpt-jax: --compile needs {missing}, which is absent: pip install 'gpt-jax[{extra}]'\n"
        )


@dataclasses.dataclass(frozen=True)
class Answer:
    """What the search asks of a compiler's answer."""

    fits: bool
    total_bytes: int
    message: str = "RESOURCE_EXHAUSTED"


def test_the_search_compiles_until_something_fits(repository, monkeypatch, capsys):
    """A compiler that needs half as much again as the closed form says, on half of the memory."""
    config = overrides.load(repository / "configs" / "gpt3_13b.py", {})
    choices = search(config, parse_topology("v5p:4x4x4"))
    compiled = []

    def compile_plan(plan):
        compiled.append(plan)
        total = 1.5 * plan.memory.total
        return Answer(total <= plan.available_bytes, round(total))

    monkeypatch.setattr(plan_verb, "compile_one", compile_plan)
    chosen, answer = plan_verb.first_that_fits(choices)
    assert answer.fits
    assert 1.5 * choices[0].memory.total > choices[0].available_bytes
    assert compiled == [choices[0], chosen]
    assert all(1.5 * p.memory.total > p.available_bytes for p in choices[: choices.index(chosen)])
    assert "the next choice" in capsys.readouterr().err
