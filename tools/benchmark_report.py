"""What tools/benchmark.py says of its measurements: ratios, tables in Markdown, and a figure.

The speed of a measurement is its work (tokens, FLOPs, starts) over the median time of its parts;
a mode's speed is the median over rounds. The fastest peer is the one whose median is highest, and
a ratio's range is over the rounds that both have. Must not import jax or torch.
"""

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark_cases import CASES, DTYPES, Case, Record, case_named, is_ours

GIBIBYTE, GIGA = 2**30, 1e9
PEAK_TARGETS = {"bfloat16": 0.6, "float32": 0.75}
"""Share of the measured peak that training (c) is to reach, by the operands' type."""
OURS, MEMORY_CASE, PEAK_CASE, LARGEST = "gpt_jax", "memory-c", "peak", "train-c"
CONVENTION = "exact"
"""How FLOPs are counted for the share of the peak: `gpt_jax.cost.flops`."""

PEER_MARKS = {"nanoGPT": "s", "transformers": "^", "torch_cached": "D"}
"""Of a peer's family, in the figure."""
TARGET_MARK: Mapping[str, Any] = {"color": "0.15", "linewidth": 2}


@dataclasses.dataclass(frozen=True)
class Range:
    """A median and what it is the median of, from least to most."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Range":
        return cls(statistics.median(values), min(values), max(values))


@dataclasses.dataclass(frozen=True)
class Summary:
    """All rounds of a mode of a case."""

    mode: str
    measurements: dict[int, Record]
    """By round."""

    @property
    def speeds(self) -> dict[int, float]:
        return {round_: speed(found) for round_, found in self.measurements.items()}

    @property
    def speed(self) -> Range:
        return Range.of(list(self.speeds.values()))

    def most(self, name: str) -> float | None:
        """The median over rounds of a quantity that measurements hold; None without it."""
        values = [found[name] for found in self.measurements.values() if name in found]
        return statistics.median(values) if values else None


def speed(found: Record) -> float:
    """Work a second."""
    return found["work"] / statistics.median(found["seconds"])


def summaries(record: Record, case: Case) -> list[Summary]:
    """The modes of a case that have been measured, in the case's order."""
    by_mode: dict[str, dict[int, Record]] = {}
    for found in record["measurements"]:
        if found["case"] == case.name:
            by_mode.setdefault(found["mode"], {})[found["round"]] = found
    order = [mode for mode in case.modes if mode in by_mode]
    return [Summary(mode, by_mode[mode]) for mode in order]


def fastest_peer(found: Sequence[Summary]) -> Summary | None:
    peers = [summary for summary in found if not is_ours(summary.mode)]
    return max(peers, key=lambda summary: summary.speed.median, default=None)


def ratio(mode: Summary, reference: Summary) -> Range:
    """How many times as fast: of the medians, with the range over common rounds."""
    rounds = mode.speeds.keys() & reference.speeds.keys()
    each = [mode.speeds[r] / reference.speeds[r] for r in rounds]
    median = mode.speed.median / reference.speed.median
    return Range(median, min(each, default=median), max(each, default=median))


def peaks(record: Record) -> dict[str, float]:
    """FLOP/s of the fastest square product of either library, by type of the operands."""
    found = summaries(record, case_named(PEAK_CASE))
    by_dtype = {
        dtype: [s.speed.median for s in found if s.mode.split()[1] == dtype] for dtype in DTYPES
    }
    return {dtype: max(rates) for dtype, rates in by_dtype.items() if rates}


def operands(summary: Summary) -> str:
    """The type of a mode's operands: what a run of ours says, what a peer's name says."""
    found = next(iter(summary.measurements.values()))
    return found.get("operands", summary.mode.split()[-1])


def training_flops_per_token(case: Case, convention: Any = CONVENTION) -> float:
    from gpt_jax.config import ModelConfig
    from gpt_jax.cost import flops

    shape = case.shape
    model = ModelConfig(
        vocab_size=shape.vocab_size,
        seq_len=shape.block,
        n_layers=shape.n_layers,
        d_model=shape.width,
        n_heads=shape.n_heads,
    )
    return flops.training_flops_per_token(model, convention)


def peak_share(record: Record, case: Case, summary: Summary) -> float | None:
    """Of the measured peak for its operands; None if that was not measured."""
    peak = peaks(record).get(operands(summary))
    return None if peak is None else summary.speed.median * training_flops_per_token(case) / peak


# ---------------------------------------------------------------------------------------------
# Tables


def write_report(record: Record, out: Path) -> str:
    """Write benchmark.md and the figure into `out`; returns the text."""
    from gpt_jax.storage.atomic import write_atomically

    sections = (speed_table, peak_table, memory_table, memory_option_table, footnotes)
    text = "\n\n".join(part for section in sections if (part := section(record)))
    write_atomically(out / "benchmark.md", text + "\n")
    draw(record, out / "benchmark")
    return text


def speed_table(record: Record) -> str:
    """Each mode of each case beside the fastest peer, which is in bold."""
    rows = []
    for case in CASES:
        if case.name in (PEAK_CASE, MEMORY_CASE):
            continue
        found = summaries(record, case)
        best = fastest_peer(found)
        for summary in found:
            rows.append(_speed_row(case, summary, best))
    head = ("case", "mode", "median", "[range]", "/ fastest peer", "[range]", "target", "")
    return table(head, rows)


def _speed_row(case: Case, summary: Summary, best: Summary | None) -> list[str]:
    found = next(iter(summary.measurements.values()))
    measured, times = summary.speed, None if best is None else ratio(summary, best)
    unit = unit_of(found["work"])
    row = [
        case.name,
        f"**{summary.mode}**" if summary is best else summary.mode,
        show_speed(found["work"], measured.median),
        f"[{', '.join(sorted((unit.show(measured.low), unit.show(measured.high)), key=_number))}]",
        "" if times is None else f"{times.median:.2f}",
        "" if times is None or summary is best else f"[{times.low:.2f}, {times.high:.2f}]",
    ]
    if summary.mode == OURS and case.target is not None:
        return [*row, f"{case.target:g}", _verdict(times and times.median >= case.target)]
    return [*row, "", ""]


def peak_table(record: Record) -> str:
    """The peak, and what share of it training (c) reaches."""
    rows = []
    for summary in summaries(record, case_named(PEAK_CASE)):
        measured = summary.speed
        spread = f"[{measured.low / GIGA:,.0f}, {measured.high / GIGA:,.0f}]"
        rows.append([f"{summary.mode} products", f"{measured.median / GIGA:,.0f}", spread])
    case = case_named(LARGEST)
    n_flops = training_flops_per_token(case)
    for summary in summaries(record, case):
        share = peak_share(record, case, summary)
        if share is None:
            continue
        dtype, rate = operands(summary), summary.speed.median * n_flops
        row = [f"{case.name}, {summary.mode}", f"{rate / GIGA:,.0f}", "", f"{share:.0%} {dtype}"]
        if is_ours(summary.mode):
            row += [f"{PEAK_TARGETS[dtype]:.0%}", _verdict(share >= PEAK_TARGETS[dtype])]
        rows.append(row)
    head = ("", "GFLOP/s", "[range]", "share of the peak", "target", "")
    return table(head, rows)


def memory_table(record: Record) -> str:
    """Peak resident memory of training (c), in GiB: the target is the leanest peer's."""
    found = summaries(record, case_named(LARGEST))
    peers = [s.most("peak_bytes") or 0 for s in found if not is_ours(s.mode)]
    rows = []
    for summary in found:
        peak = summary.most("peak_bytes") or 0
        row = [summary.mode, *_memory(summary)]
        if is_ours(summary.mode) and peers:
            row += [f"{min(peers) / GIBIBYTE:.2f}", _verdict(peak <= min(peers))]
        rows.append(row)
    return table(("peak memory of train-c (GiB)", *MEMORY_HEAD, "target", ""), rows)


def memory_option_table(record: Record) -> str:
    """Peak resident memory and speed of training (c) by attention and rematerialization."""
    rows = []
    for summary in summaries(record, case_named(MEMORY_CASE)):
        found = next(iter(summary.measurements.values()))
        seconds = found["work"] / summary.speed.median
        settings = summary.mode.removeprefix(OURS).strip()
        rows.append([settings, *_memory(summary), f"{seconds:.2f}", found["operands"]])
    head = ("peak memory of (c) by option (GiB)", *MEMORY_HEAD, "s/step", "operands")
    return table(head, rows)


MEMORY_HEAD = ("all steps", "until the first", "with checkpoint")


def _memory(summary: Summary) -> list[str]:
    """Columns of MEMORY_HEAD: peers have the first alone."""
    names = ("peak_bytes", "start_peak_bytes", "whole_run_peak_bytes")
    values = [summary.most(name) for name in names]
    return ["" if value is None else f"{value / GIBIBYTE:.2f}" for value in values]


def footnotes(record: Record) -> str:
    """What failed, and on what machine and with which versions the rest was measured."""
    lines = [
        f"{case} {mode} failed: {error}"
        for case, modes in record["failures"].items()
        for mode, error in modes.items()
    ]
    versions: dict[str, str] = {}
    for found in record["measurements"]:
        versions |= found.get("versions", {})
    facts = record["machine"]
    n_rounds = 1 + max((found["round"] for found in record["measurements"]), default=-1)
    names = [f"{name} {version}" for name, version in versions.items()]
    said = [
        f"{facts['processor']}, {facts['cores']} cores, {facts['memory_gib']:g} GiB",
        f"{facts['system']}, Python {facts['python']}, {', '.join(names)}",
        f"commit {record['commit']}",
        f"rounds: {n_rounds}",
        f"FLOPs by the convention `{CONVENTION}` of gpt_jax/cost/flops.py.",
    ]
    lines.append("; ".join(said))
    return "\n".join(lines)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An aligned Markdown table; empty without rows. Short rows are filled up."""
    if not rows:
        return ""
    filled = [[*row, *[""] * (len(head) - len(row))] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *filled, strict=True)]
    numeric = [_is_numeric(column) for column in zip(*filled, strict=True)]

    def line(cells: Sequence[str]) -> str:
        placed = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(cells, widths, numeric, strict=True)
        ]
        return f"| {' | '.join(placed)} |"

    rule = [
        "-" * (width - 1) + ":" if right else "-" * width
        for width, right in zip(widths, numeric, strict=True)
    ]
    return "\n".join([line(head), line(rule), *map(line, filled)])


def _is_numeric(column: Sequence[str]) -> bool:
    return all(cell[:1].isdigit() or not cell for cell in column) and any(column)


@dataclasses.dataclass(frozen=True)
class Unit:
    """How a speed is written."""

    name: str
    seconds: bool = False
    """Written as seconds a unit of work: of starts there is one."""
    divisor: float = 1.0

    def show(self, speed: float) -> str:
        value = 1 / speed if self.seconds else speed / self.divisor
        digits = max(0, 2 - math.floor(math.log10(value)))  # three that say something
        return f"{value:,.{digits}f}"


def unit_of(work: float) -> Unit:
    if work == 1:
        return Unit("s", seconds=True)
    return Unit("GFLOP/s", divisor=GIGA) if work > 1e8 else Unit("tokens/s")


def show_speed(work: float, speed: float) -> str:
    unit = unit_of(work)
    return f"{unit.show(speed)} {unit.name}"


def _number(shown: str) -> float:
    return float(shown.replace(",", ""))


def _verdict(met: object) -> str:
    return "met" if met else "not met"


# ---------------------------------------------------------------------------------------------
# Figure


def draw(record: Record, stem: Path) -> None:
    """The speed of every mode of every case that has a peer, relative to the fastest peer."""
    import matplotlib
    from matplotlib.figure import Figure

    from gpt_jax.scaling.plots import STYLE, save

    compared = {case.name: summaries(record, case) for case in reversed(CASES)}
    compared.pop(PEAK_CASE)
    rows = [name for name, found in compared.items() if _has_both(found)]
    if not rows:
        return
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 1.6 + 0.5 * len(rows)), layout="constrained")
        axes = figure.subplots()
        for height, name in enumerate(rows):
            _draw_case(axes, height, case_named(name), compared[name])
        axes.axvline(1, color="0.4", linewidth=1)
        labels = [f"{name}: {case_named(name).what}" for name in rows]
        axes.set_yticks(range(len(rows)), labels)
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlabel("speed / speed of the fastest peer")
        _number_axis(axes)
        _legend(figure, axes)
        save(figure, stem)


def _has_both(found: Sequence[Summary]) -> bool:
    return len({is_ours(summary.mode) for summary in found}) == 2


def _draw_case(axes: Any, height: float, case: Case, found: Sequence[Summary]) -> None:
    """Medians and ranges over rounds of the modes of a case: ours above, peers below."""
    best = fastest_peer(found)
    assert best is not None
    for summary in found:
        times = ratio(summary, best)
        spread = [[max(0.0, times.median - times.low)], [max(0.0, times.high - times.median)]]
        shift = 0.2 if summary.mode == OURS else 0 if is_ours(summary.mode) else -0.2
        axes.errorbar(times.median, height + shift, xerr=spread, **_mark(summary.mode))
    if case.target is not None:
        axes.plot([case.target] * 2, [height - 0.35, height + 0.35], **TARGET_MARK)


def _mark(mode: str) -> dict[str, Any]:
    from gpt_jax.scaling.plots import COLOURS

    if is_ours(mode):
        colour = COLOURS[0] if mode == OURS else COLOURS[5]
        return {"fmt": "o", "color": colour, "markersize": 7, "capsize": 2, "zorder": 4}
    mark = PEER_MARKS[mode.split()[0]]
    return {"fmt": mark, "color": "0.5", "markersize": 5, "elinewidth": 0.8, "mfc": "none"}


def _legend(figure: Any, axes: Any) -> None:
    """Kinds of marks, once each, below the axes."""
    families = {mode.split()[0]: mode for case in CASES for mode in case.modes}
    shown = {OURS: OURS, f"{OURS}, float32": f"{OURS} float32"}
    shown |= {family: families[family] for family in PEER_MARKS}
    handles = [axes.errorbar([], [], label=name, **_mark(mode)) for name, mode in shown.items()]
    handles += axes.plot([], [], label="target", **TARGET_MARK)
    figure.legend(handles=handles, loc="outside lower center", ncols=6, frameon=False, fontsize=9)


def _number_axis(axes: Any) -> None:
    """Plain numbers on a logarithmic axis of about a decade."""
    from matplotlib.ticker import FixedLocator, NullLocator

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator([0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.4, 2, 3, 5, 10]))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())
