"""The objective of a config's task."""

from gpt_jax.config import Config
from gpt_jax.finetune.heads import HeadObjective
from gpt_jax.models.gpt import GPT
from gpt_jax.objectives.parts import Objective


def task_objective(config: Config, model: GPT) -> Objective:
    """The objective of the task that a config names."""
    entry = config.task.entry
    if entry.has_head:
        return HeadObjective(config, model)
    made: Objective = entry.objective(config, model)
    return made
