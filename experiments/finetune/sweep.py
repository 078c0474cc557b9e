"""SST-2, RTE and WNUT-17 from a pretrained base and from scratch, three seeds each.

    gpt-jax sweep plan experiments/finetune/sweep.py
    gpt-jax sweep run experiments/finetune/sweep.py

Run where `finetune_data` (prepare.py) and `runs/finetune_base` (configs/finetune_base.py) are.
"""

import dataclasses
from pathlib import Path

from gpt_jax.config import overrides
from gpt_jax.data.tokenizers import load_tokenizer
from gpt_jax.finetune.examples import resolve
from gpt_jax.runs.directory import RunDirectory
from gpt_jax.sweep.grid import product, seeds, values
from gpt_jax.sweep.trial import Trial, make_trials

BASE = "runs/finetune_base"
CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def get_sweep():
    base = RunDirectory(BASE)
    model = base.require_config()
    tokenizer = load_tokenizer(base.tokenizer)
    # Of a run from scratch too.
    same = {"data.tokenizer": str(base.tokenizer / "tokenizer_spec.json")}
    trials = []
    for task in ("sst2", "rte", "wnut17"):
        config = overrides.load(CONFIGS / f"finetune_{task}.py", same, model)
        grid = product(values("base", [BASE, ""]), seeds(3))
        trials += [named(task, trial) for trial in make_trials(resolve(config, tokenizer), grid)]
    return trials


def named(task: str, trial: Trial) -> Trial:
    start = "pretrained" if trial.config.base else "scratch"
    config = dataclasses.replace(trial.config, name=f"{task}-{start}-{trial.config.seed}")
    return dataclasses.replace(trial, config=config)
