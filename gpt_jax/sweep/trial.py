"""A trial: one experiment of a sweep, and what makes it differ from the others.

Must not import jax.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from gpt_jax.config import Config


@dataclasses.dataclass(frozen=True)
class Trial:
    """One experiment of a sweep. `config.name` names it, its directory and its pages."""

    config: Config
    varied: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What the sweep set, as declared: {"model.d_model": 256, "budget.flops": 1e15, ...}."""
    trunk: Config | None = None
    """The uncooled run of the same sweep that this one may branch off (see `wsd_branches`)."""

    @property
    def name(self) -> str:
        return self.config.name
