"""How well predictions agree with labels, as the papers measure it. Must not import jax.

Accuracy, F1, Matthews and Pearson are those of GPT-1's table 4; entity F1 is that of the CoNLL
evaluation, exact spans and types, by seqeval.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gpt_jax.storage.optional import require

SCHEMES: dict[str, frozenset[str]] = {
    "IOB2": frozenset("IB"),
    "IOE2": frozenset("IE"),
    "IOBES": frozenset("IBES"),
    "BILOU": frozenset("IBLU"),
}
"""How tags mark entities, by the letters before the hyphen: B begins, I is inside, E or L ends, S
or U is one alone. The first that has all letters is taken; IOB1 has those of IOB2, and is scored
alike."""


def tag_scheme(labels: tuple[str, ...]) -> str | None:
    """The scheme in SCHEMES that tags follow; None if they mark no entities (parts of speech)."""
    marked = [name for name in labels if name != "O"]
    if not marked or any(len(name) < 3 or name[1] != "-" for name in marked):
        return None
    letters = {name[0] for name in marked}
    return next((scheme for scheme, known in SCHEMES.items() if letters <= known), None)


def class_scores(labels: np.ndarray, predicted: np.ndarray, n_classes: int) -> dict[str, float]:
    """accuracy, macro_f1, and for two classes f1 (of the second) and matthews.

    labels, predicted: integers in [0, n_classes).
    """
    counts = confusion(labels, predicted, n_classes)
    f1 = f1_by_class(counts)
    present = (counts.sum(axis=0) + counts.sum(axis=1)) > 0
    scores = {
        "accuracy": float(np.trace(counts) / counts.sum()),
        "macro_f1": float(f1[present].mean()),
        "matthews": matthews(counts),
    }
    if n_classes == 2:
        scores["f1"] = float(f1[1])
    return scores


def confusion(labels: np.ndarray, predicted: np.ndarray, n_classes: int) -> np.ndarray:
    """[C, C] counts: the label's row, the prediction's column."""
    flat = np.asarray(labels, np.int64) * n_classes + np.asarray(predicted, np.int64)
    return np.bincount(flat, minlength=n_classes**2).reshape(n_classes, n_classes)


def f1_by_class(counts: np.ndarray) -> np.ndarray:
    """[C] of a confusion matrix; 0 where a class neither occurs nor is predicted."""
    return 2 * np.diag(counts) / np.maximum(counts.sum(axis=0) + counts.sum(axis=1), 1)


class ByKind(NamedTuple):
    """Scores of one class, or of one type of entities."""

    name: str
    precision: float
    recall: float
    f1: float
    n: int
    """Examples, or entities, of it in the labels."""


def class_report(counts: np.ndarray, names: Sequence[str]) -> list[ByKind]:
    """The scores of each class, of a confusion matrix."""
    right = np.diag(counts)
    precision = right / np.maximum(counts.sum(axis=0), 1)
    recall = right / np.maximum(counts.sum(axis=1), 1)
    rows = zip(names, precision, recall, f1_by_class(counts), counts.sum(axis=1), strict=True)
    return [ByKind(name, float(p), float(r), float(f), int(n)) for name, p, r, f, n in rows]


def matthews(counts: np.ndarray) -> float:
    """Matthews's correlation of a confusion matrix, for any number of classes (Gorodkin 2004); 0
    where labels or predictions are all one class."""
    n, right = float(counts.sum()), float(np.trace(counts))
    predicted, true = counts.sum(axis=0).astype(float), counts.sum(axis=1).astype(float)
    spread = (n**2 - predicted @ predicted) * (n**2 - true @ true)
    return float((right * n - predicted @ true) / math.sqrt(spread)) if spread else 0.0


def value_scores(labels: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """pearson and spearman; 0 where one side does not vary."""
    from scipy import stats

    if np.ptp(labels) == 0 or np.ptp(predicted) == 0:
        return {"pearson": 0.0, "spearman": 0.0}
    return {
        "pearson": float(stats.pearsonr(labels, predicted).statistic),
        "spearman": float(stats.spearmanr(labels, predicted).statistic),
    }


def entity_scores(
    labels: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], scheme: str | None
) -> dict[str, float]:
    """entity_f1, entity_precision, entity_recall over exact entities; accuracy of tags.

    scheme: of `SCHEMES`. IOB2 is scored as the CoNLL evaluation does, which takes an
    I-x that follows no x for a beginning (so IOB1 is, too); the others strictly, by their own
    grammar. None = tags that mark no entities: accuracy alone. Where neither side has an entity
    the three are nan. Raises ValueError without the package seqeval.
    """
    right = [
        a == b for x, y in zip(labels, predicted, strict=True) for a, b in zip(x, y, strict=True)
    ]
    accuracy = {"accuracy": float(np.mean(right)) if right else math.nan}
    if scheme is None:
        return accuracy
    names = ("entity_f1", "entity_precision", "entity_recall")
    if all(tag == "O" for side in (labels, predicted) for tags in side for tag in tags):
        return dict.fromkeys(names, math.nan) | accuracy
    require("seqeval", "finetune")
    from seqeval import metrics

    measures = (metrics.f1_score, metrics.precision_score, metrics.recall_score)
    strictly = _strictly(scheme)
    found = [float(m(labels, predicted, zero_division=0, **strictly)) for m in measures]
    return dict(zip(names, found, strict=True)) | accuracy


def entity_report(
    labels: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], scheme: str
) -> list[ByKind]:
    """The scores of each type of entities that the labels or predictions have, as `entity_scores`
    counts them. Raises ValueError without the package seqeval."""
    require("seqeval", "finetune")
    from seqeval import metrics

    if all(tag == "O" for side in (labels, predicted) for tags in side for tag in tags):
        return []
    found = metrics.classification_report(
        labels, predicted, output_dict=True, zero_division=0, **_strictly(scheme)
    )
    return [
        ByKind(kind, of["precision"], of["recall"], of["f1-score"], int(of["support"]))
        for kind, of in sorted(found.items())
        if not kind.endswith(" avg")
    ]


def _strictly(scheme: str) -> dict[str, Any]:
    """Arguments of seqeval's functions: the grammar of a scheme; none for IOB2."""
    import seqeval.scheme

    if scheme == "IOB2":
        return {}
    return {"mode": "strict", "scheme": getattr(seqeval.scheme, scheme)}
