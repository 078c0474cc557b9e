"""How texts of a Hugging Face folder's model begin and end: read as `transformers` reads it.

Must not import jax.
"""

import dataclasses
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gpt_jax.data.tokenizers import Conventions, Tokenizer
from gpt_jax.data.tokenizers.base import errors_named
from gpt_jax.data.tokenizers.subword import BytePairTokenizer, SentencePieceTokenizer
from gpt_jax.data.tokenizers.tokenizer_json import JsonTokenizer, token_name
from gpt_jax.interop.family import find_family
from gpt_jax.interop.gpt_like import END
from gpt_jax.interop.safetensors_files import read_json

NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
LISTED = ("additional_special_tokens", "extra_special_tokens")
CLASSES = {
    "GPT2Tokenizer": "gpt2",
    "OpenAIGPTTokenizer": "openai-gpt",
    "LlamaTokenizer": "llama",
    "GPTNeoXTokenizer": "gpt_neox",
    "BloomTokenizer": "bloom",
    "GemmaTokenizer": "gemma",
}
"""Tokenizer classes with special tokens of their own -> the model_type whose they are."""


@dataclasses.dataclass(frozen=True)
class FolderFacts:
    """A folder's small files; {} = there is none."""

    folder: Path
    model_type: str
    config: Mapping[str, Any]
    generation: Mapping[str, Any]
    tokenizer: Mapping[str, Any]
    special: Mapping[str, Any]
    added: Mapping[str, Any]

    @property
    def says_of_tokens(self) -> bool:
        """Whether some file speaks of a tokenizer."""
        return bool(self.tokenizer or self.special or self.added)

    @property
    def family(self) -> str:
        """The family of the tokenizer's class; "" for a class without defaults."""
        name = self.tokenizer.get("tokenizer_class")
        if not isinstance(name, str):
            return self.model_type
        return CLASSES.get(name.removesuffix("Fast"), "")

    @property
    def names(self) -> dict[str, str]:
        """bos_token and the like -> the token."""
        given = dict(self.tokenizer)
        if "added_tokens_decoder" not in given:  # the map is of earlier versions
            given |= self.special
        names = dict(find_family(self.family).end_names) if self.family else {}
        for key in NAMED:
            if key in given:
                name = token_name(given[key])
                names.pop(key, None)
                names |= {key: name} if name else {}
        return names

    def declared(self) -> Iterator[tuple[str, int | None, dict[str, Any]]]:
        """(token, id if one is given, properties) of each token that these files add."""
        decoder = self.tokenizer.get("added_tokens_decoder")
        special = set(self.names.values())
        if isinstance(decoder, dict):
            for i, token in sorted(decoder.items(), key=lambda item: int(item[0])):
                kept = ("single_word", "lstrip", "rstrip", "normalized", "special")
                yield token["content"], int(i), {k: bool(token[k]) for k in kept if k in token}
        else:
            for name, i in sorted(self.added.items(), key=lambda item: int(item[1])):
                is_special = name in special
                yield name, int(i), {"special": is_special, "normalized": not is_special}
        listed = [x for key in LISTED for x in self.tokenizer.get(key) or ()]
        explicit = {k for k in (*self.tokenizer, *self.special) if k in NAMED}
        named = [name for key, name in self.names.items() if key in explicit]
        for name in (*named, *filter(None, map(token_name, listed))):
            yield name, None, {"special": True, "normalized": False}


def read_facts(folder: Path, model_type: str) -> FolderFacts:
    """Raises ValueError, naming the file, for one that is no JSON object."""

    def facts(name: str) -> dict[str, Any]:
        return read_json(folder / name) if (folder / name).is_file() else {}

    return FolderFacts(
        folder,
        model_type,
        facts("config.json"),
        facts("generation_config.json"),
        facts("tokenizer_config.json"),
        facts("special_tokens_map.json"),
        facts("added_tokens.json"),
    )


def read_conventions(facts: FolderFacts, tokenizer: Tokenizer, n_rows: int) -> Conventions:
    """The conventions of a folder; ids that the model has no row for are left out."""
    names = {key: name for key, name in facts.names.items() if _id(tokenizer, name) is not None}
    listed = [token_name(token) for token in facts.tokenizer.get(LISTED[0]) or ()]
    bos = _id(tokenizer, names.get("bos_token"))
    before = _before(facts, tokenizer, bos)
    if bos is None:
        bos = next(iter(_ids(facts, "bos_token_id", n_rows)), None)
    ends = _ids(facts, "eos_token_id", n_rows)
    end = _id(tokenizer, names.get("eos_token"))
    if not ends and end is not None:
        ends = (end,)
    return Conventions(
        before=before,
        begin=before or (() if bos is None else (bos,)),
        ends=ends,
        turn_end=end if end in ends else None,
        names=names | ({LISTED[0]: [name for name in listed if name]} if any(listed) else {}),
        chat_template=_chat_template(facts),
    )


def _id(tokenizer: Tokenizer, name: str | None) -> int | None:
    if name is None:
        return None
    if isinstance(tokenizer, JsonTokenizer):
        return tokenizer.id_of(name)
    return tokenizer.special.get(name)


def _ids(facts: FolderFacts, key: str, n_rows: int) -> tuple[int, ...]:
    """Ids of generation_config.json, else config.json, else the family's own."""
    defaults = find_family(facts.model_type).default_ids
    sources: tuple[Mapping[str, Any], ...] = (facts.generation, facts.config, defaults)
    found = next((s[key] for s in sources if s.get(key) is not None), ())
    ids = found if isinstance(found, list | tuple) else (found,)
    if not all(type(i) is int for i in ids):
        raise ValueError(f"{facts.folder}: {key} = {found}; allowed: an id, or a list of ids")
    return tuple(i for i in dict.fromkeys(ids) if 0 <= i < n_rows)


def _before(facts: FolderFacts, tokenizer: Tokenizer, bos: int | None) -> tuple[int, ...]:
    """Tokens that the tokenizer puts before a text, by its post-processor or its config."""
    flags = [facts.tokenizer.get(key) for key in ("add_bos_token", "add_eos_token")]
    if flags != [None, None] or isinstance(tokenizer, SentencePieceTokenizer):
        adds = flags[0] or (flags[0] is None and isinstance(tokenizer, SentencePieceTokenizer))
        return (bos,) if adds and bos is not None else ()
    if not isinstance(tokenizer, JsonTokenizer):
        return ()
    import tokenizers

    with errors_named(str(facts.folder / "tokenizer.json"), " cannot encode a text"):
        model = tokenizers.Tokenizer.from_str(tokenizer.spec["json"])
        bare = model.encode("a", add_special_tokens=False).ids
        whole = model.encode("a", add_special_tokens=True).ids
    n_before = next((n for n in range(len(whole)) if whole[n : n + len(bare)] == bare), 0)
    if after := whole[n_before + len(bare) :]:
        shown = tokenizer.decode(after)
        print(
            f"{facts.folder}: the tokenizer puts {shown} after a text; it is left out, for prompts "
            "go on",
            file=sys.stderr,
        )
    return tuple(whole[:n_before])


def _chat_template(facts: FolderFacts) -> str:
    """chat_template.jinja goes before tokenizer_config.json; of several templates the default."""
    path = facts.folder / "chat_template.jinja"
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8: {error}") from None
    older = facts.folder / "chat_template.json"
    found = facts.tokenizer.get("chat_template")
    if found is None and older.is_file():
        found = read_json(older).get("chat_template")
    if isinstance(found, list):
        by_name = {t.get("name"): t.get("template") for t in found if isinstance(t, dict)}
        found = by_name.get("default")
    return found if isinstance(found, str) else ""


def facts_of(tokenizer: Tokenizer) -> tuple[dict[str, Any], dict[str, Any]]:
    """(ids for config.json and generation_config.json, names for tokenizer_config.json), as
    `read_conventions` reads them back."""
    kept, end = tokenizer.conventions, tokenizer.end_of_text
    if kept == Conventions():
        return {"bos_token_id": end, "eos_token_id": end}, {}
    begin = kept.begin[0] if kept.begin else None
    ends: Any = tokenizer.ends[0] if len(tokenizer.ends) == 1 else list(tokenizer.ends) or None
    names: dict[str, Any] = dict(kept.names)
    if kept.chat_template:
        names["chat_template"] = kept.chat_template
    return {"bos_token_id": begin, "eos_token_id": ends}, names


def is_plain_gpt2(facts: FolderFacts, tokenizer: JsonTokenizer, gpt2: BytePairTokenizer) -> bool:
    """Whether a folder's tokenizer is GPT-2's own, with nothing added to it."""
    content = tokenizer.content
    splits = content.get("pre_tokenizer") or {}
    return (
        set(tokenizer.special) <= {END}
        and len(content.get("added_tokens") or ()) == len(tokenizer.special)
        and content.get("normalizer") is None
        and splits.get("type") == "ByteLevel"
        and not splits.get("add_prefix_space")
        and splits.get("use_regex", True)
        and tokenizer.vocab_size == gpt2.vocab_size
        and content["model"]["vocab"] == {token: i for i, token in enumerate((*gpt2.tokens, END))}
    )
