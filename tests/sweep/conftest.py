"""One report for all tests that only read it."""

from pathlib import Path

import pytest
from once import once
from simulated_sweep import isoflop_sweep

from gpt_jax.sweep.report import write_report

LAWS = ("chinchilla-isoflop", "chinchilla-parametric", "data-constrained")


def make_report(root: Path) -> None:
    write_report(isoflop_sweep(root / "isoflop"), "a <b>sweep</b>", LAWS, 50)


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of 4 budgets by 6 sizes with one trial diverged, one failed and one pending."""
    return once(tmp_path_factory, "sweep-report", make_report) / "isoflop" / "report"
