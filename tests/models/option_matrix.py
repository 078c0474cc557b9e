"""Combinations of model options such that every pair of choices occurs in one of them."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

SIZES = {"vocab_size": 13, "vocab_multiple": 4, "seq_len": 8, "n_layers": 4, "d_model": 16}

ROTARY = {"position": "rotary"}
FACTORS: dict[str, dict[str, dict[str, Any]]] = {
    "blocks": {
        "pre": {},
        "post": {"norm_position": "post", "final_norm": False},
        "output": {"norm_position": "output"},
        "sandwich": {"norm_position": "sandwich"},
        "parallel": {"parallel_block": True},
        "parallel, two norms": {"parallel_block": True, "parallel_norms": "separate"},
    },
    "positions": {
        "learned": {"layer_pattern": ("dense", "banded"), "window": 3},
        "rotary": ROTARY,
        "partial, linear, two bases": ROTARY
        | {
            "rotary_size": 2,
            "rotary_scaling": "linear",
            "rotary_factor": 4.0,
            "layer_pattern": ("dense", "banded"),
            "window": 3,
            "rotary_base_banded": 50.0,
        },
        "yarn, some without": ROTARY
        | {
            "rotary_scaling": "yarn",
            "rotary_factor": 4.0,
            "rotary_trained_len": 40,
            "layer_pattern": ("banded", "nope"),
            "window": 5,
        },
        "llama3": ROTARY
        | {
            "rotary_scaling": "llama3",
            "rotary_factor": 8.0,
            "rotary_trained_len": 12,
            "rotary_turns": (0.5, 1.5),
            "rotary_amplitude": 1.2,
        },
        "alibi": {"position": "alibi"},
        "none": {"position": "none", "layer_pattern": ("banded",), "window": 4},
    },
    "norm": {
        "layernorm": {},
        "rmsnorm": {"norm": "rmsnorm"},
        "one plus gain": {"norm": "rmsnorm", "norm_gain": "one_plus"},
        "no gain": {"norm_gain": "none"},
    },
    "qk norm": {
        "none": {},
        "head": {"qk_norm": True},
        "all heads": {"qk_norm": True, "qk_norm_over": "heads"},
    },
    "biases": {
        "all": {},
        "none": {"bias": False},
        "qkv, norm": {"biases": ("qkv", "norm")},
        "out, mlp": {"biases": ("out", "mlp")},
    },
    "scores": {
        "plain": {},
        "capped": {
            "scores": ("soft_cap", "sinks"),
            "options": {"soft_cap": {"cap": 1.5}},
            "score_divisor": 1.0,
        },
        "over layer": {"scores_over_layer": True},
        "clipped": {"qkv_clip": 0.7, "score_divisor": 3.0},
    },
    "heads": {
        "all": {"n_heads": 4},
        "grouped": {"n_heads": 4, "n_kv_heads": 2},
        "one": {"n_heads": 4, "n_kv_heads": 1, "head_size": 6},
    },
    "mlp": {
        "plain": {},
        "gated": {"activation": "swiglu", "ffn_size": 24},
        "experts": {"n_experts": 4, "ffn_size": 12},
        "experts, plain gates": {
            "n_experts": 4,
            "expert_gates": "plain",
            "activation": "geglu",
            "ffn_size": 12,
        },
    },
    "ends": {
        "tied": {},
        "untied, scaled": {"tied_embeddings": False, "embedding_multiplier": 4.0},
        "embedding norm, capped": {"embedding_norm": True, "logit_soft_cap": 5.0},
    },
    "remat": {"none": {}, "full": {}, "dots": {}, "attention": {}},
    "layers": {"scan": {}, "unroll": {}},
    "products": {"plain": {}, "cpu": {}},
    "packed": {"no": {}, "yes": {}},
}
"""Factor -> choice -> fields of ModelConfig; the last four change how it is computed."""

Row = dict[str, str]
"""Factor -> choice."""


def covering(factors: Mapping[str, Sequence[str]], strength: int) -> list[Row]:
    """Rows in which every combination of choices of `strength` factors occurs (strength 1 or 2).

    Greedy: a row begins with a combination that is missing yet, and takes for each further factor
    the choice that adds the most missing ones.
    """

    def combinations(row: Row) -> set[tuple[tuple[str, str], ...]]:
        chosen = [(name, row[name]) for name in factors if name in row]
        return set(itertools.combinations(chosen, strength))

    missing: dict[tuple[tuple[str, str], ...], None] = {}
    for names in itertools.combinations(factors, strength):
        for choices in itertools.product(*(factors[name] for name in names)):
            missing[tuple(zip(names, choices, strict=True))] = None
    rows = []
    while missing:
        row = dict(next(iter(missing)))
        for name in factors:
            if name not in row:
                gains = {
                    choice: len(combinations({**row, name: choice}) & missing.keys())
                    for choice in factors[name]
                }
                row[name] = max(gains, key=lambda c: gains[c])
        for found in combinations(row):
            missing.pop(found, None)
        rows.append({name: row[name] for name in factors})
    return rows


def rows(strength: int) -> list[Row]:
    return covering({name: list(choices) for name, choices in FACTORS.items()}, strength)


def fields_of(row: Row) -> dict[str, Any]:
    """Fields of ModelConfig of a row."""
    fields: dict[str, Any] = dict(SIZES)
    for name, choice in row.items():
        fields |= FACTORS[name][choice]
    return fields
