"""An image encoder: pixels to embeddings that take the place of a text's first tokens.

Pure functions of a flat tree; which encoder it is, is said by `task.image_encoder`.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from gpt_jax.config import TaskConfig

N_CONVOLUTIONS = 3
"""Each halves height and width."""


def fresh_encoder(task: TaskConfig, d_model: int, key: jax.Array) -> dict[str, Any]:
    """{path: float32 array}. Kernels start with 1 / sqrt(inputs), positions with 0.02."""
    keys = iter(jax.random.split(key, 2 + N_CONVOLUTIONS))

    def kernel(name: str, *shape: int) -> dict[str, Any]:
        std = 1 / math.sqrt(math.prod(shape[:-1]))
        return {
            f"vision/{name}/kernel": std * jax.random.normal(next(keys), shape),
            f"vision/{name}/bias": jnp.zeros(shape[-1]),
        }

    channels = task.image_shape[2]
    if task.image_encoder == "patches":
        made = kernel("projection", task.image_patch**2 * channels, d_model)
    else:
        made = {}
        for i in range(N_CONVOLUTIONS):
            width = task.image_width * 2**i
            made |= kernel(f"convolution_{i}", 3, 3, channels, width)
            channels = width
        made |= kernel("projection", channels, d_model)
    shape = (task.image_tokens, d_model)
    return made | {"vision/positions": 0.02 * jax.random.normal(next(keys), shape)}


def encode(task: TaskConfig, params: dict[str, Any], images_BX: jax.Array) -> jax.Array:
    """Embeddings [B, P, D] of images, float32.

    images_BX: [B, height width channels] of 0 to 255. patches: as in ViT (Dosovitskiy et al. 2020,
    equation 1); convolution: three of 3 x 3 with stride 2, each doubling the channels.
    """
    height, width, channels = task.image_shape
    x = images_BX.astype(jnp.float32).reshape(-1, height, width, channels) / 127.5 - 1
    if task.image_encoder == "patches":
        p = task.image_patch
        x = x.reshape(-1, height // p, p, width // p, p, channels).swapaxes(2, 3)
        x = x.reshape(len(x), -1, p * p * channels)
    else:
        for i in range(N_CONVOLUTIONS):
            layer = params[f"convolution_{i}"]
            dims = ("NHWC", "HWIO", "NHWC")
            x = jax.lax.conv_general_dilated(
                x, layer["kernel"], (2, 2), "SAME", dimension_numbers=dims
            )
            x = jax.nn.gelu(x + layer["bias"])
        x = x.reshape(len(x), -1, x.shape[-1])
    projection = params["projection"]
    return x @ projection["kernel"] + projection["bias"] + params["positions"]
