"""Flags of XLA for tests and for the processes that they start."""

import os


def add_xla_flag(flag: str) -> None:
    """Add a flag to those of this process and of all that it starts; read when JAX first runs."""
    given = os.environ.get("XLA_FLAGS", "").split()
    os.environ["XLA_FLAGS"] = " ".join([*(one for one in given if one != flag), flag])


def simulated_devices(n: int) -> str:
    """XLA_FLAGS of a process that has n CPU devices, and this process's flags otherwise."""
    return f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={n}"
