"""Run a Python file that a user names: a config, a sweep, a file of tasks. Must not import jax."""

import contextlib
import importlib.machinery
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from pydantic import ValidationError


def execute(path: Path, kind: str) -> ModuleType:
    """The module that a file makes, as a script would run: files beside it can be imported.

    kind: of the file, in messages. Raises ValueError for a file that is missing or is not Python.
    """
    if not path.is_file():
        raise ValueError(f"no {kind} {path}")
    module, run = module_of(path, f"gpt_jax_{kind.replace(' ', '_')}_{path.stem}")
    with _importing_from(path.resolve().parent):
        call(path, run)
    return module


def module_of(path: Path, name: str) -> tuple[ModuleType, Callable[[], None]]:
    """An empty module for a file, and the function that runs the file in it.

    Raises ValueError for a file that is not named *.py.
    """
    if path.suffix != ".py":
        raise ValueError(f"{path} is not a Python file (*.py)")
    loader = _FromText(name, str(path))
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    return module, lambda: loader.exec_module(module)


class _FromText(importlib.machinery.SourceFileLoader):
    """Compiles the text of a file each time it is run.

    Bytecode kept beside it is told from another text's by its second and size alone: of a file
    that was changed at once, Python would run the old one.
    """

    def get_code(self, fullname: str) -> CodeType:
        code: CodeType = self.source_to_code(self.get_data(self.path), self.path)
        return code


def call(path: Path, do: Callable[[], Any]) -> Any:
    """The result of `do`, which runs code of the file: its mistakes are the user's, and one line.

    Raises ValueError naming the file, the line and the error.
    """
    _RUNNING.append(path.resolve().parent)
    try:
        return do()
    except ValidationError as error:  # of a section: `overrides.told` makes one line of it
        error.add_note(_place(path, error))
        raise
    except ValueError:
        raise  # of a setting, which is named
    except (Exception, SystemExit) as error:  # a user's file may raise anything, or exit
        what = error.msg if isinstance(error, SyntaxError) else str(error).partition("\n")[0]
        raise ValueError(f"{_place(path, error)}: {type(error).__name__}: {what}") from error
    finally:
        _RUNNING.pop()


_RUNNING: list[Path] = []
"""Folders of the files that are being run, the innermost last."""


def folder_of_running() -> Path | None:
    """The folder of the file that is being run, if one is: what it names may lie beside it."""
    return _RUNNING[-1] if _RUNNING else None


def _place(path: Path, error: Exception | SystemExit) -> str:
    """The file, with the line of it in which the error arose."""
    names = str(path), str(path.absolute())
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename in names]
    number = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    return f"{path}, line {number}" if number else str(path)


@contextlib.contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    """Imports look into the folder first. What came from it is forgotten afterwards, so that files
    of one name in two folders are told apart."""
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        # All are looked up before any is gone: a package without __init__.py finds itself by
        # sys.path, and a module's place is that of its package.
        new = set(sys.modules) - before
        own = [name for name in new if _lies_in(name.partition(".")[0], folder)]
        sys.path.remove(str(folder))
        for name in own:
            del sys.modules[name]


def _lies_in(package: str, folder: Path) -> bool:
    """Whether a top-level module is the folder's own: not this package in a checkout, nor what an
    environment below the folder holds."""
    if package == __name__.partition(".")[0] or package not in sys.modules:
        return False
    spec = sys.modules[package].__spec__
    if spec is None:
        return False
    places = [*(spec.submodule_search_locations or []), spec.origin or ""]
    return any(str(folder / package) == place.removesuffix(".py") for place in places)
