"""Activations inside of a GPT, to be looked at: by layer, and as logits (the logit lens)."""

from typing import cast

import jax

from gpt_jax.models.attention_module import ACTIVATIONS
from gpt_jax.models.gpt import GPT, Params
from gpt_jax.models.layers import make_norm
from gpt_jax.models.routed import by_layer
from gpt_jax.optim.parametrization import output_multiplier


def activations(model: GPT, params: Params, tokens_BT: jax.Array) -> dict[str, jax.Array]:
    """Activations by name, computed as in training but without dropout.

    embedding [B, T, D]; of every layer, on a leading dim L: scores [L, B, N, T, T] (attention
    scores, 0 where unseen), weights [L, B, N, T, T] (what attention weighs values with, masks
    and changes of scores applied), attention and mlp [L, B, T, D] (what these put out, before
    the residual multiplier), stream [L, B, T, D] (after the layer); logits [B, T, V].
    """
    config = model.config
    (logits, _), variables = model.apply_module(
        {"params": params}, tokens_BT, mutable=[ACTIVATIONS]
    )
    seen = variables[ACTIVATIONS]
    members = [seen["blocks"][str(i)] for i in range(len(config.layer_pattern))]
    return {
        "embedding": seen["embedded"][0],
        "scores": by_layer(model, [member["attention"]["scores"] for member in members]),
        "weights": by_layer(model, [member["attention"]["weights"] for member in members]),
        "attention": by_layer(model, [member["attention_output"] for member in members]),
        "mlp": by_layer(model, [member["mlp_output"] for member in members]),
        "stream": by_layer(model, [seen["blocks"][f"stream_{i}"] for i in range(len(members))]),
        "logits": logits[..., : config.vocab_size],
    }


def lens(model: GPT, params: Params, stream_BTD: jax.Array) -> jax.Array:
    """Logits [B, T, V] as if the stream left the model here: the logit lens; of the last layer
    they are the model's."""
    config, how = model.config, model.execution.how
    x_BTD = stream_BTD
    if config.final_norm:
        of_norm = params.get("final_norm", {})  # without gain and bias there are none
        x_BTD = cast(jax.Array, make_norm(config, how)().apply({"params": of_norm}, x_BTD))
    x_BTD = output_multiplier(config) * x_BTD
    return model.logits(x_BTD, model.output_matrix(params))[..., : config.vocab_size]
