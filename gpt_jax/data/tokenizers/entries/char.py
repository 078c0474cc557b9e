"""Characters of the corpus. Must not import jax."""

from gpt_jax.data.tokenizers.entry import TokenizerEntry
from gpt_jax.data.tokenizers.plain import CharTokenizer

ENTRY = TokenizerEntry(
    name="char",
    summary="the characters of the corpus",
    make=lambda making: CharTokenizer.from_texts(making.learned_from()),
    restore=lambda spec, where: CharTokenizer(spec["characters"]),
)
