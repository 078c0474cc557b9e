"""OpenAI's completions and chat requests, as far as we answer them, and its form of errors.

A field that asks for something we cannot do is refused by its name; null is what is not given.
Must not import jax.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from gpt_jax.hints import did_you_mean

MAX_STOPS = 4
"""Stop strings of a request, as at OpenAI."""
MAX_STOP_IDS = 16
TOP_OF_COMPLETIONS, TOP_OF_CHAT = 5, 20
"""Alternatives that may be asked of each token, as at OpenAI."""

MOST_SHOWN = 100
"""Characters of a refused value."""

ANYTHING = object()
"""In the tables below: every value is allowed, as none changes the answer."""
WITHOUT_EFFECT: Mapping[str, tuple[Any, ...]] = {
    "user": (ANYTHING,),
    "safety_identifier": (ANYTHING,),
    "prompt_cache_key": (ANYTHING,),
    "prompt_cache_retention": (ANYTHING,),
    "metadata": (ANYTHING,),
    "parallel_tool_calls": (ANYTHING,),
    "store": (False,),
    "service_tier": ("auto", "default"),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "length_penalty": (1,),
    "min_p": (0,),
    "logit_bias": ({},),
    "echo": (False,),
    "suffix": ("",),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "ignore_eos": (False,),
    "use_beam_search": (False,),
    "include_stop_str_in_output": (False,),
    "skip_special_tokens": (True,),
    "add_generation_prompt": (True,),
    "reasoning_effort": ("none",),
    "verbosity": ("medium",),
}
"""Fields of the API, and of servers with more, that are taken only with values that ask for what
we do anyway: {field: those values}."""
MESSAGE_WITHOUT_EFFECT: Mapping[str, tuple[Any, ...]] = {
    "tool_calls": ([],),
    "annotations": ([],),
}
"""The same of a message: an answer of ours that is sent back has them."""


class ApiError(Exception):
    """Error sent to the client: an HTTP status and OpenAI's error object."""

    def __init__(
        self,
        status: int,
        message: str,
        kind: str,
        code: str | None = None,
        parameter: str | None = None,
    ):
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": parameter, "code": code}}


def invalid(message: str, code: str | None = None, parameter: str | None = None) -> ApiError:
    return ApiError(400, message, "invalid_request_error", code, parameter)


class _Strict(BaseModel):
    """An object of which every field is known, and null is a field that is not given."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            raise ValueError("not a JSON object")
        return {name: field for name, field in value.items() if field is not None}


class StreamOptions(_Strict):
    """Options of a stream."""

    include_usage: bool = False
    include_obfuscation: bool = False

    @field_validator("include_obfuscation")
    @classmethod
    def _no_obfuscation(cls, value: bool) -> bool:
        if value:
            raise ValueError("this server sends none; allowed: false")
        return value


class _Common(_Strict):
    """Fields that both kinds of requests share."""

    model: str
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    min_tokens: Annotated[int, Field(ge=0)] = 0
    """Before so many, nothing ends the text but the model's context."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=-1)] = -1
    """0 and -1: every token."""
    n: Annotated[int, Field(ge=1, le=16)] = 1
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    stop: list[str] = []
    stop_token_ids: Annotated[list[int], Field(max_length=MAX_STOP_IDS)] = []
    """Tokens that end the text as the end of text does, themselves left out."""
    seed: int | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_effect(cls, value: Any) -> Any:
        """Fields with values that ask for what we do anyway are left out."""
        return _taken(value, cls.model_fields, WITHOUT_EFFECT) if isinstance(value, dict) else value

    @field_validator("stop", mode="before")
    @classmethod
    def _stop_list(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = [value]
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            raise ValueError(f"a text, or a list of 1 to {MAX_STOPS} texts")
        if len(value) > MAX_STOPS:
            raise ValueError(f"{len(value)} texts; allowed: up to {MAX_STOPS}")
        return value

    @field_validator("stream_options", mode="before")
    @classmethod
    def _stream_object(cls, value: Any) -> Any:
        if not isinstance(value, dict | StreamOptions):
            raise ValueError('an object such as {"include_usage": true}')
        return value

    @model_validator(mode="after")
    def _enough(self) -> "_Common":
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise ValueError(f"min_tokens: {self.min_tokens} is over max_tokens {self.max_tokens}")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        return tuple(stop for stop in self.stop if stop)

    @property
    def tells_tokens(self) -> bool:
        """Whether log-probabilities are asked for."""
        raise NotImplementedError

    @property
    def n_likeliest(self) -> int:
        """Alternatives to report for each token."""
        raise NotImplementedError


class CompletionRequest(_Common):
    """POST /v1/completions."""

    prompt: list[str] | list[list[int]]
    """A text or a list of ids is a list of one."""
    logprobs: Annotated[int, Field(ge=0, le=TOP_OF_COMPLETIONS)] | None = None
    best_of: int | None = None

    @model_validator(mode="before")
    @classmethod
    def _empty_prompt(cls, value: Any) -> Any:
        """A prompt of null is the empty one, from which the model begins a text of its own."""
        if isinstance(value, dict) and "prompt" in value and value["prompt"] is None:
            return {**value, "prompt": ""}
        return value

    @field_validator("prompt", mode="before")
    @classmethod
    def _prompts(cls, value: Any) -> Any:
        if isinstance(value, str):
            return [value]
        if value == []:
            raise ValueError("is empty")
        if isinstance(value, list):
            if all(map(_is_id, value)):
                return [value]
            if all(isinstance(text, str) for text in value):
                return value
            if all(isinstance(ids, list) and all(map(_is_id, ids)) for ids in value):
                return value
        raise ValueError("a text, a list of texts, a list of token ids, or a list of such lists")

    @model_validator(mode="after")
    def _best(self) -> "CompletionRequest":
        if self.best_of not in (None, self.n):
            raise ValueError(f"best_of: {self.best_of}; this server ranks no texts; allowed: n")
        return self

    @property
    def tells_tokens(self) -> bool:
        return self.logprobs is not None

    @property
    def n_likeliest(self) -> int:
        return self.logprobs or 0


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


class Message(_Strict):
    """A turn; content of several parts is a line break between them, as other servers have it."""

    role: str
    content: str = ""

    @model_validator(mode="before")
    @classmethod
    def _without_effect(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        value = _taken(value, cls.model_fields, MESSAGE_WITHOUT_EFFECT)
        if value.get("content") is None and value.get("role") != "assistant":
            raise ValueError("content: a text, or a list of parts of type text, is missing")
        return value

    @field_validator("content", mode="before")
    @classmethod
    def _joined(cls, value: Any) -> Any:
        if isinstance(value, str):
            return value
        if not isinstance(value, list) or not all(isinstance(part, dict) for part in value):
            raise ValueError('a text, or a list of parts such as {"type": "text", "text": ...}')
        for number, part in enumerate(value):
            kind = part.get("type")
            if kind != "text" or not isinstance(part.get("text"), str) or len(part) != 2:
                raise ValueError(
                    f"part {number} is of type {_short(kind)}; this model reads text alone: "
                    '{"type": "text", "text": ...}'
                )
        return "\n".join(part["text"] for part in value)


class ChatRequest(_Common):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=TOP_OF_CHAT)] = 0

    @model_validator(mode="before")
    @classmethod
    def _one_length(cls, value: Any) -> Any:
        """OpenAI's newer name of max_tokens goes before the older."""
        if isinstance(value, dict) and value.get("max_completion_tokens") is not None:
            return {**value, "max_tokens": value["max_completion_tokens"]}
        return value

    @model_validator(mode="after")
    def _top_of_what(self) -> "ChatRequest":
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs: needs logprobs: true")
        return self

    @property
    def tells_tokens(self) -> bool:
        return self.logprobs

    @property
    def n_likeliest(self) -> int:
        return self.top_logprobs


def _taken(
    value: dict[str, Any], fields: Mapping[str, Any], without_effect: Mapping[str, tuple[Any, ...]]
) -> dict[str, Any]:
    """The fields that we read. Raises ValueError naming one that we do not, or its value."""
    left = {}
    for name, given in value.items():
        if given is None or name in fields:
            left[name] = given
        elif name not in without_effect:
            _unknown(name, [*fields, *without_effect])
        elif not any(one is ANYTHING or _same(one, given) for one in without_effect[name]):
            allowed = " or ".join(map(json.dumps, without_effect[name]))
            raise ValueError(
                f"{name}: {_short(given)} is not what this server does; allowed: {allowed}, or null"
            )
    return {name: given for name, given in left.items() if given is not None}


def _same(one: Any, given: Any) -> bool:
    """Equal, and a flag is no number."""
    return one == given and isinstance(one, bool) == isinstance(given, bool)


def _unknown(name: str, known: list[str]) -> NoReturn:
    raise ValueError(f"{name[:100]}: this server does not know it{did_you_mean(name, known)}")


def _short(value: Any) -> str:
    """A value as JSON, on a line that stays readable."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


def parse(kind: type[_Common], body: bytes) -> Any:
    """A request of its kind. Raises ApiError naming the field that is wrong."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise _refusal(error.errors(include_url=False)[0]) from None


def _refusal(error: Any) -> ApiError:
    """The first of pydantic's errors as one line that begins with the field's name."""
    place, said = [str(part) for part in error["loc"]], error["msg"]
    if error["type"] == "value_error":
        said = said.removeprefix("Value error, ")
        name, separator, rest = said.partition(": ")
        if separator and name.isidentifier():  # a check of the whole object names the field itself
            place, said = [*place, name], rest
    elif error["type"] not in ("missing", "json_invalid"):
        said += f", not {_short(error['input'])}"
    where = ".".join(place)
    return invalid(f"{where or 'the body'}: {said}", parameter=where or None)
