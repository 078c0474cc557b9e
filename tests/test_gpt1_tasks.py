"""GPT-1's tasks: from miniatures of their owners' files to trials of the paper's recipe."""

import json

import pytest
from random_runs import make_run
from test_experiments import EXPERIMENTS, load

from gpt_jax.sweep.load import load_sweep

SNLI = [
    {"sentence1": f"p{i}", "sentence2": "h", "gold_label": label}
    for i, label in enumerate(["entailment", "-", "neutral", "contradiction"])
]
RACE = {
    "article": "Tom ran.",
    "questions": ["Who ran?", "Did _ ran?"],
    "options": [["Ann", "Tom", "Bo", "Al"], ["a", "b", "c", "d"]],
    "answers": ["B", "D"],
}
CLOZE = (
    "InputStoryid,InputSentence1,InputSentence2,InputSentence3,InputSentence4,"
    "RandomFifthSentenceQuiz1,RandomFifthSentenceQuiz2,AnswerRightEnding\n"
    + 'x,"One, two.",B.,C.,D.,Good.,Bad.,2\n'
    * 11
)
PAIRS = "index\tsentence1\tsentence2\tlabel\n" + '0\tA "quoted\tb\tentailment\n' * 20 + "9\tcut\n"
FILES = {
    **{
        f"MNLI/{name}.tsv": "index\tsentence1\tsentence2\tgold_label\n"
        + "".join(f"{i}\tp\th{i}\t{('neutral', 'entailment')[i % 2]}\n" for i in range(12))
        for name in ("train", "dev_matched", "dev_mismatched")
    },
    **{
        f"SNLI/snli_1.0_{name}.jsonl": "".join(json.dumps(r) + "\n" for r in SNLI)
        for name in ("train", "dev", "test")
    },
    **{
        f"SciTail/tsv_format/scitail_1.0_{name}.tsv": "p\th\tneutral\nq\th\tentails\n"
        for name in ("train", "dev", "test")
    },
    **{
        f"RACE/{split}/{level}/1.txt": json.dumps(RACE)
        for split in ("train", "dev", "test")
        for level in ("middle", "high")
    },
    **{f"StoryCloze/cloze_test_{s} - cloze_test_ALL_{s}.csv": CLOZE for s in ("val", "test")},
    **{f"RTE/{name}.tsv": PAIRS for name in ("train", "dev")},
    **{
        f"QNLI/{name}.tsv": "index\tquestion\tsentence\tlabel\n"
        + "0\tq\ts\tentailment\n1\tq\ts\tnot_entailment\n"
        for name in ("train", "dev")
    },
    **{
        f"CoLA/{name}.tsv": "gj04\t1\t\tIt is.\ngj04\t0\t*\tIs it is.\n"
        for name in ("train", "dev")
    },
    **{f"SST-2/{name}.tsv": "sentence\tlabel\nfine \t1\nbad \t0\n" for name in ("train", "dev")},
    **{
        f"MRPC/{name}.tsv": "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
        "1\t7\t8\ta\tb\n0\t7\t8\ta\tc\n"
        for name in ("train", "dev")
    },
    **{
        f"STS-B/{name}.tsv": "index\tsentence1\tsentence2\tscore\n0\ta\tb\t2.500\n1\ta\tc\t5.000\n"
        for name in ("train", "dev")
    },
    **{
        f"QQP/{name}.tsv": "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
        "1\t2\t3\ta?\tb?\t0\n1\t2\t3\ta?\tc?\t1\n"
        for name in ("train", "dev")
    },
}
PAIRED = {"premise": 'A "quoted', "hypothesis": "b", "label": "entailment"}
FIRST_OF_TEST = {
    "mnli_mismatched": {"premise": "p", "hypothesis": "h0", "label": "neutral"},
    "snli": {"premise": "p0", "hypothesis": "h", "label": "entailment"},
    "scitail": {"premise": "p", "hypothesis": "h", "label": "neutral"},
    "qnli": {"premise": "s", "hypothesis": "q", "label": "entailment"},
    "rte": PAIRED,
    "story_cloze": {"context": "One, two. B. C. D.", "options": ["Good.", "Bad."], "label": 1},
    "race_high": {"context": "Who ran? Tom ran.", "options": RACE["options"][0], "label": 1},
    "cola": {"text": "It is.", "label": "1"},
    "sst2": {"text": "fine ", "label": "1"},
    "mrpc": {"first": "a", "second": "b", "label": "1"},
    "stsb": {"first": "a", "second": "b", "label": 2.5},
    "qqp": {"first": "a?", "second": "b?", "label": "0"},
}
COUNTS = {"rte": (18, 2, 20), "snli": (3, 3, 3), "race": (4, 4, 4), "race_middle": (4, 4, 2)}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpt1")
    for name, text in FILES.items():
        path = folder / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    load(EXPERIMENTS / "gpt1" / "prepare.py").main(folder / "source", folder / "gpt1_data", [])
    return folder


def records(folder, task, split):
    lines = (folder / "gpt1_data" / task / f"{split}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_records_say_what_the_owners_files_say(prepared):
    tasks = load(EXPERIMENTS / "gpt1" / "prepare.py").TASKS
    assert set(tasks) == set(load(EXPERIMENTS / "gpt1" / "sweep.py").TASKS)
    for task, first in FIRST_OF_TEST.items():
        assert records(prepared, task, "test")[0] == first
    for task, counts in COUNTS.items():
        found = tuple(len(records(prepared, task, s)) for s in ("train", "validation", "test"))
        assert found == counts


def test_each_row_of_the_tables_is_a_trial(prepared, monkeypatch):
    monkeypatch.chdir(prepared)
    make_run(prepared / "runs" / "gpt1", {"vocab_size": 257, "seq_len": 96})
    sweep = load(EXPERIMENTS / "gpt1" / "sweep.py")
    _, trials = load_sweep(EXPERIMENTS / "gpt1" / "sweep.py", {})
    by_name = {trial.config.name: trial.config for trial in trials}
    assert len(by_name) == len(sweep.TASKS) == 15
    assert by_name["cola"].task.chosen_by == "matthews"
    assert by_name["qqp"].task.labels == ("0", "1")
    assert by_name["race"].task.options == 4
    assert by_name["stsb"].task.n_sequences == 2
    assert set(by_name["snli"].task.labels) == {"entailment", "neutral", "contradiction"}
    for config in by_name.values():
        assert config.base == sweep.BASE
        assert (config.optimizer.learning_rate, config.train.batch_sequences) == (6.25e-5, 32)
        assert (config.task.language_loss, config.schedule.name) == (0.5, "linear")
    for task, n in (("snli", 3), ("rte", 18)):
        assert by_name[task].train.tokens == 3 * n * by_name[task].task.length


def test_without_records_it_says_how_to_make_them(prepared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "runs" / "gpt1", {"vocab_size": 257})
    with pytest.raises(
        ValueError, match="gpt1_data holds no task: python experiments/gpt1/prepare"
    ):
        load_sweep(EXPERIMENTS / "gpt1" / "sweep.py", {})
    with pytest.raises(SystemExit, match="no task boolq; there are mnli_matched"):
        load(EXPERIMENTS / "gpt1" / "prepare.py").main(prepared / "source", tmp_path, ["boolq"])
    with pytest.raises(SystemExit, match="has no folder RACE"):
        load(EXPERIMENTS / "gpt1" / "prepare.py").main(tmp_path, tmp_path, ["race"])
