"""The tokens of a request's prompts: checked, then filtered. Runs in a thread.

Must not import jax.
"""

from collections.abc import Container, Sequence

import numpy as np

from gpt_jax.data.streaming import encode_prompt
from gpt_jax.data.tokenizers import Tokenizer
from gpt_jax.finetune.templates import Template
from gpt_jax.inference import chat
from gpt_jax.inference.filters import Filters
from gpt_jax.serve.protocol import ChatRequest, CompletionRequest, Message, invalid


def completion_prompts(
    asked: CompletionRequest, tokenizer: Tokenizer, filters: Filters, context: int
) -> list[np.ndarray]:
    """Every prompt's tokens.

    Raises ApiError for a prompt that is too long, has ids beyond the vocabulary or characters that
    it lacks, or a word that the stop list does not allow.
    """
    return [_completion(prompt, asked, tokenizer, filters, context) for prompt in asked.prompt]


def _completion(
    prompt: str | list[int],
    asked: CompletionRequest,
    tokenizer: Tokenizer,
    filters: Filters,
    context: int,
) -> np.ndarray:
    if isinstance(prompt, str):
        ids = _encode(tokenizer, prompt)
        check_length(ids, asked.min_tokens, context)
        if filters:  # what is replaced may have become longer
            ids = _encode(tokenizer, _allowed(filters, prompt))
            check_length(ids, asked.min_tokens, context)
        return ids
    known = tokenizer.vocab_size
    if not prompt or not all(0 <= token < known for token in prompt):
        raise invalid(f"prompt: token ids are 0 to {known - 1}, one or more", parameter="prompt")
    if filters:
        message = "prompt: this server filters texts and takes no token ids"
        raise invalid(message, parameter="prompt")
    check_length(prompt, asked.min_tokens, context)
    return np.asarray(prompt, np.int32)


def chat_prompt(
    asked: ChatRequest,
    template: Template | None,
    tokenizer: Tokenizer,
    filters: Filters,
    context: int,
) -> np.ndarray:
    """The tokens of a conversation, up to where the assistant's next turn begins.

    template: None is the tokenizer's own.

    Raises ApiError as `completion_prompts` does, and for a role that the template lacks.
    """
    known = tokenizer.conventions.chat_template if template is None else template.roles
    turns = [{"role": _role(m, known), "content": m.content} for m in asked.messages]
    ids = _render(turns, template, tokenizer)
    check_length(ids, asked.min_tokens, context)
    if filters:  # what is replaced may have become longer
        turns = [{**turn, "content": _allowed(filters, turn["content"])} for turn in turns]
        ids = _render(turns, template, tokenizer)
        check_length(ids, asked.min_tokens, context)
    return ids


def _role(message: Message, known: Container[str]) -> str:
    """OpenAI's newer name of the system's turns is understood where the template, or its text,
    lacks it."""
    if message.role == "developer" and message.role not in known:
        return "system"
    return message.role


def _render(
    turns: Sequence[dict[str, str]], template: Template | None, tokenizer: Tokenizer
) -> np.ndarray:
    try:
        return chat.chat_prompt(tokenizer, turns, template).ids
    except ValueError as error:
        raise invalid(f"messages: {error}", parameter="messages") from None


def check_length(ids: Sequence[int] | np.ndarray, min_tokens: int, context: int) -> None:
    """Raises ApiError for a prompt that leaves no room for an answer, or for one too short."""
    room = context - len(ids)
    if room < 1:
        raise invalid(
            f"the prompt has {len(ids):,} tokens; the model's context is {context:,}, of which "
            f"one is for the answer",
            "context_length_exceeded",
        )
    if min_tokens > room:
        message = f"min_tokens: {min_tokens:,}; the prompt leaves room for {room:,}"
        raise invalid(message, parameter="min_tokens")


def _allowed(filters: Filters, text: str) -> str:
    """The text after redaction. Raises ApiError for one that the stop list does not allow."""
    try:
        return filters.prompt(text)
    except ValueError as error:
        raise invalid(str(error), "content_filter") from None


def _encode(tokenizer: Tokenizer, text: str) -> np.ndarray:
    try:
        return np.asarray(encode_prompt(tokenizer, text), np.int32)
    except ValueError as error:  # a character outside the alphabet
        raise invalid(f"prompt: {error}", parameter="prompt") from None
