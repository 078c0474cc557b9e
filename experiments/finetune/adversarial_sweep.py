"""SST-2 with and without adversarial training (FGM), three seeds each, from the quickstart's run.

    gpt-jax train configs/quickstart.py
    gpt-jax sweep run experiments/finetune/adversarial_sweep.py --workdir runs/adversarial
    python experiments/finetune/make_table.py collect
    python experiments/finetune/make_table.py adversarial

A small base, so that it takes minutes: 64 tokens of a sentence, two epochs.
"""

import dataclasses
from pathlib import Path

from gpt_jax.config import overrides
from gpt_jax.data.tokenizers import load_tokenizer
from gpt_jax.finetune.examples import resolve
from gpt_jax.runs.directory import RunDirectory
from gpt_jax.sweep.grid import chain, product, seeds, values
from gpt_jax.sweep.trial import make_trials

BASE = "runs/quickstart"
SIZES = (0.002, 0.01)
"""How far embeddings are moved, as a share of their length."""
CONFIG = Path(__file__).resolve().parents[2] / "configs" / "finetune_sst2.py"


def get_sweep():
    base = RunDirectory(BASE)
    model, tokenizer = base.require_config(), load_tokenizer(base.tokenizer)
    changes = {"base": BASE, "task.epochs": 2, "task.length": 64, "task.robustness": True}
    config = resolve(overrides.load(CONFIG, changes, model), tokenizer)
    sizes = values("task.adversarial_size", SIZES)
    moved = product(values("task.adversarial", ["fgm"]), sizes)
    grid, trials = product(chain([{}], moved), seeds(3)), []
    for trial in make_trials(config, grid):
        task = trial.config.task
        how = "none" if task.adversarial == "none" else f"fgm-{task.adversarial_size}"
        name = f"sst2-{how}-{trial.config.seed}"
        named = dataclasses.replace(trial.config, name=name)
        trials.append(dataclasses.replace(trial, config=named))
    return trials
