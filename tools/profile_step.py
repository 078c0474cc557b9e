"""Where the time of a training step goes: the parts of the model by the kinds of operations.

    python tools/profile_step.py configs/gpt2_124m.py [--steps 5] [--operations 10] [overrides]

Compiles the step that `gpt-jax train` compiles, runs it on random tokens under jax's profiler, and
sums the durations of its operations. What is summed is the time of the threads that began them:
operations run side by side, and a product is shared with other threads, so that the sum is not the
step's time; the shares say where it goes. `--train.batch_sequences 1` and the like change the
config.
"""

import argparse
import collections
import re
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from gpt_jax.runtime import prepare_process, use_huge_pages

PARTS = {
    "optimizer, norms": r"optimizer",
    "attention projections": r"blocks.*attention/(query|key|value|out)/",
    "attention": r"blocks.*attention/",
    "MLP": r"blocks.*mlp/",
    "norms of blocks": r"blocks.*_norm/",
    "residual stream": r"blocks",
    "embedding": r"embedding",
    "final norm": r"final_norm",
    "logits and loss": r"jvp|loss",
}
"""Patterns of XLA's `op_name`; the first that is found counts."""
KINDS = {
    "products": r"^(dot|ynn_fusion)\S* (dot_general)?$",
    "copies": r"^\S*(convert|transpose|copy|concatenate|slice|bitcast|pad)",
}
"""Patterns of an instruction's name and the last word of its `op_name`, which some lack."""
ELEMENTWISE = "sums, elementwise"


def main() -> None:
    use_huge_pages()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="a file of configs/")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--operations", type=int, default=10, help="how many to list")
    arguments, changes = parser.parse_known_args()
    prepare_process()
    try:
        step_seconds, durations, names = profile(arguments.config, changes, arguments.steps)
    except ValueError as error:
        sys.exit(f"profile_step.py: {error}")
    print(f"{1e3 * step_seconds:,.1f} ms a step while being watched\n")
    print_parts(durations, names)
    print_operations(durations, names, arguments.operations)


def profile(
    path: str, changes: list[str], n_steps: int
) -> tuple[float, dict[str, float], dict[str, str]]:
    """Seconds a step; of each operation of the program, seconds a step; and its `op_name`."""
    import jax
    import numpy as np

    from gpt_jax.config import overrides
    from gpt_jax.config.timetable import make_timetable
    from gpt_jax.data.batch import Batch
    from gpt_jax.models.gpt import make_gpt
    from gpt_jax.parallel.dispatch import wait_for_end
    from gpt_jax.parallel.feed import put_count
    from gpt_jax.parallel.sharding import make_layout
    from gpt_jax.steps.compiled_steps import compile_steps
    from gpt_jax.steps.step import make_settings

    config = overrides.load(Path(path), overrides.parse_arguments(changes))
    layout = make_layout(config)
    steps = compile_steps(config, make_gpt(config.model, config.compute, layout), layout)
    state = steps.init(jax.random.key(0))
    shape = (1, config.train.batch_sequences, config.model.seq_len + 1)
    tokens = np.random.default_rng(0).integers(0, config.model.vocab_size, shape, np.int32)
    weights = np.ones(tokens[..., 1:].shape, np.float32)
    batches = jax.device_put(Batch(tokens[..., :-1], tokens[..., 1:], weights, None))
    settings = jax.device_put(make_settings(config, make_timetable(config)))
    one = put_count(1, layout.everywhere)
    step = steps.train.lower(state, batches, one, settings).compile()
    for _ in range(2):
        state, _ = step(state, batches, one, settings)
        wait_for_end(state)
    with tempfile.TemporaryDirectory() as place:
        with jax.profiler.trace(place):
            began = time.perf_counter()
            for _ in range(n_steps):
                state, _ = step(state, batches, one, settings)
                wait_for_end(state)
            seconds = (time.perf_counter() - began) / n_steps
        (file,) = Path(place).rglob("*.xplane.pb")
        events = [
            (event.name, event.duration_ns)
            for plane in jax.profiler.ProfileData.from_file(str(file)).planes
            for line in plane.lines
            for event in line.events
        ]
    names = operation_names(step.as_text())
    durations: dict[str, float] = collections.defaultdict(float)
    for name, nanoseconds in events:
        if name in names:
            durations[name] += nanoseconds / 1e9 / n_steps
    return seconds, durations, names


def operation_names(program: str) -> dict[str, str]:
    """The instructions of a compiled program: name -> kind of operation, and what it computes."""
    names = {}
    for line in program.splitlines():
        found = re.match(r"\s*(?:ROOT )?%?([\w.\-]+) = \S+ ([\w\-]+)\(", line)
        if found and found[2] not in ("while", "call", "conditional"):
            computes = re.search(r'op_name="([^"]*)"', line)
            names[found[1]] = f"{found[1]} {computes[1] if computes else ''}"
    return names


def first_match(patterns: dict[str, str], text: str, otherwise: str) -> str:
    return next((name for name, p in patterns.items() if re.search(p, text)), otherwise)


def print_parts(durations: dict[str, float], names: dict[str, str]) -> None:
    """A row for each part of the model, a column for each kind of operation."""
    kinds = [*KINDS, ELEMENTWISE]
    sums: dict[tuple[str, str], float] = collections.defaultdict(float)
    for name, seconds in durations.items():
        part = first_match(PARTS, names[name], "other")
        instruction, _, computes = names[name].partition(" ")
        operation = f"{instruction} {computes.rpartition('/')[2]}"
        sums[part, first_match(KINDS, operation, ELEMENTWISE)] += seconds
    total = sum(sums.values())
    rows = [["thread ms a step", *kinds, "all", "share"]]
    for part in [*PARTS, "other"]:
        cells = [sums[part, kind] for kind in kinds]
        rows.append([part, *map(milliseconds, [*cells, sum(cells)]), f"{sum(cells) / total:.0%}"])
    all_parts = [sum(sums[part, kind] for part in [*PARTS, "other"]) for kind in kinds]
    rows.append(["all", *map(milliseconds, [*all_parts, total]), "100%"])
    print_table(rows)


def print_operations(durations: dict[str, float], names: dict[str, str], n: int) -> None:
    """The longest operations, those of all layers together."""
    sums: dict[str, float] = collections.defaultdict(float)
    counts: collections.Counter[str] = collections.Counter()
    for name, seconds in durations.items():
        kind, _, computes = names[name].partition(" ")
        computes = re.sub(r"jit\(\w+\)/|closed_call/|Transformer\._stacked/", "", computes)
        key = f"{re.sub(r'[.0-9]+$', '', kind)}  {re.sub(r'blocks/[0-9]+', 'blocks', computes)}"
        sums[key] += seconds
        counts[key] += 1
    print()
    rows = [["longest operations", "", "thread ms a step"]]
    for key in sorted(sums, key=sums.__getitem__, reverse=True)[:n]:
        rows.append([key[-90:], f"x{counts[key]}", milliseconds(sums[key])])
    print_table(rows)


def milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.1f}"


def print_table(rows: Iterable[list[str]]) -> None:
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        first, *others = zip(row, widths, strict=True)
        print(" | ".join([first[0].ljust(first[1]), *(cell.rjust(w) for cell, w in others)]))


if __name__ == "__main__":
    main()
