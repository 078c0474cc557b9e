"""`gpt-jax sweep plan|run|status|report SWEEP`: picks the sub-verb and imports only what it needs.

Must not import jax.
"""

import argparse
import importlib

SUB_VERBS = {
    "plan": ("gpt_jax.sweep.plan", "the whole grid as a table, before anything runs"),
    "run": ("gpt_jax.sweep.launch", "run what is missing, by any number of workers"),
    "status": ("gpt_jax.sweep.status", "the state of every trial"),
    "report": ("gpt_jax.sweep.report", "runs.csv, figures, fits and a page of them"),
}
"""Sub-verb -> module with `add_arguments(parser)` and `run(arguments)`, one line of help."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="sweep_verb", required=True, metavar="|".join(SUB_VERBS))
    for name, (module, summary) in SUB_VERBS.items():
        sub = verbs.add_parser(name, help=summary, description=summary)
        sub.formatter_class = argparse.RawDescriptionHelpFormatter
        sub.add_argument("sweep", metavar="SWEEP", help="a file with get_sweep(): a list of trials")
        sub.add_argument("--workdir", help="the sweep's directory (default: runs/NAME)")
        importlib.import_module(module).add_arguments(sub)
    parser.set_defaults(takes_overrides=True)


def run(arguments: argparse.Namespace) -> int:
    module, _ = SUB_VERBS[arguments.sweep_verb]
    return int(importlib.import_module(module).run(arguments))
