"""The objective, the parameter transform and the steps that a config trains with.

Only what a config asks for is imported: pretraining needs none of finetune and adapt.
"""

from gpt_jax.config import Config
from gpt_jax.models.gpt import GPT
from gpt_jax.objectives.entry import OBJECTIVES
from gpt_jax.objectives.parts import Objective, TrainAll, Transform
from gpt_jax.steps.step import Steps


def make_steps(config: Config, model: GPT, teacher: GPT | None = None) -> Steps:
    """The pure functions of a config; `compile_steps` makes the compiled ones.

    model: plain, as `make_gpt` gives it. teacher: the model of config.distill.teacher.
    """
    transform = make_transform(config, model)
    return Steps(config, make_objective(config, transform.model, teacher), transform)


def make_objective(config: Config, model: GPT, teacher: GPT | None = None) -> Objective:
    """The objective of a config; model: with what the config's transform adds."""
    if teacher is not None:
        from gpt_jax.objectives.distillation import Distillation

        return Distillation(config.train, model, config.distill, teacher)
    if not config.task.has_examples:
        entry = OBJECTIVES.find(config.train.objective)
        options = entry.read_options(config.train.options, "train.options")
        return entry.make(config, model, options)
    from gpt_jax.finetune.objective import task_objective

    return task_objective(config, model)


def make_transform(config: Config, model: GPT) -> Transform:
    """How the config's trained parameters become the model's."""
    if config.adapt.method == "full":
        return TrainAll(model)
    from gpt_jax.adapt import make_adaptation

    return make_adaptation(config.adapt, model)
