"""A run, made smaller in every way that `gpt-jax compress` knows: size, loss and decoding speed.

    gpt-jax train configs/quickstart.py
    python experiments/compress/measure.py runs/quickstart runs/compress
    python experiments/compress/measure.py table

The first writes results.json and loss.png beside this file; the second prints the tables again.
Nothing is trained after it is made smaller.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from gpt_jax import cli
from gpt_jax.config import overrides
from gpt_jax.data import prepare
from gpt_jax.evaluate.validation import validate
from gpt_jax.inference.decode import decoding_params, generate_tokens
from gpt_jax.inference.settings import SamplingConfig
from gpt_jax.models.gpt import make_gpt
from gpt_jax.models.trees import flatten
from gpt_jax.parallel.sharding import make_layout
from gpt_jax.runs.checkpoint_files import read_manifest, saved_steps
from gpt_jax.runs.directory import RunDirectory
from gpt_jax.runs.loading import load_run
from gpt_jax.scaling.plots import COLOURS, STYLE
from gpt_jax.steps.compiled_steps import compile_steps

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
CALIBRATION_TOKENS = 2_000
NEW_TOKENS = 256
VARIANTS: dict[str, list[str]] = {
    "int8": ["--weights", "int8"],
    "int4, groups of 128": ["--weights", "int4", "--group", "128"],
    "int4, groups of 32": ["--weights", "int4", "--group", "32"],
    **{f"magnitude {share}": ["--prune", f"magnitude:{share}"] for share in (0.3, 0.5, 0.7, 0.9)},
    "2:4": ["--prune", "2:4"],
    "2:4, int8": ["--prune", "2:4", "--weights", "int8"],
    **{f"heads - {n}": ["--prune", f"heads:{n}"] for n in (1, 2, 3)},
    **{f"layers - {n}": ["--prune", f"layers:{n}"] for n in (1, 2, 3)},
}


def measure(run: Path) -> dict[str, Any]:
    """Stored bytes, weights that are not zero, held-out loss, tokens/s of decoding one text."""
    config, _, params, _ = load_run(run)
    layout = make_layout(config)
    model = make_gpt(config.model, config.compute, layout)
    steps = compile_steps(config, model, layout)
    split = prepare(config.data, progress=False).split("validation")
    found = validate(config, steps.evaluate, params, split, layout)
    checkpoints = RunDirectory(run).checkpoints
    manifest = read_manifest(checkpoints / str(saved_steps(checkpoints)[-1]))
    stored = [x for name, x in manifest.arrays.items() if name.startswith("params/")]
    return {
        "bytes": sum(np.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in stored).item(),
        "nonzero": sum(int(np.count_nonzero(x)) for x in flatten(params).values()),
        "loss": found.loss,
        "bits_per_byte": found.bits_per_byte,
        "tokens": found.n_tokens,
        "decoded_a_second": decoding_speed(model, params),
        "fingerprint": overrides.fingerprint(config),
    }


def decoding_speed(model: Any, params: Any) -> float:
    """Tokens a second of one text, the median of three after one that compiles."""
    params = decoding_params(model, params)
    sampling = SamplingConfig(temperature=0.0, max_new_tokens=NEW_TOKENS)
    seconds = []
    for _ in range(4):
        began = time.perf_counter()
        (tokens,) = generate_tokens(model, params, [np.asarray([1])], sampling)
        seconds.append((time.perf_counter() - began) / len(tokens))
    return 1 / float(np.median(seconds[1:]))


def measure_all(source: Path, work: Path) -> None:
    config, _, _, tokenizer = load_run(source)
    work.mkdir(parents=True, exist_ok=True)
    text = work / "training_text.txt"
    ids = prepare(config.data, progress=False).split("train").read(0, CALIBRATION_TOKENS)
    text.write_text(tokenizer.decode(ids.tolist()), encoding="utf-8")
    results = {"float32": measure(source)}
    for name, options in VARIANTS.items():
        made = work / name.replace(" ", "_").replace(",", "").replace(":", "_")
        if "layers" in options[1]:
            options = [*options, "--text", str(text)]
        if not (made / "config.json").exists():
            assert cli.main(["compress", str(source), "--workdir", str(made), *options]) == 0
        results[name] = measure(made)
        print(f"{name:<22}{results[name]['loss']:.4f}", flush=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    draw(results)
    print(table(results))


def table(results: dict[str, Any]) -> str:
    whole = results["float32"]
    lines = [
        "| variant | bytes | of all | weights not zero | loss (nats) | perplexity | decoded |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, r in results.items():
        lines.append(
            f"| {name} | {r['bytes']:,} | {r['bytes'] / whole['bytes']:.0%} | {r['nonzero']:,} "
            f"| {r['loss']:.4f} | {np.exp(r['loss']):.1f} | {r['decoded_a_second']:.0f}/s |"
        )
    return "\n".join(lines)


def draw(results: dict[str, Any]) -> None:
    """The loss of what is left, against how many weights are left."""
    whole = results["float32"]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        panel = figure.subplots()
        for kind, marker, colour in zip(
            ("magnitude", "2:4", "heads", "layers"), "o*s^", COLOURS, strict=False
        ):
            chosen = [r for name, r in results.items() if kind in name and "int" not in name]
            points = sorted([whole, *chosen], key=lambda r: r["nonzero"])
            shares = [r["nonzero"] / whole["nonzero"] for r in points]
            losses = [r["loss"] for r in points]
            panel.plot(shares, losses, marker=marker, color=colour, label=kind)
        panel.set_xlabel("weights that are not zero, of all")
        panel.set_ylabel("held-out loss (nats per token)")
        panel.legend()
        figure.savefig(HERE / "loss.png", dpi=120)


if __name__ == "__main__":
    if sys.argv[1:] == ["table"]:
        print(table(json.loads(RESULTS.read_text())))
    elif len(sys.argv) == 3:
        measure_all(Path(sys.argv[1]), Path(sys.argv[2]))
    else:
        sys.exit(__doc__)
