"""The description of a chain: columns of the table, runs that are fitted, tasks.

A JSON file or the command line gives it (`gpt-jax fit chain --spec`). Must not import jax.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Columns = str | Annotated[dict[str, Positive], Field(min_length=1)]
"""A column, or several with their weights in a mean."""
Patterns = Annotated[dict[str, Positive], Field(min_length=1)]
"""{pattern of run names, with * and ?: value}"""


class Task(BaseModel):
    """Columns of one task."""

    model_config = ConfigDict(extra="forbid")

    loss: Columns
    score: Columns | None = None


class At(BaseModel):
    """A run to predict that is not in the table."""

    model_config = ConfigDict(extra="forbid")

    n_params: Positive
    n_tokens: Positive


class ChainSpec(BaseModel):
    """Everything that `gpt-jax fit chain` needs to know of a table of evaluations."""

    model_config = ConfigDict(extra="forbid")

    run: str = "run"
    n_params: str | Patterns = "n_params"
    n_tokens: str = "n_tokens"
    flops_per_token: dict[str, Positive] = Field(default_factory=dict)
    fitted: list[str] = Field(default=["*"], min_length=1)
    target: str | None = None
    at: At | None = None
    average: Annotated[int, Field(ge=1)] = 5
    skip: Annotated[float, Field(ge=0, lt=1)] = 0.1
    link: Literal["sigmoid", "exponential"] = "sigmoid"
    tasks: Annotated[dict[str, Task], Field(min_length=1)]


def make_spec(values: dict[str, Any], where: str) -> ChainSpec:
    """The spec of plain values; raises ValueError naming the first value that is wrong.

    where: the file or options that they come from, for the message.
    """
    try:
        return ChainSpec.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{where}: {place}: {first['msg'].lower()}") from None
