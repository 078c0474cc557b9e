"""Options of `gpt-jax fit` that say how a law is fitted: objective and constraints.

Importing this module is quick: numpy is imported when a fit is run. Must not import jax.
"""

import argparse
import math
import re
from typing import TYPE_CHECKING

from gpt_jax.scaling.arguments import collect, names, number, pairs, positive

if TYPE_CHECKING:
    from gpt_jax.scaling.constraints import Constraints
    from gpt_jax.scaling.entry import LawEntry
    from gpt_jax.scaling.fit import How

_SELECTION = re.compile(r"[^=<>!()]*(=(?!=)[^<>]*)?$")
"""COLUMN=VALUE, or what is meant to be: no comparison and no bracket before its `=`."""
ABSOLUTE_DELTA = 1e-6
"""Huber delta that approximates absolute errors: far below any scatter of runs."""
GROUP = "group"
WEIGHT = "weight"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that `make_how` reads."""
    _add_laws(parser)
    _add_objective(parser)
    _add_constraints(parser)


def _add_laws(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--formula",
        metavar="TEXT",
        help="a law of your own: columns and parameters with + - * / ** and exp, log, sqrt, ...; "
        "N, D, C, U stand for n_params, n_tokens, flops, unique_tokens",
    )
    add(
        "--params",
        metavar="NAME[>0][,...]",
        help="the formula's parameters with their signs or limits: A>0,b<0,c,0.1<alpha<0.8",
    )
    add("--target", metavar="COLUMN", help="what the formula predicts (default loss)")
    add(
        "--extension",
        action="append",
        default=[],
        metavar="FILE",
        help="a Python file that registers laws (gpt_jax.scaling.entries.register)",
    )


def find_entries(arguments: argparse.Namespace) -> "list[LawEntry]":
    """The laws that are asked for; raises ValueError for an unknown one, or none."""
    from gpt_jax.scaling.entries import find_law

    for path in arguments.extension:
        from gpt_jax.config import extensions  # with all settings of a run, half a second

        extensions.run(path)
    found = [find_law(name) for name in names(arguments.law)]
    if arguments.formula is not None:
        found.append(_formula_entry(arguments))
    elif arguments.params is not None or arguments.target is not None:
        option = "--params" if arguments.params is not None else "--target"
        raise ValueError(f"{option} belongs to --formula, which is not given")
    if not found:
        raise ValueError("which law? --law NAME (see --help), or --formula TEXT --params NAMES")
    return found


def _formula_entry(arguments: argparse.Namespace) -> "LawEntry":
    from gpt_jax.scaling.entry import LawEntry
    from gpt_jax.scaling.formula_law import formula_law

    if arguments.params is None:
        raise ValueError("--formula: which names are parameters? --params A>0,alpha>0,E says it")
    target = arguments.target or "loss"
    law = formula_law(
        arguments.formula, arguments.params, target="L" if target == "loss" else target
    )
    return LawEntry(
        name="formula",
        kind="loss",
        summary="a formula of yours",
        source="",
        needs=law.variables,
        build=lambda centers, irreducible: law,
        target=target,
    )


def split_where(given: list[str]) -> tuple[dict[str, str], list[str]]:
    """{column: text} of COLUMN=VALUE, and the conditions."""
    plain = [text for text in given if _SELECTION.match(text)]
    return (
        collect("--where", plain),
        [text if len(given) == 1 else f"({text})" for text in given if text not in plain],
    )


def _add_objective(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--irreducible",
        choices=("yes", "no"),
        help="with or without an irreducible loss (default: as the law's source)",
    )
    add(
        "--objective",
        metavar="huber:X|l2|l1",
        help="Huber's loss with delta X, least squares, or least absolute errors (default: as the "
        "law's source)",
    )
    add("--delta", type=positive, metavar="X", help="the same as --objective huber:X; inf: l2")
    add(
        "--space",
        choices=("log", "linear"),
        help="residuals of log losses, or of losses (default: as the law's source, mostly log)",
    )
    add(
        "--asymmetry",
        type=positive,
        default=1.0,
        metavar="K",
        help="a run above the law, which may be undertuned, weighs K times less (default 1)",
    )
    add("--weights", metavar="COLUMN", help="how much each run weighs in the objective")


def _add_constraints(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--fix",
        action="append",
        default=[],
        metavar="NAME=VALUE[,...]",
        help="hold parameters: E=1.69,alpha=0.35",
    )
    add(
        "--tie",
        action="append",
        default=[],
        metavar="NAME=NAME[,...]",
        help="parameters that are equal: alpha=beta",
    )
    add(
        "--bounds",
        action="append",
        default=[],
        metavar="NAME=LOW:HIGH[,...]",
        help="limits of parameters: alpha=0.1:0.8 (either side may be empty)",
    )
    add(
        "--group",
        metavar="COLUMN",
        help="one fit to several corpora or recipes: every value of this column has parameters of "
        "its own, written A[value]",
    )
    add(
        "--shared",
        action="append",
        default=[],
        metavar="NAME[,NAME]",
        help="parameters that the groups have in common",
    )


def make_how(arguments: argparse.Namespace) -> "How":
    """How the laws are fitted; raises ValueError for a value that is not one."""
    from gpt_jax.scaling.fit import How

    return How(
        irreducible=None if arguments.irreducible is None else arguments.irreducible == "yes",
        delta=_delta(arguments.objective, arguments.delta),
        space=arguments.space,
        asymmetry=arguments.asymmetry,
        weights=WEIGHT if arguments.weights else None,
        constraints=_constraints(arguments),
    )


def extra_columns(arguments: argparse.Namespace) -> dict[str, str]:
    """{our name: column of the file} of groups and weights."""
    given = {GROUP: arguments.group, WEIGHT: arguments.weights}
    return {name: column for name, column in given.items() if column}


def _delta(objective: str | None, delta: float | None) -> float | None:
    if objective is None:
        return delta
    if delta is not None:
        raise ValueError("--objective and --delta say the same twice; leave --delta out")
    kind, _, size = objective.partition(":")
    if kind in ("l1", "l2") and not size:
        return ABSOLUTE_DELTA if kind == "l1" else math.inf
    if kind == "huber" and size:
        value = number(f"--objective {objective}", size)
        if value > 0:
            return value
    raise ValueError(f"--objective {objective}; allowed: huber:X with X above 0, l2, l1")


def _constraints(arguments: argparse.Namespace) -> "Constraints":
    from gpt_jax.scaling.constraints import Constraints

    if arguments.shared and not arguments.group:
        raise ValueError("--shared: between which groups? --group COLUMN says it")
    fixed = pairs("--fix", ",".join(arguments.fix))
    tied = [tuple(part.strip() for part in text.split("=")) for text in names(arguments.tie)]
    bounds = pairs("--bounds", ",".join(arguments.bounds))
    return Constraints(
        fixed={name: number(f"--fix {name}={text}", text) for name, text in fixed.items()},
        tied=tuple(tied),
        bounds={name: _limits(name, text) for name, text in bounds.items()},
        group=GROUP if arguments.group else None,
        shared=tuple(names(arguments.shared)),
    )


def _limits(name: str, text: str) -> tuple[float, float]:
    low, colon, high = (part.strip() for part in text.partition(":"))
    given = f"--bounds {name}={text}"
    if not colon:
        raise ValueError(f"{given}: expected {name}=LOW:HIGH")
    return number(given, low) if low else -math.inf, number(given, high) if high else math.inf
