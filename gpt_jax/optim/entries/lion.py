"""Lion: the sign of a momentum. Must not import jax at its top."""

from typing import TYPE_CHECKING

from gpt_jax.optim.entry import Build, OptimizerEntry, bytes_of

if TYPE_CHECKING:
    import optax


def direction(build: Build) -> "optax.GradientTransformation":
    """Lion with the paper's two decays of one momentum."""
    import optax

    return optax.scale_by_lion(build.numbers.b1, build.numbers.b2)


ENTRY = OptimizerEntry(
    name="lion",
    summary="sign of a momentum",
    source="Chen et al. 2023, arXiv:2302.06675, algorithm 2",
    direction=direction,
    state_bytes=bytes_of(1),
    mup=lambda group, options: "adam",
    follows_epsilon=False,
)
