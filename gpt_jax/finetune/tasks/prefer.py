"""One response over another: direct preference optimisation. Must not import jax at its top."""

from typing import TYPE_CHECKING

import numpy as np

from gpt_jax.config import Config
from gpt_jax.finetune.entry import TaskEntry
from gpt_jax.finetune.examples import Examples
from gpt_jax.finetune.inputs import Encoded, Encoder, Record, spoken
from gpt_jax.finetune.predicted import Predicted
from gpt_jax.finetune.templates import exchange, render

if TYPE_CHECKING:
    from gpt_jax.models.gpt import GPT
    from gpt_jax.objectives.parts import Objective


def encode(encoder: Encoder, record: Record) -> list[Encoded]:
    """The chosen response and the rejected one, each after the prompt; read at its end."""
    assert encoder.template is not None
    asked, *responses = encoder.task.record_fields
    sequences = []
    for response in responses:
        turns = exchange(record, asked, response)
        made = spoken(encoder, render(encoder.template, turns))
        # The label is filled in later: the log-probability under the model that training begins at.
        sequences.append(made._replace(read=[len(made.tokens) - 1], labels=[0.0]))
    return sequences


def objective(config: Config, model: "GPT") -> "Objective":
    """DPO's loss of the margin between the two responses."""
    from gpt_jax.finetune.responses import Preferences

    return Preferences(config, model)


def score(config: Config, examples: Examples, found: Predicted) -> dict[str, float]:
    """accuracy: the share of positive margins; and the mean margin."""
    return {
        "accuracy": float(np.mean(found.outputs > 0)),
        "margin": float(found.outputs.mean()),
    }


def check(config: Config) -> None:
    """Raises ValueError for a test."""
    if config.task.test:
        raise ValueError(
            f"task.test = {config.task.test}: task.name = prefer has no test; give these examples "
            f"as task.validation"
        )


ENTRY = TaskEntry(
    name="prefer",
    summary="one response over another (DPO)",
    source="Rafailov et al. 2023, arXiv:2305.18290, equation 7",
    fields=("prompt", "chosen", "rejected"),
    encode=encode,
    n_sequences=lambda task: 2,
    spoken=True,
    objective=objective,
    labels_by_base=True,
    metrics=("accuracy", "loss"),
    score=score,
    check=check,
)
