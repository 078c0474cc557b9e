"""Byte-pair encoding learned from the corpus. Must not import jax."""

from collections.abc import Mapping
from typing import Any

from gpt_jax.data.tokenizers.base import Tokenizer
from gpt_jax.data.tokenizers.entry import Making, TokenizerEntry


def make(making: Making) -> Tokenizer:
    """So many tokens, learned from the texts."""
    from gpt_jax.data.tokenizers.subword import BytePairTokenizer

    texts = making.learned_from()
    return BytePairTokenizer.train(texts, int(making.argument), making.progress)


def restore(spec: Mapping[str, Any], where: str) -> Tokenizer:
    """From its tokens."""
    from gpt_jax.data.tokenizers.subword import BytePairTokenizer

    return BytePairTokenizer(spec["tokens"])


ENTRY = TokenizerEntry(
    name="bpe",
    summary="byte-pair encoding of so many tokens, learned from the corpus",
    argument=r"\d+",
    make=make,
    restore=restore,
)
