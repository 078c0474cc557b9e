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
    made = scores.entity_scores(labels, predicted, "IOB2")
    assert made["entity_precision"] == pytest.approx(2 / 4)
    assert made["entity_recall"] == pytest.approx(2 / 3)
    assert made["entity_f1"] == pytest.approx(4 / 7)
    assert made["accuracy"] == pytest.approx(4 / 6)


IOB2 = [["B-x", "I-x", "I-x", "B-y", "O", "B-x"], ["O", "B-y", "I-y"]]
IOBES = [["B-x", "I-x", "E-x", "S-y", "O", "S-x"], ["O", "B-y", "E-y"]]
BILOU = [["B-x", "I-x", "L-x", "U-y", "O", "U-x"], ["O", "B-y", "L-y"]]
IOE2 = [["I-x", "I-x", "E-x", "E-y", "O", "E-x"], ["O", "I-y", "E-y"]]


@pytest.mark.parametrize(
    ("scheme", "labels"), [("IOB2", IOB2), ("IOBES", IOBES), ("BILOU", BILOU), ("IOE2", IOE2)]
)
def test_the_same_spans_score_the_same_in_every_scheme(scheme, labels):
    """Of 4 entities 3 are found, one of them with another type: 2 of 3 are right, 2 of 4 found."""
    pytest.importorskip("seqeval")
    predicted = [list(tags) for tags in labels]
    predicted[0][5] = "O"
    predicted[0][3] = predicted[0][3].replace("y", "x")
    made = scores.entity_scores(labels, predicted, scheme)
    assert made["entity_recall"] == pytest.approx(2 / 4)
    assert made["entity_precision"] == pytest.approx(2 / 3)
    assert made["accuracy"] == pytest.approx(7 / 9)


def test_an_entity_that_is_not_ended_counts_only_where_nothing_ends_them():
    pytest.importorskip("seqeval")
    for scheme, labels, predicted in (
        ("IOBES", ["B-x", "E-x", "S-y"], ["B-x", "I-x", "S-y"]),
        ("BILOU", ["B-x", "L-x", "U-y"], ["B-x", "I-x", "U-y"]),
    ):
        made = scores.entity_scores([labels], [predicted], scheme)
        assert (made["entity_precision"], made["entity_recall"]) == (1, 0.5)
    # The CoNLL evaluation: an I-x after another tag begins an entity, as IOB1 has it.
    made = scores.entity_scores([["I-x", "O", "I-x", "B-x"]], [["B-x", "O", "B-x", "B-x"]], "IOB2")
    assert made["entity_f1"] == 1


def test_nothing_to_find_has_no_score():
    made = scores.entity_scores([["O"]], [["O"]], "IOB2")
    assert np.isnan(made["entity_f1"])
    assert made["accuracy"] == 1
    assert scores.entity_scores([["DET"]], [["NOUN"]], None) == {"accuracy": 0.0}


def test_report_by_type_of_entities():
    """By hand: of two persons one is found, of no place one is said; the reference is seqeval's."""
    pytest.importorskip("seqeval")
    labels = [["B-per", "I-per", "O", "B-per"], ["O", "B-org"]]
    predicted = [["B-per", "I-per", "O", "O"], ["B-loc", "B-org"]]
    assert scores.entity_report(labels, predicted, "IOB2") == [
        ("loc", 0.0, 0.0, 0.0, 0),
        ("org", 1.0, 1.0, 1.0, 1),
        ("per", 1.0, 0.5, pytest.approx(2 / 3), 2),
    ]
    assert scores.entity_report([["O"]], [["O"]], "IOB2") == []
