"""`gpt-jax sweep report SWEEP`: what the runs came to, as a table, figures, fits and a page.

report/runs.csv          a row a run, and a row a validation before the decay
report/figures/          PNG and SVG
report/fits.json         the laws that suit the sweep, with intervals and warnings
report/NAME.json         where the runs allow it: compare-*, next, chain, stopped, to-loss
report/index.html        all of it on one page that needs no network

Must not import jax.
"""

import argparse
import collections
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gpt_jax.runs.tracking import Record, provenance
from gpt_jax.scaling.entries import LAWS
from gpt_jax.storage import places
from gpt_jax.storage.atomic import write_atomically, write_json
from gpt_jax.storage.checksum import checksum
from gpt_jax.sweep.status import find_directory, label
from gpt_jax.sweep.store import SweepDirectory
from gpt_jax.sweep.table import (
    FINAL,
    Measured,
    Row,
    columns,
    gather,
    make_rows,
    to_csv,
    varied_keys,
    write_runs,
)

if TYPE_CHECKING:
    from gpt_jax.scaling.study import Study

BEST = 3
"""Runs named in the terminal."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gpt-jax sweep report`."""
    parser.add_argument(
        "--laws",
        action="append",
        metavar="NAME[,NAME]",
        help=f"laws to fit (default: those that suit the sweep): {', '.join(LAWS)}",
    )
    parser.add_argument(
        "--bootstrap",
        type=int,
        default=1000,
        metavar="N",
        help="refits behind the intervals (default 1000; 0: none)",
    )
    parser.add_argument(
        "--to-loss",
        type=float,
        metavar="X",
        help="tokens, FLOPs and seconds of each setting to this validation loss, with the interval "
        "over its seeds",
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the report; raises ValueError for a user's mistake."""
    if arguments.rest:
        raise ValueError(f"sweep report takes no overrides, got {' '.join(arguments.rest)}")
    sweep = SweepDirectory.open(find_directory(arguments.sweep, arguments.workdir))
    laws = None
    if arguments.laws is not None:
        laws = [name.strip() for names in arguments.laws for name in names.split(",")]
    write_report(sweep, sweep.path.name, laws, arguments.bootstrap, arguments.to_loss)
    places.put_back(sweep.path / "report")
    return 0


def write_report(
    sweep: SweepDirectory,
    name: str,
    laws: Sequence[str] | None,
    n_refits: int,
    loss: float | None = None,
) -> Path:
    """Everything, into report/ of the sweep's directory; prints a summary and what was written.

    laws: none = those that suit the sweep. loss: to which steps are counted. Returns the path of
    the page. Raises ValueError for an unknown law, a negative number of refits, a loss not above 0.
    """
    from gpt_jax.scaling.plots import draw_all
    from gpt_jax.scaling.study import Options
    from gpt_jax.sweep.figures import draw_sweep
    from gpt_jax.sweep.laws import fit_laws
    from gpt_jax.sweep.page import Page, render
    from gpt_jax.sweep.sections import make_sections

    if n_refits < 0:
        raise ValueError(f"--bootstrap {n_refits}; allowed: 0 or more refits")
    directory = sweep.path / "report"
    trials = gather(sweep)
    rows, header = make_rows(name, trials), columns(trials)
    write_runs(directory / "runs.csv", rows, header)
    options = Options(n_refits=n_refits)
    studies, not_fitted = fit_laws(directory / "runs.csv", trials, rows, laws, options)
    origin = _provenance(trials)
    fits = _fits(name, studies, not_fitted, origin)
    write_json(directory / "fits.json", fits)
    figures = draw_sweep(trials, rows, directory / "figures")
    fit_figures = draw_all(studies, directory / "figures")
    sections, missing = make_sections(trials, rows, directory, loss, n_refits)
    for section in sections:
        write_json(directory / f"{section.name}.json", section.document, allow_nan=False)
    page = Page(
        name=name,
        rows=rows,
        varied=varied_keys(trials),
        messages=_messages(trials),
        sections=sections,
        no_sections=missing,
        fits=fits,
        figures=_vector(figures),
        fit_figures={law: _of_law(fit_figures, law) for law in [*LAWS, "approaches"]},
        provenance=origin,
        csv=to_csv(rows, header),
    )
    write_atomically(directory / "index.html", render(page))
    print(summary(name, rows, page.messages, fits))
    for line in [*(line for section in sections for line in section.lines), *missing]:
        print(line)
    drawn = figures + fit_figures + [path for section in sections for path in section.figures]
    names = ", ".join(["runs.csv", "fits.json", *(f"{s.name}.json" for s in sections)])
    shown = sweep.place / "report"
    print(f"wrote {shown}: {names}, figures ({len(drawn)} files)")
    print(f"open {shown / 'index.html'}")
    return directory / "index.html"


def _messages(trials: Sequence[Measured]) -> dict[str, tuple[str, str]]:
    """State and message of the trials that did not end as planned, by name."""
    return {
        trial.entry.name: (trial.state, trial.message)
        for trial in trials
        if trial.state in ("diverged", "stopped", "failed", "damaged", "preempted")
    }


def summary(
    name: str, rows: Sequence[Row], messages: Mapping[str, tuple[str, str]], fits: Record
) -> str:
    """For a terminal: states, the best runs, the fits with 95% intervals, and what is missing."""
    final = [row for row in rows if row["point"] == FINAL]
    states = collections.Counter(row["state"] for row in final)
    lines = [f"{name}: " + ", ".join(f"{count} {label(state)}" for state, count in states.items())]
    done = sorted((r for r in final if r["loss"] is not None), key=lambda r: r["loss"])
    lines += ["lowest losses:"] if done else []
    for row in done[:BEST]:
        error = row["loss_standard_error"]
        loss = f"{row['loss']:.4f}" + ("" if error is None else f" ± {error:.4f}")
        lines.append(
            f"  {loss}  N {row['n_params']:.4g}  D {row['n_tokens']:.4g}  C {row['flops']:.4g}  "
            f"{row['run']}"
        )
    for trial, (state, why) in messages.items():
        lines.append(f"{label(state)}: {trial}" + (f": {why}" if why else ""))
    for fit in fits["fits"]:
        lines.append(f"{fit['law']}, {fit['n_points']} rows, 95% intervals:")
        lines += [
            f"  {symbol:9s} {_text(value):<10s} {_interval(fit['intervals'].get(symbol))}".rstrip()
            for symbol, value in fit["parameters"].items()
        ]
        lines += [f"  warning: {warning}" for warning in fit["warnings"]]
    lines += [f"warning: {warning}" for warning in fits["warnings"]]
    lines += [f"{law}: not fitted: {reason}" for law, reason in fits["not_fitted"].items()]
    return "\n".join(lines)


def _fits(
    name: str,
    studies: Sequence["Study"],
    not_fitted: dict[str, str],
    origin: Mapping[str, str],
) -> Record:
    """The document of fits.json: studies as `gpt-jax fit --json` has them, and their origin."""
    from gpt_jax.scaling.report import comparison_warnings, to_json

    documents = [to_json(study) for study in studies]
    return {
        "sweep": name,
        **origin,
        "fits": documents,
        "size_exponents": {
            document["law"]: {"value": document["parameters"]["a"], **document["intervals"]["a"]}
            for study, document in zip(studies, documents, strict=True)
            if study.size_exponent() is not None
        },
        "not_fitted": not_fitted,
        "warnings": comparison_warnings(list(studies)),
    }


def _provenance(trials: Sequence[Measured]) -> dict[str, str]:
    """Where the report comes from: command, time, code, and the trials' fingerprint."""
    here = provenance()
    commits = sorted({str(t.facts["commit"]) for t in trials if t.facts is not None})
    fingerprints = sorted(trial.entry.fingerprint for trial in trials)
    return {
        "command": here["command"],
        "written": here["started"],
        "commit of the report": here["commit"] or "unknown",
        "commits of the runs": ", ".join(commits) or "none has begun",
        "gpt-jax": here["versions"]["gpt-jax"],
        "python": f"{here['python']} on {here['platform']}",
        "fingerprint of the trials": checksum("\n".join(fingerprints))[:12],
    }


def _vector(paths: Sequence[Path]) -> list[Path]:
    return [path for path in paths if path.suffix == ".svg"]


def _of_law(paths: Sequence[Path], law: str) -> list[Path]:
    return [p for p in _vector(paths) if p.stem == law or p.stem.startswith(f"{law}-")]


def _text(value: float | None) -> str:
    return "open" if value is None else f"{value:.5g}"


def _interval(edges: Mapping[str, Sequence[float | None]] | None) -> str:
    if edges is None:
        return ""
    low, high = edges["95"]
    return f"[{_text(low)}, {_text(high)}]"
