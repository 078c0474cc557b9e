"""Eight learning rates: one packed sweep against eight `gpt-jax train` runs one after another.

    python tools/benchmark_packing.py [--seconds 20] [--out runs/benchmark_packing]

For models of several sizes, trains whole runs from whole processes, with a persistent compilation
cache that both sides find empty: the first single run compiles for the other seven. Prints the
ratio of times by size, and what the launcher chose; writes packing.json, packing.png and .svg.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from gpt_jax.config import Config, DataConfig, ModelConfig, ScheduleConfig, TrainConfig
from gpt_jax.cost import flops
from gpt_jax.scaling.plots import COLOURS, STYLE, save
from gpt_jax.storage.atomic import write_json

RATES = [0.001 * 2**i for i in range(8)]
SHAPES = {(2, 32): 64, (2, 64): 64, (4, 128): 64}
"""(layers, width): sequence length; batches of 12."""
SWEEP = """
from gpt_jax.config import *
from gpt_jax.sweep.grid import values
from gpt_jax.sweep.trial import make_trials
import json
from gpt_jax.config.overrides import from_dict

def get_sweep():
    base = from_dict(json.load(open({config!r})))
    return make_trials(base, values("optimizer.learning_rate", {rates}))
"""


def config(n_layers: int, width: int, seq_len: int, n_steps: int) -> Config:
    return Config(
        model=ModelConfig(
            vocab_size=257, seq_len=seq_len, n_layers=n_layers, d_model=width,
            n_heads=max(1, width // 32), position="rotary",
        ),
        data=DataConfig(source="stdlib", tokenizer="byte", validation_fraction=0.002),
        train=TrainConfig(tokens=n_steps * 12 * seq_len, batch_sequences=12),
        schedule=ScheduleConfig(name="linear"),
    )  # fmt: skip


def run(arguments: list[str], cache: Path) -> float:
    """Seconds of a whole process; its compilation cache is `cache`."""
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)}
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "gpt_jax", *arguments],
        env=environment, check=True, capture_output=True,
    )  # fmt: skip
    return time.perf_counter() - began


def single_runs(made: Config, directory: Path, cache: Path, rates: list[float]) -> list[float]:
    """Seconds of each `gpt-jax train`."""
    file = write_config(made, directory)
    return [
        run(
            ["train", str(file), "--workdir", str(directory / f"single-{rate}"),
             "--optimizer.learning_rate", str(rate)],
            cache,
        )
        for rate in rates
    ]  # fmt: skip


def write_config(made: Config, directory: Path) -> Path:
    from gpt_jax.config import overrides

    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "config.json"
    write_json(path, overrides.to_dict(made))
    return path


def packed_run(made: Config, directory: Path, cache: Path) -> tuple[float, str]:
    """Seconds of the sweep, and how its launcher trained the pack."""
    file = directory / "pack.py"
    file.write_text(SWEEP.format(config=str(write_config(made, directory)), rates=RATES))
    runs = directory / "packed"
    seconds = run(
        ["sweep", "run", str(file), "--launcher", "packed", "--workdir", str(runs)], cache
    )
    log = "".join(path.read_text() for path in (runs / "logs").glob("*.log"))
    found = re.search(r"^\d+ trials (.*)$", log, re.M)
    return seconds, found[1] if found else "?"


def steps_for(seconds: float, made: Config, directory: Path) -> int:
    """How many steps make a single run take so long, start included: from two short runs."""
    cache = directory / "cache"
    file = write_config(made, directory)
    times = []
    for n_steps in (600, 600, 1000):  # one length of the table of rates: one compilation
        tokens = str(n_steps * 12 * made.model.seq_len)
        workdir = directory / f"probe-{len(times)}"
        times.append(
            run(["train", str(file), "--workdir", str(workdir), "--train.tokens", tokens], cache)
        )
    per_step = max(1e-4, (times[2] - times[1]) / 400)
    return max(250, int(1000 + (seconds - times[2]) / per_step))


def measure(n_layers: int, width: int, seq_len: int, seconds: float, out: Path) -> dict:
    directory = out / f"{n_layers}x{width}"
    shutil.rmtree(directory, ignore_errors=True)
    n_steps = steps_for(seconds, config(n_layers, width, seq_len, 20), directory / "probe")
    made = config(n_layers, width, seq_len, n_steps)
    packed, how = packed_run(made, directory, directory / "cache-packed")
    single = single_runs(made, directory, directory / "cache-single", RATES)
    return {
        "n_layers": n_layers, "d_model": width,
        "n_params": flops.count_parameters(made.model).n_params, "n_steps": n_steps,
        "single_seconds": single, "packed_seconds": packed, "ratio": packed / sum(single),
        "how": how,
    }  # fmt: skip


def draw(rows: list[dict], stem: Path) -> None:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.subplots()
        sizes = [row["n_params"] for row in rows]
        axes.plot(sizes, [row["ratio"] for row in rows], "o-", color=COLOURS[0])
        axes.axhline(1, color="grey", linewidth=1)
        axes.set_xscale("log")
        axes.set_xticks(sizes, [f"{n:,}" for n in sizes])
        axes.minorticks_off()
        axes.set_ylim(0, 1.1)
        axes.set(xlabel="parameters N", ylabel="time of the packed sweep / of 8 single runs")
        save(figure, stem)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="of a single run")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark_packing"))
    parsed = parser.parse_args()
    rows = []
    for (n_layers, width), seq_len in SHAPES.items():
        row = measure(n_layers, width, seq_len, parsed.seconds, parsed.out)
        rows.append(row)
        single = row["single_seconds"]
        print(
            f"{row['n_params']:>9,} parameters: {len(single)} single runs {sum(single):6.1f} s "
            f"(first {single[0]:.1f}, median {sorted(single)[len(single) // 2]:.1f}), packed "
            f"{row['packed_seconds']:6.1f} s, ratio {row['ratio']:.2f}; {row['how']}",
            flush=True,
        )
        (parsed.out / "packing.json").write_text(json.dumps(rows, indent=1))
    draw(rows, parsed.out / "packing")


if __name__ == "__main__":
    main()
