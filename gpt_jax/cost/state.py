"""Bytes of state that training keeps: parameters, gradients, optimizer. Must not import jax."""

import dataclasses
import math

from gpt_jax.config import ModelConfig, OptimizerConfig
from gpt_jax.config.entries import OPTIMIZERS
from gpt_jax.cost.flops import parameter_shapes

BYTES_PER_VALUE = 4
"""Parameters and gradients are float32."""


@dataclasses.dataclass(frozen=True)
class StateBytes:
    """Bytes that training keeps between steps, and its gradients, over all devices together."""

    params: int
    gradients: int
    optimizer: int
    ema: int
    """The moving average of the parameters, where optimizer.ema_decay asks for it."""

    @property
    def total(self) -> int:
        return self.params + self.gradients + self.optimizer + self.ema


def state_bytes(
    model: ModelConfig, optimizer: OptimizerConfig, experts: bool | None = None
) -> StateBytes:
    """Bytes of parameters and gradients in float32 and of optimizer state, not of activations.

    A few step counters, and Adafactor's one-element placeholders, are left out.
    experts: of experts alone (True), or of all but experts (False).
    """
    shapes = {
        path: shape
        for path, shape in parameter_shapes(model).items()
        if experts is None or experts == ("/experts/" in path)
    }
    params = BYTES_PER_VALUE * sum(math.prod(shape) for shape in shapes.values())
    entry = OPTIMIZERS.find(optimizer.name)
    options = entry.read_options(optimizer.options, "optimizer.options")
    state = sum(entry.state_bytes(path, shape, options) for path, shape in shapes.items())
    ema = 0 if optimizer.ema_decay is None else params
    return StateBytes(params, params, state, ema)
