"""Parameters out of weights with GPT-2's names, as nanoGPT and `transformers` write them.

Must not import jax: trees of numpy arrays.
"""

from typing import Any

from gpt_jax.config import ModelConfig
from gpt_jax.interop import names
from gpt_jax.interop.family import Allowed, carried, refuse_differences
from gpt_jax.interop.layouts import Matrices, gpt2_table
from gpt_jax.interop.names import Weights

ACTIVATIONS = ("gelu", "gelu_tanh", "relu", "relu_squared")


def carries(config: ModelConfig) -> Allowed:
    """Allowed values of the fields that GPT-2's weight names restrict. Biases may be missing, as in
    nanoGPT."""
    free = ("norm_epsilon", "bias", "layer_pattern", "logit_soft_cap", "parametrization")
    return carried(
        config,
        **{name: (getattr(config, name),) for name in free},
        activation=ACTIVATIONS,
        kv_heads=(config.n_heads,),
    )


def params_from_gpt2(weights: Weights, config: ModelConfig, matrices: Matrices) -> dict[str, Any]:
    """GPT-2-named weights -> our parameter tree, float32.

    matrices: how a projection's matrix is stored: "out_in" as torch's Linear (nanoGPT), "in_out"
    as the release's Conv1D (`transformers`). The head is tied. Raises ValueError for a config that
    GPT-2's names cannot carry, and naming a weight that is missing, left over or misshapen.
    """
    refuse_differences("GPT-2 weights", carries(config), config)
    prefix = "transformer." if any(k.startswith("transformer.") for k in weights) else ""
    # Tied: the head is the token embedding once more.
    kept = {name: array for name, array in weights.items() if name != "lm_head.weight"}
    return names.read(gpt2_table(config, matrices, prefix), kept, config)
