"""Forms of tasks that ask a question with choices. Must not import jax."""

import ast
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from gpt_jax.evaluate.formats import form
from gpt_jax.evaluate.formats.completions import HUB, OFFICIAL, TFDS, query_form
from gpt_jax.evaluate.formats.form import Form, Forms, integer, look_up, one_of, text, texts
from gpt_jax.evaluate.tasks import Item, Record

LETTERS = "ABCD"


def asked(question: str) -> str:
    """The prompt of a question (GPT-3, appendix G; lm-evaluation-harness)."""
    return f"Question: {question}\nAnswer:"


def bare_question(query: str) -> str:
    """A query without the words that a file puts around its question."""
    query = re.sub(r"\s*\bAnswer:$", "", query)
    return re.sub(r"^Question:\s*", "", query).strip()


def _choices(choices: Sequence[str]) -> tuple[str, ...]:
    return tuple(f" {choice}" for choice in choices)


def _asked_query(query: str) -> str:
    return asked(bare_question(query))


def _piqa(record: Record) -> Iterator[Item]:
    choices = _choices([text(record, name) for name in ("sol1", "sol2")])
    yield Item(asked(text(record, "goal")), choices, integer(record, "label", 0, 1))


PIQA = Forms(
    (
        Form(f"{OFFICIAL}, {HUB} and {TFDS}", ("goal", "sol1", "sol2", "label"), _piqa),
        query_form(_asked_query),
    )
)


def _listed(question: str, choices: str) -> Callable[[Record], Iterator[Item]]:
    """Choices as a list of objects, {"text", "label"} each."""

    def read(record: Record) -> Iterator[Item]:
        found = form.objects(record, choices)
        if len(found) < 2:
            raise ValueError(f"field {choices} has {len(found)} entries; it needs 2 or more")
        shown = _choices([text(choice, "text") for choice in found])
        gold = form.position(record, "answerKey", [look_up(c, "label") for c in found])
        yield Item(asked(text(record, question)), shown, gold)

    return read


def _columns(question: str) -> Callable[[Record], Iterator[Item]]:
    """Choices as two lists, texts and labels."""

    def read(record: Record) -> Iterator[Item]:
        choices, labels = texts(record, "choices.text"), look_up(record, "choices.label")
        if not isinstance(labels, list | tuple) or len(labels) != len(choices):
            told = form.shown(labels)
            raise ValueError(f"field choices.label is {told}; it must be a label a choice")
        gold = form.position(record, "answerKey", labels)
        yield Item(asked(text(record, question)), _choices(choices), gold)

    return read


def _openbookqa_tfds(record: Record) -> Iterator[Item]:
    choices = _choices([text(record, f"question.choice_{letter}") for letter in LETTERS])
    answers: dict[Any, int] = {letter.lower(): i for i, letter in enumerate(LETTERS)}
    answers |= {i: i for i in range(len(LETTERS))}
    gold = one_of(record, "answerKey", answers)
    yield Item(asked(text(record, "question.stem")), choices, gold)


_STEM = Form(
    OFFICIAL,
    ("question.stem", "question.choices", "answerKey"),
    _listed("question.stem", "question.choices"),
)
ARC = Forms(
    (
        _STEM,
        Form(
            f"{HUB} and {TFDS}",
            ("question", "choices.text", "choices.label", "answerKey"),
            _columns("question"),
        ),
        query_form(_asked_query),
    )
)
_OPTIONS = tuple(f"question.choice_{letter}" for letter in LETTERS)
OPENBOOKQA = Forms(
    (
        _STEM,
        Form(
            HUB,
            ("question_stem", "choices.text", "choices.label", "answerKey"),
            _columns("question_stem"),
        ),
        Form(TFDS, ("question.stem", *_OPTIONS, "answerKey"), _openbookqa_tfds),
        query_form(_asked_query),
    )
)

YES: dict[Any, int] = {"false": 0, "true": 1, "no": 0, "yes": 1, "0": 0, "1": 1, 0: 0, 1: 1}


def _boolq_item(passage: str, question: str, gold: int) -> Item:
    question = question.rstrip().rstrip("?")
    return Item(f"{passage}\nquestion: {question}?\nanswer:", (" no", " yes"), gold)


def _boolq(answer: str) -> Callable[[Record], Iterator[Item]]:
    def read(record: Record) -> Iterator[Item]:
        gold = one_of(record, answer, YES)
        yield _boolq_item(text(record, "passage"), text(record, "question"), gold)

    return read


def _boolq_query(record: Record) -> Iterator[Item]:
    found = re.fullmatch(
        r"(?:Passage: *)?(.+)\n(?:Question|question): *(.+?)(?:\n(?:Answer|answer):)?",
        text(record, "query"),
        re.S,
    )
    if found is None:
        raise ValueError("field query is not `Passage: ...`, then a line `Question: ...`")
    choices = texts(record, "choices")
    gold = {"gold": choices[integer(record, "gold", 0, len(choices) - 1)]}
    yield _boolq_item(found[1].strip(), found[2], one_of(gold, "gold", YES))


BOOLQ = Forms(
    (
        Form(f"{OFFICIAL}, {HUB} and {TFDS}", ("passage", "question", "answer"), _boolq("answer")),
        Form("SuperGLUE", ("passage", "question", "label"), _boolq("label")),
        Form(query_form(str).name, ("query", "choices", "gold"), _boolq_query),
    )
)

ENTAILMENT: dict[Any, int] = {"entailment": 0, "not_entailment": 1, 0: 0, 1: 1, "0": 0, "1": 1}


def _rte(premise: str, hypothesis: str) -> Callable[[Record], Iterator[Item]]:
    def read(record: Record) -> Iterator[Item]:
        said, asks = text(record, premise), text(record, hypothesis)
        context = f"{said}\nquestion: {asks} True or False?\nanswer:"
        yield Item(context, (" True", " False"), one_of(record, "label", ENTAILMENT))

    return read


RTE = Forms(
    (
        Form(
            f"SuperGLUE, {HUB} and {TFDS}",
            ("premise", "hypothesis", "label"),
            _rte("premise", "hypothesis"),
        ),
        Form(
            f"GLUE, {HUB} and {TFDS}",
            ("sentence1", "sentence2", "label"),
            _rte("sentence1", "sentence2"),
        ),
        query_form(str),
    )
)


def _cola(record: Record) -> Iterator[Item]:
    context = f"{text(record, 'sentence')}\nQuestion: Does this sentence make sense?\nAnswer:"
    yield Item(context, (" no", " yes"), integer(record, "label", 0, 1))


COLA = Forms(
    (Form(f"{OFFICIAL}, GLUE, {HUB} and {TFDS}", ("sentence", "label"), _cola), query_form(str))
)


def _race_item(article: str, question: str, options: Sequence[str], gold: int) -> Item:
    return Item(f"Article: {article}\n\n{asked(question)}", _choices(options), gold)


def _letter(record: Record, path: str, n: int) -> int:
    answers: dict[Any, int] = {"abcdefgh"[i]: i for i in range(min(n, 8))}
    return one_of(record, path, answers | {i: i for i in range(n)})


def _race(record: Record) -> Iterator[Item]:
    """An article with several questions."""
    article, questions = text(record, "article"), texts(record, "questions", least=1)
    options, answers = look_up(record, "options"), look_up(record, "answers")
    for name, value in (("options", options), ("answers", answers)):
        if not isinstance(value, list | tuple) or len(value) != len(questions):
            raise ValueError(
                f"field {name} is {form.shown(value)}; it must have an entry a question"
            )
    for question, choices, answer in zip(questions, options, answers, strict=True):
        one = {"options": choices, "answers": answer}
        found = texts(one, "options")
        yield _race_item(article, question, found, _letter(one, "answers", len(found)))


def _race_one(record: Record) -> Iterator[Item]:
    options = texts(record, "options")
    gold = _letter(record, "answer", len(options))
    yield _race_item(text(record, "article"), text(record, "question"), options, gold)


def _race_problems(record: Record) -> Iterator[Item]:
    """A list of {question, answer, options}, written as Python writes it."""
    written = text(record, "problems")
    try:
        problems = ast.literal_eval(written)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise ValueError(f"field problems is not a list: {form.shown(written)}") from None
    for problem in form.objects({"problems": problems}, "problems"):
        options = texts(problem, "options")
        gold = _letter(problem, "answer", len(options))
        yield _race_item(text(record, "article"), text(problem, "question"), options, gold)


RACE = Forms(
    (
        Form(f"{OFFICIAL} and {TFDS}", ("article", "questions", "options", "answers"), _race),
        Form(HUB, ("article", "question", "options", "answer"), _race_one),
        Form("EleutherAI's", ("article", "problems"), _race_problems),
        query_form(str),
    )
)
