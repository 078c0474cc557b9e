"""`gpt-jax predict RUN --input FILE`: what a fine-tuned run says of new examples, as JSONL."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from gpt_jax.finetune.inputs import Record
from gpt_jax.runs import checkpoint_choice
from gpt_jax.runs.checkpoint_files import Which


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="RUN", help="a run of gpt-jax finetune")
    parser.add_argument(
        "--input",
        type=Path,
        required=True,
        metavar="FILE",
        help="examples as they were for training, labels may be missing: .jsonl, .csv or .tsv; for "
        "a task of one text also .txt, a text a line",
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="a .jsonl file; default: printed"
    )
    checkpoint_choice.add_argument(parser)
    parser.add_argument("--batch", type=int, default=64, help="examples at a time; default 64")
    parser.add_argument(
        "--max-new-tokens", type=int, default=128, help="respond: tokens of a response, at most"
    )

    parser.epilog = "--compute.KEY VALUE changes how it is computed, e.g. --compute.dtype float32."
    parser.set_defaults(takes_overrides=True)


def run(arguments: argparse.Namespace) -> int:
    from gpt_jax.config.overrides import parse_arguments
    from gpt_jax.storage.atomic import write_atomically

    if arguments.batch < 1:
        raise ValueError(f"--batch {arguments.batch}; allowed: 1 or more")
    which = checkpoint_choice.parse_which(arguments.checkpoint)
    said = predict_file(
        arguments.directory,
        arguments.input,
        which,
        arguments.batch,
        arguments.max_new_tokens,
        parse_arguments(arguments.rest),
    )
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in said)
    if arguments.output is None:
        sys.stdout.write(text)
    else:
        write_atomically(arguments.output, text)
        print(f"{len(said):,} predictions in {arguments.output}")
    return 0


def predict_file(
    directory: str | Path,
    path: Path,
    which: Which = "auto",
    batch_rows: int = 64,
    max_new_tokens: int = 128,
    changes: Mapping[str, str] | None = None,
) -> list[Record]:
    """The file's records with `predicted` (and probabilities) added; respond: `response`.

    Raises ValueError for a run without a task, or records that are no examples of it.
    """
    import dataclasses

    import jax

    from gpt_jax.config import EvaluateConfig, MeshConfig
    from gpt_jax.data.tokenizers import load_tokenizer
    from gpt_jax.evaluate.examples import predict
    from gpt_jax.finetune.checks import said_of_prompts
    from gpt_jax.finetune.examples import encode_each, load_rows, n_prefix
    from gpt_jax.finetune.inputs import encoder
    from gpt_jax.finetune.objective import task_objective
    from gpt_jax.parallel.sharding import make_layout
    from gpt_jax.runs.directory import RunDirectory
    from gpt_jax.runs.loading import computed_as, load_model

    run_directory = RunDirectory(directory)
    config = computed_as(run_directory.require_config(), changes or {})
    if not config.task.has_examples or config.task.labels_by_base:
        raise ValueError(
            f"{directory} has task.name = {config.task.name}, which labels nothing; continue "
            f"prompts with gpt-jax generate"
        )
    config = dataclasses.replace(
        config, mesh=MeshConfig(), evaluate=EvaluateConfig(batch_sequences=batch_rows)
    )
    layout = make_layout(config)
    tokenizer = load_tokenizer(run_directory.tokenizer)
    model, params = load_model(run_directory, config, which, layout)
    notes: list[str] = []
    found = read_input(path, config.task.record_fields, notes)
    if config.task.generates:
        from gpt_jax.evaluate.responses import respond

        encode = encoder(config.model, config.task, tokenizer, n_prefix(config))
        prompts = encode_each(encode.spoken_prompt, found, str(path))
        _say(*notes, *said_of_prompts(prompts, found, str(path), encode.room))
        said = respond(config, model, params, tokenizer, found, batch_rows, max_new_tokens)
        return [{**record, "response": text} for record, text in zip(found, said, strict=True)]
    examples = load_rows(config, tokenizer, found, str(path), labelled=False)
    _say(*notes, *examples.notes)
    objective = task_objective(config, model)
    outputs = jax.jit(objective.outputs, out_shardings=layout.everywhere)
    predicted = predict(config, outputs, params, examples, layout)
    predictions: list[Record] = config.task.entry.predictions(config, examples, predicted)
    return predictions


def _say(*notes: str) -> None:
    for note in notes:
        print(note, file=sys.stderr)


def read_input(path: Path, fields: Sequence[str], notes: list[str] | None = None) -> list[Record]:
    """Records of a file; of a .txt, its lines as the only field.

    notes: what was guessed or left out is added to them.
    """
    from gpt_jax.finetune.reading import read_records
    from gpt_jax.storage import tables

    if path.suffix == ".txt" and len(fields) == 1:
        lines = tables.lines(tables.read_text(path))
        return [
            tables.Row({fields[0]: line}, f"{path} line {i}", i) for i, line in enumerate(lines, 1)
        ]
    return read_records(str(path), notes)
