import bz2
import gzip
import json
import lzma
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gpt_jax.config import DataConfig
from gpt_jax.data import documents
from gpt_jax.data.sources import open_source
from gpt_jax.storage import compressed


def read(source: str, path: Path | str, **fields: str) -> list[tuple[str, str]]:
    return [tuple(d) for d in documents(DataConfig(source=source, path=str(path), **fields))]


@pytest.mark.smoke
def test_stdlib():
    found = dict(documents(DataConfig(source="stdlib")))
    assert "json/decoder.py" in found
    assert "class JSONDecoder" in found["json/decoder.py"]
    assert list(found) == sorted(found)
    assert 8e6 < sum(len(t) for t in found.values()) < 30e6
    assert not any("test" in Path(n).parts or "site-packages" in n for n in found)


def test_text_file_directory_and_glob(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "one.txt").write_bytes(b"line\r\nline\xe2\x80\xa8end")
    (tmp_path / "a.txt").write_text("first")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / ".hidden").write_text("hidden")
    one = ("b/one.txt", "line\r\nline\u2028end")
    assert read("text", tmp_path) == [("a.txt", "first"), one]
    assert read("text", tmp_path / "b" / "one.txt") == [("one.txt", one[1])]
    assert read("text", f"{tmp_path}/**/*.txt") == [("a.txt", "first"), one]


PACK = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


@pytest.mark.parametrize("suffix", ["", ".gz", ".bz2", ".xz", ".zst"])
def test_compression(tmp_path, suffix):
    zstandard = pytest.importorskip("zstandard")
    pack = (PACK | {".zst": zstandard.compress})[suffix]
    text = "täxt\n" * 100_000
    (tmp_path / f"t.txt{suffix}").write_bytes(pack(text.encode()))
    assert read("text", tmp_path) == [(f"t.txt{suffix}", text)]
    # Two frames one after the other are one file, as gzip and zstd themselves hold.
    records = [pack((json.dumps({"text": f"r{i}\u2028"}) + "\n").encode()) for i in range(2)]
    (tmp_path / f"t.jsonl{suffix}").write_bytes(b"".join(records))
    assert [t for _, t in read("jsonl", tmp_path)] == ["r0\u2028", "r1\u2028"]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_broken_compression_names_the_file(tmp_path, suffix):
    pytest.importorskip("zstandard")
    path = tmp_path / f"t.txt{suffix}"
    path.write_bytes(b"this is not compressed")
    with pytest.raises(ValueError, match=rf"cannot read .*t\.txt{suffix}"):
        read("text", path)
    whole = gzip.compress(b"x" * 10_000)
    (tmp_path / "cut.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cannot read .*cut\.gz"):
        read("text", tmp_path / "cut.gz")


def test_jsonl_lines_end_at_newline_only(tmp_path):
    strings = ["a\u2028b", "c\x0bd\x85e", "f\rg"]
    lines = [json.dumps({"body": s}, ensure_ascii=False) for s in strings]
    (tmp_path / "x.jsonl").write_text("\n".join(lines) + "\n\n", newline="")
    assert read("jsonl", tmp_path, field="body") == [
        (f"x.jsonl:{i}", s) for i, s in enumerate(strings, 1)
    ]


def test_jsonl_lone_surrogate_becomes_a_replacement_character(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"text": "a\\ud800b \\ud83d\\ude00"}\n')
    assert read("jsonl", tmp_path) == [("x.jsonl:1", "a\ufffdb \U0001f600")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"x\.jsonl, line 2 is not valid JSON"),
        ("[1]", "line 2 is not a JSON object"),
        ('{"body": "x"}', r"line 2 has no field 'text' \(data.field\); it has body"),
        ('{"text": null}', "line 2 holds NoneType where text is needed"),
        ('{"text": ' + "[" * 99_999 + "]" * 99_999 + "}", "line 2 is JSON nested too deeply"),
        ('{"text": "\udcff"}', "line 2 is not UTF-8: invalid start byte at its byte 10"),
    ],
)
def test_bad_records_are_named(tmp_path, line, message):
    content = '{"text": "fine"}\n' + line + "\n"
    (tmp_path / "x.jsonl").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=message):
        read("jsonl", tmp_path)


def test_bad_paths(tmp_path):
    with pytest.raises(ValueError, match="no such file or directory"):
        read("text", tmp_path / "none.txt")
    with pytest.raises(ValueError, match=r"holds no .jsonl or .json"):
        read("jsonl", tmp_path)
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(ValueError, match=r"latin.txt is not UTF-8: .* at byte 3 \(line 1\)"):
        read("text", tmp_path)
    (tmp_path / "latin.txt").write_bytes("wide".encode("utf-16"))
    with pytest.raises(ValueError, match=r"latin.txt is not UTF-8 but UTF-16"):
        read("text", tmp_path)
    with pytest.raises(ValueError, match="already made of tokens"):
        open_source(DataConfig(source="shards", path="x"))


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"text": ["a", "b\u2028", "c"], "n": [1, 2, 3]})
    parquet.write_table(table, tmp_path / "x.parquet", row_group_size=2)
    expected = [("x.parquet:1", "a"), ("x.parquet:2", "b\u2028"), ("x.parquet:3", "c")]
    assert read("parquet", tmp_path) == expected
    with pytest.raises(ValueError, match=r"has no field 'body' .* it has text, n"):
        read("parquet", tmp_path, field="body")
    with pytest.raises(ValueError, match="row 1 holds int"):
        read("parquet", tmp_path, field="n")
    (tmp_path / "x.parquet").write_text("junk")
    with pytest.raises(ValueError, match="not a readable Parquet file"):
        read("parquet", tmp_path)


def test_damaged_parquet_names_file_and_place(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "x.parquet"
    binary = pyarrow.array([b"good", b"b\xffad"], pyarrow.binary())
    for column in (binary, pyarrow.Array.from_buffers(pyarrow.string(), 2, binary.buffers())):
        parquet.write_table(pyarrow.table({"text": column}), path)
        with pytest.raises(ValueError, match=r"x.parquet, row 2 is not UTF-8: .* at its byte 1"):
            read("parquet", path)
    table = pyarrow.table({"text": [f"text {i} " * 20 for i in range(300)]})
    options = {"use_dictionary": False, "write_page_checksum": True, "row_group_size": 100}
    parquet.write_table(table, path, compression="none", **options)
    content = bytearray(path.read_bytes())
    content[content.index(b"text 150 ")] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"x.parquet, row group 1 \(from row 101\) is damaged"):
        read("parquet", path)


def test_huggingface_from_disk(tmp_path):
    datasets = pytest.importorskip("datasets")
    train = datasets.Dataset.from_dict({"text": ["a", "", "c"], "label": [0, 1, 0]})
    test = datasets.Dataset.from_dict({"text": ["z"], "label": [0]})
    train.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": train, "test": test}).save_to_disk(tmp_path / "two")
    for name in ("one", "two"):
        assert read("huggingface", tmp_path / name) == [("0", "a"), ("2", "c")]
    with pytest.raises(ValueError, match=r"has no field 'body' .* it has text, label"):
        read("huggingface", tmp_path / "one", field="body")


def test_huggingface_from_files(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n')
    assert [t for _, t in read("huggingface", tmp_path / "data")] == ["a", "b"]


def test_huggingface_without_network(tmp_path):
    datasets = pytest.importorskip("datasets")
    original = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = True
    try:
        with pytest.raises(ValueError, match="cannot load the Hugging Face data set no/such"):
            read("huggingface", "no/such")
    finally:
        datasets.config.HF_HUB_OFFLINE = original


@pytest.fixture
def tfds():
    return pytest.importorskip("tensorflow_datasets")


@pytest.fixture
def prepared_tfds(tfds, tmp_path):
    """A real ArrayRecord data set, built by TFDS without TensorFlow."""

    class TinyText(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = tfds.features.FeaturesDict({"body": tfds.features.Text()})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, manager):
            return {"train": self._generate_examples(), "test": self._generate_examples()}

        def _generate_examples(self):
            for i in range(50):
                yield i, {"body": f"text {i} \u2028 ü"}

    builder = TinyText(data_dir=str(tmp_path), file_format="array_record")
    builder.download_and_prepare()
    return builder


def test_tfds_array_record(prepared_tfds):
    found = read("tfds", prepared_tfds.data_path, field="body")
    assert sorted(t for _, t in found) == sorted(f"text {i} \u2028 ü" for i in range(50))
    assert found == read("tfds", prepared_tfds.data_path, field="body")
    assert "tensorflow" not in sys.modules
    with pytest.raises(ValueError, match=r"has no field 'text' .* it has body"):
        read("tfds", prepared_tfds.data_path)


def test_tfds_by_name_with_mock_data(tfds):
    with tfds.testing.mock_data(num_examples=5):
        found = read("tfds", "imdb_reviews")
    assert len(found) == 5
    assert all(isinstance(t, str) and t for _, t in found)
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize("name", ["imdb_reviews", "no_such_set"])
def test_tfds_that_is_not_prepared_says_so_in_one_line(tfds, name, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(ValueError, match=f"TFDS data set {name} is not prepared") as caught:
        read("tfds", name)
    assert "TensorFlow" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "package"), [("parquet", "pyarrow"), ("huggingface", "datasets")]
)
def test_missing_extra_is_named(source, package, monkeypatch):
    for module in [m for m in sys.modules if m.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "meta_path", [Missing(package), *sys.meta_path])
    with pytest.raises(ValueError, match=rf"{package}; install it with pip install 'gpt-jax\[data"):
        read(source, "anything")


class Missing:
    """An import hook that knows of one package that it is not installed."""

    def __init__(self, package: str):
        self.package = package

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == self.package:
            raise ModuleNotFoundError(f"No module named {self.package!r}", name=self.package)


def test_identity_follows_the_files(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    config = DataConfig(source="text", path=str(tmp_path))
    before = open_source(config).identity
    assert open_source(config).identity == before
    (tmp_path / "a.txt").write_text("other")
    after = open_source(config).identity
    (tmp_path / "b.txt").write_text("more")
    assert len({before, after, open_source(config).identity}) == 3


def test_importing_the_package_imports_no_heavy_library():
    heavy = ["jax", "grain", "tokenizers", "tiktoken", "tensorflow_datasets", "datasets", "pyarrow"]
    code = f"import sys, gpt_jax.data; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# What a folder may hold


def lines(path: Path, *texts: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def split(path: Path | str, source: str = "jsonl", **fields: object) -> tuple[list[str], list[str]]:
    """Texts to train on, and held out."""
    opened = open_source(DataConfig(source=source, path=str(path), **fields))
    held_out = opened.read_validation() if opened.read_validation else ()
    return [d.text for d in opened.read()], [d.text for d in held_out]


@pytest.mark.parametrize(
    "names",
    [
        "data/{train,validation,test}-00000-of-00001.jsonl",
        "{train,valid,test}/a.jsonl",
        "wiki.{train,dev,eval}.jsonl.x",
        "TinyStories-{train,val,test}.jsonl",
        "en/{training,heldout,testing}/news-1.jsonl",
    ],
)
def test_named_splits_are_those_splits(tmp_path, names):
    before, words, after = names.replace("}", "{").split("{")
    for word, text in zip(words.split(","), ("learn", "hold", "never"), strict=True):
        lines(tmp_path / f"{before}{word}{after.removesuffix('.x')}", text)
    config = DataConfig(source="jsonl", path=str(tmp_path))
    assert split(tmp_path) == (["learn"], ["hold"])
    assert split(f"{tmp_path}/**/*.jsonl") == (["learn"], ["hold"])
    assert sorted(split(tmp_path, named_splits=False)[0]) == ["hold", "learn", "never"]
    assert split(tmp_path, validation_fraction=0.0) == (["learn"], [])
    assert [d.text for d in documents(config)] == ["hold", "learn"]
    [note] = open_source(config).notes
    assert "one file is named train trained on" in note
    assert "the validation split" in note
    assert "not read (data.named_splits = false trains on all)" in note


def test_files_that_are_no_data_set_are_all_read(tmp_path):
    for name in ("train.py", "test.py", "model.py"):
        (tmp_path / name).write_text(name)
    assert split(tmp_path, "text") == (["model.py", "test.py", "train.py"], [])
    assert (
        "test.py is trained on like the rest"
        in open_source(DataConfig(source="text", path=str(tmp_path))).notes[0]
    )
    lines(tmp_path / "records" / "part_test.jsonl", "b")
    lines(tmp_path / "records" / "part.jsonl", "a")
    assert split(tmp_path / "records") == (["a", "b"], [])


def test_linked_folders_are_read_once(tmp_path):
    lines(tmp_path / "elsewhere" / "sub" / "b.jsonl", "b")
    lines(tmp_path / "corpus" / "a.jsonl", "a")
    os.symlink(tmp_path / "elsewhere", tmp_path / "corpus" / "linked")
    os.symlink(tmp_path / "corpus", tmp_path / "corpus" / "loop")
    os.symlink(tmp_path / "elsewhere" / "sub", tmp_path / "corpus" / "zagain")
    opened = open_source(DataConfig(source="jsonl", path=str(tmp_path / "corpus")))
    assert [d.name for d in opened.read()] == ["a.jsonl:1", "linked/sub/b.jsonl:1"]
    os.symlink(tmp_path / "nothing", tmp_path / "corpus" / "c.jsonl")
    with pytest.raises(ValueError, match=r"cannot read .*c.jsonl: No such file .* a link to"):
        read("jsonl", tmp_path / "corpus")


def test_special_files_are_left_out_and_said(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    os.mkfifo(tmp_path / "b.txt")
    os.symlink("/dev/zero", tmp_path / "c.txt")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "d.txt"))
        for path in (tmp_path, tmp_path / "*.txt"):
            opened = open_source(DataConfig(source="text", path=str(path)))
            assert [d.text for d in opened.read()] == ["a"]
            assert "left out, being no regular files" in opened.notes[0]
    with pytest.raises(ValueError, match=r"b.txt is a FIFO; a corpus is read more than once"):
        read("text", tmp_path / "b.txt")


@pytest.mark.parametrize("kind", ["text", "line"])
def test_decompression_bombs(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(compressed, "FREE_BYTES", 10_000)
    text = "0" * 300_000
    name, content = (
        ("x.txt.gz", text) if kind == "text" else ("x.jsonl.gz", f'{{"text": "{text}"}}')
    )
    (tmp_path / name).write_bytes(gzip.compress(content.encode()))
    source = "text" if kind == "text" else "jsonl"
    with pytest.raises(ValueError, match=r"over [\d,]+ bytes of text out of .*max_expansion"):
        read(source, tmp_path / name)
    assert read(source, tmp_path / name, max_expansion=1000)[0][1] == text
    # Many documents that are small: any number.
    (tmp_path / "y.jsonl.gz").write_bytes(gzip.compress(b'{"text": "0"}\n' * 50_000))
    assert len(read("jsonl", tmp_path / "y.jsonl.gz")) == 50_000
