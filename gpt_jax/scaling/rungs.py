"""Ladders of runs: which runs stand for a rung, whether two ladders may be compared, seeds.

Must not import jax.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpt_jax.scaling.best import SAME_COMPUTE
from gpt_jax.scaling.laws import Array
from gpt_jax.scaling.table import RunTable, with_values

SETTINGS = ("n_params", "n_tokens", "batch_tokens", "learning_rate")
"""Quantities in which seeds of one setting agree."""
CLOSE = 1e-6
"""Relative difference below which two settings are the same."""
MEANING = {
    "tokenizer": "a nat per token of another tokenizer is another unit; bits per byte compares "
    "them: --metric bits_per_byte",
    "vocab_size": "a nat per token of another vocabulary is another unit; bits per byte compares "
    "them: --metric bits_per_byte",
    "validation": "losses on different texts have nothing to do with each other",
    "corpus": "without a column `validation` each is measured on its own corpus's held-out text; "
    "if both were measured on one text: --allow corpus",
    "validation_tokens": "losses on different texts have nothing to do with each other",
    "convention": "N or C is counted in another way; name a column that both have in one way: "
    "--columns flops=flops_6nd",
    "loss_unit": "the losses have different units",
}
"""{label: why runs that differ in it are not comparable, and what helps}"""
TOKEN_UNITS = ("tokenizer", "vocab_size", "validation_tokens", "loss_unit")
"""Labels that may differ where the metric is bits per byte."""


@dataclass(frozen=True)
class Ladder:
    """The runs of one recipe that stand for its rungs."""

    name: str
    runs: RunTable
    rung: Array
    """(R) index of the rung, ascending in compute"""

    @property
    def n_rungs(self) -> int:
        return int(self.rung.max()) + 1

    @property
    def compute(self) -> Array:
        """(rungs) median compute of a rung's runs"""
        return np.array(
            [np.median(self.runs["flops"][self.rung == k]) for k in range(self.n_rungs)]
        )


def make_ladder(name: str, runs: RunTable) -> Ladder:
    """Ladder of the setting with the lowest mean loss at each compute, with all its seeds.

    Computes within SAME_COMPUTE of each other are one rung. Raises ValueError without compute or
    loss, and where there are fewer than two rungs.
    """
    runs = with_values(runs, ["loss", "flops"])
    order = np.argsort(runs["flops"], kind="stable")
    step = np.diff(np.log(runs["flops"][order])) > np.log(SAME_COMPUTE)
    rung = np.empty(len(runs), int)
    rung[order] = np.append(0, np.cumsum(step))
    kept = []
    for k in range(rung.max() + 1):
        rows = np.flatnonzero(rung == k)
        setting = _settings(runs, rows)
        means = [runs["loss"][rows[setting == s]].mean() for s in range(setting.max() + 1)]
        kept.append(rows[setting == int(np.argmin(means))])
    chosen = np.sort(np.concatenate(kept))
    note = [] if chosen.size == len(runs) else [
        f"{name}: of each of {len(kept)} computes the setting with the lowest mean loss, "
        f"{chosen.size} of {len(runs)} runs"
    ]  # fmt: skip
    if len(kept) < 2:
        raise ValueError(f"{name} has one rung of compute; a ladder has at least two")
    return Ladder(name, runs.take(chosen, *note), rung[chosen])


def _settings(runs: RunTable, rows: Array) -> Array:
    """(rows): which setting each row has; seeds of one share it."""
    known = [runs[name][rows] for name in SETTINGS if name in runs]
    values = np.log(np.stack(known, 1)) if known else np.zeros((rows.size, 1))
    rounded = np.round(np.nan_to_num(values) / CLOSE / 10)
    return np.unique(rounded, axis=0, return_inverse=True)[1].ravel()


def check_comparable(a: Ladder, b: Ladder, *, bits_per_byte: bool, allow: Sequence[str]) -> None:
    """Raise ValueError naming the first thing that makes losses or compute incomparable."""
    unknown = [name for name in allow if name not in MEANING]
    if unknown:
        raise ValueError(f"--allow {unknown[0]}: allowed are {', '.join(MEANING)}")
    free = {*allow, *(TOKEN_UNITS if bits_per_byte else ())}
    one_text = all(len(set(x.runs.labels.get("validation", ()))) == 1 for x in (a, b))
    for name in MEANING:
        if name in free or (name == "corpus" and one_text):
            continue
        seen = [set(ladder.runs.labels.get(name, ())) - {""} for ladder in (a, b)]
        for ladder, values in zip((a, b), seen, strict=True):
            if len(values) > 1:
                raise ValueError(
                    f"{ladder.name} mixes {name} {' and '.join(sorted(values)[:2])}: choose with "
                    f"--where {name}=... ({MEANING[name]})"
                )
        if all(seen) and seen[0] != seen[1]:
            raise ValueError(
                f"{name} differs: {a.name} has {min(seen[0])}, {b.name} has {min(seen[1])}: "
                f"{MEANING[name]}"
            )
    for name in ("n_params", "flops", "loss"):
        read = [ladder.runs.conventions.get(name) for ladder in (a, b)]
        if None not in read and read[0] != read[1] and "convention" not in free:
            raise ValueError(
                f"{name} differs: {a.name}'s is {read[0]}, {b.name}'s is {read[1]}: name one that "
                f"both have with --columns {name}=COLUMN"
            )


@dataclass(frozen=True)
class SeedTest:
    """A test of whether A and B differ in loss, from the scatter of seeds."""

    compute: float
    """FLOPs of the rung, A's median; nan: all rungs that have seeds, together"""
    difference: float
    """Mean loss of A minus B"""
    p: float
    n: tuple[int, int]
    """Runs of A and of B"""
    paired: bool


def seed_tests(a: Ladder, b: Ladder) -> list[SeedTest]:
    """Tests at each rung that both have with seeds, and over all of these together.

    Seeds that both have are paired (t-test of the differences); others are compared by Welch's
    test. Over rungs, paired seeds are tested by each seed's mean difference, others by the sum of
    the differences with Satterthwaite's degrees of freedom. Empty without two runs of a rung.
    """
    shared = []
    for k, compute in enumerate(a.compute):
        near = np.abs(np.log(b.compute / compute))
        if near.min() <= np.log(SAME_COMPUTE):
            rows = (np.flatnonzero(a.rung == k), np.flatnonzero(b.rung == int(near.argmin())))
            if min(map(len, rows)) > 1:
                shared.append((compute, *rows))
    found, differences = [], []
    for compute, rows_a, rows_b in shared:
        pairs = _paired(a, rows_a, b, rows_b)
        if pairs:
            differences.append(pairs)
            found.append(_paired_test(compute, list(pairs.values())))
        else:
            losses = a.runs["loss"][rows_a], b.runs["loss"][rows_b]
            found.append(_welch(compute, [losses]))
    if len(found) > 1:
        found.append(_over_rungs(a, b, shared, differences))
    return found


def _over_rungs(
    a: Ladder,
    b: Ladder,
    shared: Sequence[tuple[float, Array, Array]],
    differences: Sequence[dict[str, float]],
) -> SeedTest:
    common = set.intersection(*map(set, differences)) if differences else set()
    if len(differences) == len(shared) and len(common) > 1:
        means = [float(np.mean([d[seed] for d in differences])) for seed in sorted(common)]
        return _paired_test(np.nan, means)
    return _welch(np.nan, [(a.runs["loss"][i], b.runs["loss"][j]) for _, i, j in shared])


def _paired(a: Ladder, rows_a: Array, b: Ladder, rows_b: Array) -> dict[str, float]:
    """{seed: loss of A minus B}, where both have at least two seeds and the same ones; else {}."""
    seeds = []
    for ladder, rows in ((a, rows_a), (b, rows_b)):
        labels = ladder.runs.labels.get("seed")
        if labels is None:
            return {}
        seeds.append({labels[row]: float(ladder.runs["loss"][row]) for row in rows})
        if len(seeds[-1]) != len(rows):
            return {}
    same = seeds[0].keys() == seeds[1].keys()
    return {seed: seeds[0][seed] - seeds[1][seed] for seed in seeds[0]} if same else {}


def _paired_test(compute: float, differences: Sequence[float]) -> SeedTest:
    from scipy.special import stdtr

    values = np.asarray(differences)
    error = values.std(ddof=1) / values.size**0.5
    t = abs(values.mean()) / error if error > 0 else np.inf
    p = 2 * float(stdtr(values.size - 1, -t))
    return SeedTest(compute, float(values.mean()), p, (values.size, values.size), True)


def _welch(compute: float, losses: Sequence[tuple[Array, Array]]) -> SeedTest:
    """Welch's t-test of the mean over rungs of A's mean loss minus B's."""
    from scipy.special import stdtr

    samples = [sample for pair in losses for sample in pair]
    parts = np.array([sample.var(ddof=1) / sample.size for sample in samples])
    difference = float(np.mean([x.mean() - y.mean() for x, y in losses]))
    error = parts.sum() ** 0.5 / len(losses)
    freedom = parts.sum() ** 2 / (parts**2 / [s.size - 1 for s in samples]).sum() if error else 1.0
    p = 2 * float(stdtr(freedom, -abs(difference) / error)) if error else 0.0
    n = (sum(x.size for x, _ in losses), sum(y.size for _, y in losses))
    return SeedTest(compute, difference, p, n, False)
