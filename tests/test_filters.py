"""Listed words and personal data are kept out; everything else stays as it was."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_jax.data.personal import redact
from gpt_jax.inference.filters import Filters, read_stop_list

FOUND = {
    "write to jo.ann+x@mail.example.org.": "write to [email].",
    "pay DE89 3704 0044 0532 0130 00 now": "pay [account] now",
    "GB82WEST12345698765432": "[account]",
    "card 4111 1111 1111 1111, 378282246310005": "card [card], [card]",
    "from 192.168.0.1:80": "from [address]:80",
    "call +49 30 1234567 or (212) 555-0187": "call [phone] or [phone]",
    "SSN 078-05-1120": "SSN [number]",
    "a@b.com c@d.net": "[email] [email]",
}
LEFT = [
    "4111 1111 1111 1112",  # a wrong checksum
    "DE88 3704 0044 0532 0130 00",
    "version 1.2.3.400 of 2026-11-25",
    "in 1812 there were 600,000 of them, 12-34 and 3.14159",
    "f(x) = x @ w + b",
    "call 911",
]


@pytest.mark.parametrize("text", FOUND)
def test_personal_data_are_replaced(text):
    assert redact(text) == FOUND[text]


@pytest.mark.parametrize("text", LEFT)
def test_other_numbers_stay(text):
    assert redact(text) == text


@given(st.text(alphabet="ab @.+-() 0123456789", max_size=60))
def test_what_is_redacted_stays_so(text):
    once = redact(text)
    assert redact(once) == once


@given(st.text(alphabet="abcdefghij \n,;", max_size=60))
def test_a_text_without_numbers_or_addresses_is_the_same(text):
    assert redact(text) == text
    assert Filters(personal_data=True).output(text) == text


def test_a_listed_word_ends_a_text_and_refuses_a_prompt():
    filters = Filters(("secret", "top floor"))
    assert filters.output("no secretary knows. Secrets? The SECRET is") == (
        "no secretary knows. Secrets? The "
    )
    assert filters.output("on the Top Floor of it") == "on the "
    assert filters.prompt("a secretary") == "a secretary"
    with pytest.raises(ValueError, match="the prompt has 'Secret', which the stop list"):
        filters.prompt("The Secret")
    assert not Filters()
    assert Filters().output("secret a@b.com") == "secret a@b.com"


def test_a_stop_list_is_read_line_by_line(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("# names\nAnn\n\n  top floor \n")
    assert read_stop_list(path) == ("Ann", "top floor")
    path.write_text("# nothing\n")
    with pytest.raises(ValueError, match="no word in it; allowed: a word or phrase a line"):
        read_stop_list(path)
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ValueError, match="not a text in UTF-8"):
        read_stop_list(path)
    with pytest.raises(ValueError, match=r"--stop-list .*absent: No such file"):
        read_stop_list(tmp_path / "absent")


@pytest.mark.parametrize(
    "piece",
    ["a.", "%", "a@", "@a.", "a@a-", "1", "1 ", "+1", "+12 ", "+1" * 9 + " ", "AB12 ", "(1"],
)
def test_the_time_is_in_proportion_to_the_text(piece):
    """200 kB: a form that looks at a run from each of its places takes minutes for it."""
    text = piece * (200_000 // len(piece))
    began = time.process_time()
    redact(text)
    assert time.process_time() - began < 4


def test_many_listed_words_are_not_tried_one_by_one():
    words = tuple(f"{a}{b}{c}word" for a in "abcdefghij" for b in "klmnop" for c in "qrstuvwxyz")
    filters = Filters((*words, "ab", "abc d", "a.b"))
    began = time.process_time()
    assert filters.output("axaxaxax akqwor " * 10_000) == "axaxaxax akqwor " * 10_000
    assert time.process_time() - began < 4
    for text, kept in (("x AB.", "x "), ("abc", "abc"), ("abc d", ""), ("a.b", ""), ("axb", "axb")):
        assert filters.output(text) == kept
    assert filters.output("see bkqword!") == "see "
