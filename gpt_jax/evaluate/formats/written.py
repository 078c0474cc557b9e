"""Forms of tasks whose answer is written: closed-book and reading questions, summaries,
translations, articles. Must not import jax.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from gpt_jax.evaluate.formats.completions import HUB, OFFICIAL, TFDS
from gpt_jax.evaluate.formats.form import Form, Forms, look_up, objects, shown, text, texts
from gpt_jax.evaluate.formats.questions import bare_question
from gpt_jax.evaluate.tasks import Item, Record

UNANSWERABLE = "unanswerable"
NAMES = {"en": "English", "de": "German", "fr": "French", "ro": "Romanian"}


def _closed_book(question: str, answers: Sequence[str]) -> Item:
    return Item(f"Q: {question}\n\nA:", answers=tuple(dict.fromkeys(answers)))


def _value_and_aliases(
    question: str, value: str, aliases: str
) -> Callable[[Record], Iterator[Item]]:
    def read(record: Record) -> Iterator[Item]:
        listed = look_up(record, aliases)
        if isinstance(listed, list | tuple):  # some lists hold empty aliases, which say nothing
            listed = [x for x in listed if x != ""]
        answers = (text(record, value), *texts({"aliases": listed}, "aliases", least=0))
        yield _closed_book(bare_question(text(record, question)), answers)

    return read


def _answers(question: str, answers: str) -> Callable[[Record], Iterator[Item]]:
    """One answer, or a list of them."""

    def read(record: Record) -> Iterator[Item]:
        one = isinstance(look_up(record, answers), str)
        found = (text(record, answers),) if one else texts(record, answers, least=1)
        yield _closed_book(text(record, question), found)

    return read


def _webquestions(record: Record) -> Iterator[Item]:
    """The published form: (list (description "a") (description b))."""
    written = text(record, "targetValue")
    found = re.findall(r'\(description (?:"([^"]*)"|([^()"]*))\)', written)
    answers = [(quoted or plain).strip() for quoted, plain in found]
    if not any(answers):
        raise ValueError(f"field targetValue is {shown(written)}; it lists no (description ...)")
    yield _closed_book(text(record, "utterance"), [answer for answer in answers if answer])


CLOSED_BOOK = Forms(
    (
        Form(
            f"TriviaQA, {OFFICIAL}",
            ("Question", "Answer.Value", "Answer.Aliases"),
            _value_and_aliases("Question", "Answer.Value", "Answer.Aliases"),
        ),
        Form(
            f"TriviaQA, {HUB} and {TFDS}",
            ("question", "answer.value", "answer.aliases"),
            _value_and_aliases("question", "answer.value", "answer.aliases"),
        ),
        Form(
            f"NQ-open, {OFFICIAL}, {HUB} and {TFDS}",
            ("question", "answer"),
            _answers("question", "answer"),
        ),
        Form(f"WebQuestions, {HUB}", ("question", "answers"), _answers("question", "answers")),
        Form(f"WebQuestions, {OFFICIAL}", ("utterance", "targetValue"), _webquestions),
        Form(
            "llm-foundry",
            ("context", "answer", "aliases"),
            _value_and_aliases("context", "answer", "aliases"),
        ),
    )
)


class Words(NamedTuple):
    """Names of a reading prompt's parts, by language."""

    context: str
    question: str
    answer: str


XQUAD = {
    "ar": Words("سيا", "سؤال", "إجابة"),
    "de": Words("Kontext", "Frage", "Antwort"),
    "el": Words("Συμφραζόμενα", "Ερώτηση", "Απάντηση"),
    "en": Words("Context", "Question", "Answer"),
    "es": Words("Contexto", "Pregunta", "Respuesta"),
    "hi": Words("प्रसंग", "सवाल", "उत्तर"),
    "ro": Words("Context", "Întrebare", "Răspuns"),
    "ru": Words("Контекст", "Вопрос", "Ответ"),
    "th": Words("บริบท", "คำถาม", "คำตอบ"),
    "tr": Words("Bağlam", "Soru", "Cevap"),
    "vi": Words("Bối cảnh", "Câu hỏi", "Trả lời"),
    "zh": Words("语境", "问题", "回答"),
}
"""The words of lm-evaluation-harness, so that the prompts are the same."""


def _spans(record: Record, unanswerable: bool) -> tuple[str, ...]:
    """The answers of a question: texts, or {text} objects; none where that is allowed."""
    answers = look_up(record, "answers")
    if isinstance(answers, list | tuple):
        found = tuple(text(answer, "text") for answer in objects(record, "answers"))
    else:
        found = texts(record, "answers.text", least=0)
    if not found and not unanswerable:
        raise ValueError("field answers is empty (SQuAD 2.0's unanswerable questions: squadv2)")
    return tuple(dict.fromkeys(found)) or (UNANSWERABLE,)


def _squad(unanswerable: bool) -> Callable[[Record], Iterator[Item]]:
    def read(record: Record) -> Iterator[Item]:
        prompt = f"Title: {text(record, 'title')}\n\nBackground: {text(record, 'context')}\n\n"
        prompt += f"Question: {text(record, 'question')}\n\nAnswer:"
        yield Item(prompt, answers=_spans(record, unanswerable))

    return read


def _prompted(record: Record) -> Iterator[Item]:
    """llm-foundry's file holds the whole prompt."""
    yield Item(text(record, "context"), answers=(text(record, "continuation"),))


def squad_forms(unanswerable: bool) -> Forms:
    """SQuAD 1.1, and 2.0 where a question may have no answer."""
    fields = ("title", "context", "question", "answers")
    return Forms(
        (
            Form(f"{OFFICIAL}, {HUB} and {TFDS}", fields, _squad(unanswerable)),
            Form("llm-foundry", ("context", "continuation"), _prompted),
        )
    )


def xquad_forms(language: str) -> Forms:
    """XQuAD in one of its languages."""
    words = XQUAD[language]

    def read(record: Record) -> Iterator[Item]:
        prompt = f"{words.context}: {text(record, 'context')}\n\n"
        prompt += f"{words.question}: {text(record, 'question')}\n\n{words.answer}:"
        yield Item(prompt, answers=_spans(record, unanswerable=False))

    fields = ("context", "question", "answers")
    return Forms((Form(f"{OFFICIAL}, {HUB} and {TFDS}", fields, read),))


def _summary(article: str, summary: str) -> Callable[[Record], Iterator[Item]]:
    def read(record: Record) -> Iterator[Item]:
        yield Item(f"{text(record, article)}\nTL;DR:", answers=(text(record, summary),))

    return read


SUMMARISE = Forms(
    tuple(
        Form(name, (article, summary), _summary(article, summary))
        for name, article, summary in (
            (f"CNN and Daily Mail, {HUB} and {TFDS}", "article", "highlights"),
            (f"XSum, {HUB} and {TFDS}", "document", "summary"),
            ("article and summary", "article", "summary"),
        )
    )
)


def _news(record: Record) -> Iterator[Item]:
    title = text(record, "title")
    subtitle = text(record, "subtitle", blank=True) if "subtitle" in record else ""
    prompt = f"Title: {title}\nSubtitle: {subtitle}\nArticle:"
    yield Item(prompt, answers=(text(record, "article"),))


NEWS = Forms(
    (
        Form("with a subtitle", ("title", "subtitle", "article"), _news),
        Form("without one", ("title", "article"), _news),
    )
)


def translation_forms(source: str, target: str) -> Forms:
    """Pairs of sentences, in the prompt of GPT-3's appendix G."""

    def read(before: str) -> Callable[[Record], Iterator[Item]]:
        def items(record: Record) -> Iterator[Item]:
            sentence = text(record, f"{before}{source}")
            question = f"Q: What is the {NAMES[target]} translation of {sentence}"
            yield Item(f"{question}\nA:", answers=(text(record, f"{before}{target}"),))

        return items

    pairs = ((HUB, "translation."), (f"pairs of lines, and {TFDS}", ""))
    return Forms(tuple(Form(name, (f"{b}{source}", f"{b}{target}"), read(b)) for name, b in pairs))
