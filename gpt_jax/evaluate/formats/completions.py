"""Forms of tasks whose context is continued: a last word, an ending, the rest of a sentence.

Must not import jax.
"""

import re
from collections.abc import Callable, Iterator

from gpt_jax.evaluate import generated
from gpt_jax.evaluate.detokenize import detokenize_ptb
from gpt_jax.evaluate.formats.form import Form, Forms, integer, look_up, shown, text, texts
from gpt_jax.evaluate.tasks import Item, Record

OFFICIAL, HUB, TFDS = "official", "Hugging Face", "TFDS"
SHARED = "llm-foundry and lm-evaluation-harness"
BLANK = "____. ->"


def query_form(context: Callable[[str], str], choice: Callable[[str], str] = str) -> Form:
    """The form that llm-foundry's files and the records of lm-evaluation-harness share.

    context: from the query to the text that the choices follow.
    """

    def read(record: Record) -> Iterator[Item]:
        choices = texts(record, "choices")
        gold = integer(record, "gold", 0, len(choices) - 1)
        endings = tuple(f" {choice(c)}" for c in choices)
        yield Item(context(text(record, "query")), endings, gold)

    return Form(SHARED, ("query", "choices", "gold"), read)


def schema_form() -> Form:
    """The form of llm-foundry's Winograd schemas: each choice is a context."""

    def read(record: Record) -> Iterator[Item]:
        contexts = texts(record, "context_options")
        gold = integer(record, "gold", 0, len(contexts) - 1)
        yield Item("", (f" {text(record, 'continuation')}",), gold, contexts)

    return Form("llm-foundry", ("context_options", "continuation", "gold"), read)


def _last_word(path: str) -> Callable[[Record], Iterator[Item]]:
    def read(record: Record) -> Iterator[Item]:
        context, space, word = text(record, path).rpartition(" ")
        if not space:
            raise ValueError(f"field {path} is one word: there is nothing before its last")
        yield Item(context, (f" {word}",))

    return read


def _continued(record: Record) -> Iterator[Item]:
    """The word may stand after a line break, which the other forms keep: it is scored too."""
    for path in ("context", "continuation"):
        text(record, path)
    context, word = (str(look_up(record, path)) for path in ("context", "continuation"))
    yield Item(context.lstrip(), (f" {word.strip(' ')}",))


LAMBADA = Forms(
    (
        Form("llm-foundry", ("context", "continuation"), _continued),
        Form(f"{OFFICIAL} and {HUB}", ("text",), _last_word("text")),
        Form(TFDS, ("passage",), _last_word("passage")),
    )
)


def _blank(form: Form) -> Form:
    def read(record: Record) -> Iterator[Item]:
        for item in form.read(record):
            yield Item(f"{item.context} {BLANK}", item.choices)

    return Form(form.name, form.fields, read)


LAMBADA_BLANK = Forms(tuple(_blank(form) for form in LAMBADA.forms))


def hellaswag_text(raw: str) -> str:
    """Text without WikiHow's markers, as lm-evaluation-harness cleans it: [title] ends a sentence,
    [header], [step], [substeps] and the like go."""
    cleaned = re.sub(r"\[.*?\]", "", raw.strip().replace(" [title]", ". "))
    return cleaned.replace("  ", " ")


def hellaswag_context(context: str) -> str:
    """A context whose second part is not marked: what follows the last sentence that ends.

    Of the 10,042 validation items 3,243 end without a full stop, which are those of ActivityNet,
    whose second part begins a sentence; the others, WikiHow's, have an empty one.
    """
    context = context.strip()
    ends = [match.end() for match in re.finditer(r"[.!?] ", context)]
    if not ends or context[-1] in ".!?":
        return context
    return context[: ends[-1]] + context[ends[-1] :].capitalize()


def _hellaswag(context: Callable[[Record], str]) -> Callable[[Record], Iterator[Item]]:
    def read(record: Record) -> Iterator[Item]:
        endings = tuple(f" {hellaswag_text(ending)}" for ending in texts(record, "endings"))
        whole = hellaswag_text(f"{text(record, 'activity_label')}: {context(record)}")
        yield Item(whole.rstrip(), endings, integer(record, "label", 0, len(endings) - 1))

    return read


def _two_parts(record: Record) -> str:
    second = text(record, "ctx_b", blank=True)
    return f"{text(record, 'ctx_a', blank=bool(second))} {second.capitalize()}"


def _hellaswag_form(name: str, *parts: str) -> Form:
    context = _two_parts if len(parts) == 2 else lambda r: hellaswag_context(text(r, parts[0]))
    return Form(name, ("activity_label", *parts, "endings", "label"), _hellaswag(context))


HELLASWAG = Forms(
    (
        _hellaswag_form(f"{OFFICIAL} and {HUB}", "ctx_a", "ctx_b"),
        _hellaswag_form("six lines an item", "ctx"),
        _hellaswag_form(TFDS, "context"),
        query_form(hellaswag_text, hellaswag_text),
    )
)


def _lower_first(choice: str) -> str:
    return choice[:1].lower() + choice[1:]


def _copa(record: Record) -> Iterator[Item]:
    words = {"cause": "because", "effect": "therefore"}
    kind = text(record, "question")
    if kind not in words:
        raise ValueError(f"field question is {shown(kind)}; allowed: {', '.join(words)}")
    premise = text(record, "premise")
    premise = premise[:-1] if premise[-1] in ".!?" else premise
    choices = tuple(f" {_lower_first(text(record, f'choice{i}'))}" for i in (1, 2))
    yield Item(f"{premise} {words[kind]}", choices, integer(record, "label", 0, 1))


def _copa_query(query: str) -> str:
    """llm-foundry's file has a comma before the word that joins, GPT-3 and the harness none."""
    return re.sub(r", (because|therefore)$", r" \1", query)


COPA = Forms(
    (
        Form(
            f"SuperGLUE, {HUB} and {TFDS}",
            ("premise", "choice1", "choice2", "question", "label"),
            _copa,
        ),
        query_form(_copa_query, _lower_first),
    )
)


def _storycloze(
    story: tuple[str, ...], quiz: tuple[str, str], answer: str
) -> Callable[[Record], Iterator[Item]]:
    def read(record: Record) -> Iterator[Item]:
        endings = tuple(f" {text(record, name)}" for name in quiz)
        gold = integer(record, answer, 1, 2) - 1
        yield Item(" ".join(text(record, name) for name in story), endings, gold)

    return read


def _storycloze_form(name: str, sentence: str, quiz: str, answer: str) -> Form:
    story = tuple(f"{sentence}{i}" for i in range(1, 5))
    endings = (f"{quiz}1", f"{quiz}2")
    return Form(name, (*story, *endings, answer), _storycloze(story, endings, answer))


def _storycloze_tfds(record: Record) -> Iterator[Item]:
    endings = tuple(f" {ending}" for ending in texts(record, "endings"))
    yield Item(text(record, "context"), endings, integer(record, "label", 1, len(endings)) - 1)


STORYCLOZE = Forms(
    (
        _storycloze_form(OFFICIAL, "InputSentence", "RandomFifthSentenceQuiz", "AnswerRightEnding"),
        _storycloze_form(HUB, "input_sentence_", "sentence_quiz", "answer_right_ending"),
        _storycloze_form(
            "lm-evaluation-harness, older",
            "input_sentence_",
            "text_right_ending_",
            "answer_right_ending",
        ),
        Form(TFDS, ("context", "endings", "label"), _storycloze_tfds),
        query_form(str),
    )
)


def _cbt(record: Record) -> Iterator[Item]:
    """The probability of a choice and of the rest of the sentence after it (GPT-2, section 3.2)."""
    story = detokenize_ptb(" ".join(texts(record, "sentences", least=1))).strip()
    before, blank, rest = text(record, "question").partition("XXXXX")
    if not blank:
        raise ValueError("field question has no XXXXX, the place of the word")
    options, answer = texts(record, "options"), text(record, "answer")
    if answer not in options:
        raise ValueError(f"field answer is {answer!r}; it is none of the options")
    context = f"{story} {detokenize_ptb(before)}".strip()
    endings = tuple(" " + detokenize_ptb(option + rest).strip() for option in options)
    yield Item(context, endings, options.index(answer))


CBT = Forms((Form(f"{OFFICIAL} and {HUB}", ("sentences", "question", "answer", "options"), _cbt),))

POSSESSIVES = ("my", "his", "her", "our", "their")
CAPITALS = ("A", "An", "The", "She", "He", "It", "They", "My", "His", "Her", "Their")


def _winograd_option(option: str, pronoun: str, begins: bool) -> str:
    """An option as it stands in the pronoun's place, as lm-evaluation-harness puts it."""
    if pronoun.lower() in POSSESSIVES:
        option += "'s"
    first = option.split()[0]
    return option.replace(first, first.lower()) if first in CAPITALS and not begins else option


def _content(record: Record) -> str:
    """The text with the white space at its ends: places are counted from its beginning."""
    text(record, "text")
    return str(look_up(record, "text"))


def _wsc273(record: Record) -> Iterator[Item]:
    """The published form: a text, and where in it the pronoun begins."""
    content = _content(record)
    pronoun, options = text(record, "pronoun"), texts(record, "options")
    begin = integer(record, "pronoun_loc", 0, max(0, len(content) - 1))
    end = begin + len(pronoun)
    if content[begin:end].lower() != pronoun.lower():
        raise ValueError(f"field pronoun_loc is {begin}; {pronoun!r} is not there in the text")
    before, rest = content[:begin].replace("  ", " "), content[end:].strip()
    begins = content[:begin].rstrip().endswith(".")
    contexts = tuple(before + _winograd_option(option, pronoun, begins) for option in options)
    yield _schema(contexts, rest, integer(record, "label", 0, len(options) - 1), "text")


def _wsc273_tfds(record: Record) -> Iterator[Item]:
    content = _content(record)
    begin = integer(record, "pronoun_start", 0, len(content))
    end = integer(record, "pronoun_end", begin, len(content))
    before = content[:begin].replace("  ", " ")
    contexts = tuple(before + text(record, f"option{i}_normalized") for i in (1, 2))
    yield _schema(contexts, content[end:].strip(), integer(record, "label", 0, 1), "text")


def _schema(contexts: tuple[str, ...], rest: str, gold: int, path: str) -> Item:
    if not rest:
        raise ValueError(f"field {path} ends where the options stand: nothing is left to score")
    return Item("", (" " + rest.replace("  ", " "),), gold, contexts)


WSC273 = Forms(
    (
        schema_form(),
        Form(HUB, ("text", "pronoun", "pronoun_loc", "options", "label"), _wsc273),
        Form(
            TFDS,
            (
                "text",
                "pronoun_start",
                "pronoun_end",
                "option1_normalized",
                "option2_normalized",
                "label",
            ),
            _wsc273_tfds,
        ),
    )
)


def _winogrande(answer: str, first: int) -> Callable[[Record], Iterator[Item]]:
    def read(record: Record) -> Iterator[Item]:
        before, blank, rest = text(record, "sentence").partition("_")
        if not blank:
            raise ValueError("field sentence has no _, the place of the options")
        contexts = tuple(before + text(record, option) for option in ("option1", "option2"))
        gold = integer(record, answer, first, first + 1) - first
        if not rest.strip():
            raise ValueError("field sentence ends with its _: nothing is left to score")
        yield Item("", (f" {rest.strip()}",), gold, contexts)

    return read


WINOGRANDE = Forms(
    (
        Form(
            f"{OFFICIAL} and {HUB}",
            ("sentence", "option1", "option2", "answer"),
            _winogrande("answer", 1),
        ),
        Form(TFDS, ("sentence", "option1", "option2", "label"), _winogrande("label", 0)),
        schema_form(),
    )
)


def _arithmetic(record: Record) -> Iterator[Item]:
    """The whole answer: it is followed by a line break."""
    yield Item(text(record, "context"), (f" {text(record, 'completion')}\n",))


ARITHMETIC = Forms((Form(OFFICIAL, ("context", "completion"), _arithmetic),))


def scramble_forms(kind: str) -> Forms:
    """Words of a file, or the answers of GPT-3's own items; their letters are scrambled anew."""

    def read(path: str) -> Callable[[Record], Iterator[Item]]:
        def items(record: Record) -> Iterator[Item]:
            word = re.sub(r"\s", "", text(record, path))
            yield Item(f"{generated.scramble(word, kind)} =", (f" {word}\n",))

        return items

    return Forms(
        (
            Form("words", ("word",), read("word")),
            Form(OFFICIAL, ("context", "completion"), read("completion")),
        )
    )
