"""Our requests beside those of lm-evaluation-harness, item by item, from its own task files.

DIFFERENCES holds every deliberate difference, as the change that makes theirs ours; the guide
(gpt_jax/evaluate/README.md) lists the same.
"""

import json
import re
from pathlib import Path

import pytest

lm_eval = pytest.importorskip("lm_eval")
datasets = pytest.importorskip("datasets")

from lm_eval.api.task import ConfigurableTask  # noqa: E402
from lm_eval.tasks._yaml_loader import load_yaml  # noqa: E402
from lm_eval.utils import apply_template  # noqa: E402
from task_records import ARTICLE, FORMS  # noqa: E402

from gpt_jax.evaluate import measures  # noqa: E402
from gpt_jax.evaluate.catalog import CATALOG  # noqa: E402
from gpt_jax.evaluate.items import read_file, read_items  # noqa: E402
from gpt_jax.evaluate.requests import Score  # noqa: E402
from gpt_jax.evaluate.tasks import prompts  # noqa: E402

TASKS = Path(lm_eval.__file__).parent / "tasks"
FILES = {
    "lambada": "lambada/lambada_openai.yaml",
    "lambada_blank": "lambada_cloze/lambada_openai_cloze.yaml",
    "hellaswag": "hellaswag/hellaswag.yaml",
    "piqa": "piqa/piqa.yaml",
    "copa": "super_glue/copa/default.yaml",
    "wsc273": "wsc273/default.yaml",
    "winogrande": "winogrande/default.yaml",
    "storycloze": "storycloze/storycloze_2016.yaml",
    "arc_easy": "arc/arc_easy.yaml",
    "arc_challenge": "arc/arc_challenge.yaml",
    "openbookqa": "openbookqa/openbookqa.yaml",
    "blimp": "blimp/anaphor_gender_agreement.yaml",
    "commonsenseqa": "commonsense_qa/default.yaml",
    "socialiqa": "siqa/siqa.yaml",
    "mmlu": "mmlu/default/mmlu_anatomy.yaml",
    "boolq": "super_glue/boolq/default.yaml",
    "rte": "super_glue/rte/default.yaml",
    "cola": "glue/cola/default.yaml",
    "race_high": "race/race.yaml",
    "two_digit_addition": "arithmetic/arithmetic_2da.yaml",
    "triviaqa": "triviaqa/default.yaml",
    "naturalqs": "nq_open/nq_open.yaml",
    "webqs": "webqs/webqs.yaml",
    "xquad_de": "xquad/xquad_de.yaml",
    "xquad_zh": "xquad/xquad_zh.yaml",
    "summarise": "cnn_dailymail/cnn_dailymail.yaml",
    "translate_en_de": "translation/wmt16_en-de.yaml",
}
HUGGING_FACE = {
    "lambada": [{"text": 'He said, "I saw\nthe cat'}, {"text": "It's the  old cat."}],
    "hellaswag": [
        FORMS["hellaswag"]["Hugging Face"],
        FORMS["hellaswag"]["Hugging Face"]
        | {"ctx_a": "A man sits.", "ctx_b": "the Tall man", "endings": ["a  b", "c", "d", "é [x]"]},
        FORMS["hellaswag"]["Hugging Face"] | {"ctx_a": "How to. [step] Go.", "ctx_b": ""},
    ],
    "copa": [
        FORMS["copa"]["TFDS"],
        FORMS["copa"]["TFDS"] | {"question": "cause", "premise": "It fell down. ", "label": 0},
    ],
    "wsc273": [
        FORMS["wsc273"]["Hugging Face"],
        {"text": "Al met Bo. His dog ran to The barn.", "pronoun": "His", "pronoun_loc": 11,
         "quote": "", "quote_loc": 0, "options": ["Al", "The boy"], "label": 0, "source": ""},
        {"text": "Al met Bo since his dog  ran.", "pronoun": "his", "pronoun_loc": 16,
         "quote": "", "quote_loc": 0, "options": ["The boy", "Bo"], "label": 0, "source": ""},
    ],
    "winogrande": [
        FORMS["winogrande"]["official"],
        {"sentence": "Al met Bo; _'s dog ran. ", "option1": "Al", "option2": "Bo", "answer": "1"},
    ],
    "boolq": [FORMS["boolq"]["Hugging Face"]],
    "rte": [FORMS["rte"]["TFDS"]],
    "storycloze": [FORMS["storycloze"]["Hugging Face"]],
    "race_high": [
        {
            "article": ARTICLE,
            "problems": str(
                [
                    {"question": "Who?", "answer": "B", "options": ["a", "b", "c", "d"]},
                    {"question": "It was  _  .", "answer": "A", "options": ["e", "f", "g", "h"]},
                ]
            ),
        }
    ],
    "blimp": [FORMS["blimp"]["official"]],
    "commonsenseqa": [
        FORMS["commonsenseqa"]["Hugging Face"]
        | {"choices": {"text": ["a", "b", "c", "d", "e"], "label": list("ABCDE")}}
    ],
    "mmlu": [FORMS["mmlu"]["Hugging Face"] | {"subject": "anatomy"}],
    "cola": [FORMS["cola"]["TFDS"]],
    "piqa": [FORMS["piqa"]["TFDS"]],
    "two_digit_addition": [FORMS["two_digit_addition"]["official"]],
    "naturalqs": [FORMS["naturalqs"]["official"]],
    "summarise": [FORMS["summarise"]["CNN"]],
}  # fmt: skip
"""Records as Hugging Face has them, edges among them; of the other tasks, `task_records`'."""


def one_space(context, continuation):
    """Theirs puts a space before a continuation that begins with one."""
    return context, re.sub(r"^ +", " ", continuation)


def small_words(context, continuation):
    """GPT-3's appendix G has BoolQ and RTE in small letters."""
    context = context.replace("\nQuestion: ", "\nquestion: ").replace("\nAnswer:", "\nanswer:")
    return context, continuation


def arithmetic(context, continuation):
    """The text of GPT-3's own files, and the end of the answer's line."""
    context = context.replace("Question: ", "Q: ").replace("\nAnswer:", "\n\nA:")
    return context, f"{continuation}\n"


DIFFERENCES = {
    "copa": one_space,
    "wsc273": lambda context, rest: one_space(context, rest.replace("  ", " ")),
    "openbookqa": lambda question, choice: (f"Question: {question}\nAnswer:", choice),
    "boolq": small_words,
    "rte": small_words,
    "two_digit_addition": arithmetic,
}
"""What makes their (context, continuation) ours, where they differ."""
WRITTEN = {
    "triviaqa": ("Question: Which metal??\nAnswer:", "Q: Which metal?\n\nA:"),
    "naturalqs": ("Answer these questions:\n\nQ: which metal?\nA:", "Q: which metal\n\nA:"),
    "summarise": (
        f"Summarize the following article:\n\n{ARTICLE}\n\nSummary:", f"{ARTICLE}\nTL;DR:"
    ),
    "translate_en_de": (
        "English phrase: Al runs.\nGerman phrase:",
        "Q: What is the German translation of Al runs.\nA:",
    ),
}  # fmt: skip
"""Prompts of tasks that write: (theirs, ours), where they differ."""


def theirs(name, found):
    """The harness's task on our records, with its requests: [[(context, continuation)]]."""
    config = load_yaml(TASKS / FILES[name], resolve_func=True)
    data = datasets.Dataset.from_list(found)
    splits = ("training_split", "validation_split", "test_split", "fewshot_split")
    named = {config[split]: data for split in splits if config.get(split)}
    config |= {"custom_dataset": lambda **_: datasets.DatasetDict(named), "metadata": {}}
    config.pop("dataset_kwargs", None)
    task = ConfigurableTask(config=config)
    task.build_all_requests(limit=None, rank=0, world_size=1)
    asked = [[] for _ in found]
    for instance in task.instances:
        asked[instance.doc_id].append(instance.args)
    return task, asked


def ours(name, found):
    return [item for record in found for item in CATALOG[name].read(record)]


def records_of(name):
    if name == "lambada_blank":
        return HUGGING_FACE["lambada"]
    return HUGGING_FACE.get(name) or [FORMS[name]["Hugging Face"]]


CHOSEN = [
    n for n in FILES if CATALOG[n].kind != "generate" and n not in ("race_high", "lambada_blank")
]


@pytest.mark.parametrize("name", [*CHOSEN, "lambada_blank"])
def test_requests_are_the_harnesses(name):
    """But for DIFFERENCES; and the headline measure is one that their task reports."""
    found = records_of(name)
    task, asked = theirs(name, found)
    change = DIFFERENCES.get(name, lambda *pair: pair)
    items = ours(name, found)
    before = prompts(CATALOG[name], items, [], shots=0, seed=0)
    pairs = [
        [(prompt + context, choice) for context, choice in item.pairs()]
        for prompt, item in zip(before, items, strict=True)
    ]
    assert pairs == [[change(*pair) for pair in of] for of in asked]
    reported = set(task._metric_fn_list)
    if CATALOG[name].kind == "cloze":
        assert "acc" in reported
        return
    expected = "acc_norm" if "acc_norm" in reported else "acc"
    assert name == "cola" or measures.HARNESS[CATALOG[name].measure] == expected
    golds = [task.doc_to_text(d) if task.multiple_input else task.doc_to_target(d)
             for d in task.eval_docs]  # fmt: skip
    if all(isinstance(gold, int) for gold in golds):
        assert [item.gold for item in items] == golds


def test_a_schema_with_two_spaces_is_cut_at_its_pronoun():
    """Theirs joins the spaces first, and cuts at the old place: "since hBo's"."""
    record = {"text": "Al met Bo since  his dog ran.", "pronoun": "his", "pronoun_loc": 17,
              "quote": "", "quote_loc": 0, "options": ["Al", "Bo"], "label": 0,
              "source": ""}  # fmt: skip
    _, (asked,) = theirs("wsc273", [record])
    assert asked[1][0] == "Al met Bo since hBo's"
    (item,) = ours("wsc273", [record])
    assert item.pairs()[1] == ("Al met Bo since Bo's", " dog ran.")


def test_headline_scores_are_theirs():
    """On scores at which characters, tokens and bytes choose differently."""
    found = records_of("hellaswag")
    task, _ = theirs("hellaswag", found)
    items = ours("hellaswag", found)
    logs = [[-9.0, -12.0, -6.0, -7.0], [-4.0, -2.0, -1.5, -3.9], [-3.0, -3.1, -2.9, -8.0]]
    scores = [[Score(log, False, False, 1) for log in of_item] for of_item in logs]
    numbers = measures.choice_numbers(CATALOG["hellaswag"], items, scores)
    by_hand = [
        task.process_results(doc, [(log, False) for log in of_item])
        for doc, of_item in zip(task.eval_docs, logs, strict=True)
    ]
    for ours_, theirs_ in (("accuracy", "acc_norm"), ("accuracy_raw", "acc")):
        assert numbers[ours_] == pytest.approx(sum(r[theirs_] for r in by_hand) / 3)
    assert numbers["accuracy"] != numbers["accuracy_raw"]


@pytest.mark.parametrize("name", ["triviaqa", "naturalqs", "xquad_de", "xquad_zh", "summarise",
                                  "translate_en_de"])  # fmt: skip
def test_prompts_of_written_answers(name):
    """Their templates alone: the modules beside them import metrics that take seconds."""
    (record,) = records_of(name)
    config = load_yaml(TASKS / FILES[name], resolve_func=False)
    prompt = config.get("description", "") + apply_template(config["doc_to_text"], record)
    (item,) = ours(name, [record])
    assert (prompt, item.context) == WRITTEN.get(name, (item.context, item.context))


def test_the_guide_lists_every_task_and_every_difference(repository):
    guide = (repository / "gpt_jax" / "evaluate" / "README.md").read_text(encoding="utf-8")
    tasks, differences = (guide.split(f"\n## {title}\n")[1].split("\n## ")[0]
                          for title in ("Tasks", "Beside lm-evaluation-harness"))  # fmt: skip
    families = ("xquad", "scramble", "translate", "race")
    for name in CATALOG:
        family = next((f for f in families if name.startswith(f)), name)
        assert f"`{family}" in tasks or "_digit_" in name or "three_ops" in name, name
    for name in (*DIFFERENCES, *WRITTEN):
        family = next((f for f in families if name.startswith(f)), name)
        assert f"`{family}" in differences or "_digit_" in name, name


def test_race_asks_every_question_by_itself():
    """Theirs asks an article's last question, with the ones before it solved."""
    found = records_of("race_high")
    _, (asked,) = theirs("race_high", found)
    assert len(asked) == 4
    assert asked[0] == (f"Article: {ARTICLE}\n\nQuestion: Who?\nAnswer: b\nIt was  _  .", " e")
    first, last = ours("race_high", found)
    assert first.pairs()[1] == (f"Article: {ARTICLE}\n\nQuestion: Who?\nAnswer:", " b")
    assert last.pairs()[0] == (f"Article: {ARTICLE}\n\nQuestion: It was  _  .\nAnswer:", " e")


def test_webquestions_are_written_and_not_scored():
    """Theirs asks for the log-probability of each answer."""
    _, (asked,) = theirs("webqs", records_of("webqs"))
    assert asked[0] == ("Question: which metal?\nAnswer:", " Sn")
    (item,) = ours("webqs", records_of("webqs"))
    assert item.context == "Q: which metal?\n\nA:"


def test_squads_prompt_is_theirs():
    """Their task is a class whose data set is downloaded: its method alone is called."""
    from lm_eval.tasks.squadv2.task import SQuAD2

    record = FORMS["squadv2"]["Hugging Face"]
    (item,) = ours("squadv2", [record])
    assert item.context == SQuAD2.doc_to_text(None, record)
    unanswerable = record | {"answers": {"text": [], "answer_start": []}}
    (item,) = ours("squadv2", [unanswerable])
    assert SQuAD2.doc_to_target(None, unanswerable) == f" {item.answers[0]}"


@pytest.mark.parametrize(("name", "n"), [("lambada", 300), ("two_digit_addition", 100)])
def test_published_items_ask_what_the_harness_asks(shared_data, name, n):
    path = shared_data / "eval"
    items = read_items(CATALOG[name], path, tfds=False).items[:n]
    file = CATALOG[name].files[0]
    found = [json.loads(line) for line in _lines(path, file)[:n]]
    if name == "lambada":
        found = [{"text": f"{r['context']} {r['continuation']}"} for r in found]
    _, asked = theirs(name, found)
    change = DIFFERENCES.get(name, lambda *pair: pair)
    assert [item.pairs()[0] for item in items] == [change(*pair) for (pair,) in asked]


def test_the_fault_of_hellaswag_is_asked_as_the_harness_asks_it(shared_data):
    path = shared_data / "faults" / "hellaswag_jsonl" / "hellaswag_val.jsonl"
    found = [json.loads(line) for line in path.read_text().split("\n") if line]
    _, asked = theirs("hellaswag", found)
    assert [item.pairs() for item in read_file(CATALOG["hellaswag"], path).items] == asked


def _lines(folder, name):
    from gpt_jax.data import records
    from gpt_jax.storage import tables

    return tables.read_text(records.find(folder, [name])).split("\n")
