"""Data and vocabulary of a sweep's trials, looked at before anything runs. Must not import jax."""

import collections
from collections.abc import Sequence
from pathlib import Path

from gpt_jax.config import Config
from gpt_jax.data.shards import Corpus
from gpt_jax.data.sources import open_source
from gpt_jax.data.tokenizers.making import bpe_size, make_tokenizer
from gpt_jax.sweep.trial import Trial


def problems(trials: Sequence[Trial]) -> list[str]:
    """Lines on what trials cannot be trained with here: how many, the first one, and why. Nothing
    is built: a corpus's text is looked for, not read."""
    known: dict[str, str] = {}
    affected: dict[str, list[str]] = collections.defaultdict(list)
    for trial in trials:
        config = trial.config
        key = repr((config.data, config.model.vocab_size, config.task.name, config.task.train))
        if key not in known:
            known[key] = problem(config)
        if known[key]:
            affected[known[key]].append(trial.name)
    return [
        f"warning: {len(names):,} of {len(trials):,} trials cannot be trained here (first "
        f"{names[0]}): {why}"
        for why, names in affected.items()
    ]


def problem(config: Config) -> str:
    """Why the data or their tokenizer cannot serve the config; empty if nothing is in the way."""
    try:
        size = _vocabulary(config)
    except (ValueError, OSError) as error:
        return str(error)
    if size is not None and size > config.model.vocab_size:
        return (
            f"the tokenizer has {size:,} ids, more than model.vocab_size = "
            f"{config.model.vocab_size:,}; raise model.vocab_size"
        )
    return ""


def _vocabulary(config: Config) -> int | None:
    """Ids of the tokenizer; None where only the text decides. Raises ValueError for no data."""
    data = config.data
    if config.task.has_examples:
        if not Path(config.task.train).is_file():
            raise ValueError(f"no file of examples {config.task.train}")
        return None
    if data.source in ("shards", "mixture"):
        paths = [part.path for part in data.mixture] or [data.path]
        return max(Corpus(path).tokenizer.vocab_size for path in paths)
    open_source(data)
    if data.tokenizer == "char":
        return None
    return (
        bpe_size(data.tokenizer) or make_tokenizer(data.tokenizer, data.tokenizer_path).vocab_size
    )
