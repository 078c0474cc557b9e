"""The Python standard library's own sources. Must not import jax."""

import platform
import sysconfig
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpt_jax.config import DataConfig
from gpt_jax.data.documents import Document, Source
from gpt_jax.data.files import identity
from gpt_jax.data.folders import walk
from gpt_jax.data.source_entry import SourceEntry

LEAVES_OUT = frozenset(
    {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
)


def open_stdlib(config: DataConfig, options: Any) -> Source:
    """Every .py file of the standard library, tests left out (about 12 MB)."""
    root = Path(sysconfig.get_path("stdlib"))
    names, _ = walk(root, LEAVES_OUT)
    files = {name: root / name for name in names if name.endswith(".py")}

    def read() -> Iterator[Document]:
        for name, path in files.items():
            with open(path, "rb") as stream:
                encoding, _ = tokenize.detect_encoding(stream.readline)
            yield Document(name, path.read_bytes().decode(encoding))

    description = f"standard library of Python {platform.python_version()}, {len(files)} files"
    return Source(description, identity(files), read)


ENTRY = SourceEntry(
    name="stdlib",
    summary="the Python standard library's own sources, always present",
    open=open_stdlib,
    needs_path=False,
)
