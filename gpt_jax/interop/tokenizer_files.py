"""A tokenizer as the files of a Hugging Face folder. Must not import jax."""

import base64
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpt_jax.data.tokenizers import END_OF_TEXT, Tokenizer
from gpt_jax.data.tokenizers.entries.byte import ByteTokenizer
from gpt_jax.data.tokenizers.entries.char import CharTokenizer
from gpt_jax.data.tokenizers.entries.ids import IdsTokenizer
from gpt_jax.data.tokenizers.subword import BytePairTokenizer, SentencePieceTokenizer
from gpt_jax.data.tokenizers.tokenizer_json import JsonTokenizer, printable_bytes
from gpt_jax.interop.conventions import facts_of
from gpt_jax.interop.sentencepiece_json import sentencepiece_json
from gpt_jax.interop.tokenizer_reading import TOKENIZER


def write_tokenizer(folder: Path, tokenizer: Tokenizer, seq_len: int) -> None:
    """The files from which `AutoTokenizer` makes the same ids. Errors as `tokenizer_json`."""
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": seq_len,
        "clean_up_tokenization_spaces": False,
    }
    text = _with_beginning(tokenizer_json(tokenizer), tokenizer)
    (folder / TOKENIZER).write_text(text)
    end = tokenizer.end_of_text
    _, names = facts_of(tokenizer)
    if end is not None and not names:
        shown = _token_of(text, end)
        names = {"bos_token": shown, "eos_token": shown}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | names, indent=1) + "\n")


def _with_beginning(text: str, tokenizer: Tokenizer) -> str:
    """A tokenizer.json that puts what the conventions say before every text."""
    import tokenizers

    before = tokenizer.conventions.before
    model = tokenizers.Tokenizer.from_str(text)
    probe = model.encode("a", add_special_tokens=True).ids
    bare = model.encode("a", add_special_tokens=False).ids
    if probe[: len(probe) - len(bare)] == list(before):
        return text
    names = [(model.id_to_token(i), i) for i in before]
    model.post_processor = tokenizers.processors.TemplateProcessing(
        single=[*(name for name, _ in names), "$A"], special_tokens=names
    )
    return model.to_str()


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
    if isinstance(tokenizer, IdsTokenizer):
        return _numbers(tokenizer.vocab_size)
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


def _numbers(n: int) -> str:
    import tokenizers

    vocabulary = {str(i): i for i in range(n)}
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="0"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return model.to_str()


def _token_of(text: str, token: int) -> str:
    import tokenizers

    shown = tokenizers.Tokenizer.from_str(text).id_to_token(token)
    assert shown is not None
    return shown
