"""`gpt-jax sweep run --launcher slurm`: workers as array jobs, through submitit. (stand-in)"""

import argparse

from gpt_jax.sweep.store import SweepDirectory


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the Slurm launcher understands."""


def launch(sweep: SweepDirectory, arguments: argparse.Namespace) -> int:
    """Submit; returns the exit status."""
    raise ValueError("--launcher slurm is not there yet")
