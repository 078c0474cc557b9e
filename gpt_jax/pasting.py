"""Commands that are printed to be pasted: quoted for a shell, what they do behind a #. No jax."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import PurePath

WIDEST = 88
"""Width of the commands beyond which what they do is not aligned with the others."""


def shown(commands: Sequence[tuple[str, str]]) -> str:
    """Lines under `next:`: each command, and what it does behind a #."""
    width = max((len(command) for command, _ in commands if len(command) <= WIDEST), default=0)
    lines = [f"  {command:<{width}}  # {what}" for command, what in commands]
    return "\n".join(["next:", *lines])


def command(*words: str | PurePath, changes: Mapping[str, str] | None = None) -> str:
    """A command line for a shell: `gpt-jax`, the words, and overrides as options."""
    options = [word for key, value in (changes or {}).items() for word in (f"--{key}", value)]
    return " ".join(["gpt-jax", *(shlex.quote(str(word)) for word in [*words, *options])])
