"""A text's bytes are those of its tokens, whatever characters the tokens cut apart."""

import pytest
import tokenizers

from gpt_jax.data.tokenizers.entries.byte import ByteTokenizer
from gpt_jax.data.tokenizers.subword import BytePairTokenizer
from gpt_jax.data.tokenizers.tokenizer_json import JsonTokenizer

TEXT = " Héllo wörld, 日本語 🎉 x"


def byte_level():
    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=alphabet, special_tokens=["<|endoftext|>"]
    )
    model.train_from_iterator([TEXT.replace("🎉", "")], trainer)
    return JsonTokenizer(model.to_str())


def byte_fallback():
    """As Llama's: a mark for blanks, and bytes for what the vocabulary lacks."""
    vocabulary = {"<unk>": 0, "\u2581": 1, "\u2581x": 2, "x": 3}
    vocabulary |= {f"<0x{byte:02X}>": 4 + byte for byte in range(256)}
    merges = [("\u2581", "x")]
    model = tokenizers.Tokenizer(
        tokenizers.models.BPE(
            vocab=vocabulary, merges=merges, byte_fallback=True, unk_token="<unk>"
        )
    )
    model.normalizer = tokenizers.normalizers.Replace(" ", "\u2581")
    decoders = tokenizers.decoders
    model.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return JsonTokenizer(model.to_str())


@pytest.mark.parametrize(
    "make",
    [ByteTokenizer, lambda: BytePairTokenizer.train([TEXT * 9], 270), byte_level, byte_fallback],
)
def test_the_bytes_of_tokens_are_the_texts(make):
    tokenizer = make()
    ids = tokenizer.encode(TEXT).tolist()
    pieces = [tokenizer.token_bytes(i) for i in ids]
    assert b"".join(pieces) == TEXT.encode()
    assert any(b"\xf0" in piece and b"\x89" not in piece for piece in pieces), "none is partial"
    with pytest.raises(ValueError, match="outside the vocabulary"):
        tokenizer.token_bytes(tokenizer.vocab_size)
