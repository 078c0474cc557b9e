"""Corpora of a config: opened where they are finished, else made.

What makes one is imported when there is none yet (`gpt_jax.data.build`). Must not import jax.
"""

from pathlib import Path

from gpt_jax.config import DataConfig
from gpt_jax.data.finished import earlier_identity, label, make_identity, open_finished
from gpt_jax.data.shards import MANIFEST, Corpus, distinct_names
from gpt_jax.data.sources import open_source
from gpt_jax.data.verified import verify_once
from gpt_jax.runtime import cache_directory


def default_cache() -> Path:
    """$XDG_CACHE_HOME/gpt_jax/data, or ~/.cache/gpt_jax/data."""
    return cache_directory() / "data"


def prepare(config: DataConfig, *, workers: int | None = None, progress: bool = True) -> Corpus:
    """The corpus of a config: opened where it was built before, else built in data.cache.

    Its directory is named by a hash of the settings and of the source's state: when the text
    changes, another is built. With data.source = shards, data.path is opened, and the
    tokenizer is the one it was made with.

    Raises ValueError for a mixture: it is several corpora (see `prepare_mixture`).
    """
    if config.source == "shards":
        return verify_once(Corpus(config.path), progress=progress)
    source = open_source(config)
    place = (Path(config.cache) if config.cache else default_cache()).expanduser()
    earlier = place / label(config, earlier_identity(config, source))
    directory = place / label(config, make_identity(config, source))
    # Runs made with an earlier one continue with it, and compare with later ones.
    found = earlier if (earlier / MANIFEST).is_file() else directory
    if (found / MANIFEST).is_file():
        return open_finished(config, source, found, progress)
    from gpt_jax.data.build import build

    return build(config, found, workers=workers, progress=progress)


def prepare_mixture(
    config: DataConfig, *, workers: int | None = None, progress: bool = True
) -> tuple[tuple[Corpus, float], ...]:
    """The corpora of any config with their weights; one, of weight 1, where it is no mixture.

    Raises ValueError when the corpora of a mixture were made by different tokenizers.
    """
    if config.source != "mixture":
        return ((prepare(config, workers=workers, progress=progress), 1.0),)
    names = distinct_names([Path(component.path) for component in config.mixture])
    corpora = [
        (verify_once(Corpus(component.path, name=name), progress=progress), component.weight)
        for component, name in zip(config.mixture, names, strict=True)
    ]
    first = corpora[0][0]
    for corpus, _ in corpora[1:]:
        if corpus.tokenizer.fingerprint != first.tokenizer.fingerprint:
            raise ValueError(
                f"data.mixture: {corpus.directory} was made by another tokenizer than "
                f"{first.directory} ({corpus.manifest['tokenizer']['name']}, "
                f"{first.manifest['tokenizer']['name']}); build both with the same one"
            )
    return tuple(corpora)
