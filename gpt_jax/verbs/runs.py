"""`gpt-jax runs list|get|verify`: open tables of runs that others published, under one schema.

Imports what it needs when it is run. Must not import jax.
"""

import argparse
import contextlib
import importlib
import io
import json
import shlex
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpt_jax.published.runs.entry import Document, RunsEntry
    from gpt_jax.published.runs.fetch import Found
    from gpt_jax.published.runs.results import Checked

DESCRIPTION = """\
The field's open tables of runs: who made them, under which licence, where they lie, and which fit
was published for them. Nothing of theirs comes with gpt-jax: `get` downloads a table (pip install
'gpt-jax[runs]') or reads a folder, and writes it in one schema that `gpt-jax fit` reads.
"""
EPILOG = """\
examples:
  gpt-jax runs list
  gpt-jax runs get chinchilla --out chinchilla.csv
  gpt-jax runs get clark2022 --from ~/tables --out clark.csv
  gpt-jax runs verify clark2022 --from ~/tables
  gpt-jax runs verify all
"""
VERBS_OF_FIT = ("chain", "curve", "hyperparameters", "mixture")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `gpt-jax runs`."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|get|verify")
    listing = actions.add_parser("list", help="the tables there are")
    listing.add_argument(
        "--verbose", action="store_true", help="with address, what was verified how, and notes"
    )
    listing.add_argument("--json", metavar="OUT", help="write all that is known of them")
    getting = actions.add_parser("get", help="a table in the schema, as CSV")
    getting.add_argument("name", help="a name of `gpt-jax runs list`")
    getting.add_argument("--out", metavar="FILE.csv", help="default: NAME.csv")
    verifying = actions.add_parser("verify", help="refit, and print published beside ours")
    verifying.add_argument("name", help="a name of `gpt-jax runs list`, or all")
    verifying.add_argument("--json", metavar="OUT", help="write the numbers to this file")
    verifying.add_argument("--markdown", action="store_true", help="print tables for a README")
    verifying.add_argument(
        "--downloaded", action="store_true", help="with all: only tables that are here already"
    )
    for one in (getting, verifying):
        one.add_argument("--from", dest="folder", metavar="DIR", help="read the files there")
        one.add_argument("--cache", metavar="DIR", help="of downloads (default: the user's cache)")


def run(arguments: argparse.Namespace) -> int:
    """Print, write; raises ValueError for a user's mistake."""
    actions: dict[str, Callable[[argparse.Namespace], int]] = {
        "list": _list,
        "get": _get,
        "verify": _verify,
    }
    return actions[arguments.action](arguments)


def _list(arguments: argparse.Namespace) -> int:
    from gpt_jax.published.runs.entries import ENTRIES
    from gpt_jax.storage.atomic import write_json

    lines = [("name", "rows", "runs of", "paper", "licence", "files", "what")]
    for entry in ENTRIES.values():
        rows = "?" if entry.rows is None else f"{entry.rows:,}"
        lines.append(
            (entry.name, rows, entry.authors, entry.paper, entry.licence.partition(" (")[0],
             _had_from(entry), entry.title)
        )  # fmt: skip
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    for line in lines:
        cells = [
            f"{cell:>{width}}" if k == 1 else f"{cell:{width}}"
            for k, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
        if arguments.verbose and line[0] in ENTRIES:
            print("\n".join(f"  {text}" for text in _details(ENTRIES[line[0]])))
    if arguments.json:
        write_json(Path(arguments.json), [_described(entry) for entry in ENTRIES.values()])
    return 0


def _details(entry: "RunsEntry") -> list[str]:
    """Details that a list has no room for, a line each."""
    fit = "; ".join(dict.fromkeys(check.where for check in entry.checks)) or entry.no_check
    return [
        entry.address,
        f"published fit: {fit}",
        f"verified: {entry.verified}",
        *(f"note: {note}" for note in entry.notes),
    ]


def _had_from(entry: "RunsEntry") -> str:
    """Where the files are had from: by address, with or without a known digest, or a folder."""
    form = next((form for form in entry.forms if all(file.url for file in form.files)), None)
    if form is None:
        return "folder"
    return "digest" if all(file.sha256 for file in form.files) else "first use"


def _described(entry: "RunsEntry") -> dict[str, Any]:
    return {
        "name": entry.name,
        "title": entry.title,
        "authors": entry.authors,
        "paper": entry.paper,
        "licence": entry.licence,
        "address": entry.address,
        "rows": entry.rows,
        "files": [
            [{"name": f.name, "url": f.url, "sha256": f.sha256} for f in form.files]
            for form in entry.forms
        ],
        "checks": [
            {
                "where": check.where,
                "commands": [list(command) for command in check.commands],
                "published": {n.name: n.printed for n in check.numbers},
            }
            for check in entry.checks
        ],
        "no_check": entry.no_check,
        "verified": entry.verified,
        "notes": list(entry.notes),
    }


def _get(arguments: argparse.Namespace) -> int:
    from gpt_jax.published.runs.entries import find_entry

    entry = find_entry(arguments.name)
    out = Path(arguments.out or f"{entry.name}.csv")
    if out.suffix != ".csv":
        raise ValueError(f"--out {out}: a table is written as CSV; let its name end with .csv")
    found = _find(arguments, entry)
    _write(entry, found, out, print)
    for line in _credits(entry, found):
        print(line)
    for check in entry.checks:
        for command in check.commands:
            print(f"  {_shown(command, out)}")
    return 0


def _credits(entry: "RunsEntry", found: "Found") -> list[str]:
    """Who made the table and under which licence it may be used."""
    from gpt_jax.published.runs.entry import NOT_SEEN, NOT_STATED

    lines = [f"made by {entry.authors} (arXiv {entry.paper}); {entry.address}"]
    if entry.licence == NOT_STATED:
        lines.append("licence: none stated; ask the authors before you pass it on")
    elif entry.licence == NOT_SEEN:
        lines.append("licence: not known here; look at the address before you pass it on")
    else:
        lines.append(f"licence: {entry.licence}")
    lines += [f"note: {note}" for note in (found.form.remark, *entry.notes) if note]
    lines.append(
        "the published fit, again:" if entry.checks else f"no published fit: {entry.no_check}"
    )
    return lines


def _find(arguments: argparse.Namespace, entry: "RunsEntry") -> "Found":
    from gpt_jax.published.runs.fetch import default_cache, find

    folder = Path(arguments.folder).expanduser() if arguments.folder else None
    cache = Path(arguments.cache).expanduser() if arguments.cache else default_cache()
    return find(entry, folder, cache, print)


def _write(entry: "RunsEntry", found: "Found", out: Path, say: Callable[[str], None]) -> None:
    """The table, and what its commands need, beside each other."""
    from gpt_jax.published.runs.build import as_csv, build
    from gpt_jax.storage.atomic import write_atomically, write_json

    table = build(entry, found.form, found.paths)
    write_atomically(out, as_csv(table))
    say(f"written: {out}: {len(table.rows):,} rows, {len(table.columns)} columns")
    for suffix, content in entry.files.items():
        write_json(out.with_suffix(suffix), content)
        say(f"written: {out.with_suffix(suffix)}")


def _verify(arguments: argparse.Namespace) -> int:
    from gpt_jax.published.compare import markdown, text
    from gpt_jax.published.runs.entries import ENTRIES, find_entry
    from gpt_jax.published.runs.results import comparison, to_json
    from gpt_jax.storage.atomic import write_json

    everything = arguments.name == "all"
    if arguments.downloaded and not everything:
        raise ValueError("--downloaded belongs to `verify all`")
    entries = list(ENTRIES.values()) if everything else [find_entry(arguments.name)]
    documents, left_out = [], []
    for entry in entries:
        if not entry.checks:
            left_out.append(f"{entry.name}: no published fit to compare: {entry.no_check}")
            continue
        try:
            found = _find_here(arguments, entry) if everything else _find(arguments, entry)
        except ValueError as error:
            if not everything:
                raise
            left_out.append(f"{entry.name}: not verified: {error}")
            continue
        checked = verify(entry, found)
        table = comparison(entry, checked)
        print(markdown(table) if arguments.markdown else text(table), flush=True)
        lead, tail = ("- `", "`") if arguments.markdown else ("  ", "")
        for one in checked:
            for command in one.check.commands:
                print(f"{lead}{_shown(command, Path(f'{entry.name}.csv'))}{tail}")
        print()
        documents.append(to_json(entry, checked))
    for line in left_out:
        print(line)
    if arguments.json:
        write_json(Path(arguments.json), documents, allow_nan=False)
    return 0


def _find_here(arguments: argparse.Namespace, entry: "RunsEntry") -> "Found":
    """The files, without a download where only those at hand are wanted."""
    from gpt_jax.published.runs.fetch import available, default_cache

    cache = Path(arguments.cache).expanduser() if arguments.cache else default_cache()
    if arguments.downloaded and arguments.folder is None and not available(entry, None, cache):
        raise ValueError(f"not downloaded; `gpt-jax runs get {entry.name}` does")
    return _find(arguments, entry)


def verify(entry: "RunsEntry", found: "Found") -> "list[Checked]":
    """Run every command of the table's checks and set what comes out beside what was published."""
    from gpt_jax.published.runs.results import Checked, cell_of, filled

    checked = []
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / f"{entry.name}.csv"
        _write(entry, found, table, lambda line: None)
        for check in entry.checks:
            commands = tuple(filled(command, table) for command in check.commands)
            documents = [document_of(command, Path(folder) / "fit.json") for command in commands]
            cells = tuple(cell_of(number, documents) for number in check.numbers)
            checked.append(Checked(check, commands, cells))
    return checked


def document_of(command: Sequence[str], path: Path) -> "Document":
    """The JSON that a command of `gpt-jax fit` writes; what it prints is dropped."""
    sub = len(command) > 1 and command[1] in VERBS_OF_FIT
    name = f"gpt_jax.verbs.{'_'.join(command[:2]) if sub else command[0]}"
    module = importlib.import_module(name)
    parser = argparse.ArgumentParser(f"gpt-jax {' '.join(command[: 1 + sub])}")
    module.add_arguments(parser)
    given = parser.parse_args([*command[1 + sub :], "--json", str(path)])
    with contextlib.redirect_stdout(io.StringIO()):
        module.run(given)
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def _shown(command: Sequence[str], table: Path) -> str:
    """A command as a user would type it."""
    from gpt_jax.published.runs.results import filled

    return shlex.join(["gpt-jax", *filled(command, table)])
