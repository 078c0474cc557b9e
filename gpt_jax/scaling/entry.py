"""Registry of laws by name, and the entry that describes each.

Imports nothing heavy: command lines that list the laws start fast. Must not import jax.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from gpt_jax.hints import did_you_mean

if TYPE_CHECKING:
    from gpt_jax.scaling.laws import Law

SQUARES = math.inf
"""Huber's delta for least squares."""
CHINCHILLA_DELTA = 1e-3

KAPLAN_CONVENTION = {"n_params": "n_params_non_embedding", "flops": "flops_kaplan"}
"""Columns that Kaplan et al. mean by N and C: taken first where a table has them. With this N and
without this C, C is 6 N D: other columns of compute count the embeddings."""

Builder = Callable[[tuple[float, ...], str | None], "Law"]
"""(centre of each variable's logarithm, symbol of the irreducible loss) -> the law."""

Kind = Literal["loss", "isoflop", "envelope", "optimum"]


@dataclass(frozen=True)
class LawEntry:
    """A law that `--law` can name."""

    name: str
    kind: Kind
    """loss: a formula fitted to runs; the others find optima first and fit power laws to them."""
    summary: str
    """A line for a list of laws."""
    source: str
    needs: tuple[str, ...]
    """Columns, besides the target."""
    build: Builder | None = None
    variables: tuple[str, ...] = ()
    """Variables of the law, in the law's own order; empty = `needs`"""
    target: str = "loss"
    irreducible: str | None = None
    """Symbol of the irreducible loss; none = the law has no place for it, or always has it."""
    irreducible_by_default: bool = False
    delta: float = SQUARES
    space: Literal["log", "linear"] = "log"
    prefer: Mapping[str, str] = field(default_factory=dict)
    varied: str = "n_params"
    """Only for laws that find optima: the quantity that varies in a profile at one compute."""

    @property
    def finds_optima(self) -> bool:
        """Whether the law is fitted as power laws to optima, and not as a formula to runs."""
        return self.kind != "loss"


LAWS: dict[str, LawEntry] = {}


def register(entry: LawEntry) -> None:
    """Make a law known by its name; raises ValueError if another one has it."""
    if LAWS.get(entry.name, entry) != entry:
        raise ValueError(f"a law named {entry.name} is known already; give yours another name")
    LAWS[entry.name] = entry


def find_law(name: str) -> LawEntry:
    """The entry of that name; raises ValueError naming the nearest."""
    if name not in LAWS:
        hint = did_you_mean(name, LAWS)
        raise ValueError(f"--law {name}: allowed are {', '.join(LAWS)}{hint}")
    return LAWS[name]
