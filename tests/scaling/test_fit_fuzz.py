"""Tables of runs with mistakes drawn at random: a fit, or one line, and never a traceback."""

import random

import pytest
from fuzzed import mistakes
from hypothesis import given
from hypothesis import strategies as st

from gpt_jax import cli

CELLS = (
    "",
    "nan",
    "inf",
    "-1",
    "0",
    "1e400",
    "1e-400",
    "1,5",
    "n/a",
    '"',
    "\x00",
    "1e9\n",
    "x" * 99,
)


def table() -> list[list[str]]:
    rows = [["n_params", "n_tokens", "loss"]]
    for n in (1e7, 4e7, 16e7):
        for d in (1e8, 4e8, 16e8, 64e8):
            rows.append([f"{n:g}", f"{d:g}", f"{1.7 + 400 / n**0.34 + 410 / d**0.28:.6f}"])
    return rows


def mutated(seed: int) -> bytes:
    """A table with one to four mistakes: cells, rows, separators, encodings, bytes."""
    drawn, rows = random.Random(seed), table()
    for _ in range(drawn.randint(1, 4)):
        row = drawn.choice(rows)
        match drawn.randint(0, 5):
            case 0 | 1:
                row[drawn.randrange(len(row))] = drawn.choice(CELLS)
            case 2 if len(row) > 1:
                del row[drawn.randrange(len(row))]
            case 3:
                row.append(drawn.choice(CELLS))
            case 4 if len(rows) > 1:
                rows.remove(row)
            case _:
                rows.append(list(row))
    text = "\n".join(drawn.choice(",,,;\t").join(row) for row in rows)
    content = bytearray(text.encode(drawn.choice(["utf-8", "utf-8", "utf-16", "utf-8-sig"])))
    for _ in range(drawn.choice([0, 0, 0, 3])):
        content[drawn.randrange(len(content))] = drawn.randrange(256)
    return bytes(content)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "prepare_process", lambda: None)
    return tmp_path


@mistakes(20)
@given(st.integers(0, 2**32))
def test_a_mutated_table_is_fitted_or_refused_in_one_line(place, capsys, seed):
    path = place / "runs.csv"
    path.write_bytes(mutated(seed))
    status = cli.main(["fit", str(path), "--law", "chinchilla", "--bootstrap", "0"])
    captured = capsys.readouterr()
    assert status in (0, 2), captured.err
    if status == 2:
        last = captured.err.splitlines()[-1]
        assert last.startswith("gpt-jax: ")
        assert last.isprintable(), last
