"""Parameter-efficient fine-tuning: transforms of the parameter tree, and Linen interceptors.

The parameters that training begins from are split into a frozen tree and a small trained one, and
a step combines them again. Methods that change parameters alone (BitFit, difference, last layers,
patterns) need nothing else. Those that add a computation (LoRA, adapters, prefix, prompt) add
leaves to the tree, which the model's interceptors read (`adapt.interceptors`).
"""

from gpt_jax.adapt.adaptation import Adaptation, make_adaptation
from gpt_jax.adapt.interceptors import adapted

__all__ = ["Adaptation", "adapted", "make_adaptation"]
