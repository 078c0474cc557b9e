"""Types and values of settings in words: for help, and for messages about mistakes.

Must not import jax.
"""

import json
import re
import types
import typing
from typing import Any, Literal, Protocol, runtime_checkable

SHOWN = 200
"""Characters of a mistaken value that a message repeats."""


LONGEST_WORD = 300
"""Characters without a blank in a message: more than any list of allowed values has."""


@runtime_checkable
class Choice(Protocol):
    """A constraint of a field that names the values it allows (`gpt_jax.config.entries.OneOf`)."""

    def allowed(self) -> str:
        """The names, with | between them."""


def describe(annotation: Any) -> str:
    """A short description of the allowed values, for help and errors."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        bounds = []
        for constraint in arguments[1:]:
            if isinstance(constraint, Choice):
                several = "list of " if typing.get_origin(arguments[0]) is tuple else ""
                return several + constraint.allowed()
            parts = constraint.metadata if hasattr(constraint, "metadata") else [constraint]
            for part in parts:
                for name, sign in (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<=")):
                    if hasattr(part, name):
                        bounds.append(f"{sign} {getattr(part, name)}")
        return " ".join([describe(arguments[0]), *bounds])
    if origin is Literal:
        return "|".join(map(str, arguments))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(a) for a in arguments)
    if origin is tuple:
        return f"list of {describe(arguments[0])}"
    if origin is dict:
        return "options by name, or JSON"
    if annotation is type(None):
        return "none"
    return {int: "integer", float: "number", bool: "true|false", str: "text"}.get(
        annotation, getattr(annotation, "__name__", str(annotation))
    )


def show(value: Any) -> str:
    """A value in the notation that `parse` reads back."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return json.dumps(value)
    if isinstance(value, tuple | list):
        nested = any(isinstance(item, dict) for item in value)
        return json.dumps(value) if nested else ",".join(map(str, value))
    return str(value)


def refusal(key: str, item: Any, annotation: Any) -> str:
    """The line for one of pydantic's errors: the value, and why not or what is allowed."""
    ours = item["type"] == "value_error"
    words = reason(item) if ours else f"allowed: {describe(annotation)}"
    return f"{key} = {in_a_line(show(item['input']))}; {words}"


def reason(item: Any) -> str:
    """The words of one of pydantic's errors: ours, where a check of ours refused the value.

    Of a value that the words repeat, characters that a terminal does not show are escaped, and the
    rest of what is longer than any name is cut.
    """
    words = str(item["msg"]).removeprefix("Value error, ")
    escaped = "".join(c if c.isprintable() else repr(c)[1:-1] for c in words)
    return re.sub(rf"(\S{{{LONGEST_WORD}}})\S+", r"\1...", escaped)


def in_a_line(text: str) -> str:
    """A value as it is shown in a message: short, and without the ends of lines."""
    if not text.isprintable():
        text = repr(text)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."
