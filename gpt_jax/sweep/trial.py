"""Trials: a base config and a grid made into experiments with names of their own.

A trial's config is resolved in this order; later steps see and overrule earlier ones:

1. the base config;
2. the config keys of its change (`gpt_jax.sweep.grid`);
3. its budget (`gpt_jax.sweep.budget`), made into train.tokens for the model and batch of 1 and 2;
4. its laws (`gpt_jax.sweep.law_values`), applied to that model and number of tokens;
5. `derive`, a function from that config to further changes: warmup as a share of train.tokens, a
   learning rate from the width. If it or a law changes the model or batch, the budget is spent anew
   on these and both asked again, until they agree;
6. what a command line overrides (`gpt_jax.sweep.load`), as it stands: budgets, laws and derive do
   not see it.

Sections are checked against each other at the end, so that derive may mend what 2 or 3 broke.
Must not import jax.
"""

import dataclasses
import numbers
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gpt_jax.config import Config, overrides
from gpt_jax.hints import counted
from gpt_jax.output import say
from gpt_jax.sweep.budget import PREFIX, Budget, parse_budget
from gpt_jax.sweep.grid import Changes, Grid
from gpt_jax.sweep.law_values import Applied, Law, recorded, split_laws
from gpt_jax.sweep.naming import name_trials

Derive = Callable[[Config], Changes]

ROUNDS = 8
"""How often a budget and `derive` may correct each other."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """One experiment of a sweep. `config.name` names it, its directory and its pages."""

    config: Config
    varied: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Settings that the sweep declared: {"model.d_model": 256, "budget.flops": 1e15, ...}."""
    trunk: Config | None = None
    """The uncooled run of the same sweep that this one may branch off (see `wsd_branches`)."""
    by_law: tuple[Applied, ...] = ()
    """Settings that laws decided."""

    @property
    def name(self) -> str:
        return self.config.name


@dataclasses.dataclass(frozen=True)
class Infeasible:
    """A cell of a grid that is no trial: `sweep plan` shows it, `sweep run` refuses it."""

    name: str
    varied: Mapping[str, Any]
    reason: str


Cell = Trial | Infeasible


def make_trials(base: Config, grid: Grid, derive: Derive | None = None) -> list[Cell]:
    """A trial for each change of the grid, in its order; see the module for how configs resolve.

    Cells whose config is not valid are returned as `Infeasible`; cells that compute the same (equal
    fingerprints) are one trial, the first. Raises ValueError for keys that no config has, and for
    trials that differ only in how they are computed.
    """
    cells = [plain_changes(changes) for changes in grid]
    names = name_trials(cells, base.name)
    made = [
        resolve_cell(base, changes, derive, name)
        for changes, name in zip(cells, names, strict=True)
    ]
    return one_of_each(made)


def resolve_cell(base: Config, changes: Changes, derive: Derive | None, name: str) -> Cell:
    """The trial of one change, or why there is none."""
    check_keys(changes)
    try:
        config, by_law = resolve_with_laws(base, changes, derive)
        return Trial(overrides.override(config, {"name": name}), recorded(changes), None, by_law)
    except ValueError as error:
        return Infeasible(name, recorded(changes), str(error))


def check_keys(changes: Changes) -> None:
    """Raise ValueError for a key of a change that no config has."""
    plain, laws = split_laws(changes)
    overrides.check_keys([*(key for key in plain if not key.startswith(PREFIX)), *laws])


def resolve(base: Config, changes: Changes, derive: Derive | None) -> Config:
    """Steps 1 to 5 of the module's list; ValueError if the config is not valid in the end."""
    return resolve_with_laws(base, changes, derive)[0]


def resolve_with_laws(
    base: Config, changes: Changes, derive: Derive | None
) -> tuple[Config, tuple[Applied, ...]]:
    """As `resolve`, with what laws decided."""
    changes, laws = split_laws(changes)
    budget = parse_budget(changes)
    plain = {key: value for key, value in changes.items() if not key.startswith(PREFIX)}
    declared = config = overrides.draft(base, plain)
    for _ in range(ROUNDS):
        if budget is not None:
            declared = overrides.draft(declared, {"train.tokens": budget.tokens(config)})
        # The tokens before rounding: a batch decides the rounding, and a law the batch.
        n_tokens = declared.train.tokens if budget is None else budget.exact_tokens(config)
        by_law = tuple(law.apply(config, n_tokens) for law in laws.values())
        lawful = overrides.draft(declared, {one.law.key: one.value for one in by_law})
        derived = {} if derive is None else _derived(derive, lawful)
        _refuse_twice(derived, laws, budget)
        config = overrides.draft(lawful, derived)
        if budget is None or budget.tokens(config) == config.train.tokens:
            return overrides.override(config, {}), by_law
    assert budget is not None
    raise ValueError(
        f"{budget.key} = {budget.amount:g} and derive do not settle: train.tokens decides what "
        f"derive returns, and that decides train.tokens"
    )


def _refuse_twice(derived: Changes, laws: Mapping[str, Law], budget: Budget | None) -> None:
    if budget is not None and "train.tokens" in derived:
        raise ValueError(f"derive sets train.tokens, which {budget.key} decides; keep one")
    for key in laws:
        if key in derived:
            raise ValueError(f"derive sets {key}, which {laws[key].file} decides; keep one")


def _derived(derive: Derive, config: Config) -> Changes:
    changes = derive(config)
    if not isinstance(changes, Mapping):
        raise ValueError(f"derive returned {type(changes).__name__}; need {{dotted key: value}}")
    return plain_changes(changes)


def plain_changes(changes: Any) -> dict[str, Any]:
    """A change with numpy's scalars as Python's, which JSON and configs take.

    Raises ValueError for what is no mapping, or names trials by itself.
    """
    if not isinstance(changes, Mapping):
        raise ValueError(f"a grid holds {changes!r}; need changes such as {{'seed': 1}}")
    if "name" in changes:
        raise ValueError("a grid sets name; trials are named by what varies")
    return {key: _plain(value) for key, value in changes.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return value
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def one_of_each(cells: Iterable[Cell], tell: bool = True) -> list[Cell]:
    """The cells without those that compute what an earlier one computes.

    tell: say on stderr how many were left out.

    Raises ValueError where what was varied is not part of what is computed.
    """
    all_cells = list(cells)
    kept: list[Cell] = []
    first: dict[str, Trial] = {}
    for cell in all_cells:
        if isinstance(cell, Trial):
            print_ = overrides.fingerprint(cell.config)
            if print_ in first:
                _refuse_how(first[print_], cell)
                continue
            first[print_] = cell
        kept.append(cell)
    n = len(all_cells) - len(kept)
    if n and tell:
        of = f"{counted(n, 'trial')} of {len(all_cells):,}"
        say(f"{of} left out: an earlier one computes the same")
    return kept


def _refuse_how(first: Trial, second: Trial) -> None:
    keys = [
        key
        for key in first.varied.keys() & second.varied.keys()
        if is_how(key) and first.varied[key] != second.varied[key]
    ]
    if keys:
        raise ValueError(
            f"trials differ only in {', '.join(sorted(keys))}, which is how and not what they "
            f"compute: they are one trial; vary {', '.join(overrides.what_sections())}"
        )


def is_how(key: str) -> bool:
    """Whether a field changes nothing that is computed; a trial's name is not meant."""
    known = overrides.fields()  # a key of a trial may also be a budget's, which says what
    return key in known and key != "name" and known[key].facts.scope != "what"
