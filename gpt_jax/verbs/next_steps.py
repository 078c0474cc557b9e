"""Commands that are printed at the end of another: a prompt that fits the run, and guides.

Must not import jax.
"""

import os
from pathlib import Path

import gpt_jax
from gpt_jax.config import Config
from gpt_jax.data.corpora import prepare_mixture

WORDS, TOKENS, CHARACTERS = 3, 96, 40
"""Length of a suggested prompt, at most: words, of the first tokens held out."""


def guide(package: str) -> str:
    """The path of a package's guide, as short as it can be given from here."""
    path = Path(gpt_jax.__file__).parent / package / "README.md"
    relative = os.path.relpath(path)
    return relative if not relative.startswith("..") else str(path)


def prompt_for(config: Config) -> str:
    """A prompt that fits what the run has read: `def ` after Python, else the first words of the
    text that it was validated on; empty, a new document, where that is gone."""
    if config.data.source == "stdlib":
        return "def "
    try:
        corpus = prepare_mixture(config.data, progress=False)[0][0]
        held_out = corpus.split("validation")
    except (ValueError, OSError):  # a run outlives its corpus
        return ""
    ids = held_out.read(0, min(TOKENS, held_out.n_tokens))
    ends = corpus.tokenizer.end_of_text
    text = corpus.tokenizer.decode([i for i in ids.tolist() if i != ends])
    lines = [line.split() for line in text.splitlines() if line.isprintable()]
    # The first line may begin inside a sentence.
    words = next((line for line in lines[1:] if len(line) >= WORDS), text.split())
    return " ".join(words[:WORDS])[:CHARACTERS]
