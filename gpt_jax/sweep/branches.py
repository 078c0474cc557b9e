"""Warmup-stable-decay: one trunk of constant learning rate, cooldowns branched off along it.

A study of several training lengths costs one long run and a cooldown for each length, instead of a
run for each (Hägele et al. 2024, arXiv:2405.18392). Must not import jax.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from gpt_jax.config import Config
from gpt_jax.sweep.budget import PREFIX, TOKENS, parse_budget, whole_batches
from gpt_jax.sweep.grid import Changes, Grid
from gpt_jax.sweep.law_values import Applied, recorded
from gpt_jax.sweep.naming import name_trials
from gpt_jax.sweep.trial import (
    Cell,
    Derive,
    Infeasible,
    Trial,
    check_keys,
    one_of_each,
    plain_changes,
    resolve_cell,
    resolve_with_laws,
)

Totals = Iterable[float | Changes]
"""Lengths of branches: tokens, or budgets."""

STAGE, TRUNK = "stage", "trunk"
"""Key and value that a trunk varies besides its grid point."""


def wsd_branches(
    base: Config,
    grid: Grid,
    totals: Totals | Callable[[Changes], Totals],
    fraction: float = 0.2,
    derive: Derive | None = None,
) -> list[Cell]:
    """For each point of the grid a trunk, and for each total D a run of D tokens that cools down.

    A branch is an ordinary config: wsd over D tokens, the last `fraction` of them cooling down. The
    trunk is the same without a cooldown, as long as the longest stable part, and keeps checkpoints
    where branches begin. As state and data are functions of the step, continuing one of them is
    only a shortcut to the same branch. All trunks come before all branches.

    Args:
      totals: tokens of the branches, cooldown included, rounded to whole batches; or budgets such
        as `flops_budgets([1e15, 4e15])`, spent anew at each grid point; or a function from a grid
        point to its totals, such as more of them for larger models.
      fraction: cooldown tokens as a fraction of D; the branch begins at the nearest whole batch.
      derive: as of `make_trials`; it sees the longest branch's config, and what it returns holds
        for trunk and branches alike, so that they share the stable part. So do laws of the grid.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"wsd_branches: fraction = {fraction}; allowed: between 0 and 1")
    points = [plain_changes(changes) for changes in grid]
    fixed = None if callable(totals) else list(totals)
    budgets = []
    for changes in points:
        _refuse_length(changes)
        budgets.append(_budgets(totals(changes) if callable(totals) else fixed))
    varied = [{**point, STAGE: TRUNK} for point in points]
    varied += [{**p, **budget} for p, own in zip(points, budgets, strict=True) for budget in own]
    names = name_trials(varied, base.name)
    branch_names = iter(names[len(points) :])
    trunks, branches = [], []
    for point, own, name in zip(points, budgets, names, strict=False):
        mine = list(itertools.islice(branch_names, len(own)))
        trunk, *cut = _point(base, point, own, fraction, derive, [name, *mine])
        trunks.append(trunk)
        branches += cut
    return one_of_each([*trunks, *branches], tell=False)


def _budgets(totals: Totals | None) -> list[dict[str, Any]]:
    """The totals as changes that set a budget; raises ValueError if there are none."""
    budgets = [
        plain_changes({TOKENS: t} if isinstance(t, int | float) else t) for t in totals or ()
    ]
    if not budgets:
        raise ValueError("wsd_branches needs at least one total number of tokens")
    return budgets


def _refuse_length(changes: Changes) -> None:
    keys = [k for k in changes if k.startswith((PREFIX, "schedule.cooldown_tokens"))]
    keys += [k for k in ("train.tokens", "schedule.name", STAGE) if k in changes]
    if keys:
        raise ValueError(f"the grid of wsd_branches sets {', '.join(keys)}, which `totals` decides")


def _point(
    base: Config,
    point: Changes,
    budgets: Sequence[dict[str, Any]],
    fraction: float,
    derive: Derive | None,
    names: Sequence[str],
) -> list[Cell]:
    """The trunk and the branches of one grid point, with these names."""
    check_keys(point)
    varied = [{**recorded(point), **more} for more in ({STAGE: TRUNK}, *budgets)]
    try:
        longest, by_law = _longest(base, point, budgets, derive)
        cuts = [_cut(longest, budget, fraction) for budget in budgets]
    except ValueError as error:
        return [Infeasible(n, v, str(error)) for n, v in zip(names, varied, strict=True)]
    starts = tuple(sorted({start for start, _ in cuts}))
    length = {"train.tokens": starts[-1], "schedule.cooldown_tokens": 0}
    trunk = _cell(longest, {**length, "checkpoint.keep_at_tokens": starts}, varied[0], names[0])
    cells: list[Cell] = [trunk]
    for (start, tokens), changes, name in zip(cuts, varied[1:], names[1:], strict=True):
        length = {"train.tokens": tokens, "schedule.cooldown_tokens": tokens - start}
        branch = _cell(longest, length, changes, name)
        if isinstance(branch, Trial) and isinstance(trunk, Trial):
            branch = dataclasses.replace(branch, trunk=trunk.config)
        cells.append(branch)
    return [
        dataclasses.replace(cell, by_law=by_law) if isinstance(cell, Trial) else cell
        for cell in cells
    ]


def _longest(
    base: Config, point: Changes, budgets: Sequence[dict[str, Any]], derive: Derive | None
) -> tuple[Config, tuple[Applied, ...]]:
    """The grid point's config with the largest total, before it is cut into trunk and branches;
    and what laws decided for it."""
    wsd = {**point, "schedule.name": "wsd", "schedule.cooldown_tokens": 0}
    found = [resolve_with_laws(base, {**wsd, **budget}, derive) for budget in budgets]
    return max(found, key=lambda one: one[0].train.tokens)


def _cut(longest: Config, budget: dict[str, Any], fraction: float) -> tuple[int, int]:
    """(tokens at which a branch begins, its tokens in all)."""
    parsed = parse_budget(budget)
    assert parsed is not None
    tokens = parsed.tokens(longest)
    start = whole_batches(longest, (1 - fraction) * tokens)
    if not 0 < start < tokens:
        raise ValueError(
            f"a cooldown over {fraction:g} of {tokens:,} tokens leaves less than a batch for "
            f"{'the stable part' if start == 0 else 'itself'}; raise the total or change fraction"
        )
    return start, tokens


def _cell(config: Config, changes: Changes, varied: Changes, name: str) -> Cell:
    cell = resolve_cell(config, changes, None, name)
    if isinstance(cell, Trial):
        return Trial(cell.config, varied)
    return Infeasible(name, varied, cell.reason)
