"""Kinds of fields, the facts declared beside a field, and what makes a dataclass a section.

Must not import jax.
"""

import dataclasses
import json
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar, dataclass_transform

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
AnyPath = Annotated[str, AfterValidator(paths.anywhere)]
"""A path, or the address of something in a bucket: gs://, s3://."""


class HashableDict(dict[str, Any]):
    """A dict of JSON values that a frozen config can be hashed with; not to be changed."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(json.dumps(self, sort_keys=True))


Options = Annotated[dict[str, Any], AfterValidator(HashableDict)]
"""Options of the entry that a section names, by their names: `optimizer.options`."""

T = TypeVar("T")

Use = Literal["constant", "lane", "loop"]
"""How a field reaches the compiled step: as a constant of the program; as an argument or an initial
value, in which runs that are trained together may differ; or not at all, through the loop, its data
and the shapes of batches, which runs that are trained together share."""

Scope = Literal["what", "how", "machine"]
"""Whether a field says what is computed, and is part of the fingerprint; how, and may change when a
run is resumed; or where on a machine, in which the processes of one run may differ as well."""


@dataclasses.dataclass(frozen=True)
class Facts:
    """All that the rest of the program needs to know of a field besides its type and meaning."""

    unit: str = ""
    """Unit of a number, where it has one."""
    scope: Scope = "what"
    use: Use = "constant"
    added: str = ""
    """The day it was added; empty = it is as old as the first runs. A younger field is left out of
    the fingerprint at its neutral value, so that adding it changed no fingerprint."""
    neutral: Any = ...
    """The value that computes what was computed before the field was added; ... = its default."""
    length: bool = False
    """Whether a branch may differ in it from its trunk, whose stable part it continues."""


def setting(default: T, **facts: Any) -> T:
    """A field's default and its `Facts`; those not given are its section's."""
    return _declared(facts, default=default)


def fresh(cls: type[T], **facts: Any) -> T:
    """A field whose default is made by its class. Of a section, the `Facts` are those of all its
    fields that say no other."""
    return _declared(facts, default_factory=cls)


def _declared(facts: dict[str, Any], **default: Any) -> Any:
    Facts(**facts)  # a fact that does not exist is a TypeError here
    return Field(json_schema_extra={"facts": facts}, **default)


DRAFT = "draft"
"""Validation context of a config whose sections need not agree yet (`overrides.draft`)."""


@dataclass_transform(frozen_default=True, kw_only_default=True)
def section(cls: type[T]) -> type[T]:
    """A frozen, validated dataclass whose fields are described by the strings below them."""
    config = ConfigDict(extra="forbid", use_attribute_docstrings=True)
    return dataclass(frozen=True, kw_only=True, config=config)(cls)  # type: ignore[return-value]


def check() -> Callable[[Any], Any]:
    return model_validator(mode="after")
