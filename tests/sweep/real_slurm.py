"""A real Slurm on this host, for tests: its daemons with a config of their own, in a directory.

Needs Debian's slurm-wlm and munge, and root. One node of two cores, one partition. A task that was
queued again may begin when its old credential has expired: here within seconds.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue")
MUNGE_KEY = Path("/etc/munge/munge.key")
CONFIG = """
ClusterName=t
SlurmctldHost={host}
SlurmctldPort={port}
SlurmdPort={node_port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge.socket,cred_expire=5
StateSaveLocation={root}/ctld
SlurmdSpoolDir={root}/d
SlurmctldPidFile={root}/ctld.pid
SlurmdPidFile={root}/d.pid
SlurmctldLogFile={root}/ctld.log
SlurmdLogFile={root}/d.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
KillWait=20
MinJobAge=2
SchedulerParameters=sched_min_interval=500000,sched_interval=1
NodeName={host} CPUs=2 RealMemory=4096 State=UNKNOWN
PartitionName=p Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str:
    """Why no Slurm can be started here; empty if it can."""
    missing = [name for name in DAEMONS if shutil.which(name) is None]
    if missing:
        return f"no {', '.join(missing)} (Debian: slurm-wlm, munge)"
    return "" if os.geteuid() == 0 else "needs root"


@contextlib.contextmanager
def running(root: Path) -> Iterator[dict[str, str]]:
    """Start the daemons; yields the environment of Slurm's commands."""
    root.chmod(0o755)
    for parent in root.parents:  # munged runs as another user, and checks who may write
        if parent != Path("/") and parent.stat().st_uid == 0:
            parent.chmod(parent.stat().st_mode | 0o055)
    munge = _start_munge(root)
    try:
        host, (port, node_port) = socket.gethostname().split(".")[0], _free_ports(2)
        for name in ("ctld", "d"):
            (root / name).mkdir()
        config = root / "slurm.conf"
        config.write_text(CONFIG.format(root=root, host=host, port=port, node_port=node_port))
        environment = {"SLURM_CONF": str(config)}
        for daemon in ("slurmctld", "slurmd"):
            subprocess.run([daemon, "-f", config], check=True, env=os.environ | environment)
        _wait_until_idle(environment, root)
        yield environment
    finally:
        _end_jobs({"SLURM_CONF": str(root / "slurm.conf")})
        for name in ("d.pid", "ctld.pid"):
            _stop(root / name)
        munge.terminate()
        munge.wait()


def _start_munge(root: Path) -> "subprocess.Popen[bytes]":
    """munged with its own key, socket and files, as its own user."""
    directory = root / "munge"
    directory.mkdir()
    key = directory / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    for path in (directory, key):
        shutil.chown(path, "munge", "munge")
    socket_file = root / "munge.socket"
    process = subprocess.Popen(
        [
            *("runuser", "-u", "munge", "--", "munged", "--foreground", "--force"),
            *(f"--key-file={key}", f"--socket={directory}/socket"),
            *(f"--pid-file={directory}/pid", f"--log-file={directory}/log"),
            f"--seed-file={directory}/seed",
        ],
        stdout=subprocess.DEVNULL,
        stderr=(root / "munge.log").open("wb"),
    )
    give_up = time.monotonic() + 20
    while not (directory / "socket").exists():
        assert process.poll() is None, (root / "munge.log").read_text()
        assert time.monotonic() < give_up, "munged does not start"
        time.sleep(0.05)
    socket_file.symlink_to(directory / "socket")
    return process


def _wait_until_idle(environment: dict[str, str], root: Path) -> None:
    give_up = time.monotonic() + 60
    while True:
        asked = subprocess.run(
            ["sinfo", "--noheader", "--format=%t"],
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if asked.stdout.strip() == "idle":
            return
        logs = "".join(p.read_text()[-2000:] for p in root.glob("*.log"))
        assert time.monotonic() < give_up, f"{asked.stdout} {asked.stderr}\n{logs}"
        time.sleep(0.3)


def _end_jobs(environment: dict[str, str]) -> None:
    """What a failed test left in the queue: its processes would outlive the daemons."""
    give_up = time.monotonic() + 40
    while time.monotonic() < give_up:
        asked = subprocess.run(
            ["squeue", "--noheader", "--format=%A"],
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        jobs = asked.stdout.split()
        if asked.returncode or not jobs:
            return
        subprocess.run(["scancel", *jobs], env=os.environ | environment, check=False)
        time.sleep(0.5)


def _free_ports(n: int) -> list[int]:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


def _stop(pid_file: Path) -> None:
    if not pid_file.exists():
        return
    pid = int(pid_file.read_text())
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    give_up = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and time.monotonic() < give_up:
        time.sleep(0.1)
