"""The laws that are known by name, a file each: its source, columns, and how it is built.

A file here has one ENTRY; whatever it computes with is imported when the law is built, so that a
list of the laws costs nothing. `register` adds a law from elsewhere. Must not import jax.
"""

import importlib
import pkgutil

from gpt_jax.scaling.entry import LAWS, LawEntry, find_law, register

__all__ = ["LAWS", "LawEntry", "find_law", "register"]

for _module in sorted(module.name for module in pkgutil.iter_modules(__path__)):
    register(importlib.import_module(f"{__name__}.{_module}").ENTRY)
