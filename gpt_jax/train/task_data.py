"""The examples of a task as training data (`gpt_jax.train.experiment.TrainingData`)."""

from __future__ import annotations

import dataclasses
import functools

import jax
import numpy as np

from gpt_jax.config import Config
from gpt_jax.data.batch import Batch
from gpt_jax.data.tokenizers import Tokenizer, load_tokenizer
from gpt_jax.data.tokenizers.making import make_tokenizer
from gpt_jax.evaluate.examples import predict, validate_examples
from gpt_jax.evaluate.validation import Validation
from gpt_jax.finetune.checks import said_of_reports
from gpt_jax.finetune.examples import (
    Examples,
    ExampleStream,
    check_test,
    fingerprint,
    load_rows,
    resolve,
)
from gpt_jax.finetune.reading import said_of_classes, said_of_examples, split_records
from gpt_jax.finetune.responses import sequence_log_probabilities
from gpt_jax.models.gpt import GPT, Params
from gpt_jax.objectives.cross_entropy import LossSums, no_loss
from gpt_jax.output import say
from gpt_jax.parallel.processes import is_writer
from gpt_jax.parallel.sharding import Layout
from gpt_jax.runs.directory import RunDirectory
from gpt_jax.steps.compiled_steps import CompiledSteps


@dataclasses.dataclass(frozen=True)
class TaskData:
    """Examples: fine-tuning."""

    tokenizer: Tokenizer
    stream: ExampleStream
    validation: Examples
    fingerprints: list[str]
    unique_tokens: int | None = None
    """Examples have no such number."""
    shares: None = None

    def begun_at(self, params: Params, config: Config, model: GPT, layout: Layout) -> TaskData:
        """The examples; of a preference, labelled with the log-probabilities of their responses
        under the model that training begins from."""
        if not config.task.entry.labels_by_base:
            return self

        @functools.partial(jax.jit, out_shardings=layout.everywhere)
        def compute(params: Params, batch: Batch) -> tuple[LossSums, jax.Array]:
            return no_loss(), sequence_log_probabilities(config, model, params, batch)

        def labelled(examples: Examples) -> Examples:
            found = predict(config, compute, params, examples, layout)
            read = np.asarray(examples.batch.label_weights_BT)
            shape = (*found.outputs.shape, -1)
            labels = np.where(read.reshape(shape) > 0, found.outputs[..., None], 0.0)
            labels_BT = labels.reshape(read.shape).astype(np.float32)
            return dataclasses.replace(examples, batch=examples.batch._replace(labels_BT=labels_BT))

        stream = ExampleStream(labelled(self.stream.examples), config.seed)
        return dataclasses.replace(self, stream=stream, validation=labelled(self.validation))

    def validate(
        self,
        config: Config,
        steps: CompiledSteps,
        layout: Layout,
        params: Params,
        max_sequences: int | None,
    ) -> Validation:
        """Loss and scores on the held-out examples; params: all of the model's."""
        return validate_examples(
            config, steps.outputs, params, self.validation, layout, max_sequences
        )


def make_task_data(config: Config) -> TaskData:
    """The examples of a config; config: `resolved_task`. Says what was read, and what was cut."""
    tokenizer, task = task_tokenizer(config), config.task
    read: list[str] = []
    training, validation = split_records(config, read)
    _say(*read, said_of_examples(training, validation, config))
    _say(*said_of_classes(training, config), *said_of_reports(config))
    rows = load_rows(config, tokenizer, training, task.train, training=True)
    _say(*rows.notes)
    held_out_path = task.validation or f"{task.train} (held out for validation)"
    held_out = load_rows(config, tokenizer, validation, held_out_path)
    _say(*held_out.notes, *check_test(config, tokenizer))
    return TaskData(
        tokenizer,
        ExampleStream(rows, config.seed),
        held_out,
        [fingerprint(training), fingerprint(validation)],
    )


def _say(*notes: str) -> None:
    """Lines on stderr, of one process."""
    for note in notes if is_writer() else ():
        say(note)


def resolved_task(config: Config) -> Config:
    """The config with what the training examples decide: classes, length, tokens of an epoch."""
    return resolve(config, task_tokenizer(config))


def task_tokenizer(config: Config) -> Tokenizer:
    """The tokenizer of the run that a task begins from; without one, the one that data names."""
    if config.base:
        return load_tokenizer(RunDirectory(config.base).tokenizer)
    return make_tokenizer(config.data.tokenizer, config.data.tokenizer_path)
