"""`gpt-jax data build` and `gpt-jax data inspect`: the command line of this package.

Must not import jax.
"""

import argparse
from typing import Any

from gpt_jax.config import Config, DataConfig
from gpt_jax.config.notation import describe
from gpt_jax.config.overrides import fields, load, override
from gpt_jax.data.build import build
from gpt_jax.data.corpora import prepare
from gpt_jax.data.shards import Corpus

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
FIRST_TOKENS = 24


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares both sub-commands on the parser of `gpt-jax data`."""
    verbs = parser.add_subparsers(dest="data_verb", required=True, metavar="build|inspect")
    building = verbs.add_parser(
        "build",
        help="text -> token shards with a manifest",
        description="Tokenizes a source into memory-mapped shards. Started again after an "
        "interruption, it continues; what is already there is not made again.",
    )
    known = fields()
    for name in FIELDS:
        info = known[f"data.{name}"]
        default = f"; default {info.default}" if info.default != "" else ""
        building.add_argument(
            f"--{name.replace('_', '-')}",
            dest=name,
            metavar=name.split("_")[-1].upper(),
            help=f"{info.description} ({describe(info.annotation)}{default})".replace("%", "%%"),
        )
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


def run(arguments: argparse.Namespace) -> int:
    """Runs the sub-command that was parsed. Raises ValueError for a mistake of the user."""
    if arguments.data_verb == "build":
        return build_command(arguments)
    return inspect_command(arguments)


def build_command(arguments: argparse.Namespace) -> int:
    """Builds a corpus and shows what is in it."""
    config = _data_config(arguments)
    if arguments.workers is not None and arguments.workers < 1:
        raise ValueError(f"--workers {arguments.workers}; allowed: 1 or more")
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
    changes = {f"data.{name}": given[name] for name in FIELDS if given[name] is not None}
    if arguments.config:
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
