"""The tokenizer of a Hugging Face folder, in any form that folders have. Must not import jax."""

import json
import sys
from typing import Any

from gpt_jax.data.tokenizers import Tokenizer
from gpt_jax.data.tokenizers.base import errors_named
from gpt_jax.data.tokenizers.entries.ids import IdsTokenizer
from gpt_jax.data.tokenizers.making import make_tokenizer
from gpt_jax.data.tokenizers.subword import SentencePieceTokenizer, gpt1_tokenizer
from gpt_jax.data.tokenizers.tokenizer_json import (
    JsonTokenizer,
    added_tokens,
    decoded,
    find_end,
    named_end,
    parse,
    vocabulary_of,
)
from gpt_jax.data.tokenizers.vocabularies import GPT2_MERGES_SHA256, load_gpt2
from gpt_jax.interop.conventions import FolderFacts, is_plain_gpt2, read_conventions
from gpt_jax.interop.safetensors_files import read_json
from gpt_jax.storage.checksum import file_checksum

TOKENIZER = "tokenizer.json"
FILES = f"{TOKENIZER}, or merges.txt with vocab.json, or tokenizer.model"
IDS = "ids"
"""--tokenizer of a model of symbols: ids in and out."""


def read_tokenizer(facts: FolderFacts, n_rows: int, named: str = "") -> Tokenizer:
    """The tokenizer of a folder with its conventions, or the one that `named` asks for.

    GPT-2's own vocabulary, with nothing added, is the fast one of `gpt2`. Where the folder says
    nothing of a tokenizer, texts are ids. n_rows: ids that the model has rows for.

    Raises ValueError if the folder speaks of a tokenizer that is not there, or cannot be read.
    """
    if named and named != IDS:
        return make_tokenizer(named)
    with errors_named(str(facts.folder), " has a damaged tokenizer file"):
        return _read(facts, n_rows, named)


def _read(facts: FolderFacts, n_rows: int, named: str) -> Tokenizer:
    found = None if named == IDS else _vocabulary(facts, n_rows)
    if found is None:
        if not named and facts.says_of_tokens:
            raise ValueError(
                f"{facts.folder} has no tokenizer ({FILES}); name one with --tokenizer, or say "
                f"--tokenizer {IDS} for a model whose texts are numbers"
            )
        if not named:
            print(
                f"{facts.folder} has no tokenizer: texts are token ids, numbers with blanks "
                "between them; name another with --tokenizer",
                file=sys.stderr,
            )
        ids = read_conventions(facts, IdsTokenizer(n_rows), n_rows)
        return IdsTokenizer(n_rows, ids.ends[0] if ids.ends else None).with_conventions(ids)
    return found.with_conventions(read_conventions(facts, found, n_rows))


def _vocabulary(facts: FolderFacts, n_rows: int) -> Tokenizer | None:
    """The folder's vocabulary; None where it has none."""
    folder = facts.folder
    merges, vocabulary = folder / "merges.txt", folder / "vocab.json"
    known = merges.is_file() and file_checksum(merges) == GPT2_MERGES_SHA256
    where = folder / TOKENIZER
    if where.is_file():
        text = decoded(where.read_bytes(), str(where))
    elif (folder / "tokenizer.model").is_file():
        path = folder / "tokenizer.model"
        return SentencePieceTokenizer(path.read_bytes(), str(path))
    elif merges.is_file() and (known or vocabulary.is_file()):
        where = merges
        text = _from_merges(facts, known)
    else:
        return None
    made = _completed(facts, text, str(where), n_rows)
    if known:
        gpt2 = load_gpt2(str(folder))
        if is_plain_gpt2(facts, made, gpt2):
            return gpt2
    return made


def _from_merges(facts: FolderFacts, known: bool) -> str:
    """vocab.json and merges.txt as a tokenizer.json: GPT-2's splits and bytes, or GPT-1's."""
    import tokenizers

    folder = facts.folder
    path = folder / "merges.txt"
    lines = decoded(path.read_bytes(), str(path)).split("\n")
    if (folder / "vocab.json").is_file():
        vocabulary = read_json(folder / "vocab.json")
    else:
        tokens = load_gpt2(str(folder)).tokens if known else []
        vocabulary = {token: i for i, token in enumerate((*tokens, "<|endoftext|>"))}
    where = f"{folder}/vocab.json with merges.txt"
    with errors_named(where):
        if facts.model_type == "openai-gpt":
            return gpt1_tokenizer(vocabulary, lines).spec["json"]
        pairs = [
            (pair[0], pair[1])
            for line in lines
            if line and not line.startswith("#version")
            if len(pair := line.split()) == 2 or _no_merge(line)
        ]
        model = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=pairs))
        prefix = bool(facts.tokenizer.get("add_prefix_space", False))
        model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=prefix)
        model.decoder = tokenizers.decoders.ByteLevel()
        ends = [name for name in ("<|endoftext|>",) if name in vocabulary]
        model.add_special_tokens(ends)
        return model.to_str()


def _no_merge(line: str) -> bool:
    raise ValueError(f"merges.txt: not two tokens: {line!r}")


def _completed(facts: FolderFacts, text: str, where: str, n_rows: int) -> JsonTokenizer:
    """The tokenizer with the tokens that other files of the folder add, as far as the model has
    rows for them."""
    content = parse(text, where)
    content, text, beyond = _within(content, text, n_rows)
    present = {token["content"] for token in added_tokens(content)}
    missing = [token for token in facts.declared() if token[0] not in present]
    if missing:
        text, left_out = _with_added(text, where, missing, n_rows)
        beyond += left_out
    if beyond:
        print(
            f"{facts.folder}: the model has rows for {n_rows:,} ids; left out of the tokenizer: "
            f"{', '.join(dict.fromkeys(beyond))}",
            file=sys.stderr,
        )
    parsed = parse(text, where)
    end = find_end(parsed, facts.names.get("eos_token"))
    return JsonTokenizer(text, where, None if end == named_end(vocabulary_of(parsed)) else end)


def _within(
    content: dict[str, Any], text: str, n_rows: int
) -> tuple[dict[str, Any], str, list[Any]]:
    """The content without added tokens that the model has no row for; their names."""
    beyond = {t["content"] for t in added_tokens(content) if t["id"] >= n_rows}
    if not beyond:
        return content, text, []
    model, vocab = content["model"], content["model"]["vocab"]
    if isinstance(vocab, dict):
        vocab = {name: i for name, i in vocab.items() if name not in beyond or i < n_rows}
    rest = vocab.values() if isinstance(vocab, dict) else range(len(vocab))
    if max(rest, default=0) >= n_rows:  # words too: it is another model's
        return content, text, []
    kept = [token for token in added_tokens(content) if token["content"] not in beyond]
    content = content | {"added_tokens": kept, "model": model | {"vocab": vocab}}
    return content, json.dumps(content), sorted(beyond)


def _with_added(
    text: str, where: str, missing: list[tuple[str, int | None, dict[str, Any]]], n_rows: int
) -> tuple[str, list[str]]:
    """The tokenizer.json with further tokens, and the names of those that there is no row for.

    Raises ValueError where a token would not get the id that is given for it.
    """
    import tokenizers

    left_out = []
    with errors_named(where):
        model = tokenizers.Tokenizer.from_str(text)
        for name, i, properties in missing:
            before = model.get_vocab(with_added_tokens=True)
            new = before.get(name, max(before.values()) + 1)
            if new >= n_rows:
                left_out.append(name)
                continue
            model.add_tokens([tokenizers.AddedToken(name, **properties)])
            got = model.token_to_id(name)
            if i is not None and got != i:
                raise ValueError(f"the added token {name!r} has id {i:,} there, here {got:,}")
        return model.to_str(), left_out
