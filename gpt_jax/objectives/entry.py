"""Fields of the entry of a pretraining objective. Must not import jax at its top.

`gpt_jax/objectives/entries/` holds one file for each; `OBJECTIVES.register` adds one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpt_jax.config import Config
from gpt_jax.config import entries as tables
from gpt_jax.config.entries import Entry, Table

if TYPE_CHECKING:
    from gpt_jax.models.gpt import GPT
    from gpt_jax.objectives.parts import Objective


@dataclass(frozen=True, kw_only=True)
class ObjectiveEntry(Entry):
    """The objective of training on text alone, which `train.objective` can name."""

    make: "Callable[[Config, GPT, Any], Objective]"
    """(config, model, the entry's own options) -> the objective."""


OBJECTIVES: Table[ObjectiveEntry] = tables.OBJECTIVES
