"""The corpus, its tokenizer and how samples are cut from it. Must not import jax."""

from typing import Annotated, Literal

from gpt_jax.config.entries import SOURCES, OneOf
from gpt_jax.config.fields import (
    AnyPath,
    Fraction,
    HashableDict,
    LocalPath,
    Options,
    Positive,
    PositiveFloat,
    check,
    fresh,
    section,
    setting,
)
from gpt_jax.storage import paths


@section
class MixtureComponent:
    """One prepared corpus of a mixture."""

    path: AnyPath
    """Directory of token shards made by `gpt-jax data build`."""
    weight: PositiveFloat = 1.0
    """Share of the samples, relative to the other components."""


@section
class DataConfig:
    """Where text comes from and how it becomes samples of seq_len + 1 tokens."""

    source: Annotated[str, OneOf(SOURCES)] = "stdlib"
    """stdlib: the Python standard library's own sources, always present; shards: prepared ones."""
    path: str = ""
    """File, glob or directory; or the data set's name for huggingface and tfds."""
    field: str = "text"
    """The record's field that holds the text (jsonl, parquet, huggingface, tfds)."""
    mixture: tuple[MixtureComponent, ...] = ()
    """Prepared corpora to mix, with weights (source = mixture)."""
    tokenizer: AnyPath = "gpt2"
    """byte | char | gpt2 | gpt1 | bpe:SIZE (trained on the corpus) | a tokenizer.json, .model, or
    the tokenizer_spec.json of a run or corpus."""
    tokenizer_path: LocalPath = setting("", scope="machine")
    """Directory of the gpt2 or gpt1 vocabulary files, where no installed package has them."""
    validation: Literal["document", "tail"] = "document"
    """Held out: whole documents picked by hash, or the last part of the text."""
    validation_fraction: Fraction = 0.01
    """Share held out for validation."""
    unique_tokens: Positive | None = setting(None, unit="tokens", added="2026-11-26")
    """Train on so many tokens from all over the training text, again and again; none = all."""
    separate_documents: bool = False
    """Attention does not cross document borders inside a sample (segment ids)."""
    named_splits: bool = setting(True, added="2026-11-27")
    """Files of a folder named train, validation (or valid, val, dev) and test are those splits, and
    test files are not read; false = all files are trained on."""
    max_expansion: Positive = setting(100, scope="machine")
    """A document of over 64 MiB out of a compressed file is refused when it is more than so many
    times as large as the file: a decompression bomb."""
    cache: LocalPath = setting("", scope="machine")
    """Directory for built token shards; empty = the user's cache directory."""
    options: Options = fresh(HashableDict, added="2026-11-28")
    """Options of the source's own, where an extension's source has any."""

    @check()
    def _consistent(self) -> "DataConfig":
        if (self.source == "mixture") != bool(self.mixture):
            raise ValueError("data.mixture and data.source = mixture go together")
        if self.mixture and self.unique_tokens is not None:
            raise ValueError("data.unique_tokens is of one corpus; a mixture has data.mixture only")
        if self.source == "stdlib" or self.source not in SOURCES:
            # The default asks for nothing. Of an unknown name, `Config` refuses it, or an extension
            # is to come.
            return self
        entry = SOURCES.find(self.source)
        if entry.needs_path and not self.path:
            raise ValueError(f"data.source = {self.source} needs data.path")
        if entry.path_is_local:
            try:
                paths.given(self.path)
            except ValueError as error:
                raise ValueError(f"data.path: {error}") from None
        return self
