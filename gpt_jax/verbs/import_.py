"""`gpt-jax import`: a Hugging Face folder becomes a run's directory. Must not import jax."""

import argparse
import base64
import sys
from pathlib import Path

from gpt_jax import pasting
from gpt_jax.config import Config, DataConfig
from gpt_jax.cost import flops
from gpt_jax.data.tokenizers.base import SPEC_FILE
from gpt_jax.data.tokenizers.entries.ids import IdsTokenizer
from gpt_jax.data.tokenizers.subword import BytePairTokenizer
from gpt_jax.data.tokenizers.tokenizer_json import JsonTokenizer
from gpt_jax.interop.family_table import family_table
from gpt_jax.interop.folders import Imported, read_folder, refuse_pickled_only
from gpt_jax.interop.tokenizer_reading import TOKENIZER
from gpt_jax.runs.directory import RunDirectory
from gpt_jax.runs.loading import write_model
from gpt_jax.storage.atomic import write_atomically
from gpt_jax.storage.optional import require

WANTED = ("*.safetensors", "*.json", "*.jinja", "merges.txt", "tokenizer.model")
"""Files of a published model that are downloaded: no pickles, no other formats."""

EPILOG = """\
examples:
  gpt-jax import openai-community/gpt2 --workdir runs/gpt2
  gpt-jax import openai-community/openai-gpt --workdir runs/gpt1
  gpt-jax import path/to/folder --workdir runs/mine
  gpt-jax import EleutherAI/pythia-160m --workdir runs/pythia-160m
  gpt-jax import --families                                # the families that are read, as a table
  gpt-jax generate runs/gpt2 --prompt 'Hello'

A folder holds config.json (of a model_type that --families lists), safetensors (one file, or
sharded with an index) and tokenizer files. Weights become float32. Nothing is unpickled.

How its texts begin and end comes with it, and stays with the run: tokens before every text (BOS),
ids that end one (generation_config.json), added tokens, and the chat template. They are used by
generate, serve, eval and predict, and written again by export."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", metavar="MODEL", nargs="?", help="a local folder, or OWNER/NAME on the hub"
    )
    parser.add_argument("--workdir", type=Path, help="the run's directory (default: runs/NAME)")
    parser.add_argument(
        "--tokenizer",
        default="",
        metavar="NAME",
        help="instead of the folder's: byte, gpt2, gpt1, a tokenizer.json or .model file, or ids: "
        "texts are numbers, for a model of symbols",
    )
    parser.add_argument(
        "--families", action="store_true", help="print the families that are read, and stop"
    )
    parser.epilog = EPILOG


def run(arguments: argparse.Namespace) -> int:
    if arguments.families:
        print(family_table())
        return 0
    if arguments.source is None:
        raise ValueError("name a model: a local folder, or OWNER/NAME on the hub")
    name = Path(arguments.source).resolve().name
    directory = arguments.workdir or Path("runs") / name
    target = RunDirectory(directory)
    with target.locked():
        if target.config.exists():
            raise ValueError(f"{directory} holds a run already; choose another --workdir")
        folder = find_folder(arguments.source)
        print(f"reading {folder}", file=sys.stderr)
        imported = read_folder(folder, arguments.tokenizer)
        make_run(target, name, arguments.source, imported)
    n_params = flops.count_parameters(imported.config).n_params
    print(
        f"imported {arguments.source} ({imported.model_type}, {n_params:,} parameters) into "
        f"{directory}"
    )
    ask = pasting.command("generate", directory, "--prompt", "Once")
    print(pasting.shown([(ask, "continue a prompt")]))
    return 0


def find_folder(source: str) -> Path:
    """The local folder of that name, or else a published model's files, downloaded once.

    Raises ValueError if neither is to be had, saying why.
    """
    path = Path(source)
    if path.exists():
        refuse_pickled_only(path)
        return path
    if source.count("/") > 1 or source.startswith((".", "/", "~")):
        raise ValueError(f"no folder {source}; give a folder, or OWNER/NAME of a published model")
    hub = require("huggingface_hub", "huggingface")
    try:
        return Path(hub.snapshot_download(source, allow_patterns=WANTED, ignore_patterns=["*/*"]))
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"no folder {source} here, and it cannot be downloaded ({reason}); fetch it where "
            "there is a network, and give the folder"
        ) from None


def make_run(run: RunDirectory, name: str, source: str, imported: Imported) -> None:
    """A run of the folder's weights."""
    import jax

    run.tokenizer.mkdir(parents=True, exist_ok=True)
    data = DataConfig(tokenizer=_tokenizer_name(run, imported))
    config = Config(name=name, model=imported.config, data=data)
    facts = {"imported_from": source, "model_type": imported.model_type}
    write_model(run, config, jax.device_put(imported.params), imported.tokenizer, facts)


def _tokenizer_name(run: RunDirectory, imported: Imported) -> str:
    """Value of data.tokenizer for a config that continues training with the same ids."""
    tokenizer = imported.tokenizer
    if isinstance(tokenizer, BytePairTokenizer):
        return "gpt2"
    if isinstance(tokenizer, IdsTokenizer):
        return f"ids:{tokenizer.vocab_size}"
    if isinstance(tokenizer, JsonTokenizer):
        path = run.tokenizer / TOKENIZER
        write_atomically(path, tokenizer.spec["json"])
        return str(run.tokenizer / SPEC_FILE if "end_of_text" in tokenizer.spec else path)
    kind = tokenizer.spec["kind"]
    if kind == "sentencepiece":
        path = run.tokenizer / "tokenizer.model"
        path.write_bytes(base64.b64decode(tokenizer.spec["model"]))
        return str(path)
    return kind
