"""`gpt-jax finetune` and `predict`, from a pretrained run to a table of scores, in process."""

import dataclasses
import json
import random
import re
import shlex

import numpy as np
import pytest

from gpt_jax import cli
from gpt_jax.config import (
    Config,
    DataConfig,
    EvaluateConfig,
    ModelConfig,
    TaskConfig,
    TrainConfig,
    overrides,
)
from gpt_jax.finetune.recipes import gpt1_recipe
from gpt_jax.runs.checkpoint_files import read_manifest, saved_steps
from gpt_jax.runs.directory import RunDirectory
from gpt_jax.runs.loading import load_run
from gpt_jax.runs.tracking import read_records
from gpt_jax.train.loop import train

WORDS = {"good": ("fine", "great", "nice"), "bad": ("awful", "dull", "poor")}


def sentence(draw, label):
    noise = [draw.choice(("film", "the", "a", "it", "was")) for _ in range(3)]
    noise.insert(draw.randrange(4), draw.choice(WORDS[label]))
    return " ".join(noise)


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A pretrained base, and examples of every task, beside each other."""
    root = tmp_path_factory.mktemp("finetune")
    draw = random.Random(0)
    texts = [sentence(draw, label) for label in ("good", "bad") * 200]
    (root / "text.txt").write_text("\n".join(texts))
    examples = [{"text": sentence(draw, label), "label": label} for label in ("good", "bad") * 48]
    write(root / "classify.jsonl", examples)
    write(root / "test.jsonl", examples[:31])
    tagged = [
        {
            "tokens": e["text"].split(),
            "tags": ["B-word" if w in sum(WORDS.values(), ()) else "O" for w in e["text"].split()],
        }
        for e in examples
    ]
    write(root / "tag.jsonl", tagged)
    write(root / "respond.jsonl", [{"prompt": e["text"], "response": e["label"]} for e in examples])
    write(
        root / "prefer.jsonl",
        [{"prompt": e["text"], "chosen": "ab", "rejected": "ba"} for e in examples[:32]],
    )
    config = Config(
        name="base",
        model=ModelConfig(
            vocab_size=257,
            seq_len=32,
            n_layers=2,
            d_model=32,
            n_heads=2,
            bias=False,
            position="rotary",
        ),
        data=DataConfig(
            source="text",
            path=str(root / "text.txt"),
            tokenizer="byte",
            validation="tail",
            validation_fraction=0.1,
            cache=str(root / "cache"),
        ),
        train=TrainConfig(tokens=100 * 8 * 32, batch_sequences=8),
        evaluate=EvaluateConfig(max_sequences=8),
    )
    config = overrides.override(config, {"optimizer.learning_rate": 3e-3})
    train(config, root / "base")
    return root


def task(place, name, **options):
    path = str(place / f"{name}.jsonl")
    return TaskConfig(name=name, train=path, validation=path, epochs=4, **options)


def tuned(place, name, changes=None, **options):
    """The config of fine-tuning the base on a task."""
    base = RunDirectory(place / "base").require_config()
    config = gpt1_recipe(base, name, task(place, name, **options), optimizer__learning_rate=5e-3)
    return overrides.override(config, {"base": str(place / "base"), **(changes or {})})


def test_from_a_base_to_a_report(place, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(place)
    (place / "classify.py").write_text(
        "from gpt_jax.config import TaskConfig\n"
        "from gpt_jax.finetune.recipes import gpt1_recipe\n"
        "def get_config(base):\n"
        "    task = TaskConfig(name='classify', train='classify.jsonl', test='test.jsonl',\n"
        "                      validation='classify.jsonl', epochs=8, validations=1,\n"
        "                      robustness=True)\n"
        "    return gpt1_recipe(base, 'classify', task, optimizer__learning_rate=5e-3)\n"
    )
    run = RunDirectory(tmp_path / "run")
    command = ["finetune", "classify.py", "--from", "base", "--workdir", str(run.path)]
    assert cli.main(["finetune", "classify.py"]) == 2
    assert "changes the config of another run" in capsys.readouterr().err
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    result = run.read_result()
    assert result["test_accuracy"] > 0.9
    assert re.search(rf"^  accuracy +{result['test_accuracy']:.4f}$", said, re.MULTILINE)
    assert result["test_examples"] == 31
    # The label hangs on one word: letters of it hurt, its place does not.
    assert 0.4 < result["test_accuracy_character_noise"] <= result["test_accuracy"]
    assert result["test_accuracy_word_swaps"] > 0.85
    records = read_records(run.metrics)
    accuracies = [r["validation_accuracy"] for r in records if "validation_accuracy" in r]
    assert len(accuracies) == 8
    report = (run.path / "report.txt").read_text()
    assert "class" in report
    assert "bad " in report
    assert (run.path / "confusion.png").stat().st_size > 1000
    predictions = [json.loads(x) for x in (run.path / "predictions.jsonl").open()]
    right = np.mean([p["label"] == p["predicted"] for p in predictions])
    assert right == pytest.approx(result["test_accuracy"])
    # Again: it is done. And new examples without labels, by the best checkpoint.
    assert cli.main(command) == 0
    assert "is done" in capsys.readouterr().out
    (tmp_path / "new.txt").write_text("it was great film\nthe a dull was\n")
    out = tmp_path / "out.jsonl"
    arguments = ["predict", str(run.path), "--input", str(tmp_path / "new.txt")]
    assert cli.main([*arguments, "--output", str(out)]) == 0
    first, second = (json.loads(line) for line in out.open())
    assert (first["predicted"], second["predicted"]) == ("good", "bad")
    assert sum(first["probabilities"].values()) == pytest.approx(1, abs=1e-3)
    # What was predicted of the test examples is what predict says of them.
    assert cli.main([*arguments[:3], "test.jsonl", "--output", str(out)]) == 0
    assert [json.loads(x)["predicted"] for x in out.open()] == [p["predicted"] for p in predictions]
    (line,) = [x for x in said.splitlines() if "continue it, or hear" in x]
    assert shlex.split(line, comments=True)[1:] == command
    # All read the checkpoint that was tested, and say so; a compressed run predicts as well.
    line = f"checkpoint {result['tested_checkpoint']} of {run.path}: the best of"
    assert line in said
    capsys.readouterr()
    small = str(tmp_path / "int8")
    assert cli.main(["compress", str(run.path), "--workdir", small, "--weights", "int8"]) == 0
    assert line in capsys.readouterr().err
    assert cli.main(["predict", small, "--input", "test.jsonl", "--output", str(out)]) == 0
    same = [json.loads(x)["predicted"] for x in out.open()]
    assert np.mean([x == p["predicted"] for x, p in zip(same, predictions, strict=True)]) > 0.9


def test_pretraining_is_where_it_begins_and_scratch_is_not(place, tmp_path, monkeypatch):
    from gpt_jax.verbs.finetune import load

    class Arguments:
        config, base, scratch = place / "classify.py", place / "base", False
        rest: tuple[str, ...] = ()

    first = {}
    for scratch in (False, True):
        Arguments.scratch = scratch
        config = load(Arguments)
        assert config.base == ("" if scratch else str(place / "base"))
        config = overrides.override(
            config,
            {
                "task.train": str(place / "classify.jsonl"),
                "task.test": "",
                "task.validation": str(place / "classify.jsonl"),
                "task.epochs": 0.25,
            },
        )
        train(config, tmp_path / str(scratch))
        first[scratch] = read_records(RunDirectory(tmp_path / str(scratch)).metrics)[0]
    # GPT-1's language-model loss is not in it, so both start at about ln 2; the weights differ.
    assert first[True]["parameter_norm"] != pytest.approx(first[False]["parameter_norm"], rel=1e-3)


@pytest.mark.parametrize(
    "method",
    [
        "lora",
        "prompt",
        *[
            pytest.param(m, marks=pytest.mark.slow)
            for m in ("last_layers", "adalora", "difference")
        ],
    ],
)
def test_only_the_small_tree_is_trained_and_saved(place, tmp_path, method):
    changes = {"adapt.method": method, "adapt.length": 4, "task.epochs": 8}
    config = tuned(place, "classify", {**changes, "optimizer.learning_rate": 0.03})
    train(config, tmp_path)
    run = RunDirectory(tmp_path)
    steps = saved_steps(run.checkpoints)
    arrays = read_manifest(run.checkpoints / str(steps[-1])).arrays
    trained = {name for name in arrays if name.startswith("params/")}
    assert {"params/task_head/kernel", "params/embedding/special"} <= trained
    if method != "difference":
        assert "params/embedding/tokens" not in arrays
        assert not any("key/kernel" in name and "lora" not in name for name in arrays) or (
            method == "last_layers"
        )
    losses = [r["loss"] for r in read_records(run.metrics) if "loss" in r]
    assert np.mean(losses[-4:]) < np.mean(losses[:4]) - 0.05
    if method == "prompt":
        with pytest.raises(ValueError, match="use gpt-jax predict"):
            load_run(run.path)
        return
    # All of the model is loaded again, with the base's parameters and the trained ones.
    _, _, params, _ = load_run(run.path)
    _, _, base, _ = load_run(place / "base")
    if method != "difference":
        np.testing.assert_array_equal(params["embedding"]["tokens"], base["embedding"]["tokens"])
    assert ("lora_a" in params["blocks"]["0"]["attention"]["query"]) == ("lora" in method)


def test_a_stopped_adaptation_continues_to_the_same_bits(place, tmp_path):
    config = tuned(place, "classify", {"adapt.method": "lora", "checkpoint.every_tokens": 32 * 32})
    train(config, tmp_path / "whole")
    whole = RunDirectory(tmp_path / "whole")
    import shutil

    begun = RunDirectory(shutil.copytree(whole.path, tmp_path / "begun"))
    begun.result.unlink()
    for step in saved_steps(begun.checkpoints)[1:]:
        shutil.rmtree(begun.checkpoints / str(step))
    train(config, begun.path)
    assert [r["loss"] for r in read_records(begun.metrics) if "loss" in r] == [
        r["loss"] for r in read_records(whole.metrics) if "loss" in r
    ]
    # A base that was trained on meanwhile, and whose checkpoint is gone, is another base.
    other = RunDirectory(shutil.copytree(place / "base", tmp_path / "base"))
    moved = dataclasses.replace(config, base=str(other.path))
    train(moved, tmp_path / "moved")
    longer = {"train.tokens": 110 * 8 * 32, "checkpoint.keep_latest": 1}
    train(overrides.override(other.require_config(), longer), other.path, resume_changed=True)
    (tmp_path / "moved" / "result.json").unlink()
    with pytest.raises(ValueError, match="the base run has changed since"):
        train(moved, tmp_path / "moved")


def test_training_stops_when_patience_has_run_out(place, tmp_path):
    changes = {"optimizer.learning_rate": 1e-9, "checkpoint.keep_best": 1}
    config = tuned(place, "classify", changes, validations=3, patience=2)
    result = train(config, tmp_path)
    records = read_records(RunDirectory(tmp_path).metrics)
    validated = [r["step"] for r in records if "validation_loss" in r]
    assert len(validated) == 3, "one that is the best, and two that are no better"
    assert result["n_steps"] == validated[-1] < 12
    assert max(r["step"] for r in records) == validated[-1]
    (tmp_path / "result.json").unlink()
    assert train(config, tmp_path)["n_steps"] == result["n_steps"], "asked again, it is over"


def test_tags_responses_and_preferences(place, tmp_path):
    pytest.importorskip("seqeval")
    result = train(tuned(place, "tag", {"task.epochs": 8}), tmp_path / "tag")
    assert result["validation_entity_f1"] > 0.8
    plain = train(tuned(place, "respond", {"task.epochs": 40}), tmp_path / "respond")
    packed = train(
        tuned(place, "respond", {"task.pack": True, "task.epochs": 2}), tmp_path / "packed"
    )
    assert plain["validation_loss"] < 0.5
    assert packed["validation_loss"] < np.log(257), "better than any token"
    write(tmp_path / "ask.jsonl", [{"prompt": "it was great film"}])
    out = tmp_path / "said.jsonl"
    assert (
        cli.main(
            [
                "predict",
                str(tmp_path / "respond"),
                "--input",
                str(tmp_path / "ask.jsonl"),
                "--output",
                str(out),
                "--max-new-tokens",
                "8",
            ]
        )
        == 0
    )
    assert json.loads(out.read_text())["response"] in ("good", "bad")
    no_dropout = {"model.dropout_residual": 0.0, "model.dropout_embedding": 0.0}
    preferred = train(
        tuned(place, "prefer", {"optimizer.learning_rate": 1e-3, **no_dropout}), tmp_path / "prefer"
    )
    first = next(r for r in read_records(tmp_path / "prefer" / "metrics.jsonl") if "loss" in r)
    assert first["loss"] == pytest.approx(np.log(2), abs=0.02), "where training begins"
    assert preferred["validation_loss"] < 0.6
    assert preferred["validation_accuracy"] > 0.9


def test_a_base_of_another_model_is_refused(place, tmp_path):
    config = tuned(place, "classify", {"model.n_layers": 1})
    with pytest.raises(ValueError, match=r"another architecture: model\.n_layers is 2 there, 1 he"):
        train(config, tmp_path)
    config = dataclasses.replace(config, base=str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="nowhere"):
        train(config, tmp_path)
