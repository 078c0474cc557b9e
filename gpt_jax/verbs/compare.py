"""`gpt-jax compare A B`: two ladders of runs, how many times the compute one needs of the other's.

Imports numpy and the rest when it is run. Must not import jax.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from gpt_jax.scaling.arguments import collect, names, pairs, positive

if TYPE_CHECKING:
    from gpt_jax.scaling.table import RunTable

EPILOG = """\
examples:
  gpt-jax compare runs/baseline runs/muon --at-flops 1e20
  gpt-jax compare a.csv b.csv --metric bits_per_byte --plots figures --json compare.json
  gpt-jax compare both.csv --by optimizer=adamw,muon --at-loss 2.9
"""
METRICS = ("loss", "bits_per_byte")
FLOORS = {"shared": None, "own": "own floors", "one-multiplier": "one multiplier"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `gpt-jax compare`."""
    parser.description = (
        "Compare two ladders: how many times the compute (tokens, seconds) A needs for B's loss."
    )
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("ladders", nargs="+", metavar="A B", help="sweeps' directories or tables of runs; or one "
        "table with --by")  # fmt: skip
    add("--by", metavar="COLUMN[=A,B]", help="split one table by a column's two values")
    add("--at-loss", type=positive, metavar="LOSS", help="the loss at which to compare")
    add("--at-flops", type=positive, metavar="FLOPS", help="compare at B's loss for this compute "
        "(default: the largest that both have)")  # fmt: skip
    add("--metric", choices=METRICS, default="loss", help="bits_per_byte compares tokenizers")
    add("--columns", action="append", default=[], metavar="NAME=COLUMN[,...]",
        help="which column is flops, loss, seed, training_seconds, ...")  # fmt: skip
    add("--where", action="append", default=[], metavar="COLUMN=VALUE", help="only such rows")
    add("--floors", choices=list(FLOORS), default="shared", help="one irreducible loss (default), "
        "one of each ladder, or one multiplier for all computes")  # fmt: skip
    add("--allow", action="append", default=[], metavar="NAME[,NAME]",
        help="compare although this differs (tokenizer, corpus, convention, ...)")  # fmt: skip
    add("--json", metavar="OUT", help="write everything to this file")
    add("--plots", metavar="DIR", help="draw the figure (PNG and SVG) into this directory")


def run(arguments: argparse.Namespace) -> int:
    """Compare, print, write; raises ValueError for a user's mistake."""
    from gpt_jax.scaling.compare import compare
    from gpt_jax.scaling.compare_report import text, to_json
    from gpt_jax.scaling.rungs import check_comparable, make_ladder
    from gpt_jax.storage.atomic import write_json

    if arguments.at_loss is not None and arguments.at_flops is not None:
        raise ValueError("--at-loss and --at-flops are two targets; give one")
    a, b = (make_ladder(name, runs) for name, runs in _read(arguments))
    allow = names(arguments.allow)
    bits = arguments.metric == "bits_per_byte"
    check_comparable(a, b, bits_per_byte=bits, allow=allow)
    found = compare(
        a,
        b,
        metric=arguments.metric,
        at_loss=arguments.at_loss,
        at_flops=arguments.at_flops,
        shared=FLOORS[arguments.floors],
    )
    print(text(found))
    if allow:
        print(f"warning: compared although they may differ in {', '.join(allow)} (--allow)")
    if arguments.json:
        write_json(Path(arguments.json), to_json(found), allow_nan=False)
    if arguments.plots:
        from gpt_jax.scaling.compare_plots import draw_comparison

        for path in draw_comparison(found, Path(arguments.plots)):
            print(f"drawn: {path}")
    return 0


def _read(arguments: argparse.Namespace) -> list[tuple[str, "RunTable"]]:
    """Two named tables of runs."""
    from gpt_jax.scaling.table import read_runs

    columns = pairs("--columns", ",".join(arguments.columns))
    if arguments.metric == "bits_per_byte":
        columns.setdefault("loss", "bits_per_byte")
    where = collect("--where", arguments.where)
    if arguments.by is None:
        if len(arguments.ladders) != 2:
            raise ValueError(f"{len(arguments.ladders)} ladders given; compare takes two, or one "
                             f"table with --by COLUMN")  # fmt: skip
        found = [(_name(given), find_table(given)) for given in arguments.ladders]
        if found[0][0] == found[1][0]:
            found = [
                (given, path) for given, (_, path) in zip(arguments.ladders, found, strict=True)
            ]
        return [(name, read_runs(path, columns=columns, where=where)) for name, path in found]
    if len(arguments.ladders) != 1:
        raise ValueError("--by splits one table; give one")
    path = find_table(arguments.ladders[0])
    column, _, text = arguments.by.partition("=")
    values = [value.strip() for value in text.split(",")] if text else _values(path, column)
    if len(values) != 2:
        raise ValueError(
            f"--by {column}: {len(values)} values ({', '.join(values[:8])}); choose two with "
            f"--by {column}=A,B"
        )
    return [
        (f"{column.rsplit('.', 1)[-1]} {value}",
         read_runs(path, columns=columns, where=where | {column: value}))
        for value in values
    ]  # fmt: skip


def _values(path: Path, column: str) -> list[str]:
    """The column's values in the order of the file; raises ValueError without such a column."""
    from gpt_jax.storage import tables

    table = tables.read(path, default=".csv", skip_spaces=True)
    if column not in table.columns:
        raise ValueError(f"--by {column}: {path} has the columns {', '.join(table.columns)}")
    return list(dict.fromkeys(row[column].strip() for row in table.rows if row[column].strip()))


def find_table(given: str) -> Path:
    """The table of runs of a file or of a sweep's directory; raises ValueError without one."""
    path = Path(given)
    for table in (path, path / "report" / "runs.csv", path / "runs.csv"):
        if table.is_file():
            return table
    if (path / "sweep.json").is_file():
        raise ValueError(f"{given} has no report/runs.csv yet: gpt-jax sweep report {given}")
    raise ValueError(f"{given} is no table of runs and no sweep's directory")


def _name(given: str) -> str:
    """A short name: the file's, or the directory's of a runs.csv."""
    path = Path(given)
    if path.is_file() and path.stem == "runs":
        path = path.resolve().parent
        return path.parent.name if path.name == "report" else path.name
    return path.stem if path.is_file() else path.resolve().name
