"""The shapes of answers: OpenAI's objects for completions and chat, whole and in parts."""

import secrets
import time
from collections.abc import Sequence
from typing import Any

from gpt_jax.data.tokenizers import Tokenizer
from gpt_jax.finetune.templates import LEARNED
from gpt_jax.serve.engine import Event, Token


def token_counts(n_prompt: int, n_completion: int) -> dict[str, int]:
    return {
        "prompt_tokens": n_prompt,
        "completion_tokens": n_completion,
        "total_tokens": n_prompt + n_completion,
    }


class Form:
    """The shapes of an answer."""

    whole, parts, prefix = "", "", ""

    def __init__(self, name: str, tokenizer: Tokenizer, asked: Any):
        self.name, self.tokenizer, self.asked = name, tokenizer, asked
        self.id = f"{self.prefix}-{secrets.token_hex(12)}"

    def head(self, streaming: bool) -> dict[str, Any]:
        kind = self.parts if streaming else self.whole
        created = int(time.time())
        return {"id": self.id, "object": kind, "created": created, "model": self.name}

    def choice(
        self, index: int, text: str, tokens: Sequence[Token], reason: str | None
    ) -> dict[str, Any]:
        raise NotImplementedError

    def part(self, index: int, event: Event, is_first: bool) -> dict[str, Any]:
        raise NotImplementedError

    def text_of(self, token: int) -> str:
        return self.tokenizer.decode([token])


class CompletionForm(Form):
    whole = parts = "text_completion"
    prefix = "cmpl"

    def choice(self, index, text, tokens, reason):
        logprobs = None if self.asked.logprobs is None else self._logprobs(tokens)
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}

    def part(self, index, event, is_first):
        return self.choice(index, event.text, event.tokens, event.finish_reason)

    def _logprobs(self, tokens: Sequence[Token]) -> dict[str, Any]:
        n = self.asked.logprobs
        return {
            "tokens": [self.text_of(t.token) for t in tokens],
            "token_logprobs": [t.log_probability for t in tokens],
            "top_logprobs": [
                {self.text_of(i): p for i, p in list(t.likeliest.items())[:n]} for t in tokens
            ],
            "text_offset": None,
        }


class ChatForm(Form):
    whole, parts, prefix = "chat.completion", "chat.completion.chunk", "chatcmpl"

    def choice(self, index, text, tokens, reason):
        message = {"role": LEARNED, "content": text}
        return self._with_logprobs(
            {"index": index, "message": message, "finish_reason": reason}, tokens
        )

    def part(self, index, event, is_first):
        delta = {"content": event.text} | ({"role": LEARNED} if is_first else {})
        choice = {"index": index, "delta": delta, "finish_reason": event.finish_reason}
        return self._with_logprobs(choice, event.tokens)

    def _with_logprobs(self, choice: dict[str, Any], tokens: Sequence[Token]) -> dict[str, Any]:
        if not self.asked.logprobs:
            return choice | {"logprobs": None}

        def one(token: int, p: float) -> dict[str, Any]:
            text = self.text_of(token)
            return {"token": text, "logprob": p, "bytes": list(text.encode())}

        n = self.asked.top_logprobs or 0
        content = [
            one(t.token, t.log_probability)
            | {"top_logprobs": [one(i, p) for i, p in list(t.likeliest.items())[:n]]}
            for t in tokens
        ]
        return choice | {"logprobs": {"content": content}}
