"""Our fits for a comparison, and when they may be compared with a paper's.

They come from a file of `gpt-jax fit --json`, or are fitted here to a table of runs.

Must not import jax.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from gpt_jax.published.compare import Cell, not_comparable, number

CONFIDENCE = "95"
"""Percent: a fit agrees only if its interval of this level holds the printed value."""
N_REFITS = 1000
"""Behind the intervals."""
WIDE = 0.20
"""An interval that reaches further than this share from the printed value is too wide to tell:
Kaplan's a = 0.73 and Chinchilla's 0.50 lie a third apart."""
OLD_METHOD = "profile likelihood"
"""Keys of intervals in files written before the bootstrap's came first."""

ALL, NON_EMBEDDING, MATMUL = (
    "all parameters",
    "parameters without embeddings",
    "parameters of matrix products",
)
N_COUNTS = {"n_params": ALL, "n_params_non_embedding": NON_EMBEDDING, "n_params_matmul": MATMUL}
"""Parameters that N counts, by the project's column; any other column is assumed to count all."""
C_WITH_EMBEDDINGS = (
    "flops",
    "flops_exact_causal",
    "flops_6nd",
    "flops_chinchilla",
    "flops_palm",
    "flops_nanogpt",
)
"""The project's columns of compute that are not Kaplan's."""
SCALES = ("E", "A", "B", "N_c", "D_c", "C_c", "S_c", "B_star")
"""Parameters whose values depend on the corpus and its tokenizer; exponents do not."""


@dataclass(frozen=True)
class PaperConvention:
    """Parameters that a paper's N counts, and the corpus on which its losses were measured."""

    paper: str
    n_params: str
    corpus: str


KAPLAN = PaperConvention("Kaplan et al.", NON_EMBEDDING, "WebText2")
CHINCHILLA = PaperConvention("Hoffmann et al.", ALL, "MassiveText")


@dataclass(frozen=True)
class Fit:
    """Fields of the JSON of one fit that a comparison needs."""

    law: str
    parameters: Mapping[str, float | None]
    intervals: Mapping[str, Mapping[str, Sequence[float | None]]]
    n_points: int
    conventions: Mapping[str, str] = field(default_factory=dict)
    """{quantity: column or formula that it was read from}"""
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """{tokenizer, corpus, ...: values in the runs}"""
    warnings: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    """Notes on trials that were stopped early"""


@dataclass(frozen=True)
class Fits:
    """Our fits by law, and why others are not there."""

    by_law: Mapping[str, Fit] = field(default_factory=dict)
    not_fitted: Mapping[str, str] = field(default_factory=dict)

    def notes(self, laws: Iterable[str]) -> tuple[str, ...]:
        """A line for each of these fits: its runs, conventions and warnings."""
        return tuple(_note(self.by_law[law]) for law in laws if law in self.by_law)


def read_fits(path: Path) -> Fits:
    """The fits in a file that `gpt-jax fit --json` wrote; raises ValueError for another file."""
    if not path.is_file():
        raise ValueError(f"--fits {path}: no such file; `gpt-jax fit ... --json FILE` writes one")
    wrong = f"--fits {path}: not a JSON file of `gpt-jax fit --json`"
    try:
        document = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise ValueError(wrong) from None
    parts = document.get("fits", [document]) if isinstance(document, dict) else []
    if not parts:
        raise ValueError(wrong)
    try:
        found = {fit.law: fit for fit in map(_from_json, parts)}
    except (KeyError, TypeError):
        raise ValueError(wrong) from None
    return Fits(found, document.get("not_fitted", {}))


def fit_runs(path: Path, columns: Mapping[str, str], laws: Sequence[str]) -> Fits:
    """These laws fitted to a table of runs; the ones that have no place in it say why.

    Raises ValueError if the table cannot be read.
    """
    from gpt_jax.scaling import report
    from gpt_jax.scaling.catalog import LAWS
    from gpt_jax.scaling.study import Options, make_study
    from gpt_jax.scaling.table import read_runs

    found, not_fitted = {}, {}
    for law in laws:
        entry = LAWS[law]
        runs = read_runs(path, columns=columns, prefer=entry.prefer)
        try:
            study = make_study(entry, runs, Options(n_refits=N_REFITS))
        except ValueError as error:
            not_fitted[law] = str(error)
        else:
            found[law] = _from_json(report.to_json(study))
    return Fits(found, not_fitted)


def against_fit(
    name: str,
    printed: Decimal,
    fits: Fits,
    law: str,
    symbol: str,
    paper: PaperConvention,
    interval: Sequence[Decimal] | None = None,
) -> Cell:
    """The printed value, its printed interval if there is one, and our fit's with its own.

    Compared only where N, C and the corpus mean the same; see `verdict_of_fit`.
    """
    reference = number(float(printed))
    if interval is not None:
        reference += f" [{interval[0]}, {interval[1]}]"
    if law not in fits.by_law:
        why = fits.not_fitted.get(law, f"it needs a fit of ours: --runs, or --fits with {law}")
        return not_comparable(name, reference, why)
    fit = fits.by_law[law]
    ours = fit.parameters.get(symbol)
    if ours is None:
        return not_comparable(name, reference, f"our fit of {law} has no {symbol}")
    edges = fit.intervals.get(symbol, {}).get(CONFIDENCE)
    shown = (
        number(ours) if edges is None else f"{number(ours)} [{_edge(edges[0])}, {_edge(edges[1])}]"
    )
    why_not = incomparable(fit, symbol, paper)
    if why_not is not None:
        return Cell(name, reference, shown, f"not comparable because {why_not}")
    return Cell(name, reference, shown, verdict_of_fit(float(printed), ours, edges, fit.warnings))


def verdict_of_fit(
    printed: float,
    ours: float,
    edges: Sequence[float | None] | None,
    warnings: Sequence[str] = (),
) -> str:
    """The verdict of a fitted value and its interval on a printed one.

    It agrees within x% if the interval holds the printed value, reaches no further than x% from
    it, x is at most WIDE, and the fit has no warning. An interval that holds it otherwise is too
    wide, or the fit too doubtful, to tell. edges: none = the fit has no interval; a none in it is
    open.
    """
    doubt = f"the fit warns: {_short(warnings[0])}" if warnings else ""
    doubt += f" and {len(warnings) - 1} more" if len(warnings) > 1 else ""
    difference = f"differs by {100 * (ours / printed - 1):+.3g}%"
    if edges is None:
        return f"{difference} (no interval: too little known to tell)"
    low = -math.inf if edges[0] is None else edges[0]
    high = math.inf if edges[1] is None else edges[1]
    if not low <= ours <= high:
        return f"{difference} (our value lies outside of its own interval: cannot tell)"
    if not low <= printed <= high:
        return f"{difference} ({doubt})" if doubt else difference
    if math.isinf(low) or math.isinf(high):
        return "inside our interval, which is open (too wide to tell)"
    reach = max(abs(low / printed - 1), abs(high / printed - 1))
    width = max(ours - low, high - ours) / abs(ours)
    interval = f"inside our interval of +-{_percent(width)}"
    if reach > WIDE:
        return f"{interval} (too wide to tell)"
    if doubt:
        return f"{interval} ({doubt})"
    return f"agrees within {_percent(reach)}"


def _percent(share: float) -> str:
    """Two digits, and of many orders of magnitude the order."""
    if share > 100:
        return f"{100 * share:.0e}%"
    return f"{100 * share:.0f}%" if share >= 0.1 else f"{100 * share:.2g}%"


def _short(warning: str) -> str:
    """A warning up to its explanation; the notes have all of it."""
    return warning.partition(":")[0]


def incomparable(fit: Fit, symbol: str, paper: PaperConvention) -> str | None:
    """Why a fit's parameter cannot stand beside the paper's; none if it can."""
    n_column, c_column = fit.conventions.get("n_params", ""), fit.conventions.get("flops", "")
    n_counts = N_COUNTS.get(n_column, ALL)
    about_n = fit.law not in ("kaplan-d", "kaplan-c", "compute-power", "critical-batch")
    if about_n and n_counts != paper.n_params:
        return f"N counts {n_counts} in ours ({n_column}), {paper.n_params} in the paper"
    about_c = fit.law == "kaplan-c" or (symbol in ("a", "b") and paper is KAPLAN)
    if about_c and (
        c_column in C_WITH_EMBEDDINGS or (c_column.startswith("6 n_params") and n_counts == ALL)
    ):
        return f"C includes embeddings in ours ({c_column}) and leaves them out in the paper"
    corpora = fit.labels.get("corpus", ())
    if symbol in SCALES and tuple(corpora) != (paper.corpus,):
        ours = " and ".join(corpora) if corpora else "not said (a column `corpus` says it)"
        return f"{symbol} depends on corpus and tokenizer: {paper.corpus} there, ours {ours}"
    return None


def _from_json(document: Mapping[str, Any]) -> Fit:
    return Fit(
        law=document["law"],
        parameters=document["parameters"],
        intervals=_intervals(document),
        n_points=document["n_points"],
        conventions=document["conventions"],
        labels=document["labels"],
        warnings=tuple(document["warnings"]),
        left_out=tuple(n for n in document.get("notes", ()) if "stopped early" in n),
    )


def _intervals(document: Mapping[str, Any]) -> Mapping[str, Mapping[str, Sequence[float | None]]]:
    """The fit's intervals; in older files the bootstrap's, which hold where scatter is unequal."""
    if document.get("interval_method") == OLD_METHOD:
        return document.get("bootstrap_intervals", document["intervals"])
    return document["intervals"]


def _note(fit: Fit) -> str:
    said = []
    for quantity, column in fit.conventions.items():
        if quantity == "n_params":
            said.append(f"N = {column} ({N_COUNTS.get(column, f'taken to count {ALL}')})")
        if quantity == "flops":
            said.append(f"C = {column}")
    said += [f"{name} {', '.join(values)}" for name, values in fit.labels.items()]
    lines = [f"ours, {fit.law}: {fit.n_points} runs; {'; '.join(said)}"]
    lines += [f"  {note}" for note in fit.left_out]
    return "\n".join([*lines, *(f"  warning: {warning}" for warning in fit.warnings)])


def _edge(value: float | None) -> str:
    return "open" if value is None else f"{value:.4g}"
