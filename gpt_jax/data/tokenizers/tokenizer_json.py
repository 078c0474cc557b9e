"""Hugging Face's tokenizer.json: read, stripped of the state of somebody's last call, and used.

What belongs to a call and not to a vocabulary (truncation, padding, dropout of merges, sampled
segmentations) is switched off, with one line said. Must not import jax.
"""

import functools
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt_jax.data.tokenizers.base import Ids, Tokenizer, errors_named

NAMED_ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "[EOS]")
"""Names of an end-of-text token, in order of preference."""
OTHER_ENDS = (
    *("endoftext", "eod", "endofdocument", "endofdoc", "documentend", "endofsentence"),
    *("endofsequence", "eos", "eostoken", "eot", "endtext", "end", "doc", "text"),
)
"""Further names, letters alone and small, in order of preference: <|eod|> is eod."""
SAMPLED = ("dropout", "alpha", "nbest_size")
"""Settings of a model with which one text has several encodings."""
CONFIG = "tokenizer_config.json"
BYTE_PIECE = re.compile("<0x([0-9A-Fa-f]{2})>")
"""How vocabularies with byte fallback name a byte."""
WORD_MARK = "\u2581"
"""How SentencePiece writes the blank before a word."""

Content = dict[str, Any]
"""A tokenizer.json."""


def parse(text: str, where: str) -> Content:
    """The content of a tokenizer.json. Raises ValueError, naming `where`, if it is none."""
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where} is not a tokenizer.json: {error}") from None
    except RecursionError:
        raise ValueError(f"{where} is not a tokenizer.json: it is nested too deeply") from None
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict):
        raise ValueError(f"{where} is not a Hugging Face tokenizer.json: it has no 'model'")
    for key, fits in _FORMS.items():
        if not fits(model.get(key)):
            raise ValueError(f"{where} is not a Hugging Face tokenizer.json: no sound model.{key}")
    added = content.get("added_tokens") or []
    if not isinstance(added, list) or not all(map(_is_token, added)):
        raise ValueError(
            f"{where}: added_tokens is no list of tokens with a content and an id each"
        )
    return content


def _is_vocabulary(vocab: Any) -> bool:
    """A dict of ids, or a list of pieces with their scores; not empty."""
    if isinstance(vocab, dict):
        return bool(vocab) and all(type(i) is int for i in vocab.values())
    return (
        isinstance(vocab, list)
        and bool(vocab)
        and all(isinstance(v, list) and len(v) == 2 and isinstance(v[0], str) for v in vocab)
    )


def _is_merges(merges: Any) -> bool:
    return merges is None or (isinstance(merges, list) and all(map(_is_merge, merges)))


def _is_merge(merge: Any) -> bool:
    pair = merge.split(" ") if isinstance(merge, str) else merge
    return isinstance(pair, list) and len(pair) == 2 and all(isinstance(x, str) for x in pair)


def _is_token(token: Any) -> bool:
    return (
        isinstance(token, dict)
        and isinstance(token.get("content"), str)
        and bool(token["content"])
        and type(token.get("id")) is int
    )


_FORMS: dict[str, Callable[[Any], bool]] = {
    "vocab": _is_vocabulary,
    "merges": _is_merges,
    "unk_token": lambda value: value is None or isinstance(value, str),
}
"""Fields of a tokenizer's model that are read here; the library checks the rest."""


def without_call_state(content: Content) -> tuple[Content, list[str]]:
    """The content as a vocabulary alone, and what was switched off, in words."""
    off = []
    truncation, padding = content.get("truncation"), content.get("padding")
    if truncation is not None:
        length = truncation.get("max_length") if isinstance(truncation, dict) else truncation
        off.append(f"truncation (to {length} tokens)")
    if padding is not None:
        off.append("padding")
    sampled = {k: content["model"][k] for k in SAMPLED if content["model"].get(k) is not None}
    off += [f"model.{key} = {value}" for key, value in sampled.items()]
    if not off:
        return content, []
    model = content["model"] | dict.fromkeys(sampled)
    return content | {"truncation": None, "padding": None, "model": model}, off


def vocabulary_of(content: Content) -> dict[str, int]:
    """Token -> id, added tokens included."""
    vocab = content["model"]["vocab"]
    found = vocab if isinstance(vocab, dict) else {v[0]: i for i, v in enumerate(vocab)}
    return found | {t["content"]: t["id"] for t in added_tokens(content)}


def added_tokens(content: Content) -> list[dict[str, Any]]:
    return content.get("added_tokens") or []


def special_names(content: Content) -> set[str]:
    """Names of the tokens that are control symbols and no text."""
    return {t["content"] for t in added_tokens(content) if t.get("special")}


def named_end(vocabulary: Mapping[str, int]) -> int | None:
    """The end of text, if it has one of the common names."""
    return next((vocabulary[name] for name in NAMED_ENDS if name in vocabulary), None)


def find_end(content: Content, declared: str | None = None) -> int | None:
    """The end of text by a common name, else the one that is declared, else by another name."""
    vocabulary = vocabulary_of(content)
    end = named_end(vocabulary)
    if end is not None:
        return end
    if declared in vocabulary:
        return vocabulary[declared]
    letters = {re.sub(r"[^a-z]", "", name.lower()): name for name in special_names(content)}
    closing = {k for k, name in letters.items() if k not in ("doc", "text") or "/" in name}
    found = [letters[k] for k in OTHER_ENDS if k in closing]
    return vocabulary.get(found[0]) if found else None


def declared_end(folder: Path) -> str | None:
    """eos_token of the tokenizer_config.json beside a tokenizer.json, if there is one."""
    try:
        facts = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{folder / CONFIG} is not JSON: {error}") from None
    return token_name(facts.get("eos_token")) if isinstance(facts, dict) else None


def token_name(value: Any) -> str | None:
    """A special token's name, as a string or as the object that `transformers` writes."""
    name = value.get("content") if isinstance(value, dict) else value
    return name if isinstance(name, str) else None


def read_json_tokenizer(path: Path, content: bytes) -> "JsonTokenizer":
    """The tokenizer of a file, with its end of text found, or missed with one line said."""
    text = decoded(content, str(path))
    parsed = parse(text, str(path))
    end = find_end(parsed, declared_end(path.parent))
    tokenizer = JsonTokenizer(text, str(path), end)
    if end is None:
        names = ", ".join(sorted(special_names(parsed))) or "none"
        print(
            f"{path}: no end-of-text token found among the special tokens ({names}); documents "
            f'will not be separated; a {CONFIG} beside it may name it: {{"eos_token": ...}}',
            file=sys.stderr,
        )
    return tokenizer


def identity(path: Path, content: bytes) -> str | None:
    """Identity of a file that is changed while loading; None where its bytes are enough."""
    parsed = parse(decoded(content, str(path)), str(path))
    cleaned, off = without_call_state(parsed)
    end = find_end(parsed, declared_end(path.parent))
    if not off and end == named_end(vocabulary_of(parsed)):
        return None
    return json.dumps([cleaned, end])


def decoded(content: bytes, where: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is not a tokenizer.json: it is not UTF-8: {error}") from None


class JsonTokenizer(Tokenizer):
    """Any Hugging Face tokenizer.json, without the special tokens it would add around a text."""

    def __init__(self, text: str, where: str = "tokenizer.json", end_of_text: int | None = None):
        """From the file's content; `where` names it in messages.

        end_of_text: the id, where the file holds none of NAMED_ENDS.

        Raises ValueError when it is no tokenizer.json, or a damaged one.
        """
        content, off = without_call_state(parse(text, where))
        if off:
            print(
                f"{where}: switched off: {' and '.join(off)} (of a call, not of a vocabulary: it "
                "would change every text)",
                file=sys.stderr,
            )
        self._where, self._content = where, content
        self._json = json.dumps(content) if off else text
        plain = ordinary(content)
        self._model = self._load(plain, ordinary=True)
        self._shown = self._model if plain is content else self._marked
        with errors_named(where):
            self._vocabulary = dict(self._shown.get_vocab(with_added_tokens=True))
        for name in special_names(content) - self._vocabulary.keys():
            raise ValueError(f"{where} is damaged: its special token {name!r} has no id")
        self._special = {name: self._vocabulary[name] for name in special_names(content)}
        self._named_end = named_end(self._vocabulary)
        self.end_of_text = self._named_end if end_of_text is None else end_of_text
        self.vocab_size = max(self._vocabulary.values()) + 1
        self._missing = missing_bytes(content)

    def _load(self, content: Content, ordinary: bool) -> Any:
        """The library's tokenizer. Its panics are errors too."""
        import tokenizers

        with errors_named(self._where):
            text = self._json if content is self._content else json.dumps(content)
            model = tokenizers.Tokenizer.from_str(text)
            model.encode_special_tokens = ordinary
            return model

    @functools.cached_property
    def _marked(self) -> Any:
        return self._load(self._content, ordinary=False)

    @property
    def content(self) -> Content:
        """The file's content, parsed; not to be changed."""
        return self._content

    @property
    def spec(self) -> dict[str, Any]:
        spec: dict[str, Any] = {"kind": "json", "json": self._json}
        if self.end_of_text != self._named_end:
            spec["end_of_text"] = self.end_of_text
        return spec

    @property
    def special(self) -> Mapping[str, int]:
        return self._special

    def id_of(self, name: str) -> int | None:
        """The id of a token, special or not."""
        return self._vocabulary.get(name)

    def encode(self, text: str) -> Ids:
        self._refuse_missing(text)
        return self._encode(self._model, text)

    def encode_marked(self, text: str) -> Ids:
        return self._encode(self._marked, text)

    def _encode(self, model: Any, text: str) -> Ids:
        with errors_named(self._where, " cannot encode a text"):
            # A batch of one: encode_batch_fast computes no offsets, which take most of the time.
            [encoding] = model.encode_batch_fast([text], add_special_tokens=False)
        return np.array(encoding.ids, np.uint32)

    def _refuse_missing(self, text: str) -> None:
        """The library would leave bytes that it has no token for out, without a word."""
        if not self._missing:
            return
        for token in added_tokens(self._content):
            text = text.replace(token["content"], "")
        for position, character in enumerate(text):
            if self._missing & set(character.encode()):
                raise ValueError(
                    f"{self._where} has no token for {character!r} at position {position:,} (its "
                    f"vocabulary lacks {len(self._missing)} of the 256 bytes)"
                )

    def decode(self, ids: Sequence[int] | NDArray[Any]) -> str:
        with errors_named(self._where, " cannot decode ids"):
            return self._shown.decode(self.check_ids(ids).tolist(), skip_special_tokens=False)

    def token_bytes(self, token: int) -> bytes:
        self.check_ids([token])
        piece = self._shown.id_to_token(token)
        if piece is None:  # a gap in the vocabulary
            return b""
        if any(added["id"] == token for added in added_tokens(self._content)):
            return piece.encode()
        kinds = self._decoders
        if "ByteLevel" in kinds:
            return b"".join(_alphabet().get(c, c.encode()) for c in piece)
        if kinds.isdisjoint({"Metaspace", "Replace", "ByteFallback"}):
            return super().token_bytes(token)
        return piece_bytes(piece, "ByteFallback" in kinds)

    @functools.cached_property
    def _decoders(self) -> set[str]:
        return _decoder_kinds(self._content.get("decoder"))


def _decoder_kinds(decoder: Any) -> set[str]:
    """The types of a tokenizer.json's decoder and of those that it is made of."""
    if not isinstance(decoder, dict):
        return set()
    return {str(decoder.get("type"))}.union(*map(_decoder_kinds, decoder.get("decoders") or ()))


def piece_bytes(piece: str, may_be_byte: bool) -> bytes:
    """The bytes of a piece as SentencePiece writes it: a mark for a blank, <0xNN> for a byte."""
    if may_be_byte and (match := BYTE_PIECE.fullmatch(piece)):
        return bytes([int(match[1], 16)])
    return piece.replace(WORD_MARK, " ").encode()


@functools.cache
def _alphabet() -> dict[str, bytes]:
    """The byte that each character of GPT-2's alphabet stands for."""
    return {shown: bytes([byte]) for byte, shown in printable_bytes().items()}


def ordinary(content: Content) -> Content:
    """The content for encoding text that is data: no text becomes a special token.

    The library passes over special tokens when it is told to, but its models may know their names
    as well: as pieces (Unigram, WordLevel), as whole words (ignore_merges), or as merges.
    """
    model = content["model"]
    vocab, merges = model["vocab"], model.get("merges")
    known = vocab if isinstance(vocab, dict) else {v[0] for v in vocab}
    names = special_names(content) & set(known) - {model.get("unk_token")}
    if isinstance(merges, list):
        kept = [m for m in merges if not _touches(m, names)]
        if len(kept) == len(merges) and not model.get("ignore_merges"):
            return content
        model = model | {"merges": kept}
    if not names:
        return content
    hidden = {name: f"\ue000{name}" for name in names}
    if isinstance(vocab, dict):
        renamed: Any = {hidden.get(token, token): i for token, i in vocab.items()}
    else:
        renamed = [[hidden.get(v[0], v[0]), *v[1:]] for v in vocab]
    kept = [token for token in added_tokens(content) if not token.get("special")]
    return content | {"model": model | {"vocab": renamed}, "added_tokens": kept}


def _touches(merge: Any, names: set[str]) -> bool:
    pair = merge.split(" ") if isinstance(merge, str) else merge
    return any(part in names for part in pair) or "".join(pair) in names


def missing_bytes(content: Content) -> frozenset[int]:
    """Bytes that a byte-level vocabulary has no token for, and would leave out of a text."""
    model, vocab = content["model"], content["model"]["vocab"]
    is_bytes = '"ByteLevel"' in json.dumps(content.get("pre_tokenizer"))
    if not is_bytes or not isinstance(vocab, dict) or content.get("normalizer") is not None:
        return frozenset()
    if model.get("unk_token") is not None:
        return frozenset()
    return frozenset(byte for byte, shown in printable_bytes().items() if shown not in vocab)


def printable_bytes() -> dict[int, str]:
    """GPT-2's alphabet: a printable character for every byte, in the order of its first 256 ids."""
    printable = [b for b in range(256) if chr(b).isprintable() and chr(b) != " "]
    others = [b for b in range(256) if b not in printable]
    shown = {b: chr(b) for b in printable}
    return shown | {b: chr(256 + n) for n, b in enumerate(others)}
