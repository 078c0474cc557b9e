"""File formats of data sets' own: numbered lines, six lines an item, nested documents.

A parser goes from a file's text and name to its records, each with its place; `Task.parsers` has
one for an ending where a data set needs it, and `gpt_jax.data.records` reads the rest. Must not
import jax.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from gpt_jax.data import records
from gpt_jax.data.records import Located
from gpt_jax.evaluate.formats import form
from gpt_jax.evaluate.tasks import Task
from gpt_jax.storage import tables

HELLASWAG_LINES = 6
"""Lines of an item in the text form: label and context, index of the right ending, 4 endings."""
LABELS = "-labels.lst"
"""PIQA's answers are in a file of their own, dev-labels.lst beside dev.jsonl: a line a record."""
WSC_ITEMS = 273
"""The collection has grown to 285 since."""
COLA_COLUMNS = ("source", "label", "star", "sentence")


def located(task: Task, path: Path) -> Iterator[Located]:
    """Records of a task's file or folder. Raises ValueError naming file and line of a fault."""
    if path.is_dir():
        for file in records.files_below(path):
            yield from located(task, file)
        return
    parser = task.parsers.get(records.suffix_of(path))
    if "{" in path.name or parser is None:
        yield from _with_labels(path, records.located(path))
    else:
        yield from parser(tables.read_text(path), str(path))


def _with_labels(path: Path, found: Iterable[Located]) -> Iterator[Located]:
    """Records with the labels of the file beside theirs, where there is one and they have none."""
    labels = path.with_name(path.name.partition(".")[0] + LABELS)
    if not labels.is_file():
        yield from found
        return
    lines = tables.read_text(labels).split()
    listed = list(found)
    if len(lines) != len(listed):
        raise ValueError(f"{labels} has {len(lines)} labels for {len(listed)} records of {path}")
    for (where, record), label in zip(listed, lines, strict=True):
        unlabelled = isinstance(record, dict) and not {"label", "answer"} & record.keys()
        yield Located(where, {**record, "label": label} if unlabelled else record)


def hellaswag_lines(content: str, name: str) -> Iterator[Located]:
    """Six lines an item. Raises ValueError where they are not."""
    lines = tables.lines(content)
    if len(lines) % HELLASWAG_LINES:
        raise ValueError(f"{name}: {len(lines)} lines are not six an item")
    for i in range(0, len(lines), HELLASWAG_LINES):
        context, gold, *endings = lines[i : i + HELLASWAG_LINES]
        label, colon, context = context.partition(": ")
        where = f"{name} line {i + 1}"
        if not colon:
            raise ValueError(f"{where}: not `activity: context`: {form.shown(lines[i])}")
        record = {"activity_label": label, "ctx": context, "label": gold, "endings": endings}
        yield Located(where, record)


def cbt_lines(content: str, name: str) -> Iterator[Located]:
    """Twenty numbered sentences and a query with its answer and candidates, tab separated, with a
    blank line after each. Raises ValueError for a block without a query."""
    first, block = 1, []
    for number, text in enumerate([*tables.lines(content), ""], 1):
        if text.strip():
            block.append(text)
            continue
        if block:
            yield Located(f"{name} line {first}", _cbt_block(block, name, first))
        first, block = number + 1, []


def _cbt_block(block: list[str], name: str, first: int) -> dict[str, Any]:
    numbered = [text.partition(" ") for text in block]
    if not all(number.isdecimal() for number, _, _ in numbered):
        raise ValueError(f"{name} line {first}: not CBT's numbered lines: {form.shown(block[0])}")
    cells = numbered[-1][2].split("\t")
    if len(cells) < 3:
        last = first + len(block) - 1
        raise ValueError(f"{name} line {last}: not CBT's query, answer and candidates, by tabs")
    return {
        "sentences": [sentence for _, _, sentence in numbered[:-1]],
        "question": cells[0],
        "answer": cells[1],
        "options": [c for c in cells[-1].split("|") if c],
    }


def passages(content: str, name: str) -> Iterator[Located]:
    """LAMBADA's own file: a passage a line."""
    for number, line in enumerate(tables.lines(content), 1):
        if line.strip():
            yield Located(f"{name} line {number}", {"text": line})


def cola_rows(content: str, name: str) -> Iterator[Located]:
    """CoLA's own and GLUE's files have no header: source, label, star, sentence; a table with one
    is read by it. Raises ValueError for other rows."""
    lines = tables.lines(content)
    if lines and {"sentence", "label"} <= {cell.strip() for cell in lines[0].split("\t")}:
        yield from records.parse(content, ".tsv", name)
        return
    for number, line in enumerate(lines, 1):
        where, cells = f"{name} line {number}", line.split("\t")
        if not line.strip():
            continue
        if len(cells) != len(COLA_COLUMNS):
            columns = f"{len(COLA_COLUMNS)}: {', '.join(COLA_COLUMNS)}"
            raise ValueError(f"{where}: {len(cells)} cells; CoLA has {columns}")
        yield Located(where, dict(zip(COLA_COLUMNS, cells, strict=True)))


def copa_xml(content: str, name: str) -> Iterator[Located]:
    """COPA's own file: an item with a premise, two alternatives and the number of the right one."""
    for number, item in enumerate(_xml(content, name).iter("item"), 1):
        premise, *choices = (item.findtext(tag) for tag in ("p", "a1", "a2"))
        record = {
            "premise": premise,
            "choice1": choices[0],
            "choice2": choices[1],
            "question": item.get("asks-for"),
            "label": {"1": 0, "2": 1}.get(item.get("most-plausible-alternative") or ""),
        }
        yield Located(f"{name} item {number}", record)


def winograd_xml(content: str, name: str) -> Iterator[Located]:
    """The collection of Winograd schemas, of which the first WSC_ITEMS are WSC273: the text before
    the pronoun, the pronoun, the text after it, answers and the letter of the right one."""
    for number, schema in enumerate(_xml(content, name).iter("schema"), 1):
        if number > WSC_ITEMS:
            return
        before, pronoun, after = (
            " ".join((schema.findtext(f"text/{tag}") or "").split())
            for tag in ("txt1", "pron", "txt2")
        )
        letter = (schema.findtext("correctAnswer") or "").strip()[:1]
        record = {
            "text": " ".join(filter(None, (before, pronoun, after))),
            "pronoun": pronoun,
            "pronoun_loc": len(before) + bool(before),
            "options": [(answer.text or "").strip() for answer in schema.iter("answer")],
            "label": {"A": 0, "B": 1}.get(letter),
        }
        yield Located(f"{name} schema {number}", record)


def _xml(content: str, name: str) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise ValueError(f"{name} is no XML: {error}") from None


def squad_document(content: str, name: str) -> Iterator[Located]:
    """SQuAD's and XQuAD's own nesting, data > paragraphs > qas, as a record a question; a list of
    such records is read too. Raises ValueError where a level is absent."""
    for document in tables.parse(content, ".json", name).rows:
        if "data" not in document:
            yield Located(document.where, document)
            continue
        for a, article in enumerate(_level(document, "data", name), 1):
            for p, paragraph in enumerate(_level(article, "paragraphs", f"{name} article {a}"), 1):
                place = f"{name} article {a}, paragraph {p}"
                for q, question in enumerate(_level(paragraph, "qas", place), 1):
                    about = {"title": article, "context": paragraph}
                    known = {field: at[field] for field, at in about.items() if field in at}
                    yield Located(f"{place}, question {q}", {**known, **question})


def trivia_document(content: str, name: str) -> Iterator[Located]:
    """TriviaQA's own document, {"Data": [..]}, or a list of records."""
    for document in tables.parse(content, ".json", name).rows:
        if "Data" not in document:
            yield Located(document.where, document)
            continue
        for number, record in enumerate(_level(document, "Data", name), 1):
            yield Located(f"{name} item {number}", record)


def _level(value: dict[str, Any], field: str, place: str) -> list[dict[str, Any]]:
    found = value.get(field)
    if not isinstance(found, list) or not all(isinstance(x, dict) for x in found):
        told = form.shown(found)
        raise ValueError(f"{place}: field {field} is {told}; it must be a list of objects")
    return found
