"""Files cut short, with flipped bits, or with frames cut and swapped, in every format.

Each is read as exactly the documents that it held, or refused in one line that names it. What no
reader can tell is allowed where a format has no checksum or length: plain text and JSON lines, and
compressed files cut between two frames.
"""

import bz2
import gzip
import itertools
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gpt_jax.config import DataConfig
from gpt_jax.data import documents

TEXTS = [f"document {i}: " + "wörd " * (i % 17) + "." for i in range(120)]
FRAMES = 3
FORMATS = ("gz", "bz2", "xz", "zst", "parquet", "jsonl")


def frames(format: str) -> list[bytes]:
    """The documents as a file's bytes, in parts between which it may be cut without a trace."""
    lines = [(json.dumps({"text": text}, ensure_ascii=False) + "\n").encode() for text in TEXTS]
    third = len(lines) // FRAMES
    parts = [b"".join(lines[i * third : (i + 1) * third]) for i in range(FRAMES)]
    if format == "jsonl":
        return lines
    if format == "zst":
        zstandard = pytest.importorskip("zstandard")
        pack: Callable[[bytes], bytes] = zstandard.ZstdCompressor(write_checksum=True).compress
    else:
        pack = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}[format]
    return [pack(part) for part in parts]


def write(path: Path, format: str) -> list[bytes]:
    if format != "parquet":
        path.write_bytes(b"".join(parts := frames(format)))
        return parts
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"text": TEXTS})
    parquet.write_table(table, path, row_group_size=40, write_page_checksum=True)
    return [path.read_bytes()]


def outcome(path: Path, format: str) -> list[str] | None:
    """The documents; none where the file is refused in one line that names it."""
    source = "parquet" if format == "parquet" else "jsonl"
    config = DataConfig(source=source, path=str(path))
    try:
        return [document.text for document in documents(config)]
    except ValueError as error:
        said = str(error)
    assert "\n" not in said
    assert str(path) in said
    return None


def without_frames(parts: list[bytes]) -> set[bytes]:
    """Files of whole frames of which some neighbours are missing."""
    bounds = itertools.combinations(range(len(parts) + 1), 2)
    return {b"".join(parts[:first] + parts[last:]) for first, last in bounds}


def check(folder: Path, format: str, n: int) -> dict[str, int]:
    """n random cuts, flips and losses of a frame; how many of each were refused."""
    path = folder / (f"x.jsonl.{format}" if format not in ("parquet", "jsonl") else f"x.{format}")
    parts = write(path, format)
    whole = path.read_bytes()
    assert outcome(path, format) == TEXTS
    random = np.random.default_rng(0)
    refused = {"cut": 0, "flip": 0, "frame": 0}
    ends = set(np.cumsum([len(part) for part in parts]).tolist())
    for _ in range(n):
        cut = int(random.integers(len(whole)))
        path.write_bytes(whole[:cut])
        found = outcome(path, format)
        refused["cut"] += found is None
        if found is not None:
            assert found == TEXTS[: len(found)]
            # A line may lack its end; an empty file of lines holds none.
            assert format == "jsonl" or cut in ends, cut
        damaged = bytearray(whole)
        damaged[int(random.integers(len(whole)))] ^= 1 << int(random.integers(8))
        path.write_bytes(damaged)
        found = outcome(path, format)
        refused["flip"] += found is None
        assert found is None or found == TEXTS or format == "jsonl"
        begin, end = sorted(random.integers(len(whole), size=2).tolist())
        path.write_bytes(whole[:begin] + whole[end:])
        found = outcome(path, format)
        refused["frame"] += found is None
        # Frames begin alike, so that a loss across an end may be the loss of a whole frame.
        left = whole[:begin] + whole[end:]
        assert found in (None, TEXTS) or format == "jsonl" or left in without_frames(parts)
    return refused


@pytest.mark.parametrize("format", FORMATS)
def test_damaged_files(tmp_path, format):
    refused = check(tmp_path, format, 12)
    assert refused["cut"] >= 11 - (format == "jsonl")


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_many_damaged_files(tmp_path, format):
    refused = check(tmp_path, format, 1500)
    print(format, refused)
    assert refused["cut"] > 1400


@pytest.mark.parametrize("format", ["gz", "bz2", "xz", "zst"])
def test_every_cut_of_a_file_of_several_frames(tmp_path, format):
    path = tmp_path / f"x.jsonl.{format}"
    parts = write(path, format)
    whole, ends = path.read_bytes(), np.cumsum([len(part) for part in parts]).tolist()
    silent = []
    for cut in {*range(0, len(whole), 7), *(e + d for e in ends for d in range(-3, 4))}:
        if cut < len(whole):
            path.write_bytes(whole[:cut])
            if outcome(path, format) is not None:
                silent.append(cut)
    assert sorted(silent) == ends[:-1]
