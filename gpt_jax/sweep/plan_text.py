"""A plan as text: a table for 120 to 160 columns, totals, and what the numbers mean.

Must not import jax.
"""

from collections.abc import Callable, Sequence

from gpt_jax.config import Config
from gpt_jax.cost.units import compact, duration, scientific, size, three_digits
from gpt_jax.hints import counted
from gpt_jax.sweep.cost import Row
from gpt_jax.sweep.law_values import LETTERS
from gpt_jax.sweep.machine import Machine
from gpt_jax.sweep.trial import Trial

NAME_WIDTH = 20
"""Names are never cut shorter than this."""
KEY_LENGTHS = (100, 12, 8, 5, 3)
"""Characters of the keys in a name, tried in turn until it fits."""
GAP = "  "
REASONS = 20
"""At most so many infeasible cells are explained on the screen, and trials' laws."""


def _steps(n_steps: int | None) -> str:
    """In full where that is short."""
    return compact(n_steps) if n_steps is None or n_steps >= 100_000 else f"{n_steps:,}"


COLUMNS: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("params", lambda row: compact(row.n_params)),
    ("non-emb.", lambda row: compact(row.n_params_non_embedding)),
    ("matmul", lambda row: compact(row.n_params_matmul)),
    ("tokens", lambda row: compact(row.n_tokens)),
    ("tok/par", lambda row: compact(row.tokens_per_param)),
    ("steps", lambda row: _steps(row.n_steps)),
    ("FLOPs", lambda row: scientific(row.flops)),
    ("6ND", lambda row: scientific(row.flops_6nd)),
    ("memory", lambda row: size(row.memory_bytes)),
    ("time", lambda row: duration(row.seconds)),
)


def table(rows: Sequence[Row], width: int) -> str:
    """The rows under a header, names shortened so that lines fit into `width` columns."""
    header = ["trial", *(title for title, _ in COLUMNS), ""]
    cells = [["", *(show(row) for _, show in COLUMNS), _note(row)] for row in rows]
    widths = [max(len(line[i]) for line in [header, *cells]) for i in range(len(header))]
    rest = sum(widths[1:]) + len(GAP) * (len(header) - 1)
    names = shorten([row.name for row in rows], max(NAME_WIDTH, width - rest))
    widths[0] = max(len(name) for name in ["trial", *names])
    lines = []
    for name, line in zip(["trial", *names], [header, *cells], strict=True):
        numbers, note = line[1:-1], line[-1]
        parts = [name.ljust(widths[0])]
        parts += [text.rjust(w) for text, w in zip(numbers, widths[1:-1], strict=True)]
        lines.append(GAP.join([*parts, note]).rstrip())
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)


def shorten(names: Sequence[str], width: int) -> list[str]:
    """The names, all different still: with shorter keys, and then without their middles.

    Names that only their middles tell apart stay longer than `width`.
    """
    for length in KEY_LENGTHS:
        short = [_with_short_keys(name, length) for name in names]
        distinct = len(set(short)) == len(set(names))
        if distinct and max(map(len, short), default=0) <= width:
            return short
        cut = [_cut(name, width) for name in short]
        if length == KEY_LENGTHS[-1] and len(set(cut)) == len(set(names)):
            return cut
    return short if distinct else list(names)


def _with_short_keys(name: str, length: int) -> str:
    """learning_rate=0.01,seed=1 -> lear=0.01,seed=1 for a length of 4."""
    parts = [part.partition("=") for part in name.split(",")]
    return ",".join(f"{key[:length] if equals else key}{equals}{v}" for key, equals, v in parts)


def _cut(name: str, width: int) -> str:
    """The name, without its middle where it is too long."""
    if len(name) <= width:
        return name
    end = (width - 2) // 2
    return f"{name[: width - 2 - end]}..{name[-end:]}"


def _note(row: Row) -> str:
    return row.state or ("branch" if row.trunk else "")


def headline(name: str, rows: Sequence[Row]) -> str:
    """How many trials there are, done and infeasible."""
    feasible = [row for row in rows if not row.reason]
    parts = [counted(len(feasible), "trial")]
    done = sum(row.done for row in rows)
    if done:
        parts.append(f"{done} done")
    branches = sum(bool(row.trunk) for row in feasible)
    if branches:
        parts.append(counted(branches, "branch", "branches") + " of trunks")
    if len(feasible) < len(rows):
        parts.append(counted(len(rows) - len(feasible), "infeasible cell"))
    return f"sweep {name}: {', '.join(parts)}"


def describe_assumed(machine: Machine, config: Config, mfu: float) -> str:
    """Line that names the assumptions behind times that were not measured."""
    memory = size(machine.memory_bytes) if machine.memory_bytes else "unknown"
    peak = machine.peak(config)
    if peak is None:
        return f"time: unknown, no peak is known of {machine.name}; try --measure"
    source = "published" if machine.chip else "measured in matrix products"
    scope = " each" if machine.chip and machine.n_devices > 1 else ""
    return (
        f"time: on {machine.name} at {mfu:g} of {_flops_rate(peak)} ({source}); an assumption, set "
        f"--mfu{'' if machine.chip else ' or try --measure'}; memory {memory}{scope}"
    )


def describe_measured(
    machine: Machine, attained: Sequence[float], compiling: Sequence[float]
) -> str:
    """Line that sums up the measurements; "nothing" where all is done or infeasible."""
    parts = [f"time: measured on {machine.name}, steps of {counted(len(compiling), 'shape')}"]
    if attained:
        parts.append(f"MFU {_range([f'{share:.0%}' for share in sorted(attained)])}")
    if compiling:
        parts.append(f"compiling took {_range([duration(s) for s in sorted(compiling)])}")
    if machine.memory_bytes:
        parts.append(f"memory {size(machine.memory_bytes)}")
    return "; ".join(parts)


def _range(texts: Sequence[str]) -> str:
    return texts[0] if texts[0] == texts[-1] else f"{texts[0]} to {texts[-1]}"


def _flops_rate(peak: float) -> str:
    for unit, suffix in ((1e15, "PFLOP/s"), (1e12, "TFLOP/s"), (1e9, "GFLOP/s")):
        if peak >= unit:
            return f"{three_digits(peak / unit)} {suffix}"
    return f"{scientific(peak)} FLOP/s"


def totals(rows: Sequence[Row], price: float | None, n_devices: int) -> str:
    """Sums over what can be trained: in all, and what is left to do."""
    feasible = [row for row in rows if not row.reason]
    left = [row for row in feasible if not row.done]
    lines = [_total("total", feasible, price, n_devices)]
    if len(left) < len(feasible):
        lines.append(_total("left", left, price, n_devices))
    return "\n" + "\n".join(lines)


def _total(title: str, rows: Sequence[Row], price: float | None, n_devices: int) -> str:
    flops = sum(row.flops_to_run or 0.0 for row in rows)
    known = [row.seconds for row in rows if row.seconds is not None]
    parts = [counted(len(rows), "trial"), f"{scientific(flops)} FLOPs"]
    if len(known) == len(rows):
        seconds = sum(known)
        parts.append(f"{duration(seconds)} one after another")
        if price is not None:
            hours = seconds / 3600 * n_devices
            unit = "chip-hours" if n_devices > 1 else "hours"
            parts.append(f"price {_money(price * hours)} ({hours:,.3g} {unit} at {price:g})")
    return f"{title:<6}{',  '.join(parts)}"


def _money(amount: float) -> str:
    """Hundredths; of less than one, three digits."""
    return f"{amount:,.2f}" if amount >= 1 or amount == 0 else f"{amount:.3g}"


def laws(trials: Sequence[Trial]) -> str:
    """Settings that laws decided for each trial, under each law's formula; empty without laws."""
    used = [(trial, one) for trial in trials for one in trial.by_law]
    if not used:
        return ""
    lines = [""]
    for law in dict.fromkeys(one.law for _, one in used):
        size = " tokens" if law.key == "train.batch_sequences" else ""
        lines.append(
            f"{law.key} by {law.file} (SHA-256 {law.digest}), {law.way}: {law.formula}{size}"
        )
        mine = [(trial, one) for trial, one in used if one.law == law]
        for trial, one in mine[:REASONS]:
            rounded = "" if one.exact == one.value else f", rounded from {one.exact:.4g}"
            beyond = ""
            if one.variable:
                beyond = f", {one.factor:.3g} times beyond its runs in {LETTERS[one.variable]}"
            lines.append(f"  {trial.name}: {one.value:.4g}{rounded}{beyond}")
        if len(mine) > REASONS:
            values = [one.value for _, one in mine]
            lines.append(
                f"  ... and {len(mine) - REASONS} more, from {min(values):.4g} to "
                f"{max(values):.4g} in all"
            )
    return "\n".join(lines)


def footnotes(rows: Sequence[Row]) -> str:
    """Meaning of the columns, and why cells cannot be trained."""
    lines = [
        "",
        "params: all; non-emb.: without embeddings and head; matmul: weights that tokens are "
        "multiplied with.",
        "FLOPs: matrix products as executed; 6ND: 6 x params x tokens. memory: training state, "
        "exact, and an estimate",
        "of activations and logits. time: of steps alone, without compiling, validating and "
        "saving.",
    ]
    if any(row.trunk for row in rows):
        lines.append(
            "Branches continue their trunk: their time and their share of the total are the "
            "cooldown's alone."
        )
    bad = [row for row in rows if row.reason]
    if bad:
        lines += ["", "infeasible (grid.where leaves cells out):"]
        lines += [f"  {row.name}: {row.reason}" for row in bad[:REASONS]]
        if len(bad) > REASONS:
            lines.append(f"  ... and {len(bad) - REASONS} more: --csv OUT writes them all")
    return "\n".join(lines)
