"""Compressed files as streams of what is in them, checked to their last byte.

A file is one or more frames (gzip members, bzip2 or xz streams) one after the other. Each must
end as its format says, with its checksum where it has one, and nothing else may follow: what is
cut short or damaged is a ValueError that names the file and the frame. A file cut exactly
between two frames is a shorter whole file, which no reader can tell. Must not import jax.
"""

import bz2
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from gpt_jax.storage.optional import require

INPUT_BYTES = 2048
"""Compressed bytes handed to a decoder at a time. zstandard's has no limit on its output, which
for so few is 64 MiB at most."""
OUTPUT_BYTES = 1 << 20
"""Bytes that the other decoders return at a time."""
FREE_BYTES = 64 << 20
"""A document of up to so many bytes is never taken for a decompression bomb."""
ZSTD_WINDOW = 1 << 31
"""The largest window that zstd --long=31 makes."""

Pieces = Iterator[bytes]


def open_bytes(path: Path, stream: BinaryIO) -> BinaryIO:
    """The content of a file that is open as `stream`, decompressed if its suffix says so."""
    if path.suffix.lower() not in FORMATS:
        return stream
    raw = _Joined(decompress(path, stream))
    return io.BufferedReader(raw, 1 << 17)


def most_bytes(path: Path, max_expansion: int) -> int:
    """Bytes that a document out of this compressed file may have."""
    return max(FREE_BYTES, max_expansion * path.stat().st_size)


def too_large(path: Path, where: str, most: int, max_expansion: int) -> ValueError:
    """The refusal of a document over `most_bytes`."""
    size = path.stat().st_size
    return ValueError(
        f"{where} has over {most:,} bytes of text out of a compressed file of {size:,}, more than "
        f"{max_expansion} times as many (a decompression bomb?); data.max_expansion allows more"
    )


def decompress(path: Path, stream: BinaryIO) -> Pieces:
    """The bytes in all frames. Raises ValueError for a stream that is cut short or damaged."""
    name, start, expand, padding = FORMATS[path.suffix.lower()]
    failures: tuple[type[Exception], ...] = (zlib.error, lzma.LZMAError, OSError, EOFError)
    if path.suffix.lower() == ".zst":
        failures = (require("zstandard", "data").ZstdError,)
    decoder, n_frames, position, begin = None, 0, 0, 0
    while data := stream.read(INPUT_BYTES):
        position += len(data)
        while data:
            if decoder is None:
                data = data.lstrip(padding) if padding and n_frames else data
                if not data:
                    break
                decoder, begin = start(), position - len(data)
            try:
                yield from expand(decoder, data)
            except failures as error:
                raise ValueError(
                    f"cannot read {path}: the {name} frame that begins at byte {begin:,} is "
                    f"damaged, or no such frame ({error})"
                ) from None
            if not decoder.eof:
                break
            n_frames, data, decoder = n_frames + 1, decoder.unused_data, None
    if decoder is not None or not n_frames:
        raise ValueError(
            f"cannot read {path}: it is cut short; the {name} frame that begins at byte {begin:,} "
            f"has no end before the file's, at byte {position:,}"
        )


def _expand(decoder: Any, data: bytes) -> Pieces:
    """bz2 and lzma: what a decoder makes of some bytes, a limited part at a time."""
    yield decoder.decompress(data, OUTPUT_BYTES)
    while not (decoder.eof or decoder.needs_input):
        yield decoder.decompress(b"", OUTPUT_BYTES)


def _expand_gzip(decoder: Any, data: bytes) -> Pieces:
    """zlib may have taken in all of the bytes and still hold back some of the output."""
    while True:
        piece = decoder.decompress(data, OUTPUT_BYTES)
        yield piece
        data = decoder.unconsumed_tail
        if decoder.eof or (not data and len(piece) < OUTPUT_BYTES):
            return


def _expand_zstd(decoder: Any, data: bytes) -> Pieces:
    yield decoder.decompress(data)


def _start_zstd() -> Any:
    zstandard = require("zstandard", "data")
    return zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW).decompressobj()


FORMATS: dict[str, tuple[str, Callable[[], Any], Callable[[Any, bytes], Pieces], bytes]] = {
    ".gz": ("gzip", lambda: zlib.decompressobj(wbits=31), _expand_gzip, b"\0"),
    ".bz2": ("bzip2", bz2.BZ2Decompressor, _expand, b""),
    ".xz": ("xz", lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ), _expand, b"\0"),
    ".zst": ("zstd", _start_zstd, _expand_zstd, b""),
}
"""Suffix -> name, a new decoder, what it does with bytes, and what may pad the end of a frame."""


class _Joined(io.RawIOBase):
    """Pieces as a readable file."""

    def __init__(self, pieces: Pieces):
        self._pieces, self._piece = pieces, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._piece:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._piece = memoryview(piece)
        n = min(len(buffer), len(self._piece))
        buffer[:n], self._piece = self._piece[:n], self._piece[n:]
        return n
