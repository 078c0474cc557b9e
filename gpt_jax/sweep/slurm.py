"""`gpt-jax sweep run SWEEP --launcher slurm`: an array job of workers, one trial each, by submitit.

Trials that ask for the same resources form one array. A task runs the worker of any other launcher
on its one trial; when Slurm preempts it, or its time is over, the worker saves and the task is
queued again. Branches are queued behind their trunk. Submitted again, only what is neither done nor
queued is. Must not import jax.
"""

import argparse
import collections
import contextlib
import dataclasses
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gpt_jax.hints import counted
from gpt_jax.runtime import INTERRUPTED
from gpt_jax.storage.atomic import write_json
from gpt_jax.sweep.claims import STALE_SECONDS
from gpt_jax.sweep.load import read_resources
from gpt_jax.sweep.status import count, progress, summary, table
from gpt_jax.sweep.store import Entry, SweepDirectory
from gpt_jax.sweep.trial import Trial
from gpt_jax.sweep.view import make_view

PARAMETERS = {
    "partition": "partition",
    "minutes": "time",
    "cpus": "cpus_per_task",
    "gpus": "gpus_per_node",
    "memory_gb": "mem",
    "account": "account",
    "qos": "qos",
    "parallel": "array_parallelism",
    "setup": "setup",
}
"""Our name of a resource -> submitit's parameter; any other name is an option of sbatch."""
NUMBERS = ("minutes", "cpus", "gpus", "memory_gb", "parallel")
MINUTES = 60
"""Default time limit of a task (submitit's is 5); a longer trial is queued again."""
LEAST_MINUTES = 5
"""Slurm may warn a minute early on top of SIGNAL_SECONDS: less would be warned at its start."""
ARRAY_TASKS = 1000
"""In one array: Slurm's default of MaxArraySize is 1001."""
SIGNAL_SECONDS = 90
"""Before a task's time is over, it is told to save."""
WATCH_SECONDS = 5.0
POLL_SECONDS = 0.2
TIMEOUTS = 10_000
"""A task whose time is over is queued again this many times: a trial may take days."""

Resources = Mapping[str, Any]


class NoAnswer(ValueError):
    """squeue failed, as it does while a busy controller is slow."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the Slurm launcher."""
    group = parser.add_argument_group("with --launcher slurm")
    group.add_argument(
        "--slurm",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help=f"resources of a trial: {', '.join(PARAMETERS)} (a shell command; may be repeated), "
        f"or any option of sbatch; minutes = {MINUTES} unless given; get_resources(trial) in the "
        "sweep's file overrules them",
    )
    group.add_argument("--wait", action="store_true", help="watch until no trial is queued")


def launch(sweep: SweepDirectory, arguments: argparse.Namespace) -> int:
    """Submit what is missing, and watch it if asked to; returns the exit status."""
    submitit = _submitit()
    common = {"minutes": MINUTES, **parse_resources(arguments.slurm)}
    of_trial = read_resources(arguments.sweep)
    queued = queued_trials(sweep)
    missing = [e for e in sweep.claimable(arguments.retry) if e.name not in queued]
    jobs = dict(queued)
    for resources, entries in arrays(sweep, missing, common, of_trial, jobs):
        executor = submitit.SlurmExecutor(sweep.path / "slurm", max_num_timeout=TIMEOUTS)
        executor.update_parameters(**parameters(resources, sweep.path.name))
        tasks = [
            TrialTask(str(sweep.path), e.name, tuple(arguments.retry), arguments.stop)
            for e in entries
        ]
        try:
            with contextlib.redirect_stderr(io.StringIO()) as said:  # else it is said twice
                submitted = executor.map_array(run_task, tasks)
        except submitit.core.utils.FailedJobError as error:
            raise ValueError(f"Slurm refuses {dict(resources)}: {_reason(error)}") from None
        print(said.getvalue(), end="", file=sys.stderr)
        for entry, job in zip(entries, submitted, strict=True):
            jobs[entry.name] = job.job_id
        write_json(_record(sweep), jobs)
        shown = ", ".join(f"{k} = {v}" for k, v in resources.items())
        job = submitted[0].job_id.split("_")[0]
        print(f"submitted {counted(len(entries), 'trial')} as job {job} ({shown})")
    if queued:
        print(f"{counted(len(queued), 'trial')} in the queue already")
    print(summary(sweep.path, progress(sweep)))
    print(f"watch: squeue --me; gpt-jax sweep status {sweep.path}")
    return _wait(sweep) if arguments.wait else 0


def parse_resources(given: Sequence[str]) -> dict[str, Any]:
    """`KEY=VALUE` texts as resources; ValueError for another form, or no number where one is."""
    resources: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ValueError(f"--slurm {text}; it looks like --slurm partition=gpu")
        if key == "setup":
            resources.setdefault("setup", []).append(value)
        else:
            resources[key] = int(value) if key in NUMBERS and value.isdecimal() else value
        check_resources(resources, f"--slurm {text}")
    return resources


def check_resources(resources: Any, where: str) -> None:
    """Raises ValueError, which begins with `where`, for resources that sbatch could not be given.

    Names are not checked: sbatch knows its options.
    """
    if not isinstance(resources, Mapping):
        what = type(resources).__name__
        raise ValueError(f"{where} is {what}; need a dict such as {{'gpus': 1, 'minutes': 60}}")
    for key, value in resources.items():
        is_number = isinstance(value, int) and not isinstance(value, bool)
        least = LEAST_MINUTES if key == "minutes" else 1
        if key in NUMBERS and not (is_number and value >= least):
            raise ValueError(f"{where}: {key} = {value!r}; a whole number, {least} or more")
        if key == "setup" and not (
            isinstance(value, list) and all(isinstance(line, str) for line in value)
        ):
            raise ValueError(f"{where}: setup = {value!r}; a list of shell commands")
        if key not in (*NUMBERS, "setup") and not isinstance(value, str | int | float):
            raise ValueError(f"{where}: {key} = {value!r}; a text, a number or True")


def arrays(
    sweep: SweepDirectory,
    entries: Sequence[Entry],
    common: Resources,
    of_trial: Callable[[Trial], Resources] | None,
    jobs: Mapping[str, str],
) -> Iterator[tuple[dict[str, Any], list[Entry]]]:
    """(resources, trials) of each array, trunks before the branches, which depend on them.

    jobs: {trial: job}; read when the branches come, after their trunks were submitted. More trials
    than an array may hold are several arrays.
    """
    names = {entry.fingerprint: entry.name for entry in sweep.entries}

    def resources(entry: Entry) -> dict[str, Any]:
        own = {} if of_trial is None else of_trial(Trial(entry.config, entry.varied))
        check_resources(own, f"get_resources of trial {entry.name}")
        trunk = jobs.get(names.get(entry.trunk or "", ""))
        behind = {} if trunk is None else {"dependency": f"afterany:{trunk}"}
        return {**common, **own, **behind}

    for is_branch in (False, True):
        groups: dict[str, tuple[dict[str, Any], list[Entry]]] = {}
        for entry in entries:
            if (entry.trunk is not None) == is_branch:
                wanted = resources(entry)
                key = json.dumps(wanted, sort_keys=True)
                groups.setdefault(key, (wanted, []))[1].append(entry)
        for wanted, group in groups.values():
            for start in range(0, len(group), ARRAY_TASKS):
                yield wanted, group[start : start + ARRAY_TASKS]


def parameters(resources: Resources, name: str) -> dict[str, Any]:
    """submitit's parameters. Slurm may queue a task again that it has preempted."""
    known = {PARAMETERS[k]: v for k, v in resources.items() if k in PARAMETERS}
    if "mem" in known:
        known["mem"] = f"{known['mem']}GB"
    other = {k.replace("_", "-"): v for k, v in resources.items() if k not in PARAMETERS}
    return {
        "job_name": name,
        "signal_delay_s": SIGNAL_SECONDS,
        **known,
        "additional_parameters": {"requeue": True, **other},
    }


@dataclasses.dataclass(frozen=True)
class TrialTask:
    """One trial of a sweep, as a task of an array."""

    directory: str
    name: str
    retry: tuple[str, ...]
    stop: str | None = None
    """A rule by which it may be stopped early"""


class _RunTask:
    """Function of a task: runs a worker in a process that submitit's signals do not reach.

    `checkpoint` is submitit's name for what is done when Slurm is about to end the task.
    """

    def __init__(self) -> None:
        self._worker: subprocess.Popen[bytes] | None = None

    def __call__(self, task: TrialTask) -> None:
        sweep = SweepDirectory.open(task.directory)
        _wait_for_dead_claim(sweep, task.name)
        command = [sys.executable, "-m", "gpt_jax.sweep.worker", task.directory]
        command += ["--identity", sweep.identity]
        for state in task.retry:
            command += ["--retry", state]
        if task.stop:
            command += ["--stop", task.stop]
        self._worker = subprocess.Popen([*command, "--only", task.name], preexec_fn=_ignore_warning)
        while (status := self._worker.poll()) is None:
            time.sleep(POLL_SECONDS)
        if status in (INTERRUPTED, -signal.SIGTERM):
            raise RuntimeError(f"trial {task.name} was told to stop")
        if status:
            message = f"the worker ended with status {status}; its log is in {sweep.path / 'slurm'}"
            # Else it did not come as far as the trial, which may well train on another host.
            if task.name in sweep.claimed_by(sweep.identity):
                sweep.finish(task.name, "failed", message)
            raise RuntimeError(f"trial {task.name}: {message}")

    def checkpoint(self, task: TrialTask) -> Any:
        """Let the worker save, and ask to be queued again."""
        # A worker that has ended and was waited for has no pid any more.
        if self._worker is not None and self._worker.returncode is None:
            self._worker.send_signal(signal.SIGTERM)
            # Called from a signal handler, perhaps inside of poll(): Popen's lock may be taken.
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, self._worker.pid, os.WEXITED | os.WNOWAIT)
        return _submitit().helpers.DelayedSubmission(_RunTask(), task)


def _wait_for_dead_claim(sweep: SweepDirectory, name: str) -> None:
    """A task that was killed, and is queued again on another host, finds its own claim live.

    A claim that lives on longer than a dead one can is somebody's who works; it is left to them.
    """
    give_up = time.monotonic() + 2 * STALE_SECONDS
    while sweep.state(name) == "running" and time.monotonic() < give_up:
        time.sleep(POLL_SECONDS)


def _ignore_warning() -> None:
    """Slurm signals every process of a task; this one is for submitit, which passes it on."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


run_task = _RunTask()


def queued_trials(sweep: SweepDirectory) -> dict[str, str]:
    """{trial: job} of the trials that Slurm has in its queue, waiting or running."""
    known = _known_jobs(sweep)
    queue = _queue() if known else {}
    return {name: job for name, job in known.items() if job in queue}


def _queue() -> dict[str, str]:
    """{job or task of an array: state} of this user, in Slurm's words; raises NoAnswer."""
    asked = subprocess.run(
        ["squeue", "--me", "--noheader", "--array", "--format", "%i %T"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if asked.returncode:
        raise NoAnswer(f"squeue does not answer: {' '.join(asked.stderr.split())}")
    return {job: state.lower() for job, state in map(str.split, asked.stdout.splitlines())}


def _wait(sweep: SweepDirectory) -> int:
    """Watch until no trial is queued; the exit status of `sweep run` with any launcher."""
    try:
        _watch(sweep)
    except KeyboardInterrupt:
        print("stopped watching: the jobs go on (scancel ends them)", file=sys.stderr)
        return INTERRUPTED
    final = progress(sweep)
    print("\n".join([*table(final), "", summary(sweep.path, final)]))
    left = sweep.claimable()
    if left:
        trials = counted(len(left), "trial")
        print(f"{trials} left Slurm's queue undone: the same command continues")
    return 1 if left or count(final)["failed"] or count(final)["damaged"] else 0


def _watch(sweep: SweepDirectory) -> None:
    said = ""
    with make_view(sweep.path, progress(sweep)) as view:
        while True:
            view.update(progress(sweep))
            try:
                text = describe_queue(_known_jobs(sweep), _queue())
            except NoAnswer as error:
                text = str(error)
            if not text:
                return
            if text != said:
                view.say(text)
                said = text
            time.sleep(WATCH_SECONDS)


def describe_queue(jobs: Mapping[str, str], queue: Mapping[str, str]) -> str:
    """In Slurm's queue: 3 pending, 2 running. Empty if no job is in it."""
    counts = collections.Counter(queue[job] for job in jobs.values() if job in queue)
    parts = [f"{n} {state}" for state, n in sorted(counts.items())]
    return f"in Slurm's queue: {', '.join(parts)}" if parts else ""


def _reason(error: Exception) -> str:
    """Error message of sbatch, without the hint to its help."""
    lines = [line for line in str(error).splitlines() if line and not line.startswith("Try ")]
    return lines[-1].removeprefix("sbatch: ").removeprefix("error: ") if lines else "no reason said"


def _record(sweep: SweepDirectory) -> Path:
    return sweep.path / "slurm" / "jobs.json"


def _known_jobs(sweep: SweepDirectory) -> dict[str, str]:
    """{trial: job} of all that was submitted last."""
    path = _record(sweep)
    return json.loads(path.read_text()) if path.exists() else {}


def _submitit() -> Any:
    try:
        import submitit
    except ImportError:
        raise ValueError("--launcher slurm needs submitit: pip install 'gpt-jax[slurm]'") from None
    if shutil.which("sbatch") is None:
        raise ValueError("--launcher slurm needs Slurm's sbatch on this host; none is on the PATH")
    return submitit
