"""LAMBADA with GPT-2 124M at random weights: our scoring beside `transformers` on the same weights.

    pip install -e '.[benchmark]'
    python tools/benchmark_lambada.py --data DIR [--limit N] [--dtype float32]

DIR holds lambada_openai.jsonl and GPT-2's tokenizer files. Both sides score the same token ids,
sorted by length, in batches of the same number of tokens; each runs in a process of its own, once
over the first batch to compile, then over everything. transformers pads to the longest row and
computes the logits of all positions, as its forward pass does. Prints items per second, the ratio,
and the largest difference between the two sides' log-probabilities.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from gpt_jax.runtime import prepare_process, use_huge_pages

BATCH_TOKENS = 2048


def requests(data: Path, limit: int | None) -> list[Any]:
    from gpt_jax.data import records
    from gpt_jax.data.tokenizers.making import make_tokenizer
    from gpt_jax.evaluate.catalog import CATALOG
    from gpt_jax.evaluate.encode import encode_pair
    from gpt_jax.evaluate.items import read_file

    vocabulary = records.find(data, ("vocab.bpe", "merges.txt"))
    path = records.find(data, CATALOG["lambada"].files)
    if vocabulary is None or path is None:
        raise SystemExit(f"{data} holds no LAMBADA items, or not GPT-2's tokenizer files")
    tokenizer = make_tokenizer("gpt2", str(vocabulary.parent))
    items = read_file(CATALOG["lambada"], path).items
    return [encode_pair(tokenizer, *item.pairs()[0]) for item in items[:limit]]


def model_and_weights(seed: int) -> tuple[Any, dict[str, np.ndarray]]:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    model = GPT2LMHeadModel(GPT2Config(attn_implementation="sdpa")).eval()
    names = {n: p for n, p in model.state_dict().items() if not n.endswith((".bias_mask",))}
    return model, {name: value.numpy() for name, value in names.items()}


def ours(asked: list[Any], dtype: str) -> tuple[np.ndarray, float]:
    """Log-probabilities and seconds."""
    import jax

    from gpt_jax.config import ComputeConfig, Config, ModelConfig
    from gpt_jax.evaluate.scoring import Scorer, scoring_weights
    from gpt_jax.interop.gpt2 import params_from_gpt2
    from gpt_jax.models.gpt import make_gpt
    from gpt_jax.parallel.sharding import make_layout

    config = ModelConfig(vocab_size=50257, seq_len=1024, n_layers=12, d_model=768, n_heads=12)
    layout = make_layout(Config(model=config, compute=ComputeConfig(dtype=dtype)))
    _, weights = model_and_weights(0)
    params = params_from_gpt2(weights, config, "in_out")
    params = jax.device_put(params, layout.everywhere)
    model = make_gpt(config, ComputeConfig(dtype=dtype), layout)
    scorer = Scorer(model, scoring_weights(model, params), layout, batch_tokens=BATCH_TOKENS)
    scorer.score_all(asked)  # compiles every shape
    began = time.monotonic()
    scores = scorer.score_all(asked)
    return np.array([s.log_probability for s in scores]), time.monotonic() - began


def theirs(asked: list[Any], dtype: str) -> tuple[np.ndarray, float]:
    import torch

    model, _ = model_and_weights(0)
    model = model.to({"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype])
    order = sorted(range(len(asked)), key=lambda i: -len(asked[i].context))
    found = np.zeros(len(asked))

    @torch.inference_mode()
    def score(chosen: list[int]) -> None:
        rows = [(*asked[i].context, *asked[i].continuation) for i in chosen]
        width = max(map(len, rows)) - 1
        tokens = torch.zeros((len(rows), width), dtype=torch.long)
        for row, ids in enumerate(rows):
            tokens[row, : len(ids) - 1] = torch.tensor(ids[:-1])
        logits = model(input_ids=tokens, use_cache=False).logits
        for row, (i, ids) in enumerate(zip(chosen, rows, strict=True)):
            n = len(asked[i].continuation)
            scored = logits[row, len(ids) - 1 - n : len(ids) - 1].float().log_softmax(-1)
            found[i] = float(scored.gather(1, torch.tensor(ids[-n:])[:, None]).sum())

    batches, position = [], 0
    while position < len(order):
        first = asked[order[position]]
        n = max(1, BATCH_TOKENS // (len(first.context) + len(first.continuation)))
        batches.append(order[position : position + n])
        position += n
    score(batches[-1])
    began = time.monotonic()
    for batch in batches:
        score(batch)
    return found, time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--side", choices=["ours", "theirs"], help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        if arguments.side == "ours":  # as the command line does
            use_huge_pages()
            prepare_process()
        asked = requests(arguments.data, arguments.limit)
        side = ours if arguments.side == "ours" else theirs
        logs, seconds = side(asked, arguments.dtype)
        np.savez(arguments.out, logs=logs, seconds=seconds)
        return
    sides = {}
    with tempfile.TemporaryDirectory() as directory:
        for side in ("ours", "theirs"):
            out = Path(directory) / f"{side}.npz"
            command = [sys.executable, *sys.argv, "--side", side, "--out", str(out)]
            subprocess.run(command, check=True)
            with np.load(out) as found:
                sides[side] = found["logs"], float(found["seconds"])
            n, seconds = len(sides[side][0]), sides[side][1]
            print(f"{side:<7} {n:,} items in {seconds:.1f} s, {n / seconds:.1f} items/s")
    ratio = sides["theirs"][1] / sides["ours"][1]
    difference = np.abs(sides["ours"][0] - sides["theirs"][0]).max()
    print(f"ours is {ratio:.2f} times as fast; largest difference {difference:.1e} nats")


if __name__ == "__main__":
    main()
