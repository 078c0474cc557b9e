"""A closed-form estimate of the memory that training needs. Must not import jax.

The state is exact (`flops.state_bytes`). Activations are counted in values that the backward pass
keeps for a token in a layer, as XLA's CPU compiler reported them for models of 4 and 8 layers of
width 128; what a compiler really allocates differs by its fusions and schedule, so the sum is good
to about a third. Of a mesh, the estimate assumes that everything splits evenly.
"""

import dataclasses

from gpt_jax import flops
from gpt_jax.config import Config, ModelConfig

Backend = str
"""cpu, gpu or tpu."""

RESIDUAL_COPIES = 8
"""Of the width: inputs and outputs of norms, sub-blocks' outputs, and residual sums."""
SCORE_COPIES = 3
"""Of attention scores, where a kernel keeps them: scores, probabilities, and their gradient."""
LOGIT_COPIES = 2
"""Of float32 logits: themselves and their gradient."""
SCANNED = 1.3
"""Scanned layers stack what unrolled ones could leave in place."""
UNROLL_UP_TO = 24
"""Layers that `compute.layers = auto` unrolls on CPU (gpt_jax.models.execution has the same)."""


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on each device."""

    state: float
    """Parameters, gradients, optimizer state, moving average."""
    activations: float
    """Estimated; logits included."""

    @property
    def total(self) -> float:
        return self.state + self.activations


def estimate(config: Config, backend: Backend, n_devices: int = 1) -> Memory:
    """Memory of one device among n_devices that the config's mesh fits."""
    state = flops.state_bytes(config.model, config.optimizer).total
    model, train = config.model, config.train
    tokens = train.batch_sequences * model.seq_len / config.compute.microbatches
    value_bytes = 4 if backend == "cpu" or config.compute.dtype == "float32" else 2
    kept = _values_per_token(config, backend) * value_bytes
    logits = LOGIT_COPIES * model.padded_vocab_size * 4
    counts, mesh = flops.count_parameters(model), config.mesh
    experts = counts.n_params_experts / counts.n_params
    share = (1 - experts + experts / mesh.expert) / (mesh.fsdp * mesh.tensor)
    return Memory(state * share, tokens * (kept + logits) / n_devices)


def _values_per_token(config: Config, backend: Backend) -> float:
    """Activations kept for the backward pass, over all layers."""
    model, compute = config.model, config.compute
    products = _product_outputs(model)
    scores = _scores(config, backend)
    mlp_copies = 4 if model.gated else 2 if model.activation.startswith("relu") else 3
    rows = flops.mlp_rows_per_token(model)
    hidden = (mlp_copies - (2 if model.gated else 1)) * model.d_ff * rows
    attention = model.n_heads * model.d_head
    layer = RESIDUAL_COPIES * model.d_model + products + attention + hidden + scores
    # XLA's CPU compiler was seen to undo rematerialization: the memory is the same without.
    remat = "none" if backend == "cpu" else compute.remat
    if remat == "full":
        return model.n_layers * model.d_model + layer
    if remat == "offload":  # streams wait in the host's memory
        return layer
    if remat == "dots":
        return model.n_layers * (model.d_model + products) + layer
    if remat == "attention":
        return model.n_layers * (layer - scores) + scores
    unrolled = compute.layers == "unroll" or (
        compute.layers == "auto" and backend == "cpu" and model.n_layers <= UNROLL_UP_TO
    )
    return model.n_layers * layer * (1 if unrolled or backend != "cpu" else SCANNED)


def _product_outputs(model: ModelConfig) -> float:
    """Queries, keys, values and hidden units of a layer, for a token."""
    heads = (model.n_heads + 2 * model.kv_heads) * model.d_head
    return heads + (2 if model.gated else 1) * model.d_ff * flops.mlp_rows_per_token(model)


def _scores(config: Config, backend: Backend) -> float:
    """Attention scores of a layer, for a token: all, a few blocks, or in a fused kernel none."""
    model, compute = config.model, config.compute
    if compute.attention in ("cudnn", "splash") or (
        compute.attention == "auto" and backend != "cpu"
    ):
        return 0
    seen = model.seq_len
    if compute.attention != "reference":
        seen = min(seen, 2 * (compute.attention_block or 128))
    return SCORE_COPIES * model.n_heads * seen
