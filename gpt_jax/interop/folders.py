"""A Hugging Face folder read into a model, and written from one.

Must not import jax: parameters are trees of numpy arrays.
"""

import dataclasses
import json
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt_jax.config import ModelConfig
from gpt_jax.data.tokenizers import Tokenizer
from gpt_jax.interop import names
from gpt_jax.interop.conventions import facts_of, read_facts
from gpt_jax.interop.family import family_of_config, read_config
from gpt_jax.interop.names import Tensor, Tree
from gpt_jax.interop.safetensors_files import (
    FolderWeights,
    read_json,
    refuse_pickles,
    write_weights,
)
from gpt_jax.interop.tokenizer_files import write_tokenizer
from gpt_jax.interop.tokenizer_reading import read_tokenizer

HEADS = ("lm_head.weight", "embed_out.weight")
BUFFERS = (
    ".attn.bias",
    ".attn.masked_bias",
    ".attention.bias",
    ".attention.masked_bias",
    ".rotary_emb.inv_freq",
)
"""Constants that earlier releases saved beside the weights: causal masks, rotary frequencies."""


@dataclasses.dataclass(frozen=True)
class Imported:
    """Model and tokenizer read from a folder."""

    model_type: str
    config: ModelConfig
    params: Tree
    """float32 numpy arrays."""
    tokenizer: Tokenizer


def read_folder(folder: Path, tokenizer: str = "") -> Imported:
    """Read a folder of config.json, safetensors and tokenizer files.

    tokenizer: as `data.tokenizer`, instead of the folder's own.

    Raises ValueError, one line, for whatever is missing, damaged, or not computed here.
    """
    refuse_pickled_only(folder)
    family, config = read_config(read_json(folder / "config.json"), f"{folder}/config.json")
    found = read_tokenizer(read_facts(folder, family.model_type), config.vocab_size, tokenizer)
    if found.vocab_size > config.vocab_size:
        raise ValueError(
            f"the tokenizer has {found.vocab_size:,} ids, more than vocab_size = "
            f"{config.vocab_size:,} of {folder}/config.json; name the right one with --tokenizer"
        )
    weights = FolderWeights(folder, skip=BUFFERS)
    prefix = family.prefix if any(name.startswith(family.prefix) for name in weights) else ""
    table = family.table(config, prefix)
    tied = [name for name in HEADS if name in weights] if config.tied_embeddings else []
    for name in tied:
        if not np.array_equal(weights[name], weights[table[0].name]):
            raise ValueError(
                f"{folder}: {name} is not {table[0].name}, but config.json ties them; set "
                "tie_word_embeddings to false there"
            )
        weights = FolderWeights(folder, skip=(*BUFFERS, *HEADS))
    try:
        params = names.read(table, weights, config)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None
    return Imported(family.model_type, config, params, found)


def refuse_pickled_only(folder: Path) -> None:
    """Raises ValueError for a pickled file, a folder with no other weights, or no folder."""
    if folder.is_file():
        refuse_pickles(folder)
        raise ValueError(f"{folder} is a file; give the folder that holds config.json")
    if not any(folder.glob("*.safetensors*")):
        refuse_pickles(folder)


def write_folder(
    folder: Path,
    config: ModelConfig,
    params: Tree,
    tokenizer: Tokenizer,
    shard_bytes: int,
    model_type: str = "",
) -> str:
    """Write what `transformers` loads; returns the model_type.

    model_type: of the family that the model came from, which is taken if it carries the config.

    The folder appears whole or not at all. Rows of padded ids are left out: they have probability
    zero. Raises ValueError for a model that no family carries, and for a folder that is not empty.
    """
    family = family_of_config(config, model_type)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is there and not empty; choose another --to")
    params, config = _without_padding(_on_host(params), config)
    table = family.table(config, family.prefix)
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    unfinished.mkdir(parents=True)
    try:
        write_tokenizer(unfinished, tokenizer, config.seq_len)
        sizes = {tensor.name: 4 * math.prod(tensor.shape) for tensor in table}
        write_weights(unfinished, sizes, _arrays(table, params, config), shard_bytes)
        end, _ = facts_of(tokenizer)
        facts = {"architectures": [family.architecture], "model_type": family.model_type}
        facts |= family.write(config) | end | {"torch_dtype": "float32", "dtype": "float32"}
        _write_json(unfinished / "config.json", facts)
        _write_json(unfinished / "generation_config.json", end)
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return family.model_type


def _arrays(
    table: list[Tensor], params: Tree, config: ModelConfig
) -> Iterator[tuple[str, NDArray[Any]]]:
    for tensor, array in names.write(table, params, config):
        yield tensor.name, array


def _on_host(params: Tree) -> Tree:
    """The tree as numpy arrays: fetched from the devices once, not layer by layer."""
    return {
        name: _on_host(node) if isinstance(node, dict) else np.asarray(node)
        for name, node in params.items()
    }


def _without_padding(params: Tree, config: ModelConfig) -> tuple[Tree, ModelConfig]:
    V = config.vocab_size
    cut = params | {
        "embedding": params["embedding"] | {"tokens": params["embedding"]["tokens"][:V]}
    }
    if not config.tied_embeddings:
        cut["head"] = {"kernel": params["head"]["kernel"][:, :V]}
    return cut, dataclasses.replace(config, vocab_multiple=1)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n")
