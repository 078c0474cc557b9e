"""Kinds of fields, and what makes a dataclass a section of the config. Must not import jax."""

import json
from collections.abc import Callable
from typing import Annotated, Any, TypeVar, dataclass_transform

from pydantic import AfterValidator, ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from gpt_jax.storage import paths

Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, lt=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
LocalPath = Annotated[str, AfterValidator(paths.local)]
"""A path of a mounted file system: s3:// and the like are refused."""


class HashableDict(dict[str, Any]):
    """A dict of JSON values that a frozen config can be hashed with; not to be changed."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(json.dumps(self, sort_keys=True))


Options = Annotated[dict[str, Any], AfterValidator(HashableDict)]
"""Options of the entry that a section names, by their names: `optimizer.options`."""

T = TypeVar("T")

DRAFT = "draft"
"""Validation context of a config whose sections need not agree yet (`overrides.draft`)."""


@dataclass_transform(frozen_default=True, kw_only_default=True)
def section(cls: type[T]) -> type[T]:
    """A frozen, validated dataclass whose fields are described by the strings below them."""
    config = ConfigDict(extra="forbid", use_attribute_docstrings=True)
    return dataclass(frozen=True, kw_only=True, config=config)(cls)  # type: ignore[return-value]


def check() -> Callable[[Any], Any]:
    return model_validator(mode="after")
