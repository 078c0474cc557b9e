"""Linen interceptors that change the embeddings a model looks up, for fine-tuning."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gpt_jax.models.gpt import Interceptor, InterceptorContext
from gpt_jax.models.layers import Embedding


def special_tokens(
    method: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    context: InterceptorContext,
) -> Any:
    """Look ids beyond the padded vocabulary up in `embedding/special`, where parameters have it."""
    module = context.module
    if not (isinstance(module, Embedding) and context.method_name == "look_up"):
        return method(*args, **kwargs)
    if not module.has_variable("params", "special"):
        return method(*args, **kwargs)
    tokens_BT, positions_BT = args
    special_SD: jax.Array = module.get_variable("params", "special")
    n_ordinary = module.config.padded_vocab_size
    number_BT = tokens_BT - n_ordinary
    ordinary_BTD = method(jnp.minimum(tokens_BT, n_ordinary - 1), positions_BT, **kwargs)
    special_BTD = special_SD[jnp.maximum(number_BT, 0)]
    return jnp.where((number_BT >= 0)[..., None], special_BTD, ordinary_BTD)


def moved(move_BTD: jax.Array) -> Interceptor:
    """An interceptor that adds `move_BTD` to the embeddings (adversarial training)."""

    def intercept(
        method: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: InterceptorContext,
    ) -> Any:
        y = method(*args, **kwargs)
        is_look_up = isinstance(context.module, Embedding) and context.method_name == "look_up"
        return y + move_BTD if is_look_up else y

    return intercept
