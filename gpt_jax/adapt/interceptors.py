"""The forward computations that adaptations add to a model, as Linen interceptors.

An interceptor acts only where the parameters hold the leaves of its method, so the same model
computes the plain function of plain parameters. Where a leaf is stored says which module reads it:
`.../query/lora_a`, `blocks/0/mlp_adapter`, `blocks/0/attention/prefix_key`, `embedding/prompt`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gpt_jax.config import AdaptConfig
from gpt_jax.models.attention_module import Attention
from gpt_jax.models.experts import Experts
from gpt_jax.models.gpt import GPT, Interceptor, InterceptorContext
from gpt_jax.models.layers import MLP, Embedding, Projection, put_in_front
from gpt_jax.models.products import Precision, project
from gpt_jax.models.transformer import Block


def adapted(model: GPT, config: AdaptConfig) -> GPT:
    """The model that also computes what `config.method` adds to the parameters; done once."""
    wanted = INTERCEPTORS.get(config.method, ())
    return model.intercepted(*(x for x in wanted if x not in model.interceptors))


def low_rank(
    method: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    context: InterceptorContext,
) -> Any:
    """Add LoRA's term (Hu et al. 2021, equation 3) to a projection's matmul, or AdaLoRA's with its
    diagonal (Zhang et al. 2023, equation 3): of activations, so that no gradient of the kernel's
    size is made."""
    y, module = method(*args, **kwargs), context.module
    if not (isinstance(module, Projection) and context.method_name == "matmul"):
        return y
    if not module.has_variable("params", "lora_a"):
        return y
    x, how = args[0], module.how

    def stored(name: str) -> jax.Array:
        return module.get_variable("params", name)

    if module.has_variable("params", "lora_dropout") and module.has_rng("dropout"):
        kept = 1 - stored("lora_dropout")
        mask = jax.random.bernoulli(module.make_rng("dropout"), kept, x.shape)
        x = jnp.where(mask, x / kept.astype(x.dtype), 0)
    h = project(x, stored("lora_a"), len(module.inputs), how)
    scale = stored("lora_scale")
    if module.has_variable("params", "lora_lambda"):
        scale = scale * stored("lora_lambda")
    return y + project(h * scale.astype(h.dtype), stored("lora_b"), 1, how).astype(y.dtype)


def bottleneck_adapters(
    method: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    context: InterceptorContext,
) -> Any:
    """Send a block's attention and MLP outputs through its adapters (Houlsby et al. 2019)."""
    out, module = method(*args, **kwargs), context.module
    if context.method_name != "__call__" or not isinstance(module, Attention | MLP | Experts):
        return out
    name, block = f"{module.name}_adapter", module.parent
    if not isinstance(block, Block) or not block.has_variable("params", name):
        return out
    adapter: dict[str, dict[str, jax.Array]] = block.get_variable("params", name)
    how = block.execution.how
    if isinstance(module, Attention):
        y_BTD, cache = out
        return _bottleneck(y_BTD, adapter, how), cache
    return _bottleneck(out, adapter, how)


def _bottleneck(
    y: jax.Array, adapter: dict[str, dict[str, jax.Array]], how: Precision
) -> jax.Array:
    """y + up(gelu(down(y))) (Houlsby et al. 2019, figure 2)."""
    down, up = adapter["down"], adapter["up"]
    h = jax.nn.gelu(project(y, down["kernel"], 1, how) + down["bias"].astype(y.dtype))
    return y + project(h, up["kernel"], 1, how) + up["bias"].astype(y.dtype)


def prefix_tuning(
    method: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    context: InterceptorContext,
) -> Any:
    """Give every query trained keys and values to see (Li and Liang 2021, equation 2)."""
    module = context.module
    if not isinstance(module, Attention) or context.method_name not in (
        "attend_whole",
        "attend_cached",
    ):
        return method(*args, **kwargs)
    if not module.has_variable("params", "prefix_key"):
        return method(*args, **kwargs)
    key_PKH: jax.Array = module.get_variable("params", "prefix_key")
    value_PKH: jax.Array = module.get_variable("params", "prefix_value")
    n = len(key_PKH)
    if context.method_name == "attend_whole":
        # In front of all, with queries of nobody: any kernel computes that.
        q_BTNH, k_BTKH, v_BTKH, *rest = args
        q_BTNH = jnp.pad(q_BTNH, ((0, 0), (n, 0), (0, 0), (0, 0)))
        k_BTKH, v_BTKH = _extend(key_PKH, k_BTKH), _extend(value_PKH, v_BTKH)
        return method(q_BTNH, k_BTKH, v_BTKH, *rest, **kwargs)[:, n:]
    q_BTNH, key_CSH, value_CSH, positions_BT, *rest = args
    key_CSH = _extend_cache(key_PKH, key_CSH, len(q_BTNH))
    value_CSH = _extend_cache(value_PKH, value_CSH, len(q_BTNH))
    return method(q_BTNH, key_CSH, value_CSH, positions_BT + n, *rest, **kwargs)


def _extend(prefix_PKH: jax.Array, x_BTKH: jax.Array) -> jax.Array:
    """[B, P + T, K, H]."""
    rows = jnp.broadcast_to(prefix_PKH.astype(x_BTKH.dtype), (len(x_BTKH), *prefix_PKH.shape))
    return jnp.concatenate([rows, x_BTKH], axis=1)


def _extend_cache(prefix_PKH: jax.Array, x_CSH: jax.Array, n_batch: int) -> jax.Array:
    """[B K, P + S, H]."""
    P, K, H = prefix_PKH.shape
    prefix_KPH = prefix_PKH.astype(x_CSH.dtype).swapaxes(0, 1)
    rows = jnp.broadcast_to(prefix_KPH, (n_batch, K, P, H)).reshape(-1, P, H)
    return jnp.concatenate([rows, x_CSH], axis=1)


def prompt_tuning(
    method: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    context: InterceptorContext,
) -> Any:
    """Put trained embeddings at the first positions (Lester et al. 2021, section 2)."""
    x_BTD, module = method(*args, **kwargs), context.module
    if not (isinstance(module, Embedding) and context.method_name == "look_up"):
        return x_BTD
    if not module.has_variable("params", "prompt"):
        return x_BTD
    prompt_PD: jax.Array = module.get_variable("params", "prompt")
    _, positions_BT = args
    return put_in_front(prompt_PD[None], x_BTD, positions_BT)


INTERCEPTORS: dict[str, tuple[Interceptor, ...]] = {
    "lora": (low_rank,),
    "adalora": (low_rank,),
    "adapter": (bottleneck_adapters,),
    "prefix": (prefix_tuning,),
    "prompt": (prompt_tuning,),
}
"""adapt.method -> what it adds to the computation; other methods change parameters alone."""
