"""The pretraining objective: cross-entropy of the next token, z-loss and the routers' losses."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from gpt_jax.config import TrainConfig
from gpt_jax.data.batch import Batch
from gpt_jax.models.gpt import GPT, Params
from gpt_jax.objectives.losses import LossSums, LossWeights, batch_loss, no_sums
from gpt_jax.parallel.sharding import Axes


@dataclasses.dataclass(frozen=True)
class LanguageModel:
    """Next-token prediction (`gpt_jax.objectives.parts.Objective`)."""

    config: TrainConfig
    model: GPT

    @property
    def draws(self) -> bool:
        """False: only the model's own dropout draws random numbers."""
        return False

    def fresh(self, key: jax.Array) -> dict[str, Any]:
        """No parameters beside the model's."""
        return {}

    def axes(self) -> dict[str, Axes]:
        """No parameters beside the model's."""
        return {}

    def no_sums(self) -> LossSums:
        """The sums of no tokens."""
        return no_sums(self.model.config)

    def loss(
        self, params: Params, batch: Batch, key: jax.Array | None, given: Params
    ) -> tuple[jax.Array, LossSums]:
        """(objective, sums) of a batch; key: of dropout. given: nothing."""
        return batch_loss(self.model, params, batch, LossWeights.of(self.config), key)

    def outputs(self, params: Params, batch: Batch) -> tuple[LossSums, jax.Array]:
        """(sums, no outputs [B, 0]) of a batch, without dropout."""
        return batch_loss(self.model, params, batch)[1], jnp.zeros((len(batch.tokens_BT), 0))
