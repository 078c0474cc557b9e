"""The sections of the config that say how: they may change when a run is resumed.

Must not import jax.
"""

from typing import Literal

from gpt_jax.config.fields import AnyPath, NonNegative, Positive, check, section, setting


@section
class ComputeConfig:
    """How the same function is computed: no setting here changes results beyond rounding.

    But for dropout: its masks change with microbatches, and those of model.dropout_attention with
    the attention kernel and attention_block (blockwise draws them a block of queries at a time).
    Either mask is as good; losses differ as between two seeds of dropout.
    """

    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Operands of matrix products; parameters, softmax and loss are float32 in any case. On CPUs
    bfloat16 is for one device, and not for products = plain."""
    products: Literal["auto", "plain", "cpu"] = "auto"
    """Form of matrix products: as written, or as XLA is fast at on a CPU (auto: there)."""
    attention: Literal["auto", "reference", "blockwise", "cudnn", "splash", "ring"] = "auto"
    """Attention kernel; `gpt-jax doctor` and the run log say which one runs."""
    strict: bool = False
    """Refuse to run where compute.attention = auto falls back from the accelerator's fused kernel,
    instead of warning."""
    attention_block: Positive | None = setting(None, unit="queries")
    """Queries in a block of the blockwise and ring kernels; none = 128, on CPU 64 up to 512 tokens,
    in a TPU's ring 512."""
    loss: Literal["auto", "whole", "parts"] = "auto"
    """Logits stored whole, or a part at a time and never stored (auto: on TPU and one CPU)."""
    layers: Literal["auto", "scan", "unroll"] = "auto"
    """Layers as one scanned body (compile time does not grow) or unrolled (faster on CPU)."""
    remat: Literal["none", "full", "dots", "attention", "offload"] = "none"
    """Recomputed in the backward pass: nothing, all, all but matmuls, attention; or all, from
    layer inputs held in host memory (offload)."""
    overlap: Literal["auto", "off"] = "auto"
    """Compiler options that run collectives beside products (auto: on several GPUs or TPUs)."""
    microbatches: Positive = 1
    """Parts of a batch that are computed one after another, their gradients summed."""
    steps_per_dispatch: Positive | None = None
    """Training steps that one call hands to the devices, at most; none = by size and by measuring.
    """


@section
class MeshConfig:
    """Devices along each mesh axis: the same function, sums added in another order.

    But for dropout under sequence > 1: positions lie in zig-zag order, so that a position has
    another mask than with whole sequences. Along the other axes masks stay.
    """

    data: int = setting(-1, unit="devices")
    """Replicas that split the batch; -1 = the devices that the other axes leave."""
    fsdp: Positive = setting(1, unit="devices")
    """Split the batch and, along the width, parameters and optimizer state (ZeRO-3)."""
    tensor: Positive = setting(1, unit="devices")
    """Split heads, MLP hidden units and vocabulary, and between them the sequence (Megatron)."""
    expert: Positive = setting(1, unit="devices")
    """Split the batch and, by whole experts, their parameters: tokens travel to their experts."""
    sequence: Positive = setting(1, unit="devices")
    """Split the sequence: ring attention, for contexts too long for a device."""
    slices: Positive = setting(1, unit="devices")
    """Replicas over slices or nodes that a slower network joins: the outermost axis."""

    @check()
    def _consistent(self) -> "MeshConfig":
        if self.data == 0 or self.data < -1:
            raise ValueError(f"mesh.data = {self.data}; allowed: -1 (the rest) or a positive size")
        return self


@section
class EvaluateConfig:
    """Validation while training, and the sample shown at the end."""

    every_tokens: NonNegative = setting(0, unit="tokens")
    """Training tokens between validations; 0 = only at the end."""
    batch_sequences: Positive | None = setting(None, unit="sequences")
    """Sequences in an evaluation batch; none = train.batch_sequences."""
    max_sequences: Positive | None = setting(None, unit="sequences")
    """Validate on at most this many sequences while training; the end always uses all."""
    all_corpora: bool = False
    """Validate on every corpus of a mixture, not the first alone (has the old one been forgotten?).
    """
    tasks: tuple[str, ...] = ()
    """Tasks of `gpt-jax eval` that are scored at each validation, zero-shot."""
    tasks_data: AnyPath = "data"
    """Directory that holds the tasks' files."""
    tasks_items: Positive | None = 200
    """Score at most this many items of a task, the same ones at each validation; none = all."""
    sample_prompt: str = ""
    """Prompt of the sample printed at the end; empty = a new document."""
    sample_tokens: NonNegative = setting(0, unit="tokens")
    """Tokens to sample at the end; 0 = none."""


@section
class CheckpointConfig:
    """When to save, and what to keep."""

    every_tokens: NonNegative = setting(0, unit="tokens")
    """Training tokens between checkpoints; 0 = only at the end (and when interrupted)."""
    keep_latest: Positive = 2
    """Newest checkpoints to keep."""
    keep_best: NonNegative = 0
    """Checkpoints with the lowest validation loss to keep besides."""
    keep_at_tokens: tuple[Positive, ...] = setting((), unit="tokens")
    """Token counts at which a checkpoint is saved and never deleted (a trunk's branch points)."""


@section
class TrackingConfig:
    """Who is told of the metrics; metrics.jsonl always holds every step."""

    wandb: bool = False
    """Mirror to Weights & Biases."""
    wandb_mode: Literal["offline", "online"] = "offline"
    """offline: written next to the run, to be synced later."""
    wandb_project: str = "gpt_jax"
    """Project in Weights & Biases."""
    wandb_group: str = ""
    """Group in Weights & Biases (a sweep's runs share one)."""
    tensorboard: bool = False
    """Mirror to TensorBoard event files."""
    print_every_tokens: NonNegative = setting(0, unit="tokens")
    """Tokens between printed lines where there is no terminal; 0 = about 20 lines in all."""
