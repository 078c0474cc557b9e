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

import pytest

from gpt_jax.cli import main
from gpt_jax.published.runs import fetch
from gpt_jax.published.runs.build import as_csv, build
from gpt_jax.published.runs.entries import ENTRIES
from gpt_jax.published.runs.entry import (
    FILE,
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
                    assert any(
                        entry.repository in url and entry.commit in url
                        for url in (file.url, *file.mirrors)
                    )


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
    entry = made_up("http://127.0.0.1:9/t.csv")
    with pytest.raises(ValueError, match=r"cannot download .*t.csv: no connection; .*--from DIR"):
        fetch.find(entry, None, tmp_path / "cache", print)


def test_several_files_are_trusted_in_one_line(served, tmp_path):
    folder, address, _ = served
    for name in ("a", "b"):
        (folder / f"{name}.csv").write_text(f"id,size,steps,batch,loss,piqa\n{name},1,1,1,2,0\n")
    entry = made_up()
    files = tuple(File(f"{name}.csv", f"{address}/{name}.csv") for name in ("a", "b"))
    entry = replace(entry, forms=(replace(entry.forms[0], files=files),))
    said: list[str] = []
    found = fetch.find(entry, None, tmp_path / "cache", said.append)
    assert len(said) == 1
    assert said[0].startswith("2 files: trusted on first use")
    assert set(fetch.read_digests(tmp_path / "cache" / "made-up")) == {"a.csv", "b.csv"}
    assert [row[0] for row in build(entry, found.form, found.paths).rows] == ["a", "b"]


def test_a_mirror_answers_where_others_do_not(served, tmp_path):
    folder, address, requests = served
    (folder / "t.csv").write_text(TEXT)
    (folder / "other.csv").write_text("other bytes")
    entry = made_up()
    mirrors = (f"{address}/other.csv", f"{address}/t.csv")
    file = File("made_up.csv", f"{address}/none.csv", digest(TEXT), mirrors)
    entry = replace(entry, forms=(replace(entry.forms[0], files=(file,)),))
    found = fetch.find(entry, None, tmp_path / "cache", print)
    assert found.paths[0].read_text() == TEXT
    assert requests == ["/none.csv", "/other.csv", "/t.csv"]


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


def test_the_verbose_list_says_what_was_verified(capsys):
    assert main(["runs", "list", "--verbose"]) == 0
    said = capsys.readouterr().out
    for entry in ENTRIES.values():
        assert f"  verified: {entry.verified}\n" in said
        assert entry.address in said


def test_get_writes_a_table_or_nothing(served, tmp_path, monkeypatch, capsys):
    folder, address, _ = served
    (folder / "t.csv").write_text(TEXT)
    out, cache = tmp_path / "t.csv", str(tmp_path / "cache")
    command = ["runs", "get", "made-up", "--out", str(out), "--cache", cache]
    monkeypatch.setitem(ENTRIES, "made-up", made_up(f"{address}/t.csv", digest("other")))
    assert main(command) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert f"not {digest('other')}" in error
    assert not out.exists()
    monkeypatch.setitem(ENTRIES, "made-up", made_up(f"{address}/t.csv", digest(TEXT)))
    assert main(command) == 0
    assert out.read_text().startswith("run,n_params,n_tokens,loss,corpus,convention,score_piqa\n")
    said = capsys.readouterr().out
    assert "licence: none stated" in said
    assert "no published fit: there is none" in said


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
    if entry.licence == NOT_STATED:
        assert "licence: none stated" in said
    else:
        assert f"licence: {entry.licence}" in said
    for suffix in entry.files:
        assert out.with_suffix(suffix).is_file()


def test_published_numbers_come_out(tables, tmp_path, capsys):
    """Step Law's batch law comes out, its rate's exponent in D not from these cells, but from those
    of another table; `slow` has the others."""
    path = tmp_path / "v.json"
    assert main(["runs", "verify", "steplaw", "--from", str(tables), "--json", str(path)]) == 0
    (document,) = json.loads(path.read_text())
    cells = {cell["name"]: cell for cell in document["checks"][0]["numbers"]}
    assert cells["by bowls: batch, exponent of D"]["verdict"] == "agrees within 13%"
    assert cells["by bowls: rate, exponent of D"]["verdict"].startswith("differs by -32")
    assert cells["by near: rate, exponent of D"]["verdict"].startswith("differs by -35")
    assert "gpt-jax fit hyperparameters steplaw.csv" in capsys.readouterr().out


POOLS = {
    "active-sl-domain-mixture": 0.662,
    "active-sl-lr-bsz": 0.763,
    "active-sl-moe": 0.703,
}
"""R2 as the front page has it."""


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
    if name in POOLS:
        assert float(cells[0]["ours"]) == pytest.approx(POOLS[name], abs=0.002)
    if name == "multi-power-law":
        worst = [float(c["ours"]) for c in cells if c["name"].startswith("worst")]
        assert worst == pytest.approx([0.301, 0.455], abs=0.002)
        short = [
            float(c["printed"]) - float(c["ours"]) for c in cells if c["name"].startswith("R2")
        ]
        assert short == pytest.approx([0.0004, 0.0004], abs=0.00006)
    if name == "steplaw":
        found = [cell["verdict"].split()[0] for cell in cells]
        assert found == ["inside", "differs", "inside", "agrees", "differs", "agrees"]
    if name == "active-sl-lr-bsz":
        assert [cell["verdict"].split()[0] for cell in cells[1:4]] == ["agrees"] * 3
        assert float(cells[2]["ours"].split()[0]) == pytest.approx(0.307, abs=0.002)


SMALL = {
    "chinchilla": {
        "svg_extracted_data.csv": "x,y,color,Model Size,Training FLOP,hex_color,loss\n"
        "1.5,2.5,#faebdd,1e9,6e19,#faebdd,2.5\n"
    },
    "clark2022": {
        "curves.csv": "hyper_id,step,router_type,num_experts,k,routing_frequency,flop_increase,"
        "d_model,num_blocks,num_heads,kqv_size,seed,total_parameter_count,dense_parameter_count,"
        "flops_per_step,model_size_label,loss_validation,loss_c4,loss_curation_corpus,"
        "loss_lambada,loss_pile,loss_wikitext103\n"
        + "".join(
            f"0,{step},Dense,1,1,0.5,1,8,2,2,4,42,1000000000,1000000000,1,1B,{loss},3,3,3,3,3\n"
            for step, loss in ((240000, 2.4), (249000, 2.5), (230000, 2.3))
        )
    },
    "gadre2024": {
        "c4_original-open_lm_1b-1.0.json": json.dumps(
            {
                "name": "c4_original-open_lm_1b-1.0",
                "dataset_name": "c4_original",
                "hyperparameters": {
                    "tokens": 1e10,
                    "params": 1e9,
                    "params_no_embed": 9e8,
                    "lr": 0.003,
                    "chinchilla_multiplier": 1.0,
                },
                "results": [
                    {"loss": 9.0, "val_data": ["a/openlm/shard_0.tar"]},
                    {"loss": 2.5, "val_data": ["a/c4_val/shard-{0..1}.tar"]},
                ],
            }
        )
    },
    "gemstones": {
        "g.jsonl": '{"run_name": "a", "width": 8, "depth": 2, "step": 0, "tokens": 0, '
        '"final_loss": 11, "params_active_precise": 1e9}\n'
        '{"run_name": "a", "width": 8, "depth": 2, "step": 10, "tokens": 1e10, '
        '"final_loss": 2.5, "params_active_precise": 1e9}\n'
    },
    "isoflops": {
        "isoflops.csv": "source,dataset,model,condition,experiment,tokens,params,budget,loss\n"
        "m,d,c,,m__d__c,1e10,1e9,6e19,2.5\n"
    },
    "muennighoff2023": {
        "fit.ipynb": json.dumps(
            {
                "cells": [
                    {"cell_type": "markdown", "source": []},
                    {
                        "cell_type": "code",
                        "outputs": [
                            {"text": ["1b25\n", "1b10b4b 1000000000.0 1e10 4e9 2.5\n"]},
                            {"text": ["1b10b4b 1000000000.0 10000000000.0 4000000000.0 2.5\n"]},
                        ],
                    },
                    {"cell_type": "code", "outputs": [{"text": ["b 1.0 2.0 3.0 4.0\n"]}]},
                ]
            }
        )
    },
    "porian2024": {
        "porian2024.csv": "row,width,depth,vocab_size,seq_len,lr,bs,beta2,seed,decay,dataset,"
        "hparams,warmup,loss\n0,1024,8,50432,2048,0.003,256,0.95,1,const,rw,tuned,short,2.5\n"
    },
    "pythia": {
        "1.4b_step1000.json": json.dumps(
            {"results": {"piqa": {"acc": 0.5, "acc_norm": 0.6}, "crows": {"pct": 1}}}
        )
    },
    "regmix": {
        "mixture.csv": "index,train_the_pile_pile_cc,train_the_pile_github\n1,0.75,0.25\n2,1,0\n",
        "loss.csv": "index,metric/the_pile_pile_cc_val_loss\n1,2.5\n",
    },
    "tao2024": {
        "exp_data.csv": "vocab_size,embed_dim,num_characters,Non_vocab_parameters,FLOPs,Lossu\n"
        "1000.0,100.0,4e10,999900000.0,6e19,-2.5\n"
    },
}
"""Small files in the form of those at the entries' addresses."""


@pytest.mark.parametrize("name", sorted(SMALL))
def test_files_at_the_addresses_are_mapped(name, tmp_path):
    entry = ENTRIES[name]
    for file, text in SMALL[name].items():
        (tmp_path / file).write_text(text)
    form = replace(entry.forms[0], files=tuple(File(file) for file in SMALL[name]))
    table = build(entry, form, [tmp_path / file for file in SMALL[name]])
    (row,) = (dict(zip(table.columns, row, strict=True)) for row in table.rows)
    size = {"porian2024": 1024 * (4 * 1024 + 3 * 2816) * 8 + 50432 * 1024, "pythia": 1414647808}
    if name != "regmix":
        assert float(row["n_params"]) == size.get(name, 1e9)
    if name not in ("clark2022", "regmix", "porian2024"):
        assert float(row["n_tokens"]) == (2097152000 if name == "pythia" else 1e10)
    if name == "pythia":
        assert row["score_piqa"] == "0.5"
        assert "score_crows" not in row
    elif name == "regmix":
        assert (row["share_pile_cc"], row["loss_pile_cc"]) == ("0.75", "2.5")
    elif name == "muennighoff2023":
        assert float(row["unique_tokens"]) == 4e9
    elif name == "tao2024":
        assert float(row["unigram_normalised_loss"]) == -2.5
        assert float(row["n_params_vocab"]) == 1e5
    else:
        assert row["loss"] == "2.5"


def test_curves_and_evaluations_take_their_names_from_files(tmp_path):
    (tmp_path / "csv_25").mkdir()
    (tmp_path / "csv_25/wsdcon_9.csv").write_text("step,lr,loss\n2176,0.0003,4.1\n")
    entry = ENTRIES["multi-power-law"]
    form = replace(entry.forms[0], files=(File("csv_25/wsdcon_9.csv"),))
    table = build(entry, form, [tmp_path / "csv_25/wsdcon_9.csv"])
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert (row["run"], row["schedule"], row["setting_size"]) == ("25M wsdcon_9", "wsdcon_9", "25")
    (tmp_path / "190M-1xC.csv").write_text(
        "_step,eval/c4_en-validation/CrossEntropyLoss,eval/downstream_bpb/piqa_val_rc_5shot_bpb,"
        "eval/downstream/piqa_val_rc_5shot_len_norm,eval/downstream_soft/piqa_soft,"
        "learning_rate_peak,batch_size_in_tokens\n200,6.08,2.1,0.5,0.6,1e-3,524288\n"
    )
    entry = ENTRIES["olmo-ladder"]
    form = replace(entry.forms[0], files=(File("190M-1xC.csv"),))
    table = build(entry, form, [tmp_path / "190M-1xC.csv"])
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert row["run"] == "190M-1xC"
    assert float(row["n_tokens"]) == 200 * 524288
    assert row["n_params"] == "190354176"
    assert row["bits_per_byte_piqa_val_rc_5shot"] == "2.1"
    assert row["score_piqa_val_rc_5shot_len_norm"] == "0.5"
    assert not [name for name in row if "soft" in name]


def test_parquet_files_are_read_with_their_split(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    for split, loss in (("train", 2.5), ("test", 2.0)):
        rows = {"group": ["g"], "dense_parameter_count": [1e8], "num_experts": [4.0]}
        parquet.write_table(
            pyarrow.table(rows | {"loss_validation": [loss]}),
            tmp_path / f"{split}-00000-of-00001.parquet",
        )
    entry = ENTRIES["active-sl-moe"]
    found = fetch.find(entry, tmp_path, tmp_path, print)
    table = build(entry, found.form, found.paths)
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert [(row["split"], row["loss"]) for row in rows] == [("train", "2.5"), ("test", "2")]


def test_files_know_the_one_they_came_from(tmp_path):
    for split in ("train", "test"):
        (tmp_path / f"{split}.csv").write_text("loss\n1.5\n")
    form = Form(
        (File("train.csv"), File("test.csv")), {"run": lambda record: record[FILE], "loss": "loss"}
    )
    entry = replace(made_up(), forms=(form,))
    table = build(entry, form, [tmp_path / "train.csv", tmp_path / "test.csv"])
    assert [row[0] for row in table.rows] == ["train.csv", "test.csv"]
