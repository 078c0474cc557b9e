"""GPT-3 175B's training step compiled for 512 TPU v5p chips: ours beside MaxText's.

    pip install 'maxtext[tpu]==0.2.5' -e .     in an environment of its own, Python 3.12
    python tools/compare_maxtext.py --json experiments/plan/maxtext.json

The same shape, batch (1536 x 2048 tokens), mesh (fsdp 64 x tensor 8), rematerialization of all and
fused attention, both compiled here by the same libtpu for devices that are not here, each in a
process of its own. Every figure is read in the same way: memory from the compiler's report of what
it reserves, seconds from the cycles that it writes at every operation, bytes and collectives from
the program's text, loops counted as often as they run. Attention kernels have no such cycles, in
neither. Two minutes in all.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

GIB = 2.0**30
TOPOLOGY, MESH = "v5p:8x8x8", {"fsdp": 64, "tensor": 8}
SEQUENCES, LENGTH, CHIPS = 1536, 2048, 512
ROWS = (
    ("arguments", "argument_bytes", GIB, "GiB"),
    ("reserved beside them", "temporary_bytes", GIB, "GiB"),
    ("alive at once, all", "peak_bytes", GIB, "GiB"),
    ("temporaries by memory_analysis", "summed_temporary_bytes", GIB, "GiB"),
    ("the compiler's seconds", "cycle_seconds", 1, "s"),
    ("read and written", "n_bytes", 1e12, "TB"),
    ("FLOPs", "flops", 1e15, "PFLOP"),
    ("sent by collectives", "sent_bytes", 1e9, "GB"),
    ("compiling", "compile_seconds", 1, "s"),
)


def ours(layers: int | None) -> dict[str, float]:
    from gpt_jax.config import overrides
    from gpt_jax.cost.estimate import make_plan
    from gpt_jax.cost.topology import parse_topology
    from gpt_jax.plan.compiled import compile_plan

    config = overrides.load(
        Path(__file__).resolve().parent.parent / "configs" / "gpt3_175b.py",
        {
            "train.ramp_from_sequences": None,
            "train.ramp_tokens": 0,
            "compute.remat": "full",
            **({"model.n_layers": layers} if layers else {}),
            **{f"mesh.{axis}": size for axis, size in MESH.items()},
        },
    )
    assert (config.train.batch_sequences, config.model.seq_len) == (SEQUENCES, LENGTH)
    found = compile_plan(make_plan(config, parse_topology(TOPOLOGY)))
    names = {key for _, key, _, _ in ROWS} & set(dir(found))
    figures = {name: getattr(found, name) for name in names} | of_program(found.costs)
    return figures | {"cycle_seconds": found.work_seconds}


def maxtext(layers: int | None) -> dict[str, float]:
    """MaxText's own ahead-of-time compilation, whose program is kept for us to read."""
    import time

    from maxtext.trainers.pre_train import train_compile

    from gpt_jax.cost.topology import parse_topology
    from gpt_jax.plan import compiled, costs, devices

    kept: list[Any] = []
    compile_step = train_compile.jit_and_compile

    def keep(*arguments: Any) -> Any:
        start = time.perf_counter()
        kept[:] = compile_step(*arguments), time.perf_counter() - start
        return kept[0]

    train_compile.jit_and_compile = keep
    fewer = ["override_model_config=true", f"base_num_decoder_layers={layers}"] if layers else []
    base = Path(train_compile.__file__).parents[2] / "configs" / "base.yml"
    with tempfile.TemporaryDirectory() as dump:
        train_compile.main(
            [
                "train_compile",
                str(base),
                "run_name=compared",
                f"base_output_directory={dump}",
                "model_name=gpt3-175b",
                f"per_device_batch_size={SEQUENCES // CHIPS}",
                f"max_target_length={LENGTH}",
                *(f"ici_{axis}_parallelism={size}" for axis, size in MESH.items()),
                "remat_policy=full",
                "attention=flash",
                "dataset_type=synthetic",
                "enable_checkpointing=false",
                f"compile_topology=v5p-{2 * CHIPS}",
                "compile_topology_num_slices=1",
                f"compile_xla_flags=--xla_dump_to={dump}/xla",
                *fewer,
            ]
        )
        program, seconds = kept
        total = compiled.reserved_bytes(Path(dump) / "xla")
    topology = parse_topology(TOPOLOGY)
    memory = program.memory_analysis()
    found = costs.count(program.as_text(), devices.speed(topology))
    return {
        "argument_bytes": memory.argument_size_in_bytes,
        "temporary_bytes": total - memory.argument_size_in_bytes,
        "peak_bytes": memory.peak_memory_in_bytes,
        "summed_temporary_bytes": memory.temp_size_in_bytes,
        "cycle_seconds": found.cycles / devices.clock(topology),
        "compile_seconds": seconds,
        **of_program(found),
    }


def of_program(costs: Any) -> dict[str, float]:
    """Bytes, FLOPs and what collectives send, of `gpt_jax.plan.costs.Costs`."""
    sent = sum(collective.sent_bytes for collective in costs.collectives)
    return {"n_bytes": costs.n_bytes, "flops": costs.flops, "sent_bytes": sent}


def table(found: dict[str, Any]) -> str:
    lines = ["| of one device, a step | ours | MaxText | ratio |", "|---|---|---|---|"]
    for name, key, unit, shown in ROWS:
        a, b = (found[who][key] / unit for who in ("ours", "maxtext"))
        lines.append(f"| {name} | {a:,.2f} {shown} | {b:,.2f} {shown} | {a / b:.2f} |")
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return "\n".join([*lines, "", f"By {versions}."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--from", dest="old", type=Path, help="print the table of such a file")
    parser.add_argument("--layers", type=int, help="fewer than 96, to try it out")
    parser.add_argument("--only", choices=("ours", "maxtext"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.old:
        print(table(json.loads(given.old.read_text())))
        return
    if given.only:
        with contextlib.redirect_stdout(sys.stderr):
            found = {"ours": ours, "maxtext": maxtext}[given.only](given.layers)
        print(json.dumps(found))
        return
    made: dict[str, Any] = {}
    for who in ("ours", "maxtext"):
        command = [sys.executable, __file__, "--only", who]
        command += ["--layers", str(given.layers)] if given.layers else []
        environment = os.environ | {"JAX_PLATFORMS": "cpu"}
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment)
        made[who] = json.loads(done.stdout.decode().splitlines()[-1])
    made["versions"] = {name: metadata.version(name) for name in ("maxtext", "jax", "libtpu")}
    if given.json:
        given.json.write_text(json.dumps(made, indent=1) + "\n")
    print(table(made))


if __name__ == "__main__":
    main()
