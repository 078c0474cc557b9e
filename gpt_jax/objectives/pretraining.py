"""The pretraining objective: cross-entropy of the next token, z-loss and the routers' losses."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gpt_jax.config import ModelConfig, TrainConfig
from gpt_jax.data.batch import Batch
from gpt_jax.models.gpt import GPT, Params
from gpt_jax.objectives.cross_entropy import LossSums, RouterSums, cross_entropy_sums, no_loss
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


class LossWeights(NamedTuple):
    """Weight of each auxiliary loss that is added to the cross-entropy."""

    z_loss: float = 0.0
    router_load_balance: float = 0.0
    router_z_loss: float = 0.0

    @classmethod
    def of(cls, config: TrainConfig) -> "LossWeights":
        return cls(config.z_loss, config.router_load_balance_loss, config.router_z_loss)


NO_FURTHER_LOSS = LossWeights()


def batch_loss(
    model: GPT,
    params: Params,
    batch: Batch,
    loss_weights: LossWeights = NO_FURTHER_LOSS,
    dropout_key: jax.Array | None = None,
    prefix_BPD: jax.Array | None = None,
) -> tuple[jax.Array, LossSums]:
    """(cross-entropy and weighted further losses, the sums) of a batch; the first has a gradient.

    Routers' losses are added for each layer, as in Switch. prefix_BPD: as in `GPT.apply`.
    """
    whole = not model.execution.loss_in_parts
    texts = params, batch.tokens_BT, batch.segments_BT
    inputs = *texts, dropout_key, whole, prefix_BPD, batch.positions_BT
    if model.config.n_experts is None:
        return output_loss(model, params, model.apply(*inputs), batch, loss_weights.z_loss)
    from gpt_jax.models.routed import apply_with_routers
    from gpt_jax.objectives.routers import router_sums

    y, router_logits = apply_with_routers(model, *inputs)
    objective, sums = output_loss(model, params, y, batch, loss_weights.z_loss)
    router = router_sums(model.config, router_logits, batch.weights_BT)
    objective += loss_weights.router_load_balance * router.load_balance
    objective += loss_weights.router_z_loss * router.z_loss
    return objective, sums._replace(router=router)


def output_loss(
    model: GPT, params: Params, y: jax.Array, batch: Batch, z_loss: float
) -> tuple[jax.Array, LossSums]:
    """`batch_loss` from logits, or from the last activations where it is computed in parts; without
    the routers' losses."""
    if not model.execution.loss_in_parts:
        masked = not model.execution.how.cpu_forms
        sums = cross_entropy_sums(y, batch.targets_BT, batch.weights_BT, masked)
        return sums.cross_entropy + z_loss * sums.z_loss, sums
    from gpt_jax.objectives.in_parts import loss_of_activations

    return loss_of_activations(model, params, y, batch, z_loss)


def no_sums(config: ModelConfig, taught: bool = False) -> LossSums:
    """The sums of no tokens, for a model; taught: that learns from a teacher."""
    sums = no_loss()
    if taught:
        sums = sums._replace(distillation=jnp.zeros(()))
    if config.n_experts is None:
        return sums
    return sums._replace(router=RouterSums(jnp.zeros(()), jnp.zeros(()), jnp.zeros(())))
