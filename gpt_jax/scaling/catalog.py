"""The laws by name: what each is a function of, its objective, conventions and source.

Must not import jax.
"""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from gpt_jax.scaling.data_constrained import DataConstrained
from gpt_jax.scaling.laws import KaplanND, Law, PowerSum, Style
from gpt_jax.scaling.minimise import Space
from gpt_jax.scaling.names import SUMMARIES
from gpt_jax.scaling.table import RunTable

SQUARES = float("inf")
"""Huber's delta for least squares."""
CHINCHILLA_DELTA = 1e-3

KAPLAN_CONVENTION = {"n_params": "n_params_non_embedding", "flops": "flops_kaplan"}
"""Columns that Kaplan et al. mean by N and C: taken first where a table has them. With this N and
without this C, C is 6 N D: other columns of compute count the embeddings."""

Builder = Callable[[tuple[float, ...], str | None], Law]
"""(centre of each variable's logarithm, symbol of the irreducible loss) -> the law."""

Kind = Literal["loss", "isoflop", "envelope", "optimum"]


@dataclass(frozen=True)
class LawEntry:
    """A law that `--law` knows."""

    name: str
    kind: Kind
    """loss: a formula fitted to runs; the others find optima first and fit power laws to them."""
    source: str
    needs: tuple[str, ...]
    """Columns, besides the loss."""
    build: Builder | None = None
    target: str = "loss"
    irreducible: str | None = None
    """Symbol of the irreducible loss; none = the law has no place for it."""
    irreducible_by_default: bool = False
    delta: float = SQUARES
    space: Space = "log"
    prefer: Mapping[str, str] = field(default_factory=dict)
    varied: str = "n_params"
    """Optima only: what a profile at one compute varies."""

    @property
    def finds_optima(self) -> bool:
        """Whether it fits power laws to optima, and not a formula to runs."""
        return self.kind != "loss"

    @property
    def summary(self) -> str:
        return SUMMARIES[self.name]


def _single(variable: str, scale: str, exponent: str, left: str, style: Style = "scale") -> Builder:
    """Builder of a power law in one variable."""
    letter = scale[0]

    def build(centers: tuple[float, ...], irreducible: str | None) -> Law:
        tail = f" + {irreducible}" if irreducible else ""
        formulas = {
            "scale": f"{left} = ({scale}/{letter})^{exponent}{tail}",
            "signed": f"{left} = {scale} C^{exponent}{tail}",
            "inverse": f"{left} = {scale} / L^(1/{exponent})",
        }
        return PowerSum(
            (variable,), ((scale, exponent),), formulas[style], style, centers, irreducible
        )

    return build


def _chinchilla(centers: tuple[float, ...], irreducible: str | None) -> Law:
    head = f"{irreducible} + " if irreducible else ""
    return PowerSum(
        ("n_params", "n_tokens"),
        (("A", "alpha"), ("B", "beta")),
        f"L = {head}A/N^alpha + B/D^beta",
        "coefficient",
        centers,
        irreducible,
    )


def _kaplan_ns(centers: tuple[float, ...], irreducible: str | None) -> Law:
    head = f"{irreducible} + " if irreducible else ""
    return PowerSum(
        ("n_params", "steps_min"),
        (("N_c", "alpha_N"), ("S_c", "alpha_S")),
        f"L = {head}(N_c/N)^alpha_N + (S_c/S_min)^alpha_S",
        "scale",
        centers,
        irreducible,
    )


def _kaplan_nd(centers: tuple[float, ...], irreducible: str | None) -> Law:
    return KaplanND((centers[0], centers[1]), irreducible)


def _data_constrained(centers: tuple[float, ...], _: str | None) -> Law:
    return DataConstrained((centers[0], centers[1]))


_KAPLAN = "Kaplan et al. 2020"
_CHINCHILLA = "Hoffmann et al. 2022"
_ENTRIES = (
    LawEntry(
        "kaplan-n", "loss", f"{_KAPLAN}, eq. 1.1",
        ("n_params",), _single("n_params", "N_c", "alpha_N", "L"),
        irreducible="E", prefer=KAPLAN_CONVENTION,
    ),
    LawEntry(
        "kaplan-d", "loss", f"{_KAPLAN}, eq. 1.2",
        ("n_tokens",), _single("n_tokens", "D_c", "alpha_D", "L"),
        irreducible="E", prefer=KAPLAN_CONVENTION,
    ),
    LawEntry(
        "kaplan-c", "loss", f"{_KAPLAN}, eq. 1.3",
        ("flops",), _single("flops", "C_c", "alpha_C", "L"),
        irreducible="E", prefer=KAPLAN_CONVENTION,
    ),
    LawEntry(
        "kaplan-nd", "loss", f"{_KAPLAN}, eq. 1.5",
        ("n_params", "n_tokens"), _kaplan_nd, irreducible="E", prefer=KAPLAN_CONVENTION,
    ),
    LawEntry(
        "kaplan-ns", "loss", f"{_KAPLAN}, eq. 1.6",
        ("n_params", "steps_min"), _kaplan_ns, irreducible="E", prefer=KAPLAN_CONVENTION,
    ),
    LawEntry(
        "critical-batch", "loss", f"{_KAPLAN}, eq. 1.4",
        ("critical_batch_tokens",),
        _single("loss", "B_star", "alpha_B", "B_crit", "inverse"), target="critical_batch_tokens",
    ),
    LawEntry(
        "chinchilla-envelope", "envelope",
        f"{_CHINCHILLA}, section 3.1", ("n_params", "n_tokens", "flops"),
    ),
    LawEntry(
        "chinchilla-isoflop", "isoflop",
        f"{_CHINCHILLA}, section 3.2", ("n_params", "n_tokens", "flops"),
    ),
    LawEntry(
        "chinchilla-parametric", "loss",
        f"{_CHINCHILLA}, section 3.3", ("n_params", "n_tokens"), _chinchilla,
        irreducible="E", irreducible_by_default=True, delta=CHINCHILLA_DELTA,
    ),
    LawEntry(
        "compute-power", "loss",
        "OpenAI 2023 (GPT-4), section 3",
        ("flops",), _single("flops", "a", "b", "L", "signed"),
        irreducible="c", irreducible_by_default=True,
    ),
    LawEntry(
        "data-constrained", "loss",
        "Muennighoff et al. 2023, section 3.1", ("n_params", "n_tokens", "unique_tokens"),
        _data_constrained, irreducible="E", irreducible_by_default=True, delta=CHINCHILLA_DELTA,
    ),
    LawEntry(
        "learning-rate-power", "optimum", "",
        ("flops", "learning_rate"), varied="learning_rate",
    ),
    LawEntry(
        "batch-size-power", "optimum", "",
        ("flops", "batch_tokens"), varied="batch_tokens",
    ),
)  # fmt: skip

LAWS = {entry.name: entry for entry in _ENTRIES}


def find_law(name: str) -> LawEntry:
    """The entry of that name; raises ValueError naming the nearest."""
    if name not in LAWS:
        near = difflib.get_close_matches(name, LAWS, 1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise ValueError(f"--law {name}: allowed are {', '.join(LAWS)}{hint}")
    return LAWS[name]


def build_law(entry: LawEntry, runs: RunTable, irreducible: bool | None) -> Law:
    """The law with its coordinates centred on the runs.

    irreducible: with or without an irreducible loss; none = as the paper has it.
    """
    wanted = entry.irreducible_by_default if irreducible is None else irreducible
    if wanted and entry.irreducible is None:
        raise ValueError(f"{entry.name} has no irreducible term; leave --irreducible out")
    if not wanted and entry.name == "data-constrained":
        raise ValueError("data-constrained always has its irreducible loss E")
    assert entry.build is not None
    variables = entry.build((0.0, 0.0), None).variables
    centers = tuple(float(np.log(runs[v]).mean()) for v in variables)
    return entry.build(centers, entry.irreducible if wanted else None)
