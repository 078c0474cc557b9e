"""The next token, with part of the target spread over the vocabulary. Must not import jax at its
top.
"""

from typing import TYPE_CHECKING, Any

from gpt_jax.config import Config
from gpt_jax.config.fields import Probability, section
from gpt_jax.objectives.entry import ObjectiveEntry

if TYPE_CHECKING:
    from gpt_jax.models.gpt import GPT
    from gpt_jax.objectives.parts import Objective


@section
class Options:
    """How much of the target is spread."""

    share: Probability = 0.1
    """Share of the target that all ids have alike (Vaswani et al. 2017: 0.1)."""


def make(config: Config, model: "GPT", options: Options) -> "Objective":
    """The objective, from whole logits. Validation stays the loss of the next token."""
    import jax
    import jax.numpy as jnp

    from gpt_jax.data.batch import Batch
    from gpt_jax.objectives.cross_entropy import LossSums, cross_entropy_sums
    from gpt_jax.objectives.pretraining import LanguageModel

    if config.model.n_experts is not None:
        raise ValueError("train.objective = label_smoothing does not go with model.n_experts")

    class Smoothed(LanguageModel):
        """`LanguageModel` with smoothed targets."""

        def loss(
            self, params: Any, batch: Batch, key: jax.Array | None, given: Any
        ) -> tuple[jax.Array, LossSums]:
            """(objective, sums) of a batch; the sums are those of the next token."""
            texts = params, batch.tokens_BT, batch.segments_BT
            logits = self.model.apply(*texts, key, True, None, batch.positions_BT)
            masked = not self.model.execution.how.cpu_forms
            sums = cross_entropy_sums(logits, batch.targets_BT, batch.weights_BT, masked)
            ids = logits[..., : self.model.config.vocab_size]
            uniform_BT = jax.nn.logsumexp(logits, axis=-1) - jnp.mean(ids, axis=-1)
            spread = options.share * jnp.sum(batch.weights_BT * uniform_BT)
            further = self.config.z_loss * sums.z_loss
            return (1 - options.share) * sums.cross_entropy + spread + further, sums

    return Smoothed(config.train, model)


ENTRY = ObjectiveEntry(
    name="label_smoothing",
    summary="next token, with part of the target spread over the vocabulary",
    source="Szegedy et al. 2016, arXiv:1512.00567, section 7",
    options=Options,
    make=make,
)
