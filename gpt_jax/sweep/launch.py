"""`gpt-jax sweep run SWEEP`: start workers, watch them, and say what came of it.

The workers' only bond with this process is the sweep's directory (`gpt_jax.sweep.store`): killed
and started again, or started twice, they do what is missing. Must not import jax.
"""

import argparse
import contextlib
import dataclasses
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gpt_jax import failures, pasting
from gpt_jax.config import overrides
from gpt_jax.hints import counted
from gpt_jax.output import say
from gpt_jax.runtime import INTERRUPTED
from gpt_jax.storage import paths, places
from gpt_jax.sweep import ray_tasks
from gpt_jax.sweep.load import load_sweep
from gpt_jax.sweep.status import TrialProgress, count, progress, summary, table
from gpt_jax.sweep.store import RETRIED, SweepDirectory
from gpt_jax.sweep.trial import Trial
from gpt_jax.sweep.view import make_view
from gpt_jax.sweep.worker import STOP_RULES

LAUNCHERS = ("local", "packed", "slurm", "ray")
POLL_SECONDS = 0.5
MOST_IDLE_DEATHS = 3
"""Deaths in a row of workers that held no trial, after which they are not started again."""
MOST_JOBS = 8
"""Workers that the packed launcher starts unasked: each holds a pack of trials in memory."""
EPILOG = """\
examples:
  gpt-jax sweep run experiments/lr_sweep/sweep.py                    # one trial after another
  gpt-jax sweep run experiments/lr_sweep/sweep.py --launcher packed  # trials of a shape together
  gpt-jax sweep run experiments/lr_sweep/sweep.py --jobs 2           # two workers on this host
  gpt-jax sweep run experiments/lr_sweep/sweep.py --launcher slurm   # see --slurm options
  gpt-jax sweep run experiments/lr_sweep/sweep.py --launcher ray --ray gpus=1 --workdir gs://b/sweep

Run it again, here or on any host that shares the directory, and it does what is missing. Any other
scheduler (Kubernetes) starts a worker with: python -m gpt_jax.sweep.worker runs/SWEEP
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gpt-jax sweep run` besides the sweep and config overrides."""
    from gpt_jax.sweep import slurm

    parser.add_argument("--launcher", choices=LAUNCHERS, default="local", help="default: local")
    parser.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="workers on this host, which share its cores (default: 1; packed, and without an "
        f"accelerator: one a core, at most {MOST_JOBS})",
    )
    parser.add_argument(
        "--only", action="append", metavar="TRIAL", help="this trial only; may be repeated"
    )
    parser.add_argument(
        "--retry",
        action="append",
        default=[],
        choices=list(RETRIED),
        help="take such trials up again",
    )
    add_stopping(parser)
    slurm.add_arguments(parser)
    ray_tasks.add_arguments(parser)
    parser.epilog = EPILOG


def add_stopping(parser: argparse.ArgumentParser) -> None:
    """Options that stop trials before their end."""
    group = parser.add_argument_group(
        "stopping trials early",
        "A stopped trial is saved, has a state of its own and no final loss; `--retry stopped` "
        "takes it up again, to the same bits. Trials are compared within their cell: one size, one "
        "budget.",
    )
    group.add_argument("--stop", choices=STOP_RULES, help="hopeless: its final loss, predicted "
        "with an interval from its curve and those of finished trials, cannot beat the best of its "
        "cell; asha: its training loss at a ninth or a third of its tokens is not among the best "
        "third (successive halving)")  # fmt: skip
    group.add_argument("--stop-hopeless", dest="stop", action="store_const", const="hopeless",
        help="the same as --stop hopeless")  # fmt: skip
    group.add_argument("--finish-sample", type=float, default=0.0, metavar="SHARE",
        help="at the end, train so large a share of the stopped trials to their end, at least one: "
        "`sweep report` says how often stopping was wrong (default 0)")  # fmt: skip
    group.add_argument("--sample-seed", type=int, default=0, metavar="N", help="decides which "
        "(default 0)")  # fmt: skip


def check_stopping(arguments: argparse.Namespace) -> None:
    """Raise ValueError for what the launcher cannot stop."""
    share = arguments.finish_sample
    if not 0 <= share <= 1:
        raise ValueError(f"--finish-sample {share:g}; allowed: a share from 0 to 1")
    if arguments.stop and arguments.launcher == "packed":
        raise ValueError(
            f"--stop {arguments.stop} with --launcher packed: the trials of a pack take their "
            f"steps together, and stopping one would save nothing; use --launcher local"
        )
    if share and arguments.only:
        raise ValueError(
            "--finish-sample draws from all stopped trials, also those that --only leaves out; "
            "leave --only out, or finish these by --only TRIAL --retry stopped"
        )
    if share and arguments.launcher == "slurm":
        raise ValueError(
            "--finish-sample waits for all trials, and --launcher slurm does not: run the sweep "
            "again with --launcher local --finish-sample once they are done"
        )


def run(arguments: argparse.Namespace) -> int:
    """Run what is missing; 0 when every trial is done, stopped early or diverged, 1 where one
    failed or is damaged."""
    check_stopping(arguments)
    ray_tasks.check(arguments)
    if arguments.jobs is None:
        arguments.jobs = default_jobs(arguments.launcher)
    if arguments.jobs < 1:
        raise ValueError(f"--jobs {arguments.jobs}; allowed: 1 or more")
    name, trials = load_sweep(arguments.sweep, overrides.parse_arguments(arguments.rest))
    directory = paths.given(arguments.workdir or Path("runs") / name)
    if arguments.launcher == "slurm" and paths.is_address(directory):
        raise ValueError(
            f"--workdir {directory} with --launcher slurm: submitit keeps files on a disk that the "
            f"nodes share; have a job script start python -m gpt_jax.sweep.worker {directory}"
        )
    paths.check_run_directory(places.on_disk(directory))
    grouped = [_in_group(trial, name) for trial in trials]
    before = SweepDirectory.begun_in(directory)
    sweep = SweepDirectory.create(directory, name, arguments.sweep, grouped)
    kept = {entry.fingerprint for entry in sweep.entries}
    if dropped := [entry.name for entry in before if entry.fingerprint not in kept]:
        say(
            f"left out: {counted(len(dropped), 'trial')} of {directory}, no longer in "
            f"{arguments.sweep} (first {dropped[0]}); runs stay in {directory / 'trials'}"
        )
    if arguments.only:
        sweep = sweep.only(arguments.only)
    if arguments.launcher == "slurm":
        from gpt_jax.sweep import slurm

        return slurm.launch(sweep, arguments)
    with stop_requested() as stop:
        train_missing(sweep, arguments, stop)
        if arguments.finish_sample and not stop:
            finish_sample(sweep, arguments, stop)
    final = progress(sweep)
    print("\n".join([*table(final), "", summary(sweep.place, final)]))
    if stop:
        print("stopped: the same command continues", file=sys.stderr)
        return INTERRUPTED
    print(pasting.shown(_next(sweep, arguments, final)))
    return 1 if count(final)["failed"] or count(final)["damaged"] else 0


def _next(
    sweep: SweepDirectory, arguments: argparse.Namespace, trials: Sequence[TrialProgress]
) -> list[tuple[str, str]]:
    """The report, and how trials that went wrong are taken up again, as they were asked for."""
    shown = arguments.sweep if arguments.workdir is None else sweep.place
    found = [(pasting.command("sweep", "report", shown), "figures, fits and a table")]
    words = ["sweep", "run", str(arguments.sweep)]
    if arguments.workdir is not None:
        words += ["--workdir", str(arguments.workdir)]
    if arguments.launcher != "local":
        words += ["--launcher", arguments.launcher]
    words += [word for given in arguments.ray for word in ("--ray", given)]
    changes = overrides.parse_arguments(arguments.rest)
    counts = count(trials)
    for state in ("failed", "damaged", "diverged"):
        if n := counts[state]:
            again = pasting.command(*words, "--retry", state, changes=changes)
            found.append((again, f"take up again what is {state}: {n:,}"))
    return found


def finish_sample(sweep: SweepDirectory, arguments: argparse.Namespace, stop: list[int]) -> None:
    """Train a sample of the stopped trials to their ends."""
    from gpt_jax.sweep.stopping import sample

    names = sample(sweep, arguments.finish_sample, arguments.sample_seed)
    if not names:
        return
    print(f"finishing a sample of the trials stopped early: {', '.join(names)}")
    again = argparse.Namespace(**{**vars(arguments), "only": names, "retry": ["stopped"]})
    limited = sweep.only(names)
    train_missing(limited, again, stop)


def train_missing(sweep: SweepDirectory, arguments: argparse.Namespace, stop: list[int]) -> None:
    """Train what is missing by the launcher's workers, and show progress until they have ended."""
    if arguments.launcher == "ray":
        ray_tasks.train_missing(sweep, arguments, stop)
        return
    with Workers(sweep, arguments) as workers:
        watch(sweep, workers, stop)


def _in_group(trial: Trial, name: str) -> Trial:
    """In Weights & Biases the runs of a sweep form a group, unless the config names another."""
    if trial.config.tracking.wandb_group:
        return trial
    return dataclasses.replace(
        trial, config=overrides.override(trial.config, {"tracking.wandb_group": name})
    )


class Workers:
    """The worker processes of this host: started, counted, replaced when one dies at work."""

    def __init__(self, sweep: SweepDirectory, arguments: argparse.Namespace):
        self.sweep, self.arguments = sweep, arguments
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self._identities: dict[int, str] = {}
        self._died_idle = 0
        self._stopping = False
        self._logs = sweep.path / "logs"
        self._logs.mkdir(parents=True, exist_ok=True)
        for slot in range(min(arguments.jobs, len(sweep.claimable(arguments.retry)))):
            self._running[slot] = self._start(slot)

    def alive(self) -> bool:
        """Whether any works still; one that died at work is replaced, its trial noted failed."""
        for slot, process in list(self._running.items()):
            status = process.poll()
            if status is None:
                continue
            del self._running[slot]
            held = self.sweep.claimed_by(self._identities[slot])
            if status in (0, INTERRUPTED):
                continue
            if self._stopping or -status in (signal.SIGTERM, signal.SIGINT):
                for name in held:  # told to stop before it could save anything
                    self.sweep.finish(name, "preempted", _death(status, self._log(slot)))
                continue
            self._died_idle = 0 if held else self._died_idle + 1
            # Killed between two trials it is started again; one that cannot begin is not.
            if not held and (status > 0 or self._died_idle > MOST_IDLE_DEATHS):
                raise ValueError(
                    f"{_death(status, self._log(slot))}: it held no trial, and was started again "
                    f"{self._died_idle - 1} times"
                )
            for name in held:
                self.sweep.finish(name, "failed", _death(status, self._log(slot)))
            # Its claims are dead by themselves: their process is gone.
            self._running[slot] = self._start(slot)
        return bool(self._running)

    def stop(self) -> None:
        """Ask every worker to save and end; they are waited for in `alive`."""
        self._stopping = True
        for process in self._running.values():
            process.send_signal(signal.SIGTERM)

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        """No worker outlives its launcher: what an error leaves running is stopped and awaited."""
        self.stop()
        while self.alive():
            time.sleep(POLL_SECONDS)
        places.put_back(self._logs)

    def _log(self, slot: int) -> Path:
        return self._logs / f"{socket.gethostname()}-{os.getpid()}-{slot}.log"

    def _start(self, slot: int) -> subprocess.Popen[bytes]:
        arguments = self.arguments
        self._identities[slot] = secrets.token_hex(8)
        command = [sys.executable, "-m", "gpt_jax.sweep.worker", str(self.sweep.place)]
        command += ["--identity", self._identities[slot]]
        for name in arguments.only or []:
            command += ["--only", name]
        for state in arguments.retry:
            command += ["--retry", state]
        if arguments.stop:
            command += ["--stop", arguments.stop]
        if arguments.launcher == "packed":
            command += ["--packed", "--workers", str(arguments.jobs)]
        cores = share_of_cores(slot, arguments.jobs)
        if cores:
            command += ["--cores", ",".join(map(str, cores))]
        with self._log(slot).open("ab") as log:
            # A session of its own: Ctrl-C reaches this process alone, which passes it on once.
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | share_of_gpus(slot, arguments.jobs),
                start_new_session=True,
            )


def default_jobs(launcher: str) -> int:
    """One; packed on CPU, one a core: small models gain more from trials side by side than from
    several cores on one product."""
    accelerators = [*Path("/dev").glob("nvidia[0-9]*"), *Path("/dev").glob("accel*")]
    accelerators += Path("/dev").glob("vfio/[0-9]*")
    if launcher != "packed" or accelerators or not hasattr(os, "sched_getaffinity"):
        return 1
    return min(len(os.sched_getaffinity(0)), MOST_JOBS)


def share_of_cores(slot: int, jobs: int) -> list[int]:
    """The cores of one of several workers; empty where there are too few, or one worker."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return [] if jobs == 1 or jobs > len(cores) else cores[slot::jobs]


def share_of_gpus(slot: int, jobs: int) -> dict[str, str]:
    """Environment that gives one of several workers its part of this host's NVIDIA devices."""
    devices = os.environ.get("CUDA_VISIBLE_DEVICES")
    ids = devices.split(",") if devices else []
    if devices is None:
        ids = [path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*")]
    mine = sorted(ids)[slot::jobs]
    return {"CUDA_VISIBLE_DEVICES": ",".join(mine)} if jobs > 1 and mine else {}


def _death(status: int, log: Path) -> str:
    if status < 0:
        what = f"the worker was killed by {signal.Signals(-status).name}"
        what += " (out of memory?)" if -status == signal.SIGKILL else ""
    else:
        what = f"the worker ended with status {status}"
        if status in (failures.OUT_OF_MEMORY, failures.DISK):
            what += f", {failures.STATUSES[status]}"
    return f"{what}; its log: {places.named(str(log))}"


def watch(sweep: SweepDirectory, workers: Workers, stop: list[int]) -> None:
    """Show progress until the workers have ended."""
    told = False
    with make_view(sweep.place, progress(sweep)) as view:
        while workers.alive():
            view.update(progress(sweep))
            if stop and not told:
                workers.stop()
                view.say("stopping: the workers save what they have")
                told = True
            time.sleep(POLL_SECONDS)
        view.update(progress(sweep))


@contextlib.contextmanager
def stop_requested() -> Iterator[list[int]]:
    """A list that holds the signal once SIGTERM or Ctrl-C came."""
    received: list[int] = []

    def handle(number: int, _: Any) -> None:
        received.append(number)

    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield received
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
