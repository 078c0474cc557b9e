"""LoRA's factors as a folder that `peft` loads over the exported base. Must not import jax.

A matrix that holds several of our projections side by side (GPT-2's queries, keys and values) gets
one term whose factors are ours in blocks: its rank is the sum of their ranks.
"""

import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from gpt_jax.config import ModelConfig
from gpt_jax.interop.family import family_of_config
from gpt_jax.interop.names import Tensor, Tree

Factors = tuple[NDArray[Any], NDArray[Any], float]
"""(A [rank, inputs], B [outputs, rank], scale) of W + scale B A."""


def write_adapter(folder: Path, config: ModelConfig, params: Tree, base_name: str) -> int:
    """Write adapter_config.json and adapter_model.safetensors; returns the number of matrices.

    params: all of the model's, with `lora_a` and the like. base_name: what the base is called
    there, a hub's name or a folder. Raises ValueError for a folder that is not empty, or a model
    without low-rank terms.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is there and not empty; choose another --to")
    family = family_of_config(config)
    tensors, ranks, alphas = {}, {}, {}
    in_out = False
    for tensor in family.table(config, family.prefix):
        factors = _factors(tensor, params, config)
        if factors is None:
            continue
        a, b, scale = factors
        module = tensor.name.removesuffix(".weight")
        tensors[f"base_model.model.{module}.lora_A.weight"] = np.ascontiguousarray(a)
        tensors[f"base_model.model.{module}.lora_B.weight"] = np.ascontiguousarray(b)
        target = ".".join(module.split(".")[-2:])
        ranks[target], alphas[target] = len(a), scale * len(a)
        in_out |= not tensor.transposed
    if not tensors:
        raise ValueError("the run has no low-rank terms (adapt.method = lora or adalora)")
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    unfinished.mkdir(parents=True)
    try:
        save_file(tensors, unfinished / "adapter_model.safetensors", {"format": "pt"})
        facts = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base_name,
            "target_modules": sorted(ranks),
            "r": max(ranks.values()),
            "lora_alpha": max(alphas.values()),
            "rank_pattern": ranks,
            "alpha_pattern": alphas,
            "fan_in_fan_out": in_out,
            "lora_dropout": 0.0,
            "bias": "none",
            "inference_mode": True,
        }
        (unfinished / "adapter_config.json").write_text(json.dumps(facts, indent=1) + "\n")
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return len(tensors) // 2


def _factors(tensor: Tensor, params: Tree, config: ModelConfig) -> Factors | None:
    """The term of one of their matrices; None if none of its parts has one."""
    if tensor.layer is None or not tensor.parts[0].inputs:
        return None
    group, member = divmod(tensor.layer, len(config.layer_pattern))
    n_outputs = sum(math.prod(part.outputs) for part in tensor.parts)
    rows, columns, scale = [], [], 1.0
    for part, outputs in zip(tensor.parts, tensor.columns(), strict=True):
        node: Any = params["blocks"][str(member)]
        for name in part.path.split("/")[:-1]:
            node = node[name]
        if "lora_a" in node:
            a, b = (np.asarray(node[name][group], np.float32) for name in ("lora_a", "lora_b"))
            rank = len(b)
            b = b.reshape(rank, math.prod(part.outputs))
            if "lora_lambda" in node:
                b = np.asarray(node["lora_lambda"][group])[:, None] * b
            placed = np.zeros((n_outputs, rank), np.float32)
            placed[outputs] = b.T
            rows.append(a.reshape(-1, rank).T)
            columns.append(placed)
            scale = float(node["lora_scale"][group])
    if not rows:
        return None
    return np.concatenate(rows), np.concatenate(columns, axis=1), scale
