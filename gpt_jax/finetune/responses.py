"""Objectives of tasks whose targets are responses: of a response alone, and of two compared (DPO).

Losses are sums over the rows of a batch: whoever has all of them divides, once.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from gpt_jax.config import Config
from gpt_jax.data.batch import Batch
from gpt_jax.finetune.heads import last_activations, split_rows, weighted
from gpt_jax.models.gpt import GPT, Params
from gpt_jax.models.vision import encode, fresh_encoder
from gpt_jax.objectives.cross_entropy import LossSums, target_scores
from gpt_jax.objectives.pretraining import LossWeights, batch_loss, no_sums
from gpt_jax.parallel.sharding import Axes


@dataclasses.dataclass(frozen=True)
class Responses:
    """The language model's loss of responses, perhaps after an image
    (`gpt_jax.objectives.parts.Objective`)."""

    config: Config
    model: GPT
    draws = False

    def fresh(self, key: jax.Array) -> dict[str, Any]:
        """The image encoder, where there is one."""
        if self.config.task.image_encoder == "none":
            return {}
        return fresh_encoder(self.config.task, self.config.model.d_model, key)

    def axes(self) -> dict[str, Axes]:
        """Logical names of the dims of `fresh`: an encoder is small and copied everywhere."""
        fresh = jax.eval_shape(lambda: self.fresh(jax.random.key(0)))
        return {path: (None,) * x.ndim for path, x in fresh.items()}

    def no_sums(self) -> LossSums:
        """The sums of no examples."""
        return no_sums(self.model.config)

    def loss(
        self, params: Params, batch: Batch, key: jax.Array | None, given: Params
    ) -> tuple[jax.Array, LossSums]:
        """(objective, sums) of a batch; key: of dropout. given: nothing."""
        prefix_BPD, further = self._prefix(params, batch), LossWeights.of(self.config.train)
        return batch_loss(self.model, params, batch, further, key, prefix_BPD)

    def outputs(self, params: Params, batch: Batch) -> tuple[LossSums, jax.Array]:
        """(sums, no outputs [B, 0]) of a batch, without dropout."""
        prefix_BPD = self._prefix(params, batch)
        _, sums = batch_loss(self.model, params, batch, prefix_BPD=prefix_BPD)
        return sums, jnp.zeros((len(batch.tokens_BT), 0))

    def _prefix(self, params: Params, batch: Batch) -> jax.Array | None:
        if batch.images_BX is None:
            return None
        return image_prefix(self.config, params["vision"], batch.images_BX)


@dataclasses.dataclass(frozen=True)
class Preferences:
    """Direct preference optimisation: of two responses the chosen one gains more than the rejected
    (`gpt_jax.objectives.parts.Objective`)."""

    config: Config
    model: GPT
    draws = False

    def fresh(self, key: jax.Array) -> dict[str, Any]:
        """No parameters beside the model's."""
        return {}

    def axes(self) -> dict[str, Axes]:
        """No parameters beside the model's."""
        return {}

    def no_sums(self) -> LossSums:
        """The sums of no examples."""
        return no_sums(self.model.config)

    def loss(
        self, params: Params, batch: Batch, key: jax.Array | None, given: Params
    ) -> tuple[jax.Array, LossSums]:
        """(objective, sums) of a batch; key: of dropout. given: nothing."""
        sums = self._sums(batch, self._margins(params, batch, key))
        return sums.cross_entropy, sums

    def outputs(self, params: Params, batch: Batch) -> tuple[LossSums, jax.Array]:
        """(sums, the margin of the chosen response [B]) of a batch, without dropout."""
        margin_B = self._margins(params, batch, None)
        return self._sums(batch, margin_B), margin_B

    def _margins(self, params: Params, batch: Batch, key: jax.Array | None) -> jax.Array:
        """beta times how much more the model has moved to the chosen response than to the rejected
        one (Rafailov et al. 2023, equation 7) [B]; the labels hold where training began."""
        assert batch.labels_BT is not None
        now_BK = sequence_log_probabilities(self.config, self.model, params, batch, key)
        began_BK = jnp.sum(batch.labels_BT.reshape(*now_BK.shape, -1), axis=2)
        moved_BK = now_BK - began_BK
        return self.config.task.preference_beta * (moved_BK[:, 0] - moved_BK[:, 1])

    def _sums(self, batch: Batch, margin_B: jax.Array) -> LossSums:
        assert batch.label_weights_BT is not None
        return weighted(jax.nn.softplus(-margin_B), jnp.max(batch.label_weights_BT, axis=1))


def image_prefix(config: Config, vision: Any, images_BX: jax.Array) -> jax.Array:
    """Embeddings [B, P, D] of images; vision: `params["vision"]`."""
    return encode(config.task, vision, images_BX)


def sequence_log_probabilities(
    config: Config, model: GPT, params: Params, batch: Batch, key: jax.Array | None = None
) -> jax.Array:
    """log p of what is learned of each sequence [B, K], nats."""
    sequences = split_rows(config, batch)
    x_BTD = last_activations(model, params, sequences, key)
    logits_BTV = model.logits(x_BTD, model.output_matrix(params))
    target_BT, normaliser_BT = target_scores([logits_BTV], sequences.targets_BT)
    total_B = jnp.sum(sequences.weights_BT * (target_BT - normaliser_BT), axis=1)
    return total_B.reshape(len(batch.tokens_BT), -1)
