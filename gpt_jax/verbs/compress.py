"""`gpt-jax compress RUN`: a smaller run of a trained one, by fewer bits or fewer weights."""

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gpt_jax import pasting
from gpt_jax.config import AdaptConfig, Config
from gpt_jax.data.tokenizers import Tokenizer
from gpt_jax.runs import checkpoint_choice
from gpt_jax.runs.checkpoint_choice import parse_which
from gpt_jax.runs.directory import RunDirectory
from gpt_jax.runs.loading import load_run, write_model
from gpt_jax.runs.tracking import Record
from gpt_jax.storage.optional import require

if TYPE_CHECKING:
    import jax

    from gpt_jax.compress.prune import Pruning
    from gpt_jax.models.gpt import GPT, Params

EPILOG = """\
examples:
  gpt-jax compress runs/quickstart --workdir runs/int8 --weights int8
  gpt-jax compress runs/quickstart --workdir runs/int4 --weights int4 --group 32
  gpt-jax compress runs/quickstart --workdir runs/half --prune magnitude:0.5
  gpt-jax compress runs/quickstart --workdir runs/shallow --prune layers:1 --text some.txt

What is written is a run: generate, eval, serve, predict, export and finetune --from read it.
Pruning comes before rounding. Weights in few bits make files smaller; products are computed in
floats."""
CALIBRATION_SEQUENCES = 8
"""Sequences of the text on which layers are compared."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="RUN", help="a run's directory")
    parser.add_argument("--workdir", type=Path, required=True, metavar="DIR", help="the new run's")
    parser.add_argument(
        "--weights",
        choices=["float32", "int8", "int4"],
        default="float32",
        help="int8: a scale for each output of a matrix; int4: for each --group of its inputs",
    )
    parser.add_argument(
        "--group", type=int, default=64, metavar="N", help="int4: inputs of a scale; default 64"
    )
    parser.add_argument(
        "--prune",
        metavar="WHAT",
        help="magnitude:SHARE of the weights, 2:4, heads:N of each layer, or layers:N",
    )
    parser.add_argument(
        "--text", type=Path, metavar="FILE", help="layers:N: a text on which layers are compared"
    )
    checkpoint_choice.add_argument(parser)
    parser.epilog = EPILOG


def run(arguments: argparse.Namespace) -> int:
    from gpt_jax.compress.prune import parse, prune

    pruning = parse(arguments.prune) if arguments.prune else None
    _check(arguments, pruning)
    target = RunDirectory(arguments.workdir)
    with target.locked():
        if target.config.exists():
            raise ValueError(f"{target.path} holds a run already; choose another --workdir")
        which = parse_which(arguments.checkpoint)
        config, model, params, tokenizer = load_run(arguments.directory, which)
        if config.model.n_experts is not None:
            raise ValueError("gpt-jax compress does not know mixtures of experts yet")
        config, params = plain(config, model, params)
        before = stored_bytes(params)
        if pruning is not None:
            tokens_BT = None
            if pruning.form == "layers":
                tokens_BT = calibration(arguments.text, tokenizer, config.model.seq_len)
            smaller, params = prune(pruning, model, params, tokens_BT)
            config = dataclasses.replace(config, model=smaller)
        if arguments.weights != "float32":
            from gpt_jax.runs.quantised import quantise

            params = quantise(params, arguments.weights, arguments.group)
        config = dataclasses.replace(config, name=target.path.name)
        print(f"writing {target.path}", file=sys.stderr)
        write_model(target, config, params, tokenizer, facts(arguments))
    after = stored_bytes(params)
    print(
        f"{target.path}: {after:,} bytes of parameters, {after / before:.1%} of the {before:,} "
        f"of {arguments.directory}"
    )
    score = pasting.command("eval", target.path, "--text", "FILE")
    print(pasting.shown([(score, "what it lost")]))
    return 0


def _check(arguments: argparse.Namespace, pruning: "Pruning | None") -> None:
    """Mistakes that should not wait for the weights."""
    if pruning is None and arguments.weights == "float32":
        raise ValueError("nothing to do: give --weights int8, --weights int4 or --prune WHAT")
    if arguments.group < 1:
        raise ValueError(f"--group {arguments.group}; allowed: 1 or more")
    if arguments.weights != "float32":
        require("qwix", "compress")
    needs_text = pruning is not None and pruning.form == "layers"
    if needs_text and arguments.text is None:
        raise ValueError("--prune layers:N compares layers on a text: give --text FILE")
    if arguments.text is not None and not needs_text:
        raise ValueError("--text is for --prune layers:N")
    if arguments.text is not None and not arguments.text.is_file():
        raise ValueError(f"--text {arguments.text}: no such file")
    RunDirectory(arguments.directory).require_config()


def plain(config: Config, model: "GPT", params: "Params") -> tuple[Config, "Params"]:
    """The config and parameters of a run that begins from nothing: adaptations merged, no moving
    average beside. Raises ValueError for an adaptation that cannot be merged."""
    from gpt_jax.adapt import make_adaptation

    params = make_adaptation(config.adapt, model).merge(params)
    optimizer = dataclasses.replace(config.optimizer, ema_decay=None)
    return dataclasses.replace(config, base="", adapt=AdaptConfig(), optimizer=optimizer), params


def calibration(path: Path, tokenizer: Tokenizer, seq_len: int) -> "jax.Array":
    """The first sequences of a text [B, T]. Raises ValueError for a text shorter than one."""
    import jax.numpy as jnp

    ids = tokenizer.encode(path.read_text(encoding="utf-8"))
    n = min(CALIBRATION_SEQUENCES, len(ids) // seq_len)
    if not n:
        raise ValueError(f"--text {path} has {len(ids):,} tokens; {seq_len:,} or more are needed")
    return jnp.asarray(ids[: n * seq_len].reshape(n, seq_len), jnp.int32)


def facts(arguments: argparse.Namespace) -> Record:
    """Origin of the run, as recorded in config.json."""
    return {
        "compressed_from": arguments.directory,
        "weights": arguments.weights,
        "group": arguments.group if arguments.weights == "int4" else None,
        "pruned": arguments.prune,
        "data": (RunDirectory(arguments.directory).read_facts() or {}).get("data", []),
    }


def stored_bytes(params: "Params") -> int:
    import jax

    return sum(x.nbytes for x in jax.tree.leaves(params))
