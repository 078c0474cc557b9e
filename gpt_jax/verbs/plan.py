"""`gpt-jax plan CONFIG ...`: memory, time and cost on a topology, without its chips.

Must not import jax at import time: only --compile does.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gpt_jax.config import Config, overrides
from gpt_jax.cost.estimate import Plan, make_plan
from gpt_jax.cost.search import as_overrides, search
from gpt_jax.cost.topology import Topology, parse_topology
from gpt_jax.plan import table, text
from gpt_jax.storage.atomic import write_atomically, write_json

if TYPE_CHECKING:
    from gpt_jax.plan.compiled import Compiled

DEFAULT_TOPOLOGY = "v5p:2x2x1"
MESH_AXES = ("data", "fsdp", "tensor", "expert", "sequence", "slices")
FOUND_SHOWN = 8

EPILOG = """\
examples:
  gpt-jax plan configs/gpt3_175b.py --topology v5p:8x8x8 --mesh fsdp=64,tensor=8 --price 4.2
  gpt-jax plan configs/gpt3_175b.py --topology v5p:8x8x8 --mesh fsdp=64,tensor=8 --compile
  gpt-jax plan configs/gpt2_124m.py --topology h100:8 --mesh fsdp=8 --compile
  gpt-jax plan configs/gpt3_13b.py --topology h100:64 --search
  gpt-jax plan configs/gpt3_*.py --topology v5p:4x4x4 --search --csv plans.csv

Without --mesh the config's own mesh is planned; what its axes leave of the devices is data.
--compile needs libtpu (pip install 'gpt-jax[tpu]') or, for GPUs, jax's plugin for CUDA and cuDNN
(pip install 'gpt-jax[gpu-plan]'), and no device. With --search it compiles the first choices until
one fits.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "gpt-jax plan CONFIG [CONFIG ...] [options] [--KEY VALUE ...]"
    add = parser.add_argument
    add("configs", metavar="CONFIG", nargs="+", help="a configs/*.py, or a run's config.json")
    add(
        "--topology",
        metavar="CHIP:SIZE",
        default=DEFAULT_TOPOLOGY,
        help=f"as v5p:8x8x8, 2xv6e:16x16 (slices) or h100:64 (default {DEFAULT_TOPOLOGY})",
    )
    add("--mesh", metavar="AXIS=N,...", help="as data=1,fsdp=64,tensor=8")
    add("--price", type=float, metavar="P", help="of a chip for an hour")
    add("--search", action="store_true", help="rank the meshes, microbatches and remat that fit")
    add("--compile", action="store_true", help="compile the training step for the topology")
    add("--csv", type=Path, metavar="FILE", help="write all numbers, a line a config")
    add("--json", type=Path, metavar="FILE", help="write all numbers, with the collectives")
    parser.set_defaults(takes_overrides=True)
    parser.epilog = EPILOG


def run(arguments: argparse.Namespace) -> int:
    """Print the plans; raises ValueError for a user's mistake."""
    if arguments.price is not None and not arguments.price >= 0:
        raise ValueError(f"--price {arguments.price}; allowed: 0 or more")
    topology = parse_topology(arguments.topology)
    changes = overrides.parse_arguments(arguments.rest) | parse_mesh(arguments.mesh)
    configs = [overrides.load(path, changes) for path in arguments.configs]
    for config in configs:
        if not config.is_pretraining:
            raise ValueError(
                f"{config.name} has a task, an adaptation or a teacher; plan counts pretraining "
                "alone: leave out task, adapt and distill"
            )
    if arguments.compile:
        _check_compiler(topology)
    plans: list[Plan] = []
    compiled: list[Compiled | None] = []
    rows = []
    for config in configs:
        choices = _plan(config, topology, arguments)
        plan, found = first_that_fits(choices) if arguments.compile else (choices[0], None)
        plans.append(plan)
        compiled.append(found)
        rows.append(table.record(plan, found))
        _write(rows, arguments)  # after each: compiling takes minutes
    _print(configs, plans, compiled, arguments)
    return 0


def parse_mesh(given: str | None) -> dict[str, str]:
    """data=1,fsdp=64 -> config overrides; ValueError for another form or axis."""
    changes = {}
    for part in given.split(",") if given else []:
        axis, equals, size = part.partition("=")
        if axis not in MESH_AXES or not equals:
            raise ValueError(
                f"--mesh {given}: '{part}'; allowed: {','.join(f'{a}=N' for a in MESH_AXES)}"
            )
        changes[f"mesh.{axis}"] = size
    return changes


def _plan(config: Config, topology: Topology, arguments: argparse.Namespace) -> list[Plan]:
    """The plan of a config as it is, or those that the search finds, the fastest first."""
    if not arguments.search:
        return [make_plan(config, topology, arguments.price)]
    found = search(config, topology, arguments.price)
    if len(arguments.configs) == 1:
        shown = found[:FOUND_SHOWN]
        print(f"{len(found):,} ways fit; the fastest by closed form:\n")
        print(text.table(shown, [None] * len(shown)))
        print()
    return found


def _check_compiler(topology: Topology) -> None:
    from gpt_jax.plan.devices import describe

    describe(topology)


def first_that_fits(choices: list[Plan]) -> "tuple[Plan, Compiled]":
    """The first plan that the compiler finds to fit, of at most MOST_COMPILED.

    After one that does not, plans are passed over that would not fit either if the compiler
    exceeded their closed form by as much.
    """
    plan, found, over = choices[0], compile_one(choices[0]), 1.0
    for _ in range(MOST_COMPILED - 1):
        if found.fits:
            break
        if found.total_bytes:
            over = max(over, found.total_bytes / plan.memory.total)
        bound = plan.available_bytes / over
        smaller = [
            p
            for p in choices[choices.index(plan) + 1 :]
            if p.memory.total <= bound and p.memory.total < plan.memory.total
        ]
        if not smaller:
            break
        print(f"  does not fit: {found.message}; the next choice", file=sys.stderr, flush=True)
        plan = smaller[0]
        found = compile_one(plan)
    return plan, found


MOST_COMPILED = 4
"""Choices of a search that are compiled until one fits."""


def compile_one(plan: Plan) -> "Compiled":
    """Figures of the compiler for a plan; says on standard error that it is at work."""
    from gpt_jax.plan.compiled import compile_plan

    print(f"compiling {text.headline(plan)} ...", file=sys.stderr, flush=True)
    return compile_plan(plan)


def _print(
    configs: list[Config],
    plans: list[Plan],
    compiled: "list[Compiled | None]",
    arguments: argparse.Namespace,
) -> None:
    if len(plans) == 1:
        print(text.whole(plans[0]))
        if compiled[0] is not None:
            print(f"\n{text.beside(plans[0], compiled[0])}")
        if arguments.search:
            which = "as compiled" if compiled[0] is not None and compiled[0].fits else "the best"
            paste = f"gpt-jax train {arguments.configs[0]} {as_overrides(plans[0], configs[0])}"
            print(f"\n{which}, to paste:\n  {paste}")
    else:
        print(text.table(plans, compiled))
        print(f"\n{text.TABLE_NOTES}")
        if arguments.search:
            print("\nto paste:")
            for path, config, plan in zip(arguments.configs, configs, plans, strict=True):
                print(f"  gpt-jax train {path} {as_overrides(plan, config)}")
    for path in (arguments.csv, arguments.json):
        if path is not None:
            print(f"written: {path}")


def _write(rows: list[table.Record], arguments: argparse.Namespace) -> None:
    if arguments.csv is not None:
        write_atomically(arguments.csv, table.as_csv(rows))
    if arguments.json is not None:
        write_json(arguments.json, rows)
