"""A sweep's page: one HTML file that needs nothing else, from plain values (`gpt_jax.pages`).

The functions here and in page_fits and page_runs say what is shown; page.html and page_macros.html
how. Must not import jax.
"""

import base64
import collections
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from markupsafe import Markup

from gpt_jax import pages
from gpt_jax.runs.tracking import Record, format_seconds
from gpt_jax.sweep.page_fits import draw_figures, draw_fits
from gpt_jax.sweep.page_numbers import scientific
from gpt_jax.sweep.page_runs import draw_runs
from gpt_jax.sweep.sections import Section
from gpt_jax.sweep.status import label
from gpt_jax.sweep.table import FINAL, Row

CONVENTIONS = {
    "n_params": "N, all parameters: token and position embeddings and an untied head included "
    "(GPT-2, GPT-3, Chinchilla, PaLM)",
    "n_params_non_embedding": "N without what grows with vocabulary or context (Kaplan et al. "
    "2020, section 1.3, who leave out biases and norms besides, about 0.1%)",
    "n_params_matmul": "weights that a token is multiplied with: projections and the output "
    "projection, tied or not",
    "n_tokens": "D, training tokens: batches of whole sequences, every token seen counted",
    "flops": "C, all matrix products of forward and backward pass as the reference attention "
    "executes them (whole T x S squares, padded vocabulary)",
    "flops_exact_causal": "of these, the part whose result is used",
    "flops_6nd": "6 n_params n_tokens (Hoffmann et al. 2022, section 3.3)",
    "flops_kaplan": "6 n_params_non_embedding n_tokens (Kaplan et al. 2020)",
    "loss": "validation cross-entropy in nats per token, at the end of the run, over the whole "
    "held-out split; the standard error is over evaluation batches",
    "cooled": "whether the learning rate had come to the end of its decay; no fit mixes losses "
    "before and after",
}
"""Columns of runs.csv that a reader must not take for something else."""


@dataclasses.dataclass(frozen=True)
class Page:
    """All that is on it."""

    name: str
    rows: Sequence[Row]
    varied: Sequence[str]
    messages: Mapping[str, tuple[str, str]]
    """{trial that did not finish: (state, why)}"""
    fits: Record
    """The document of fits.json."""
    sections: Sequence[Section]
    no_sections: Sequence[str]
    """Why some that the sweep might have are not there"""
    figures: Sequence[Path]
    """SVG files of the runs, without those of fits."""
    fit_figures: Mapping[str, Sequence[Path]]
    """{law, or `approaches`: SVG files}"""
    provenance: Mapping[str, str]
    csv: str


def render(page: Page) -> str:
    """The page as HTML."""
    final = [row for row in page.rows if row["point"] == FINAL]
    return pages.render(
        "gpt_jax.sweep/page.html",
        f"{page.name}: sweep report",
        style="gpt_jax.sweep/page.css",
        script="gpt_jax.sweep/page.js",
        page=page,
        states=collections.Counter(row["state"] for row in final),
        numbers=_numbers(page, final),
        figures=draw_figures(page.figures),
        laws=draw_fits(page.fits, page.fit_figures),
        sections=[(section, draw_figures(section.figures)) for section in page.sections],
        label=label,
        table=draw_runs(page.rows, page.varied),
        csv=base64.b64encode(page.csv.encode()).decode(),
        conventions={
            Markup("<code>{}</code>").format(name): meaning for name, meaning in CONVENTIONS.items()
        },
    )


def _numbers(page: Page, final: Sequence[Row]) -> list[tuple[str, str, str]]:
    """The sweep at a glance: names, values and notes."""
    done = [row for row in final if row["loss"] is not None]
    varied = ", ".join(key.rsplit(".", 1)[-1] for key in page.varied) or "nothing"
    shown = [("Trials done", f"{len(done)} of {len(final)}", f"varied: {varied}")]
    if done:
        best = min(done, key=lambda row: row["loss"])
        error = best["loss_standard_error"]
        loss = f"{best['loss']:.4f}" + ("" if error is None else f" ± {error:.4f}")
        seconds = sum(row["training_seconds"] or 0 for row in done)
        compute = sum(row["flops"] for row in done)
        shown += [
            ("Lowest loss", loss, best["run"]),
            ("Parameters", *_range(done, "n_params")),
            ("Training tokens", *_range(done, "n_tokens")),
            ("Compute in all", scientific(compute, 3), "FLOPs of the finished runs"),
            ("Training time", format_seconds(seconds), "summed over runs"),
        ]
    return shown


def _range(rows: Sequence[Row], name: str) -> tuple[str, str]:
    low, high = min(row[name] for row in rows), max(row[name] for row in rows)
    if low == high:
        return scientific(low, 3), "in every run"
    return scientific(high, 3), Markup("at most; at least {}").format(scientific(low, 3))
