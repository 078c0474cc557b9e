"""Finished corpora: what identifies one, and how it is opened. Must not import jax."""

import json
import re
import sys
from pathlib import Path
from typing import Any

from gpt_jax.config import DataConfig
from gpt_jax.config.entries import SOURCES
from gpt_jax.data.documents import Source
from gpt_jax.data.shards import FORMAT_VERSION, Corpus
from gpt_jax.data.tokenizers import tokenizer_identity
from gpt_jax.data.verified import verify_once
from gpt_jax.storage.checksum import checksum

CLAIM = "build.json"
"""File in an unfinished directory that says what it is being built from."""
UNFINISHED = (CLAIM, "part-*.json")
"""Files of a build that are of no use once it is finished."""


def label(config: DataConfig, identity: dict[str, Any]) -> str:
    """The name of a corpus's directory in the cache."""
    digest = checksum(json.dumps(identity))
    names = [config.source, Path(config.path).stem, Path(config.tokenizer).stem, digest[:12]]
    return "-".join(re.sub(r"[^\w.]+", "_", name) for name in names if name)


def open_finished(config: DataConfig, source: Source, directory: Path, progress: bool) -> Corpus:
    """The finished corpus in a directory, verified once on this machine.

    Raises ValueError where it was made of another text, or with other settings.
    """
    corpus, identity = Corpus(directory), make_identity(config, source)
    if corpus.manifest["identity"] not in (identity, earlier_identity(config, source)):
        raise ValueError(
            f"{directory} holds a corpus of other text or settings "
            f"({corpus.manifest['source']['description']}); delete it or choose another place"
        )
    remove(directory, *UNFINISHED)  # where a kill came between the manifest and this
    if corpus.manifest["identity"] != identity and progress:
        say_lines(
            f"{directory} was made by an earlier version and is used as it is: copies of a "
            "document may be in training and in validation; delete it to have it made anew"
        )
    return verify_once(corpus, progress=progress)


def make_identity(data: DataConfig, source: Source) -> dict[str, Any]:
    """Everything that decides the tokens."""
    by_hash = data.validation == "document" and data.validation_fraction > 0
    identity = earlier_identity(data, source) | {"source_identity": source.identity}
    identity |= {"options": data.options} if data.options else {}
    origin = SOURCES.origin(data.source)  # another text of the extension may give other documents
    identity |= {"extension": origin} if origin else {}
    return identity | ({"copies": "together"} if by_hash else {})


def earlier_identity(config: DataConfig, source: Source) -> dict[str, Any]:
    """The identity of the corpus that versions made which knew of no copies, nor named splits."""
    return {
        "format_version": FORMAT_VERSION,
        "source": config.source,
        "source_identity": source.earlier_identity or source.identity,
        "field": config.field,
        "tokenizer": tokenizer_identity(config.tokenizer),
        "validation": config.validation,
        "validation_fraction": config.validation_fraction,
    }


def remove(directory: Path, *patterns: str) -> None:
    """Delete the files of a directory that match one of the patterns."""
    for pattern in patterns:
        for file in directory.glob(pattern):
            file.unlink(missing_ok=True)


def say_lines(*lines: str) -> None:
    """Lines on standard error."""
    for line in lines:
        print(line, file=sys.stderr, flush=True)
