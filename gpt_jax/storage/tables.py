"""The one reader of tables and records that people write: CSV, TSV, JSON lines, JSON.

Each format has one declared dialect. csv: RFC 4180, a cell with the separator, a quotation mark or
a line end stands in quotation marks; the header decides between comma, semicolon, tab and bar.
tsv: a tab between cells, and no quoting at all: a quotation mark is a character. jsonl: an object a
line. conll: a word a line with its tag in the last column, an empty line after each sentence, which
is a record of `tokens` and `tags`. Text is UTF-8, or UTF-16 or UTF-32 with a byte order mark.

What is guessed or left out is in `Table.notes`; what cannot be read is a ValueError that names the
file and the line. Must not import jax.
"""

import codecs
import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt_jax.hints import counted
from gpt_jax.storage.compressed import FORMATS, decompress

CONLL = (".conll", ".iob", ".iob2", ".bio", ".annotated")
"""Suffixes of files of tagged words: CoNLL-2003's, WNUT-17's and their like."""
SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", *CONLL)
"""Formats, each also with a suffix of `compressed.FORMATS` behind it."""
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
"""Separators that a .csv file may use; in a tie the first is taken."""

BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins as that of UTF-16 does
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
NOT_TEXT = {
    b"PK\x03\x04": "a zip archive, as spreadsheets are: export the sheet as CSV",
    b"\xd0\xcf\x11\xe0": "an old spreadsheet: export the sheet as CSV",
    b"PAR1": "a parquet file: write it as CSV or JSON lines",
    b"\x1f\x8b": "compressed: let its name end with .gz",
    b"BZh": "compressed: let its name end with .bz2",
    b"\x28\xb5\x2f\xfd": "compressed: let its name end with .zst",
    b"\xfd7zXZ\x00": "compressed: let its name end with .xz",
}
"""First bytes of files that are often taken for text, with what to do."""
LONGEST_CELL = 2**31 - 1
"""Characters; more than csv's own limit of 131,072, which long documents exceed."""
QUOTE_PROBLEMS = {
    "unexpected end of data": "a quotation mark opens a cell that is never closed",
    "expected after": "text follows the quotation mark that closes a cell (inside a cell it is "
    "written twice)",
}
"""Messages of the csv module, in part, and what they mean."""


class Row(dict[str, Any]):
    """A record, and where it stands."""

    def __init__(self, values: Any, where: str, line: int):
        super().__init__(values)
        self.where = where
        """File and line (or item), as messages name it."""
        self.line = line
        """Its first line, from 1; the number of the item in a .json file."""


@dataclass(frozen=True)
class Table:
    """The records of a file, in order."""

    columns: tuple[str, ...]
    """Names in the header; none for JSON."""
    rows: list[Row]
    notes: tuple[str, ...] = ()
    """Lines about what was guessed or left out."""
    separator: str = ""
    """Separator between cells; empty for JSON."""


def is_table(path: Path) -> bool:
    """Whether a file's name ends with a format that `read` knows."""
    return _format(path) in SUFFIXES


def read(path: Path, default: str = "", skip_spaces: bool = False) -> Table:
    """The records of a file, by the suffix of its name.

    default: the format of a file whose suffix is none of SUFFIXES. skip_spaces: as for `parse`.
    Raises ValueError naming the file, and the line of what cannot be read.
    """
    suffix = _format(path)
    suffix = suffix if suffix in SUFFIXES else default
    if suffix not in SUFFIXES:
        raise ValueError(f"{path}: its name must end with {', '.join(SUFFIXES)}")
    return parse(read_text(path), suffix, str(path), skip_spaces)


def parse(text: str, suffix: str, path: str, skip_spaces: bool = False) -> Table:
    """The records of a text in one of the formats; path: as messages name it.

    skip_spaces: a cell of a .csv file begins after white space that follows the separator.
    """
    if suffix == ".jsonl":
        return Table((), list(_json_lines(text, path)))
    if suffix == ".json" and _is_a_record_a_line(text):
        rows = list(_json_lines(text, path))
        return Table((), rows, (f"{path} is read as JSON lines: it has a record a line",))
    if suffix == ".json":
        value = _loads(text, path)
        items = value if isinstance(value, list) else [value]
        return Table((), [_json_row(x, f"{path} item {i}", i) for i, x in enumerate(items, 1)])
    if suffix in CONLL:
        return _parse_conll(text, path)
    return _parse_cells(text, suffix, path, skip_spaces)


DOCSTART = "-DOCSTART-"
"""Word of the lines between CoNLL's documents, which are no sentences."""


def _parse_conll(text: str, path: str) -> Table:
    """Sentences of tagged words. Raises ValueError for a line without a tag."""
    rows: list[Row] = []
    words: list[tuple[str, str]] = []
    first = n_columns = n_documents = 0
    for number, line in enumerate([*lines(text), ""], 1):
        if not line.strip():
            if words:
                record = {"tokens": [w for w, _ in words], "tags": [t for _, t in words]}
                rows.append(Row(record, f"{path} line {first}", first))
                words = []
            continue
        columns = line.split("\t") if "\t" in line else line.split()
        if columns[0] == DOCSTART:
            n_documents += 1
            continue
        if len(columns) < 2 or not columns[0].strip() or not columns[-1].strip():
            raise ValueError(f"{path} line {number}: {line[:60]!r} is no word with a tag behind it")
        if n_columns and len(columns) != n_columns:
            raise ValueError(
                f"{path} line {number} has {len(columns)} columns, those before it {n_columns}"
            )
        n_columns = len(columns)
        first = first if words else number
        words.append((columns[0].strip(), columns[-1].strip()))
    notes = [f"{path}: {counted(n_documents, 'line')} {DOCSTART} left out"] if n_documents else []
    if n_columns > 2:
        notes.append(f"{path}: of {n_columns} columns the first and the last are read")
    return Table((), rows, tuple(notes))


def _is_a_record_a_line(text: str) -> bool:
    """Whether a .json file is JSON lines, as CLUE's are: its first line is an object by itself, and
    another object follows."""
    first, _, rest = text.strip().partition("\n")
    if not (first.startswith("{") and rest.lstrip().startswith("{")):
        return False
    try:
        return isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


def read_text(path: Path) -> str:
    """A file's text, unpacked and decoded; line ends as they are.

    Raises ValueError where it is no text, or packed data are damaged or cut short.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    content = path.read_bytes()
    if path.suffix.lower() in FORMATS:
        content = b"".join(decompress(path, io.BytesIO(content)))
    return decode(content, str(path))


def decode(content: bytes, path: str) -> str:
    """Bytes of a text file as text: by its byte order mark, else UTF-8."""
    for first, what in NOT_TEXT.items():
        if content.startswith(first):
            raise ValueError(f"{path} is {what}")
    encoding = next((name for mark, name in BYTE_ORDER_MARKS if content.startswith(mark)), "")
    encoding = encoding or _unmarked(content)
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        byte = f" (byte 0x{content[error.start]:02x})" if error.start < len(content) else ""
        name = "UTF-8" if encoding.startswith("utf-8") else encoding.upper()
        raise ValueError(
            f"{path} line {line} is not {name}{byte}; save the file as UTF-8"
        ) from None


def _unmarked(content: bytes) -> str:
    """The encoding of bytes without a byte order mark: UTF-16 where every other byte is 0."""
    sample = content[:200]
    half = len(sample) // 2
    if half and sample[1::2].count(0) == half and not sample[::2].count(0):
        return "utf-16-le"
    if half and sample[: 2 * half : 2].count(0) == half and not sample[1::2].count(0):
        return "utf-16-be"
    return "utf-8"


def lines(text: str) -> list[str]:
    """Lines of a text, without their ends: \\n, \\r\\n, or (where there is no \\n) \\r.

    Unlike str.splitlines, characters such as U+2028 end none.
    """
    found = text.replace("\r\n", "\n").split("\n" if "\n" in text else "\r")
    return found[:-1] if found and not found[-1] else found


def _format(path: Path) -> str:
    name = path.with_suffix("") if path.suffix.lower() in FORMATS else path
    return name.suffix.lower()


def _json_lines(text: str, path: str) -> Iterator[Row]:
    for number, line in enumerate(lines(text), 1):
        if line.strip():
            place = f"{path} line {number}"
            yield _json_row(_loads(line, place), place, number)


def _json_row(value: Any, place: str, number: int) -> Row:
    if not isinstance(value, dict):
        raise ValueError(f"{place} holds {kind(value)}, where a record {{...}} is expected")
    return Row(value, place, number)


def _loads(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise ValueError(f"{place} is no JSON: {error.msg} ({where}column {error.colno})") from None
    except (RecursionError, ValueError) as error:  # ValueError: a number of thousands of digits
        raise ValueError(f"{place} cannot be read as JSON: {error}") from None


def kind(value: Any) -> str:
    """The kind of a JSON value, in words."""
    kinds = {str: "a text", list: "a list", dict: "an object", bool: "true or false"}
    return kinds.get(type(value), "null" if value is None else "a number")


def as_text(value: Any, name: str) -> str:
    """A field's value as text; a number is written out. Raises ValueError for anything else."""
    if value is None or isinstance(value, list | dict):
        raise ValueError(f"{name} is {kind(value)}, not a text")
    return str(value)


def text_list(value: Any, name: str) -> list[str]:
    """A field's value as a list of texts. Raises ValueError for anything else."""
    if not isinstance(value, list):
        raise ValueError(f"{name} is {kind(value)}, not a list of texts")
    return [as_text(item, f"{name}, item {i}") for i, item in enumerate(value, 1)]


def _parse_cells(text: str, suffix: str, path: str, skip_spaces: bool) -> Table:
    separator, n_skipped = ("\t", 0) if suffix == ".tsv" else _find_separator(text)
    found: Iterable[tuple[int, list[str]]]
    if suffix == ".tsv":
        found = ((i, line.split("\t")) for i, line in enumerate(lines(text), 1))
    else:
        found = _quoted_cells(text, separator, path, n_skipped, skip_spaces)
    report = _Report(path, separator, quoted=suffix == ".csv")
    header: list[str] = []
    rows: list[Row] = []
    for line, cells in found:
        if not any(cell.strip() for cell in cells):
            report.blank(line, cells)
        elif not header:
            header = _header(cells, f"{path} line {line}")
        else:
            where = f"{path} line {line}"
            cells = _fitted(cells, header, where, separator, quoted=suffix == ".csv")
            report.see(line, cells, header)
            named = zip(header, cells, strict=False)  # cells beyond the header are empty
            rows.append(Row({name: cell for name, cell in named if name}, where, line))
    if not header:
        raise ValueError(f"{path} is empty; the first line must name the columns")
    return Table(tuple(filter(None, header)), rows, report.notes(header), separator)


def _find_separator(text: str) -> tuple[str, int]:
    """The separator of a .csv text, and the lines before its header that say so (`sep=;`)."""
    found = lines(text[:100_000])
    first = next((line for line in found if line.strip()), "")
    if found and found[0].lower().startswith("sep=") and len(found[0]) == len("sep=;"):
        return found[0][-1], 1
    outside = first.split('"')[::2]
    counts = {separator: sum(part.count(separator) for part in outside) for separator in SEPARATORS}
    return max(counts, key=lambda separator: counts[separator]), 0


def _quoted_cells(
    text: str, separator: str, path: str, n_skipped: int, skip_spaces: bool
) -> Iterator[tuple[int, list[str]]]:
    """(first line, cells) of each record of a .csv text."""
    csv.field_size_limit(LONGEST_CELL)
    file = io.StringIO(text, newline="")
    for _ in range(n_skipped):
        file.readline()
    reader = csv.reader(file, delimiter=separator, strict=True, skipinitialspace=skip_spaces)
    while True:
        line = reader.line_num + n_skipped + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            found = (said for part, said in QUOTE_PROBLEMS.items() if part in str(error))
            raise ValueError(f"{path} line {line}: {next(found, str(error))}") from None
        yield line, cells


def _header(cells: Sequence[str], where: str) -> list[str]:
    """Names of columns, stripped; '' for one without a name."""
    header = [name.strip() for name in cells]
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise ValueError(f"{where} has two columns named {', '.join(twice)}")
    return header


def _fitted(
    cells: list[str], header: Sequence[str], where: str, separator: str, quoted: bool
) -> list[str]:
    """As many cells as the header has; raises ValueError where one is missing or one too many."""
    if any(cell.strip() for cell in cells[len(header) :]):
        name = {"\t": "tab"}.get(separator, f"'{separator}'")
        advice = "quotation marks around it" if quoted else "a space in its place, or a .csv file"
        raise ValueError(
            f"{where} has {len(cells)} cells, the header {len(header)}; a text that holds a {name} "
            f"needs {advice}"
        )
    missing = [name for name in header[len(cells) :] if name]
    if missing:
        raise ValueError(
            f"{where} has {len(cells)} of the header's {len(header)} cells; {missing[0]} is missing"
        )
    return cells


class _Report:
    """Counts, while a table is read, what its reader should be told."""

    def __init__(self, path: str, separator: str, quoted: bool):
        self.path, self.separator, self.quoted = path, separator, quoted
        self.n_blank = self.n_beyond = self.n_long = self.n_in_quotes = self.n_unnamed = 0
        self.first: dict[str, int] = {}

    def blank(self, line: int, cells: Sequence[str]) -> None:
        if len(cells) > 1:  # not merely an empty line
            self.n_blank += 1
            self.first.setdefault("blank", line)

    def see(self, line: int, cells: Sequence[str], header: Sequence[str]) -> None:
        self.n_beyond += len(cells) > len(header)
        self.n_unnamed += any(
            cell.strip() for name, cell in zip(header, cells, strict=False) if not name
        )
        if self.quoted and any("\n" in cell or "\r" in cell for cell in cells):
            self.n_long += 1
            self.first.setdefault("long", line)
        whole = [c for c in cells if len(c) > 1 and c[0] == c[-1] == '"']
        if not self.quoted and whole:
            self.n_in_quotes += 1
            self.first.setdefault("quotes", line)

    def notes(self, header: Sequence[str]) -> tuple[str, ...]:
        made, first = [], self.first
        if self.quoted and self.separator != ",":
            made.append(f"{SEPARATORS.get(self.separator, self.separator)} separate its cells")
        if unnamed := sum(not name for name in header):
            held = f"{self.n_unnamed:,} rows have something there" if self.n_unnamed else "empty"
            made.append(f"{counted(unnamed, 'column')} without a name left out ({held})")
        if n := self.n_beyond:
            made.append(f"{counted(n, 'row')} with empty cells beyond the header's")
        if n := self.n_blank:
            made.append(f"{counted(n, 'row')} of empty cells left out, from line {first['blank']}")
        if n := self.n_long:
            made.append(
                f"{counted(n, 'row')} with a quoted cell of several lines, from line "
                f"{first['long']}"
            )
        if n := self.n_in_quotes:
            made.append(
                f"{counted(n, 'row')} with a cell in quotation marks, from line "
                f"{first['quotes']}: they are characters in a .tsv file"
            )
        return tuple(f"{self.path}: {note}" for note in made)
