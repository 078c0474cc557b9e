"""Noise changes about as much as it says, the same each time, and nothing else."""

import random

from hypothesis import given
from hypothesis import strategies as st

from gpt_jax.finetune.noise import (
    CHARACTER_RATE,
    NOISE,
    WORD_RATE,
    noisy_characters,
    perturbed,
    swapped_words,
)


@given(st.text(max_size=80), st.integers())
def test_swapped_words_are_the_same_words(text, seed):
    made = swapped_words(text, random.Random(seed))
    assert sorted(made.split(" ")) == sorted(text.split(" "))


@given(st.text(max_size=80), st.integers())
def test_what_is_no_letter_stays(text, seed):
    made = noisy_characters(text, random.Random(seed))
    assert sorted(c for c in made if not c.isalpha()) == sorted(c for c in text if not c.isalpha())


def test_rates():
    words = [f"w{i}" for i in range(20_000)]
    made = swapped_words(" ".join(words), random.Random(0)).split(" ")
    moved = sum(a != b for a, b in zip(words, made, strict=True)) / 2 / len(words)
    assert abs(moved - WORD_RATE / (1 + WORD_RATE)) < 0.01
    text = "x" * 40_000
    made = noisy_characters(text, random.Random(0))
    replaced = sum(c != "x" for c in made) / len(text)
    assert abs(replaced - CHARACTER_RATE / 4 * 25 / 26) < 0.004


def test_records_are_a_function_of_seed_and_place():
    found = [
        {"text": "one two three four five six " * 3, "options": ["a b c d"] * 3, "label": 1}
    ] * 4
    for kind in NOISE:
        made = perturbed(found, ("text", "options"), kind, 0)
        assert made == perturbed(found, ("text", "options"), kind, 0)
        assert made != perturbed(found, ("text", "options"), kind, 1)
        assert made[0] != made[1]
        assert all(record["label"] == 1 and len(record["options"]) == 3 for record in made)
    assert found[0]["text"].startswith("one two")
