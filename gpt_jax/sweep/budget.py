"""Training budgets: how many tokens a trial trains on, from FLOPs, tokens per parameter, or tokens.

A budget is declared by keys that no config has; each becomes train.tokens, in whole batches, once
the trial's model and batch size are known. Must not import jax.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, get_args

from gpt_jax.config import Config, overrides
from gpt_jax.config.timetable import make_timetable
from gpt_jax.cost import flops
from gpt_jax.scaling.ladder import SizeConvention, count
from gpt_jax.sweep.grid import Grid

PREFIX = "budget."
TOKENS, FLOPS, TOKENS_PER_PARAM = "budget.tokens", "budget.flops", "budget.tokens_per_param"
FLOPS_CONVENTION, PARAMS_CONVENTION = "budget.flops_convention", "budget.params_convention"

KEYS = {
    TOKENS: "training tokens",
    FLOPS: "training FLOPs",
    TOKENS_PER_PARAM: "training tokens for each parameter",
    FLOPS_CONVENTION: f"how FLOPs are counted: {', '.join(get_args(flops.Convention))}",
    PARAMS_CONVENTION: f"how parameters are counted: {', '.join(get_args(SizeConvention))}",
}
"""The keys of a budget and their meaning."""


def flops_budgets(choices: Iterable[float], convention: flops.Convention = "exact") -> Grid:
    """Budgets in training FLOPs, forward and backward, by a convention of `gpt_jax.cost.flops`."""
    return [{FLOPS: value, FLOPS_CONVENTION: convention} for value in choices]


def tokens_per_param_budgets(
    choices: Iterable[float], convention: SizeConvention = "n_params"
) -> Grid:
    """Budgets in training tokens per parameter (Chinchilla: about 20 per n_params)."""
    return [{TOKENS_PER_PARAM: value, PARAMS_CONVENTION: convention} for value in choices]


def token_budgets(choices: Iterable[float]) -> Grid:
    """Budgets in training tokens; unlike train.tokens, in whole batches."""
    return [{TOKENS: value} for value in choices]


@dataclasses.dataclass(frozen=True)
class Budget:
    """One amount of training."""

    key: str
    """TOKENS, FLOPS or TOKENS_PER_PARAM."""
    amount: float
    flops_convention: flops.Convention = "exact"
    params_convention: SizeConvention = "n_params"

    def tokens(self, config: Config) -> int:
        """train.tokens that spends the budget: of whole batches, the nearest number.

        Raises ValueError if that is none.
        """
        tokens = self.exact_tokens(config)
        rounded = whole_batches(config, tokens)
        if rounded == 0:
            batch = config.train.batch_sequences * config.model.seq_len
            raise ValueError(
                f"{self.key} = {self.amount:g} is {tokens:,.0f} tokens, less than a batch "
                f"(train.batch_sequences x model.seq_len = {batch:,})"
            )
        return rounded

    def exact_tokens(self, config: Config) -> float:
        """Tokens before they are rounded to whole batches."""
        if self.key == TOKENS:
            return self.amount
        if self.key == TOKENS_PER_PARAM:
            return self.amount * count(config.model, self.params_convention)
        per_sequence = flops.training_flops_per_sequence(config.model, self.flops_convention)
        return self.amount / per_sequence * config.model.seq_len


def parse_budget(changes: Mapping[str, Any]) -> Budget | None:
    """The budget among a trial's changes, if there is one.

    Raises ValueError for an unknown key or value, and for two settings of the same thing.
    """
    given = {key: value for key, value in changes.items() if key.startswith(PREFIX)}
    for key in given:
        if key not in KEYS:
            raise ValueError(f"unknown budget '{key}'; known: {', '.join(KEYS)}")
    amounts = [key for key in (TOKENS, FLOPS, TOKENS_PER_PARAM) if key in given]
    if not given:
        return None
    if not amounts:
        raise ValueError(f"{', '.join(given)} without an amount; set {FLOPS} or {TOKENS_PER_PARAM}")
    if "train.tokens" in changes:
        amounts.append("train.tokens")
    if len(amounts) > 1:
        raise ValueError(f"{' and '.join(amounts)} both say how long to train; keep one")
    amount = given[amounts[0]]
    if isinstance(amount, bool) or not isinstance(amount, int | float) or not amount > 0:
        raise ValueError(f"{amounts[0]} = {amount!r}; allowed: a number above 0")
    convention = given.get(FLOPS_CONVENTION, "exact")
    size = given.get(PARAMS_CONVENTION, "n_params")
    _allow(FLOPS_CONVENTION, convention, get_args(flops.Convention))
    _allow(PARAMS_CONVENTION, size, get_args(SizeConvention))
    return Budget(amounts[0], float(amount), convention, size)


def _allow(key: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{key} = {value}; allowed: {', '.join(allowed)}")


def whole_batches(config: Config, tokens: float) -> int:
    """The number of tokens nearest to `tokens` after which a batch of this config ends; may be 0.

    A ramp of the batch size is followed.
    """
    asked = max(1, round(tokens))
    table = make_timetable(overrides.draft(config, {"train.tokens": asked}))
    above, below = table.n_tokens, table.tokens_before(table.n_steps - 1)
    return above if above - tokens <= tokens - below else below
