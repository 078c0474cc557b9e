"""Numbers instead of words. Must not import jax."""

from gpt_jax.data.tokenizers.entry import TokenizerEntry
from gpt_jax.data.tokenizers.plain import IdsTokenizer

ENTRY = TokenizerEntry(
    name="ids",
    summary="texts that are ids already, of so many",
    argument=r"0*[1-9]\d{0,8}",
    make=lambda making: IdsTokenizer(int(making.argument)),
    restore=lambda spec, where: IdsTokenizer(spec["vocab_size"], spec["end_of_text"]),
)
