"""The architecture of a model, and which combinations of its parts exist. Must not import jax."""

import math
from typing import Annotated, Any, Literal

from gpt_jax.config.entries import ACTIVATIONS, LAYERS, NORMS, POSITIONS, SCORES, Entry, OneOf
from gpt_jax.config.fields import (
    HashableDict,
    Options,
    Positive,
    PositiveFloat,
    Probability,
    check,
    fresh,
    section,
    setting,
)

SINCE = "2026-11-28"
"""Day on which what published families vary became options."""

ROTARY_TURNS = {"llama3": (1.0, 4.0), "yarn": (1.0, 32.0)}
"""rotary_turns by rotary_scaling where the config gives none."""

Biased = Literal["qkv", "out", "mlp", "norm"]
"""Parts that may have biases."""


@section
class ModelConfig:
    """The architecture: GPT-1, GPT-2, GPT-3 and what a scaling study varies around them."""

    vocab_size: Positive = 50257
    """Token ids the model knows; at least the tokenizer's."""
    vocab_multiple: Positive = 1
    """Embedding rows are padded up to a multiple of this; padded ids get probability zero."""
    seq_len: Positive = setting(1024, unit="tokens")
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
    n_experts: Positive | None = setting(None, added="2026-11-25")
    """Experts E of every MLP (mixture of experts); none = one MLP for all tokens."""
    n_experts_per_token: Positive = setting(2, added="2026-11-25")
    """Experts that each token is sent to: the ones with the highest router probabilities."""
    expert_capacity_factor: PositiveFloat | None = setting(None, added="2026-11-25")
    """Tokens that an expert takes of a sequence, over an even share; none = all (dropless)."""
    expert_gates: Literal["normalized", "plain"] = setting("normalized", added=SINCE)
    """Gates of the chosen experts: their probabilities over their sum (Mixtral), or as they are."""
    norm: Annotated[str, OneOf(NORMS)] = "layernorm"
    """Normalisation layer."""
    norm_gain: Literal["plain", "one_plus", "none"] = setting("plain", added=SINCE)
    """Gain w, or 1 + w (Gemma), or neither gain nor bias (OLMo)."""
    norm_position: Literal["pre", "post", "output", "sandwich"] = "pre"
    """pre: before each sub-block (GPT-2); post: after each residual addition (GPT-1); output: of
    each sub-block's output, before it is added (OLMo 2); sandwich: pre and output (Gemma 2)."""
    norm_epsilon: PositiveFloat = 1e-5
    """Added to the variance."""
    final_norm: bool = True
    """Normalise after the last block (GPT-2 and GPT-3; not GPT-1)."""
    embedding_norm: bool = setting(False, added=SINCE)
    """Normalise the sum of embeddings (BLOOM)."""
    embedding_multiplier: PositiveFloat = setting(1.0, added=SINCE)
    """Factor of the token embeddings as they are looked up; Gemma's is sqrt(d_model)."""
    bias: bool = True
    """Biases in projections and norms."""
    biases: tuple[Biased, ...] | None = setting(None, added=SINCE)
    """Where biases are, if not everywhere: queries, keys and values; attention's output; MLP;
    norms. none = everywhere or nowhere (model.bias)."""
    activation: Annotated[str, OneOf(ACTIVATIONS)] = "gelu_tanh"
    """MLP non-linearity; gelu is the exact form; swiglu and geglu add a gate projection."""
    position: Annotated[str, OneOf(POSITIONS)] = "learned"
    """Where position comes from."""
    scores: Annotated[tuple[str, ...], OneOf(SCORES)] = setting((), added="2026-11-28")
    """Changes of attention scores, one after another."""
    options: Options = fresh(HashableDict, added="2026-11-28")
    """Options of the entries named by position and scores, by name: model.options.soft_cap.cap=30.
    """
    rotary_base: PositiveFloat = 10_000.0
    """Base of the rotary wavelengths."""
    rotary_base_banded: PositiveFloat | None = setting(None, added=SINCE)
    """Base in banded layers, whose wavelengths are then not scaled (Gemma 3); none = as others."""
    rotary_size: Positive | None = setting(None, added=SINCE)
    """First dims of a head that are rotated (GPT-NeoX, GPT-J); none = all."""
    rotary_scaling: Literal["none", "linear", "llama3", "yarn"] = setting("none", added=SINCE)
    """Longer wavelengths, for a context longer than the one trained with first."""
    rotary_factor: PositiveFloat = setting(1.0, added=SINCE)
    """Factor of the wavelengths: of all (linear), or of the long ones (llama3, yarn)."""
    rotary_trained_len: Positive | None = setting(None, unit="tokens", added=SINCE)
    """Context length before scaling, which llama3 and yarn need."""
    rotary_turns: tuple[PositiveFloat, PositiveFloat] | None = setting(None, added=SINCE)
    """Turns over rotary_trained_len below which a wavelength is long, and above which it is kept;
    none = 1,4 (llama3) or 1,32 (yarn)."""
    rotary_amplitude: PositiveFloat | None = setting(None, added=SINCE)
    """Factor of rotated queries and keys; none = 1, or under yarn 0.1 ln(rotary_factor) + 1."""
    layer_pattern: Annotated[tuple[str, ...], OneOf(LAYERS)] = ("dense",)
    """Attention per layer, repeated over depth; GPT-3 alternates dense,banded; nope is dense
    without rotary positions (SmolLM3)."""
    window: Positive | None = setting(None, unit="tokens")
    """Tokens a banded layer sees, itself included (sliding window)."""
    parallel_block: bool = False
    """Attention and MLP read the same normed input and are added together (GPT-J, PaLM)."""
    parallel_norms: Literal["shared", "separate"] = setting("shared", added=SINCE)
    """Norms of a parallel block: one, or one each for attention and MLP (GPT-NeoX)."""
    qk_norm: bool = False
    """Normalise queries and keys (RMSNorm)."""
    qk_norm_over: Literal["head", "heads"] = setting("head", added=SINCE)
    """Normalise each head by itself with one gain for all (Qwen3), or all heads as one (OLMo 2)."""
    qkv_clip: PositiveFloat | None = setting(None, added=SINCE)
    """Queries, keys and values are clipped to +- this, before positions (OLMo)."""
    score_divisor: PositiveFloat | None = setting(None, added=SINCE)
    """Attention scores are q k over this; none = sqrt(head size)."""
    scores_over_layer: bool = setting(False, added=SINCE)
    """Divide the scores of layer i by i besides, the first being 1 (GPT-2 as trained by CRFM)."""
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
    init_std: PositiveFloat = setting(0.02, use="lane")
    """Standard deviation of the weights and embeddings at initialisation."""
    init_matrices: Literal["fixed", "fan_in"] = setting("fixed", use="lane")
    """Projections start with init_std (GPT), or with 1 / sqrt(inputs)."""
    init_residual: Literal["scaled", "plain", "zero"] = setting("scaled", use="lane")
    """Projections into the residual stream: divided by sqrt(2 L) (GPT-2), as the rest, or zero."""
    parametrization: Literal["standard", "mup", "completep"] = setting(
        "standard", added="2026-11-24"
    )
    """mup: hyperparameters of a base width hold at every width; completep: and at every depth."""
    base_d_model: Positive | None = setting(None, added="2026-11-24")
    """Width at which mup and completep are the standard parametrization: where one tunes."""
    base_n_layers: Positive | None = setting(None, added="2026-11-24")
    """Depth at which completep is the standard parametrization."""
    base_head_size: Positive | None = setting(None, added="2026-11-24")
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
        for kind in dict.fromkeys(self.layer_pattern):
            if kind in LAYERS:  # else `Config` refuses it, or an extension is to come
                LAYERS.find(kind).check(self)
        if self.position in POSITIONS:  # else `Config` refuses it, or an extension is to come
            POSITIONS.find(self.position).check(self)
        if len(set(self.scores)) < len(self.scores):
            raise ValueError(f"model.scores = {','.join(self.scores)} names one of them twice")
        if self.parallel_block and self.norm_position != "pre":
            raise ValueError("model.parallel_block needs model.norm_position = pre")
        self._check_rotary()
        self._check_meaning()
        self._check_experts()
        return self

    def _check_rotary(self) -> None:
        if self.rotary_scaling in ("llama3", "yarn") and self.rotary_trained_len is None:
            raise ValueError(
                f"model.rotary_scaling = {self.rotary_scaling} needs model.rotary_trained_len"
            )
        if self.rotary_turns is not None and not self.rotary_turns[0] < self.rotary_turns[1]:
            raise ValueError(
                f"model.rotary_turns = {self.rotary_turns[0]},{self.rotary_turns[1]}; the first "
                "must be less"
            )

    def _check_meaning(self) -> None:
        """Refuses options that would change nothing, with what they need."""
        scaled = self.rotary_scaling != "none"
        by_turns = self.rotary_scaling in ("llama3", "yarn")
        rotary = self.position == "rotary"
        for name, has_meaning, needs in (
            ("rotary_size", rotary, "position = rotary"),
            ("rotary_scaling", rotary, "position = rotary"),
            ("rotary_amplitude", rotary, "position = rotary"),
            ("rotary_factor", scaled, "rotary_scaling"),
            ("rotary_trained_len", by_turns, "rotary_scaling = llama3 or yarn"),
            ("rotary_turns", by_turns, "rotary_scaling = llama3 or yarn"),
            (
                "rotary_base_banded",
                rotary and "banded" in self.layer_pattern,
                "position = rotary and a layer_pattern with banded",
            ),
            ("parallel_norms", self.parallel_block, "parallel_block = true"),
            ("qk_norm_over", self.qk_norm, "qk_norm = true"),
            ("expert_gates", self.n_experts is not None, "n_experts"),
            ("biases", self.bias, "bias = true"),
        ):
            value = getattr(self, name)
            default = type(self).__pydantic_fields__[name].default  # type: ignore[attr-defined]
            if not has_meaning and value != default:
                shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
                raise ValueError(f"model.{name} = {shown} needs model.{needs}")
        if self.biases == ():
            raise ValueError("model.biases is empty; set model.bias = false")

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
        """Whether an MLP has a gate projection."""
        return bool(ACTIVATIONS.find(self.activation).gated)

    def options_of(self, entry: Entry) -> Any:
        """The options of a position or a change of scores, with defaults."""
        return entry.read_options(self.options.get(entry.name, {}), f"model.options.{entry.name}")

    def has_bias(self, part: Biased) -> bool:
        """Whether the projections of a part, or the norms, have biases."""
        if part == "norm" and (self.norm_gain == "none" or not NORMS.find(self.norm).has_bias):
            return False
        return self.bias and (self.biases is None or part in self.biases)

    def window_of(self, kind: str) -> int | None:
        """Tokens that a layer of a kind in `layer_pattern` sees; None = all before."""
        window: int | None = LAYERS.find(kind).window(self)
        return window

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
