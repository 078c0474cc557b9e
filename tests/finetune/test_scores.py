"""Scores against scikit-learn's and seqeval's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_jax.finetune import scores

PAIRS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=2, max_size=40)


@given(PAIRS)
def test_class_scores(pairs):
    metrics = pytest.importorskip("sklearn.metrics")
    labels, predicted = np.asarray(pairs).T
    made = scores.class_scores(labels, predicted, 3)
    assert made["accuracy"] == pytest.approx(metrics.accuracy_score(labels, predicted))
    macro = metrics.f1_score(labels, predicted, average="macro", zero_division=0)
    assert made["macro_f1"] == pytest.approx(macro)
    assert made["matthews"] == pytest.approx(metrics.matthews_corrcoef(labels, predicted))
    assert "f1" not in made
    binary, guessed = labels > 0, predicted > 0
    made = scores.class_scores(binary.astype(int), guessed.astype(int), 2)
    assert made["f1"] == pytest.approx(metrics.f1_score(binary, guessed, zero_division=0))


@given(PAIRS)
def test_report_by_class(pairs):
    metrics = pytest.importorskip("sklearn.metrics")
    labels, predicted = np.asarray(pairs).T
    rows = scores.class_report(scores.confusion(labels, predicted, 3), "abc")
    expected = metrics.precision_recall_fscore_support(
        labels, predicted, labels=[0, 1, 2], zero_division=0
    )
    for i, (_, *row) in enumerate(rows):
        assert row == pytest.approx([column[i] for column in expected])


def test_values():
    labels = np.asarray([0.0, 1.0, 2.0, 3.0])
    assert scores.value_scores(labels, 2 * labels + 1) == pytest.approx(
        {"pearson": 1, "spearman": 1}
    )
    assert scores.value_scores(labels, np.exp(-labels))["spearman"] == pytest.approx(-1)
    assert scores.value_scores(labels, np.zeros(4)) == {"pearson": 0.0, "spearman": 0.0}


def test_entities_count_when_span_and_type_are_right():
    pytest.importorskip("seqeval")
    labels = [["B-x", "I-x", "O", "B-y"], ["O", "B-x"]]
    predicted = [["B-x", "I-x", "O", "B-x"], ["B-y", "B-x"]]
    made = scores.entity_scores(labels, predicted)
    assert made["entity_precision"] == pytest.approx(2 / 4)
    assert made["entity_recall"] == pytest.approx(2 / 3)
    assert made["entity_f1"] == pytest.approx(4 / 7)
    assert made["accuracy"] == pytest.approx(4 / 6)
