"""`gpt-jax fit RUNS.csv --law LAW`: the command line of the scaling laws.

Importing this module is quick: numpy and the rest are imported when a fit is run. Must not import
jax.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from gpt_jax.scaling import fit_arguments
from gpt_jax.scaling.arguments import names, pairs, positive
from gpt_jax.scaling.entries import LAWS, LawEntry

if TYPE_CHECKING:
    from gpt_jax.scaling.table import RunTable

DESCRIPTION = """\
Fit scaling laws to a table of runs. Any CSV with a header line serves: loss, and two of n_params,
n_tokens and flops (the third is C = 6 N D).
"""
EPILOG = """\
examples:
  gpt-jax fit runs.csv --law chinchilla-parametric --compute 1e21
  gpt-jax fit runs.csv --law chinchilla-envelope,chinchilla-isoflop,chinchilla-parametric \\
      --plots figures --json fits.json
  gpt-jax fit other.csv --law kaplan-n --columns n_params=size,loss=val_loss
  gpt-jax fit tuned.csv --law chinchilla-isoflop --best-over learning_rate
  gpt-jax fit runs.csv --law chinchilla-parametric --fix E=1.69 --tie alpha=beta
  gpt-jax fit runs.csv --formula 'E + A*N**-alpha' --params 'A>0,alpha>0,E>0'
  gpt-jax fit runs.csv --law chinchilla-parametric --where 'n_params < 1e9'
  gpt-jax fit both.csv --law chinchilla-parametric --group corpus --shared alpha,beta
scores of tasks, loss curves, grids of hyperparameters and mixtures of domains:
  gpt-jax fit chain --help    # likewise curve, hyperparameters, mixture
"""
QUESTIONS = ("compute", "target_loss", "n_params")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `gpt-jax fit`."""
    laws = "\n".join(f"  {name:22s} {entry.summary}" for name, entry in LAWS.items())
    parser.description = DESCRIPTION
    parser.epilog = f"laws:\n{laws}\n\n{EPILOG}"
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("runs", metavar="RUNS.csv", help="the table of runs")
    _add_table_arguments(parser)
    _add_fit_arguments(parser)
    fit_arguments.add_arguments(parser)
    _add_answer_arguments(parser)
    parser.add_argument("--json", metavar="OUT", help="write everything to this file")
    parser.add_argument(
        "--plots", metavar="DIR", help="draw figures (PNG and SVG) into this directory"
    )


def _add_table_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--columns",
        action="append",
        default=[],
        metavar="NAME=COLUMN[,...]",
        help="which column of the file is n_params, n_tokens, flops, loss, run, ...",
    )
    add(
        "--where",
        action="append",
        default=[],
        metavar="COLUMN=VALUE|CONDITION",
        help="COLUMN=VALUE (or =VALUE|VALUE): only rows with this text in this column; a condition "
        "such as 'n_params < 1e9 and corpus == \"c4\"': fit these rows and predict the others "
        "(several: all must hold)",
    )
    add("--drop-worst", type=int, default=0, metavar="K", help="leave out the K highest losses")
    add(
        "--best-over",
        action="append",
        default=[],
        metavar="NAME[,NAME]",
        help="only the best learning_rate (or batch_tokens, or any columns) at each N and C",
    )
    add(
        "--frontier-only",
        action="store_true",
        help="only runs that no cheaper run beats: what laws of compute alone are about",
    )


def _add_fit_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--law", action="append", default=[], metavar="NAME[,NAME]", help="see below")
    add(
        "--bootstrap",
        type=int,
        default=1000,
        metavar="N",
        help="refits to resampled runs, behind intervals and answers (default 1000; 0: profile "
        "intervals, which take scatter to be equal)",
    )
    add(
        "--window",
        type=positive,
        metavar="X",
        help="IsoFLOP: fit each budget's parabola to sizes within this factor of the best "
        "(default 3)",
    )
    add("--seed", type=int, default=0, help="of the resampling (default 0)")


def _add_answer_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--compute",
        type=positive,
        action="append",
        default=[],
        metavar="FLOPS",
        help="the best N, D and loss for this compute",
    )
    add(
        "--target-loss",
        type=positive,
        action="append",
        default=[],
        metavar="NATS",
        help="the least compute that reaches this loss",
    )
    add(
        "--n-params",
        type=positive,
        action="append",
        default=[],
        metavar="N",
        help="the compute and tokens for which this size is the best",
    )
    add(
        "--unique-tokens",
        type=positive,
        metavar="U",
        help="data-constrained: distinct tokens that the answers may repeat (default: no limit)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Fit, print, write; raises ValueError for a user's mistake."""
    from gpt_jax.scaling import report
    from gpt_jax.scaling.study import Options, make_study
    from gpt_jax.storage.atomic import write_json

    if arguments.bootstrap < 0:
        raise ValueError(f"--bootstrap {arguments.bootstrap}; allowed: 0 or more refits")
    entries = fit_arguments.find_entries(arguments)
    given = vars(arguments)
    options = Options(
        how=fit_arguments.make_how(arguments),
        n_refits=arguments.bootstrap,
        seed=arguments.seed,
        questions=tuple((question, value) for question in QUESTIONS for value in given[question]),
        unique_tokens=arguments.unique_tokens,
        window=arguments.window,
    )
    studies, not_fitted = [], {}
    for entry in entries:
        runs, held_out = _read(arguments, entry)
        try:
            studies.append(make_study(entry, runs, options, held_out))
        except ValueError as error:
            # One of several approaches may have no place in a table; a lone one is a mistake.
            not_fitted[entry.name] = str(error)
            if len(not_fitted) == len(entries):
                raise ValueError(f"{arguments.runs}: {error}") from None
            print(f"{entry.name}: not fitted: {error}")
        else:
            print(report.text(studies[-1]), flush=True)
    for warning in report.comparison_warnings(studies):
        print(f"warning: {warning}")
    if arguments.json:
        write_json(
            Path(arguments.json), report.several_to_json(studies, not_fitted), allow_nan=False
        )
    if arguments.plots:
        from gpt_jax.scaling.plots import draw_all

        for path in draw_all(studies, Path(arguments.plots)):
            print(f"drawn: {path}")
    return 0


def _read(arguments: argparse.Namespace, entry: LawEntry) -> "tuple[RunTable, RunTable | None]":
    """The runs that a law is fitted to, and those that a condition held out."""
    from gpt_jax.scaling.best import best_over
    from gpt_jax.scaling.table import QUANTITIES, drop_worst, pareto, read_runs

    columns = pairs("--columns", ",".join(arguments.columns))
    tuned = names(arguments.best_over)
    needed = [*entry.needs, *tuned, entry.target]
    extra = {name: columns.pop(name, name) for name in needed if name not in QUANTITIES}
    where, conditions = fit_arguments.split_where(arguments.where)
    runs = read_runs(
        arguments.runs,
        columns=columns | fit_arguments.extra_columns(arguments),
        where=where,
        prefer=entry.prefer,
        extra=extra,
        condition=" and ".join(conditions) if conditions else None,
    )
    if tuned:
        within = [name for name in entry.needs if name not in ("n_tokens", *tuned)]
        runs = best_over(runs, tuned, entry.target, within)
    runs, held_out = runs.split()
    runs = drop_worst(runs, arguments.drop_worst)
    return pareto(runs) if arguments.frontier_only else runs, held_out
