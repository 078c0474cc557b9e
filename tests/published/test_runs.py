"""The open tables of runs: entries, files from a folder or a server, mappings, published fits."""

import csv
import hashlib
import http.server
import json
import math
import re
import sys
import threading
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from gpt_jax.cli import main
from gpt_jax.published.runs import fetch
from gpt_jax.published.runs.build import as_csv, build
from gpt_jax.published.runs.entries import ENTRIES
from gpt_jax.published.runs.entry import (
    FILE,
    NOT_SEEN,
    NOT_STATED,
    File,
    Form,
    Number,
    RunsEntry,
    Value,
    product,
    register,
)
from gpt_jax.published.runs.results import cell_of
from gpt_jax.published.runs.schema import FAMILIES, FIXED, RunsTable, check, text_of
from gpt_jax.scaling.table import LABELS, QUANTITIES

SEVEN = (
    "active-sl-domain-mixture",
    "active-sl-lr-bsz",
    "active-sl-moe",
    "clark2022",
    "multi-power-law",
    "olmo-ladder",
    "steplaw",
)


@pytest.fixture
def tables(shared_data: Path) -> Path:
    """Copies of the seven tables; a skip where there are none."""
    folder = shared_data / "runs"
    if not folder.is_dir():
        pytest.skip(f"no tables of runs at {folder}")
    return folder


def made_up(url: str | None = None, sha256: str | None = None) -> RunsEntry:
    """An entry of two runs."""
    return RunsEntry(
        name="made-up",
        title="two runs",
        authors="nobody",
        paper="0000.00000",
        licence=NOT_STATED,
        repository="nobody/nothing",
        commit="0" * 40,
        forms=(
            Form(
                (File("made_up.csv", url, sha256),),
                {
                    "run": "id",
                    "n_params": "size",
                    "n_tokens": product("steps", "batch", times=10),
                    "loss": "loss",
                    "score_piqa": "piqa",
                },
            ),
        ),
        constants={"convention": "none", "corpus": "c"},
        rows=2,
        verified="by this test",
        no_check="there is none",
    )


TEXT = "id,size,steps,batch,loss,piqa\na,1e3,2,3,2.50,0.5\nb,2e3,4,,nan,0.25\n"


@pytest.fixture
def served(tmp_path):
    """A folder and the address at which it is served; `requests` counts what was asked for."""
    folder = tmp_path / "served"
    folder.mkdir()

    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(folder))

        def do_GET(self):
            asked.append(self.path)
            super().do_GET()

        def log_message(self, format, *values):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()
        thread.join()


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_entries_are_complete():
    assert set(SEVEN) <= set(ENTRIES)
    for name, entry in ENTRIES.items():
        assert name == entry.name
        assert entry.title
        assert entry.authors
        assert entry.licence
        assert entry.verified
        year, number = entry.paper.split(".")
        assert len(year) == 4
        assert number.isdigit()
        assert set(entry.commit) <= set("0123456789abcdef")
        assert len(entry.commit) in (7, 40)
        assert entry.repository.count("/") == 1
        assert "convention" in entry.constants
        assert bool(entry.checks) != bool(entry.no_check), "a fit, or why there is none"
        for form in entry.forms:
            for file in form.files:
                assert file.sha256 is None or len(file.sha256) == 64
                if file.url is not None:
                    assert entry.repository in file.url
                    assert entry.commit in file.url


def test_published_numbers_are_decimals_and_commands_name_the_table():
    for entry in ENTRIES.values():
        for one in entry.checks:
            assert one.where
            for command in one.commands:
                assert command[0] == "fit"
                assert "TABLE" in command
            for number in one.numbers:
                assert math.isfinite(Decimal(number.printed))


def test_columns_of_the_schema_are_those_that_fit_reads():
    shared = {"n_params", "n_tokens", "flops", "loss", "learning_rate", "batch_tokens", "n_experts"}
    shared |= {"n_params_total", "n_params_non_vocab", "n_params_vocab", "unique_tokens"}
    assert shared | {"unigram_normalised_loss"} <= set(QUANTITIES) & set(FIXED)
    assert {"run", "corpus", "tokenizer", "convention", "vocab_size", "seed"} <= set(LABELS)
    for entry in ENTRIES.values():
        for form in entry.forms:
            if not callable(form.columns):
                for column in [*form.columns, *entry.constants]:
                    assert column in FIXED or column.startswith(tuple(FAMILIES)), column


def test_a_table_is_mapped_and_keeps_the_authors_digits(tmp_path):
    path = tmp_path / "made_up.csv"
    path.write_text(TEXT)
    entry = made_up()
    table = build(entry, entry.forms[0], [path])
    rows = list(csv.DictReader(as_csv(table).splitlines()))
    assert rows[0] == {
        "run": "a", "n_params": "1e3", "n_tokens": "60", "loss": "2.50", "corpus": "c",
        "convention": "none", "score_piqa": "0.5",
    }  # fmt: skip
    assert rows[1]["n_tokens"] == rows[1]["loss"] == "", "what is missing stays missing"


@pytest.mark.parametrize(
    ("columns", "row", "message"),
    [
        (("run", "convention", "loss", "speed"), ("a", "c", "1", "2"), "no column speed"),
        (("run", "loss"), ("a", "1"), "lacks convention"),
        (("run", "convention", "loss"), ("a", "c", "x"), "row 1, column loss: 'x'"),
        (("run", "convention", "loss"), ("a", "c", ""), "row 1: neither"),
        (("run", "convention", "loss"), ("", "c", "1"), "row 1: no run"),
    ],
)
def test_what_is_not_in_the_schema_is_named(columns, row, message):
    with pytest.raises(ValueError, match=message):
        check(RunsTable(columns, (row,)), "t")


def test_cells_are_written_so_that_numbers_come_back():
    for value in (0.1, 1e300, 3.0, 2**53 + 0.0, -7, 1.7e-9):
        assert float(text_of(value)) == value
    assert [text_of(value) for value in (None, math.nan, math.inf, " NaN ", "2.50")] == [
        "", "", "", "", "2.50",
    ]  # fmt: skip


def test_another_file_is_refused_by_the_column_it_lacks(tmp_path):
    path = tmp_path / "made_up.csv"
    path.write_text(TEXT.replace("size", "width"))
    entry = made_up()
    with pytest.raises(ValueError, match=r"no column 'size' \(our n_params\)"):
        build(entry, entry.forms[0], [path])


def test_a_right_digest_is_downloaded_once(served, tmp_path):
    folder, address, requests = served
    (folder / "t.csv").write_text(TEXT)
    entry = made_up(f"{address}/t.csv", digest(TEXT))
    said: list[str] = []
    for _ in range(2):
        found = fetch.find(entry, None, tmp_path / "cache", said.append)
        assert found.paths[0].read_text() == TEXT
    assert len(requests) == 1
    assert not said
    assert not list((tmp_path / "cache").rglob("*.part"))


def test_a_wrong_digest_is_named_and_refused(served, tmp_path):
    folder, address, _ = served
    (folder / "t.csv").write_text(TEXT + "c,3e3,1,1,2.0,0.1\n")
    entry = made_up(f"{address}/t.csv", digest(TEXT))
    with pytest.raises(ValueError, match=f"refused, SHA-256 is [0-9a-f]+ and not {digest(TEXT)}"):
        fetch.find(entry, None, tmp_path / "cache", print)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_an_unknown_digest_is_trusted_once_and_then_held(served, tmp_path):
    folder, address, requests = served
    (folder / "t.csv").write_text(TEXT)
    entry = made_up(f"{address}/t.csv")
    said: list[str] = []
    cache = tmp_path / "cache"
    path = fetch.find(entry, None, cache, said.append).paths[0]
    assert said == [
        f"made_up.csv: trusted on first use, SHA-256 {digest(TEXT)} "
        f"(kept in {cache / 'made-up' / fetch.DIGESTS})"
    ]
    path.write_text("damaged")
    assert fetch.find(entry, None, cache, said.append).paths[0].read_text() == TEXT
    assert len(requests) == 2
    assert len(said) == 1
    path.unlink()
    (folder / "t.csv").write_text("another table")
    with pytest.raises(ValueError, match="refused"):
        fetch.find(entry, None, cache, said.append)
    assert not path.exists()


def test_a_table_that_is_not_there_is_one_line(served, tmp_path):
    _, address, _ = served
    entry = made_up(f"{address}/none.csv")
    with pytest.raises(ValueError, match=r"cannot download .*none.csv: 404.*--from DIR"):
        fetch.find(entry, None, tmp_path / "cache", print)


def test_without_pooch_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    entry = made_up("http://127.0.0.1:9/t.csv")
    with pytest.raises(ValueError, match=r"pip install 'gpt-jax\[runs\]'"):
        fetch.find(entry, None, tmp_path / "cache", print)


def test_a_folder_is_checked_as_a_download_is(tmp_path):
    entry = made_up(sha256=digest("other"))
    with pytest.raises(ValueError, match=r"needs made_up.csv there"):
        fetch.find(entry, tmp_path, tmp_path, print)
    with pytest.raises(ValueError, match="has no address"):
        fetch.find(entry, None, tmp_path, print)
    (tmp_path / "made_up.csv").write_text(TEXT)
    with pytest.raises(ValueError, match="refused"):
        fetch.find(entry, tmp_path, tmp_path, print)


def test_verdicts_are_those_of_published_tables():
    def said(printed: str, value: Value, computed: bool = False) -> str:
        return cell_of(Number("x", printed, lambda documents: value, computed), []).verdict

    assert said(".34", Value(0.344), computed=True) == "matches (+-0.005)"
    assert said(".34", Value(0.35, (0.33, 0.37))) == "agrees within 8.8%"
    assert said(".34", Value(0.35, (0.1, 0.7))).startswith("inside our interval")
    assert said(".34", Value(0.5, (0.4, 0.6))) == "differs by +47.1%"
    assert "no interval" in said(".34", Value(0.35))


def test_a_name_of_ones_own_is_not_given_twice():
    entry = next(iter(ENTRIES.values()))
    register(entry)
    with pytest.raises(ValueError, match="known already"):
        register(replace(entry, title="another"))


def test_the_list_aligns_and_says_what_is_known(tmp_path, capsys):
    assert main(["runs", "list", "--json", str(tmp_path / "list.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(ENTRIES)
    start = lines[0].index("what")
    assert all(line[start - 2 : start] == "  " and line[start] != " " for line in lines)
    document = json.loads((tmp_path / "list.json").read_text())
    assert [one["name"] for one in document] == list(ENTRIES)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["get", "clark2020"], "no table of runs 'clark2020'.*did you mean 'clark2022'"),
        (["get", "clark2022", "--from", "/nowhere"], "--from /nowhere: no such folder"),
        (["get", "clark2022", "--out", "x.json"], "let its name end with .csv"),
        (["verify", "clark2022", "--downloaded"], "--downloaded belongs to `verify all`"),
    ],
)
def test_mistakes_are_one_line(words, message, capsys):
    assert main(["runs", *words]) == 2
    _, error = capsys.readouterr()
    assert len(error.splitlines()) == 1
    assert re.search(message, error), error


@pytest.mark.parametrize("name", SEVEN)
def test_the_seven_tables_come_out_in_the_schema(name, tables, tmp_path, capsys):
    out = tmp_path / "t.csv"
    assert main(["runs", "get", name, "--from", str(tables), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    entry = ENTRIES[name]
    rows = list(csv.DictReader(out.open()))
    assert len(rows) == entry.rows
    assert f"{entry.rows:,} rows" in said
    assert all(row["convention"] == entry.constants["convention"] for row in rows)
    if entry.licence in (NOT_STATED, NOT_SEEN):
        assert "licence: none stated" in said
    else:
        assert f"licence: {entry.licence}" in said
    for suffix in entry.files:
        assert out.with_suffix(suffix).is_file()


def test_published_numbers_come_out(tables, tmp_path, capsys):
    """Step Law's batch law, and the R2 of the experts' pool: quick ones; `slow` has the others."""
    path = tmp_path / "v.json"
    for name in ("steplaw", "active-sl-moe"):
        assert main(["runs", "verify", name, "--from", str(tables), "--json", str(path)]) == 0
        (document,) = json.loads(path.read_text())
        cells = {cell["name"]: cell for cell in document["checks"][0]["numbers"]}
        if name == "steplaw":
            assert cells["batch, exponent of D"]["verdict"] == "agrees within 13%"
            assert cells["learning, exponent of D"]["verdict"].startswith("differs by -32")
        else:
            assert 0.65 < float(cells["R2 in the target region"]["ours"]) < 0.75
    assert "gpt-jax fit hyperparameters steplaw.csv" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", SEVEN)
def test_all_seven_are_verified(name, tables, tmp_path):
    path = tmp_path / "v.json"
    assert main(["runs", "verify", name, "--from", str(tables), "--json", str(path)]) == 0
    (document,) = json.loads(path.read_text())
    cells = [cell for check in document["checks"] for cell in check["numbers"]]
    verdicts = {cell["name"]: cell["verdict"] for cell in cells}
    if name == "olmo-ladder":
        assert all(verdict.startswith("matches") for verdict in verdicts.values())
        assert len(verdicts) == 16
    if name == "clark2022":
        held = ("agrees", "inside our interval")
        assert all(cell["verdict"].startswith(held) for cell in cells)
        assert len(cells) == 18
    if name == "multi-power-law":
        worst = [float(c["ours"]) for c in cells if c["name"].startswith("worst")]
        assert np.all(np.array(worst) < (0.409, 0.583))


def test_files_know_the_one_they_came_from(tmp_path):
    for split in ("train", "test"):
        (tmp_path / f"{split}.csv").write_text("loss\n1.5\n")
    form = Form(
        (File("train.csv"), File("test.csv")), {"run": lambda record: record[FILE], "loss": "loss"}
    )
    entry = replace(made_up(), forms=(form,))
    table = build(entry, form, [tmp_path / "train.csv", tmp_path / "test.csv"])
    assert [row[0] for row in table.rows] == ["train.csv", "test.csv"]
