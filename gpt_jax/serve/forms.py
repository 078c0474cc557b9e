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
        """A token's text; of one that is no whole characters, its bytes as \\xNN."""
        data = self.tokenizer.token_bytes(token)
        try:
            return data.decode()
        except UnicodeDecodeError:
            return "".join(f"\\x{byte:02x}" for byte in data)


class CompletionForm(Form):
    whole = parts = "text_completion"
    prefix = "cmpl"

    def choice(
        self, index: int, text: str, tokens: Sequence[Token], reason: str | None
    ) -> dict[str, Any]:
        logprobs = None if self.asked.logprobs is None else self._logprobs(tokens)
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}

    def part(self, index: int, event: Event, is_first: bool) -> dict[str, Any]:
        return self.choice(index, event.text, event.tokens, event.finish_reason)

    def _logprobs(self, tokens: Sequence[Token]) -> dict[str, Any]:
        return {
            "tokens": [self._key(t.token) for t in tokens],
            "token_logprobs": [t.log_probability for t in tokens],
            "top_logprobs": [self._top(t) for t in tokens],
            "text_offset": None,
        }

    def _top(self, told: Token) -> dict[str, float]:
        """Log-probabilities by text, the drawn token among them. Of tokens that share a text, those
        after the first are keyed by their ids: none is lost."""
        top: dict[str, float] = {}
        for token, p in {told.token: told.log_probability, **told.likeliest}.items():
            key = self._key(token)
            top[f"token_id:{token}" if key in top else key] = p
        return dict(sorted(top.items(), key=lambda one: -one[1]))

    def _key(self, token: int) -> str:
        """As this endpoint writes what is no whole characters: bytes:\\xNN."""
        text = self.text_of(token)
        is_text = text.encode() == self.tokenizer.token_bytes(token)
        return text if is_text else f"bytes:{text}"


class ChatForm(Form):
    whole, parts, prefix = "chat.completion", "chat.completion.chunk", "chatcmpl"

    def choice(
        self, index: int, text: str, tokens: Sequence[Token], reason: str | None
    ) -> dict[str, Any]:
        message = {"role": LEARNED, "content": text}
        return self._with_logprobs(
            {"index": index, "message": message, "finish_reason": reason}, tokens
        )

    def part(self, index: int, event: Event, is_first: bool) -> dict[str, Any]:
        delta = {"content": event.text} | ({"role": LEARNED} if is_first else {})
        choice = {"index": index, "delta": delta, "finish_reason": event.finish_reason}
        return self._with_logprobs(choice, event.tokens)

    def _with_logprobs(self, choice: dict[str, Any], tokens: Sequence[Token]) -> dict[str, Any]:
        if not self.asked.logprobs:
            return choice | {"logprobs": None}

        def one(token: int, p: float) -> dict[str, Any]:
            data = list(self.tokenizer.token_bytes(token))
            return {"token": self.text_of(token), "logprob": p, "bytes": data}

        content = [
            one(t.token, t.log_probability)
            | {"top_logprobs": [one(i, p) for i, p in t.likeliest.items()]}
            for t in tokens
        ]
        return choice | {"logprobs": {"content": content}}
