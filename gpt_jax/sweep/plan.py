"""`gpt-jax sweep plan SWEEP`: what a grid costs, as one table, before anything runs.

Must not import jax at import time: a plan for named chips never does.
"""

import argparse
import dataclasses
import functools
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gpt_jax.config import Config, overrides
from gpt_jax.storage import csv_cells, places
from gpt_jax.storage.atomic import write_atomically
from gpt_jax.sweep import inputs, plan_text
from gpt_jax.sweep.cost import COLUMNS, Row, cost_rows
from gpt_jax.sweep.load import read_sweep
from gpt_jax.sweep.machine import Machine, named_chips, this_machine

if TYPE_CHECKING:
    from gpt_jax.sweep.measure import Speed

MFU, CPU_MFU = 0.4, 0.25
"""Model FLOPs utilization (PaLM's count) assumed where none is given: of a well-tuned run on an
accelerator, and of configs/quickstart.py and nanogpt_shakespeare_char_cpu.py on two idle cores."""

EPILOG = """\
examples:
  gpt-jax sweep plan experiments/lr_sweep/sweep.py --measure
  gpt-jax sweep plan experiments/lr_sweep/sweep.py --chip h100 --chips 8 --price 2.5
  gpt-jax sweep plan experiments/lr_sweep/sweep.py --train.batch_sequences 32 --csv plan.csv
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gpt-jax sweep plan` besides the sweep and config overrides."""
    add = parser.add_argument
    add("--chip", metavar="NAME", help="price the sweep on this chip (default: this machine)")
    add("--chips", type=int, metavar="N", help="chips that work on a trial together (default 1)")
    add(
        "--mfu",
        type=float,
        metavar="SHARE",
        help=f"of the peak that training attains (default {MFU} of a chip, {CPU_MFU} of a CPU)",
    )
    add("--measure", action="store_true", help="time every distinct shape on this machine instead")
    add("--price", type=float, metavar="P", help="of an hour of a chip, or of this machine")
    add("--csv", type=Path, metavar="OUT", help="write the table, in full, to this file")
    parser.epilog = EPILOG


def run(arguments: argparse.Namespace) -> int:
    """Print the plan; raises ValueError for a user's mistake."""
    _check(arguments)
    sweep = read_sweep(arguments.sweep, overrides.parse_arguments(arguments.rest))
    directory = places.on_disk(arguments.workdir or Path("runs") / sweep.name)
    if arguments.chip is None:
        machine = this_machine()
    else:
        machine = named_chips(arguments.chip, arguments.chips or 1)
    mfu = arguments.mfu or (CPU_MFU if machine.backend == "cpu" else MFU)
    clock = Stopwatch() if arguments.measure else None
    seconds = clock.seconds if clock else functools.partial(_assumed, machine, mfu)
    rows = cost_rows(sweep, directory, machine, seconds, here=arguments.chip is None)
    if clock is None:
        config = sweep.trials[0].config if sweep.trials else Config()
        how = plan_text.describe_assumed(machine, config, mfu)
    else:
        how = plan_text.describe_measured(machine, clock.attained(machine), clock.compiling())
    how_many = machine.n_devices if arguments.chip else 1
    print(f"{plan_text.headline(sweep.name, rows)}\n{how}\n")
    print(plan_text.table(rows, shutil.get_terminal_size((160, 24)).columns))
    print(plan_text.totals(rows, arguments.price, how_many))
    if said := plan_text.laws(sweep.trials):
        print(said)
    print(plan_text.footnotes(rows))
    for line in inputs.problems(sweep.trials):
        print(line)
    if arguments.csv:
        write_csv(rows, arguments.csv)
        print(f"written: {arguments.csv}")
    return 0


def _check(arguments: argparse.Namespace) -> None:
    if arguments.chips is not None and arguments.chip is None:
        raise ValueError("--chips counts the chips of --chip NAME; give both")
    if arguments.chips is not None and arguments.chips < 1:
        raise ValueError(f"--chips {arguments.chips}; allowed: 1 or more")
    if arguments.measure and (arguments.chip is not None or arguments.mfu is not None):
        raise ValueError("--measure times this machine; leave out --chip and --mfu")
    if arguments.mfu is not None and not 0 < arguments.mfu <= 1:
        raise ValueError(f"--mfu {arguments.mfu}; allowed: above 0, at most 1")
    if arguments.price is not None and not arguments.price >= 0:
        raise ValueError(f"--price {arguments.price}; allowed: 0 or more")


def _assumed(machine: Machine, mfu: float, config: Config, n_tokens: float) -> float | None:
    return machine.seconds(config, n_tokens, mfu)


class Stopwatch:
    """Times from real steps, measured once for each distinct shape."""

    def __init__(self) -> None:
        self._measured: dict[str, tuple[Config, Speed]] = {}

    def seconds(self, config: Config, n_tokens: float) -> float:
        from gpt_jax.sweep.measure import measure

        key = _shape_key(config)
        if key not in self._measured:
            print(f"measuring {config.name} ...", file=sys.stderr, flush=True)
            self._measured[key] = config, measure(config)
        _, speed = self._measured[key]
        batch_tokens = config.train.batch_sequences * config.model.seq_len
        return speed.step_seconds * n_tokens / batch_tokens

    def attained(self, machine: Machine) -> list[float]:
        """The model FLOPs utilization of each measured shape; none where no peak is known."""
        found = []
        for config, speed in self._measured.values():
            batch_tokens = config.train.batch_sequences * config.model.seq_len
            at_peak = machine.seconds(config, batch_tokens, 1.0)
            if at_peak is not None:
                found.append(at_peak / speed.step_seconds)
        return found

    def compiling(self) -> list[float]:
        """Seconds that each measured shape took to compile."""
        return [speed.compile_seconds for _, speed in self._measured.values()]


def _shape_key(config: Config) -> str:
    """Equal for configs whose steps take equally long: what differs is numbers, not work."""
    same = {
        "seed": 0,
        "model.init_std": 0.02,
        "model.init_matrices": "fixed",
        "model.init_residual": "scaled",
    }
    fixed = overrides.draft(config, same)
    work = (fixed.model, fixed.compute, fixed.mesh, fixed.train.batch_sequences)
    optimizer = (
        fixed.optimizer.name,
        dict(fixed.optimizer.options),
        fixed.optimizer.ema_decay is None,
    )
    return repr((work, optimizer, fixed.data.separate_documents))


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """All columns, numbers in full."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, csv_cells.as_csv(COLUMNS, map(_cells, rows)))


def _cells(row: Row) -> list[object]:
    values = {**dataclasses.asdict(row), "tokens_per_param": row.tokens_per_param}
    values["state"] = row.state
    return [values[column] for column in COLUMNS]
