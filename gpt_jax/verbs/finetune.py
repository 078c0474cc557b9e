"""`gpt-jax finetune CONFIG --from RUN`: `gpt-jax train`, of a config that begins from a run."""

import argparse
from pathlib import Path

from gpt_jax.config import Config, overrides
from gpt_jax.data.tokenizers.base import SPEC_FILE
from gpt_jax.hints import counted
from gpt_jax.parallel import processes
from gpt_jax.runs.checkpoint_choice import described
from gpt_jax.runs.directory import RunDirectory, default_directory
from gpt_jax.runs.tracking import Record
from gpt_jax.verbs import train as train_verb


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "gpt-jax finetune CONFIG --from RUN [--workdir DIR] [options] [--KEY VALUE ...]"
    parser.add_argument(
        "config", metavar="CONFIG", help="a configs/finetune_*.py: get_config(base) -> Config"
    )
    parser.add_argument(
        "--from",
        dest="base",
        type=Path,
        metavar="RUN",
        help="the run, or import, whose parameters and tokenizer it begins with",
    )
    parser.add_argument(
        "--scratch",
        action="store_true",
        help="the same model and tokenizer with fresh parameters: what did pretraining bring?",
    )
    train_verb.add_options(parser)


def run(arguments: argparse.Namespace) -> int:
    config = load(arguments)
    directory = arguments.workdir or default_directory(config)
    status = train_verb.launch(config, directory, arguments)
    result = RunDirectory(directory).read_result()
    if status == 0 and result is not None and processes.is_writer():
        _print_test(result, directory)
    return status


def load(arguments: argparse.Namespace) -> Config:
    """The config on its base. Raises ValueError for a base that is no run."""
    changes = overrides.parse_arguments(arguments.rest)
    if arguments.base is None:
        return overrides.load(arguments.config, changes)
    base = RunDirectory(arguments.base)
    config = base.require_config()
    if arguments.scratch:
        changes = {
            "data.tokenizer": str(arguments.base / "tokenizer" / SPEC_FILE),
            "base": "",
            **changes,
        }
    else:
        changes = {"base": str(arguments.base), **changes}
    return overrides.load(arguments.config, changes, base=config)


def _print_test(result: Record, directory: Path) -> None:
    scores = {name: value for name, value in result.items() if name.startswith("test_")}
    if not scores:
        return
    n = scores.pop("test_examples")
    step = result.get("tested_checkpoint")  # none in results of earlier versions
    line = step is not None and described(RunDirectory(directory).checkpoints, step)
    print(f"\ntest ({counted(n, 'example')}{f'; {line}' if line else ''})")
    width = max(map(len, scores)) - len("test_")
    for name, value in scores.items():
        shown = f"{value:.4f}" if isinstance(value, int | float) else value  # nan is a string
        print(f"  {name.removeprefix('test_'):<{width}}  {shown}")
    for name in ("report.txt", "confusion.png", "predictions.jsonl"):
        if (RunDirectory(directory).path / name).exists():
            print(f"  {directory / name}")
