"""Learned vocabularies: byte-level BPE, SentencePiece, GPT-1's BPE.

Byte-level BPE is run by tiktoken: on Python source it is 6 times faster than `tokenizers`, with
the same ids, and it releases the interpreter's lock. Training uses `tokenizers`. Libraries are
imported where used. Must not import jax.
"""

import base64
import collections
import functools
import itertools
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt_jax.data.tokenizers.base import END_OF_TEXT, Ids, Tokenizer, errors_named
from gpt_jax.data.tokenizers.tokenizer_json import (
    JsonTokenizer,
    piece_bytes,
    printable_bytes,
)
from gpt_jax.output import say
from gpt_jax.storage.optional import require

GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
"""GPT-2's words: contractions, letters, numbers, the rest; a blank goes with what follows it."""

WORD_END = re.compile(r"(?<=\S)[ \n]")

BLANK = "\\t-\\r \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000"
LONG_BLANK = 100_000
LONG_BLANKS = re.compile(f"(?<![{BLANK}])[{BLANK}]{{{LONG_BLANK},}}(?=[^{BLANK}])")
"""White space before other text that tiktoken's regular expressions cannot go back over: they
give up ("Max stack size exceeded") somewhere beyond 200,000 characters."""


class BytePairTokenizer(Tokenizer):
    """Byte-level BPE: ids in the order of the merges, end of text last.

    `tokens` are written in GPT-2's printable alphabet. Of two neighbours that form a token, the
    pair with the lowest id merges first.
    """

    def __init__(self, tokens: Sequence[str]):
        import tiktoken

        self.tokens = list(tokens)
        self.end_of_text = len(self.tokens)
        self.vocab_size = len(self.tokens) + 1
        to_byte = {shown: byte for byte, shown in printable_bytes().items()}
        _check_tokens(self.tokens, to_byte)
        ranks = {bytes(to_byte[c] for c in t): i for i, t in enumerate(self.tokens)}
        with errors_named("the vocabulary of a byte-level BPE"):
            self._encoding = tiktoken.Encoding(
                "gpt_jax",
                pat_str=GPT2_PATTERN,
                mergeable_ranks=ranks,
                special_tokens={END_OF_TEXT: self.end_of_text},
            )

    @classmethod
    def from_merges(cls, lines: Iterable[str]) -> "BytePairTokenizer":
        """From the lines of a vocab.bpe or merges.txt: two tokens each, in order."""
        merges = [line.replace(" ", "") for line in lines if line and not line.startswith("#ver")]
        return cls([*printable_bytes().values(), *merges])

    @classmethod
    def train(
        cls, texts: Iterable[str], vocab_size: int, progress: bool = False
    ) -> "BytePairTokenizer":
        """Learns merges from texts; vocab_size counts the end of text. Deterministic.

        progress: a line on stderr, and on a terminal the bars of the library.

        Raises ValueError when the texts do not hold that many tokens.
        """
        import tokenizers

        if vocab_size < 257:
            raise ValueError(
                f"data.tokenizer = bpe:{vocab_size}; a byte-level vocabulary has at least 257 "
                "tokens (256 bytes and end of text)"
            )
        if progress:
            say(f"learning a vocabulary of {vocab_size:,} tokens from the text (bpe) ...")
        model = tokenizers.Tokenizer(tokenizers.models.BPE())
        model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=vocab_size - 1,
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=progress and sys.stderr.isatty(),
        )
        model.train_from_iterator(texts, trainer)
        ids = model.get_vocab()
        if len(ids) + 1 < vocab_size:
            raise ValueError(
                f"data.tokenizer = bpe:{vocab_size}, but the training text yields only "
                f"{len(ids) + 1} tokens; use at most bpe:{len(ids) + 1}"
            )
        return cls(sorted(ids, key=lambda token: ids[token]))

    @property
    def spec(self) -> dict[str, Any]:
        return {"kind": "bpe", "tokens": self.tokens}

    def cut(self, text: str, place: int) -> int:
        """Before a blank or line break after another character: no word of the pattern has both."""
        found = WORD_END.search(text, place)
        return found.start() if found else len(text)

    def encode(self, text: str) -> Ids:
        pieces = _cut_long_blanks(text) if len(text) > LONG_BLANK else [text]
        with errors_named("tiktoken", " cannot encode a text"):
            ids = [self._encoding.encode_to_numpy(p, disallowed_special=()) for p in pieces]
        return ids[0] if len(ids) == 1 else np.concatenate(ids)

    def decode(self, ids: Sequence[int] | NDArray[Any]) -> str:
        return self._encoding.decode(self.check_ids(ids).tolist())

    def token_bytes(self, token: int) -> bytes:
        self.check_ids([token])
        return self._encoding.decode_single_token_bytes(token)


def _check_tokens(tokens: list[str], to_byte: dict[str, int]) -> None:
    """Raises ValueError for what tiktoken would answer with a panic, now or later."""
    if not all(
        isinstance(token, str) and token and set(token) <= to_byte.keys() for token in tokens
    ):
        raise ValueError("the tokens of a byte-level BPE are strings in GPT-2's printable alphabet")
    if twice := [token for token, n in collections.Counter(tokens).items() if n > 1]:
        raise ValueError(f"a byte-level BPE has the token {twice[0]!r} twice")
    if missing := to_byte.keys() - set(tokens):
        raise ValueError(f"a byte-level BPE lacks {len(missing)} of the 256 bytes")


def _cut_long_blanks(text: str) -> list[str]:
    """The text in pieces that encode to the same tokens, without long blanks before other text.

    GPT-2's words take all of a blank but its last character, which goes with what follows: there
    the text may be cut.
    """
    cuts = [0, *(found.end() - 1 for found in LONG_BLANKS.finditer(text)), len(text)]
    return [text[begin:end] for begin, end in itertools.pairwise(cuts)]


def gpt1_tokenizer(encoder: dict[str, int], merges: Iterable[str]) -> JsonTokenizer:
    """GPT-1's lower-cased BPE with `</w>` at word ends; 40,478 entries, no end of text.

    Words are split as transformers' OpenAIGPTTokenizerFast does (blanks and punctuation), not by
    spaCy after ftfy as in the paper: line breaks are dropped (spaCy keeps them as tokens), and
    contractions split at the apostrophe ("don't" -> don ' t, in spaCy do n't). Accents are kept,
    as in the original and unlike transformers.
    """
    import tokenizers

    pairs = [line.split() for line in merges if line and not line.startswith("#ver")]
    model = tokenizers.Tokenizer(
        tokenizers.models.BPE(
            vocab=encoder,
            merges=[(a, b) for a, b in pairs],
            unk_token="<unk>",
            end_of_word_suffix="</w>",
        )
    )
    model.normalizer = tokenizers.normalizers.BertNormalizer(
        lowercase=True, strip_accents=False, handle_chinese_chars=False
    )
    model.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    model.decoder = tokenizers.decoders.BPEDecoder(suffix="</w>")
    return JsonTokenizer(model.to_str())


class SentencePieceTokenizer(Tokenizer):
    """A SentencePiece .model; its </s>, where it has one, is the end of text."""

    def __init__(self, model: bytes, where: str = "the file"):
        """Raises ValueError, naming `where`, when `model` is not a SentencePiece model."""
        sentencepiece = require("sentencepiece", "sentencepiece")
        self._model = model
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError:
            raise ValueError(f"{where} is not a SentencePiece model") from None
        self.vocab_size = self._processor.vocab_size()
        end = self._processor.eos_id()
        self.end_of_text = end if end >= 0 else None

    @property
    def spec(self) -> dict[str, Any]:
        return {"kind": "sentencepiece", "model": base64.b64encode(self._model).decode()}

    @functools.cached_property
    def special(self) -> Mapping[str, int]:
        pieces = self._processor
        return {pieces.id_to_piece(i): i for i in range(self.vocab_size) if pieces.is_control(i)}

    def encode(self, text: str) -> Ids:
        return np.array(self._processor.encode(text), np.uint32)

    def decode(self, ids: Sequence[int] | NDArray[Any]) -> str:
        return self._processor.decode(self.check_ids(ids).tolist())

    def token_bytes(self, token: int) -> bytes:
        self.check_ids([token])
        return piece_bytes(self._processor.id_to_piece(token), self._processor.is_byte(token))
