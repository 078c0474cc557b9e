"""Coordinate check: do activations, and their changes in training, keep their size at any size?

Yang et al. 2022 (arXiv:2203.03466, appendix D.1) test an implementation of muP so: models of
several widths take a few steps on one batch. Where hyperparameters transfer, every activation
changes by the same amount at each width, and none grows at the start. Dey et al. 2025
arXiv:2505.01618) do the same over depths.

Must not import flax.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gpt_jax.config import ComputeConfig, Config
from gpt_jax.models import probes
from gpt_jax.models.gpt import Params, make_gpt
from gpt_jax.objectives.cross_entropy import cross_entropy_sums
from gpt_jax.optim.updates import make_optimizer

Axis = Literal["width", "depth"]

TOLERANCE: dict[Axis, float] = {"width": 0.25, "depth": 0.35}
"""Allowed deviation of a slope to either side: the noise of a few small models and seeds. Errors
that the check is to find have slope 1/2 (terms that add up at random and should not add up) or 1
(terms that agree)."""

ACTIVATIONS = ("embedding", "scores", "attention", "mlp", "stream", "logits")
"""As `gpt_jax.models.probes` names them; the mean over layers, of the stream after the last
layer, and of the logits those of the target tokens: the others change only at random in the first
steps."""

JUDGED: dict[Axis, frozenset[str]] = {
    "width": frozenset(ACTIVATIONS),
    "depth": frozenset({"embedding", "stream", "logits"}),
}
"""Activations whose slope is judged: those that reach a known limit fast enough. Over depths,
not those inside of blocks: the first layer sees embeddings alone, and weighs 1 / L in the mean
over layers."""

START = {("width", "logits"): (-0.5, 0.0), ("depth", "stream"): (-0.5, 0.0)}
"""Allowed slopes of log size over log width or depth at the start, where they are not just 0.

Logits start as products of random vectors, divided by the width: they shrink as its square root
(TP5, appendix D.1). Under CompleteP, L random layers divided by L add sqrt(1 / L) to the stream,
which shrinks towards the embeddings, however small these are.
"""


class Row(NamedTuple):
    """One activation at one moment, over the sizes of the models."""

    axis: Axis
    activation: str
    step: int
    """0: its size at the start; from 1 on: the size of its change since then."""
    models: tuple[int, ...]
    """Widths or depths."""
    sizes: tuple[float, ...]
    """Mean absolute coordinate, mean over seeds."""
    slope: float | None
    """Slope of log size over log width or depth, by least squares; None where a size is 0 or not
    finite."""
    allowed: tuple[float, float] | None
    """None: not judged."""

    @property
    def passes(self) -> bool:
        """Whether all sizes are finite and the slope, where judged, is allowed. Sizes that are 0 in
        all models pass (init_residual = zero, at the start)."""
        if not all(math.isfinite(size) for size in self.sizes):
            return False
        if self.allowed is None:
            return True
        if self.slope is None:
            return not any(self.sizes)
        return self.allowed[0] <= self.slope <= self.allowed[1]


@dataclasses.dataclass(frozen=True)
class Setting:
    """Size of the check: training steps, seeds, sequences in a batch and tokens in a sequence."""

    n_steps: int = 4
    n_seeds: int = 2
    n_sequences: int = 4
    seq_len: int = 64


def check(
    config: Config,
    axis: Axis,
    models: Sequence[int],
    setting: Setting,
    tell: Callable[[str], None] = lambda _: None,
) -> list[Row]:
    """Rows of all activations and moments over widths or depths.

    Depths are compared at the config's base width, widths at its base depth, or at the config's own
    where it has no base.

    Raises ValueError for fewer than two models, or sizes that the config cannot take.
    """
    if len(set(models)) < 2:
        raise ValueError(f"--{axis}s needs two or more different values, got {list(models)}")
    configs = [resize(config, axis, size) for size in models]
    measured = []
    for size, resized in zip(models, configs, strict=True):
        tell(f"{axis} {size}")
        measured.append(measure(resized, setting))
    return [
        _row(axis, activation, step, models, [m[activation][:, step] for m in measured])
        for activation in ACTIVATIONS
        for step in range(1 + setting.n_steps)
    ]


def _row(
    axis: Axis, activation: str, step: int, models: Sequence[int], sizes: list[np.ndarray]
) -> Row:
    means = [float(np.mean(over_seeds)) for over_seeds in sizes]
    slope = allowed = None
    if all(means) and all(map(math.isfinite, means)):
        slope = float(np.polyfit(np.log(models), np.log(means), 1)[0])
    if activation in JUDGED[axis]:
        low, high = START.get((axis, activation), (0.0, 0.0)) if step == 0 else (0.0, 0.0)
        allowed = (low - TOLERANCE[axis], high + TOLERANCE[axis])
    return Row(axis, activation, step, tuple(models), tuple(means), slope, allowed)


def default_models(config: Config, axis: Axis) -> tuple[int, ...]:
    """Widths: four, doubling from the least multiple of the head size that is 64 or more.

    Depths: three, doubling from the base depth if there is one, from 2 if not.
    """
    if axis == "width":
        head_size = config.model.d_head
        first = head_size * math.ceil(64 / head_size)
        return tuple(first * 2**k for k in range(4))
    period = len(config.model.layer_pattern)
    first = period * math.ceil((config.model.base_n_layers or 2) / period)
    return tuple(first * 2**k for k in range(3))


def resize(config: Config, axis: Axis, size: int) -> Config:
    """The config at another width or depth; the other one is the base's, if there is one.

    With the width grow heads, key and value heads and the MLP, in proportion; the size of a head
    stays. Multi-query attention keeps its one key head.
    """
    model = config.model
    width, depth = model.base_d_model or model.d_model, model.base_n_layers or model.n_layers
    width, depth = (size, depth) if axis == "width" else (width, size)

    def grown(name: str, value: int) -> int:
        if value * width % model.d_model:
            raise ValueError(
                f"a model of width {width} would have {value * width / model.d_model:g} {name}; "
                f"choose --widths in proportion to model.d_model = {model.d_model}"
            )
        return value * width // model.d_model

    shared_key = model.n_kv_heads == 1
    resized = dataclasses.replace(
        model,
        d_model=width,
        n_layers=depth,
        head_size=model.d_head,
        n_heads=grown("heads", model.n_heads),
        n_kv_heads=1 if shared_key else grown("key heads", model.kv_heads),
        ffn_size=grown("hidden units", model.d_ff),
        dropout_embedding=0.0,
        dropout_residual=0.0,
        dropout_attention=0.0,
    )
    return dataclasses.replace(config, model=resized)


def measure(config: Config, setting: Setting) -> dict[str, np.ndarray]:
    """{activation: [seeds, 1 + steps]}: its size at the start, and of its change after each step.

    The optimizer is the config's, at its peak learning rate throughout. Float32, no dropout.
    """
    seq_len = min(setting.seq_len, config.model.seq_len)
    model = make_gpt(
        dataclasses.replace(config.model, seq_len=seq_len),
        ComputeConfig(dtype="float32", attention="reference", layers="scan"),
    )
    tokens_BT, targets_BT = map(jnp.asarray, random_batch(config, setting.n_sequences, seq_len))

    def loss(params: Params) -> tuple[jax.Array, Any]:
        activations = probes.activations(model, params, tokens_BT)
        ones_BT = jnp.ones(targets_BT.shape)
        sums = cross_entropy_sums(activations["logits"], targets_BT, ones_BT)
        return sums.cross_entropy / sums.weight, activations

    def optimizer(params: Params) -> optax.GradientTransformation:
        rate = config.optimizer.learning_rate
        return make_optimizer(config.optimizer, params, rate, model=config.model)

    def step(carry: Any, index: jax.Array) -> tuple[Any, Any]:
        params, opt_state, start = carry
        gradients, now = jax.grad(loss, has_aux=True)(params)
        changes = jax.tree.map(jnp.subtract, now, start)
        start = jax.tree.map(lambda s, n: jnp.where(index == 0, n, s), start, now)
        updates, opt_state = optimizer(params).update(gradients, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state, start), _sizes(changes, targets_BT)

    @jax.jit
    def run(key: jax.Array) -> Any:
        params = model.init(key)
        # The change from nothing is the size at the start.
        nothing = jax.tree.map(jnp.zeros_like, jax.eval_shape(loss, params)[1])
        carry = (params, optimizer(params).init(params), nothing)
        return jax.lax.scan(step, carry, jnp.arange(1 + setting.n_steps))[1]

    runs = [run(jax.random.key(config.seed + seed)) for seed in range(setting.n_seeds)]
    return {name: np.stack([np.asarray(r[name]) for r in runs]) for name in ACTIVATIONS}


def _sizes(activations: dict[str, jax.Array], targets_BT: jax.Array) -> dict[str, jax.Array]:
    """Mean absolute coordinates; scores are 0 where unseen, at every size of model alike."""
    logits_BTV = activations["logits"]
    looked_at = activations | {
        "stream": activations["stream"][-1],
        "logits": jnp.take_along_axis(logits_BTV, targets_BT[..., None], axis=-1),
    }
    return {name: jnp.mean(jnp.abs(values)) for name, values in looked_at.items()}


def random_batch(config: Config, n_sequences: int, seq_len: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and targets [B, T]: random, with the frequencies of Zipf's law, as words have them.

    Drawn from the config's vocabulary: no corpus is needed, and sizes of activations depend little
    on what is learned in a few steps.
    """
    ranks = 1 + np.arange(config.model.vocab_size)
    frequencies = (1 / ranks) / np.sum(1 / ranks)
    drawn = np.random.default_rng(config.seed).choice(
        config.model.vocab_size, size=(n_sequences, seq_len + 1), p=frequencies
    )
    return drawn[:, :-1].astype(np.int32), drawn[:, 1:].astype(np.int32)
