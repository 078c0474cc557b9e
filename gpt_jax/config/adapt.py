"""Which parameters are trained: all of them, or a small tree beside frozen ones.

Must not import jax.
"""

from typing import Literal

from gpt_jax.config.fields import (
    Fraction,
    NonNegativeFloat,
    Positive,
    PositiveFloat,
    Probability,
    check,
    section,
)


@section
class AdaptConfig:
    """Parameter-efficient fine-tuning: what is trained, held in the optimizer and saved."""

    method: Literal[
        "full",
        "lora",
        "adalora",
        "adapter",
        "prefix",
        "prompt",
        "bitfit",
        "difference",
        "last_layers",
        "pattern",
    ] = "full"
    """full: everything; the others train what `gpt_jax/adapt` says of them, and the task's head."""
    targets: tuple[Literal["query", "key", "value", "out", "up", "gate", "down"], ...] = (
        "query",
        "value",
    )
    """lora, adalora: the projections that get a low-rank term."""
    rank: Positive = 8
    """lora: rank of the term; adalora: mean rank at the end, over all projections."""
    alpha: PositiveFloat = 16.0
    """lora, adalora: the term is multiplied with alpha / rank."""
    dropout: Probability = 0.0
    """lora, adalora: dropout, while training, of what the terms are computed from."""
    initial_rank: Positive | None = None
    """adalora: rank of each projection at the start; none = 1.5 times rank."""
    budget_warmup: Fraction = 0.1
    """adalora: share of training before the first rank is taken away."""
    budget_final: Fraction = 0.3
    """adalora: share of training at its end in which no more is taken away."""
    importance_decay: Probability = 0.85
    """adalora: of the running means of importance and of its uncertainty."""
    orthogonality: NonNegativeFloat = 0.1
    """adalora: weight of the distance of its factors from orthogonal ones."""
    size: Positive = 64
    """adapter: width of the bottleneck."""
    length: Positive = 16
    """prefix, prompt: positions in front of every sequence."""
    fraction: Fraction = 0.005
    """difference: share of the parameters that differ from the base's in the end."""
    difference_weight: NonNegativeFloat = 1.0
    """difference: weight of the expected share that differs."""
    layers: Positive = 1
    """last_layers: how many."""
    train: tuple[str, ...] = ()
    """pattern: regular expressions; a parameter whose whole path matches one is trained."""

    @check()
    def _consistent(self) -> "AdaptConfig":
        if self.method == "pattern" and not self.train:
            raise ValueError("adapt.method = pattern needs adapt.train, as in blocks/.*/mlp/.*")
        if self.train and self.method != "pattern":
            raise ValueError(f"adapt.train is for adapt.method = pattern, not {self.method}")
        if self.method in ("lora", "adalora") and not self.targets:
            raise ValueError(f"adapt.method = {self.method} needs adapt.targets")
        if self.dropout and self.method not in ("lora", "adalora"):
            raise ValueError(
                f"adapt.dropout is for adapt.method = lora or adalora, not {self.method}"
            )
        if self.budget_warmup + self.budget_final > 1:
            raise ValueError(
                f"adapt.budget_warmup + adapt.budget_final = "
                f"{self.budget_warmup + self.budget_final:g} exceed 1, all of training"
            )
        if self.initial_rank is not None and self.initial_rank < self.rank:
            raise ValueError(
                f"adapt.initial_rank = {self.initial_rank} is below adapt.rank = {self.rank}, "
                f"which is left in the end"
            )
        return self

    @property
    def draws(self) -> bool:
        """Whether a training step draws something."""
        return self.method == "difference" or self.dropout > 0

    @property
    def first_rank(self) -> int:
        return self.initial_rank or -(-3 * self.rank // 2)
