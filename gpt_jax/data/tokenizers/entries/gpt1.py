"""GPT-1's vocabulary. Must not import jax."""

from gpt_jax.data.tokenizers.base import Tokenizer
from gpt_jax.data.tokenizers.entry import Making, TokenizerEntry


def make(making: Making) -> Tokenizer:
    """The released vocabulary, of data.tokenizer_path or an installed package."""
    from gpt_jax.data.tokenizers.vocabularies import load_gpt1

    return load_gpt1(making.path)


ENTRY = TokenizerEntry(name="gpt1", summary="the vocabulary of GPT-1", make=make)
