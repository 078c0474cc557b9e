"""Distillation: the section of a run that learns from another model. Must not import jax."""

from gpt_jax.config.fields import AnyPath, Fraction, PositiveFloat, section, setting


@section
class DistillConfig:
    """Knowledge distillation (Hinton et al. 2015): another model's predictions as targets.

    For pretraining, and for learning responses.
    """

    teacher: AnyPath = setting("", use="loop")
    """Directory of the run whose predictions are learned; empty = none. It must have the tokenizer
    of this one, and read as many tokens."""
    weight: Fraction = 0.5
    """Weight of the divergence from the teacher in the loss; the cross-entropy has 1 minus it."""
    temperature: PositiveFloat = 1.0
    """Logits of both are divided by it before they are compared."""
