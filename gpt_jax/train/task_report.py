"""The test of a fine-tuned run: scores, predictions as JSONL, a report by class, and a figure."""

import json
from pathlib import Path

from gpt_jax.config import Config
from gpt_jax.evaluate.examples import predict
from gpt_jax.evaluate.responses import respond, response_scores
from gpt_jax.finetune.examples import Examples, load_rows
from gpt_jax.finetune.noise import NOISE, perturbed
from gpt_jax.finetune.predicted import Predicted
from gpt_jax.finetune.reading import read_records
from gpt_jax.finetune.templates import asked_and_expected
from gpt_jax.models.gpt import Params
from gpt_jax.parallel.processes import is_writer
from gpt_jax.runs.checkpoint import Checkpoints
from gpt_jax.runs.checkpoint_choice import default_step
from gpt_jax.runs.restoring import restore_params
from gpt_jax.runs.tracking import Record, finite
from gpt_jax.steps.step import TrainState
from gpt_jax.storage.atomic import write_atomically
from gpt_jax.train.experiment import Experiment

PREDICTIONS = "predictions.jsonl"


def test(experiment: Experiment, checkpoints: Checkpoints, state: TrainState) -> Record:
    """Scores on task.test, for result.json, of the checkpoint that `--checkpoint auto` means.

    Writes predictions.jsonl, report.txt and confusion.png beside it.
    """
    config = experiment.config
    checkpoints.wait()
    step = default_step(checkpoints.directory)
    if config.checkpoint.keep_best:
        field = "params" if state.ema is None else "ema"
        abstract = experiment.steps.abstract_state.params
        best = restore_params(checkpoints.directory, abstract, step, field)
        state = state._replace(params=best, ema=None if state.ema is None else best)
    return {**_scores(experiment, state), "tested_checkpoint": step}


def _scores(experiment: Experiment, state: TrainState) -> Record:
    config = experiment.config
    if config.task.generates:
        return _test_responses(experiment, experiment.whole(state))
    records = read_records(config.task.test)
    examples = load_rows(config, experiment.data.tokenizer, records, config.task.test)
    params, layout = experiment.whole(state), experiment.layout
    found = predict(config, experiment.steps.outputs, params, examples, layout)
    scores = config.task.entry.score(config, examples, found)
    if is_writer():
        write_report(config, experiment.run.path, examples, found, scores)
    if config.task.robustness:
        scores |= _robustness(experiment, params, records)
    measured = finite({f"test_{name}": x for name, x in {"loss": found.loss, **scores}.items()})
    return {"test_examples": examples.n_rows, **measured}


def _robustness(experiment: Experiment, params: Params, found: list[Record]) -> dict[str, float]:
    """Accuracy under each kind of noise."""
    config, layout = experiment.config, experiment.layout
    accuracies = {}
    for kind in NOISE:
        noisy = perturbed(found, config.task.record_fields, kind, config.seed)
        examples = load_rows(config, experiment.data.tokenizer, noisy, config.task.test)
        said = predict(config, experiment.steps.outputs, params, examples, layout)
        accuracies[f"accuracy_{kind}"] = config.task.entry.score(config, examples, said)["accuracy"]
    return accuracies


def _test_responses(experiment: Experiment, params: Params) -> Record:
    """Test scores of a task that generates: the model's responses against the given ones.

    Writes the responses to the run's predictions file.
    """
    config, tokenizer = experiment.config, experiment.data.tokenizer
    found = read_records(config.task.test)
    exchanges = [asked_and_expected(record, config.task.record_fields) for record in found]
    asked, expected = zip(*exchanges, strict=True)
    n_rows = config.evaluate.batch_sequences or config.train.batch_sequences
    said = list(respond(config, experiment.model, params, tokenizer, asked, n_rows))
    if is_writer():
        lines = [
            json.dumps({**record, "predicted": text}, ensure_ascii=False) + "\n"
            for record, text in zip(found, said, strict=True)
        ]
        write_atomically(experiment.run.path / PREDICTIONS, "".join(lines))
    scores = response_scores([{"response": text} for text in expected], said, "response")
    return {"test_examples": len(found)} | {f"test_{name}": x for name, x in scores.items()}


def write_report(
    config: Config,
    directory: Path,
    examples: Examples,
    found: Predicted,
    scores: dict[str, float],
) -> None:
    """predictions.jsonl, and the task's own report."""
    said = config.task.entry.predictions(config, examples, found)
    if said:
        lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in said]
        write_atomically(directory / PREDICTIONS, "".join(lines))
    config.task.entry.report(config, directory, examples, found, scores)
