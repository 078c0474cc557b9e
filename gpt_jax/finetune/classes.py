"""Classes predicted by a head: scores, predictions with probabilities, a report and a figure.

Must not import jax.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gpt_jax.config import Config
from gpt_jax.finetune import scores
from gpt_jax.finetune.examples import Examples
from gpt_jax.finetune.inputs import Record
from gpt_jax.finetune.predicted import Predicted
from gpt_jax.finetune.scores import ByKind
from gpt_jax.storage.atomic import write_atomically

METRICS = ("accuracy", "macro_f1", "f1", "matthews", "loss")
CLASSES_NAMED = 40
"""Most classes for which the figure has names and numbers."""
REPORT, FIGURE = "report.txt", "confusion.png"


def class_ids(config: Config, examples: Examples, found: Predicted) -> np.ndarray:
    """[N] the right class, or option, of each example that was predicted."""
    names, field = config.task.labels, config.task.label_field
    labels = [examples.records[i][field] for i in found.indices]
    return np.asarray([names.index(str(x)) if names else int(x) for x in labels], np.int64)


def class_scores(config: Config, examples: Examples, found: Predicted) -> dict[str, float]:
    """accuracy, macro_f1, matthews; of two classes also f1."""
    n = max(len(config.task.labels), found.outputs.shape[1])
    return scores.class_scores(class_ids(config, examples, found), found.outputs.argmax(1), n)


def with_probabilities(config: Config, examples: Examples, found: Predicted) -> list[Record]:
    """Records with the likeliest class, or option, and the probabilities of all."""
    said = []
    for i, outputs in zip(found.indices, found.outputs, strict=True):
        names = config.task.labels or range(len(outputs))
        chances = [round(float(p), 4) for p in np.exp(outputs)]
        said.append(
            {
                **examples.records[i],
                "predicted": names[int(outputs.argmax())],
                "probabilities": dict(zip(map(str, names), chances, strict=True)),
            }
        )
    return said


def write_class_report(
    config: Config, directory: Path, examples: Examples, found: Predicted, by_name: dict[str, float]
) -> None:
    """report.txt and confusion.png of a test."""
    names = config.task.labels
    labels = class_ids(config, examples, found)
    counts = scores.confusion(labels, found.outputs.argmax(1), len(names))
    rows = scores.class_report(counts, names)
    write_atomically(directory / REPORT, report(rows, by_name))
    draw_confusion(counts, names, directory / FIGURE)


def check_f1(config: Config) -> None:
    """Raises ValueError for task.metric = f1 where there are not two classes."""
    task = config.task
    if task.metric == "f1" and len(task.labels) != 2:
        raise ValueError(
            f"task.metric = f1 is of two classes, and there are {len(task.labels)} "
            f"({', '.join(task.labels[:5])}{', ...' if len(task.labels) > 5 else ''}); allowed: "
            f"macro_f1, accuracy, matthews, loss"
        )


def report(
    rows: Sequence[ByKind], by_name: dict[str, float], kind: str = "class", what: str = "examples"
) -> str:
    """Scores, and precision, recall and F1 of each class, as an aligned table.

    kind, what: names of the columns of classes, and of what is counted.
    """
    width = max(len(kind), *(len(row.name) for row in rows), *map(len, by_name))
    lines = [f"{name:<{width}}  {value:9.4f}" for name, value in by_name.items()]
    lines += ["", f"{kind:<{width}}  precision  recall      F1  {what:>8}"]
    for name, precision, recall, f1, n in rows:
        lines.append(f"{name:<{width}}  {precision:9.4f}  {recall:6.4f}  {f1:6.4f}  {n:8,}")
    return "\n".join(lines) + "\n"


def draw_confusion(counts: np.ndarray, names: tuple[str, ...], path: Path) -> None:
    """Rows are labels, columns predictions; shades are shares of a row, numbers are examples.

    Of more than CLASSES_NAMED classes the shades alone: names and numbers could not be read.
    """
    import matplotlib.figure

    few = len(names) <= CLASSES_NAMED
    size = 2.2 + 0.7 * min(len(names), CLASSES_NAMED)
    figure = matplotlib.figure.Figure((size + 0.6, size), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if few:
        for (row, column), n in np.ndenumerate(counts):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{n:,}", ha="center", va="center", color=colour)
        # A $ in a name is a $, and begins no formula.
        axes.set_xticks(range(len(names)), names, rotation=30, ha="right", parse_math=False)
        axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("label")
    temporary = path.with_name(f".{path.name}")
    figure.savefig(temporary, format="png")
    temporary.replace(path)
