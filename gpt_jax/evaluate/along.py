"""Tasks scored along a training run, on a fixed part of their items.

Must not import flax or the training loop.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import jax
import numpy as np

from gpt_jax.config.how import EvaluateConfig
from gpt_jax.data.tokenizers import Tokenizer
from gpt_jax.evaluate import measures
from gpt_jax.evaluate.catalog import CATALOG
from gpt_jax.evaluate.evaluator import banned_ids, requests_of
from gpt_jax.evaluate.items import ask
from gpt_jax.evaluate.requests import Request
from gpt_jax.evaluate.scoring import Scorer, scoring_weights
from gpt_jax.evaluate.tasks import REGISTERED, Item, Task, prompts, select
from gpt_jax.models.gpt import GPT, Params
from gpt_jax.parallel.sharding import Layout
from gpt_jax.storage import places
from gpt_jax.storage.checksum import seed_of


@dataclasses.dataclass(frozen=True)
class _Asked:
    """A task with its items and their requests."""

    task: Task
    items: Sequence[Item]
    requests: Sequence[Sequence[Request]]
    banned: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Along:
    """Tasks, ready to be scored by the parameters of any step."""

    model: GPT
    layout: Layout
    asked: Sequence[_Asked]

    def scores(self, params: Params) -> dict[str, float]:
        """score_TASK, the headline accuracy, and bits_per_byte_TASK, of the right answers."""
        weights = scoring_weights(self.model, params)
        found = {}
        for asked in self.asked:
            scorer = Scorer(self.model, weights, self.layout, asked.banned)
            scores = iter(scorer.score_all(list(itertools.chain(*asked.requests))))
            by_item = [[next(scores) for _ in of_item] for of_item in asked.requests]
            numbers = measures.numbers(asked.task, asked.items, by_item, len(asked.banned))
            found[f"score_{asked.task.name}"] = numbers["accuracy"]
            found[f"bits_per_byte_{asked.task.name}"] = numbers["bits_per_byte"]
        return found


def make_task_scorer(
    config: EvaluateConfig, tokenizer: Tokenizer, model: GPT, layout: Layout
) -> Along:
    """The tasks that a config names, their items read, drawn and tokenized.

    Raises ValueError for a task that is not known, that writes texts, or whose file is not there,
    and in a run of several processes.
    """
    if jax.process_count() > 1:
        raise ValueError(
            f"evaluate.tasks = {','.join(config.tasks)} in a run of several processes: scores "
            "cannot be gathered yet; leave it out, and score checkpoints by gpt-jax eval RUN"
        )
    found = []
    for task in select(config.tasks, CATALOG | REGISTERED):
        if task.kind == "generate":
            raise ValueError(
                f"evaluate.tasks = {task.name}: it writes texts, which takes too long while "
                f"training; score it by gpt-jax eval RUN --tasks {task.name}"
            )
        items = _drawn(task, ask(task, places.on_disk(config.tasks_data)).items, config)
        requests = requests_of(tokenizer, task, items, prompts(task, items, [], 0, 0))
        found.append(_Asked(task, items, requests, banned_ids(tokenizer, task.banned_words)))
    return Along(model, layout, found)


def _drawn(task: Task, items: Sequence[Item], config: EvaluateConfig) -> list[Item]:
    """At most evaluate.tasks_items of the items, in order; the same for every run."""
    if config.tasks_items is None or len(items) <= config.tasks_items:
        return list(items)
    random = np.random.default_rng(seed_of(f"{task.name} {config.tasks_items}"))
    chosen = random.choice(len(items), config.tasks_items, replace=False)
    return [items[i] for i in sorted(chosen)]
