"""A change of attention scores of your own: a learned penalty by the logarithm of distance.

    gpt-jax train quickstart --extension configs/extensions/my_scores.py \
        --model.position none --model.scores kerple_log --model.options.kerple_log.start 1.0
"""

import jax
import jax.numpy as jnp

from gpt_jax.config.fields import section
from gpt_jax.models.entry import SCORES, Change, Parameter, ScoreEntry


@section
class Options:
    """Settings of its own."""

    start: float = 0.0
    """Both parameters at initialisation; softplus makes them positive."""


def parameters(model, options):
    """Two numbers a head; `heads` is the logical name by which a mesh splits them."""
    number = Parameter((model.n_heads,), ("heads",), mean=options.start)
    return {"strength": number, "scale": number}


def change(model, options, parameters):
    """What it does to scores [B, N, T, S], given the distances [B or 1, T, S] of their keys."""

    def scores(scores_BNTS, distance_BTS):
        r1, r2 = (
            jax.nn.softplus(parameters[name])[:, None, None] for name in ("strength", "scale")
        )
        distance_BNTS = jnp.maximum(distance_BTS, 0)[:, None]  # later keys are masked anyway
        return scores_BNTS - r1 * jnp.log1p(r2 * distance_BNTS)

    return Change(scores=scores)


SCORES.register(
    ScoreEntry(
        name="kerple_log",
        summary="score - r1 log(1 + r2 distance), learned a head",
        source="Chi et al. 2022, arXiv:2205.09921, section 3.2",
        options=Options,
        parameters=parameters,
        change=change,
        kernels=frozenset(),  # reference, blockwise and cached decoding alone
    )
)
