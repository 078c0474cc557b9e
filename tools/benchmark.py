"""Speed and memory of gpt_jax beside GPT-2 in torch, by nanoGPT's ways and by `transformers`.

    pip install -e '.[benchmark]'
    python tools/benchmark.py [--only train-a,decode-c-1] [--rounds 5] [--out runs/benchmark]

Every measurement is a process of its own; round after round, each case runs all of its modes, in
an order that rotates. Prints the medians over rounds of each process's median with their range,
the ratio to the fastest peer, the share of this machine's measured peak, and memory; writes
benchmark.json, benchmark.md and a figure. Each measurement is saved when it is made: the same
command continues after a kill. `--from benchmark.json` only prints and draws, `--memory` measures
training by attention and rematerialization, `--peers none` needs no torch.

This process imports neither jax nor torch. What is measured: benchmark_cases.py (cases),
benchmark_ours.py, peers.py; what is said of it: benchmark_report.py.
"""

import argparse
import importlib.util
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmark_cases import CASES, Case, Record, case_named, is_ours, write_texts

TIMEOUT_SECONDS = 3600
"""Of one measurement: a peer that hangs must not stop the others."""


def main(arguments: Sequence[str] | None = None) -> int:
    parsed = _parser().parse_args(arguments)
    if parsed.measure:
        return measure_here(parsed)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        record = json.loads(parsed.source.read_text()) if parsed.source else measure_all(parsed)
    except (ValueError, OSError) as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 2
    from benchmark_report import write_report

    print(write_report(record, parsed.out))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ", ".join(case.name for case in CASES)
    parser.add_argument("--only", metavar="CASES", help=f"separated by commas, of: {names}")
    parser.add_argument("--memory", action="store_true", help="the case memory-c alone")
    parser.add_argument(
        "--peers", default="all", metavar="all|none|MODES",
        help="modes of peers separated by commas, such as 'nanoGPT eager bfloat16'; default all",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=5, help="default 5")
    parser.add_argument(
        "--seconds", type=float, default=5.0, help="about how long a measurement is; default 5"
    )
    parser.add_argument(
        "--rest-below", type=float, default=0.0, metavar="SHARE",
        help="a peer that the first round found slower than this share of the fastest one rests in "
        "the others; default 0: none",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark"))
    parser.add_argument(
        "--from", dest="source", type=Path, metavar="JSON", help="print and draw, measure nothing"
    )
    internal = parser.add_argument_group("one measurement in this process, as a line of JSON")
    internal.add_argument("--measure", metavar="CASE")
    internal.add_argument("--mode")
    return parser


# ---------------------------------------------------------------------------------------------
# The process of one measurement


def measure_here(parsed: argparse.Namespace) -> int:
    """Measure a mode of a case and print it."""
    case = case_named(parsed.measure)
    # Imported here: jax and torch never share a process.
    if is_ours(parsed.mode):
        from benchmark_ours import measure
    else:
        from peers import measure
    write_texts(parsed.out / "data")
    found = measure(case, parsed.mode, case.units(parsed.seconds), parsed.out / "data")
    print(json.dumps(found), flush=True)
    return 0


def measure_in_process(case: Case, mode: str, seconds: float, out: Path) -> Record:
    """What a process of its own says; {"error": its last line} if it failed."""
    command = [sys.executable, __file__, "--measure", case.name, "--mode", mode]
    command += ["--seconds", str(seconds), "--out", str(out)]
    caches = {
        "JAX_COMPILATION_CACHE_DIR": str(out / "compiled"),
        "TORCHINDUCTOR_CACHE_DIR": str(out / "inductor"),
    }
    try:
        done = subprocess.run(
            command, env=os.environ | caches, capture_output=True, text=True, check=False,
            timeout=TIMEOUT_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {TIMEOUT_SECONDS:,} s"}
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    if done.returncode == 0:
        return json.loads(lines[-1])
    return {"error": lines[-1] if lines else f"status {done.returncode}"}


# ---------------------------------------------------------------------------------------------
# All measurements


class Store:
    """benchmark.json: machine, settings, measurements, and what failed; continued if it exists."""

    def __init__(self, path: Path, settings: Record):
        self.path = path
        self.record: Record = {**settings, "measurements": [], "failures": {}}
        if path.exists():
            self.record = json.loads(path.read_text())
            self._check(settings)
            self.record["failures"] = {}  # tried again

    def _check(self, settings: Record) -> None:
        for key, value in settings.items():
            if self.record[key] != value:
                raise ValueError(
                    f"{self.path} was measured with another {key} ({self.record[key]}, now "
                    f"{value}): continue it with that, or choose another --out"
                )

    def has(self, case: Case, mode: str, round_: int) -> bool:
        key = (case.name, mode, round_)
        return any((m["case"], m["mode"], m["round"]) == key for m in self.record["measurements"])

    def failed(self, case: Case, mode: str) -> bool:
        return mode in self.record["failures"].get(case.name, {})

    def add(self, case: Case, mode: str, round_: int, found: Record) -> None:
        from gpt_jax.storage.atomic import write_json

        if "error" in found:
            self.record["failures"].setdefault(case.name, {})[mode] = found["error"]
        else:
            key = {"case": case.name, "mode": mode, "round": round_}
            self.record["measurements"].append(key | found)
        write_json(self.path, self.record)


def measure_all(parsed: argparse.Namespace) -> Record:
    """Every measurement that is not there yet; returns what benchmark.json holds."""
    from gpt_jax.runs.tracking import code_commit

    cases = chosen_cases(parsed)
    if parsed.peers != "none":
        require_peers(cases)
    settings = {"machine": machine(), "commit": code_commit(), "seconds": parsed.seconds}
    out = parsed.out.resolve()
    store = Store(out / "benchmark.json", settings)
    for case, mode, round_ in schedule(cases, parsed.rounds, parsed.peers):
        if store.has(case, mode, round_) or store.failed(case, mode):
            continue
        if round_ and rests(store.record, case, mode, parsed.rest_below):
            continue
        began = time.monotonic()
        found = measure_in_process(case, mode, parsed.seconds, out)
        store.add(case, mode, round_, found)
        _say(f"round {round_ + 1}/{parsed.rounds}  {case.name}  {mode}", found, began)
    return store.record


def rests(record: Record, case: Case, mode: str, share: float) -> bool:
    """Whether a peer's first round was slower than this share of the fastest peer's."""
    from benchmark_report import fastest_peer, summaries

    first = [m for m in record["measurements"] if m["round"] == 0]
    found = {s.mode: s for s in summaries({"measurements": first}, case)}
    best = fastest_peer(list(found.values()))
    if best is None or is_ours(mode) or mode not in found:
        return False
    return found[mode].speed.median < share * best.speed.median


def _say(what: str, found: Record, began: float) -> None:
    from benchmark_report import show_speed, speed

    took = f"({time.monotonic() - began:.0f} s)"
    said = found["error"] if "error" in found else show_speed(found["work"], speed(found))
    print(f"{what}: {said}  {took}", file=sys.stderr, flush=True)


def chosen_cases(parsed: argparse.Namespace) -> list[Case]:
    if parsed.memory:
        return [case_named("memory-c")]
    if parsed.only:
        return [case_named(name) for name in parsed.only.split(",")]
    return [case for case in CASES if case.by_default]


def schedule(
    cases: Sequence[Case], n_rounds: int, peers: str = "all"
) -> Iterator[tuple[Case, str, int]]:
    """(case, mode, round): round after round; in each, every case begins with another mode.

    peers: all, none, or modes separated by commas. Raises ValueError for a mode of no case.
    """
    known = {mode for case in cases for mode in case.modes}
    unknown = set(peers.split(",")) - known - {"all", "none"}
    if unknown:
        raise ValueError(
            f"--peers {unknown.pop()}: no mode of the chosen cases; there are {', '.join(known)}"
        )
    for round_ in range(n_rounds):
        for case in cases:
            modes = [
                mode
                for mode in case.modes
                if is_ours(mode) or peers == "all" or mode in peers.split(",")
            ]
            first = round_ % len(modes)
            for mode in modes[first:] + modes[:first]:
                yield case, mode, round_


def require_peers(cases: Sequence[Case]) -> None:
    if all(is_ours(mode) for case in cases for mode in case.modes):
        return
    missing = [n for n in ("torch", "transformers") if importlib.util.find_spec(n) is None]
    if missing:
        raise ValueError(
            f"no {' and no '.join(missing)} to compare with: pip install 'gpt-jax[benchmark]', or "
            f"--peers none"
        )


def machine() -> Record:
    """What the numbers depend on, without naming the machine."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": _processor(),
        "cores": cores,
        "memory_gib": round(pages / 2**30, 1),
        "system": platform.system(),
        "python": platform.python_version(),
    }


def _processor() -> str:
    """The model's name, and what decides the speed of its products."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine()
    lines = [line.partition(":") for line in info.read_text().splitlines()]
    facts = {key.strip(): value.strip() for key, _, value in lines}
    flags = set(facts.get("flags", "").split())
    kinds = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    return " ".join([facts.get("model name", platform.machine()), *kinds])


if __name__ == "__main__":
    sys.exit(main())
