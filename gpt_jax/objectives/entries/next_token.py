"""The next token, with z-loss and the routers' losses. Must not import jax at its top."""

from typing import TYPE_CHECKING, Any

from gpt_jax.config import Config
from gpt_jax.objectives.entry import ObjectiveEntry

if TYPE_CHECKING:
    from gpt_jax.models.gpt import GPT
    from gpt_jax.objectives.parts import Objective


def make(config: Config, model: "GPT", options: Any) -> "Objective":
    """Cross-entropy of the next token, and further losses by the weights of `train`."""
    from gpt_jax.objectives.pretraining import LanguageModel

    return LanguageModel(config.train, model)


ENTRY = ObjectiveEntry(name="next_token", summary="cross-entropy of the next token", make=make)
