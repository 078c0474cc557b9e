"""One epoch of SST-2 by each method of adaptation, from one base: what is trained, what it brings.

    gpt-jax sweep run experiments/finetune/methods_sweep.py --workdir runs/methods
    python experiments/finetune/make_table.py collect
    python experiments/finetune/make_table.py methods

BitFit is missing: the base has no biases.
"""

import dataclasses
from pathlib import Path

from gpt_jax.config import overrides
from gpt_jax.data.tokenizers import load_tokenizer
from gpt_jax.finetune.examples import resolve
from gpt_jax.runs.directory import RunDirectory
from gpt_jax.sweep.trial import make_trials

BASE = "runs/finetune_base"
CONFIG = Path(__file__).resolve().parents[2] / "configs" / "finetune_sst2.py"
ALL = ["query", "key", "value", "out", "up", "down"]
METHODS = {
    "full": ({}, 5e-4),
    "lora": ({"adapt.targets": ALL}, 3e-3),
    "adalora": ({"adapt.targets": ALL}, 3e-3),
    "adapter": ({}, 3e-3),
    "prefix": ({}, 1e-2),
    "prompt": ({}, 1e-2),
    "difference": ({}, 1e-3),
    "last_layers": ({}, 1e-3),
    "pattern": ({"adapt.train": ["blocks/.*/mlp/.*"]}, 5e-4),
}
"""Method -> its settings, and its learning rate: small trees take larger ones."""


def get_sweep():
    base = RunDirectory(BASE)
    model, tokenizer = base.require_config(), load_tokenizer(base.tokenizer)
    trials = []
    for method, (settings, rate) in METHODS.items():
        changes = {
            "base": BASE,
            "adapt.method": method,
            "optimizer.learning_rate": rate,
            "task.epochs": 1,
        }
        config = resolve(overrides.load(CONFIG, changes | settings, model), tokenizer)
        for trial in make_trials(config, [{"adapt.method": method}]):
            named = dataclasses.replace(trial.config, name=f"sst2-{method}")
            trials.append(dataclasses.replace(trial, config=named))
    return trials
