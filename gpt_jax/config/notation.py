"""Values of settings as they are typed (`wording` shows them again). Must not import jax."""

import contextlib
import json
import typing
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo


def annotation_of(field: FieldInfo) -> Any:
    """The type of a section's field with its constraints."""
    annotation: Any = field.annotation
    for constraint in field.metadata:
        annotation = typing.Annotated[annotation, constraint]
    return annotation


def parse(key: str, text: str, annotation: Any) -> Any:
    """The first reading of `text` that the type accepts. Raises ValueError with what is allowed;
    key: of the setting, for the message."""
    adapter = TypeAdapter(annotation)
    readings: list[Any] = [text]
    if text.lower() in ("none", "null") and _allows_none(annotation):
        readings.insert(0, None)
    with contextlib.suppress(ValueError, RecursionError):
        readings.append(json.loads(text))
    readings.append(text.split(",") if text else [])
    refused: list[str] = []
    for reading in readings:
        try:
            adapter.validate_python(reading)
        except RecursionError:
            continue
        except ValidationError as error:
            from gpt_jax.config.wording import reason

            refused += [reason(item) for item in error.errors() if item["type"] == "value_error"]
            continue
        return reading
    from gpt_jax.config.wording import describe, in_a_line

    allowed = refused[0] if refused else f"allowed: {describe(annotation)}"
    raise ValueError(f"{key} = {in_a_line(text)}; {allowed}")


def parse_json(text: str) -> Any:
    """A number, true, false, null, none or list as it is written in JSON; any other text."""
    if text.lower() == "none":
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text


def strip(annotation: Any) -> Any:
    """A type without its constraints."""
    while typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    return annotation


def _allows_none(annotation: Any) -> bool:
    return type(None) in typing.get_args(annotation) or any(
        _allows_none(a) for a in typing.get_args(annotation) if typing.get_args(a)
    )
