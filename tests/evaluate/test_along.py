"""Tasks scored while a run trains: the numbers of `gpt-jax eval`, in every record of the run."""

import csv
import json
import re

import pytest

from gpt_jax import cli
from gpt_jax.config.how import EvaluateConfig
from gpt_jax.evaluate.along import _drawn, make_task_scorer
from gpt_jax.evaluate.catalog import CATALOG
from gpt_jax.evaluate.tasks import Item
from gpt_jax.runs.tracking import read_records

CONFIG = """
from gpt_jax.config import *

def get_config() -> Config:
    return Config(
        name="along",
        model=ModelConfig(vocab_size=257, seq_len=32, n_layers=1, d_model=16, n_heads=2),
        data=DataConfig(source="text", path={text!r}, tokenizer="byte", validation="tail",
                        validation_fraction=0.2),
        train=TrainConfig(tokens=32 * 4 * 30, batch_sequences=4),
        optimizer=OptimizerConfig(learning_rate=0.03),
        evaluate=EvaluateConfig(every_tokens=32 * 4 * 15, batch_sequences=4,
                                tasks=("blimp", "lambada"), tasks_data={data!r}, tasks_items=None),
    )
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A config, its text, and two tasks of a few items."""
    root = tmp_path_factory.mktemp("along")
    (root / "text.txt").write_text("the cat sat on the mat and saw the dog. " * 200)
    pairs = [
        {
            "sentence_good": f"the {a} sat on the {b}",
            "sentence_bad": f"the {b} {a} on sat",
            "UID": b,
        }
        for a in ("cat", "dog")
        for b in ("mat", "log", "cat")
    ]
    data = root / "data"
    data.mkdir()
    (data / "blimp.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    texts = [{"text": "the cat sat on the mat"}, {"text": "the dog saw the cat"}]
    (data / "lambada.jsonl").write_text("\n".join(map(json.dumps, texts)))
    config = CONFIG.format(text=str(root / "text.txt"), data=str(data))
    (root / "along.py").write_text(config)
    return root


def test_scores_along_a_run_are_those_of_eval(place, capsys):
    run = place / "run"
    assert cli.main(["train", str(place / "along.py"), "--workdir", str(run)]) == 0
    tasks = ["--tasks", "blimp,lambada", "--data", str(place / "data")]
    assert cli.main(["eval", str(run), *tasks]) == 0
    blimp, lambada = json.loads((run / "evaluation" / "results.json").read_text())["results"]
    result = json.loads((run / "result.json").read_text())
    for name, found in (("blimp", blimp), ("lambada", lambada)):
        assert result[f"validation_score_{name}"] == found["accuracy"]
        bits = result[f"validation_bits_per_byte_{name}"]
        assert bits == pytest.approx(found["bits_per_byte"], rel=1e-5)
    first, last = (r for r in read_records(run / "metrics.jsonl") if "validation_loss" in r)
    assert last["validation_bits_per_byte_blimp"] == result["validation_bits_per_byte_blimp"]
    assert first["validation_bits_per_byte_blimp"] != last["validation_bits_per_byte_blimp"]
    assert set(blimp["accuracy_by_group"]) == {"mat", "log", "cat"}
    capsys.readouterr()


def test_a_packed_sweep_has_them_in_its_table(place, capsys):
    file = place / "sweep.py"
    file.write_text(
        "from gpt_jax.sweep.grid import values\nfrom gpt_jax.sweep.trial import make_trials\n"
        "from gpt_jax.config.overrides import load\n\n\n"
        "def get_sweep():\n"
        f"    base = load({str(place / 'along.py')!r}, {{'train.tokens': 32 * 4 * 8}})\n"
        "    return make_trials(base, values('seed', [0, 1]))\n"
    )
    where = ["--workdir", str(place / "sweep")]
    assert cli.main(["sweep", "run", str(file), *where, "--launcher", "packed"]) == 0
    assert cli.main(["sweep", "report", str(file), *where]) == 0
    capsys.readouterr()
    with open(place / "sweep" / "report" / "runs.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 2
    for row in rows:
        assert 0 <= float(row["score_blimp"]) <= 1
        assert float(row["bits_per_byte_lambada"]) > 0
    assert rows[0]["bits_per_byte_blimp"] != rows[1]["bits_per_byte_blimp"]


def test_the_items_of_every_run_are_the_same_and_in_order():
    items = [Item(str(i), (" a", " b")) for i in range(100)]
    few = _drawn(CATALOG["blimp"], items, EvaluateConfig(tasks_items=10))
    assert few == _drawn(CATALOG["blimp"], items, EvaluateConfig(tasks_items=10))
    assert len(few) == 10
    assert few == [item for item in items if item in few]
    assert few != items[:10]
    assert _drawn(CATALOG["blimp"], items, EvaluateConfig(tasks_items=None)) == items


def test_several_processes_are_refused_before_they_train(monkeypatch):
    monkeypatch.setattr("jax.process_count", lambda: 2)
    with pytest.raises(ValueError, match=r"evaluate.tasks = blimp in a run of several processes"):
        make_task_scorer(EvaluateConfig(tasks=("blimp",)), None, None, None)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["--evaluate.tasks", "blimq"], "unknown task 'blimq'.*did you mean 'blimp'"),
        (["--evaluate.tasks", "squad"], "evaluate.tasks = squad: it writes texts"),
        (["--evaluate.tasks_data", "nowhere"], "task blimp: none of blimp.jsonl.gz.*in nowhere"),
    ],
)
def test_mistakes_are_found_before_the_first_step(place, capsys, changes, said, tmp_path):
    command = ["train", str(place / "along.py"), "--workdir", str(tmp_path / "run"), *changes]
    assert cli.main([*command, "--dry-run"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(said, error)
