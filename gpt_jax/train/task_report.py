"""The test of a fine-tuned run: scores, predictions as JSONL, a report by class, and a figure."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from gpt_jax.config import Config
from gpt_jax.evaluate.examples import Predicted, class_ids, predict, score, tags
from gpt_jax.evaluate.responses import respond, response_scores
from gpt_jax.finetune.examples import Examples, load_rows
from gpt_jax.finetune.noise import NOISE, perturbed
from gpt_jax.finetune.reading import read_records
from gpt_jax.finetune.scores import class_report, confusion
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

CLASSES_NAMED = 40
"""Most classes for which the figure has names and numbers."""
PREDICTIONS, REPORT, FIGURE = "predictions.jsonl", "report.txt", "confusion.png"


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
    if config.task.name == "respond":
        return _test_responses(experiment, experiment.whole(state))
    records = read_records(config.task.test)
    examples = load_rows(config, experiment.data.tokenizer, records, config.task.test)
    params, layout = experiment.whole(state), experiment.layout
    found = predict(config, experiment.steps.outputs, params, examples, layout)
    scores = score(config, examples, found)
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
        accuracies[f"accuracy_{kind}"] = score(config, examples, said)["accuracy"]
    return accuracies


def _test_responses(experiment: Experiment, params: Params) -> Record:
    """Test scores for task.name = respond: the model's responses against the given ones. Writes the
    responses to the run's predictions file."""
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
    """predictions.jsonl; of classes, the report and the figure."""
    said = predictions(config, examples, found)
    if said:
        lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in said]
        write_atomically(directory / PREDICTIONS, "".join(lines))
    if config.task.name in ("classify", "entail", "similarity"):
        names = config.task.labels
        labels = class_ids(config, examples, found)
        counts = confusion(labels, found.outputs.argmax(1), len(names))
        write_atomically(directory / REPORT, report(counts, names, scores))
        draw_confusion(counts, names, directory / FIGURE)


def predictions(config: Config, examples: Examples, found: Predicted) -> list[Record]:
    """Each example's record with `predicted`, and what is known of how sure it is."""
    task, said = config.task, []
    if task.name == "tag":
        tagged = tags(config, examples, found)
        return [
            {**examples.records[i], "predicted": tag}
            for i, tag in zip(found.indices, tagged, strict=True)
        ]
    for i, outputs in zip(found.indices, found.outputs, strict=True):
        record: dict[str, Any] = dict(examples.records[i])
        if task.name == "regress":
            record["predicted"] = float(outputs)
        elif task.name in ("classify", "entail", "similarity", "choose"):
            names = task.labels or range(len(outputs))
            record["predicted"] = names[int(outputs.argmax())]
            chances = [round(float(p), 4) for p in np.exp(outputs)]
            record["probabilities"] = dict(zip(map(str, names), chances, strict=True))
        else:
            continue
        said.append(record)
    return said


def report(counts: np.ndarray, names: tuple[str, ...], scores: dict[str, float]) -> str:
    """Scores, and precision, recall and F1 of each class, as an aligned table."""
    width = max(5, *map(len, names))
    lines = [f"{name:<{width}}  {value:9.4f}" for name, value in scores.items()]
    lines += ["", f"{'class':<{width}}  precision  recall      F1  examples"]
    for name, precision, recall, f1, n in class_report(counts, names):
        lines.append(f"{name:<{width}}  {precision:9.4f}  {recall:6.4f}  {f1:6.4f}  {n:8,}")
    return "\n".join(lines) + "\n"


def draw_confusion(counts: np.ndarray, names: tuple[str, ...], path: Path) -> None:
    """Rows are labels, columns predictions; shades are shares of a row, numbers are examples.

    Of more than CLASSES_NAMED classes the shades alone: names and numbers could not be read.
    """
    import matplotlib.figure

    few = len(names) <= CLASSES_NAMED
    size = 2.2 + 0.7 * min(len(names), CLASSES_NAMED)
    figure = matplotlib.figure.Figure((size + 0.6, size), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if few:
        for (row, column), n in np.ndenumerate(counts):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{n:,}", ha="center", va="center", color=colour)
        # A $ in a name is a $, and begins no formula.
        axes.set_xticks(range(len(names)), names, rotation=30, ha="right", parse_math=False)
        axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("label")
    temporary = path.with_name(f".{path.name}")
    figure.savefig(temporary, format="png")
    temporary.replace(path)
