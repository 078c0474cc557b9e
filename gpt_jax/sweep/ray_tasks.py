"""`gpt-jax sweep run SWEEP --launcher ray`: a Ray task for each trial, on one host or a cluster.

A task runs the worker of any other launcher on its one trial, in a process of its own. Ray starts a
task again on another node when its own is lost; the trial's claim runs out with its holder, and the
trial continues from its last checkpoint. Branches wait for their trunk's task. The nodes share a
directory or a bucket, and have this package. Must not import jax.
"""

import argparse
import contextlib
import dataclasses
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gpt_jax import failures
from gpt_jax.hints import counted
from gpt_jax.output import say
from gpt_jax.runtime import INTERRUPTED
from gpt_jax.storage import paths, places
from gpt_jax.storage.optional import require
from gpt_jax.sweep.load import read_resources
from gpt_jax.sweep.status import progress
from gpt_jax.sweep.store import FINAL, Entry, SweepDirectory
from gpt_jax.sweep.trial import Trial
from gpt_jax.sweep.view import make_view

OPTIONS = {"cpus": "num_cpus", "gpus": "num_gpus", "memory_gb": "memory"}
"""Our name of a resource -> Ray's option of a task; any other name is a resource of the cluster,
such as TPU or TPU-v5e-8-head."""
RETRIES = 20
"""Starts of a task after its process or node was lost."""
POLL_SECONDS = 1.0
STOP_SECONDS = 120.0
"""Time that stopped trials have to save."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the Ray launcher."""
    group = parser.add_argument_group("with --launcher ray")
    group.add_argument(
        "--ray",
        action="append",
        default=[],
        metavar="KEY=NUMBER",
        help=f"resources of a trial: {', '.join(OPTIONS)}, or any resource that nodes of the "
        "cluster have, such as TPU; cpus = 1 unless given; may be repeated; get_resources(trial) "
        "in the sweep's file overrules them",
    )
    group.add_argument(
        "--ray-address",
        metavar="ADDRESS",
        help="of the cluster; default: RAY_ADDRESS, or the one that runs here, or a new one on "
        "this host",
    )


def check(arguments: argparse.Namespace) -> None:
    """Raises ValueError for options of another launcher, wrong ones, or where Ray is missing."""
    if arguments.launcher == "ray":
        require("ray", "ray")
        parse_resources(arguments.ray)
        return
    for option, given in (("--ray", arguments.ray), ("--ray-address", arguments.ray_address)):
        if given:
            raise ValueError(f"{option} is of --launcher ray; the launcher is {arguments.launcher}")


def parse_resources(given: Sequence[str]) -> dict[str, float]:
    """`KEY=NUMBER` texts as resources. Raises ValueError for another form."""
    found = {}
    for text in given:
        key, _, value = text.partition("=")
        try:
            found[key] = float(value)
        except ValueError:
            raise ValueError(f"--ray {text}; it looks like --ray gpus=1") from None
        check_resources(found, f"--ray {text}")
    return found


def check_resources(resources: Any, where: str) -> None:
    """Raises ValueError, which begins with `where`, for what is no set of resources."""
    if not isinstance(resources, Mapping):
        what = type(resources).__name__
        raise ValueError(f"{where} is {what}; need a dict such as {{'gpus': 1}}")
    for key, value in resources.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
            raise ValueError(f"{where}: {key} = {value!r}; a number, 0 or more")


def options(resources: Mapping[str, float], name: str) -> dict[str, Any]:
    """Ray's options of a task, from resources by our names."""
    known: dict[str, Any] = {OPTIONS[k]: v for k, v in resources.items() if k in OPTIONS}
    if "memory" in known:
        known["memory"] = int(known["memory"] * 1e9)
    other = {k: v for k, v in resources.items() if k not in OPTIONS}
    return {**known, "resources": other, "name": name, "max_retries": RETRIES}


@dataclasses.dataclass(frozen=True)
class TrialTask:
    """One trial of a sweep, as a task."""

    place: str
    """Directory or address of the sweep."""
    name: str
    retry: tuple[str, ...]
    stop: str | None
    """Rule by which it may be stopped early."""


def train_missing(sweep: SweepDirectory, arguments: argparse.Namespace, stop: list[int]) -> None:
    """Train what is missing by Ray tasks, and show progress until they have ended.

    stop: filled when this process is told to stop; the trials are then saved.

    Raises ValueError for resources that are none, or a cluster that does not answer.
    """
    common = {"cpus": 1.0, **parse_resources(arguments.ray)}
    of_trial = read_resources(arguments.sweep)
    ray = require("ray", "ray")
    with _cluster(ray, arguments.ray_address):
        waiting: dict[Any, str] = {}
        by_fingerprint: dict[str, Any] = {}
        entries = sweep.claimable(arguments.retry)
        for entry in sorted(entries, key=lambda entry: entry.trunk is not None):
            own = {} if of_trial is None else of_trial(Trial(entry.config, entry.varied))
            check_resources(own, f"get_resources of trial {entry.name}")
            _say_where_none_fits(ray, entry, {**common, **own})
            task = TrialTask(_everywhere(sweep), entry.name, tuple(arguments.retry), arguments.stop)
            run = ray.remote(run_trial).options(**options({**common, **own}, entry.name))
            ref = run.remote(task, by_fingerprint.get(entry.trunk or ""))
            waiting[ref], by_fingerprint[entry.fingerprint] = entry.name, ref
        _watch(ray, sweep, waiting, stop)


def _everywhere(sweep: SweepDirectory) -> str:
    """The sweep's place, as a process in another working directory names it."""
    return str(sweep.place if paths.is_address(sweep.place) else Path(sweep.place).absolute())


@contextlib.contextmanager
def _cluster(ray: Any, address: str | None) -> Iterator[None]:
    """A connection to the cluster that is asked for or runs here, or to a new one."""
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    address = address or os.environ.get("RAY_ADDRESS")
    ours = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        ray.init(address=address or "auto", **quiet)
    except ConnectionError as error:
        if address:
            raise ValueError(f"--ray-address {address}: {error}") from None
        say("no Ray cluster runs here: starting one on this host, for this sweep alone")
        ray.init(include_dashboard=False, **quiet)
    for number, handler in ours.items():  # Ray's would end this process before anything is saved
        signal.signal(number, handler)
    try:
        yield
    finally:
        ray.shutdown()


def _say_where_none_fits(ray: Any, entry: Entry, resources: Mapping[str, float]) -> None:
    """Tell of a trial that asks for more than the whole cluster has now."""
    names = {"cpus": "CPU", "gpus": "GPU"}
    has = ray.cluster_resources()
    for key, wanted in resources.items():
        name = names.get(key, key)
        if key != "memory_gb" and wanted > has.get(name, 0):
            say(
                f"trial {entry.name} waits for a node: it asks for {wanted:g} {name}, and the "
                f"cluster has {has.get(name, 0):g}"
            )


def _watch(ray: Any, sweep: SweepDirectory, waiting: dict[Any, str], stop: list[int]) -> None:
    """Show progress until every task has ended; note trials whose tasks were lost for good."""
    stopped_at = None
    with make_view(sweep.place, progress(sweep)) as view:
        while waiting:
            ended, _ = ray.wait(list(waiting), num_returns=len(waiting), timeout=POLL_SECONDS)
            for ref in ended:
                _settle(ray, sweep, waiting.pop(ref), ref)
            view.update(progress(sweep))
            if stop and stopped_at is None:
                view.say("stopping: the workers save what they have")
                stopped_at = time.monotonic()
                for ref in waiting:
                    ray.cancel(ref)
            if stopped_at is not None and time.monotonic() - stopped_at > STOP_SECONDS:
                view.say(f"{counted(len(waiting), 'task')} did not end and are given up")
                return
        view.update(progress(sweep))


def _settle(ray: Any, sweep: SweepDirectory, name: str, ref: Any) -> None:
    """Note a trial failed whose task was lost more often than Ray starts it again."""
    try:
        ray.get(ref)
    except ray.exceptions.TaskCancelledError:
        return
    except ray.exceptions.RayError as error:
        if sweep.state(name) not in FINAL:
            reason = str(error).strip().splitlines()[0]
            sweep.finish(name, "failed", f"its Ray task was lost: {reason}")


def run_trial(task: TrialTask, trunk: int | None = None) -> int:
    """Train a trial in a process of its own, as the task of a Ray worker; its exit status.

    trunk: status of the trunk's task, which Ray waits for. A trial that somebody else holds, such
    as the process that a lost task has left behind, is waited for.
    """
    sweep = SweepDirectory.open(task.place)
    status, retry = 0, task.retry
    while True:
        status = _run_worker(sweep, task, retry)
        if status or sweep.state(task.name) != "running":
            return status
        while sweep.state(task.name) == "running":
            time.sleep(POLL_SECONDS)
        retry = ()


def _run_worker(sweep: SweepDirectory, task: TrialTask, retry: Sequence[str]) -> int:
    identity = secrets.token_hex(8)
    command = [sys.executable, "-m", "gpt_jax.sweep.worker", task.place, "--only", task.name]
    command += ["--identity", identity]
    for state in retry:
        command += ["--retry", state]
    if task.stop:
        command += ["--stop", task.stop]
    logs = sweep.path / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / f"ray-{task.name.replace('/', '-')}.log"
    with log.open("ab") as stream:
        worker = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True
        )
        status = _waited_for(worker)
    places.put_back(logs)
    if status not in (0, INTERRUPTED, -signal.SIGTERM):
        known = failures.STATUSES.get(status, f"status {status}")
        if task.name in sweep.claimed_by(identity):
            sweep.finish(task.name, "failed", f"the worker ended with {known}; its log: {log}")
    return status


def _waited_for(worker: "subprocess.Popen[bytes]") -> int:
    """The exit status of a worker, which is told to save when the task is cancelled."""
    try:
        while (status := worker.poll()) is None:
            time.sleep(POLL_SECONDS)  # a call of the system that waits would not be interrupted
        return status
    except KeyboardInterrupt:  # how Ray cancels
        worker.send_signal(signal.SIGTERM)
        worker.wait()
        raise
