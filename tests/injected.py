"""I/O errors injected into this process: one operation on a file below a directory fails, once.

Operations are what Python does to files: opening to write, fsync, replace, link, mkdir. What the
checkpoint library writes itself, in C++, is not among them.
"""

import builtins
import contextlib
import io
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

NUMBERED = re.compile(r"[0-9a-f]*\d[0-9a-f]*")
"""Numbers, and random names in hex digits."""
TEMPORARY = re.compile(r"^\.(.*)\.#\.tmp$")


class Operation(NamedTuple):
    """What is done to a file, its name with every number, and random part, as #."""

    verb: str
    name: str


class Injected:
    """Operations that happened below a directory; the first that `fails` names has failed."""

    def __init__(self, below: Path, fails: Operation | None = None, code: int = 0):
        self.below, self.fails, self.code = str(below), fails, code
        self.seen: list[Operation] = []
        self.hit: str | None = None

    def before(self, verb: str, at: Any) -> None:
        """Note an operation, and let it fail if it is the one."""
        if isinstance(at, int):
            if not os.path.exists(f"/proc/self/fd/{at}"):
                return
            at = os.readlink(f"/proc/self/fd/{at}")
        path = os.fspath(at)
        if not isinstance(path, str) or not path.startswith(self.below):
            return
        name = NUMBERED.sub("#", os.path.basename(path))
        operation = Operation(verb, TEMPORARY.sub(r"\1", name))
        self.seen.append(operation)
        if self.hit is None and operation == self.fails:
            self.hit = path
            raise OSError(self.code, os.strerror(self.code), path)

    def kinds(self) -> list[Operation]:
        """Operations without repetition, in the order in which each came first."""
        return list(dict.fromkeys(self.seen))


@contextlib.contextmanager
def injected(below: Path, fails: Operation | None = None, code: int = 0) -> Iterator[Injected]:
    """Watch, and break, what this process does to files below a directory.

    code: the errno of the one that fails.
    """
    state = Injected(below, fails, code)

    def wrap(real: Callable[..., Any], verb: str, position: int) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            state.before(verb, arguments[position])
            return real(*arguments, **named)

        return call

    real_open = io.open

    def opening(file: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        if not isinstance(file, int) and set(mode) & set("wax+"):
            state.before("open", file)
        return real_open(file, mode, *arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        for name, position in (("fsync", 0), ("replace", 1), ("link", 1), ("mkdir", 0)):
            patch.setattr(os, name, wrap(getattr(os, name), name, position))
        patch.setattr(io, "open", opening)
        patch.setattr(builtins, "open", opening)
        yield state
