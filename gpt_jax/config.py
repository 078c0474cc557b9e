"""The experiment configuration: what may be set, its meaning, unit, default and allowed values.

A config is frozen data. `model`, `data`, `task`, `adapt`, `distill`, `train`, `optimizer` and
`schedule` say *what* is computed and make up the fingerprint; `compute`, `mesh`, `evaluate`,
`checkpoint` and `tracking` say *how* and may change when a run is resumed. Durations are in tokens,
so that sweeps over the batch size stay comparable. Loading, overriding and saving live in
`gpt_jax.overrides`.

Must not import jax.
"""

import math
from typing import Literal

from pydantic import Field, ValidationInfo

from gpt_jax import paths
from gpt_jax.config_adapt import AdaptConfig
from gpt_jax.config_distill import DistillConfig
from gpt_jax.config_fields import (
    DRAFT,
    Fraction,
    LocalPath,
    NonNegative,
    NonNegativeFloat,
    Positive,
    PositiveFloat,
    Probability,
    check,
    section,
)
from gpt_jax.config_how import (
    CheckpointConfig,
    ComputeConfig,
    EvaluateConfig,
    MeshConfig,
    TrackingConfig,
)
from gpt_jax.config_optimizer import OptimizerConfig, ScheduleConfig
from gpt_jax.config_task import TaskConfig


@section
class ModelConfig:
    """The architecture: GPT-1, GPT-2, GPT-3 and what a scaling study varies around them."""

    vocab_size: Positive = 50257
    """Token ids the model knows; at least the tokenizer's."""
    vocab_multiple: Positive = 1
    """Embedding rows are padded up to a multiple of this; padded ids get probability zero."""
    seq_len: Positive = 1024
    """Context length T, in tokens."""
    n_layers: Positive = 12
    """Transformer blocks L."""
    d_model: Positive = 768
    """Width D of the residual stream."""
    n_heads: Positive = 12
    """Query heads N."""
    n_kv_heads: Positive | None = None
    """Key and value heads K: none = n_heads (multi-head), 1 = multi-query, between = grouped."""
    head_size: Positive | None = None
    """Size H of a head; none = d_model / n_heads."""
    ffn_size: Positive | None = None
    """Hidden size F of the MLP, or of each of its experts; none = 4 d_model."""
    n_experts: Positive | None = None
    """Experts E of every MLP (mixture of experts); none = one MLP for all tokens."""
    n_experts_per_token: Positive = 2
    """Experts that each token is sent to: the ones with the highest router probabilities."""
    expert_capacity_factor: PositiveFloat | None = None
    """Tokens that an expert takes of a sequence, over an even share; none = all (dropless)."""
    norm: Literal["layernorm", "rmsnorm"] = "layernorm"
    """Normalisation layer."""
    norm_position: Literal["pre", "post"] = "pre"
    """pre: before each sub-block (GPT-2); post: after each residual addition (GPT-1)."""
    norm_epsilon: PositiveFloat = 1e-5
    """Added to the variance."""
    final_norm: bool = True
    """Normalise after the last block (GPT-2 and GPT-3; not GPT-1)."""
    bias: bool = True
    """Biases in projections and norms."""
    activation: Literal["gelu", "gelu_tanh", "relu", "relu_squared", "swiglu", "geglu"] = (
        "gelu_tanh"
    )
    """MLP non-linearity; gelu is the exact form; swiglu and geglu add a gate projection."""
    position: Literal["learned", "sinusoidal", "rotary", "alibi", "none"] = "learned"
    """Where position comes from."""
    rotary_base: PositiveFloat = 10_000.0
    """Base of the rotary wavelengths."""
    layer_pattern: tuple[Literal["dense", "banded"], ...] = ("dense",)
    """Attention per layer, repeated over depth; GPT-3 alternates dense,banded."""
    window: Positive | None = None
    """Tokens a banded layer sees, itself included (sliding window)."""
    parallel_block: bool = False
    """Attention and MLP read the same normed input and are added together (GPT-J, PaLM)."""
    qk_norm: bool = False
    """Normalise queries and keys per head."""
    tied_embeddings: bool = True
    """The output projection is the token embedding."""
    logit_soft_cap: PositiveFloat | None = None
    """logits -> cap tanh(logits / cap)."""
    dropout_embedding: Probability = 0.0
    """Dropout on the sum of embeddings."""
    dropout_residual: Probability = 0.0
    """Dropout on each sub-block's output."""
    dropout_attention: Probability = 0.0
    """Dropout on attention probabilities."""
    init_std: PositiveFloat = 0.02
    """Standard deviation of the weights and embeddings at initialisation."""
    init_matrices: Literal["fixed", "fan_in"] = "fixed"
    """Projections start with init_std (GPT), or with 1 / sqrt(inputs)."""
    init_residual: Literal["scaled", "plain", "zero"] = "scaled"
    """Projections into the residual stream: divided by sqrt(2 L) (GPT-2), as the rest, or zero."""
    parametrization: Literal["standard", "mup", "completep"] = "standard"
    """mup: hyperparameters of a base width hold at every width; completep: and at every depth."""
    base_d_model: Positive | None = None
    """Width at which mup and completep are the standard parametrization: where one tunes."""
    base_n_layers: Positive | None = None
    """Depth at which completep is the standard parametrization."""
    base_head_size: Positive | None = None
    """mup, completep: head size at the base width; none = head_size (heads grow in number)."""

    @check()
    def _consistent(self) -> "ModelConfig":
        self._check_parametrization()
        if self.head_size is None and self.d_model % self.n_heads:
            raise ValueError(
                f"model.d_model = {self.d_model} is not divisible by model.n_heads = "
                f"{self.n_heads}; set model.head_size or change one of them"
            )
        if self.n_heads % self.kv_heads:
            raise ValueError(
                f"model.n_heads = {self.n_heads} is not divisible by model.n_kv_heads = "
                f"{self.n_kv_heads}"
            )
        if not self.layer_pattern or self.n_layers % len(self.layer_pattern):
            raise ValueError(
                f"model.n_layers = {self.n_layers} is not a multiple of the length of "
                f"model.layer_pattern = {','.join(self.layer_pattern) or '()'}"
            )
        if "banded" in self.layer_pattern and self.window is None:
            raise ValueError("model.layer_pattern has banded layers; set model.window (tokens)")
        if self.position == "rotary" and self.d_head % 2:
            raise ValueError(f"rotary positions need an even head size, got {self.d_head}")
        if self.position == "sinusoidal" and self.d_model % 2:
            raise ValueError(f"sinusoidal positions need an even d_model, got {self.d_model}")
        if self.parallel_block and self.norm_position == "post":
            raise ValueError("model.parallel_block needs model.norm_position = pre")
        self._check_experts()
        return self

    def _check_experts(self) -> None:
        chosen, factor = self.n_experts_per_token, self.expert_capacity_factor
        if self.n_experts is not None and chosen > self.n_experts:
            raise ValueError(
                f"model.n_experts_per_token = {chosen} exceeds model.n_experts = {self.n_experts}"
            )
        if self.n_experts is None and chosen != 2:
            raise ValueError(f"model.n_experts_per_token = {chosen} needs model.n_experts")
        if self.n_experts is None and factor is not None:
            raise ValueError(f"model.expert_capacity_factor = {factor} needs model.n_experts")

    def _check_parametrization(self) -> None:
        name = self.parametrization
        for field, value, users, optional in (
            ("base_d_model", self.base_d_model, ("mup", "completep"), False),
            ("base_n_layers", self.base_n_layers, ("completep",), False),
            ("base_head_size", self.base_head_size, ("mup", "completep"), True),
        ):
            if name in users and value is None and not optional:
                raise ValueError(f"model.parametrization = {name} needs model.{field}")
            if name not in users and value is not None:
                raise ValueError(
                    f"model.{field} = {value} is for model.parametrization = {' or '.join(users)}, "
                    f"not {name}; change one of them (model.{field} = none)"
                )
        if name == "completep" and self.norm_position == "post":
            raise ValueError("model.parametrization = completep needs model.norm_position = pre")

    @property
    def kv_heads(self) -> int:
        return self.n_kv_heads or self.n_heads

    @property
    def d_head(self) -> int:
        return self.head_size or self.d_model // self.n_heads

    @property
    def d_ff(self) -> int:
        return self.ffn_size or 4 * self.d_model

    @property
    def gated(self) -> bool:
        return self.activation in ("swiglu", "geglu")

    @property
    def expert_capacity(self) -> int | None:
        """Tokens of a sequence that an expert takes; None: all that are sent to it.

        Of model.seq_len, however long a sequence is: what is dropped depends on what came before
        alone, and a shorter text loses no more than the same beginning of a longer one.
        """
        if self.n_experts is None or self.expert_capacity_factor is None:
            return None
        even = self.n_experts_per_token * self.seq_len / self.n_experts
        return min(self.seq_len, math.ceil(self.expert_capacity_factor * even))

    @property
    def padded_vocab_size(self) -> int:
        return -(-self.vocab_size // self.vocab_multiple) * self.vocab_multiple


@section
class MixtureComponent:
    """One prepared corpus of a mixture."""

    path: LocalPath
    """Directory of token shards made by `gpt-jax data build`."""
    weight: PositiveFloat = 1.0
    """Share of the samples, relative to the other components."""


@section
class DataConfig:
    """Where text comes from and how it becomes samples of seq_len + 1 tokens."""

    source: Literal[
        "stdlib", "text", "jsonl", "parquet", "huggingface", "tfds", "shards", "mixture"
    ] = "stdlib"
    """stdlib: the Python standard library's own sources, always present; shards: prepared ones."""
    path: str = ""
    """File, glob or directory; or the data set's name for huggingface and tfds."""
    field: str = "text"
    """The record's field that holds the text (jsonl, parquet, huggingface, tfds)."""
    mixture: tuple[MixtureComponent, ...] = ()
    """Prepared corpora to mix, with weights (source = mixture)."""
    tokenizer: LocalPath = "gpt2"
    """byte | char | gpt2 | gpt1 | bpe:SIZE (trained on the corpus) | a tokenizer.json, .model, or
    the tokenizer_spec.json of a run or corpus."""
    tokenizer_path: LocalPath = ""
    """Directory of the gpt2 or gpt1 vocabulary files, where no installed package has them."""
    validation: Literal["document", "tail"] = "document"
    """Held out: whole documents picked by hash, or the last part of the text."""
    validation_fraction: Fraction = 0.01
    """Share held out for validation."""
    unique_tokens: Positive | None = None
    """Train on so many tokens from all over the training text, again and again; none = all."""
    separate_documents: bool = False
    """Attention does not cross document borders inside a sample (segment ids)."""
    named_splits: bool = True
    """Files of a folder named train, validation (or valid, val, dev) and test are those splits, and
    test files are not read; false = all files are trained on."""
    max_expansion: Positive = 100
    """A document of over 64 MiB out of a compressed file is refused when it is more than so many
    times as large as the file: a decompression bomb."""
    cache: LocalPath = ""
    """Directory for built token shards; empty = the user's cache directory."""

    @check()
    def _consistent(self) -> "DataConfig":
        if (self.source == "mixture") != bool(self.mixture):
            raise ValueError("data.mixture and data.source = mixture go together")
        if self.mixture and self.unique_tokens is not None:
            raise ValueError("data.unique_tokens is of one corpus; a mixture has data.mixture only")
        if self.source in ("text", "jsonl", "parquet", "huggingface", "tfds", "shards") and (
            not self.path
        ):
            raise ValueError(f"data.source = {self.source} needs data.path")
        if self.source not in ("huggingface", "tfds"):
            try:
                paths.local(self.path)
            except ValueError as error:
                raise ValueError(f"data.path: {error}") from None
        return self


@section
class TrainConfig:
    """How long, in which batches, and what is minimised."""

    tokens: Positive = 300_000_000
    """Training tokens in all."""
    batch_sequences: Positive = 32
    """Sequences in a global batch, over all devices and hosts."""
    ramp_from_sequences: Positive | None = None
    """Sequences in the first batches when the batch size is ramped up."""
    ramp_tokens: NonNegative = 0
    """Tokens over which the batch grows linearly to batch_sequences."""
    z_loss: NonNegativeFloat = 0.0
    """Weight of the squared log-normaliser added to the loss (PaLM: 1e-4)."""
    router_load_balance_loss: NonNegativeFloat = 0.01
    """Experts: weight of the load-balance loss of every layer's router (Switch: 1e-2)."""
    router_z_loss: NonNegativeFloat = 0.001
    """Experts: weight of the router logits' squared log-normaliser, every layer (ST-MoE: 1e-3)."""
    on_bad_step: Literal["stop", "skip"] = "stop"
    """A non-finite loss or gradient, or a spike: stop the run, or leave this update out (50 in a
    row stop it all the same)."""
    spike_threshold: PositiveFloat | None = None
    """A loss this many nats above its running mean is a spike; none = only non-finite counts."""

    @check()
    def _consistent(self) -> "TrainConfig":
        start = self.ramp_from_sequences
        if (start is None) != (self.ramp_tokens == 0):
            raise ValueError("train.ramp_from_sequences and train.ramp_tokens go together")
        if start is not None and start > self.batch_sequences:
            raise ValueError(
                f"train.ramp_from_sequences = {start} exceeds train.batch_sequences = "
                f"{self.batch_sequences}"
            )
        return self


@section
class Config:
    """One experiment."""

    name: str = "experiment"
    """Names the run, its directory and its pages."""
    base: LocalPath = ""
    """Directory of the run whose parameters this one begins with; empty = fresh ones."""
    seed: NonNegative = 0
    """Initialisation, data order and dropout all follow from it."""
    model: ModelConfig = Field(default_factory=ModelConfig)
    data: DataConfig = Field(default_factory=DataConfig)
    task: TaskConfig = Field(default_factory=TaskConfig)
    adapt: AdaptConfig = Field(default_factory=AdaptConfig)
    distill: DistillConfig = Field(default_factory=DistillConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = Field(default_factory=ScheduleConfig)
    compute: ComputeConfig = Field(default_factory=ComputeConfig)
    mesh: MeshConfig = Field(default_factory=MeshConfig)
    evaluate: EvaluateConfig = Field(default_factory=EvaluateConfig)
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig)
    tracking: TrackingConfig = Field(default_factory=TrackingConfig)

    @check()
    def _consistent(self, info: ValidationInfo) -> "Config":
        if info.context == DRAFT:
            return self
        tokens = self.train.tokens
        if self.schedule.warmup_tokens > tokens:
            raise ValueError(
                f"schedule.warmup_tokens = {self.schedule.warmup_tokens:,} exceeds train.tokens = "
                f"{tokens:,}"
            )
        if self.schedule.warmup_tokens + self.schedule.cooldown_tokens > tokens:
            raise ValueError(
                f"schedule.warmup_tokens + schedule.cooldown_tokens = "
                f"{self.schedule.warmup_tokens + self.schedule.cooldown_tokens:,} exceed "
                f"train.tokens = {tokens:,}"
            )
        if self.task.name != "language_model" and not self.task.train:
            raise ValueError(f"task.name = {self.task.name} needs task.train, a file of examples")
        if (self.task.length or 0) > self.model.seq_len:
            raise ValueError(
                f"task.length = {self.task.length} exceeds model.seq_len = {self.model.seq_len}"
            )
        if bool(self.task.images) != (self.task.image_encoder != "none"):
            raise ValueError("task.images and task.image_encoder go together; set both")
        whole = self.task.has_head or self.task.image_encoder != "none"
        if whole and self.mesh.sequence > 1:
            raise ValueError(
                f"task.name = {self.task.name} reads whole sequences: mesh.sequence = "
                f"{self.mesh.sequence} must be 1"
            )
        parts = self.compute.microbatches
        for sequences in {self.train.batch_sequences, self.train.ramp_from_sequences or parts}:
            if sequences % parts:
                raise ValueError(
                    f"a batch of {sequences} sequences is not divisible by "
                    f"compute.microbatches = {parts}"
                )
        self._check_optimizer()
        self._check_adapt()
        self._check_distill()
        return self

    @property
    def is_pretraining(self) -> bool:
        """Whether all parameters are trained on text alone: no task, adaptation or teacher."""
        plain = self.task.name == "language_model" and self.adapt.method == "full"
        return plain and not self.distill.teacher

    def _check_distill(self) -> None:
        """What cannot be learned from a teacher."""
        if not self.distill.teacher:
            return
        for wrong, what in (
            (self.task.name not in ("language_model", "respond"), f"task.name = {self.task.name}"),
            (self.task.image_encoder != "none", "task.images"),
            (self.model.n_experts is not None, "model.n_experts"),
        ):
            if wrong:
                raise ValueError(f"distill.teacher does not go with {what}; leave one of them out")

    def _check_adapt(self) -> None:
        """What a method of adaptation cannot be computed with."""
        method = self.adapt.method
        apart = self.task.pack or self.data.separate_documents
        if method == "prompt" and self.task.name == "language_model":
            raise ValueError("adapt.method = prompt stands before examples; it needs task.name")
        for wrong, what in (
            (method == "prompt" and self.task.image_encoder != "none", "task.images"),
            (apart, "task.pack or data.separate_documents"),
            (method == "prefix" and self.mesh.sequence > 1, "mesh.sequence above 1"),
            (method == "prefix" and "banded" in self.model.layer_pattern, "banded layers"),
        ):
            if method in ("prefix", "prompt") and wrong:
                raise ValueError(f"adapt.method = {method} does not go with {what}")

    def _check_optimizer(self) -> None:
        """Update rules for which the parametrization has no answer."""
        name, parametrization = self.optimizer.name, self.model.parametrization
        if parametrization == "standard":
            return
        if name == "adafactor":
            raise ValueError(
                f"optimizer.name = adafactor has no rule under model.parametrization = "
                f"{parametrization}; choose adamw, adam, lion, muon or sgd"
            )
        if name == "adam" and self.optimizer.weight_decay:
            raise ValueError(
                f"optimizer.name = adam with optimizer.weight_decay = "
                f"{self.optimizer.weight_decay} (L2 in the gradient) has no rule under "
                f"model.parametrization = {parametrization}; choose adamw, or weight_decay = 0"
            )


WHAT = (
    "base",
    "seed",
    "model",
    "data",
    "task",
    "adapt",
    "distill",
    "train",
    "optimizer",
    "schedule",
)
"""The parts of a Config that the fingerprint covers: what is computed, not how."""
