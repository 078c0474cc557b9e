"""Parameter-efficient fine-tuning as transforms of the tree of parameters.

The model that training begins at is split into a frozen tree and a small trained one, and a step
combines them again: what is in neither is computed by nobody. Leaves that a method adds (`lora_a`,
`attention_adapter`, `prefix_key`, ...) lie in the tree where the model reads them; a model whose
parameters have none computes what it always did.
"""

from gpt_jax.adapt.adaptation import Adaptation, make_adaptation

__all__ = ["Adaptation", "make_adaptation"]
