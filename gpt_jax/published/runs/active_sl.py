"""Entries of the pools of active-sl (arXiv 2604.22753), which are alike. Must not import jax."""

from collections.abc import Sequence
from typing import Any

from gpt_jax.published.runs.entry import (
    FILE,
    Check,
    Columns,
    Document,
    File,
    Form,
    Record,
    RunsEntry,
    Value,
    raw,
)

REPOSITORY = "PlanarG/active-sl"
COMMIT = "e0a58ffde4f6fdfb20880d47d6d180fdbcb1440d"
SPLITS = ("train", "test")


def pool(
    name: str,
    *,
    title: str,
    columns: Columns,
    convention: str,
    sha256: str,
    rows: int,
    spread: str,
    checks: tuple[Check, ...],
) -> RunsEntry:
    """The entry of a pool: two parquet files at its address, or one CSV.

    sha256: of the CSV. spread: printed standard deviation of R2 over the paper's laws.
    """
    folder = f"benchmark/dataset/{name}_scaling_law"
    shared = {"run": run_name, "split": "split", "group": "group", **columns}
    return RunsEntry(
        name=f"active-sl-{name.replace('_', '-')}",
        title=title,
        authors="Li, S. et al. 2026",
        paper="2604.22753",
        licence="MIT",
        repository=REPOSITORY,
        commit=COMMIT,
        forms=(
            Form(
                tuple(
                    File(
                        f"{split}-00000-of-00001.parquet",
                        raw(REPOSITORY, COMMIT, f"{folder}/{split}-00000-of-00001.parquet"),
                    )
                    for split in SPLITS
                ),
                shared,
                numbered,
            ),
            Form((File(f"active_sl_{name}.csv.gz", sha256=sha256),), shared, numbered),
        ),
        constants={"convention": convention},
        rows=rows,
        verified="rows, columns and fits from the copy (.csv.gz); paths and columns of the "
        "authors' parquet files from their dataset card; those files were not opened",
        checks=checks,
        notes=(
            f"the printed R2 is a mean over the paper's laws, standard deviation {spread}; ours is "
            f"of one law",
        ),
    )


def held_out_r2(documents: Sequence[Document]) -> Value:
    """R2 over the rows that a condition held out."""
    runs = documents[0]["extrapolation"]["runs"]
    return Value(r2([run["measured"] for run in runs], [run["predicted"] for run in runs]))


def r2(measured: Sequence[float], predicted: Sequence[float]) -> float:
    """Share of the variance that predictions explain."""
    mean = sum(measured) / len(measured)
    left = sum((m - p) ** 2 for m, p in zip(measured, predicted, strict=True))
    return 1 - left / sum((m - mean) ** 2 for m in measured)


def numbered(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The split from the name of the file, where it is not a column; a number as the run's name."""
    for k, record in enumerate(records, 1):
        record.setdefault("split", str(record[FILE]).partition("-")[0])
        record["number"] = k
    return records


def run_name(record: Record) -> str:
    """A name for a run that has none."""
    return f"{record['split']} {record['number']}"
