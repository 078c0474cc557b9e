"""`gpt-jax export`: a run becomes a folder that `transformers` loads. Must not import jax."""

import argparse
import re
import sys
from pathlib import Path

from gpt_jax.interop.family import family_of_config
from gpt_jax.runs import checkpoint_choice
from gpt_jax.runs.checkpoint_choice import parse_which
from gpt_jax.runs.directory import RunDirectory
from gpt_jax.runs.loading import load_run
from gpt_jax.storage.json_files import read_object

UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}

EPILOG = """\
example:
  gpt-jax export runs/mine --format huggingface --to exported/mine

writes config.json, generation_config.json, safetensors (float32) and tokenizer files, so that
AutoModelForCausalLM and AutoTokenizer load the folder. The architecture picks the model_type, of
those that `gpt-jax import --families` lists; an imported run keeps the one that it came from. What
none of them can carry is refused by name. Of a run of LoRA the merged model is written, or with

  gpt-jax export runs/tuned --format peft --to exported/adapter --base-name exported/base

its factors, which peft's PeftModel.from_pretrained puts on the exported base."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="RUN", help="a run's directory")
    parser.add_argument(
        "--format",
        choices=["huggingface", "peft"],
        default="huggingface",
        help="huggingface: a whole model; peft: a LoRA run's factors alone",
    )
    parser.add_argument(
        "--base-name", metavar="NAME", help="peft: the base's name there (default: its run's path)"
    )
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="not there yet")
    checkpoint_choice.add_argument(parser)
    parser.add_argument(
        "--shard-size", default="5GB", metavar="SIZE", help="largest file; default 5GB"
    )
    parser.epilog = EPILOG


def run(arguments: argparse.Namespace) -> int:
    from gpt_jax.adapt import make_adaptation
    from gpt_jax.interop.folders import write_folder
    from gpt_jax.interop.peft_folder import write_adapter

    shard_bytes = parse_size(arguments.shard_size)
    saved = RunDirectory(arguments.directory).read_config()
    if saved is not None:
        family_of_config(saved.model)  # before any weights are read
    config, model, params, tokenizer = load_run(
        arguments.directory, parse_which(arguments.checkpoint)
    )
    if arguments.format == "peft":
        name = arguments.base_name or config.base
        n = write_adapter(arguments.to, config.model, params, name)
        print(f"exported the low-rank terms of {n} matrices to {arguments.to}")
        return 0
    params = make_adaptation(config.adapt, model).merge(params)
    if config.task.has_head or config.task.image_encoder != "none":
        print(
            "the task's head, or image encoder, is left out: the format has none", file=sys.stderr
        )
    print(f"writing {arguments.to}", file=sys.stderr)
    came_from = str(read_object(RunDirectory(arguments.directory).config).get("model_type", ""))
    model_type = write_folder(arguments.to, config.model, params, tokenizer, shard_bytes, came_from)
    print(f"exported {arguments.directory} to {arguments.to} as {model_type}")
    return 0


def parse_size(text: str) -> int:
    """Bytes of '5GB', '200MB' or a plain number. Raises ValueError."""
    match = re.fullmatch(r"(\d+) ?(KB|MB|GB|)", text.upper())
    size = int(match[1]) * UNITS[match[2]] if match else 0
    if size < 1:
        raise ValueError(f"--shard-size {text}; allowed: a size such as 5GB, 200MB or 4096")
    return size
