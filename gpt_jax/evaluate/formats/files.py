"""File formats of data sets' own: numbered lines, six lines an item, nested documents.

A parser goes from a file's text to (place in the file, record); `Task.parsers` names one by the
file's ending, and what has none is read by `gpt_jax.data.records`. Must not import jax.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from gpt_jax.data import records
from gpt_jax.data.records import Located
from gpt_jax.evaluate.formats import form
from gpt_jax.evaluate.tasks import Parser, Task

HELLASWAG_LINES = 6
"""Lines of an item in the text form: label and context, index of the right ending, 4 endings."""
LABELS = "-labels.lst"
"""PIQA's answers are in a file of their own, dev-labels.lst beside dev.jsonl: a line a record."""
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
        return
    for place, record in _parsed(path, parser):
        yield Located(f"{path}, {place}", record)


def _parsed(path: Path, parser: Parser) -> Iterator[tuple[str, Any]]:
    try:
        yield from parser(records.read_text(path))
    except ValueError as error:
        told = str(error)
        raise ValueError(told if told.startswith(str(path)) else f"{path}, {told}") from None


def _with_labels(path: Path, found: Iterable[Located]) -> Iterator[Located]:
    """Records with the labels of the file beside theirs, where there is one and they have none."""
    labels = path.with_name(path.name.partition(".")[0] + LABELS)
    if not labels.is_file():
        yield from found
        return
    lines = records.read_text(labels).split()
    listed = list(found)
    if len(lines) != len(listed):
        raise ValueError(f"{labels} has {len(lines)} labels for {len(listed)} records of {path}")
    for (where, record), label in zip(listed, lines, strict=True):
        unlabelled = isinstance(record, dict) and not {"label", "answer"} & record.keys()
        yield Located(where, {**record, "label": label} if unlabelled else record)


def hellaswag_lines(content: str) -> Iterator[tuple[str, Any]]:
    """Six lines an item. Raises ValueError where they are not."""
    lines = content.rstrip("\n").split("\n")
    if len(lines) % HELLASWAG_LINES:
        raise ValueError(f"{len(lines)} lines are not six an item")
    for i in range(0, len(lines), HELLASWAG_LINES):
        context, gold, *endings = lines[i : i + HELLASWAG_LINES]
        label, colon, context = context.partition(": ")
        if not colon:
            raise ValueError(f"line {i + 1}: not `activity: context`: {form.shown(lines[i])}")
        record = {"activity_label": label, "ctx": context, "label": gold, "endings": endings}
        yield f"line {i + 1}", record


def cbt_lines(content: str) -> Iterator[tuple[str, Any]]:
    """Twenty numbered sentences and a query with its answer and candidates, tab separated, with a
    blank line after each. Raises ValueError for a block without a query."""
    line, block = 1, []
    for number, text in enumerate([*content.split("\n"), ""], 1):
        if text.strip():
            block.append(text)
            continue
        if block:
            yield f"line {line}", _cbt_block(block, line)
        line, block = number + 1, []


def _cbt_block(block: list[str], line: int) -> dict[str, Any]:
    numbered = [text.partition(" ") for text in block]
    if not all(number.isdecimal() for number, _, _ in numbered):
        raise ValueError(f"line {line}: not CBT's numbered lines: {form.shown(block[0])}")
    cells = numbered[-1][2].split("\t")
    if len(cells) < 3:
        last = line + len(block) - 1
        raise ValueError(f"line {last}: not CBT's query, answer and candidates, tab separated")
    return {
        "sentences": [sentence for _, _, sentence in numbered[:-1]],
        "question": cells[0],
        "answer": cells[1],
        "options": [c for c in cells[-1].split("|") if c],
    }


def passages(content: str) -> Iterator[tuple[str, Any]]:
    """LAMBADA's own file: a passage a line."""
    for number, line in enumerate(content.split("\n"), 1):
        if line.strip():
            yield f"line {number}", {"text": line}


def cola_rows(content: str) -> Iterator[tuple[str, Any]]:
    """CoLA's own and GLUE's files have no header: source, label, star, sentence; a table with one,
    as Hugging Face or a spreadsheet saves it, is read by it. Raises ValueError for other rows."""
    found = records.rows(content, ".tsv", "the file")
    header: tuple[str, ...] = COLA_COLUMNS
    if {"sentence", "label"} <= set(found[0][1]):
        header = tuple(found[0][1])
        found = found[1:]
    for number, cells in found:
        if len(cells) != len(header):
            raise ValueError(
                f"line {number}: {len(cells)} fields; CoLA has {len(header)}: {', '.join(header)}"
            )
        yield f"line {number}", dict(zip(header, cells, strict=True))


def squad_document(content: str) -> Iterator[tuple[str, Any]]:
    """SQuAD's and XQuAD's own nesting, data > paragraphs > qas, as a record a question; a list of
    such records is read too. Raises ValueError where a level is absent."""
    value = records.load_json(content, "the document")
    if isinstance(value, list):
        yield from ((f"record {i}", record) for i, record in enumerate(value, 1))
        return
    if not isinstance(value, dict) or "data" not in value:
        raise ValueError(f"record 1: neither SQuAD's data nor a list: {form.shown(value)}")
    for a, article in enumerate(_level(value, "data", "the document"), 1):
        for p, paragraph in enumerate(_level(article, "paragraphs", f"article {a}"), 1):
            place = f"article {a}, paragraph {p}"
            for q, question in enumerate(_level(paragraph, "qas", place), 1):
                about = {"title": article, "context": paragraph}
                known = {name: owner[name] for name, owner in about.items() if name in owner}
                yield f"{place}, question {q}", {**known, **question}


def trivia_document(content: str) -> Iterator[tuple[str, Any]]:
    """TriviaQA's own document, {"Data": [..]}, or a list of records."""
    value = records.load_json(content, "the document")
    if isinstance(value, dict) and "Data" in value:
        value = _level(value, "Data", "the document")
    for number, record in enumerate(value if isinstance(value, list) else [value], 1):
        yield f"record {number}", record


def _level(value: dict[str, Any], name: str, place: str) -> list[dict[str, Any]]:
    found = value.get(name)
    if not isinstance(found, list) or not all(isinstance(x, dict) for x in found):
        raise ValueError(
            f"{place}: field {name} is {form.shown(found)}; it must be a list of objects"
        )
    return found
