"""Tokenizers by the name that a config gives. Must not import jax.

A kind of tokenizer, and the library behind it, is imported where a name asks for it.
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from gpt_jax.data.tokenizers import ALLOWED, from_file, read_file
from gpt_jax.data.tokenizers.base import SPEC_FILE, Tokenizer
from gpt_jax.data.tokenizers.entry import TOKENIZERS, Making
from gpt_jax.hints import did_you_mean


def make_tokenizer(
    name: str,
    path: str = "",
    texts: Callable[[], Iterable[str]] | None = None,
    progress: bool = False,
) -> Tokenizer:
    """The tokenizer that a config names.

    Args:
      name: `data.tokenizer`.
      path: `data.tokenizer_path`, the directory of the gpt1 or gpt2 files.
      texts: for char and bpe:SIZE, the texts to learn from.
      progress: say that merges are being learned, with a bar on a terminal.

    Raises ValueError for an unknown name, missing files, or no texts where they are needed.
    """
    if Path(name).name == SPEC_FILE:
        return from_file(name, read_file(name))
    if name.endswith(".json"):
        from gpt_jax.data.tokenizers.tokenizer_json import read_json_tokenizer

        return read_json_tokenizer(Path(name), read_file(name))
    if name.endswith(".model"):
        from gpt_jax.data.tokenizers.subword import SentencePieceTokenizer

        return SentencePieceTokenizer(read_file(name), name)
    kind, colon, argument = name.partition(":")
    if kind in TOKENIZERS:
        entry = TOKENIZERS.find(kind)
        if re.fullmatch(entry.argument, argument) and bool(colon) == bool(entry.argument):
            return entry.make(Making(name, argument, path, texts, progress))
    own = [n for n in TOKENIZERS.names() if TOKENIZERS.origin(n)]
    allowed = " | ".join([ALLOWED, *own])
    hint = did_you_mean(name, ["byte", "char", "gpt2", "gpt1", "bpe:4096", *own])
    raise ValueError(f"data.tokenizer = {name}; allowed: {allowed}{hint}")


def bpe_size(name: str) -> int | None:
    """SIZE of `bpe:SIZE`; None for another tokenizer."""
    match = re.fullmatch(r"bpe:(\d+)", name)
    return int(match[1]) if match else None
