"""Learned vocabularies: byte-level BPE, Hugging Face tokenizer.json, SentencePiece, GPT-1's BPE.

Byte-level BPE is run by tiktoken: on Python source it is 6 times faster than `tokenizers`, with
the same ids, and it releases the interpreter's lock. Training uses `tokenizers`. Libraries are
imported where used. Must not import jax.
"""

import base64
import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt_jax.data.optional import require
from gpt_jax.data.tokenizers.base import END_OF_TEXT, Ids, Tokenizer

GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
"""GPT-2's words: contractions, letters, numbers, the rest; a blank goes with what follows it."""

JSON_END_OF_TEXT = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "[EOS]")
"""Names under which a tokenizer.json may hold an end-of-text token, in order of preference."""


def printable_bytes() -> dict[int, str]:
    """GPT-2's alphabet: a printable character for every byte, in the order of its first 256 ids."""
    printable = [b for b in range(256) if chr(b).isprintable() and chr(b) != " "]
    others = [b for b in range(256) if b not in printable]
    shown = {b: chr(b) for b in printable}
    return shown | {b: chr(256 + n) for n, b in enumerate(others)}


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
        self._encoding = tiktoken.Encoding(
            "gpt_jax",
            pat_str=GPT2_PATTERN,
            mergeable_ranks={bytes(to_byte[c] for c in t): i for i, t in enumerate(self.tokens)},
            special_tokens={END_OF_TEXT: self.end_of_text},
        )

    @classmethod
    def from_merges(cls, lines: Iterable[str]) -> "BytePairTokenizer":
        """From the lines of a vocab.bpe or merges.txt: two tokens each, in order."""
        merges = [line.replace(" ", "") for line in lines if line and not line.startswith("#ver")]
        return cls([*printable_bytes().values(), *merges])

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> "BytePairTokenizer":
        """Learns merges from texts; vocab_size counts the end of text. Deterministic.

        Raises ValueError when the texts do not hold that many tokens.
        """
        import tokenizers

        if vocab_size < 257:
            raise ValueError(
                f"data.tokenizer = bpe:{vocab_size}; a byte-level vocabulary has at least 257 "
                "tokens (256 bytes and end of text)"
            )
        model = tokenizers.Tokenizer(tokenizers.models.BPE())
        model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=vocab_size - 1,
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
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

    def encode(self, text: str) -> Ids:
        return self._encoding.encode_to_numpy(text, disallowed_special=())

    def decode(self, ids: Sequence[int] | NDArray[Any]) -> str:
        return self._encoding.decode(self.check_ids(ids).tolist())


class JsonTokenizer(Tokenizer):
    """Any Hugging Face tokenizer.json, without the special tokens it would add around a text."""

    def __init__(self, text: str):
        """From the file's content. Raises ValueError when it is no tokenizer.json."""
        import tokenizers

        try:
            content = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"not a tokenizer.json: {error}") from None
        if not isinstance(content, dict) or "model" not in content:
            raise ValueError("not a Hugging Face tokenizer.json: it has no 'model'")
        self._model = tokenizers.Tokenizer.from_str(text)
        self._json = text
        vocabulary = self._model.get_vocab(with_added_tokens=True)
        known = [vocabulary[name] for name in JSON_END_OF_TEXT if name in vocabulary]
        self.end_of_text = known[0] if known else None
        self.vocab_size = max(vocabulary.values()) + 1

    @property
    def spec(self) -> dict[str, Any]:
        return {"kind": "json", "json": self._json}

    def encode(self, text: str) -> Ids:
        # A batch of one: encode_batch_fast computes no offsets, which take most of the time.
        [encoding] = self._model.encode_batch_fast([text], add_special_tokens=False)
        return np.array(encoding.ids, np.uint32)

    def decode(self, ids: Sequence[int] | NDArray[Any]) -> str:
        return self._model.decode(self.check_ids(ids).tolist(), skip_special_tokens=False)


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

    def __init__(self, model: bytes):
        """Raises ValueError when `model` is not a SentencePiece model."""
        sentencepiece = require("sentencepiece", "sentencepiece")
        self._model = model
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError:
            raise ValueError("not a SentencePiece model") from None
        self.vocab_size = self._processor.vocab_size()
        end = self._processor.eos_id()
        self.end_of_text = end if end >= 0 else None

    @property
    def spec(self) -> dict[str, Any]:
        return {"kind": "sentencepiece", "model": base64.b64encode(self._model).decode()}

    def encode(self, text: str) -> Ids:
        return np.array(self._processor.encode(text), np.uint32)

    def decode(self, ids: Sequence[int] | NDArray[Any]) -> str:
        return self._processor.decode(self.check_ids(ids).tolist())
