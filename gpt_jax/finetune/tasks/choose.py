"""One of several options, after a context. Must not import jax at its top."""

from typing import TYPE_CHECKING, Any

from gpt_jax.config import Config
from gpt_jax.finetune.classes import class_scores, with_probabilities
from gpt_jax.finetune.entry import TaskEntry
from gpt_jax.finetune.examples import Examples
from gpt_jax.finetune.inputs import Encoded, Encoder, Record, fit, number
from gpt_jax.finetune.predicted import Predicted
from gpt_jax.storage import tables

if TYPE_CHECKING:
    import jax

    from gpt_jax.finetune.heads import Reading
    from gpt_jax.models.gpt import Params
    from gpt_jax.objectives.cross_entropy import LossSums


def encode(encoder: Encoder, record: Record) -> list[Encoded]:
    """The context, and a question if there is one, with each option; the label is the index of the
    right one.

    [start] context question [delimiter] option [extract] (GPT-1, section 3.3).
    """
    context, *question, field = encoder.task.record_fields
    options = tables.text_list(record[field], f"its field {field!r}")
    if not options:
        raise ValueError(f"its field {field!r} has no option")
    label = encoder.label(record)
    right = None if label is None else option_index(label, len(options))
    before = [encoder.text(record, context)]
    before += [encoder.ids(f" {tables.as_text(record[q], f'its field {q!r}')}") for q in question]
    sequences = []
    for i, option in enumerate(options):
        target = None if right is None else float(i == right)
        parts = [*before, encoder.ids(option)]
        # Cut before they are joined: the longest is, not the question at the end.
        *asked, answer = fit(parts, encoder.room - encoder.n_prefix - 3)
        made = encoder.sequence([[t for part in asked for t in part], answer], target)
        n_cut = sum(map(len, parts)) - sum(map(len, asked)) - len(answer)
        sequences.append(made._replace(n_cut=n_cut))
    return sequences


def option_index(label: Any, n_options: int) -> int:
    """A label as the index of an option. Raises ValueError for what is none."""
    index = number(label)
    if not index.is_integer() or not 0 <= index < n_options:
        raise ValueError(f"its label {label!r} is no index of its {n_options} options")
    return int(index)


NO_OPTION = -1e9
"""The score of an option that an example does not have."""


def head(reading: "Reading", params: "Params") -> "tuple[jax.Array, LossSums]":
    """Log-probabilities of the options [B, K]: a softmax over one number of each."""
    import jax.numpy as jnp

    from gpt_jax.finetune.heads import linear, weighted
    from gpt_jax.objectives.cross_entropy import log_softmax

    scores_BK = linear(reading.x_BKD, params)[..., 0]
    log_p_BK = log_softmax(jnp.where(reading.there_BK, scores_BK, NO_OPTION))
    return log_p_BK, weighted(-jnp.sum(reading.labels_BK * log_p_BK, axis=1), reading.weights_B)


def score(config: Config, examples: Examples, found: Predicted) -> dict[str, float]:
    """accuracy: the numbers of options are no classes."""
    return {"accuracy": class_scores(config, examples, found)["accuracy"]}


ENTRY = TaskEntry(
    name="choose",
    summary="one of several options",
    source="Radford et al. 2018 (GPT-1), section 3.3",
    fields=("context", "options"),
    n_fields=(2, 3),  # a question between them, which is kept where the context has to be cut
    labels="option",
    reads=frozenset({"adversarial", "robustness"}),
    encode=encode,
    n_sequences=lambda task: task.options or 1,  # `gpt_jax.finetune.examples.resolve` sets it
    head=head,
    metrics=("accuracy", "loss"),
    score=score,
    predictions=with_probabilities,
)
