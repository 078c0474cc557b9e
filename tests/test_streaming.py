"""Text that comes token by token ends where it should, and is shown only when it is certain."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_jax.data.streaming import SEPARATOR, Continuation, Printer
from gpt_jax.data.tokenizers.entries.byte import ByteTokenizer

BYTES = ByteTokenizer()
# Few letters, so that stop strings begin often; one of two and one of four bytes.
texts = st.text("aböx😀", max_size=12)
stops = st.lists(st.text("abö😀", min_size=1, max_size=4), max_size=2)
quick = settings(max_examples=200, deadline=None)


def tokens_of(text):
    return BYTES.encode(text).tolist()


def continuation(prompt, stop=()):
    return Continuation(BYTES, BYTES.encode(prompt), stop)


def cut(text, stop):
    """The text before the stop string that is complete first, looked for letter by letter."""
    for end in range(len(text) + 1):
        found = [text[:end].index(s) for s in stop if s in text[:end]]
        if found:
            return text[: min(found)]
    return text


@pytest.mark.smoke
@quick
@given(texts, texts, stops)
def test_certain_text_only_grows_and_is_never_part_of_a_stop_string(prompt, text, stop):
    row = continuation(prompt, stop)
    expected = cut(text, stop)
    n_before, stopped = 0, False
    for token in tokens_of(text):
        stopped = row.add([token])
        certain = row.text[: row.n_certain]
        assert row.n_certain >= n_before
        assert expected.startswith(certain)
        n_before = row.n_certain
        if stopped:
            break
    assert stopped == (expected != text)
    assert row.text == expected


@quick
@given(texts, stops)
def test_tokens_at_once_give_the_text_of_tokens_one_by_one(text, stop):
    one_by_one = continuation("", stop)
    for token in tokens_of(text):
        if one_by_one.add([token]):
            break
    at_once = continuation("")
    at_once.add(tokens_of(text))
    assert at_once.text == text
    assert cut(at_once.text, stop) == one_by_one.text


def test_bytes_that_never_become_a_character_are_shown_once_another_follows():
    row = continuation("a")
    row.add(tokens_of("ö")[:1])
    assert (row.text, row.n_certain) == ("\ufffd", 0)
    row.add(tokens_of("x"))
    assert (row.text, row.n_certain) == ("\ufffdx", 2)


@quick
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=4), stops, st.randoms())
def test_printer_shows_rows_in_order_whatever_order_they_come_in(pairs, stop, random):
    rows = [continuation(prompt, stop) for prompt, _ in pairs]
    stream = io.StringIO()
    printer = Printer(stream, [prompt for prompt, _ in pairs], rows)
    separated = f"\n{SEPARATOR}\n".join(p + cut(text, stop) for p, text in pairs) + "\n"
    assert separated.startswith(stream.getvalue())
    waiting = {i: tokens_of(text) for i, (_, text) in enumerate(pairs)}
    while waiting:
        i = random.choice(list(waiting))
        stopped = bool(waiting[i]) and rows[i].add([waiting[i].pop(0)])
        printer.update(i, complete=False)
        assert separated.startswith(stream.getvalue())
        if stopped or not waiting[i]:
            del waiting[i]
            printer.update(i, complete=True)
            assert separated.startswith(stream.getvalue())
    assert stream.getvalue() == separated


class Marked:
    """A tokenizer of words whose space before a word shows only after another word."""

    vocab_size, end_of_text = 3, None

    def encode(self, text):
        return np.array([["red", "green", "blue"].index(word) for word in text.split()])

    def decode(self, ids):
        return " ".join(["red", "green", "blue"][i] for i in ids)


def test_a_word_is_decoded_in_the_light_of_the_prompt():
    row = Continuation(Marked(), Marked().encode("red"), ())
    row.add([2])
    assert row.text == " blue"
