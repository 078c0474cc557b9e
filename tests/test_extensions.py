"""The example files of configs/extensions do what they say, and a run carries its own copies."""

import contextlib
import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gpt_jax.config import Config, OptimizerConfig, entries, extensions, overrides
from gpt_jax.cost.state import state_bytes
from gpt_jax.runs.directory import RunDirectory
from gpt_jax.sweep.store import SweepDirectory
from gpt_jax.sweep.trial import Trial

EXAMPLES = Path(__file__).parent.parent / "configs" / "extensions"
TINY = {
    "model.vocab_size": 257,
    "model.seq_len": 16,
    "model.n_layers": 1,
    "model.d_model": 16,
    "model.n_heads": 2,
    "model.position": "none",
    "model.scores": "kerple_log",
    "model.options.kerple_log.start": 0.5,
    "data.source": "sqlite",
    "data.options.column": "review",
    "data.tokenizer": "byte",
    "data.validation": "tail",
    "data.validation_fraction": 0.2,
    "optimizer.name": "signum_mix",
    "optimizer.options.fast": 0.5,
    "optimizer.learning_rate": 0.01,
    "train.tokens": 128,
    "train.batch_sequences": 2,
}


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    """Each test begins as a new process does: nothing registered, no copy known."""
    from gpt_jax.evaluate import tasks
    from gpt_jax.scaling import entry as laws

    for table in (
        entries.OPTIMIZERS,
        entries.SCORES,
        entries.SOURCES,
        entries.TASKS,
        entries.TOKENIZERS,
    ):
        monkeypatch.setattr(table, "_registered", {})
        monkeypatch.setattr(table, "_origins", {})
    for module, name in ((extensions, "_RUN"), (extensions, "_COPIES"), (tasks, "REGISTERED")):
        monkeypatch.setattr(module, name, {})
    before = dict(laws.LAWS)
    yield
    laws.LAWS.clear()
    laws.LAWS.update(before)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder of one's own with the examples and a text."""
    for file in EXAMPLES.glob("*.py"):
        shutil.copy(file, tmp_path)
    texts = [(f"the cat sat on the mat number {i}",) for i in range(60)]
    with contextlib.closing(sqlite3.connect(tmp_path / "reviews.db")) as database:
        database.execute("CREATE TABLE documents (review TEXT)")
        database.executemany("INSERT INTO documents VALUES (?)", texts)
        database.commit()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def tiny(**more) -> Config:
    given = [f"--extension={name}.py" for name in ("my_optimizer", "my_scores", "my_source")]
    changes = TINY | {"data.path": "reviews.db"} | overrides.parse_arguments(given) | more
    return overrides.override(Config(), changes)


def test_a_run_of_three_extensions_is_loaded_from_its_copies(folder):
    from gpt_jax.train.loop import train

    config = tiny()
    result = train(config, folder / "run")
    assert np.isfinite(result["validation_loss"])
    facts = json.loads((folder / "run" / "config.json").read_text())
    assert [given.partition("@")[0] for given in facts["config"]["extensions"]] == [
        "my_optimizer.py",
        "my_scores.py",
        "my_source.py",
    ]
    for name in ("my_optimizer", "my_scores", "my_source"):
        (folder / f"{name}.py").unlink()
    items = [{"text": "the cat", "endings": [" sat", " xyz"], "right": 0}] * 3
    (folder / "endings.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    given = ["--extension", "my_task.py", "--tasks", "endings", "--data", "."]
    done = subprocess.run(
        [sys.executable, "-m", "gpt_jax", "eval", "run", *given],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "endings" in done.stdout
    extensions.look_in(folder / "run")
    assert RunDirectory(folder / "run").read_config() == config


def test_names_are_known_to_memory_and_mup_and_to_messages(folder):
    config = tiny()
    model, adamw = config.model, OptimizerConfig()
    assert 2 * state_bytes(model, config.optimizer).optimizer == state_bytes(model, adamw).optimizer
    mup = tiny(**{"model.parametrization": "mup", "model.base_d_model": 8})
    assert mup.model.parametrization == "mup"
    with pytest.raises(ValueError, match="did you mean 'signum_mix'"):
        tiny(**{"optimizer.name": "signum_mux"})
    with pytest.raises(ValueError, match=r"options\.fast = 2"):
        tiny(**{"optimizer.options.fast": 2})


def test_the_text_is_fingerprinted_and_not_its_place(folder):
    config = tiny()
    moved = folder / "elsewhere"
    moved.mkdir()
    shutil.move("my_optimizer.py", moved)
    tree = overrides.to_dict(config)
    digests = extensions.digests(tree["extensions"])
    tree["extensions"] = [f"{moved}/my_optimizer.py", *tree["extensions"][1:]]
    again = overrides.from_dict(tree)
    assert extensions.digests(again.extensions) == digests
    assert overrides.fingerprint(again) == overrides.fingerprint(config)
    assert not overrides.differences(again, config)
    other = overrides.override(config, {"extensions": ["my_scores.py", "my_source.py"]})
    assert overrides.fingerprint(other) != overrides.fingerprint(config)


def test_a_config_names_a_file_beside_it(folder, monkeypatch):
    place = folder / "configs"
    place.mkdir()
    shutil.move("my_optimizer.py", place)
    (place / "mine.py").write_text(
        "from gpt_jax.config import Config, OptimizerConfig\n\n\ndef get_config():\n"
        "    return Config(\n        extensions=('my_optimizer.py',),\n"
        "        optimizer=OptimizerConfig(name='signum_mix'),\n    )\n"
    )
    config = overrides.load(place / "mine.py")
    assert config.extensions[0].startswith(str(place / "my_optimizer.py@"))
    assert overrides.override(config, {"seed": 1}).extensions == config.extensions


def test_a_sweep_carries_copies(folder, monkeypatch):
    config = tiny()
    SweepDirectory.create(folder / "sweep", "sweep", "sweep.py", [Trial(config, {})])
    for name in ("my_optimizer", "my_scores", "my_source"):
        (folder / f"{name}.py").unlink()
    for table in (entries.OPTIMIZERS, entries.SCORES, entries.SOURCES):
        monkeypatch.setattr(table, "_registered", {})
    for name in ("_RUN", "_COPIES"):
        monkeypatch.setattr(extensions, name, {})
    assert SweepDirectory.open(folder / "sweep").entries[0].config == config


def test_a_law_is_fitted(folder, capsys):
    from gpt_jax.cli import main

    rows = [f"{n},{5 - 0.1 * np.log(n)}" for n in (1e6, 1e7, 1e8, 1e9, 1e10)]
    (folder / "runs.csv").write_text("\n".join(["n_params,loss", *rows]) + "\n")
    given = ["--extension", "my_law.py", "--law", "log-n", "--bootstrap", "0", "--json", "fit.json"]
    assert main(["fit", "runs.csv", *given]) == 0
    found = json.loads((folder / "fit.json").read_text())["parameters"]
    assert set(found) == {"c0", "c1"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "no extension mine.py"),
        ("# \xff", "extension mine.py is not UTF-8"),
        ("1 / 0\n", r"mine\.py, line 1: ZeroDivisionError"),
        ("import reviews_of_mine\n", r"mine\.py, line 1: ModuleNotFoundError"),
        (
            "from gpt_jax.optim.entry import OPTIMIZERS\n"
            "OPTIMIZERS.register(OPTIMIZERS.find('lion'))\n",
            r"optimizer\.name = lion is known already",
        ),
    ],
)
def test_mistakes_are_one_line(folder, text, said):
    if text is not None:
        (folder / "mine.py").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=said) as caught:
        overrides.override(Config(), {"extension": "mine.py"})
    assert "\n" not in str(caught.value)


def test_a_file_that_changed_is_refused(folder, monkeypatch):
    tree = overrides.to_dict(tiny())
    for name in ("_RUN", "_COPIES"):
        monkeypatch.setattr(extensions, name, {})
    with open("my_optimizer.py", "a") as stream:
        stream.write("\n# changed\n")
    with pytest.raises(ValueError, match=r"my_optimizer\.py has changed"):
        overrides.from_dict(tree)


WORDS = """
import numpy as np
from gpt_jax.data.tokenizers.entry import TOKENIZERS, TokenizerEntry
from gpt_jax.data.tokenizers.entries.byte import ByteTokenizer


class Upper(ByteTokenizer):
    @property
    def spec(self):
        return {"kind": "upper"}

    def encode(self, text):
        return super().encode(text.upper())


make = lambda *_: Upper()
TOKENIZERS.register(TokenizerEntry(name="upper", summary="", make=make, restore=make))
"""


def test_a_tokenizer_of_ones_own_is_saved_and_restored(folder):
    from gpt_jax.data.tokenizers import from_spec, tokenizer_identity
    from gpt_jax.data.tokenizers.making import make_tokenizer

    with pytest.raises(ValueError, match=r"data\.tokenizer = upper; allowed: byte"):
        make_tokenizer("upper")
    (folder / "mine.py").write_text(WORDS)
    config = overrides.override(Config(), {"extension": "mine.py", "data.tokenizer": "upper"})
    made = make_tokenizer(config.data.tokenizer)
    assert bytes(from_spec(made.spec).encode("ab").astype("u1")) == b"AB"
    # Another text of the file is another corpus in the cache.
    assert tokenizer_identity("upper") == f"upper {extensions.digests(config.extensions)[0]}"


def grades(folder, **more) -> Config:
    """A tiny run of the example's task."""
    words = {"poor": "awful", "fair": "so so", "good": "great"}
    records = [
        {"text": f"{words[label]} {i}", "label": label} for i in range(10) for label in words
    ]
    (folder / "graded.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    changes = {key: TINY[key] for key in TINY if key.split(".")[0] in ("model", "train")}
    changes |= {"model.scores": "", "model.options": {}, "data.tokenizer": "byte"}
    changes |= {"extension": "my_grades.py", "task.name": "grade", "task.train": "graded.jsonl"}
    return overrides.override(Config(), changes | {"task.labels": "poor,fair,good"} | more)


def test_a_task_of_ones_own_is_trained_scored_and_predicted(folder):
    from gpt_jax.train.loop import train
    from gpt_jax.verbs.predict import predict_file

    config = grades(folder, **{"task.test": "graded.jsonl", "optimizer.learning_rate": 0.02})
    config = overrides.override(config, {"train.tokens": 20_000, "train.batch_sequences": 16})
    result = train(config, folder / "run")
    assert result["validation_kappa"] == result["test_kappa"] == 1
    (folder / "my_grades.py").unlink()
    (folder / "new.txt").write_text("great 3\nawful 4\n")
    said = predict_file(folder / "run", folder / "new.txt")
    assert [record["predicted"] for record in said] == ["good", "poor"]
    assert sum(said[0]["probabilities"].values()) == pytest.approx(1, abs=1e-3)


def test_the_loss_and_the_score_of_the_examples_task(folder):
    """By hand: of (0.5, 0.3, 0.2) and the second of three grades, (0.5, 0.8, 1) - (0, 1, 1); the
    kappa of Cohen (1968) of four pairs with squared distances 0, 0, 1 and 4, of (1 * 1 + 4 * 2) / 4
    and so on by chance."""
    from gpt_jax.finetune.entry import TASKS
    from gpt_jax.finetune.heads import Reading
    from gpt_jax.finetune.predicted import Predicted

    config = grades(folder)
    entry = TASKS.find("grade")
    x = np.log([[[0.5, 0.3, 0.2]]]).astype(np.float32)
    reading = Reading(x, np.asarray([[1.0]]), np.asarray([[2.0]]), 1)
    log_p, sums = entry.head(reading, {"kernel": np.eye(3), "bias": np.zeros(3)})
    np.testing.assert_allclose(np.exp(log_p), [[0.5, 0.3, 0.2]], rtol=1e-5)
    np.testing.assert_allclose(sums.cross_entropy, 2 * (0.25 + 0.04), rtol=1e-5)
    assert sums.weight == 2

    class Examples:
        records = tuple({"label": label} for label in ("poor", "fair", "fair", "good"))

    outputs = np.eye(3)[[0, 1, 2, 0]]
    found = Predicted(np.arange(4), outputs, np.ones(1), np.ones(1))
    scores = entry.score(config, Examples, found)
    by_chance = (2 * 0 + 1 * 1 + 1 * 4 + 2 * (2 * 1 + 1 * 0 + 1 * 1) + 2 * 4 + 1 * 1 + 0) / 4
    assert scores == {"kappa": pytest.approx(1 - 5 / by_chance), "accuracy": 0.5}
