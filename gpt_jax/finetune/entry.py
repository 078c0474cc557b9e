"""Entry of a fine-tuning task: all that the rest of the package knows of it. Must not import jax.

`gpt_jax/finetune/tasks/` holds one file for each; `TASKS.register` adds one from elsewhere.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gpt_jax.config import Config, TaskConfig
from gpt_jax.config import entries as tables
from gpt_jax.config.entries import Entry, Table
from gpt_jax.finetune.examples import Examples
from gpt_jax.finetune.inputs import Encoded, Encoder, Record
from gpt_jax.finetune.predicted import Predicted

if TYPE_CHECKING:
    import jax

    from gpt_jax.finetune.heads import Reading
    from gpt_jax.models.gpt import GPT, Params
    from gpt_jax.objectives.cross_entropy import LossSums
    from gpt_jax.objectives.parts import Objective

Scores = dict[str, float]


def one_sequence(task: TaskConfig) -> int:
    """1."""
    return 1


def first_metric(task: TaskConfig) -> str:
    """The first of the task's metrics."""
    return str(task.entry.metrics[0])


def nothing_to_refuse(config: Config) -> None:
    """No refusal."""


def nothing_to_say(config: Config) -> list[str]:
    """No lines."""
    return []


def no_scores(config: Config, examples: Examples, found: Predicted) -> Scores:
    """No scores but the loss."""
    return {}


def no_predictions(config: Config, examples: Examples, found: Predicted) -> list[Record]:
    """No predictions to be written down."""
    return []


def no_report(
    config: Config, directory: Path, examples: Examples, found: Predicted, scores: Scores
) -> None:
    """No report besides scores and predictions."""


@dataclass(frozen=True, kw_only=True)
class TaskEntry(Entry):
    """A task that `task.name` can name. It has no options: its settings are those of `task`.

    An example is a record (of a .jsonl, .csv or .tsv file) and becomes a row of K sequences.
    """

    # Records

    fields: tuple[str, ...]
    """Fields of a record that hold its texts, unless `task.fields` names others."""
    n_fields: tuple[int, ...] = ()
    """How many fields it takes, where it is not as many as its own."""
    label: str = "label"
    """Field of a record that holds the label, unless `task.label` names another."""
    labels: Literal["none", "value", "option", "class", "classes"] = "none"
    """Kind of a record's label: there is none; a number; the index of an option (of which there may
    be `task.options`); the name of a class; or a list of classes, one for each word."""
    reads: frozenset[str] = frozenset()
    """Fields of the `task` section, among `SOME_TASKS` of `gpt_jax.config.task`, that it reads; a
    config that sets another one of them is refused."""

    # Sequences

    encode: Callable[[Encoder, Record], list[Encoded]]
    """The sequences of a record; raises ValueError, without naming the place, for a bad one."""
    n_sequences: Callable[[TaskConfig], int] = one_sequence
    """K, at most."""
    generates: bool = False
    """Whether it learns responses to prompts: texts by `task.template`, tested and predicted by
    generating, for which a record may also be a conversation (`messages`)."""
    spoken: bool = False
    """Whether texts become tokens by `task.template`."""

    # Learning

    head: "Callable[[Reading, Params], tuple[jax.Array, LossSums]] | None" = None
    """A head on the last activations, beside the language model's loss: what it reads, and its
    parameters (`kernel` [D, C], `bias` [C]; C classes, or 1) -> (outputs [B, ...], sums of the
    loss). Its sequences have special tokens (`Encoder.sequence`)."""
    objective: "Callable[[Config, GPT], Objective] | None" = None
    """The objective of training, of a task without a head. Imports jax when it is called."""
    labels_by_base: bool = False
    """Whether its labels are the log-probabilities of the sequences under the model that training
    begins from."""

    # Scores

    metrics: tuple[str, ...]
    """Scores that may choose the best checkpoint (`task.metric`); lower is better of `loss`,
    higher of the others."""
    chosen_by: Callable[[TaskConfig], str] = first_metric
    """The one that does, unless task.metric is set."""
    score: Callable[[Config, Examples, Predicted], Scores] = no_scores
    """Scores of predictions besides the loss, by name."""
    predictions: Callable[[Config, Examples, Predicted], list[Record]] = no_predictions
    """Each predicted example's record with `predicted`, and how sure it is."""
    report: Callable[[Config, Path, Examples, Predicted, Scores], None] = no_report
    """Writes further files about a test into the run's directory."""
    check: Callable[[Config], None] = nothing_to_refuse
    """Raises ValueError, before training, for what cannot be reported after it; config: with
    labels."""
    notes: Callable[[Config], list[str]] = nothing_to_say
    """Lines about choices that are made without being asked."""

    @property
    def has_head(self) -> bool:
        """Whether it learns a head, from labels."""
        return self.head is not None


TASKS: Table[TaskEntry] = tables.TASKS
