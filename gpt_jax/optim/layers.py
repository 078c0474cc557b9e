"""Update rules applied to each layer of a stack by itself, with kernels as matrices."""

from typing import Any, Literal

import jax
import optax

from gpt_jax.optim.roles import Params, as_matrices, rule_at

Stack = Literal["single", "layers", "experts"]


def each_layer_alone(
    inner: optax.GradientTransformation, params_like: Params
) -> optax.GradientTransformation:
    """`inner` with every layer (and expert) of a stack as a parameter of its own.

    A rule that factors, orthogonalises or norms whole arrays would mix layers over [G, D, N, H],
    and not see that a kernel's heads are one dim.
    """
    labels = jax.tree_util.tree_map_with_path(lambda path, _: stack(path), params_like)
    stacks = {"layers", "experts"} & set(jax.tree.leaves(labels))
    rules = {"single": inner} | {name: _per_layer(inner) for name in sorted(stacks)}
    return optax.partition(rules, labels)


def stack(path: tuple[Any, ...]) -> Stack:
    """Whether a parameter is stored once, once per layer, or once per layer and expert."""
    if path[0].key != "blocks":
        return "single"
    return "experts" if rule_at(path).stack_dims == 2 else "layers"


def _per_layer(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """`inner` mapped over the first dim of parameters that `as_matrices` has reshaped."""

    def matrices(tree: Any) -> Any:
        return jax.tree_util.tree_map_with_path(as_matrices, tree)

    def init(params: Any) -> Any:
        return jax.vmap(inner.init)(matrices(params))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        new, state = jax.vmap(inner.update)(matrices(updates), state, matrices(params))
        return jax.tree.map(lambda n, u: n.reshape(u.shape), new, updates), state

    return optax.GradientTransformation(init, update)
