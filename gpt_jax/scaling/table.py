"""The table of runs that laws are fitted to, read from any CSV.

Columns have the project's names (n_params, n_tokens, flops, loss, ...); a mapping says which
column of the file is meant, and the table remembers it: N, D and C carry their convention.

Must not import jax.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from gpt_jax.hints import counted, did_you_mean
from gpt_jax.scaling.conditions import columns_of, where_it_holds
from gpt_jax.storage import csv_cells, tables

Array = np.ndarray

QUANTITIES = {
    "n_params": "parameters N",
    "n_tokens": "training tokens D",
    "flops": "training compute C in FLOPs",
    "loss": "nats per token",
    "n_steps": "optimizer steps S",
    "batch_tokens": "tokens in a batch B",
    "steps_min": "steps S_min of a run far above the critical batch size",
    "critical_batch_tokens": "critical batch size in tokens",
    "unique_tokens": "distinct training tokens U",
    "learning_rate": "peak learning rate",
    "weight": "weight of a run in the objective",
    "n_experts": "experts E that a routed layer chooses from, 1 where it is dense",
    "n_params_total": "parameters of all experts together",
    "n_params_non_vocab": "parameters without those of the vocabulary",
    "n_params_vocab": "parameters of the vocabulary",
    "unigram_normalised_loss": "loss less that of the tokens' own frequencies",
    "training_seconds": "seconds of training",
}
"""Columns that are numbers, all positive but for `SIGNED`, with their meaning."""
SIGNED = ("unigram_normalised_loss",)

LABELS = (
    "group", "run", "tokenizer", "vocab_size", "model_settings", "corpus", "validation",
    "validation_tokens", "convention", "loss_unit", "cooled", "seed", "state",
)  # fmt: skip
"""Columns that are text, used where they are there."""

ALTERNATIVES = {
    "n_params": ("n_params", "n_params_non_embedding", "n_params_matmul"),
    "flops": ("flops", "flops_6nd"),
}
"""Columns read as N and C where no mapping names one: the first that the file has."""

FLOPS_PER_PARAMETER_AND_TOKEN = 6.0
"""C = 6 N D (Kaplan et al. 2020, section 2.1): completes a row that lacks one of the three."""

KAPLAN_B_STAR = 2.1e8
KAPLAN_ALPHA_B = 0.21
"""Critical batch size in tokens, B_star / L^(1 / alpha_B) (Kaplan et al. 2020, section 5.1)."""

STOPPED = "stopped"
"""`state` of a row whose trial a sweep stopped before its end (`gpt-jax sweep run --stop`)."""

MISSING = ("", "nan", "na", "n/a", "none", "null", "inf", "-inf", "diverged")
"""Texts of cells that mean a missing number, such as the loss of a diverged run."""

THOUSANDS = re.compile(r"[0-9]{1,3}(,[0-9]{3})+")
"""Numbers whose commas may separate thousands."""


@dataclass(frozen=True)
class RunTable:
    """Runs, one a row (or one a measurement, where `run` names the run)."""

    quantities: Mapping[str, Array]
    """{name in QUANTITIES: (R) float, nan = missing}"""
    labels: Mapping[str, tuple[str, ...]]
    """{name in LABELS: (R) text}"""
    conventions: Mapping[str, str]
    """{name: the column of the file it was read from, or how it was computed}"""
    notes: tuple[str, ...] = ()
    """Notes for the reader of the fit: rows left out, values filled in."""
    warnings: tuple[str, ...] = ()
    """Problems of the table that put the fit in doubt."""
    chosen: Array | None = None
    """(R) bool: rows that a condition chose for the fit, where one was given"""

    def __len__(self) -> int:
        return self.quantities["loss"].size

    def __getitem__(self, name: str) -> Array:
        return self.quantities[name]

    def __contains__(self, name: str) -> bool:
        return name in self.quantities

    def take(self, rows: Array, *notes: str) -> "RunTable":
        """Some of the rows, by index or mask; the notes say why."""
        index = np.arange(len(self))[rows]
        return replace(
            self,
            quantities={k: v[index] for k, v in self.quantities.items()},
            labels={k: tuple(v[i] for i in index) for k, v in self.labels.items()},
            notes=(*self.notes, *notes),
            chosen=None if self.chosen is None else self.chosen[index],
        )

    def split(self) -> "tuple[RunTable, RunTable | None]":
        """The rows that a condition chose, and the others; all and none without a condition."""
        if self.chosen is None:
            return self, None
        whole = replace(self, chosen=None)
        return whole.take(self.chosen), whole.take(~self.chosen)


def make_table(**quantities: Array | Sequence[float]) -> RunTable:
    """A table from arrays: make_table(n_params=..., n_tokens=..., loss=...)."""
    unknown = set(quantities) - set(QUANTITIES)
    if unknown:
        raise ValueError(f"unknown columns {sorted(unknown)}; known: {', '.join(QUANTITIES)}")
    arrays = {k: np.asarray(v, float) for k, v in quantities.items()}
    arrays.setdefault("loss", np.full(next(iter(arrays.values())).size, np.nan))
    return complete(RunTable(arrays, {}, {k: k for k in arrays}))


def read_runs(
    path: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    where: Mapping[str, str] | None = None,
    prefer: Mapping[str, str] | None = None,
    extra: Mapping[str, str] | None = None,
    condition: str | None = None,
) -> RunTable:
    """The runs in a file with a header line: CSV, or by its suffix TSV or JSON lines.

    columns: {our name: column of the file}. where: {column of the file: text that a row must
    have, or several with | between them}. extra: {name: column of the file} of numbers that may
    have any sign. condition: on columns, such as `n_params < 1e9`; the rows where it holds are
    `chosen`, the others stay in the table. prefer: {our name: column} taken first where the file
    has it and `columns` is silent; N of another convention than C's is not mixed with it.
    Raises ValueError naming the line and column of what is not a positive number.
    """
    table = _read_rows(Path(path))
    header = list(table.columns)
    mapping = _mapping(header, dict(columns or {}), dict(prefer or {}), Path(path))
    numbers = {name: column for name, column in mapping.items() if name in QUANTITIES}
    rows, note = _decimal_commas(table, sorted(set(numbers.values())))
    notes = [*table.notes, *([note] if note else [])]
    for column, wanted in (where or {}).items():
        _require_column(column, header, Path(path), "--where")
        texts = [text.strip().lower() for text in wanted.split("|")]
        keep = [row for row in rows if row[column].strip().lower() in texts]
        notes.append(f"{len(keep)} of {len(rows)} rows have {column} = {wanted}")
        rows = keep
    if not rows:
        raise ValueError(f"{path} has no rows" + (f" with {dict(where)}" if where else ""))
    rows, repeated = _without_copies(rows, header)
    notes += [repeated] if repeated else []
    quantities = {
        name: np.array([_number(row[column], column, row.where, name in SIGNED) for row in rows])
        for name, column in numbers.items()
    }
    for name, column in (extra or {}).items():
        _require_column(column, header, Path(path), f"column {name}")
        quantities[name] = np.array([_number(row[column], column, row.where, True) for row in rows])
    quantities.setdefault("loss", np.full(len(rows), np.nan))
    labels = {
        name: tuple(row[column].strip() for row in rows)
        for name, column in mapping.items()
        if name in LABELS
    }
    conventions = {k: v for k, v in {**mapping, **(extra or {})}.items() if k in quantities}
    table_of_runs = complete(RunTable(quantities, labels, conventions, tuple(notes)))
    if condition is not None:
        table_of_runs = choose(table_of_runs, condition, rows, header)
    return _only_cooled(table_of_runs)


def choose(
    table: RunTable, condition: str, rows: Sequence[tables.Row], header: Sequence[str]
) -> RunTable:
    """The table with `chosen` where a condition holds; raises ValueError if that is nowhere."""
    known = columns_of({name: [row[name] for row in rows] for name in header}, table.quantities)
    chosen = where_it_holds(condition, known)
    if not chosen.any():
        raise ValueError(f"--where '{condition}': no row is left to fit")
    note = f"fitted to the {int(chosen.sum())} of {len(rows)} rows where {condition}"
    return replace(table, chosen=chosen, notes=(*table.notes, note))


def complete(table: RunTable) -> RunTable:
    """Fill in the third of n_params, n_tokens and flops from the other two by C = 6 N D."""
    blank = np.full(len(table), np.nan)
    n, d, c = (table.quantities.get(k, blank) for k in ("n_params", "n_tokens", "flops"))
    per = FLOPS_PER_PARAMETER_AND_TOKEN
    formulas: dict[str, tuple[Array, Callable[[], Array], str]] = {
        "n_params": (n, lambda: c / (per * d), "flops / (6 n_tokens)"),
        "n_tokens": (d, lambda: c / (per * n), "flops / (6 n_params)"),
        "flops": (c, lambda: per * n * d, "6 n_params n_tokens"),
    }
    quantities, conventions = dict(table.quantities), dict(table.conventions)
    for name, (known, formula, text) in formulas.items():
        with np.errstate(over="ignore"):  # beyond float64 there is no number
            completed = formula()
        completed = np.where(np.isfinite(completed), completed, np.nan)
        filled = np.where(np.isnan(known), completed, known)
        changed = np.isnan(known) & ~np.isnan(filled)
        if changed.any():
            quantities[name] = filled
            whole = changed.all() or name not in conventions
            conventions[name] = text if whole else f"{conventions[name]}, else {text}"
    return replace(table, quantities=quantities, conventions=conventions)


def cost_per_parameter_and_token(runs: RunTable) -> float:
    """The table's own C / (N D), median over rows: 6 in the papers, more where C is exact."""
    if not all(name in runs for name in ("n_params", "n_tokens", "flops")):
        return FLOPS_PER_PARAMETER_AND_TOKEN
    ratio = runs["flops"] / (runs["n_params"] * runs["n_tokens"])
    known = ratio[~np.isnan(ratio)]
    return float(np.median(known)) if known.size else FLOPS_PER_PARAMETER_AND_TOKEN


def with_steps_min(runs: RunTable) -> RunTable:
    """With S_min = S / (1 + B_crit(L) / B) where the table has n_steps and batch_tokens instead.

    Kaplan et al. 2020, eq. 5.4, with their critical batch size B_crit = 2.1e8 / L^(1 / 0.21).
    """
    if "steps_min" in runs or "n_steps" not in runs or "batch_tokens" not in runs:
        return runs
    critical = KAPLAN_B_STAR / runs["loss"] ** (1 / KAPLAN_ALPHA_B)
    steps = runs["n_steps"] / (1 + critical / runs["batch_tokens"])
    text = "n_steps / (1 + B_crit / batch_tokens), B_crit of Kaplan et al. 2020"
    return replace(
        runs,
        quantities={**runs.quantities, "steps_min": steps},
        conventions={**runs.conventions, "steps_min": text},
    )


def with_values(table: RunTable, names: Sequence[str]) -> RunTable:
    """The rows that have all these quantities; raises ValueError if a column is absent."""
    for name in names:
        if name not in table or np.isnan(table[name]).all():
            raise ValueError(
                f"the table has no {name} ({QUANTITIES.get(name, 'a column of yours')}); name its "
                f"column with --columns {name}=COLUMN"
                + (", or give two of n_params, n_tokens, flops" if name in ALTERNATIVES else "")
            )
    whole = ~np.any([np.isnan(table[name]) for name in names], axis=0)
    left_out = int((~whole).sum())
    if not left_out:
        return table
    missing = ", ".join(n for n in names if np.isnan(table[n]).any())
    states = table.labels.get("state", ("",) * len(table))
    stopped = stopped_early([s for s, kept in zip(states, whole, strict=True) if not kept])
    return table.take(whole, f"{counted(left_out, 'row')} without {missing} left out{stopped}")


def stopped_early(states: Sequence[str]) -> str:
    """How many of these rows a sweep stopped early, for a note on what is left out; empty if none:
    their losses would have been among the higher ones."""
    count = states.count(STOPPED)
    return f"; {count} of these stopped early, as not the best of their settings" if count else ""


def drop_worst(table: RunTable, count: int) -> RunTable:
    """Without the `count` rows of highest loss."""
    if count < 0 or count >= len(table):
        raise ValueError(f"--drop-worst {count}; allowed: 0 to {len(table) - 1} (rows less one)")
    if count == 0:
        return table
    order = np.argsort(table["loss"], kind="stable")
    lowest_left_out = table["loss"][order[len(table) - count]]
    note = f"the {count} highest losses (from {lowest_left_out:.6g}) left out by --drop-worst"
    return table.take(np.sort(order[: len(table) - count]), note)


def pareto(runs: RunTable) -> RunTable:
    """The runs that no run of the same or less compute beats."""
    runs = with_values(runs, ["loss", "flops"])
    order = np.lexsort((runs["loss"], runs["flops"]))
    best = np.minimum.accumulate(runs["loss"][order])
    kept = order[np.append(True, best[1:] < best[:-1])]
    note = f"{kept.size} of {len(runs)} runs lie on the frontier, the others are left out"
    return runs.take(np.sort(kept), note)


def _without_copies(
    rows: Sequence[tables.Row], header: Sequence[str]
) -> tuple[list[tables.Row], str]:
    """Rows that are not the same as an earlier one in every column, and a note on the others."""
    seen: dict[tuple[str | float, ...], tables.Row] = {}
    for row in rows:
        seen.setdefault(tuple(_plain(row[column]) for column in header), row)
    count = len(rows) - len(seen)
    copies = counted(count, "row is a copy", "rows are copies")
    note = f"{copies} of an earlier one in every column: left out" if count else ""
    return list(seen.values()), note


def _plain(cell: str) -> str | float:
    """A cell for comparison: 1e9 and 1000000000 are the same."""
    try:
        value = float(cell)
    except ValueError:
        return cell.strip()
    return value if math.isfinite(value) else cell.strip()


def _only_cooled(table: RunTable) -> RunTable:
    """Losses before a cooldown are higher at the same N and D: one law never sees both."""
    cooled = np.array([v.lower() in ("true", "1", "yes") for v in table.labels.get("cooled", ())])
    if not cooled.size or cooled.all() or not cooled.any():
        return table
    count = int((~cooled).sum())
    rows = counted(count, "row before its cooldown", "rows before their cooldown")
    return table.take(cooled, f"{rows} left out (--where cooled=false fits those)")


def _read_rows(path: Path) -> tables.Table:
    """A file's rows with text in their cells. Without a suffix that says otherwise it is a CSV."""
    if not path.is_file():
        raise ValueError(f"no table of runs at {path}")
    table = tables.read(path, default=".csv", skip_spaces=True)
    if table.separator:  # a text of ours that would be a formula has an apostrophe before it
        restored = [
            tables.Row(
                {csv_cells.restore(k): csv_cells.restore(v) for k, v in row.items()},
                row.where,
                row.line,
            )
            for row in table.rows
        ]
        header = tuple(map(csv_cells.restore, table.columns))
        return replace(table, columns=header, rows=restored)
    # JSON: a record may lack what it does not know.
    columns = tuple(dict.fromkeys(name for row in table.rows for name in row))
    rows = []
    for row in table.rows:
        cells = {name: "" if row.get(name) is None else str(row[name]) for name in columns}
        rows.append(tables.Row(cells, row.where, row.line))
    return replace(table, columns=columns, rows=rows)


def _decimal_commas(table: tables.Table, columns: Sequence[str]) -> tuple[list[tables.Row], str]:
    """The rows with a point for a decimal comma, and a note of it; as they are without one.

    Raises ValueError where commas may as well separate thousands.
    """
    found = [(row, name) for row in table.rows for name in columns if "," in row[name]]
    if not found or table.separator in ("", ","):
        return table.rows, ""
    all_points = any("." in row[name] for row in table.rows for name in columns)
    shapes = [THOUSANDS.fullmatch(row[name].strip()) for row, name in found]
    if all_points or all(shapes) or any(row[name].count(",") > 1 for row, name in found):
        row, name = found[0]
        raise ValueError(
            f"{row.where}: {name} = '{row[name].strip()}': the comma may separate thousands or "
            f"decimals; write numbers as 1234.5"
        )
    changed = set(columns)
    rows = [
        tables.Row(
            {k: v.replace(",", ".") if k in changed else v for k, v in row.items()},
            row.where,
            row.line,
        )
        for row in table.rows
    ]
    return rows, f"{len(found)} numbers have a decimal comma"


def _mapping(
    header: list[str], columns: dict[str, str], prefer: dict[str, str], path: Path
) -> dict[str, str]:
    """{our name: column of the file} of everything that the file has."""
    known = [*QUANTITIES, *LABELS]
    for name, column in columns.items():
        if name not in known:
            hint = did_you_mean(name, known)
            raise ValueError(f"--columns {name}=...: allowed names are {', '.join(known)}{hint}")
        _require_column(column, header, path, f"--columns {name}={column}")
    mapping = {}
    for name in known:
        candidates = [prefer.get(name, name), *ALTERNATIVES.get(name, (name,))]
        found = [c for c in candidates if c in header]
        if name in columns:
            mapping[name] = columns[name]
        elif found:
            mapping[name] = found[0]
    # C follows N's convention: where only N has the preferred one, C is left to be 6 N D.
    n_preferred = "n_params" in prefer and mapping.get("n_params") == prefer["n_params"]
    c_other = mapping.get("flops") != prefer.get("flops") and "flops" not in columns
    if n_preferred and c_other and "n_tokens" in mapping:
        mapping.pop("flops", None)
    # A column that was named as one thing is not read as another as well.
    taken = {column for name, column in columns.items() if name != "weight"}
    for name in [n for n in mapping if n not in columns]:
        if mapping[name] in taken:
            del mapping[name]
    return mapping


def _require_column(column: str, header: list[str], path: Path, given: str) -> None:
    if column not in header:
        hint = did_you_mean(column, header)
        raise ValueError(f"{given}: {path} has the columns {', '.join(header)}{hint}")


def _number(text: str, column: str, where: str, signed: bool = False) -> float:
    """A cell's number; nan where it says that there is none."""
    cell = text.strip()
    if cell.lower() in MISSING:
        return math.nan
    try:
        value = float(cell)
    except ValueError:
        raise ValueError(f"{where}: {column} = '{cell}' is not a number") from None
    if not math.isfinite(value) or (value <= 0 and not signed):
        raise ValueError(f"{where}: {column} = {cell}; allowed: numbers above 0")
    return value
