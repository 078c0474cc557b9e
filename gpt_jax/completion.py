"""Completion of verbs, configs, options and settings in a shell, by argcomplete (an extra).

    eval "$(register-python-argcomplete gpt-jax)"

`gpt_jax.cli` calls this when a shell asks. Must not import jax.
"""

import argparse
import os
from typing import Any, get_args, get_origin

from gpt_jax import cli
from gpt_jax.config import overrides
from gpt_jax.storage.optional import require


def complete() -> None:
    """Answer the shell, and end the process."""
    argcomplete = require("argcomplete", "completion")
    line = os.environ["COMP_LINE"][: int(os.environ["COMP_POINT"])]
    argcomplete.autocomplete(parser_for(line), always_complete_options="long")


def parser_for(line: str) -> argparse.ArgumentParser:
    """A parser of every verb, with the arguments of the one that the line has, and settings as its
    options."""
    words = line.split()[1:]
    chosen = [verb for verb in cli.VERBS if words[: verb.count(" ") + 1] == verb.split()]
    parser = argparse.ArgumentParser("gpt-jax")
    verbs = parser.add_subparsers()
    for verb in cli.VERBS:
        if " " in verb:
            continue
        sub = verbs.add_parser(verb)
        if chosen and chosen[-1].split()[0] == verb:
            _fill(sub, chosen[-1])
    return parser


def _fill(parser: argparse.ArgumentParser, verb: str) -> None:
    module, own = cli.make_parser(verb)
    for word in verb.split()[1:]:
        parser.add_argument(word, choices=[word])
    module.add_arguments(parser)
    for action in parser._actions:
        if action.dest in ("config", "configs"):
            vars(action)["completer"] = _configs
    if own.get_default("takes_overrides"):
        taken = parser._option_string_actions
        for key, info in overrides.fields().items():
            if f"--{key}" in taken:
                continue
            values = _values(info.annotation)
            parser.add_argument(f"--{key}", choices=values or None, help=info.description)


def _configs(prefix: str, **_: Any) -> list[str]:
    """Configs by name, and files."""
    from argcomplete.completers import FilesCompleter

    names = [name for name in cli.config_names() if name.startswith(prefix)]
    return [*names, *FilesCompleter(("py", "json"))(prefix)]


def _values(annotation: Any) -> list[str]:
    """The values of a setting that has few: those of a Literal, or true and false."""
    if annotation is bool:
        return ["true", "false"]
    if get_origin(annotation) is not None and all(isinstance(a, str) for a in get_args(annotation)):
        return list(get_args(annotation))
    return []
