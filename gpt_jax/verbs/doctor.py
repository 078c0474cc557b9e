"""`gpt-jax doctor`: versions, devices, what would run on them and why, and the data found here.

Looks and measures only: it downloads, builds and deletes nothing. Every section is a list of rows,
made by one function and printed by one other. Must not import jax at import time.
"""

import argparse
import importlib.metadata
import os
import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from gpt_jax.config import Config, overrides
from gpt_jax.cost import cpu_speed, hardware
from gpt_jax.data import Corpus, default_cache
from gpt_jax.data.tokenizers.making import make_tokenizer
from gpt_jax.runtime import cache_directory

if TYPE_CHECKING:
    import jax

    from gpt_jax.models.execution import Execution

Row = tuple[str, str]
"""What, and how it stands with it."""

NOT_SHOWN = ("dev", "benchmark", "cuda", "tpu")
"""Extras for working on the code, and for other builds of jax, which is shown anyway."""
PLAIN_WIDTH = 120
"""Columns where the output is not a terminal."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "config",
        metavar="CONFIG",
        nargs="?",
        help="say what would run for this config (default: a GPT-2 of 124 million parameters)",
    )


def run(arguments: argparse.Namespace) -> int:
    config = overrides.load(arguments.config) if arguments.config else Config(name="gpt2")
    # Imported here: --help and a missing file should not wait for jax.
    import jax

    from gpt_jax.models.execution import decide_execution
    from gpt_jax.parallel.dispatch import capacity

    devices = jax.devices()
    platform = devices[0].platform
    execution = decide_execution(
        config.model, config.compute, platform, len(devices), config.mesh.sequence
    )
    steps = capacity(config, platform, len(devices))
    _print("versions", [*versions(), *extras()])
    _print("devices", [*describe_devices(devices, str(execution.how.operands)), *host()])
    _print(f"what runs for {config.name}", describe_execution(execution, steps))
    _print("compiled programs", [compilation_cache()])
    _print("corpora", corpora(config))
    _print("tokenizers", tokenizers(config))
    return 0


def versions() -> list[Row]:
    """Python and the packages that are always needed."""
    rows = [("python", platform.python_version()), ("gpt-jax", _version("gpt-jax"))]
    names = [name for name, extra in _requirements() if extra is None]
    # Its own package, pinned by jax to the same version unless an installation is broken.
    names.insert(names.index("jax") + 1, "jaxlib")
    return rows + [(name, _version(name)) for name in names]


def extras() -> list[Row]:
    """Optional packages: the version, or the line that installs it."""
    rows = []
    for name, extra in _requirements():
        if extra is not None and extra not in NOT_SHOWN:
            missing = f"absent: pip install 'gpt-jax[{extra}]'"
            rows.append((name, _version(name) or missing))
    return rows


def _requirements() -> Iterator[tuple[str, str | None]]:
    """(package, the extra that it belongs to or None), as the installed metadata says."""
    for line in importlib.metadata.requires("gpt-jax") or []:
        name = re.match(r"[\w.-]+", line)
        extra = re.search(r"""extra == ['"]([\w-]+)['"]""", line)
        if name:
            yield name[0], extra[1] if extra else None


def _version(name: str) -> str:
    """The installed version; empty if there is none."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def describe_devices(devices: "list[jax.Device]", operands: str) -> list[Row]:
    """Each kind of device: how many, their memory, and the peak that MFU is relative to."""
    rows = []
    for kind in dict.fromkeys(device.device_kind for device in devices):
        alike = [device for device in devices if device.device_kind == kind]
        facts = [f"{len(alike)} x {kind}", _memory(alike[0]), _peak(alike[0], operands)]
        rows.append((alike[0].platform, ", ".join(fact for fact in facts if fact)))
    return rows


def _memory(device: "jax.Device") -> str:
    statistics = device.memory_stats() or {}
    limit = statistics.get("bytes_limit")
    return f"{_size(limit)} each" if limit else ""


def _peak(device: "jax.Device", operands: str) -> str:
    if device.platform == "cpu":
        peak = cpu_speed.measured_cpu_peak(operands)
        return f"{peak / hardware.GIGA:,.0f} GFLOP/s measured now with {operands} operands"
    chip = hardware.identify(device.device_kind)
    if chip is None:
        return "not in the table of chips (gpt_jax/cost/hardware.py): MFU is not reported"
    peak = chip.peak(operands)
    return f"{chip.name}: {peak / hardware.TERA:,.0f} TFLOP/s each with {operands} operands"


def host() -> list[Row]:
    """The cores that this process may use, and the machine's memory."""
    usable = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return [("host", f"{usable} cores for this process, {_size(memory)} of memory")]


def describe_execution(execution: "Execution", steps: int) -> list[Row]:
    """Operand types, kernels and loops that a config would get here; steps: of a call, at most."""
    form = "forms that are fast on a CPU" if execution.how.cpu_forms else "as written"
    logits = "whole" if not execution.loss_in_parts else "in parts"
    unrolled = "unrolled" if execution.unroll else "scanned: compile time does not grow with depth"
    return [
        ("matrix products", f"{execution.how.operands} operands, float32 sums, {form}"),
        ("attention", execution.kernel.warning or ": ".join(execution.kernel[:2])),
        ("layers", unrolled),
        ("logits of the loss", logits),
        ("steps a call", f"up to {steps}"),
        ("remat", execution.remat),
        ("compiler options", _options(execution) or "XLA's own"),
    ]


def _options(execution: "Execution") -> str:
    return " ".join(f"{name}={value}" for name, value in execution.compiler_options)


def compilation_cache() -> Row:
    """Where compiled programs are kept, how many, and their size."""
    place = os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(cache_directory() / "compiled")
    files = [path for path in Path(place).glob("*-cache") if path.is_file()]
    return f"{len(files):,} programs", f"{_size(sum(map(_file_size, files)))} in {place}"


def corpora(config: Config) -> list[Row]:
    """Each corpus in the cache: its tokens and size; or what is wrong with it."""
    place = Path(config.data.cache).expanduser() if config.data.cache else default_cache()
    directories = sorted(path for path in place.glob("*") if path.is_dir())
    if not directories:
        return [("none", f"in {place}; gpt-jax train or gpt-jax data build makes them")]
    return [(directory.name, _corpus(directory)) for directory in directories]


def _corpus(directory: Path) -> str:
    try:
        manifest = Corpus(directory).manifest
    except ValueError as error:
        return f"damaged or unfinished: {error}"
    splits = ", ".join(
        f"{split['n_tokens']:,} {name}" for name, split in manifest["splits"].items()
    )
    size = sum(_file_size(path) for path in directory.iterdir() if path.is_file())
    return f"{splits} tokens ({manifest['tokenizer']['name']}), {_size(size)}"


def tokenizers(config: Config) -> list[Row]:
    """Which of the named tokenizers can be used on this machine."""
    learned = "learned from the corpus"
    rows = [("byte", "always there"), ("char", learned), ("bpe:SIZE", learned)]
    for name in ("gpt2", "gpt1"):
        try:
            size = make_tokenizer(name, config.data.tokenizer_path).vocab_size
        except ValueError as error:
            rows.append((name, str(error)))
        else:
            rows.append((name, f"found, {size:,} tokens"))
    return rows


def _file_size(path: Path) -> int:
    return path.stat().st_size


def _size(n_bytes: int) -> str:
    """In binary units, with three digits or so."""
    size, units = float(n_bytes), ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size, units = size / 1024, units[1:]
    return f"{size:,.0f} {units[0]}" if size >= 100 or units[0] == "B" else f"{size:.1f} {units[0]}"


def _print(title: str, rows: list[Row]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    table = Table(box=None, show_header=False, padding=(0, 0, 0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(escape(name), escape(value))
    console.print(f"[bold]{escape(title)}[/bold]")
    console.print(table)
    console.print()
