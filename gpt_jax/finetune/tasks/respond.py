"""A response to a prompt: supervised fine-tuning. Must not import jax at its top."""

from typing import TYPE_CHECKING

from gpt_jax.config import Config
from gpt_jax.finetune.entry import TaskEntry
from gpt_jax.finetune.inputs import Encoded, Encoder, Record, spoken
from gpt_jax.finetune.templates import messages, render

if TYPE_CHECKING:
    from gpt_jax.models.gpt import GPT
    from gpt_jax.objectives.parts import Objective


def encode(encoder: Encoder, record: Record) -> list[Encoded]:
    """The turns of the conversation, of which the assistant's are learned."""
    assert encoder.template is not None
    turns = messages(record, encoder.task.record_fields)
    return [spoken(encoder, render(encoder.template, turns))]


def objective(config: Config, model: "GPT") -> "Objective":
    """The language model's loss of the responses."""
    from gpt_jax.finetune.responses import Responses

    return Responses(config, model)


ENTRY = TaskEntry(
    name="respond",
    summary="a response to a prompt (supervised fine-tuning)",
    source="Ouyang et al. 2022, arXiv:2203.02155, section 3",
    fields=("prompt", "response"),
    reads=frozenset({"pack", "images"}),
    encode=encode,
    generates=True,
    spoken=True,
    objective=objective,
    metrics=("loss",),
)
