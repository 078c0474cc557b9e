"""Imports of libraries that not everybody installs. Must not import jax."""

import importlib
from types import ModuleType


def require(module: str, extra: str) -> ModuleType:
    """The module. Raises ValueError with the command that installs it when it is not there."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.split(".")[0]
        if error.name != package:
            raise
        raise ValueError(
            f"this needs the Python package {package}; install it with "
            f"pip install 'gpt-jax[{extra}]'"
        ) from None
