"""`gpt-jax sweep run SWEEP --launcher slurm`: an array job of workers, one trial each, by submitit.

Trials that ask for the same resources form one array. A task runs the worker of any other launcher
on its one trial; when Slurm preempts it, or its time is over, the worker saves and the task is
queued again. Branches are queued behind their trunk. Submitted again, only what is neither done nor
queued is. Must not import jax.
"""

import argparse
import dataclasses
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

from gpt_jax.runtime import INTERRUPTED
from gpt_jax.sweep.load import read_resources
from gpt_jax.sweep.status import progress, summary
from gpt_jax.sweep.store import Entry, SweepDirectory
from gpt_jax.sweep.trial import Trial
from gpt_jax.sweep.view import make_view
from gpt_jax.tracking import write_json

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
SIGNAL_SECONDS = 90
"""Before a task's time is over, it is told to save."""
WATCH_SECONDS = 5.0
POLL_SECONDS = 0.2
TIMEOUTS = 10_000
"""A task whose time is over is queued again this many times: a trial may take days."""

Resources = Mapping[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the Slurm launcher understands."""
    group = parser.add_argument_group("with --launcher slurm")
    group.add_argument(
        "--slurm",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help=f"resources of a trial: {', '.join(PARAMETERS)} (a shell command; may be repeated), "
        "or any option of sbatch; get_resources(trial) in the sweep's file overrules them",
    )
    group.add_argument("--wait", action="store_true", help="watch until no trial is queued")


def launch(sweep: SweepDirectory, arguments: argparse.Namespace) -> int:
    """Submit what is missing, and watch it if asked to; returns the exit status."""
    submitit = _submitit()
    common = parse_resources(arguments.slurm)
    of_trial = read_resources(arguments.sweep)
    queued = queued_trials(sweep)
    missing = [e for e in sweep.claimable(arguments.retry) if e.name not in queued]
    jobs = dict(queued)
    for resources, entries in arrays(sweep, missing, common, of_trial, jobs):
        executor = submitit.SlurmExecutor(sweep.path / "slurm", max_num_timeout=TIMEOUTS)
        executor.update_parameters(**parameters(resources, sweep.path.name))
        tasks = [TrialTask(str(sweep.path), e.name, tuple(arguments.retry)) for e in entries]
        try:
            submitted = executor.map_array(run_task, tasks)
        except submitit.core.utils.FailedJobError as error:
            raise ValueError(f"Slurm refuses {dict(resources)}: {_last_line(error)}") from None
        for entry, job in zip(entries, submitted, strict=True):
            jobs[entry.name] = job.job_id
        write_json(_record(sweep), jobs)
        shown = ", ".join(f"{k} = {v}" for k, v in resources.items()) or "Slurm's defaults"
        print(f"submitted {len(entries)} trials as {submitted[0].job_id.split('_')[0]} ({shown})")
    print(f"{len(queued)} trials were queued already" if queued else "", end="\n" if queued else "")
    print(summary(sweep.path, progress(sweep)))
    print(f"watch: squeue --me; gpt-jax sweep status {sweep.path}")
    if arguments.wait:
        _watch(sweep)
        print(summary(sweep.path, progress(sweep)))
    return 0


def parse_resources(given: Sequence[str]) -> dict[str, Any]:
    """`KEY=VALUE` texts as resources; ValueError for another form, or no number where one is."""
    resources: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ValueError(f"--slurm {text}; it looks like --slurm partition=gpu")
        if key == "setup":
            resources.setdefault("setup", []).append(value)
        elif key in NUMBERS:
            if not value.isdigit() or int(value) < 1:
                raise ValueError(f"--slurm {text}; {key} is a whole number above 0")
            resources[key] = int(value)
        else:
            resources[key] = value
    return resources


def arrays(
    sweep: SweepDirectory,
    entries: Sequence[Entry],
    common: Resources,
    of_trial: Callable[[Trial], Resources] | None,
    jobs: Mapping[str, str],
) -> Iterator[tuple[dict[str, Any], list[Entry]]]:
    """(resources, trials) of each array, trunks before the branches, which depend on them.

    jobs: {trial: job}; read when the branches come, after their trunks were submitted.
    """
    names = {entry.fingerprint: entry.name for entry in sweep.entries}

    def resources(entry: Entry) -> dict[str, Any]:
        own = {} if of_trial is None else of_trial(Trial(entry.config, entry.varied))
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
        yield from groups.values()


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


class _RunTask:
    """What a task calls: a worker in a process of its own, which submitit's signals do not reach.

    `checkpoint` is submitit's name for what is done when Slurm is about to end the task.
    """

    def __init__(self) -> None:
        self._worker: subprocess.Popen[bytes] | None = None

    def __call__(self, task: TrialTask) -> None:
        command = [sys.executable, "-m", "gpt_jax.sweep.worker", task.directory]
        for state in task.retry:
            command += ["--retry", state]
        self._worker = subprocess.Popen([*command, "--only", task.name], preexec_fn=_ignore_warning)
        while (status := self._worker.poll()) is None:
            time.sleep(POLL_SECONDS)
        if status == INTERRUPTED:
            raise RuntimeError(f"trial {task.name} was told to stop, and saved")
        if status:
            raise RuntimeError(f"the worker of trial {task.name} ended with status {status}")

    def checkpoint(self, task: TrialTask) -> Any:
        """Let the worker save, and ask to be queued again."""
        if self._worker is not None:
            self._worker.send_signal(signal.SIGTERM)
            # Called from a signal handler, perhaps inside of poll(): Popen's lock may be taken.
            os.waitid(os.P_PID, self._worker.pid, os.WEXITED | os.WNOWAIT)
        return _submitit().helpers.DelayedSubmission(_RunTask(), task)


def _ignore_warning() -> None:
    """Slurm signals every process of a task; this one is for submitit, which passes it on."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


run_task = _RunTask()


def queued_trials(sweep: SweepDirectory) -> dict[str, str]:
    """{trial: job} of the trials that Slurm has in its queue, waiting or running."""
    path = _record(sweep)
    if not path.exists():
        return {}
    asked = subprocess.run(
        ["squeue", "--me", "--noheader", "--array", "--format", "%i"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if asked.returncode:
        raise ValueError(f"squeue does not answer: {asked.stderr.strip()}")
    jobs, known = asked.stdout.split(), json.loads(path.read_text())
    return {name: job for name, job in known.items() if job in jobs}


def _watch(sweep: SweepDirectory) -> None:
    with make_view(sweep.path, progress(sweep)) as view:
        while queued_trials(sweep):
            view.update(progress(sweep))
            time.sleep(WATCH_SECONDS)
        view.update(progress(sweep))


def _last_line(error: Exception) -> str:
    return str(error).strip().rpartition("\n")[2].removeprefix("sbatch: error: ")


def _record(sweep: SweepDirectory) -> Path:
    return sweep.path / "slurm" / "jobs.json"


def _submitit() -> Any:
    try:
        import submitit
    except ImportError:
        raise ValueError("--launcher slurm needs submitit: pip install 'gpt-jax[slurm]'") from None
    if shutil.which("sbatch") is None:
        raise ValueError("--launcher slurm needs Slurm's sbatch on this host; none is on the PATH")
    return submitit
