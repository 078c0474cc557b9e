"""The parts that a training step is handed beside the optimizer: an objective and a transform.

Whatever has these methods is one; nothing has to inherit from them.
"""

import dataclasses
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax

from gpt_jax.data.batch import Batch
from gpt_jax.models.gpt import GPT, Params
from gpt_jax.objectives.cross_entropy import LossSums
from gpt_jax.parallel.sharding import Axes


class Objective(Protocol):
    """The loss that a step minimises. Its sums add over any split of a batch into rows."""

    @property
    def draws(self) -> bool:
        """Whether `loss` draws random numbers besides the model's dropout."""

    def fresh(self, key: jax.Array) -> dict[str, Any]:
        """Parameters that it adds to the model's: {path: float32 array}."""

    def axes(self) -> dict[str, Axes]:
        """Logical names of the dims of `fresh`: {path: names}."""

    def no_sums(self) -> LossSums:
        """The sums of no tokens."""

    def loss(
        self, params: Params, batch: Batch, key: jax.Array | None, given: Params
    ) -> tuple[jax.Array, LossSums]:
        """(objective, sums) of a batch; the objective, a sum too, has a gradient in `params`.

        params: all of the model's. key: None = nothing is drawn. given: arrays that are read and
        not trained (`Settings.given`).
        """

    def outputs(self, params: Params, batch: Batch) -> tuple[LossSums, jax.Array]:
        """(sums, what is predicted [B, ...]) of a batch, without anything drawn."""


class Transform(Protocol):
    """How the trained parameters become the model's: all of them, or a small tree of a few."""

    @property
    def draws(self) -> bool:
        """Whether `combine` draws random numbers while training."""

    @property
    def model(self) -> GPT:
        """The model, computing what the transform adds to its parameters."""

    def init(self, key: jax.Array, params: Params) -> tuple[Params, Params]:
        """(frozen, trained) parameters of the model that training begins from."""

    def combine(self, frozen: Params, trained: Params, key: jax.Array | None = None) -> Params:
        """All of the model's parameters."""

    def axes(self, param_axes: Params) -> tuple[Params, Params, Params]:
        """Logical names of the dims of (frozen, trained, combined) parameters."""

    @property
    def has_penalty(self) -> bool:
        """Whether `penalty` is not zero."""

    def penalty(self, trained: Params) -> jax.Array:
        """A scalar that is added to the mean loss."""

    def wrap(
        self, optimizer: optax.GradientTransformation, n_steps: Any
    ) -> optax.GradientTransformation:
        """The optimizer of the trained parameters; n_steps: of the run, may be traced."""


@dataclasses.dataclass(frozen=True)
class TrainAll:
    """The transform that trains every parameter as it is."""

    model: GPT
    draws = False
    has_penalty = False

    def init(self, key: jax.Array, params: Params) -> tuple[Params, Params]:
        """Nothing is frozen."""
        return {}, params

    def combine(self, frozen: Params, trained: Params, key: jax.Array | None = None) -> Params:
        """The trained parameters."""
        return trained

    def axes(self, param_axes: Params) -> tuple[Params, Params, Params]:
        """The model's own names."""
        return {}, param_axes, param_axes

    def penalty(self, trained: Params) -> jax.Array:
        """Zero."""
        return jnp.zeros(())

    def wrap(
        self, optimizer: optax.GradientTransformation, n_steps: Any
    ) -> optax.GradientTransformation:
        """The optimizer itself."""
        return optimizer
