"""Adam with the classic L2 term in the gradient. Must not import jax at its top."""

from gpt_jax.optim.entries.adamw import direction
from gpt_jax.optim.entry import OptimizerEntry, bytes_of

ENTRY = OptimizerEntry(
    name="adam",
    summary="Adam, weight decay as L2 in the gradient",
    source="Kingma and Ba 2015, arXiv:1412.6980",
    direction=direction,
    state_bytes=bytes_of(2),
    mup=lambda group, options: "adam",
    decay_in_gradient=True,
)
