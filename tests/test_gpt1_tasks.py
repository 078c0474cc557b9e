"""GPT-1's tasks: from a file in its owner's form to records, a resolved config, and a score."""

import json
from pathlib import Path

import numpy as np
import pytest
from random_runs import GPT1, make_run
from test_experiments import EXPERIMENTS, ROOT, load

from gpt_jax import cli
from gpt_jax.config import overrides
from gpt_jax.data.tokenizers.entries.byte import ByteTokenizer
from gpt_jax.finetune.examples import load_rows, resolve
from gpt_jax.finetune.reading import read_records, split_records
from gpt_jax.runs.directory import RunDirectory

CONFIGS = sorted((ROOT / "configs").glob("gpt1_*.py"))
N_TRAIN = 11
"""Training lines of a miniature: the first and the last are for validation."""
SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def prepare():
    return load(EXPERIMENTS / "gpt1" / "prepare.py")


@pytest.fixture(scope="module")
def scores():
    return load(EXPERIMENTS / "gpt1" / "scores.py")


def write(path, text, newline="\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.replace("\n", newline).encode())


def write_table(path, rows, newline="\n"):
    write(path, "".join("\t".join(map(str, row)) + "\n" for row in rows), newline)


def mnli(folder):
    """Real headers, shortened; the columns of the two development sets stand elsewhere. A quotation
    mark is a character, and so is what other programs take for the end of a line."""
    header = ("index", "genre", "sentence1_parse", "sentence1", "sentence2", "label1", "gold_label")
    rows = [(i, "x", "(p)", f'p{i} "', f"h{i}\u2028", "?", "neutral") for i in range(N_TRAIN)]
    write_table(folder / "train.tsv", [header, *rows])
    header = ("sentence2", "sentence1", "gold_label", "label1")
    write_table(folder / "dev_matched.tsv", [header, ("h", "p", "entailment", "-")])
    write_table(folder / "dev_mismatched.tsv", [header, ("H", "P", "contradiction", "-")])
    train = [{"premise": f'p{i} "', "hypothesis": f"h{i}\u2028", "label": "neutral"}
             for i in range(N_TRAIN)]  # fmt: skip
    first = {"premise": "p", "hypothesis": "h", "label": "entailment", "part": "matched"}
    second = {"premise": "P", "hypothesis": "H", "label": "contradiction", "part": "mismatched"}
    return held_out(train, [first, second])


def held_out(train, test):
    """As GLUE's: of eleven, two are for validation."""
    return {"train": train[1:10], "validation": [train[0], train[10]], "test": test}


def glue(folder, header, row, record, newline="\n"):
    """A miniature of a folder of GLUE: row(i) -> cells, record(i) -> what they are."""
    for name, numbers in (("train", range(N_TRAIN)), ("dev", (20, 21))):
        rows = [row(i) for i in numbers]
        write_table(folder / f"{name}.tsv", [header, *rows] if header else rows, newline)
    return held_out([record(i) for i in range(N_TRAIN)], [record(i) for i in (20, 21)])


def qnli(folder):
    def record(i):
        return {"premise": f"q{i}?", "hypothesis": f's"{i}', "label": "not_entailment"}

    header = ("index", "question", "sentence", "label")
    return glue(folder, header, lambda i: (i, f"q{i}?", f's"{i}', "not_entailment"), record)


def rte(folder):
    def record(i):
        return {"premise": f"p{i}", "hypothesis": f"h{i}", "label": "entailment"}

    header = ("index", "sentence1", "sentence2", "label")
    return glue(folder, header, lambda i: (i, f"p{i}", f"h{i}", "entailment"), record)


def cola(folder):
    def record(i):
        return {"text": f"t{i}", "label": ("unacceptable", "acceptable")[i % 2]}

    return glue(folder, None, lambda i: ("gj04", i % 2, "*", f"t{i}"), record)


def sst2(folder):
    def record(i):
        return {"text": f"t{i} ", "label": ("negative", "positive")[i % 2]}

    return glue(folder, ("sentence", "label"), lambda i: (f"t{i} ", i % 2), record)


def mrpc(folder):
    """With a mark of its byte order, and the ends of lines of another system."""

    def record(i):
        return {"first": f'"a{i}', "second": f"b{i}", "label": ("different", "paraphrase")[i % 2]}

    header = ("\ufeffQuality", "#1 ID", "#2 ID", "#1 String", "#2 String")
    return glue(folder, header, lambda i: (i % 2, 1, 2, f'"a{i}', f"b{i}"), record, "\r\n")


def stsb(folder):
    def record(i):
        return {"first": f"a{i}", "second": f"b{i}", "label": i / 5}

    header = ("index", "genre", "sentence1", "sentence2", "score")
    return glue(folder, header, lambda i: (i, "g", f"a{i}", f"b{i}", f"{i / 5:.3f}"), record)


def qqp(folder):
    """A line of the released file lacks columns: the second one here."""

    def record(i):
        return {"first": f"a{i}", "second": f"b{i}", "label": ("different", "duplicate")[i % 2]}

    header = ("id", "qid1", "qid2", "question1", "question2", "is_duplicate")
    splits = glue(
        folder, header, lambda i: (i, 1, 2, f"a{i}", f"b{i}", i % 2)[: 3 if i == 1 else 6], record
    )
    splits["train"].pop(0)
    return splits


def snli(folder):
    splits = {}
    for name, split in zip(("train", "dev", "test"), SPLITS, strict=True):
        labels = ("neutral", "-", "entailment")
        pairs = [
            {"gold_label": x, "sentence1": f"{name} {x}", "sentence2": "h", "annotator_labels": []}
            for x in labels
        ]
        lines = "".join(json.dumps(pair) + "\n" for pair in pairs)
        write(folder / f"snli_1.0_{name}.jsonl", lines)
        splits[split] = [
            {"premise": f"{name} {x}", "hypothesis": "h", "label": x} for x in labels if x != "-"
        ]
    return splits


def scitail(folder):
    splits = {}
    for name, split in zip(("train", "dev", "test"), SPLITS, strict=True):
        rows = [(f'"{name}', "h1", "entails"), (name, "h2", "neutral")]
        write_table(folder / f"scitail_1.0_{name}.tsv", rows)
        splits[split] = [{"premise": p, "hypothesis": h, "label": x} for p, h, x in rows]
    return splits


def race(folder):
    """A text in a file, and two questions on it."""
    splits = {}
    for name, split in zip(("train", "dev", "test"), SPLITS, strict=True):
        splits[split] = []
        for school in ("middle", "high"):
            text = {
                "id": f"{school}1.txt",
                "article": f"{name} {school}",
                "questions": ["q1", "q2 _ ."],
                "options": [["a", "b", "c", "d"], ["e", "f", "g", "h"]],
                "answers": ["D", "A"],
            }
            write(folder / name / school / "1.txt", json.dumps(text))
            splits[split] += [
                {
                    "article": f"{name} {school}",
                    "question": text["questions"][i],
                    "options": text["options"][i],
                    "label": (3, 0)[i],
                    "part": school,
                }
                for i in (0, 1)
            ]
    return splits


def storycloze(folder):
    """Texts with commas and quotation marks, as .csv has them."""
    sentences = ",".join(f"InputSentence{i}" for i in range(1, 5))
    header = f"InputStoryid,{sentences},RandomFifthSentenceQuiz1,RandomFifthSentenceQuiz2"

    def lines(numbers):
        rows = [f'id,"A, ""{i}"".",B.,C.,D.,one{i},two,{1 + i % 2}' for i in numbers]
        return "\n".join([f"{header},AnswerRightEnding", *rows]) + "\n"

    def record(i):
        return {"context": f'A, "{i}". B. C. D.', "options": [f"one{i}", "two"], "label": i % 2}

    write(folder / "cloze_test_val__spring2016 - cloze_test_ALL_val.csv", lines(range(N_TRAIN)))
    write(folder / "cloze_test_test__spring2016 - cloze_test_ALL_test.csv", lines([20]), "\r\n")
    return held_out([record(i) for i in range(N_TRAIN)], [record(20)])


MINIATURES = {f.__name__: f for f in (mnli, snli, scitail, qnli, rte, storycloze, race)} | {
    f.__name__: f for f in (cola, sst2, mrpc, stsb, qqp)
}
"""Each writes a miniature of its data set into a folder, and returns what its records are to be."""


def test_every_task_has_a_config_a_miniature_and_a_row(prepare, scores):
    rows = [row for _, rows in scores.TABLES.values() for row in rows.values()]
    names = {path.stem.removeprefix("gpt1_") for path in CONFIGS}
    assert names == set(prepare.TASKS) == MINIATURES.keys() == {row.task for row in rows}


@pytest.mark.parametrize("task", MINIATURES)
def test_records_of_a_data_set_as_its_owner_distributes_it(task, prepare, tmp_path, capsys):
    expected = MINIATURES[task](tmp_path / "source")
    made = tmp_path / "data" / task
    assert prepare.main([task, str(tmp_path / "source"), str(tmp_path / "data")]) == 0
    assert {split: read_records(str(made / f"{split}.jsonl")) for split in SPLITS} == expected
    said = capsys.readouterr().out.splitlines()
    for line, split in zip(said, SPLITS, strict=True):
        left_out = task == "snli" or (task, split) == ("qqp", "train")
        counted = f"{task:<12}{split:<12}{len(expected[split]):>9,} examples"
        assert line == counted + (", 1 lines left out" if left_out else "")


def test_mistakes_are_told(prepare, tmp_path, capsys):
    def error(task):
        assert prepare.main([task, str(tmp_path / "source"), str(tmp_path / "data")]) == 2
        return capsys.readouterr().err

    assert ".tsv; the folder is to be as its owner distributes it" in error("rte")
    assert "0 files" in error("storycloze")
    assert "no files" in error("race")
    write_table(tmp_path / "source" / "dev.tsv", [("sentence1", "label"), ("p", "0")])
    assert "has no column 'sentence2', but sentence1, label" in error("rte")
    write_table(tmp_path / "source" / "dev.tsv", [("sentence", "label"), ("t", "2")])
    write_table(tmp_path / "source" / "train.tsv", [("sentence", "label"), ("t", "1")])
    assert "a label is '2'; allowed: 0, 1" in error("sst2")


@pytest.fixture
def place(tmp_path, prepare, monkeypatch):
    """A directory with a random GPT-1 as runs/gpt1; makes it the current one."""
    make_run(tmp_path / "runs" / "gpt1", GPT1 | {"n_layers": 1})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def prepared(task, prepare):
    MINIATURES[task](Path("source") / task)
    prepare.prepare(task, Path("source") / task, Path("gpt1_data"))
    base = RunDirectory("runs/gpt1").require_config()
    return overrides.load(ROOT / "configs" / f"gpt1_{task}.py", base=base)


@pytest.mark.parametrize(
    ("task", "labels", "n_sequences"),
    [
        ("snli", ("entailment", "neutral"), 1),
        ("race", (), 4),
        ("storycloze", (), 2),
        ("mrpc", ("different", "paraphrase"), 2),
        ("cola", ("acceptable", "unacceptable"), 1),
        ("stsb", (), 2),
    ],
)
def test_a_config_of_each_kind_resolves_its_examples(task, labels, n_sequences, place, prepare):
    config = resolve(prepared(task, prepare), ByteTokenizer())
    assert config.task.labels == labels
    assert config.task.n_sequences == n_sequences
    training, validation = split_records(config)
    assert validation == read_records(f"gpt1_data/{task}/validation.jsonl")
    examples = load_rows(config, ByteTokenizer(), training, config.task.train)
    assert examples.batch.tokens_BT.shape == (len(training), n_sequences * config.task.length)
    read = examples.batch.label_weights_BT > 0
    np.testing.assert_array_equal(read.sum(axis=1), n_sequences)
    first = examples.batch.labels_BT[0][read[0]].tolist()
    if task in ("race", "storycloze"):
        assert first == [float(i == training[0]["label"]) for i in range(n_sequences)]
    elif task == "stsb":
        np.testing.assert_allclose(first, 2 * [training[0]["label"]])
    else:
        assert first == n_sequences * [labels.index(training[0]["label"])]
    # Section 4.1: 3 epochs in batches of 32, 6.25e-5, warmup over 0.2%, lambda 0.5, dropout 0.1.
    row_tokens = n_sequences * config.task.length
    assert config.train.tokens == 3 * len(training) * row_tokens
    assert config.train.batch_sequences == 32
    assert (config.optimizer.learning_rate, config.schedule.name) == (6.25e-5, "linear")
    assert config.schedule.warmup_tokens == round(0.002 * config.train.tokens)
    assert (config.task.language_loss, config.task.head_dropout) == (0.5, 0.1)


def test_a_task_trains_and_its_parts_stand_beside_the_papers(place, prepare, scores):
    prepared("mnli", prepare)
    # The miniature's training pairs are all neutral; the other classes are its test's.
    labels = "contradiction,entailment,neutral"
    command = ["finetune", str(ROOT / "configs" / "gpt1_mnli.py"), "--from", "runs/gpt1"]
    changes = ["--task.epochs", "1", "--train.batch_sequences", "5", "--task.labels", labels]
    assert cli.main([*command, *changes]) == 0
    run = RunDirectory("runs/gpt1_mnli")
    result = run.read_result()
    assert result["n_steps"] == 2
    path = run.path / "predictions.jsonl"
    said = read_records(str(path))
    assert [record["part"] for record in said] == ["matched", "mismatched"]
    # What it says after two steps is chance; here it is right on one, and wrong on the other.
    said[0]["predicted"], said[1]["predicted"] = said[0]["label"], "neutral"
    write(path, "".join(json.dumps(record) + "\n" for record in said))
    found = scores.collect(Path("runs"))
    one = {"examples": 1, "fingerprint": result["fingerprint"]}
    assert found == {"MNLI-m": {"score": 100, **one}, "MNLI-mm": {"score": 0, **one}}
    mnli, stsb = (f"`configs/gpt1_{task}.py`" for task in ("mnli", "stsb"))
    ours = (
        f"| MNLI-m | accuracy | 82.1 | 100.0 | development, 1 | {mnli} | run {one['fingerprint']} |"
    )
    none = f"| STS-B (pearson) | pearson | 82.0 | missing | development | {stsb} | ready to run |"
    lines = scores.tables(found).splitlines()
    assert {ours, none, "| GLUE | average | 72.8 | missing | | | needs GLUE's server |"} <= {*lines}
    assert sum("missing" in line for line in lines) == 16 - len(found)
