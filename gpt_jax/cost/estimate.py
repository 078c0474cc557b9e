"""Closed-form estimate of what training a config on a topology costs. Must not import jax.

Roofline: a step takes at least as long as its products at the chip's peak, its traffic to memory at
the chip's bandwidth, and what it sends along each mesh axis at that axis's share of the
interconnect. If all three overlap perfectly it takes the longest of them: the bound. What steps
took on real chips is a factor times compute and memory in turn (`gpt_jax.cost.calibration`).
"""

import dataclasses

from gpt_jax.config import Config, ModelConfig
from gpt_jax.config.mesh_sizes import MeshSizes
from gpt_jax.config.timetable import make_timetable
from gpt_jax.cost import flops
from gpt_jax.cost.memory import (
    MEMORY_SHARE,
    Memory,
    estimate,
    layer_kernels,
    rows_per_token,
    value_bytes,
)
from gpt_jax.cost.mesh import mesh_sizes
from gpt_jax.cost.topology import Topology
from gpt_jax.cost.traffic import Traffic, traffic

FUSED_BACKWARD = 3.5
"""Products of a fused attention kernel's backward passes over those of its forward pass: splash
recomputes the scores for the gradients of queries, and again for those of keys and values."""
RING_BACKWARD = 2.5
"""The same of ring attention (gpt_jax.models.ring), which recomputes them once."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """A config on a topology."""

    config: Config
    topology: Topology
    mesh: MeshSizes
    memory: Memory
    n_tokens: int
    n_steps: int
    step_tokens: int
    """Tokens in one full batch, after any batch-size ramp."""
    executed_flops: float
    """Matmul FLOPs that one device executes in a step, rematerialization included."""
    model_flops: float
    """FLOPs of a step per device in PaLM's convention: the numerator of MFU."""
    compute_seconds: float
    memory_seconds: float
    traffic: tuple[Traffic, ...]
    price: float | None
    """Price of one chip-hour; None if not given."""

    @property
    def network_seconds(self) -> float:
        return sum(t.seconds for t in self.traffic)

    @property
    def bound_seconds(self) -> float:
        """Lower bound of a step's time: compute, memory and interconnect overlap perfectly."""
        return max(self.compute_seconds, self.memory_seconds, self.network_seconds)

    @property
    def in_turn_seconds(self) -> float:
        """Seconds if compute and memory take turns, and what is sent runs beside both: the closed
        form that measured steps are compared with (`gpt_jax.cost.calibration`)."""
        return max(self.compute_seconds + self.memory_seconds, self.network_seconds)

    @property
    def bound_by(self) -> str:
        times = {
            "compute": self.compute_seconds,
            "memory": self.memory_seconds,
            "interconnect": self.network_seconds,
        }
        return max(times, key=lambda name: times[name])

    def mfu(self, step_seconds: float, convention: flops.Convention = "palm") -> float:
        """Model FLOPs utilization of a step that takes so long; a convention that leaves out what
        the step computes gives a lower one."""
        model = self.config.model
        work = self.config.train.batch_sequences * flops.training_flops_per_sequence(
            model, convention
        )
        peak = self.topology.chip.peak(_dtype(self.config))
        return work / self.mesh.n_devices / (step_seconds * peak)

    def tokens_per_second(self, step_seconds: float) -> float:
        return self.step_tokens / step_seconds

    def days(self, step_seconds: float) -> float:
        """Days that the whole run takes, by its tokens."""
        return self.n_tokens / self.tokens_per_second(step_seconds) / 86_400

    def chip_hours(self, step_seconds: float) -> float:
        return self.days(step_seconds) * 24 * self.topology.n_chips

    def cost(self, step_seconds: float) -> float | None:
        """Price of the whole run; None if a chip-hour has none."""
        return None if self.price is None else self.price * self.chip_hours(step_seconds)

    @property
    def available_bytes(self) -> float:
        return MEMORY_SHARE * self.topology.chip.memory_bytes

    @property
    def fits(self) -> bool:
        return self.memory.total <= self.available_bytes


def _dtype(config: Config) -> str:
    return "bfloat16" if config.compute.dtype == "auto" else config.compute.dtype


def make_plan(config: Config, topology: Topology, price: float | None = None) -> Plan:
    """The plan of a config; ValueError if its mesh or batch does not fit the topology."""
    mesh = mesh_sizes(config, topology)
    timetable = make_timetable(config)
    sequences = config.train.batch_sequences
    executed = sequences * executed_flops_per_sequence(config) / mesh.n_devices
    model = sequences * flops.training_flops_per_sequence(config.model, "palm") / mesh.n_devices
    return Plan(
        config=config,
        topology=topology,
        mesh=mesh,
        memory=estimate(config, mesh, topology.chip.backend),
        n_tokens=timetable.n_tokens,
        n_steps=timetable.n_steps,
        step_tokens=sequences * config.model.seq_len,
        executed_flops=executed,
        model_flops=model,
        compute_seconds=executed / topology.chip.peak(_dtype(config)),
        memory_seconds=memory_traffic(config, mesh) / topology.chip.bandwidth,
        traffic=traffic(config, mesh, topology),
        price=price,
    )


def executed_flops_per_sequence(config: Config) -> float:
    """FLOPs of the products of a step for one sequence, with those that remat repeats.

    Attention as a fused kernel executes it: blocks that the mask hides are left out.
    """
    return weight_flops_per_sequence(config) + attention_flops_per_sequence(config)


def weight_flops_per_sequence(config: Config) -> float:
    """The part of `executed_flops_per_sequence` that are products with weights."""
    model = config.model
    head = 2 * model.seq_len * model.padded_vocab_size * model.d_model
    scores = 4 * model.n_heads * model.d_head * flops.squares(model)
    layers = flops.forward_flops_per_sequence(model, "exact") - head - scores
    experts = 0.0  # of the forward pass: the policy `dots` does not keep their products
    if model.n_experts is not None:
        a_row = (3 if model.gated else 2) * 2 * model.d_ff * model.d_model
        experts = a_row * flops.mlp_rows_per_token(model) * model.seq_len * model.n_layers
    repeated = 0.0
    if config.compute.remat in ("full", "offload"):
        repeated = layers
        if model.n_experts is None:
            # A group's last product is its output: the backward pass does not ask for it.
            last = 2 * model.seq_len * model.d_ff * model.d_model
            repeated -= last * model.n_layers / len(model.layer_pattern)
    elif config.compute.remat == "dots":
        repeated = experts
    return 3 * (layers + head) + repeated


def attention_flops_per_sequence(config: Config) -> float:
    """The other part: scores, values and their gradients, in all passes."""
    model, ring = config.model, config.mesh.sequence > 1
    pairs = _ring_pairs(model, config.mesh.sequence) if ring else flops.visible_pairs(model)
    passes = 1 + (RING_BACKWARD if ring else FUSED_BACKWARD) + (config.compute.remat != "none")
    return passes * 4 * model.n_heads * model.d_head * pairs


def _ring_pairs(model: ModelConfig, n_parts: int) -> int:
    """Pairs of a query and a key that ring attention multiplies, of one sequence in all layers.

    Whole pairs of its 2 n_parts chunks: those of which some key is seen.
    """
    chunk = model.seq_len // (2 * n_parts)
    repeats = model.n_layers // len(model.layer_pattern)
    n_pairs = 0
    for kind in model.layer_pattern:
        for distance in range(2 * n_parts):
            seen = (distance - 1) * chunk + 1 < (model.window_of(kind) or model.seq_len)
            n_pairs += (2 * n_parts - distance) * seen
    return repeats * n_pairs * chunk**2


def memory_traffic(config: Config, mesh: MeshSizes) -> float:
    """Bytes that a device reads and writes in a step: an estimate.

    Weights for each pass of each microbatch; the update's reads and writes of parameters, moments
    and gradients; and of each activation a write and a read in each pass that makes or uses it.
    """
    model, compute = config.model, config.compute
    held = estimate(config, mesh)  # gradients are as large as parameters
    update = 4 * held.params + 2 * (held.optimizer + held.ema)
    passes = 4 if compute.remat in ("full", "offload") else 3
    kernels = layer_kernels(model, mesh) * model.n_layers
    weights = compute.microbatches * (passes * value_bytes(config) + 4) * kernels
    tokens = config.train.batch_sequences * model.seq_len / mesh.tokens
    width = (model.n_heads + 2 * model.kv_heads) * model.d_head
    rows = rows_per_token(model, mesh)
    hidden = (3 if model.gated else 2) * rows * model.d_ff
    if model.n_experts is not None:  # rows are copied to their places and back
        hidden += 2 * rows * model.d_model
    values = model.n_layers * (width + hidden + 8 * model.d_model) / mesh.tensor
    return update + weights + tokens * values * value_bytes(config) * 2 * passes
