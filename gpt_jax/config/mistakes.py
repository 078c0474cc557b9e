"""Mistakes in settings as one line: the key, what was given, what is allowed or was meant.

Must not import jax.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from gpt_jax.config import Config
from gpt_jax.config.wording import in_a_line, reason, refusal
from gpt_jax.hints import did_you_mean, nearest

ELSEWHERE = {
    "lr": "optimizer.learning_rate",
    "wd": "optimizer.weight_decay",
    "grad_clip": "optimizer.clip_norm",
    "max_grad_norm": "optimizer.clip_norm",
    "batch_size": "train.batch_sequences",
    "steps": "train.tokens",
    "max_steps": "train.tokens",
    "max_iters": "train.tokens",
    "warmup": "schedule.warmup_tokens",
    "warmup_steps": "schedule.warmup_tokens",
    "warmup_iters": "schedule.warmup_tokens",
    "lr_scheduler": "schedule.name",
    "depth": "model.n_layers",
    "num_layers": "model.n_layers",
    "n_layer": "model.n_layers",
    "width": "model.d_model",
    "hidden_size": "model.d_model",
    "n_embd": "model.d_model",
    "num_heads": "model.n_heads",
    "n_head": "model.n_heads",
    "block_size": "model.seq_len",
    "context_length": "model.seq_len",
    "max_length": "model.seq_len",
    "dropout": "model.dropout_residual",
    "precision": "compute.dtype",
    "bf16": "compute.dtype",
    "gradient_accumulation_steps": "compute.microbatches",
    "eval_interval": "evaluate.every_tokens",
    "save_steps": "checkpoint.every_tokens",
}
"""Names of settings in other code bases, and here: durations here are in tokens."""


def unknown(key: str, known: Mapping[str, Any]) -> str:
    """The line for a key that no config has; known: those that there are."""
    leaves = {k.rsplit(".", 1)[-1]: k for k in known}
    leaf_given = key.rsplit(".", 1)[-1]
    given = in_a_line(key)
    if leaf_given in ELSEWHERE:
        return f"unknown config key '{given}'; here it is '{ELSEWHERE[leaf_given]}'"
    section = nearest(key, {k.partition(".")[0] for k in known if "." in k}, cutoff=0.75)
    hint = did_you_mean(key, section or known, cutoff=0.5)
    leaf = nearest(leaf_given, leaves)
    if not hint and leaf:
        hint = f"; did you mean '{leaves[leaf[0]]}'?"
    return f"unknown config key '{given}'{hint} (gpt-jax train --help all lists them)"


def one_line(error: ValidationError, known: Mapping[str, Any]) -> str:
    """The line for settings that a section refused; known: `overrides.fields`."""
    parts = []
    for item in error.errors():
        key = _section_of(error.title) + ".".join(str(p) for p in item["loc"])
        if item["type"] == "unexpected_keyword_argument":
            parts.append(unknown(key, known))
        elif key in known:
            parts.append(refusal(key, item, known[key].annotation))
        else:
            ours, message = item["type"] == "value_error", reason(item)
            parts.append(message if ours else f"{key}: {message}")
    return "; ".join(dict.fromkeys(parts))


def _section_of(class_name: str) -> str:
    """`model.` of ModelConfig; empty of Config itself."""
    for field in dataclasses.fields(Config):
        if isinstance(field.type, type) and field.type.__name__ == class_name:
            return f"{field.name}."
    return "" if class_name == Config.__name__ else f"{class_name}."
