"""Forms of tasks that scaling studies chain losses to: minimal pairs, and questions with letters.

Must not import jax.
"""

from collections.abc import Iterator, Sequence

from gpt_jax.evaluate.formats import form
from gpt_jax.evaluate.formats.completions import HUB, OFFICIAL
from gpt_jax.evaluate.formats.form import Form, Forms, integer, look_up, one_of, text, texts
from gpt_jax.evaluate.tasks import Item, Record

LETTERS = "ABCDE"
MMLU_INSTRUCTION = "The following are multiple choice questions (with answers) about {group}.\n\n"


def _pair(record: Record) -> Iterator[Item]:
    sentences = tuple(f" {text(record, name)}" for name in ("sentence_good", "sentence_bad"))
    yield Item("", sentences, 0, group=text(record, "UID"))


BLIMP = Forms((Form(f"{OFFICIAL} and {HUB}", ("sentence_good", "sentence_bad", "UID"), _pair),))


def _lettered(question: str, choices: Sequence[str], gold: int, group: str = "") -> Item:
    """A question above its choices, whose letters are what is chosen between."""
    listed = "".join(f"{LETTERS[i]}. {choice}\n" for i, choice in enumerate(choices))
    letters = tuple(f" {LETTERS[i]}" for i in range(len(choices)))
    return Item(f"{question}\n{listed}Answer:", letters, gold, group=group)


def _check_letters(choices: Sequence[str]) -> None:
    if len(choices) > len(LETTERS):
        raise ValueError(f"{len(choices)} choices; at most {len(LETTERS)} have a letter")


def _commonsenseqa(record: Record) -> Iterator[Item]:
    choices = texts(record, "choices.text")
    _check_letters(choices)
    gold = form.position(record, "answerKey", look_up(record, "choices.label"))
    yield _lettered(f"Question: {text(record, 'question')}", choices, gold)


def _commonsenseqa_official(record: Record) -> Iterator[Item]:
    found = form.objects(record, "question.choices")
    choices = [text(choice, "text") for choice in found]
    _check_letters(choices)
    gold = form.position(record, "answerKey", [look_up(choice, "label") for choice in found])
    yield _lettered(f"Question: {text(record, 'question.stem')}", choices, gold)


COMMONSENSEQA = Forms(
    (
        Form(
            OFFICIAL,
            ("question.stem", "question.choices", "answerKey"),
            _commonsenseqa_official,
        ),
        Form(HUB, ("question", "choices.text", "choices.label", "answerKey"), _commonsenseqa),
    )
)


def _socialiqa(record: Record) -> Iterator[Item]:
    choices = tuple(f" {text(record, f'answer{letter}')}" for letter in "ABC")
    gold = one_of(record, "label", {1: 0, 2: 1, 3: 2, "1": 0, "2": 1, "3": 2})
    yield Item(f"Q: {text(record, 'context')} {text(record, 'question')}\nA:", choices, gold)


SOCIALIQA = Forms(
    (
        Form(
            f"{OFFICIAL} and {HUB}",
            ("context", "question", "answerA", "answerB", "answerC", "label"),
            _socialiqa,
        ),
    )
)


def _mmlu(record: Record) -> Iterator[Item]:
    choices = texts(record, "choices")
    _check_letters(choices)
    gold = integer(record, "answer", 0, len(choices) - 1)
    subject = text(record, "subject").replace("_", " ")
    yield _lettered(text(record, "question"), choices, gold, subject)


MMLU = Forms((Form(HUB, ("question", "subject", "choices", "answer"), _mmlu),))
