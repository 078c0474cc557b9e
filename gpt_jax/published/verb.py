"""`gpt-jax table NAME`: a paper's table beside ours. Must not import jax."""

import argparse
import json
import os
import sys
from pathlib import Path

DESCRIPTION = """\
A paper's table beside what this code computes or measured: every number matches, differs by x, or
is not comparable because of something said. Without a name: the tables there are.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `gpt-jax table` understands."""
    parser.description = DESCRIPTION
    parser.add_argument("name", nargs="?", help="chinchilla-table-2, gpt3-table-d1, ...")
    parser.add_argument("--fits", metavar="JSON", help="our fits, from `gpt-jax fit --json`")
    parser.add_argument("--json", metavar="OUT", help="write the comparison to this file")


def run(arguments: argparse.Namespace) -> int:
    """Print the comparison; raises ValueError for a user's mistake."""
    from gpt_jax.published import laws, tables
    from gpt_jax.published.compare import text

    if arguments.name is None:
        print("\n".join(tables.TABLES))
        return 0
    fits = laws.read_fits(Path(arguments.fits)) if arguments.fits else {}
    comparison = tables.build_table(arguments.name, fits)
    print(text(comparison))
    if arguments.json:
        path = Path(arguments.json)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(json.dumps(tables.to_json(comparison), indent=1) + "\n")
        os.replace(temporary, path)
    return 0


def main(argv: list[str] | None = None) -> int:
    """`python -m gpt_jax.published.verb ...`: the same as `gpt-jax table ...`."""
    parser = argparse.ArgumentParser(prog="gpt-jax table")
    add_arguments(parser)
    try:
        return run(parser.parse_args(argv))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
