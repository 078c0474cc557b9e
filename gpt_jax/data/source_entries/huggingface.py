"""A data set of Hugging Face's library datasets. Must not import jax."""

from typing import Any

from gpt_jax.config import DataConfig
from gpt_jax.data.documents import Source
from gpt_jax.data.source_entry import SourceEntry


def open_library(config: DataConfig, options: Any) -> Source:
    """The data set that data.path names; the library is imported for it."""
    from gpt_jax.data.libraries import huggingface

    return huggingface(config)


ENTRY = SourceEntry(
    name="huggingface",
    summary="a data set of Hugging Face's library datasets",
    open=open_library,
    path_is_local=False,
)
