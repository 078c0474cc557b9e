"""The update rule, and the learning rate over training. Must not import jax."""

from typing import Annotated, Literal

from pydantic import Field

from gpt_jax.config.entries import OPTIMIZERS, SCHEDULES, OneOf
from gpt_jax.config.fields import (
    Fraction,
    HashableDict,
    NonNegative,
    NonNegativeFloat,
    Options,
    Positive,
    PositiveFloat,
    Probability,
    section,
)


@section
class OptimizerConfig:
    """The update rule."""

    name: Annotated[str, OneOf(OPTIMIZERS)] = "adamw"
    """Update rule; muon and normuon orthogonalise matrices and leave the rest to adamw. A name of
    optax or optax.contrib (adabelief, optax.adamw) is that library's rule."""
    learning_rate: PositiveFloat = 3e-4
    """Peak learning rate; of adafactor, relative to a parameter's root mean square."""
    b1: Probability = 0.9
    """Decay of the first moment; momentum of sgd, muon and adafactor."""
    b2: Probability = 0.95
    """Decay of the second moment (adam, adamw, lion, and what muon leaves to adamw)."""
    epsilon: PositiveFloat = 1e-8
    """Added to the root of the second moment."""
    weight_decay: NonNegativeFloat = 0.1
    """Decoupled weight decay, times the learning rate; of adam, L2 added to the gradient."""
    decay: Literal["matrices", "no_bias_or_gain", "all"] = "no_bias_or_gain"
    """Parameters that decay: kernels and an untied head; all but biases and gains (GPT-1); all."""
    clip_norm: PositiveFloat | None = 1.0
    """Gradients are scaled down to this global norm."""
    adam_learning_rate: PositiveFloat | None = None
    """Muon only: peak learning rate of what is not a matrix, and embeddings; none = the same."""
    ema_decay: Probability | None = None
    """Keep an exponential moving average of the parameters, and evaluate it."""
    options: Options = Field(default_factory=HashableDict)
    """Options of the update rule's own (normuon: neuron_decay, neuron_epsilon), or of an optax
    optimizer, by name: optimizer.options.eps=1e-6."""


@section
class ScheduleConfig:
    """The learning rate over training, as a fraction of its peak."""

    name: Annotated[str, OneOf(SCHEDULES)] = "cosine"
    """Shape after warmup; wsd: warmup, stable, decay."""
    warmup_tokens: NonNegative = 0
    """Linear warmup from zero."""
    decay_tokens: Positive | None = None
    """Tokens at which cosine or linear reaches its end (warmup included); none = train.tokens."""
    cooldown_tokens: NonNegative = 0
    """Length of wsd's last, decaying part."""
    cooldown: Literal["linear", "sqrt"] = "linear"
    """wsd: decay linearly, or as 1 - sqrt(progress)."""
    final_fraction: Fraction = 0.0
    """Learning rate at the end of the decay, as a fraction of the peak."""
    options: Options = Field(default_factory=HashableDict)
    """Options of the shape's own, by name (power: exponent)."""
