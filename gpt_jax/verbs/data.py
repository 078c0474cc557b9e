"""`gpt-jax data clean`, `data build` and `data inspect`: the command line of `gpt_jax.data`.

Must not import jax.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt_jax import pasting
from gpt_jax.config import Config, DataConfig
from gpt_jax.config.overrides import fields, load, override
from gpt_jax.config.wording import describe
from gpt_jax.data.build import build
from gpt_jax.data.corpora import prepare
from gpt_jax.data.finished import say_lines
from gpt_jax.data.shards import Corpus

if TYPE_CHECKING:
    from gpt_jax.data.cleaning.clean import Counts

FIELDS = (
    "source",
    "path",
    "field",
    "tokenizer",
    "tokenizer_path",
    "validation",
    "validation_fraction",
    "named_splits",
    "max_expansion",
    "cache",
)
SOURCE_FIELDS = ("source", "path", "field", "named_splits", "max_expansion")
"""Those that decide which documents are read."""
FIRST_TOKENS = 24


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares both sub-commands on the parser of `gpt-jax data`."""
    verbs = parser.add_subparsers(dest="data_verb", required=True, metavar="clean|build|inspect")
    _add_clean(verbs)
    building = verbs.add_parser(
        "build",
        help="text -> token shards with a manifest",
        description="Tokenizes a source into memory-mapped shards. Started again after an "
        "interruption, it continues; what is already there is not made again.",
    )
    _add_fields(building, FIELDS)
    building.add_argument("--config", help="take the data section of an experiment's config file")
    building.add_argument("--output", help="directory to build in; default: a place in the cache")
    building.add_argument("--workers", type=int, help="threads that tokenize; default: one a core")
    inspecting = verbs.add_parser(
        "inspect",
        help="what a directory of shards holds",
        description="Shows counts, the tokenizer and the first tokens, and checks every hash.",
    )
    inspecting.add_argument("directory", help="made by `gpt-jax data build`")
    inspecting.add_argument("--no-verify", action="store_true", help="do not read all hashes")


def _add_fields(parser: argparse.ArgumentParser, names: Sequence[str]) -> None:
    """Options for fields of the section `data`."""
    known = fields()
    for name in names:
        info = known[f"data.{name}"]
        default = f"; default {info.default}" if info.default != "" else ""
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            dest=name,
            metavar=name.split("_")[-1].upper(),
            help=f"{info.description} ({describe(info.annotation)}{default})".replace("%", "%%"),
        )


def _add_clean(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    from gpt_jax.data.cleaning.rules import RULES

    parser = verbs.add_parser(
        "clean",
        help="text -> cleaned documents, with a report of what was removed and why",
        description="Writes the documents that are kept as JSON lines to OUTPUT/documents, names "
        "and reasons of the others to OUTPUT/removed, and OUTPUT/report.json. Started again after "
        "an interruption, it continues.",
        epilog="rules:\n"
        + "\n".join(f"  {r.name}: {r.summary} ({r.source})" for r in RULES.values()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_fields(parser, SOURCE_FIELDS)
    parser.add_argument("--output", required=True, help="directory to write to")
    parser.add_argument("--workers", type=int, help="processes; default: one a core")
    parser.add_argument(
        "--repair", action="store_true", help="mend text that was decoded wrongly (ftfy)"
    )
    parser.add_argument(
        "--unicode", choices=("nfc", "nfkc", "none"), default="nfc", help="normal form; default nfc"
    )
    parser.add_argument(
        "--languages", metavar="CODES", help="languages to keep, such as en,de; default all"
    )
    parser.add_argument("--rules", metavar="NAMES", help=f"of {', '.join(RULES)}; default none")
    parser.add_argument(
        "--personal",
        choices=("keep", "redact", "remove"),
        default="keep",
        help="e-mail addresses, telephone, card and account numbers, IPv4 addresses: replaced by "
        "[email] and the like, or their documents removed; default keep",
    )
    parser.add_argument(
        "--duplicates",
        metavar="KINDS",
        default="exact",
        help="copies to remove: exact, near (MinHash), none; default exact",
    )
    parser.add_argument(
        "--near-threshold",
        type=float,
        default=0.8,
        metavar="J",
        help="Jaccard similarity of word 5-grams from which on a document is a near copy; "
        "default 0.8",
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the sub-command that was parsed. Raises ValueError for a mistake of the user."""
    commands = {"clean": clean_command, "build": build_command, "inspect": inspect_command}
    return commands[arguments.data_verb](arguments)


def clean_command(arguments: argparse.Namespace) -> int:
    """Cleans a source and shows what was removed."""
    from gpt_jax.data.cleaning.clean import DOCUMENTS, REPORT, clean
    from gpt_jax.data.cleaning.judge import Steps
    from gpt_jax.data.sources import open_source

    _check_workers(arguments.workers)
    steps = Steps(
        repair=arguments.repair,
        unicode=arguments.unicode,
        languages=_listed(arguments.languages),
        rules=_listed(arguments.rules),
        personal=arguments.personal,
        duplicates=() if arguments.duplicates == "none" else _listed(arguments.duplicates),
        near_threshold=arguments.near_threshold,
    )
    source = open_source(_data_config(arguments))
    directory = Path(arguments.output)
    counts = clean(source, steps, directory, workers=arguments.workers)
    say_lines(*source.notes)
    _show_cleaned(counts)
    documents = directory / DOCUMENTS
    print(f"report: {directory / REPORT}")
    build = ("data", "build", "--source", "jsonl", "--path", documents, "--output", "corpora/mine")
    print(pasting.shown([(pasting.command(*build), "make token shards of them")]))
    return 0


def _check_workers(given: int | None) -> None:
    if given is not None and given < 1:
        raise ValueError(f"--workers {given}; allowed: 1 or more")


def _listed(given: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in given.split(",")) if given else ()


def _show_cleaned(counts: "Counts") -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("documents", title=None)
    for heading in ("number", "share", "first"):
        table.add_column(heading, justify="left" if heading == "first" else "right")
    total = counts.n_documents

    def row(what: str, n: int, first: str = "") -> None:
        table.add_row(escape(what), f"{n:,}", f"{n / total:.2%}" if total else "", escape(first))

    row("read", total)
    for reason, n in counts.reasons.most_common():
        row(f"removed: {reason}", n, counts.examples[reason][0][0])
    for step, n in counts.changes.most_common():
        row(f"changed: {step}", n)
    row("kept", counts.n_kept)
    Console(highlight=False).print(table)
    share = f" ({counts.n_kept_bytes / counts.n_bytes:.1%})" if counts.n_bytes else ""
    print(f"{counts.n_kept_bytes:,} of {counts.n_bytes:,} bytes of text are kept{share}")


def build_command(arguments: argparse.Namespace) -> int:
    """Builds a corpus and shows what is in it."""
    config = _data_config(arguments)
    _check_workers(arguments.workers)
    if arguments.output:
        corpus = build(config, arguments.output, workers=arguments.workers)
    else:
        corpus = prepare(config, workers=arguments.workers)
    _show(corpus, verified=False)
    return 0


def inspect_command(arguments: argparse.Namespace) -> int:
    """Shows a corpus, every hash checked."""
    _show(
        Corpus(arguments.directory, verify=not arguments.no_verify),
        verified=not arguments.no_verify,
    )
    return 0


def _data_config(arguments: argparse.Namespace) -> DataConfig:
    given: dict[str, Any] = vars(arguments)
    changes = {f"data.{name}": given[name] for name in FIELDS if given.get(name) is not None}
    if given.get("config"):
        return load(arguments.config, changes).data
    return override(Config(), changes).data


def _show(corpus: Corpus, verified: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    manifest = corpus.manifest
    tokenizer = manifest["tokenizer"]
    facts = {
        "directory": str(corpus.directory),
        "source": manifest["source"]["description"],
        "tokenizer": f"{tokenizer['name']}, {tokenizer['vocab_size']:,} tokens, end of text "
        f"{'none' if tokenizer['end_of_text'] is None else tokenizer['end_of_text']}",
        "dtype": manifest["dtype"],
        "fingerprint": corpus.fingerprint,
        "hashes": "all match" if verified else "not checked (gpt-jax data inspect does)",
    }
    for name, fact in facts.items():
        console.print(f"{name:<12} {fact}", markup=False, soft_wrap=True)
    table = Table("split", title=None)
    for heading in ("documents", "tokens", "bytes", "bytes/token", "shards"):
        table.add_column(heading, justify="right")
    for name, split in manifest["splits"].items():
        counts = [split["n_documents"], split["n_tokens"], split["n_bytes"]]
        ratio = f"{split['n_bytes'] / split['n_tokens']:.3f}" if split["n_tokens"] else "none"
        table.add_row(name, *(f"{n:,}" for n in counts), ratio, f"{len(split['shards']):,}")
    console.print(table)
    train = corpus.split("train")
    first = train.read(0, min(FIRST_TOKENS, train.n_tokens))
    console.print(f"train begins {first.tolist()}", markup=False, soft_wrap=True)
    console.print(
        f"       that is {corpus.tokenizer.decode(first)!r}", markup=False, soft_wrap=True
    )
