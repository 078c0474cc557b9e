"""Training: its duration, batches and loss; the update rule, and the learning rate over training.

Must not import jax.
"""

from typing import Annotated, Literal

from gpt_jax.config.entries import OBJECTIVES, OPTIMIZERS, SCHEDULES, OneOf
from gpt_jax.config.fields import (
    Fraction,
    HashableDict,
    NonNegative,
    NonNegativeFloat,
    Options,
    Positive,
    PositiveFloat,
    Probability,
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


@section
class OptimizerConfig:
    """The update rule."""

    name: Annotated[str, OneOf(OPTIMIZERS)] = "adamw"
    """Update rule; muon orthogonalises matrices and leaves the rest to adamw. A name of optax or
    optax.contrib (adabelief, optax.adamw) is that library's rule."""
    learning_rate: PositiveFloat = setting(3e-4, use="lane")
    """Peak learning rate; of adafactor, relative to a parameter's root mean square."""
    b1: Probability = setting(0.9, use="lane")
    """Decay of the first moment; momentum of sgd, muon and adafactor."""
    b2: Probability = setting(0.95, use="lane")
    """Decay of the second moment (adam, adamw, lion, and what muon leaves to adamw)."""
    epsilon: PositiveFloat = setting(1e-8, use="lane")
    """Added to the root of the second moment."""
    weight_decay: NonNegativeFloat = setting(0.1, use="lane")
    """Decoupled weight decay, times the learning rate; of adam, L2 added to the gradient."""
    decay: Literal["matrices", "no_bias_or_gain", "all"] = "no_bias_or_gain"
    """Parameters that decay: kernels and an untied head; all but biases and gains (GPT-1); all."""
    clip_norm: PositiveFloat | None = setting(1.0, use="lane")
    """Gradients are scaled down to this global norm."""
    adam_learning_rate: PositiveFloat | None = setting(None, use="lane")
    """Muon only: peak learning rate of what is not a matrix, and embeddings; none = the same."""
    ema_decay: Probability | None = None
    """Keep an exponential moving average of the parameters, and evaluate it."""
    options: Options = fresh(HashableDict, added="2026-11-28")
    """Options of the update rule's own, or of an optax optimizer, by name:
    optimizer.options.eps=1e-6."""


@section
class ScheduleConfig:
    """The learning rate over training, as a fraction of its peak."""

    name: Annotated[str, OneOf(SCHEDULES)] = "cosine"
    """Shape after warmup; wsd: warmup, stable, decay."""
    warmup_tokens: NonNegative = setting(0, unit="tokens")
    """Linear warmup from zero."""
    decay_tokens: Positive | None = setting(None, unit="tokens")
    """Tokens at which cosine or linear reaches its end (warmup included); none = train.tokens."""
    cooldown_tokens: NonNegative = setting(0, unit="tokens", length=True)
    """Length of wsd's last, decaying part."""
    cooldown: Literal["linear", "sqrt"] = "linear"
    """wsd: decay linearly, or as 1 - sqrt(progress)."""
    final_fraction: Fraction = 0.0
    """Learning rate at the end of the decay, as a fraction of the peak."""
    options: Options = fresh(HashableDict, added="2026-11-28")
    """Options of the shape's own, by name (power: exponent)."""
