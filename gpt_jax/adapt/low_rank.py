"""LoRA (Hu et al. 2021) and AdaLoRA (Zhang et al. 2023): W + scale A diag(lambda) B.

A is [inputs..., r], B [r, outputs...], lambda [r] of AdaLoRA alone; in a stack of layers they are
stacked as the kernel is.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gpt_jax.config import AdaptConfig
from gpt_jax.models.trees import Flat, Tree, flatten, unflatten
from gpt_jax.optim.roles import input_dims

FACTORS = ("lora_a", "lora_b", "lora_lambda")
ADALORA_STD = 0.02
"""Standard deviation of AdaLoRA's A and B at the start."""


def kernels(params: Tree, config: AdaptConfig) -> Flat:
    """The kernels that get a low-rank term. Raises ValueError if there is none."""
    found = {
        path: x
        for path, x in flatten(params).items()
        if path.startswith("blocks/")
        and path.split("/")[-2:] in [[t, "kernel"] for t in config.targets]
    }
    if not found:
        raise ValueError(f"adapt.targets = {','.join(config.targets)}: the model has none of them")
    return found


def fresh_factors(key: jax.Array, config: AdaptConfig, params: Tree) -> tuple[Flat, Flat]:
    """(what is not trained, what is) of the terms of all chosen kernels, which begin as zero."""
    adaptive = config.method == "adalora"
    rank = config.first_rank if adaptive else config.rank
    fixed, trained = {}, {}
    for i, (path, kernel) in enumerate(sorted(kernels(params, config).items())):
        module = path.removesuffix("kernel")
        n = 1 + input_dims(path)
        groups, inputs, outputs = kernel.shape[0], kernel.shape[1:n], kernel.shape[n:]
        a_key, b_key = jax.random.split(jax.random.fold_in(key, i))
        std = ADALORA_STD if adaptive else 1 / math.sqrt(math.prod(inputs))
        trained[module + "lora_a"] = std * jax.random.normal(a_key, (groups, *inputs, rank))
        shape = (groups, rank, *outputs)
        if adaptive:
            trained[module + "lora_b"] = ADALORA_STD * jax.random.normal(b_key, shape)
            trained[module + "lora_lambda"] = jnp.zeros((groups, rank))
        else:
            trained[module + "lora_b"] = jnp.zeros(shape)
        fixed[module + "lora_scale"] = jnp.full(groups, config.alpha / rank)
        if config.dropout:
            fixed[module + "lora_dropout"] = jnp.full(groups, config.dropout)
    return fixed, trained


def merged(params: Tree) -> Tree:
    """The plain parameters that compute the same: W + scale A diag(lambda) B."""
    flat = flatten(params)
    plain = {path: x for path, x in flat.items() if "/lora_" not in path}
    for path in flat:
        if path.endswith("/lora_a"):
            module = path.removesuffix("lora_a")
            a, b = flat[path], flat[module + "lora_b"]
            scale = flat[module + "lora_scale"][:, None]
            scale = scale * flat.get(module + "lora_lambda", jnp.ones_like(scale))
            a = a * scale.reshape(len(a), *[1] * (a.ndim - 2), -1)
            term = jnp.einsum(
                "gir,gro->gio", a.reshape(len(a), -1, a.shape[-1]), b.reshape(*b.shape[:2], -1)
            )
            kernel = flat[module + "kernel"]
            plain[module + "kernel"] = kernel + term.reshape(kernel.shape)
    return unflatten(plain)


def orthogonality(trained: Tree) -> jax.Array:
    """Mean over matrices of |A'A - I|^2 + |B B' - I|^2 (Zhang et al. 2023, equation 4)."""
    total, n = jnp.zeros(()), 0
    for path, x in flatten(trained).items():
        if path.endswith(("/lora_a", "/lora_b")):
            by_rank = jnp.moveaxis(x, -1, 1) if path.endswith("a") else x
            rows = by_rank.reshape(*by_rank.shape[:2], -1)
            gram = jnp.einsum("grx,gsx->grs", rows, rows)
            total += jnp.sum(jnp.square(gram - jnp.eye(gram.shape[1])))
            n += len(x)
    return 2 * total / max(n, 1)


class BudgetState(NamedTuple):
    """AdaLoRA's state beside the optimizer's."""

    inner: Any
    n_done: jax.Array
    """Steps done."""
    importance: Tree
    """Running mean of |parameter x gradient| (equation 9)."""
    uncertainty: Tree
    """Running mean of its deviation (equation 10)."""


def with_budget(
    inner: optax.GradientTransformation, config: AdaptConfig, n_steps: Any
) -> optax.GradientTransformation:
    """The optimizer, and after each step the least important of all singular values at zero.

    The importance of one is that of lambda, and the means over its column of A and row of B
    (Zhang et al. 2023, equations 8 to 11); how many are left follows equation 12.
    """

    def init(params: Tree) -> BudgetState:
        zeros = jax.tree.map(jnp.zeros_like, _factors(params))
        return BudgetState(
            inner.init(params), jnp.zeros((), jnp.int32), zeros, jax.tree.map(jnp.copy, zeros)
        )

    def update(gradients: Tree, state: BudgetState, params: Tree) -> tuple[Tree, BudgetState]:
        updates, inner_state = inner.update(gradients, state.inner, params)
        decay = config.importance_decay

        def mean(old: jax.Array, new: jax.Array) -> jax.Array:
            return decay * old + (1 - decay) * new

        sensitivity = jax.tree.map(
            lambda p, g: jnp.abs(p * g), _factors(params), _factors(gradients)
        )
        importance = jax.tree.map(mean, state.importance, sensitivity)
        deviation = jax.tree.map(lambda s, i: jnp.abs(s - i), sensitivity, importance)
        uncertainty = jax.tree.map(mean, state.uncertainty, deviation)
        score = flatten(jax.tree.map(jnp.multiply, importance, uncertainty))
        flat, old = flatten(updates), flatten(params)
        names = sorted(path for path in flat if path.endswith("/lora_lambda"))
        scores = {path: _triplet_score(score, path) for path in names}
        left = budget(config, len(names) and sum(len(old[p]) for p in names), state.n_done, n_steps)
        everything = jnp.concatenate([scores[path].reshape(-1) for path in names])
        # By rank and not by a threshold, so that exactly so many are left where scores are equal.
        places = jnp.argsort(jnp.argsort(-everything))
        at = 0
        for path in names:
            size = scores[path].size
            kept = (places[at : at + size] < left).reshape(scores[path].shape)
            at += size
            flat[path] = jnp.where(kept, old[path] + flat[path], 0.0) - old[path]
        new = BudgetState(inner_state, state.n_done + 1, importance, uncertainty)
        return unflatten(flat), new

    return optax.GradientTransformation(init, update)


def budget(config: AdaptConfig, n_matrices: int, count: Any, n_steps: Any) -> jax.Array:
    """Singular values that are left over all matrices after step `count` (from 0): the initial
    ones through warmup, then falling with a cube to rank times matrices (equation 12)."""
    first, last = config.first_rank * n_matrices, config.rank * n_matrices
    begin, end = config.budget_warmup * n_steps, (1 - config.budget_final) * n_steps
    done = jnp.clip((count + 1 - begin) / jnp.maximum(end - begin, 1), 0, 1)
    return jnp.round(last + (first - last) * (1 - done) ** 3).astype(jnp.int32)


def _factors(tree: Tree) -> Tree:
    return unflatten({p: x for p, x in flatten(tree).items() if p.split("/")[-1] in FACTORS})


def _triplet_score(score: Flat, path: str) -> jax.Array:
    """[groups, r] importance of each singular value with its vectors."""
    module = path.removesuffix("lora_lambda")
    a, b = score[module + "lora_a"], score[module + "lora_b"]
    of_a = jnp.mean(a, axis=tuple(range(1, a.ndim - 1)))
    of_b = jnp.mean(b, axis=tuple(range(2, b.ndim)))
    return score[path] + of_a + of_b
