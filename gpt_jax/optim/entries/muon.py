"""Muon: momentum of the kernels in the blocks, orthogonalised. Must not import jax at its top.

Each layer's and each expert's kernel is orthogonalised by itself; the rest, routers too, is AdamW.
"""

import math
from typing import TYPE_CHECKING, Any

from gpt_jax.optim.entries.adamw import adam
from gpt_jax.optim.entry import FLOAT32, Build, Hyperparameters, OptimizerEntry, Shape
from gpt_jax.optim.parametrization import Group, UpdateRule
from gpt_jax.optim.roles import Role, as_matrices, roles, rule, rule_at

if TYPE_CHECKING:
    import optax

MUON_RMS = 0.2
"""Root mean square of Muon's updates before the learning rate: about AdamW's, so that one learning
rate and one weight decay serve both and carry over between shapes (Moonlight, arXiv:2502.16982,
eq. 4). The other convention, sqrt(max(1, outputs / inputs)), would need a rate of its own."""


def is_matrix(role: Role) -> bool:
    """Whether Muon moves parameters of a role, and not AdamW."""
    return role == "matrix"


def mup(group: Group, options: Any) -> UpdateRule:
    """Muon's rule for the kernels in the blocks, Adam's for the rest."""
    return "muon" if group == "hidden" else "adam"


def beside_adam(
    build: Build, matrices: "optax.GradientTransformation"
) -> "optax.GradientTransformation":
    """One rule for the kernels in the blocks, and Adam for all other parameters."""
    import jax
    import optax

    labels = jax.tree.map(
        lambda role: "muon" if is_matrix(role) else "adam", roles(build.params_like)
    )
    return optax.partition({"muon": matrices, "adam": adam(build.numbers)}, labels)


def direction(build: Build) -> "optax.GradientTransformation":
    """Muon for matrices, AdamW for the rest."""
    return beside_adam(build, _muon(build.numbers))


def _muon(h: Hyperparameters) -> "optax.GradientTransformation":
    """Muon for kernels [stack..., inputs..., outputs...]: matrices of inputs x outputs."""
    import jax
    import optax
    from optax import contrib

    def dimension_numbers(tree: Any) -> Any:
        def of_kernel(path: tuple[Any, ...], x: jax.Array) -> contrib.MuonDimensionNumbers:
            first, split = rule_at(path).stack_dims, rule_at(path).stack_dims
            split += rule_at(path).input_dims
            inputs, outputs = tuple(range(first, split)), tuple(range(split, x.ndim))
            return contrib.MuonDimensionNumbers(inputs, outputs)

        return jax.tree_util.tree_map_with_path(of_kernel, tree)

    def scale(updates: Any, _: Any) -> Any:
        def by_shape(path: tuple[Any, ...], x: jax.Array) -> jax.Array:
            # An orthogonal matrix of m x n has a root mean square of 1 / sqrt(max(m, n)).
            return MUON_RMS * max(as_matrices(path, x).shape[1:]) ** 0.5 * x

        return jax.tree_util.tree_map_with_path(by_shape, updates)

    muon = contrib.scale_by_muon(
        beta=h.b1, eps=h.epsilon, weight_dimension_numbers=dimension_numbers
    )
    return optax.chain(muon, optax.stateless(scale))


def state_bytes(path: str, shape: Shape, options: Any) -> int:
    """One moment of a matrix, two of everything else."""
    return (1 if is_matrix(rule(path).role) else 2) * FLOAT32 * math.prod(shape)


ENTRY = OptimizerEntry(
    name="muon",
    summary="orthogonalised momentum of matrices; the rest is adamw",
    source="Jordan et al. 2024, https://kellerjordan.github.io/posts/muon",
    direction=direction,
    state_bytes=state_bytes,
    mup=mup,
    at_learning_rate=is_matrix,
)
