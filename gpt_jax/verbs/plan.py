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
  gpt-jax plan configs/gpt3_13b.py --topology h100:64 --search
  gpt-jax plan configs/gpt3_*.py --topology v5p:4x4x4 --search --csv plans.csv

Without --mesh the config's own mesh is planned; what its axes leave of the devices is data.
--compile needs libtpu: pip install 'gpt-jax[tpu]'
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
    add("--compile", action="store_true", help="compile the training step for the TPU topology")
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
    plans = [_plan(config, topology, arguments) for config in configs]
    compiled: list[Compiled | None] = [None] * len(plans)
    rows = []
    for i, plan in enumerate(plans):
        if arguments.compile:
            compiled[i] = _compile(plan)
        rows.append(table.record(plan, compiled[i]))
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


def _plan(config: Config, topology: Topology, arguments: argparse.Namespace) -> Plan:
    if not arguments.search:
        return make_plan(config, topology, arguments.price)
    found = search(config, topology, arguments.price)
    if len(arguments.configs) == 1:
        shown = found[:FOUND_SHOWN]
        print(f"{len(found):,} ways fit; the fastest by closed form:\n")
        print(text.table(shown, [None] * len(shown)))
        paste = f"gpt-jax train {arguments.configs[0]} {as_overrides(found[0], config)}"
        print(f"\nthe best, to paste:\n  {paste}\n")
    return found[0]


def _check_compiler(topology: Topology) -> None:
    from gpt_jax.plan.compiled import describe

    describe(topology)


def _compile(plan: Plan) -> "Compiled":
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
