"""`gpt-jax sweep plan|run|status|report SWEEP`: picks the sub-verb and imports only what it needs.

Must not import jax.
"""

import argparse
import importlib
from collections.abc import Sequence
from typing import Any

SUB_VERBS = {
    "plan": ("gpt_jax.sweep.plan", "the whole grid as a table, before anything runs"),
    "run": ("gpt_jax.sweep.launch", "run what is missing, by any number of workers"),
    "status": ("gpt_jax.sweep.status", "the state of every trial"),
    "report": ("gpt_jax.sweep.report", "runs.csv, figures, fits and a page of them"),
}
"""Sub-verb -> module with `add_arguments(parser)` and `run(arguments)`, one line of help."""


class SubVerbParser(argparse.ArgumentParser):
    """A parser that imports the module with its arguments when it is chosen, not before."""

    module = ""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        importlib.import_module(self.module).add_arguments(self)
        return super().parse_known_args(args, namespace)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(
        dest="sweep_verb",
        required=True,
        metavar="|".join(SUB_VERBS),
        parser_class=SubVerbParser,
    )
    for name, (module, summary) in SUB_VERBS.items():
        sub = verbs.add_parser(name, help=summary, description=summary)
        sub.module = module
        sub.formatter_class = argparse.RawDescriptionHelpFormatter
        sub.add_argument("sweep", metavar="SWEEP", help="a file with get_sweep(): a list of trials")
        sub.add_argument("--workdir", help="the sweep's directory (default: runs/NAME)")
    parser.set_defaults(takes_overrides=True)


def run(arguments: argparse.Namespace) -> int:
    module, _ = SUB_VERBS[arguments.sweep_verb]
    return int(importlib.import_module(module).run(arguments))
