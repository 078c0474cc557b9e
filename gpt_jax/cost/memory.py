"""Memory of a training step on one device, by closed form: the only estimator. Must not import jax.

The state is exact. On an accelerator, what the backward pass keeps follows from the
rematerialization policy and the layout: the residual stream is split along tensor by sequence,
heads and hidden units by tensor. The working memory of the layers at hand is counted in the arrays
that XLA's TPU compiler was seen to hold at a time; experiments/plan/README.md compares the sum with
it for each GPT-3. On a CPU activations are counted in values that XLA's CPU compiler reported for
models of 4 and 8 layers of width 128, good to about a third (`_cpu_values_per_token`).
"""

import dataclasses
import math

from gpt_jax.config import Config, ModelConfig
from gpt_jax.config.entries import ACTIVATIONS
from gpt_jax.config.mesh_sizes import MeshSizes
from gpt_jax.cost import flops
from gpt_jax.cost.blocks import (
    LOGIT_BYTES,
    RING_BLOCK,
    UNROLL_UP_TO,
    block_length,
)
from gpt_jax.cost.state import state_bytes

TPU_LANES = 128
"""A TPU stores the last dim of an array in whole tiles of this: smaller heads take more."""
MEMORY_SHARE = 0.92
"""Share of a chip's memory that a program may be planned to fill; gaps take the rest."""
JAX_GPU_SHARE = 0.75
"""Share of a GPU's memory that jax takes unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise."""
RESIDUAL_COPIES = 8
"""CPU: arrays of the width that a layer keeps: inputs and outputs of norms, sub-blocks' outputs,
and residual sums."""
SCORE_COPIES = 3
"""CPU: arrays of attention scores that are kept: scores, probabilities, and their gradient."""
LOGIT_COPIES = 2
"""CPU: arrays of float32 logits: themselves and their gradient."""
SCANNED = 1.3
"""CPU: what scanned layers take over unrolled ones, which leave values in place."""


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on each device."""

    params: float
    optimizer: float
    ema: float
    gradients: float
    """Gradients of all layers, float32, summed over microbatches."""
    kept: float
    """Activations that wait for the backward pass."""
    working: float
    """Activations, gathered weights and gradients of the current layers, or of the loss."""

    @property
    def state(self) -> float:
        """Bytes that stay in memory between steps: the arguments of the compiled program."""
        return self.params + self.optimizer + self.ema

    @property
    def temporaries(self) -> float:
        return self.gradients + self.kept + self.working

    @property
    def total(self) -> float:
        return self.state + self.temporaries


def estimate(config: Config, mesh: MeshSizes, backend: str = "tpu") -> Memory:
    """Memory of a step on one of the mesh's devices; backend: cpu, gpu or tpu."""
    shared, experts = (
        state_bytes(config.model, config.optimizer, experts=e) for e in (False, True)
    )

    def split(part: str) -> float:
        whole = getattr(shared, part) + getattr(experts, part) / mesh.expert
        return whole / mesh.params

    microbatch = config.train.batch_sequences / config.compute.microbatches
    tokens = microbatch * config.model.seq_len / mesh.tokens
    activations = _cpu_activations if backend == "cpu" else _activations
    kept, working = activations(config, mesh, tokens, backend)
    gradients = split("gradients")
    if config.compute.microbatches > 1 and backend != "cpu":
        gradients *= 2  # the sum so far, and the next part's
    return Memory(
        params=split("params"),
        optimizer=split("optimizer"),
        ema=split("ema"),
        gradients=gradients,
        kept=kept,
        working=working,
    )


def _activations(
    config: Config, mesh: MeshSizes, tokens: float, backend: str
) -> tuple[float, float]:
    """(kept, working) bytes on an accelerator."""
    layers = _Layer(config, mesh, backend)
    n_groups = config.model.n_layers // len(config.model.layer_pattern)
    at_hand = tokens * layers.working() + layers.weights()
    return tokens * n_groups * layers.kept(), max(at_hand, _logits(config, mesh, tokens, backend))


def _cpu_activations(
    config: Config, mesh: MeshSizes, tokens: float, backend: str
) -> tuple[float, float]:
    """(kept, working) bytes on a CPU, all in float32; a tensor axis splits them alike."""
    kept = tokens * _cpu_values_per_token(config) * 4 / mesh.tensor
    logits = tokens * LOGIT_COPIES * config.model.padded_vocab_size * 4 / mesh.tensor
    return kept, logits


def value_bytes(config: Config) -> int:
    """Bytes of an activation, or of an operand of a product, on an accelerator."""
    return 4 if config.compute.dtype == "float32" else 2


class _Layer:
    """Bytes of a group of layers (one of each of `layer_pattern`), for a token on one device."""

    def __init__(self, config: Config, mesh: MeshSizes, backend: str):
        model = config.model
        self.config, self.model, self.mesh = config, model, mesh
        self.value = value_bytes(config)
        split = mesh.tensor if model.seq_len % (mesh.tensor * mesh.sequence) == 0 else 1
        self.group = len(model.layer_pattern)
        self.stream = self.value * model.d_model / split
        self.whole = self.value * model.d_model
        kv_split = mesh.tensor if model.kv_heads > 1 else 1
        lanes = TPU_LANES if backend == "tpu" else 1
        head = -(-model.d_head // lanes) * lanes
        self.queries = self.value * model.n_heads * head / mesh.tensor
        self.keys = 2 * self.value * model.kv_heads * head / kv_split
        self.hidden = self.value * model.d_ff / mesh.tensor
        self.into = 2 if model.gated else 1
        self.rows = rows_per_token(model, mesh)

    def products(self) -> float:
        """Results of products with weights: queries, keys, values, hidden units, both outputs.

        Those of experts have a dim of experts: the policy `dots` does not keep them.
        """
        attention = self.queries + self.keys + self.stream
        if self.model.n_experts is not None:
            return attention
        return attention + self.into * self.hidden + self.stream

    def everything(self) -> float:
        """Values a layer's backward pass reads: matmul outputs and inputs, attention's results."""
        inputs = 2 * (self.whole if self.mesh.tensor > 1 else self.stream)
        activated = self.rows * self.hidden
        return self.products() + inputs + self.queries + self.experts() + activated

    def recomputed(self) -> float:
        """Part of `everything` that is in memory at once while a layer is recomputed.

        Norms and nonlinearities are computed once more inside the products that take them, unless
        their results are gathered (along tensor) or go to experts.
        """
        inputs = 2 * self.whole if self.mesh.tensor > 1 else 0.0
        activated = self.rows * self.hidden if self.model.n_experts is not None else 0.0
        products = 0.0 if self.config.compute.remat == "dots" else self.products()
        return products + inputs + self.queries + self.experts() + activated

    def experts(self) -> float:
        """Values of experts: their input rows, hidden units, and the outputs that are added."""
        if self.model.n_experts is None:
            return 0.0
        rows = self.rows * (self.whole + self.into * self.hidden)
        return rows + self.model.n_experts_per_token * self.whole

    def kept(self) -> float:
        """Between the passes, of a group."""
        match self.config.compute.remat:
            case "full":
                return self.stream
            case "offload":  # in the host's memory
                return 0.0
            case "dots":  # the last product of a group is in the next one's input
                input_ = 0.0 if self.model.n_experts is None else self.stream
                return input_ + self.group * self.products()
        # Also of "attention": the scores that it recomputes, fused kernels never keep.
        return self.group * self.everything()

    def working(self) -> float:
        """While a group is at hand: its activations, and the gradients flowing through it."""
        recomputed = self.group * self.recomputed()
        if self.config.compute.remat not in ("full", "dots", "offload"):
            recomputed = 0.0
        flowing = self.rows * self.hidden
        if self.mesh.tensor > 1:
            flowing += self.whole
        if self.model.n_experts is not None:
            flowing += self.rows * self.whole
        return recomputed + flowing + (self.ring() if self.mesh.sequence > 1 else 0.0)

    def ring(self) -> float:
        """Values of ring attention's backward pass (gpt_jax.models.ring).

        Float32 gradients of outputs and queries, and of keys and values, those that come and those
        that go; the keys and values themselves; scores of a block of queries and their gradient.
        """
        widened = 4 / self.value
        chunk = self.model.seq_len // (2 * self.mesh.sequence)
        block = min(self.config.compute.attention_block or RING_BLOCK, chunk)
        scores = 2 * 4 * (self.model.n_heads / self.mesh.tensor) * block / 2
        return widened * 2 * (self.queries + self.keys) + 2 * self.keys + scores

    def weights(self) -> float:
        """Gathered weights of a group, and their float32 gradients before they are scattered.

        Between slices they are also the result of a sum.
        """
        if self.mesh.fsdp == 1:
            return 0.0
        gradients = 4 * (2 if self.mesh.slices > 1 else 1)
        return self.group * layer_kernels(self.model, self.mesh) * (self.value + gradients)


def layer_kernels(model: ModelConfig, mesh: MeshSizes) -> float:
    """Values of one layer's kernels on a device when fsdp has gathered them."""
    values = 0.0
    for path, shape in flops.parameter_shapes(model).items():
        if path.startswith("blocks/") and path.endswith("/kernel"):
            values += math.prod(shape) / (mesh.expert if "/experts/" in path else 1)
    return values / mesh.tensor / model.n_layers


def rows_per_token(model: ModelConfig, mesh: MeshSizes) -> float:
    """Rows of an MLP for which a device has places, for each of its tokens.

    Experts without a capacity may all be asked for by every token of the fellows along the expert
    axis (gpt_jax.models.experts).
    """
    if model.n_experts is None or model.expert_capacity is not None:
        return flops.mlp_rows_per_token(model)
    return mesh.expert * min(model.n_experts_per_token, model.n_experts // mesh.expert)


def _logits(config: Config, mesh: MeshSizes, tokens: float, backend: str) -> float:
    """Logits of a part of the tokens or of all, with gradient; the table of output embeddings."""
    rows = config.model.padded_vocab_size / mesh.tensor
    logits = 4 * tokens * rows
    table = 4 * rows * config.model.d_model
    in_parts = config.compute.loss == "parts" or (config.compute.loss, backend) == ("auto", "tpu")
    if not in_parts:  # their gradient in the type of the matmuls that read it
        return (1 + value_bytes(config) / 4) * logits + 2 * table
    # The table as it is multiplied and its gradient; where several devices add up, the sum.
    tables = 2.5 if mesh.tokens > 1 else 1.5
    return 2 * min(logits, LOGIT_BYTES) + tables * table + tokens * 2 * config.model.d_model


def _cpu_values_per_token(config: Config) -> float:
    """Activations that a CPU keeps for the backward pass, over all layers.

    XLA's CPU compiler was seen to undo rematerialization: the memory is the same without.
    """
    model, compute = config.model, config.compute
    heads = (model.n_heads + 2 * model.kv_heads) * model.d_head
    rows = flops.mlp_rows_per_token(model)
    products = heads + (2 if model.gated else 1) * model.d_ff * rows
    mlp_copies = ACTIVATIONS.find(model.activation).cpu_copies
    hidden = (mlp_copies - (2 if model.gated else 1)) * model.d_ff * rows
    seen = model.seq_len
    if compute.attention != "reference":
        block = block_length(compute.attention_block, model.seq_len, "tpu")
        seen = min(seen, 2 * block)
    attention = model.n_heads * model.d_head + SCORE_COPIES * model.n_heads * seen
    copies = RESIDUAL_COPIES + (2 if model.norm_position == "sandwich" else 0)
    layer = copies * model.d_model + products + attention + hidden
    unrolled = compute.layers == "unroll" or (
        compute.layers == "auto" and model.n_layers <= UNROLL_UP_TO
    )
    return model.n_layers * layer * (1 if unrolled else SCANNED)
