"""Which attention kernel runs, and why: decided from the config and the backend alone."""

from typing import NamedTuple

from gpt_jax.config import ComputeConfig, ModelConfig
from gpt_jax.cost.blocks import block_length
from gpt_jax.models.entry import Form, score_changes

FORMS: tuple[Form, ...] = ("ring", "splash", "cudnn")
"""Kernels that cannot compute every change of attention scores."""


class Kernel(NamedTuple):
    """Attention kernel that runs, and why."""

    name: str
    reason: str
    fell_back: bool = False
    """Whether the fused kernel of this accelerator cannot compute the model."""

    @property
    def warning(self) -> str:
        """For the user, if it fell back; else empty."""
        if not self.fell_back:
            return ""
        return (
            f"WARNING: attention runs as {self.name}, slower than it could be: {self.reason} "
            f"(--compute.strict true refuses this)"
        )


def choose_kernel(
    model: ModelConfig, compute: ComputeConfig, backend: str, sequence_parts: int = 1
) -> Kernel:
    """The attention kernel that runs on a backend (cpu, gpu, tpu) for training and scoring.

    sequence_parts: devices that split the sequence (`mesh.sequence`).

    Raises ValueError if a kernel is requested by name that cannot compute this model there, or if
    `auto` would fall back from an accelerator's own under `compute.strict`.
    """
    obstacles = {
        "reference": "",
        "blockwise": "",
        "cudnn": _cudnn_obstacle(model, compute, backend),
        "splash": _splash_obstacle(model, backend),
        "ring": _ring_obstacle(model, sequence_parts),
    }
    for name in FORMS:
        obstacles[name] = obstacles[name] or _change_obstacle(model, name)
    if sequence_parts > 1:
        split = f"the sequence is split over {sequence_parts} devices (mesh.sequence)"
        obstacles |= dict.fromkeys(("cudnn", "splash"), split)
    if compute.attention != "auto":
        if obstacles[compute.attention]:
            allowed = ", ".join(name for name, why in obstacles.items() if not why)
            raise ValueError(
                f"compute.attention = {compute.attention} cannot run: "
                f"{obstacles[compute.attention]}; allowed here: auto, {allowed}"
            )
        return Kernel(compute.attention, "requested")
    if sequence_parts > 1:
        if obstacles["ring"]:
            raise ValueError(f"mesh.sequence = {sequence_parts} cannot run: {obstacles['ring']}")
        return Kernel("ring", f"the sequence is split over {sequence_parts} devices")
    for name, home in (("splash", "tpu"), ("cudnn", "gpu")):
        if backend == home and not obstacles[name]:
            return Kernel(name, f"the fused kernel for {home}")
        if backend == home:
            return _fall_back(name, obstacles[name], compute.strict)
    block = block_length(compute.attention_block, model.seq_len, backend)
    plain = _change_obstacle(model, "cpu") if backend == "cpu" else ""
    form = f"; in its plain form, as for the CPU's {plain}" if plain else ""
    if model.seq_len <= block:
        return Kernel("reference", f"one block of at most {block} tokens{form}")
    return Kernel("blockwise", f"blocks of {block} tokens on {backend}{form}")


def _fall_back(name: str, obstacle: str, strict: bool) -> Kernel:
    if strict:
        raise ValueError(
            f"compute.strict: {name} attention cannot run: {obstacle}; change what it names, or "
            f"run the slower blockwise kernel with compute.attention = blockwise or compute.strict "
            f"= false"
        )
    return Kernel("blockwise", f"{name} cannot run: {obstacle}", fell_back=True)


def _cudnn_obstacle(model: ModelConfig, compute: ComputeConfig, backend: str) -> str:
    if backend != "gpu":
        return f"cuDNN needs a GPU, this is {backend}"
    if compute.dtype == "float32":
        return "cuDNN's flash attention needs compute.dtype = bfloat16"
    if model.d_head % 8 or model.d_head > 128:
        return f"its head size must be a multiple of 8 up to 128, not {model.d_head}"
    return _fused_obstacle(model)


def _splash_obstacle(model: ModelConfig, backend: str) -> str:
    if backend != "tpu":
        return f"splash attention needs a TPU, this is {backend}"
    if model.seq_len % 128:
        return f"its sequence length must be a multiple of 128, not {model.seq_len}"
    return _fused_obstacle(model)


def _ring_obstacle(model: ModelConfig, sequence_parts: int) -> str:
    if sequence_parts == 1:
        return "ring attention needs a split sequence (mesh.sequence > 1)"
    if model.dropout_attention:
        return "ring attention has no attention dropout (model.dropout_attention)"
    return ""


def _fused_obstacle(model: ModelConfig) -> str:
    if model.dropout_attention:
        return "it has no attention dropout (model.dropout_attention)"
    return ""


def _change_obstacle(model: ModelConfig, form: Form) -> str:
    """The first of the model's changes of attention scores that a form cannot compute."""
    for entry, _ in score_changes(model):
        if form not in entry.kernels:
            return f"it has no {entry.title or entry.name}"
    return ""
