"""Texts to requests: where a context's tokens end and a continuation's begin.

Must not import jax.
"""

from gpt_jax.data.streaming import with_beginning
from gpt_jax.data.tokenizers import Tokenizer
from gpt_jax.evaluate.requests import Request


def encode_pair(tokenizer: Tokenizer, context: str, continuation: str) -> Request:
    """The tokens of context and continuation, as they are when the two are one text.

    White space at the end of the context belongs to the continuation. Where a token would span the
    boundary, both are encoded on their own.
    """
    bare = context.rstrip()
    continuation = context[len(bare) :] + continuation
    before = _ids(tokenizer, bare)
    whole = _ids(tokenizer, bare + continuation)
    if whole[: len(before)] == before and len(whole) > len(before):
        after = whole[len(before) :]
    else:
        after = _ids(tokenizer, continuation)
    return Request(with_beginning(tokenizer, before), after)


def _ids(tokenizer: Tokenizer, text: str) -> tuple[int, ...]:
    return tuple(tokenizer.encode(text).tolist()) if text else ()
