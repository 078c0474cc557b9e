"""Tables of README files from the commands that print them.

    python tools/readme_tables.py [README.md ...]            runs the commands, writes the files
    python tools/readme_tables.py --check [README.md ...]    only says which are not up to date

Without files: every README.md of experiments/. In a file, what a command prints stands between

    <!-- gpt-jax table gpt3-table-d1 --markdown -->
    <!-- end -->

The command is `gpt-jax ...`, `python experiments/...` or `python tools/...`, run at the root of the
checkout.
"""

import argparse
import contextlib
import difflib
import io
import os
import re
import runpy
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from gpt_jax.cli import main as gpt_jax

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(
    r"(?P<begin><!-- (?P<command>(?:gpt-jax|python (?:experiments|tools)/)[^\n]*) -->\n)"
    r"(?P<printed>.*?)(?P<end><!-- end -->)",
    re.DOTALL,
)


def commands(text: str) -> Iterator[tuple[str, str]]:
    """(command, what the text says that it prints) of each block."""
    for found in BLOCK.finditer(text):
        yield found["command"], found["printed"]


def printed(command: str) -> str:
    """What a command prints, run in this process; raises ValueError if it fails."""
    program, *arguments = shlex.split(command)
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.chdir(ROOT):
        status = gpt_jax(arguments) if program == "gpt-jax" else _script(arguments)
    if status:
        raise ValueError(f"{command}: exit status {status}")
    text = output.getvalue().rstrip() + "\n"
    is_plain = program == "gpt-jax" and arguments[0] in ("plan", "fit")
    return f"```\n{text}```\n" if is_plain else text


def _script(arguments: Sequence[str]) -> object:
    """A Python file as if from the command line; its exit status."""
    kept_argv, kept_path = sys.argv, list(sys.path)
    sys.argv = list(arguments)
    sys.path.insert(0, str(Path(arguments[0]).resolve().parent))
    try:
        runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as error:
        return error.code
    finally:
        sys.argv, sys.path[:] = kept_argv, kept_path
    return 0


def updated(text: str) -> str:
    """The text with every block as its command prints it."""
    return BLOCK.sub(lambda m: m["begin"] + printed(m["command"]) + m["end"], text)


def main(argv: Sequence[str] | None = None) -> int:
    """1 if --check finds a file that is not up to date."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args(argv)
    files = given.files or sorted((ROOT / "experiments").glob("*/README.md"))
    status = 0
    for path in files:
        before = path.read_text()
        after = updated(before)
        if before == after:
            continue
        if given.check:
            lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
            print(f"{path} is not what its commands print:", *lines, sep="\n")
            status = 1
        else:
            path.write_text(after)
            print(f"{os.path.relpath(path)}: written")
    return status


if __name__ == "__main__":
    sys.exit(main())
