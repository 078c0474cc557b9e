"""The table of chips, and the measured peak of a CPU."""

import itertools
import subprocess
import sys

import pytest

from gpt_jax.cost import cpu_speed, hardware
from gpt_jax.cost.cpu_speed import measured_cpu_peak
from gpt_jax.cost.hardware import CHIPS, chip, identify


@pytest.mark.smoke
@pytest.mark.parametrize("entry", CHIPS, ids=lambda entry: entry.name)
def test_every_chip_is_found_by_name_and_device_kind(entry: hardware.Chip) -> None:
    assert chip(entry.name) is entry
    assert all(identify(kind) is entry for kind in entry.device_kinds)
    assert entry.source
    # Units: a slip of a thousand leaves these ranges.
    assert 1e14 < entry.peak("bfloat16") < 1e16
    low = "int8" if "int8" in entry.peak_flops else "float8"
    assert entry.peak("float32") <= entry.peak("bfloat16") <= entry.peak(low)
    assert 1e10 < entry.memory_bytes < 1e12
    assert 5e11 < entry.bandwidth < 1e13
    assert entry.interconnect_source
    links = entry.interconnect
    assert 2e10 < links.bandwidth < entry.bandwidth
    # A torus reaches the whole slice; NVLink a node, with a slower network beyond.
    assert (entry.backend == "tpu") == (links.domain is None) == (links.dims in (2, 3))
    assert links.network < links.bandwidth
    assert (links.network > 0) == (entry.name != "tpu_v4")  # of which no page tells it


@pytest.mark.parametrize(
    ("name", "peak", "memory", "bandwidth"),
    [
        ("tpu_v4", 275e12, 32 * 2**30, 1200e9),
        ("tpu_v5p", 459e12, 95 * 2**30, 2765e9),
        # jax counts a chip as two devices.
        ("tpu_v7x", 2307e12 / 2, 96 * 2**30, 3690e9),
        ("a100_80gb", 312e12, 80e9, 2039e9),
        ("h100", 989.4e12, 80e9, 3350e9),
    ],
)
def test_published_values(name: str, peak: float, memory: float, bandwidth: float) -> None:
    entry = chip(name)
    assert entry.peak("bfloat16") == pytest.approx(peak)
    assert entry.memory_bytes == pytest.approx(memory, rel=1e-3)
    assert entry.bandwidth == pytest.approx(bandwidth)


@pytest.mark.parametrize(
    ("name", "one_way", "dims"), [("v5p", 600e9, 3), ("v6e", 400e9, 2), ("h100", 450e9, 0)]
)
def test_published_interconnects(name: str, one_way: float, dims: int) -> None:
    assert chip(name).interconnect.bandwidth == pytest.approx(one_way)
    assert chip(name).interconnect.dims == dims


def test_a_device_kind_names_one_chip() -> None:
    kinds = [kind for entry in CHIPS for kind in entry.device_kinds]
    assert len(kinds) == len(set(kinds))
    assert len({entry.name for entry in CHIPS}) == len(CHIPS)


@pytest.mark.parametrize("kind", ["cpu", "TPU v4 lite", "NVIDIA A100", "NVIDIA H100 NVL", ""])
def test_other_devices_are_not_guessed(kind: str) -> None:
    assert identify(kind) is None


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(
        ValueError, match=r"unknown chip 'tpu_v5'; .*did you mean 'tpu_v5.' or"
    ) as caught:
        chip("tpu_v5")
    assert all(entry.name in str(caught.value) for entry in CHIPS)
    with pytest.raises(ValueError, match="no peak of tpu_v4 for float8 operands; known: bfloat16"):
        chip("tpu_v4").peak("float8")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_measured_cpu_peak_is_flops_over_seconds(
    dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that moves one hundredth of a second at each look, each product takes that."""
    ticks = itertools.count()
    monkeypatch.setattr(cpu_speed.time, "perf_counter", lambda: 0.01 * next(ticks))
    assert measured_cpu_peak(dtype) == pytest.approx(2 * 1024**3 / 0.01)


def test_measured_cpu_peak_by_the_real_clock() -> None:
    assert 1e9 < measured_cpu_peak("float32", seconds=0.05) < 1e14


def test_no_jax_at_import() -> None:
    code = "import sys, gpt_jax.cost.hardware, gpt_jax.cost.flops; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
