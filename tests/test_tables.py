"""Tables and records as people write them: dialects, encodings, and one line for what is wrong."""

import bz2
import csv
import gzip
import io
import json
import lzma
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_jax.storage import tables

RUNS = "n,loss\n1,2.5\n3,4\n"
CELLS = [{"n": "1", "loss": "2.5"}, {"n": "3", "loss": "4"}]


def read(tmp_path, content, name="t.csv"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return tables.read(path)


def error(tmp_path, content, name="t.csv"):
    with pytest.raises(ValueError, match=r"^\S*" + name.replace(".", r"\.")) as raised:
        read(tmp_path, content, name)
    assert "\n" not in str(raised.value)
    return str(raised.value).removeprefix(f"{tmp_path}/{name} ")


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (RUNS, ""),
        (RUNS.replace("\n", "\r\n"), ""),
        (RUNS.replace("\n", "\r"), ""),
        (RUNS.rstrip(), ""),
        (RUNS.replace("\n", "\n\n"), ""),
        ("\ufeff" + RUNS, ""),
        (RUNS.encode("utf-16"), ""),
        (RUNS.encode("utf-16-le"), ""),
        (RUNS.encode("utf-16-be"), ""),
        (RUNS.encode("utf-32"), ""),
        (RUNS.replace(",", ";"), "semicolons separate its cells"),
        (RUNS.replace(",", "\t"), "tabs separate its cells"),
        (RUNS.replace(",", "|"), "bars separate its cells"),
        ("sep=;\n" + RUNS.replace(",", ";"), "semicolons separate its cells"),
        ("n,loss,,\n1,2.5,,\n3,4,,\n", "2 columns without a name left out (empty)"),
        (",n,loss\n0,1,2.5\n1,3,4\n", "without a name left out (2 rows have something there)"),
        ("n,loss\n1,2.5,\n3,4\n", "1 row with empty cells beyond the header's"),
        (RUNS + ",\n,\n", "2 rows of empty cells left out, from line 4"),
    ],
)
def test_one_table_in_the_forms_that_programs_write(tmp_path, content, note):
    found = read(tmp_path, content)
    assert (found.columns, found.rows) == (("n", "loss"), CELLS)
    assert found.notes == () if not note else note in found.notes[0]


def test_a_tsv_file_has_no_quoting(tmp_path):
    """GLUE's files have lone quotation marks; csv's quoting swallows the lines between two."""
    text = 'text\tlabel\n"open only\t0\nplain\t1\nclosing" here\t0\nand " inside\t1\n'
    found = read(tmp_path, text, "t.tsv")
    assert [row["text"] for row in found.rows] == [
        '"open only', "plain", 'closing" here', 'and " inside'
    ]  # fmt: skip
    assert [row.line for row in found.rows] == [2, 3, 4, 5]
    assert not found.notes
    assert (
        "cell in quotation marks, from line 2" in read(tmp_path, 'a\tb\n"x"\ty\n', "t.tsv").notes[0]
    )


def test_what_ends_a_line_and_what_does_not(tmp_path):
    assert (
        read(tmp_path, "t\tl\na\u2028b\x0bc\x85d\t1\n", "t.tsv").rows[0]["t"]
        == "a\u2028b\x0bc\x85d"
    )
    assert read(tmp_path, '{"t": "a\u2028b"}\r\n\r\n{"t": 1}', "t.jsonl").rows == [
        {"t": "a\u2028b"}, {"t": 1}
    ]  # fmt: skip
    found = read(tmp_path, 't,l\n"two\nlines",0\nx,1\n')
    assert [(row.line, row["t"]) for row in found.rows] == [(2, "two\nlines"), (4, "x")]
    assert "1 row with a quoted cell of several lines, from line 2" in found.notes[0]


def test_a_long_cell_is_read(tmp_path):
    long = "word " * 60_000
    assert read(tmp_path, f't,l\n"{long}",1\n').rows[0]["t"] == long


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst", ".GZ"])
def test_packed_files_are_checked_to_their_end(tmp_path, suffix):
    pack = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
    pack[".zst"] = pytest.importorskip("zstandard").compress
    path = tmp_path / f"t.csv{suffix}"
    packed = pack[suffix.lower()](RUNS.encode())
    path.write_bytes(packed)
    assert tables.read(path).rows == CELLS
    for damaged, said in ((packed[:-4], "is cut short"), (b"x" + packed, "is damaged")):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=said) as raised:
            tables.read(path)
        assert str(path) in str(raised.value)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "", "is empty; the first line must name the columns"),
        ("t.csv", "a,a\n", "line 1 has two columns named a"),
        ("t.csv", "t,l\nx\n", "line 2 has 1 of the header's 2 cells; l is missing"),
        ("t.csv", "t,l\n\nx, y,1\n", "line 3 has 3 cells, the header 2; a text that holds a ','"),
        ("t.csv", 't,l\nx,1\n"y,1\nz,1\n', "line 3: a quotation mark opens a cell that is never"),
        ("t.csv", 't,l\n"y" z,1\n', "line 2: text follows the quotation mark that closes a cell"),
        ("t.csv", b"t,l\nx,1\n\xe9,1\n", "line 3 is not UTF-8 (byte 0xe9)"),
        ("t.csv", b"\xff\xfet\x00,", "is not UTF-16"),
        ("t.csv", b"PK\x03\x04...", "is a zip archive"),
        ("t.csv", b"\x1f\x8b...", "is compressed: let its name end with .gz"),
        ("t.tsv", "t\tl\na\tb\tc\n", "a text that holds a tab needs a space in its place"),
        ("t.jsonl", '{"a": 1}\n{"a": \n', "line 2 is no JSON: Expecting value (column 7)"),
        ("t.jsonl", '{"a": 1}\n[1]\n', "line 2 holds a list, where a record {...} is expected"),
        ("t.jsonl", "[" * 100_000, "line 1 cannot be read as JSON: maximum recursion"),
        ("t.jsonl", '{"a": ' + "1" * 5000 + "}", "line 1 cannot be read as JSON: Exceeds"),
        ("t.json", '[{"a": 1}, 2]', "item 2 holds a number, where a record"),
        ("t.txt", "x", "its name must end with .csv, .tsv, .jsonl, .json"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_file_and_line(tmp_path, name, content, message):
    assert message in error(tmp_path, content, name)


texts = st.text(st.characters(blacklist_categories=["Cs"]), max_size=8)


@given(st.lists(st.tuples(texts.map(lambda t: "x" + t), texts.map(lambda t: "x" + t)), max_size=5))
def test_what_the_csv_module_writes_is_read_back(rows):
    file = io.StringIO(newline="")
    csv.writer(file).writerows([("a", "b"), *rows])
    found = tables.parse(file.getvalue(), ".csv", "t")
    assert [(row["a"], row["b"]) for row in found.rows] == rows


@given(
    st.sampled_from([".csv", ".tsv", ".jsonl"]),
    st.integers(0, 60),
    st.binary(max_size=3),
    st.booleans(),
)
def test_damaged_files_are_read_or_refused_in_one_line(suffix, at, put, replaced):
    """Every byte may be lost, doubled or another one; nothing but ValueError, with the file."""
    good = {
        ".csv": b'text,label\n"a, ""b""",1\nc,2\n"d\ne",3\n',
        ".tsv": b"text\tlabel\na\t1\nc\t2\n",
        ".jsonl": b'{"text": "a", "label": 1}\n{"text": "b", "label": [1, {"x": null}]}\n',
    }[suffix]
    content = good[:at] + put + good[at + len(put) * replaced :]
    rows = []
    try:
        rows = tables.parse(tables.decode(content, "FILE"), suffix, "FILE").rows
    except ValueError as refusal:
        said = str(refusal)
    else:
        said = "FILE"
    assert re.fullmatch("FILE.*", said)  # no second line
    assert all(row.where.startswith("FILE line ") for row in rows)
    json.dumps(rows)


def test_files_of_tagged_words(tmp_path):
    """CoNLL-2003's four columns, a document's line, and no empty line at the end."""
    path = tmp_path / "a.conll"
    path.write_text(
        "-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\nPeter NNP B-NP B-PER"
    )
    table = tables.read(path)
    assert [dict(row) for row in table.rows] == [
        {"tokens": ["EU", "rejects"], "tags": ["B-ORG", "O"]},
        {"tokens": ["Peter"], "tags": ["B-PER"]},
    ]
    assert [row.where for row in table.rows] == [f"{path} line 3", f"{path} line 6"]
    assert table.notes == (
        f"{path}: 1 line -DOCSTART- left out",
        f"{path}: of 4 columns the first and the last are read",
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("EU\tB-ORG\nrejects\n", "line 2: 'rejects' is no word with a tag behind it"),
        ("EU\tB-ORG\n\t O\n", "line 2: .* is no word with a tag"),
        ("EU NNP B-ORG\nrejects O\n", "line 2 has 2 columns, those before it 3"),
    ],
)
def test_lines_without_a_tag_are_named(tmp_path, text, said):
    path = tmp_path / "a.conll"
    path.write_text(text)
    with pytest.raises(ValueError, match=said):
        tables.read(path)


@pytest.mark.parametrize(
    ("name", "n_sentences", "n_words"),
    [
        ("wnut17train.conll", 3_394, 62_730),
        ("emerging.dev.conll", 1_009, 15_733),
        ("emerging.test.annotated", 1_287, 23_394),
    ],
)
def test_wnut17_has_the_published_counts(shared_data, name, n_sentences, n_words):
    """Derczynski et al. 2017, table 1."""
    rows = tables.read(shared_data / "finetune" / "wnut17" / name).rows
    assert (len(rows), sum(len(row["tokens"]) for row in rows)) == (n_sentences, n_words)
