"""The table of runs on a sweep's page, which `page.js` sorts and filters. Must not import jax."""

from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from gpt_jax.sweep.page_numbers import Markup, badge, scientific
from gpt_jax.sweep.table import FINAL, TRUNK, Row, cell
from gpt_jax.tracking import format_seconds

Formatter = Callable[[Any], Markup]

ALWAYS = ("run", "state", "n_params", "n_tokens", "flops", "loss")
"""Shown even if all rows agree."""
FIRST = ("run", "state", "loss", "loss_standard_error", "cooled", "point")
SHOWN = (
    "n_params", "n_tokens", "flops", "bits_per_byte", "train_loss", "n_steps",
    "n_steps_left_out", "batch_tokens",
    "learning_rate", "seed", "tokenizer", "vocab_size", "corpus", "training_seconds", "fingerprint",
    "commit",
)  # fmt: skip
"""Of the columns of runs.csv, after the first ones and what the sweep varies."""
NAMES = {
    "loss_standard_error": "std. error",
    "n_steps_left_out": "steps left out",
    "training_seconds": "time",
}
MISSING = (
    '<td class="missing"><span aria-hidden="true">\u2013</span><span class="hidden">missing</span>'
    "</td>"
)
POINTS = {FINAL: "end", TRUNK: "before decay"}


def draw_runs(rows: Sequence[Row], varied: Sequence[str]) -> Markup:
    """The filter, the table, and what all runs have in common."""
    shown, common = _columns(rows, varied)
    kinds = {name: "" if _is_numeric(rows, name) else ' class="text"' for name in shown}
    finished = [row["loss"] for row in rows if row["loss"] is not None and row["cooled"]]
    best = min(finished, default=None)
    head = "\n".join(
        f'<th scope="col" aria-sort="none" data-key="{escape(name)}"{kinds[name]}>'
        f"<button>{escape(NAMES.get(name, _label(name, shown)))}</button></th>"
        for name in shown
    )
    lines = []
    for row in rows:
        highlight = row["loss"] is not None and row["loss"] == best and row["cooled"]
        cells = "".join(_cell(row, name, kinds[name]) for name in shown)
        lines.append(f"<tr{' class=best' if highlight else ''}>{cells}</tr>")
    body = "\n".join(lines)
    return f"""{_common_text(rows, common)}
<div class="filter" id="tools" hidden>
<label for="filter">Filter</label>
<input id="filter" type="search" placeholder="words that a row must hold" autocomplete="off">
<span id="count" class="soft" role="status"></span>
</div>
<div class="scroll runs" tabindex="0" role="region" aria-label="Table of runs">
<table id="runs">
<caption class="hidden">All runs. Buttons in the header sort; missing values come last.</caption>
<thead><tr>
{head}
</tr></thead>
<tbody>
{body}
</tbody>
</table>
</div>"""


def _columns(rows: Sequence[Row], varied: Sequence[str]) -> tuple[list[str], list[str]]:
    """(columns to show, columns in which all rows agree). One that repeats another is left out."""
    shown, common, seen = [], [], set()
    for name in dict.fromkeys([*FIRST, *varied, *SHOWN]):
        values = tuple(cell(row[name]) for row in rows)
        if name not in ALWAYS and len(set(values)) == 1:
            common.append(name)
        elif name in ALWAYS or values not in seen:
            shown.append(name)
            seen.add(values)
    return shown, common


def _common_text(rows: Sequence[Row], common: Sequence[str]) -> Markup:
    known = [name for name in common if rows[0][name] is not None]
    if not known:
        return ""
    parts = ", ".join(
        f"{escape(NAMES.get(name, name))} {_show(name, rows[0][name])}" for name in known
    )
    return f'<p class="common">The same in all: {parts}.</p>'


def _label(name: str, shown: Sequence[str]) -> str:
    """Without the section of the config, where that leaves no doubt."""
    last = name.rsplit(".", 1)[-1]
    return name if sum(other.rsplit(".", 1)[-1] == last for other in shown) > 1 else last


def _cell(row: Row, name: str, kind: str) -> Markup:
    """kind: attributes of the column, empty for numbers."""
    value = row[name]
    if value is None:
        return MISSING
    if name == "run":
        text = escape(value)
        return f'<th scope="row" class="text" title="{text}">{text}</th>'
    data = "" if kind else f' data-value="{escape(cell(value))}"'
    return f"<td{kind}{data}>{_show(name, value)}</td>"


def _show(name: str, value: Any) -> Markup:
    formatters: dict[str, Formatter] = {
        "state": badge,
        "point": lambda v: POINTS[v],
        "cooled": lambda v: "yes" if v else "no",
        "flops": lambda v: scientific(v, 3),
        "training_seconds": format_seconds,
        **dict.fromkeys(("loss", "loss_standard_error", "bits_per_byte", "train_loss"), _decimals),
        **dict.fromkeys(("fingerprint", "commit"), lambda v: f"<code>{escape(v)}</code>"),
    }
    return formatters.get(name, _plain)(value)


def _decimals(value: float) -> Markup:
    return f"{value:.4f}"


def _plain(value: Any) -> Markup:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}" if abs(value) < 1e15 else scientific(value, 3)
    if isinstance(value, float):
        return scientific(value, 3) if abs(value) >= 1e6 else f"{value:.4g}"
    return escape(cell(value))


def _is_numeric(rows: Sequence[Row], name: str) -> bool:
    values = [row[name] for row in rows if row[name] is not None]
    return all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
