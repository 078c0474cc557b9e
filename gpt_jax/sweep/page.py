"""A sweep's page: one HTML file that needs nothing else, from plain values.

Its policy header lets the browser load nothing and run nothing but the page's own style and script.
What comes from configs, file names and messages is escaped. Must not import jax.
"""

import base64
import collections
import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path

from gpt_jax.sweep.page_fits import draw_fits, figure_grid
from gpt_jax.sweep.page_numbers import Markup, badge, facts_list, scientific, table
from gpt_jax.sweep.page_runs import draw_runs
from gpt_jax.sweep.table import FINAL, Row
from gpt_jax.tracking import Record, format_seconds

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
    figures: Sequence[Path]
    """SVG files of the runs, without those of fits."""
    fit_figures: Mapping[str, Sequence[Path]]
    """{law, or `approaches`: SVG files}"""
    provenance: Mapping[str, str]
    csv: str


def render(page: Page) -> str:
    """The page as HTML."""
    style, script = (_asset(name) for name in ("page.css", "page.js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; "
        f"script-src '{_hash(script)}'; base-uri 'none'; form-action 'none'"
    )
    runs = f"{_unfinished(page)}{draw_runs(page.rows, page.varied)}\n{_downloads(page)}"
    sections = {
        "Figures": figure_grid(page.figures),
        "Scaling laws": draw_fits(page.fits, page.fit_figures),
        "Runs": runs,
        "Provenance": _provenance(page),
    }
    body = "\n".join(
        f'<section id="{_anchor(title)}">\n<h2>{title}</h2>\n{content}\n</section>'
        for title, content in sections.items()
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(page.name)}: sweep report</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
{_header(page, list(sections))}
<main>
{body}
</main>
<script>{script}</script>
</body>
</html>
"""


def _header(page: Page, sections: Sequence[str]) -> Markup:
    nav = "\n".join(f'<a href="#{_anchor(title)}">{title}</a>' for title in sections)
    states = collections.Counter(row["state"] for row in page.rows if row["point"] == FINAL)
    badges = "\n".join(
        f"<li>{badge(state, f'{count} {state}')}</li>" for state, count in states.items()
    )
    return (
        f"<header>\n<h1>{escape(page.name)}</h1>\n"
        f'<ul class="states" aria-label="States of the trials">\n{badges}\n</ul>\n'
        f'<dl class="numbers">\n{_numbers(page)}\n</dl>\n<nav aria-label="Sections">\n{nav}\n'
        f"</nav>\n</header>"
    )


def _anchor(title: str) -> str:
    return "section-" + title.lower().replace(" ", "-")


def _numbers(page: Page) -> Markup:
    """The sweep at a glance."""
    final = [row for row in page.rows if row["point"] == FINAL]
    done = [row for row in final if row["loss"] is not None]
    shown = [("Trials done", f"{len(done)} of {len(final)}", f"varied: {_varied(page)}")]
    if done:
        best = min(done, key=lambda row: row["loss"])
        error = best["loss_standard_error"]
        loss = f"{best['loss']:.4f}" + ("" if error is None else f" ± {error:.4f}")
        seconds = sum(row["training_seconds"] or 0 for row in done)
        compute = sum(row["flops"] for row in done)
        shown += [
            ("Lowest loss", loss, escape(best["run"])),
            ("Parameters", *_range(done, "n_params")),
            ("Training tokens", *_range(done, "n_tokens")),
            ("Compute in all", scientific(compute, 3), "FLOPs of the finished runs"),
            ("Training time", format_seconds(seconds), "summed over runs"),
        ]
    return "\n".join(
        f"<div><dt>{title}</dt><dd>{value}<small>{note}</small></dd></div>"
        for title, value, note in shown
    )


def _varied(page: Page) -> str:
    return escape(", ".join(key.rsplit(".", 1)[-1] for key in page.varied) or "nothing")


def _range(rows: Sequence[Row], name: str) -> tuple[Markup, str]:
    low, high = min(row[name] for row in rows), max(row[name] for row in rows)
    if low == high:
        return scientific(low, 3), "in every run"
    return scientific(high, 3), f"at most; at least {scientific(low, 3)}"


def _unfinished(page: Page) -> Markup:
    """The trials that broke off, with what is known of why."""
    if not page.messages:
        return ""
    rows = [
        [f"<code>{escape(name)}</code>", badge(state), f'<span class="why">{escape(why)}</span>']
        for name, (state, why) in page.messages.items()
    ]
    return table("Trials that did not finish", ["trial", "state", "why"], rows, n_text=3)


def _downloads(page: Page) -> Markup:
    content = base64.b64encode(page.csv.encode()).decode()
    link = f'<a download="runs.csv" href="data:text/csv;base64,{content}">runs.csv</a>'
    return (
        f"<p>All columns: {link}. It is what the laws above are fitted to: "
        f'<code class="nowrap">gpt-jax fit runs.csv --law LAW</code> needs no other options.</p>'
    )


def _provenance(page: Page) -> Markup:
    known = {title: escape(value) for title, value in page.provenance.items()}
    columns = {f"<code>{name}</code>": escape(meaning) for name, meaning in CONVENTIONS.items()}
    return f"{facts_list(known)}\n<h3>What the columns mean</h3>\n{facts_list(columns)}"


def _asset(name: str) -> str:
    return "\n" + resources.files("gpt_jax.sweep").joinpath(name).read_text("utf-8")


def _hash(content: str) -> str:
    """Of an inline style or script, as a content security policy names it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
