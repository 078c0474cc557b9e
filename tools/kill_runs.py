"""Kill runs and sweep workers at random moments; what comes out must be what an undisturbed run is.

    python tools/kill_runs.py configs/quickstart.py --kills 20 --directory /tmp/kills
    python tools/kill_runs.py --sweep experiments/lr_sweep/sweep.py --directory /tmp/kills

The command is run undisturbed, and then with `kill -9` at moments drawn evenly over the time that
takes, started again after each, until it ends by itself; anew, until there were so many kills. Then
every parameter has the same bits, every step and validation is recorded once, and with the same
numbers; of a sweep, every trial is done, once. Of a sweep, a kill hits its launcher or one of its
workers. Exit status 0 if all holds, 1 with a line for each thing that does not.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np

from gpt_jax.runs.directory import RunDirectory
from gpt_jax.runs.loading import load_model
from gpt_jax.runs.tracking import read_records
from gpt_jax.sweep.store import SweepDirectory

SPEEDS = ("tokens_per_second", "step_seconds", "data_wait_seconds", "mfu")
"""What differs from run to run."""
LONGEST_SECONDS = 3600
MOST_STARTS = 3
"""Of a command that is not killed any more."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("config", nargs="?", help="a config to train")
    parser.add_argument("--sweep", help="a sweep to run instead")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--directory", type=Path, required=True, help="not there yet")
    arguments = parser.parse_args()
    # What a killed worker was training is noted failed, and taken up again only where asked for.
    sweep = ["sweep", "run", arguments.sweep, "--retry", "failed"]
    verb = sweep if arguments.sweep else ["train", arguments.config]
    calm, disturbed = arguments.directory / "calm", arguments.directory / "disturbed"
    compare = differing_sweeps if arguments.sweep else differing
    finish(command(verb, calm))
    drawn, n_kills, n_runs, wrong = random.Random(arguments.seed), 0, 0, []
    seconds = timed(verb, arguments.directory / "warm")
    while n_kills < arguments.kills:
        began = time.monotonic()
        if kill_once(command(verb, disturbed), disturbed, drawn, drawn.uniform(0, seconds)):
            n_kills += 1
            continue
        seconds = min(seconds, time.monotonic() - began)  # it ended before the moment had come
        n_runs += 1
        wrong += compare(calm, disturbed)
        shutil.rmtree(disturbed)
    finish(command(verb, disturbed))
    wrong += compare(calm, disturbed)
    print(
        f"{n_kills} kills of {n_runs + 1} runs, of {seconds:.0f} s undisturbed: {len(wrong)} "
        f"differences"
    )
    print("\n".join(wrong))
    return 1 if wrong else 0


def timed(verb: list[str], directory: Path) -> float:
    """Seconds of an undisturbed command that finds its programs compiled and its data built."""
    began = time.monotonic()
    finish(command(verb, directory))
    return time.monotonic() - began


def command(verb: list[str], directory: Path) -> list[str]:
    return [sys.executable, "-m", "gpt_jax", *verb, "--workdir", str(directory)]


def finish(line: list[str]) -> None:
    """Run a command to its end. Raises RuntimeError if it does not get there."""
    for _ in range(MOST_STARTS):
        done = subprocess.run(
            line, capture_output=True, text=True, check=False, timeout=LONGEST_SECONDS
        )
        if done.returncode == 0:
            return
    raise RuntimeError(f"{' '.join(line)} ended with {done.returncode}: {done.stderr[-2000:]}")


def kill_once(line: list[str], directory: Path, drawn: random.Random, after: float) -> bool:
    """Start a command and kill it, or one of its workers, so many seconds later; False if it has
    ended by itself before."""
    process = subprocess.Popen(
        line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        process.wait(after)
        return False
    except subprocess.TimeoutExpired:
        hit = drawn.choice([process.pid, *workers_of(directory)])
        os.kill(hit, signal.SIGKILL)
    if hit != process.pid:  # the launcher replaces its worker, and goes on for a while
        time.sleep(drawn.uniform(0, 3))
        process.kill()
    process.wait()
    for worker in workers_of(directory):  # of a launcher that is gone
        os.kill(worker, signal.SIGKILL)
    return True


def workers_of(directory: Path) -> list[int]:
    """Process ids of a sweep's workers on this host."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"gpt_jax.sweep.worker" in words and str(directory).encode() in words:
            found.append(int(path.parent.name))
    return found


def differing_sweeps(calm: Path, disturbed: Path) -> list[str]:
    """What differs between two sweeps: trials that are lost, and trials that are another's."""
    sweep = SweepDirectory.open(disturbed)
    wrong = [f"{name}: {state}" for name, state in sweep.states().items() if state != "done"]
    expected = {entry.name for entry in SweepDirectory.open(calm).entries}
    there = {path.name for path in (disturbed / "trials").iterdir()}
    wrong += [f"{name}: in one of the two alone" for name in sorted(expected ^ there)]
    for name in sorted(expected & there):
        found = differing(calm / "trials" / name, disturbed / "trials" / name)
        wrong += [f"{name}: {what}" for what in found]
    return wrong


def differing(calm: Path, disturbed: Path) -> list[str]:
    """What differs between two runs of one config."""
    one, other = RunDirectory(calm), RunDirectory(disturbed)
    if other.read_result() is None:
        return [f"{disturbed} has no result"]
    wrong = []
    ours, theirs = (
        [{k: v for k, v in r.items() if k not in SPEEDS} for r in read_records(run.metrics)]
        for run in (one, other)
    )
    if ours != theirs:
        at = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
        where = f"from record {at} on" if at is not None else "in number"
        wrong.append(f"metrics.jsonl differs {where}: {len(ours)} records, {len(theirs)}")
    params = [load_model(run, run.require_config(), "latest")[1] for run in (one, other)]
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(params[0]), jax.tree.leaves(params[1]), strict=True
    ):
        if not np.array_equal(np.asarray(a), np.asarray(b)):
            wrong.append(f"{jax.tree_util.keystr(path)} has other bits")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
