"""What is refused, and what is said, of a task's files before anything is trained."""

import itertools
import json
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_jax.config import Config, ModelConfig, TaskConfig, overrides
from gpt_jax.config.entries import TASKS
from gpt_jax.data.tokenizers.entries.byte import ByteTokenizer
from gpt_jax.evaluate.examples import validate_examples
from gpt_jax.finetune import checks, examples, reading
from gpt_jax.finetune.predicted import Predicted
from gpt_jax.finetune.scores import tag_scheme
from gpt_jax.storage import tables
from gpt_jax.train.recorder import ranking
from gpt_jax.train.task_report import write_report

TOKENIZER = ByteTokenizer()
MODEL = ModelConfig(vocab_size=257, seq_len=32, n_layers=1, d_model=8, n_heads=2)


def write(path, records):
    text = records
    if isinstance(records, list):
        text = "".join(json.dumps(record) + "\n" for record in records)
    path.write_text(text)
    return str(path)


def config(name, path, **options):
    changes = {"name": name, "train": path, "validation": path, **options}
    made = overrides.override(
        Config(model=MODEL), {f"task.{key}": value for key, value in changes.items()}
    )
    return examples.resolve(made, TOKENIZER)


def read(name, path, **options):
    """The config, and the rows of training."""
    made = config(name, path, **options)
    found = reading.read_records(path)
    return made, examples.load_rows(made, TOKENIZER, found, path, training=True)


GOOD = {"text": "a", "label": "x"}


@pytest.mark.parametrize(
    ("name", "records", "message"),
    [
        ("classify", [GOOD, {"text": "a", "label": None}], "its label (field 'label') is null"),
        ("classify", [GOOD, {"text": "a", "label": " "}], "its label (field 'label') is empty"),
        ("classify", [GOOD, {"text": "a", "label": ["x"]}], "its label (field 'label') is a list"),
        ("classify", [GOOD, {"text": "a"}], "it has no field 'label', but text; name it with"),
        ("classify", [GOOD, {"text": None, "label": "x"}], "its field 'text' is null, not a text"),
        ("classify", [GOOD, {"text": ["a"], "label": "x"}], "its field 'text' is a list, not a"),
        ("classify", "text,label\na,x\nb,\n", "its label (field 'label') is empty"),
        ("classify", "text,label\na,x\nb\n", "has 1 of the header's 2 cells; label is missing"),
        ("regress", [{"text": "a", "label": 1}, {"text": "a", "label": None}], "is null"),
        ("regress", "text,label\na,1\nb,x\n", "its label 'x' is not a number"),
        ("regress", "text,label\na,1\nb,nan\n", "its label 'nan' is not a finite number"),
        (
            "regress",
            [{"text": "a", "label": 1}, {"text": "a", "label": 10**400}],
            f"its label 1{'0' * 400} is not a number",
        ),
        (
            "choose",
            [
                {"context": "", "options": ["a", "b"], "label": 1},
                {"context": "", "options": ["a", "b"], "label": 0.5},
            ],
            "its label 0.5 is no index of its 2 options",
        ),
        ("choose", "context,options,label\na,b,0\n\nb,c,0\n", "'options' is a text, not a list"),
        (
            "tag",
            [{"tokens": ["a"], "tags": ["O"]}, {"tokens": ["a"], "tags": [None]}],
            "its label (field 'tags') is null",
        ),
        ("tag", [{"tokens": ["a"], "tags": ["O"]}, {"tokens": "a", "tags": ["O"]}], "is a text"),
        ("tag", [{"tokens": ["a"], "tags": ["O"]}, {"tokens": [], "tags": []}], "has no words"),
        (
            "respond",
            [{"prompt": "a", "response": "b"}, {"prompt": "a", "response": None}],
            "its field 'response' is null",
        ),
        (
            "respond",
            [{"prompt": "a", "response": "b"}, {"messages": [{"role": "user"}]}],
            "its message 1 has no role and content",
        ),
        (
            "respond",
            [{"prompt": "a", "response": "b"}, {"messages": "hi"}],
            "its messages are a text, not a list of turns",
        ),
        (
            "prefer",
            [{"prompt": "a", "chosen": "b", "rejected": "c"}, {"prompt": "a", "chosen": "b"}],
            "it has no field 'rejected'",
        ),
    ],
)
def test_what_is_no_example_is_refused_with_its_line(tmp_path, name, records, message):
    path = write(tmp_path / ("t.csv" if isinstance(records, str) else "t.jsonl"), records)
    with pytest.raises(ValueError, match=re.escape(message)) as raised:
        read(name, path)
    line = 2 if "'options' is a text" in message else 3 if path.endswith(".csv") else 2
    assert re.match(rf"{re.escape(path)} line {line}\b", str(raised.value))


def test_classes_are_counted_and_names_that_are_alike_are_pointed_at(tmp_path):
    labels = ["pos", "pos", "neg", " pos", "Pos", "1", "1.0", "-1", "not_neg", "not neg"]
    path = write(tmp_path / "t.csv", "text,label\n" + "".join(f"a,{x}\n" for x in labels))
    made, _ = read("classify", path)
    counted, *alike = reading.said_of_classes(reading.read_records(path), made)
    assert counted.startswith(f"{path}: classes of 10 training examples: 'pos' 2, ' pos' 1")
    assert [re.findall(r"'([^']*)' \((\d), \S+ line (\d+)\)", line) for line in alike] == [
        [("pos", "2", "2"), (" pos", "1", "5"), ("Pos", "1", "6")],
        [("1", "1", "7"), ("1.0", "1", "8")],
        [("not_neg", "1", "10"), ("not neg", "1", "11")],
    ]


def test_labels_are_not_read_of_examples_to_predict(tmp_path):
    found = [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]
    made = config("classify", write(tmp_path / "t.jsonl", found))
    new = [{"text": "a"}, {"text": "a", "label": None}, {"text": "a", "label": "none of these"}]
    assert examples.load_rows(made, TOKENIZER, new, "new", labelled=False).n_rows == 3
    with pytest.raises(ValueError, match="example 1: it has no field 'label'"):
        examples.load_rows(made, TOKENIZER, new, "new")


def test_responses_that_are_cut_off_are_counted_and_left_out(tmp_path):
    """Of 4, one keeps its response, one loses part of it, two lose it whole: a mean over their
    targets would be 0."""
    lengths = [4, 25, 40, 200]
    found = [{"prompt": "q" * n, "response": "answer"} for n in lengths]
    for pack in (False, True):
        _, rows = read("respond", write(tmp_path / "t.jsonl", found), pack=pack)
        assert rows.batch.weights_BT.sum() == 7 + (32 - 1 - 26)
        assert len(rows.records) == 2
        assert pack or (rows.batch.weights_BT.sum(axis=1) > 0).all()
        assert [re.sub(r"\S*/", "", note)[:75] for note in rows.notes] == [
            "t.jsonl: 3 of 4 examples are cut to 32 tokens (first: t.jsonl line 2)",
            "t.jsonl: 2 of 4 examples lost all of their targets (first: t.jsonl line 3) "[:75],
            "t.jsonl: 1 of 4 examples lost part of their targets (first: t.jsonl line 2)",
        ]
    with pytest.raises(
        ValueError, match=r"none of 2 examples has a target within 32 tokens .*line 1"
    ):
        read("respond", write(tmp_path / "t.jsonl", found[2:]))
    preferred = [{"prompt": "q" * n, "chosen": "a", "rejected": "b"} for n in lengths]
    _, rows = read("prefer", write(tmp_path / "t.jsonl", preferred))
    assert rows.n_rows == 2
    with pytest.raises(ValueError, match="none of 1 examples has a target"):
        read(
            "respond",
            write(tmp_path / "t.jsonl", [{"messages": [{"role": "user", "content": "a"}]}]),
        )


def test_a_sentence_too_long_keeps_its_place_in_the_score(tmp_path):
    found = [{"tokens": ["w" * n, "b"], "tags": ["B-x", "O"]} for n in (3, 60)]
    path = write(tmp_path / "t.jsonl", found)
    made, training = read("tag", path)
    assert training.n_rows == 1
    assert any("1 of 2 examples lost all of their targets" in note for note in training.notes)
    scored = examples.load_rows(made, TOKENIZER, reading.read_records(path), path, training=False)
    assert scored.n_rows == 2


FILES = {
    "classify": [{"text": "a", "label": label} for label in ("x", "y")],
    "classify3": [{"text": "a", "label": label} for label in ("x", "y", "z$\\frac")],
    "entail": [{"premise": "a", "hypothesis": "b", "label": label} for label in (0, 1)],
    "similarity": [{"first": "a", "second": "b", "label": label} for label in (0, 1)],
    "choose": [{"context": "q", "options": ["x", "y", "z"], "label": i} for i in (0, 2)],
    "regress": [{"text": "a", "label": label} for label in (0.5, 2)],
    "tag": [{"tokens": ["a", "b"], "tags": ["B-x", tag]} for tag in ("O", "I-x")],
    "tag_of_speech": [{"tokens": ["a", "b"], "tags": ["DET", tag]} for tag in ("NOUN", "VERB")],
    "respond": [{"prompt": "a", "response": "b"}] * 2,
    "prefer": [{"prompt": "a", "chosen": "b", "rejected": "c"}] * 2,
}
METRICS = {name: TaskConfig(name=name).metrics for name in TASKS.names()}
ALL_METRICS = sorted({"", "x", *itertools.chain(*METRICS.values())})


def outputs_like(made, rows):
    """Some outputs of the shape that the task's objective gives."""
    n, task = rows.n_rows, made.task
    shape = {
        "tag": (n, task.length, len(task.labels)),
        "choose": (n, task.options),
        "respond": (n, 0),
    }.get(task.name, (n, len(task.labels)) if task.labels else (n,))
    return np.random.default_rng(0).normal(size=shape)


@pytest.mark.parametrize("kind", FILES)
def test_every_metric_and_test_is_reported_or_refused_before_training(kind, tmp_path, monkeypatch):
    pytest.importorskip("seqeval")
    path, name = write(tmp_path / "t.jsonl", FILES[kind]), re.split("[3_]", kind)[0]
    reported, refused, refusals = set(), set(), []
    for metric, test in itertools.product(ALL_METRICS, ("", path)):
        try:
            made = config(name, path, metric=metric, test=test)
            examples.check_test(made, TOKENIZER)
        except ValueError as error:
            refused.add((metric, bool(test)))
            refusals.append(str(error))
            continue
        rows = examples.load_rows(made, TOKENIZER, FILES[kind], path)
        found = outputs_like(made, rows)
        said = Predicted(np.arange(rows.n_rows), found, np.ones(1), np.ones(1))
        monkeypatch.setattr("gpt_jax.evaluate.examples.predict", lambda *_, said=said: said)
        validation = validate_examples(made, None, {}, rows, None)
        assert math.isfinite(ranking(made, validation.record()))
        if test and not metric and name != "respond":
            write_report(made, tmp_path, rows, said, dict(validation.scores))
        reported.add((metric, bool(test)))
    wrong = {m for m in ALL_METRICS if m and m not in METRICS[name]}
    wrong |= {"classify3": {"f1"}, "tag_of_speech": {"entity_f1"}}.get(kind, set())
    expected = set(itertools.product(wrong, (False, True)))
    if name == "prefer":
        expected |= {(metric, True) for metric in ALL_METRICS}
    assert refused == expected
    assert all(re.fullmatch(r"task\.(metric|test) = .*", said) for said in refusals)
    assert reported == set(itertools.product(ALL_METRICS, (False, True))) - expected


def test_pretraining_has_no_metric_nor_test():
    with pytest.raises(
        ValueError, match=r"task\.metric = x; of task\.name = language_model one of"
    ):
        TaskConfig(metric="x")
    for option in ("train", "validation", "test"):
        with pytest.raises(ValueError, match=rf"task\.{option} = f needs task\.name"):
            TaskConfig(**{option: "f"})


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([{"text": "a"}], "test.jsonl line 1: it has no field 'label'"),
        ([{"text": "a", "label": "new"}], "test.jsonl line 1: its label 'new' is none of x, y"),
        ("", "test.jsonl holds no examples"),
        (None, "test.jsonl: no such file"),
    ],
)
def test_a_test_that_cannot_be_scored_is_found_before_training(tmp_path, records, message):
    test = tmp_path / "test.jsonl"
    if records is not None:
        write(test, records)
    made = config("classify", write(tmp_path / "t.jsonl", FILES["classify"]), test=str(test))
    with pytest.raises(ValueError, match=message):
        examples.check_test(made, TOKENIZER)


def test_turns_are_a_test_of_their_last_answer(tmp_path):
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    path = write(tmp_path / "t.jsonl", [{"messages": turns}])
    assert examples.check_test(config("respond", path, test=path), TOKENIZER) == ()
    test = write(tmp_path / "test.jsonl", [{"messages": turns + turns[:1]}])
    with pytest.raises(ValueError, match=r"line 1: its messages end with 'user', not with 'assist"):
        examples.check_test(config("respond", path, test=test), TOKENIZER)
    long = write(tmp_path / "test.jsonl", [{"prompt": "q" * 40, "response": "b"}])
    (note,) = examples.check_test(config("respond", path, test=long), TOKENIZER)
    assert "1 of 1 prompts are longer than" in note


@pytest.mark.parametrize(
    ("labels", "scheme"),
    [
        ("O B-x I-x", "IOB2"),
        ("O I-x", "IOB2"),
        ("O B-x E-x S-x", "IOBES"),
        ("O B-x I-x L-x U-x", "BILOU"),
        ("O I-x E-x", "IOE2"),
        ("DET NOUN", None),
        ("O B-x NOUN", None),
        ("0 1 2", None),
        ("O", None),
    ],
)
def test_the_scheme_of_tags(labels, scheme):
    made = TaskConfig(name="tag", train="x", labels=tuple(labels.split()))
    assert tag_scheme(made.labels) == scheme
    assert made.chosen_by == ("entity_f1" if scheme else "accuracy")
    said = checks.said_of_reports(Config(task=made))[0]
    assert (scheme or "no entities") in said


@given(st.integers(0, 90), st.binary(max_size=3), st.booleans(), st.sampled_from(["csv", "jsonl"]))
def test_damaged_files_train_or_are_refused_in_one_line(tmp_path_factory, at, put, replaced, kind):
    """Any byte of a file lost or changed: rows come out, or one line that names the file."""
    good = {
        "csv": b'text,label\n"good, film",pos\nbad film,neg\n"dull\nfilm",neg\n',
        "jsonl": b'{"text": "good film", "label": "pos"}\n{"text": "bad film", "label": 0}\n',
    }[kind]
    path = tmp_path_factory.getbasetemp() / f"damaged.{kind}"
    path.write_bytes(good[:at] + put + good[at + len(put) * replaced :])
    try:
        _, rows = read("classify", str(path))
    except ValueError as error:
        said = str(error)
    else:
        said = str(path)
        assert rows.n_rows == len(tables.read(path).rows)
        assert reading.said_of_classes(rows.records, config("classify", str(path)))
    assert re.fullmatch(rf"{re.escape(str(path))}.*", said)


@pytest.mark.parametrize(("n", "n_held_out"), [(2, 1), (9, 1), (10, 1), (25, 2)])
def test_what_is_held_out_is_not_trained_on(n, n_held_out, tmp_path):
    path = write(tmp_path / "few.jsonl", [{"text": f"text {i}", "label": "x"} for i in range(n)])
    made = overrides.override(Config(model=MODEL), {"task.name": "classify", "task.train": path})
    training, validation = reading.split_records(made)
    texts = [{record["text"] for record in part} for part in (training, validation)]
    assert len(texts[1]) == n_held_out
    assert not texts[0] & texts[1]
    assert len(texts[0] | texts[1]) == n


def test_a_json_file_with_a_record_a_line_is_read_as_such(tmp_path):
    """CLUE's files: AFQMC's .json holds an object a line, which is no JSON document."""
    records = [
        {"sentence1": "蚂蚁借呗等额还款可以换成先息后本吗", "sentence2": "借呗有先息到期还本吗",
         "label": "0"},
        {"sentence1": "花呗说我违约一次", "sentence2": "花呗违约行为是什么", "label": "1"},
    ]  # fmt: skip
    path = tmp_path / "dev.json"
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), "utf-8")
    notes = []
    assert [dict(r) for r in reading.read_records(str(path), notes)] == records
    assert notes == [f"{path} is read as JSON lines: it has a record a line"]
    for text, n in ((json.dumps(records, indent=1), 2), (json.dumps(records[0], indent=1), 1)):
        path.write_text(text)
        assert len(reading.read_records(str(path))) == n, "a document is one still"
    path.write_text('{"a": 1}\n{"a": \n')
    with pytest.raises(ValueError, match="line 2"):
        reading.read_records(str(path))
