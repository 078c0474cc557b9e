"""Tokenizers in and out of a Hugging Face folder. Must not import jax."""

import base64
import hashlib
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpt_jax.data.tokenizers import (
    END_OF_TEXT,
    BytePairTokenizer,
    ByteTokenizer,
    CharTokenizer,
    JsonTokenizer,
    SentencePieceTokenizer,
    Tokenizer,
    make_tokenizer,
)
from gpt_jax.data.tokenizers.subword import gpt1_tokenizer
from gpt_jax.data.tokenizers.tokenizer_json import printable_bytes
from gpt_jax.data.tokenizers.vocabularies import GPT2_MERGES_SHA256, load_gpt2
from gpt_jax.interop.sentencepiece_json import sentencepiece_json

TOKENIZER = "tokenizer.json"
FILES = f"{TOKENIZER}, or merges.txt with vocab.json, or tokenizer.model"


def read_tokenizer(folder: Path, model_type: str, named: str = "") -> Tokenizer:
    """The tokenizer of a folder, or the one that `named` asks for, as data.tokenizer does.

    GPT-2's own vocabulary is recognised by its merges, and is then the fast one of `gpt2`.
    Raises ValueError if there is none, or it cannot be read.
    """
    if named:
        return make_tokenizer(named)
    merges, vocabulary = folder / "merges.txt", folder / "vocab.json"
    if merges.is_file() and hashlib.sha256(merges.read_bytes()).hexdigest() == GPT2_MERGES_SHA256:
        return load_gpt2(str(folder))
    if (folder / TOKENIZER).is_file():
        return JsonTokenizer((folder / TOKENIZER).read_text())
    if (folder / "tokenizer.model").is_file():
        return SentencePieceTokenizer((folder / "tokenizer.model").read_bytes())
    if merges.is_file() and vocabulary.is_file() and model_type == "openai-gpt":
        lines = merges.read_text().split("\n")
        return gpt1_tokenizer(json.loads(vocabulary.read_text()), lines)
    raise ValueError(f"{folder} has no tokenizer ({FILES}); name one with --tokenizer")


def write_tokenizer(folder: Path, tokenizer: Tokenizer, seq_len: int) -> None:
    """The files from which `AutoTokenizer` makes the same ids. Errors as `tokenizer_json`."""
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": seq_len,
        "clean_up_tokenization_spaces": False,
    }
    text = tokenizer_json(tokenizer)
    (folder / TOKENIZER).write_text(text)
    end = tokenizer.end_of_text
    if end is not None:
        shown = _token_of(text, end)
        settings |= {"bos_token": shown, "eos_token": shown}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n")


def tokenizer_json(tokenizer: Tokenizer) -> str:
    """The tokenizer as the text of a tokenizer.json with the same ids.

    Raises ValueError for a SentencePiece model that `sentencepiece_json` refuses.
    """
    if isinstance(tokenizer, JsonTokenizer):
        return tokenizer.spec["json"]
    if isinstance(tokenizer, BytePairTokenizer):
        return _byte_level(tokenizer.tokens, merges_of(tokenizer.tokens))
    if isinstance(tokenizer, ByteTokenizer):
        shown = printable_bytes()
        return _byte_level([shown[byte] for byte in range(256)], [])
    if isinstance(tokenizer, CharTokenizer):
        return _characters(tokenizer.characters)
    assert isinstance(tokenizer, SentencePieceTokenizer)
    return sentencepiece_json(base64.b64decode(tokenizer.spec["model"]))


def merges_of(tokens: Sequence[str]) -> list[tuple[str, str]]:
    """The pair that forms each token of a byte-level BPE, in the order of ids.

    A token's pair is what its characters merge into before the token itself: byte-pair encoding
    with the tokens before it.
    """
    ranks = {token: rank for rank, token in enumerate(tokens)}
    return [
        (pair[0], pair[1])
        for rank, token in enumerate(tokens)
        if len(token) > 1 and len(pair := _encode_below(token, rank, ranks)) == 2
    ]


def _encode_below(text: str, limit: int, ranks: dict[str, int]) -> list[str]:
    """The text's pieces after all merges into tokens of a rank below `limit`."""
    pieces = list(text)
    while len(pieces) > 1:
        joined = [a + b for a, b in itertools.pairwise(pieces)]
        i = min(range(len(joined)), key=lambda i: ranks.get(joined[i], limit))
        if ranks.get(joined[i], limit) >= limit:
            break
        pieces[i : i + 2] = [joined[i]]
    return pieces


def _byte_level(tokens: Sequence[str], merges: list[tuple[str, str]]) -> str:
    import tokenizers

    vocabulary = {token: i for i, token in enumerate(tokens)}
    model = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=merges))
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = tokenizers.decoders.ByteLevel()
    model.add_special_tokens([END_OF_TEXT])
    return model.to_str()


def _characters(characters: str) -> str:
    import tokenizers

    vocabulary = {character: i for i, character in enumerate(characters)}
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    every = tokenizers.Regex(r"[\s\S]")
    model.pre_tokenizer = tokenizers.pre_tokenizers.Split(every, behavior="isolated")
    model.decoder = tokenizers.decoders.Fuse()
    return model.to_str()


def _token_of(text: str, token: int) -> str:
    import tokenizers

    shown = tokenizers.Tokenizer.from_str(text).id_to_token(token)
    assert shown is not None
    return shown
