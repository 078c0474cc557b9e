"""GPT-1's tables 2, 3 and 4: the released model fine-tuned on each task by the paper's recipe.

    gpt-jax import openai-community/openai-gpt --workdir runs/gpt1
    python experiments/gpt1/prepare.py SOURCE gpt1_data
    gpt-jax sweep plan experiments/gpt1/sweep.py
    gpt-jax sweep run experiments/gpt1/sweep.py

A trial for each task whose records are in gpt1_data, and so for each row of a table; those of MNLI,
and of RACE, differ in their test alone.
"""

import dataclasses
from pathlib import Path
from typing import Any

from gpt_jax.config import TaskConfig
from gpt_jax.data.tokenizers import load_tokenizer
from gpt_jax.finetune.examples import resolve
from gpt_jax.finetune.recipes import gpt1_recipe
from gpt_jax.run import RunDirectory
from gpt_jax.sweep.trial import make_trials

BASE, DATA = "runs/gpt1", Path("gpt1_data")
ENTAIL: dict[str, Any] = {"name": "entail"}
CHOOSE: dict[str, Any] = {"name": "choose"}
BINARY: dict[str, Any] = {"labels": ("0", "1")}
"""F1 and Matthews are of the second class."""
TASKS: dict[str, dict[str, Any]] = {
    "mnli_matched": ENTAIL,
    "mnli_mismatched": ENTAIL,
    "snli": ENTAIL,
    "scitail": ENTAIL,
    "qnli": ENTAIL,
    "rte": ENTAIL,
    "story_cloze": CHOOSE,
    "race_middle": CHOOSE,
    "race_high": CHOOSE,
    "race": CHOOSE,
    "cola": {"name": "classify", **BINARY, "metric": "matthews"},
    "sst2": {"name": "classify", **BINARY, "metric": "accuracy"},
    "mrpc": {"name": "similarity", **BINARY, "metric": "f1"},
    "stsb": {"name": "regress", "fields": ("first", "second"), "metric": "pearson"},
    "qqp": {"name": "similarity", **BINARY, "metric": "f1"},
}
"""Task -> its `task` section; the metric is the table's."""


def get_sweep():
    base = RunDirectory(BASE)
    model, tokenizer = base.require_config(), load_tokenizer(base.tokenizer)
    here = [task for task in TASKS if (DATA / task / "train.jsonl").exists()]
    if not here:
        raise ValueError(f"{DATA} holds no task: python experiments/gpt1/prepare.py SOURCE {DATA}")
    trials = []
    for task in here:
        files = {s: str(DATA / task / f"{s}.jsonl") for s in ("train", "validation", "test")}
        config = gpt1_recipe(model, task, TaskConfig(**TASKS[task], **files))
        config = dataclasses.replace(config, base=BASE)
        trials += make_trials(resolve(config, tokenizer), [{}])
    return trials
