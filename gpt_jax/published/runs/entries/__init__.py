"""The tables that are known by name, a file each with one ENTRY. Must not import jax."""

import importlib
import pkgutil

from gpt_jax.published.runs.entry import ENTRIES, RunsEntry, find_entry, register

__all__ = ["ENTRIES", "RunsEntry", "find_entry", "register"]

for _module in sorted(module.name for module in pkgutil.iter_modules(__path__)):
    register(importlib.import_module(f"{__name__}.{_module}").ENTRY)
