"""The duration of training, its batches and its loss. Must not import jax."""

from typing import Annotated, Literal

from gpt_jax.config.entries import OBJECTIVES, OneOf
from gpt_jax.config.fields import (
    HashableDict,
    NonNegative,
    NonNegativeFloat,
    Options,
    Positive,
    PositiveFloat,
    check,
    fresh,
    section,
    setting,
)


@section
class TrainConfig:
    """How long, in which batches, and what is minimised."""

    tokens: Positive = setting(300_000_000, unit="tokens", use="loop", length=True)
    """Training tokens in all."""
    batch_sequences: Positive = setting(32, unit="sequences", use="loop")
    """Sequences in a global batch, over all devices and hosts."""
    ramp_from_sequences: Positive | None = setting(None, unit="sequences", use="loop")
    """Sequences in the first batches when the batch size is ramped up."""
    ramp_tokens: NonNegative = setting(0, unit="tokens", use="loop")
    """Tokens over which the batch grows linearly to batch_sequences."""
    objective: Annotated[str, OneOf(OBJECTIVES)] = setting("next_token", added="2026-11-28")
    """Objective of training on text alone; tasks and teachers have objectives of their own."""
    options: Options = fresh(HashableDict, added="2026-11-28")
    """Options of the objective's own, by name (label_smoothing: share)."""
    z_loss: NonNegativeFloat = 0.0
    """Weight of the squared log-normaliser added to the loss (PaLM: 1e-4)."""
    router_load_balance_loss: NonNegativeFloat = setting(0.01, added="2026-11-25")
    """Experts: weight of the load-balance loss of every layer's router (Switch: 1e-2)."""
    router_z_loss: NonNegativeFloat = setting(0.001, added="2026-11-25")
    """Experts: weight of the router logits' squared log-normaliser, every layer (ST-MoE: 1e-3)."""
    on_bad_step: Literal["stop", "skip"] = "stop"
    """A non-finite loss or gradient, or a spike: stop the run, or leave this update out (50 in a
    row stop it all the same)."""
    spike_threshold: PositiveFloat | None = setting(None, unit="nats")
    """A loss this many nats above its running mean is a spike; none = only non-finite counts."""

    @check()
    def _consistent(self) -> "TrainConfig":
        start = self.ramp_from_sequences
        if (start is None) != (self.ramp_tokens == 0):
            raise ValueError("train.ramp_from_sequences and train.ramp_tokens go together")
        if start is not None and start > self.batch_sequences:
            raise ValueError(
                f"train.ramp_from_sequences = {start} exceeds train.batch_sequences = "
                f"{self.batch_sequences}"
            )
        return self
