"""Bytes of UTF-8. Must not import jax."""

from gpt_jax.data.tokenizers.entry import TokenizerEntry
from gpt_jax.data.tokenizers.plain import ByteTokenizer

ENTRY = TokenizerEntry(
    name="byte",
    summary="the 256 bytes of UTF-8",
    make=lambda making: ByteTokenizer(),
    restore=lambda spec, where: ByteTokenizer(),
)
