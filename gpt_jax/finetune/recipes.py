"""Configs of fine-tuning, as changes of the config of the run that they begin from.

Must not import jax.
"""

import dataclasses
from typing import Any

from gpt_jax.config import (
    CheckpointConfig,
    Config,
    EvaluateConfig,
    OptimizerConfig,
    ScheduleConfig,
    TaskConfig,
    TrainConfig,
    overrides,
)


def in_folder(folder: str, task: TaskConfig) -> TaskConfig:
    """The task with train.jsonl, validation.jsonl and test.jsonl of a folder."""
    train, validation, test = (f"{folder}/{s}.jsonl" for s in ("train", "validation", "test"))
    return dataclasses.replace(task, train=train, validation=validation, test=test)


def gpt1_recipe(base: Config, name: str, task: TaskConfig, **changes: Any) -> Config:
    """GPT-1's fine-tuning (Radford et al. 2018, section 4.1): Adam at 6.25e-5, batches of 32, 3
    epochs, a linear decay after warmup over 0.2% of training, dropout 0.1, weight decay 0.01 on all
    but biases and gains, gradients clipped at 1.

    The dropout of attention weights stays the base's (of a released GPT-1: 0.1), because no fused
    kernel has it. changes: {dotted key with __ for the dot: value}, as in
    optimizer__learning_rate=1e-3.
    """
    if task.epochs is None:
        task = dataclasses.replace(task, epochs=3, warmup=0.002, validations=1)
    model = {f"model.dropout_{place}": 0.1 for place in ("embedding", "residual")}
    config = dataclasses.replace(
        base,
        name=name,
        task=task,
        train=TrainConfig(batch_sequences=32),
        optimizer=OptimizerConfig(
            learning_rate=6.25e-5, b1=0.9, b2=0.999, weight_decay=0.01, clip_norm=1.0
        ),
        schedule=ScheduleConfig(name="linear"),
        evaluate=EvaluateConfig(),
        checkpoint=CheckpointConfig(keep_latest=1, keep_best=1),
    )
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    return overrides.override(config, {**model, **dotted})
