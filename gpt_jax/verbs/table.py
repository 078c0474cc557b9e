"""`gpt-jax table NAME`: a paper's table beside ours. Must not import jax."""

import argparse
from pathlib import Path

DESCRIPTION = """\
A paper's table beside what this code computes or measured. A number that can be computed matches
(within the rounding that is printed) or differs by x. A number that was fitted agrees within x%
(all of our 95% interval lies so near, at most 20%, and the fit has no warning), lies inside our
interval but that is too wide or the fit too doubtful to tell, or differs by x. Others are not
comparable because of something said. Without a name: the tables there are, each with its state
(reproduced here, at small scale here, or ready to run) and its folder.
"""
EPILOG = """\
your own exponents beside a paper's:
  gpt-jax fit runs.csv --law chinchilla-isoflop,chinchilla-parametric --json fits.json
  gpt-jax table chinchilla-table-2 --fits fits.json
  gpt-jax table gpt2-table-3 --results runs/gpt2      # what gpt-jax eval scored
  gpt-jax table chinchilla-table-2 --runs runs.csv    # fits what the table needs by itself
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `gpt-jax table`."""
    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("name", nargs="?", help="chinchilla-table-2, gpt3-table-d1, ...")
    ours = parser.add_mutually_exclusive_group()
    ours.add_argument("--fits", metavar="JSON", help="our fits, from `gpt-jax fit --json`")
    ours.add_argument("--runs", metavar="CSV", help="our runs, fitted as `gpt-jax fit` does")
    ours.add_argument(
        "--results",
        action="append",
        default=[],
        metavar="RUN",
        help="a run that `gpt-jax eval` has scored, or a results.json; may be given several times",
    )
    parser.add_argument(
        "--columns",
        action="append",
        default=[],
        metavar="NAME=COLUMN[,...]",
        help="with --runs: which column is n_params, n_tokens, flops, loss, run, ...",
    )
    parser.add_argument("--markdown", action="store_true", help="print it as Markdown")
    parser.add_argument("--json", metavar="OUT", help="write the comparison to this file")


def run(arguments: argparse.Namespace) -> int:
    """Print the comparison; raises ValueError for a user's mistake."""
    from gpt_jax.published import fits, tables
    from gpt_jax.published.compare import markdown, text
    from gpt_jax.published.scores import read_scored
    from gpt_jax.scaling.arguments import pairs
    from gpt_jax.storage.atomic import write_json

    if arguments.name is None:
        print(tables.listing())
        return 0
    table = tables.find_table(arguments.name)
    if (arguments.fits or arguments.runs) and not table.laws:
        raise ValueError(f"{arguments.name} compares no fits; leave --fits and --runs out")
    if arguments.columns and not arguments.runs:
        raise ValueError("--columns names columns of --runs, which is not given")
    ours = fits.Fits()
    if arguments.fits:
        ours = fits.read_fits(Path(arguments.fits))
    elif arguments.runs:
        columns = pairs("--columns", ",".join(arguments.columns))
        ours = fits.fit_runs(Path(arguments.runs), columns, table.laws)
    scored = [read_scored(path) for path in arguments.results]
    comparison = tables.build_table(arguments.name, ours, scored)
    print(markdown(comparison) if arguments.markdown else text(comparison))
    if arguments.json:
        write_json(Path(arguments.json), tables.to_json(comparison))
    return 0
