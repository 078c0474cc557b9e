"""Compile time of the GPT-3 175B shape's train step, at 12 and at 96 layers.

    python tools/compile_time.py

Lowers and compiles the real step for this machine, from abstract arguments: nothing is allocated,
nothing runs. Layers are scanned, so that the program does not grow with depth. Prints both times
and their ratio, and the size of both programs.
"""

import time
from pathlib import Path

import jax

from gpt_jax.config import overrides
from gpt_jax.config.timetable import make_timetable
from gpt_jax.data import Batch
from gpt_jax.models.gpt import make_gpt
from gpt_jax.parallel.sharding import make_layout
from gpt_jax.steps.compiled_steps import compile_steps
from gpt_jax.steps.step import make_settings

CONFIG = Path(__file__).resolve().parent.parent / "configs" / "gpt3_175b.py"
ROUNDS = 3


def compile_once(n_layers: int) -> tuple[float, float, int]:
    """Seconds to trace and lower, seconds to compile, lines of the lowered program."""
    changes = {
        "model.n_layers": n_layers,
        "train.batch_sequences": 1,
        "train.ramp_from_sequences": None,
        "train.ramp_tokens": 0,
        "compute.layers": "scan",
        "compute.microbatches": 1,
        "mesh.data": 1,
        "mesh.fsdp": 1,
        "mesh.tensor": 1,
    }
    config = overrides.load(CONFIG, changes)
    layout = make_layout(config, jax.devices()[:1])
    model = make_gpt(config.model, config.compute, layout)
    steps = compile_steps(config, model, layout)
    shape = (1, 1, config.model.seq_len)
    tokens = jax.ShapeDtypeStruct(shape, "int32", sharding=layout.batches)
    weights = jax.ShapeDtypeStruct(shape, "float32", sharding=layout.batches)
    began = time.perf_counter()
    lowered = steps.train.lower(
        steps.abstract_state,
        Batch(tokens, tokens, weights, None),
        jax.ShapeDtypeStruct((), "int32"),
        make_settings(config, make_timetable(config)),
    )
    lowered_at = time.perf_counter()
    lowered.compile()
    done = time.perf_counter()
    return lowered_at - began, done - lowered_at, lowered.as_text().count("\n")


def main() -> None:
    jax.config.update("jax_enable_compilation_cache", False)
    best: dict[int, float] = {}
    for round_ in range(ROUNDS):
        for n_layers in (12, 96):
            lowering, compiling, lines = compile_once(n_layers)
            total = lowering + compiling
            best[n_layers] = min(total, best.get(n_layers, total))
            print(
                f"round {round_ + 1}: {n_layers:>2} layers: {total:5.1f} s (lowering "
                f"{lowering:.1f}, compiling {compiling:.1f}), {lines:,} lines of program"
            )
    print(f"96 layers take {best[96] / best[12]:.2f} times as long as 12 (fastest rounds)")


if __name__ == "__main__":
    main()
