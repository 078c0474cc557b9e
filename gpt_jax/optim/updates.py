"""From gradients to updates: the learning-rate schedule, weight decay and the update rules.

Which rule a parameter follows is decided by its role, and its role by one table over parameter
paths, `RULES`. Everything numeric may be a JAX tracer: an optimizer is built inside the traced
step, from the learning rate of that step, and holds no schedule of its own, so an update that is
left out does not shift the schedule, and a packed sweep can `vmap` over `Hyperparameters`.

Imports Optax; must not import flax or anything of `gpt_jax.models`.
"""

import functools
import math
import re
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from gpt_jax.config import Config, ModelConfig, OptimizerConfig
from gpt_jax.config.timetable import Timetable
from gpt_jax.optim.parametrization import Group, gradient_factor, learning_rate_factor

Params: TypeAlias = Any
Scalar: TypeAlias = float | jax.Array
Role = Literal["embedding", "position", "matrix", "bias", "gain", "head", "adapter", "router"]


class Rule(NamedTuple):
    """The parameters whose whole path matches `pattern` have this role."""

    pattern: str
    role: Role
    group: Group
    """Group of the parameters in the parametrization's tables (`model.parametrization`)."""
    input_dims: int = 0
    """Number of input dims of a kernel in a stack of layers, [G, inputs..., outputs...]."""
    stack_dims: int = 1
    """Number of leading dims of a parameter in the blocks: 1 (layers) or 2 (layers and experts)."""


RULES = (
    Rule(r"embedding/tokens", "embedding", "input"),
    Rule(r"embedding/positions", "position", "input"),
    Rule(r"blocks/\d+/attention/(query|key|value)/kernel", "matrix", "hidden", 1),
    Rule(r"blocks/\d+/attention/out/kernel", "matrix", "hidden", 2),
    Rule(r"blocks/\d+/mlp/(up|gate|down)/kernel", "matrix", "hidden", 1),
    Rule(r"blocks/\d+/mlp/experts/(up|gate|down)/kernel", "matrix", "hidden", 1, stack_dims=2),
    Rule(r"blocks/\d+/mlp/experts/(up|gate|down)/bias", "bias", "hidden_vector", stack_dims=2),
    Rule(r"blocks/\d+/mlp/router/kernel", "router", "router", 1),
    Rule(r"blocks/(?!.*/experts/).*/bias", "bias", "hidden_vector"),
    Rule(r"blocks/\d+/(attention|mlp)_norm/scale", "gain", "hidden_vector"),
    Rule(r"blocks/\d+/attention/(query|key)_norm/scale", "gain", "per_head"),
    Rule(r"final_norm/bias", "bias", "vector"),
    Rule(r"final_norm/scale", "gain", "vector"),
    Rule(r"head/kernel", "head", "output"),
    Rule(r"embedding/(special|prompt)", "embedding", "input"),
    Rule(r"task_head/kernel", "head", "output"),
    Rule(r"task_head/bias", "bias", "vector"),
    Rule(r"vision/\w+/kernel", "adapter", "vector"),
    Rule(r"vision/\w+/bias", "bias", "vector"),
    Rule(r"vision/positions", "position", "vector"),
    # What `gpt_jax.adapt` adds. To the parametrization they are vectors: the rate they were given.
    Rule(r"blocks/\d+/(attention|mlp)/\w+/lora_[ab]", "adapter", "vector"),
    Rule(r"blocks/\d+/(attention|mlp)/\w+/lora_lambda", "gain", "vector"),
    Rule(r"blocks/\d+/(attention|mlp)_adapter/(down|up)/kernel", "adapter", "vector"),
    Rule(r"blocks/\d+/attention/prefix_(key|value)", "adapter", "vector"),
    Rule(r".*/difference", "adapter", "vector"),
    Rule(r".*/gate", "gain", "vector"),
)
"""Every parameter matches exactly one rule."""

DECAYED: dict[str, frozenset[Role]] = {
    "matrices": frozenset({"matrix", "head", "router"}),
    "no_bias_or_gain": frozenset({"matrix", "head", "router", "embedding", "position", "adapter"}),
    "all": frozenset(
        {"matrix", "head", "router", "embedding", "position", "adapter", "bias", "gain"}
    ),
}
"""optimizer.decay -> the roles that decay. GPT-1 decays "all non bias or gain weights" (section
4.1); nanoGPT's "all tensors of two or more dims" are the same ones."""

MUON_RMS = 0.2
"""Root mean square of Muon's updates before the learning rate: about AdamW's, so that one learning
rate and one weight decay serve both and carry over between shapes (Moonlight, arXiv:2502.16982,
eq. 4). The other convention, sqrt(max(1, outputs / inputs)), would need a rate of its own."""


# ---------------------------------------------------------------------------------------------
# Schedule


def learning_rate_schedule(config: Config, timetable: Timetable) -> Callable[[Any], jax.Array]:
    """step (integer array, from 0) -> the learning rate of that step, float32, for use under jit.

    The rate is `optimizer.learning_rate` times `schedule_fraction`.
    """
    fraction = schedule_fraction(config, timetable)
    return lambda step: config.optimizer.learning_rate * fraction(step)


def schedule_fraction(config: Config, timetable: Timetable) -> Callable[[Any], jax.Array]:
    """step (integer array, from 0) -> learning rate of that step as a fraction of its peak.

    The schedule is a function of tokens, read at the tokens seen *after* the step: the first step
    of a warmup has a rate above zero, and the last step reaches the end of the decay. Shapes:

    - cosine, linear: from the end of warmup to `final_fraction` at `decay_tokens`, constant from
      there (GPT-3: cosine to 10% at 260 of 300 billion tokens);
    - inverse_sqrt: sqrt(warmup_tokens / tokens), not below `final_fraction`; with no warmup the
      tokens of the first step take its place (T5, arXiv:1910.10683, section 3.1.2);
    - wsd: constant, then over the last `cooldown_tokens` linearly, or as 1 - sqrt(progress), to
      `final_fraction` (arXiv:2405.18392);
    - constant.
    """
    schedule, n_tokens = config.schedule, config.train.tokens
    final = schedule.final_fraction
    warmup = _progress(timetable, 0, schedule.warmup_tokens)
    decay = _progress(timetable, schedule.warmup_tokens, schedule.decay_tokens or n_tokens)
    cooldown = _progress(timetable, n_tokens - schedule.cooldown_tokens, n_tokens)
    reference = schedule.warmup_tokens or timetable.tokens_before(1)
    relative_tokens = _linear_in_tokens(timetable, 0, timetable.n_tokens, reference)

    def shape(done: jax.Array) -> jax.Array:
        match schedule.name:
            case "cosine":
                left = 0.5 * (1 + jnp.cos(jnp.pi * decay(done)))
            case "linear":
                left = 1 - decay(done)
            case "inverse_sqrt":
                return jnp.maximum(final, jax.lax.rsqrt(jnp.maximum(1.0, relative_tokens(done))))
            case "wsd" if schedule.cooldown_tokens:
                progress = cooldown(done)
                left = 1 - (progress if schedule.cooldown == "linear" else jnp.sqrt(progress))
            case _:
                return jnp.ones_like(done)
        return final + (1 - final) * left

    def fraction(step: Any) -> jax.Array:
        done = jnp.asarray(step, jnp.float32) + 1
        return warmup(done) * shape(done)

    return fraction


def _progress(timetable: Timetable, begin: int, end: int) -> Callable[[jax.Array], jax.Array]:
    """Finished steps -> progress from 0 at `begin` to 1 at `end`, in tokens; 1 if it is empty."""
    if end <= begin:
        return jnp.ones_like
    return _linear_in_tokens(timetable, begin, end, end - begin)


def _linear_in_tokens(
    timetable: Timetable, begin: int, end: int, unit: int
) -> Callable[[jax.Array], jax.Array]:
    """Finished steps -> (tokens - begin) / unit, constant outside of [begin, end] (in tokens).

    Tokens are piecewise linear in steps (the batch-size ramp). The knots are computed exactly and
    interpolated over steps: float32 holds a step number, but not 300 billion tokens to the batch.
    """
    first, last = _steps_at(timetable, begin), _steps_at(timetable, end)
    inside = [s.first_step for s in timetable.stages if first < s.first_step < last]
    tokens = [begin, *(timetable.tokens_before(step) for step in inside), end]
    knots = jnp.asarray([first, *inside, last], jnp.float32)
    values = jnp.asarray([(t - begin) / unit for t in tokens], jnp.float32)
    return lambda done: jnp.interp(done, knots, values)


def _steps_at(timetable: Timetable, tokens: int) -> float:
    """Steps, with a fraction, after which this many tokens are seen; the last stage goes on."""
    samples = tokens / timetable.seq_len
    stage = [s for s in timetable.stages if s.first_sample <= samples][-1]
    return stage.first_step + (samples - stage.first_sample) / stage.batch_sequences


# ---------------------------------------------------------------------------------------------
# Roles


def roles(params_like: Params) -> Params:
    """The role of every parameter, in a tree of the same structure.

    Raises ValueError naming a parameter that no rule covers, or more than one does.
    """
    return jax.tree_util.tree_map_with_path(lambda path, _: _rule(path).role, params_like)


def decay_mask(params_like: Params, decay: str) -> Params:
    """Which parameters decay under `optimizer.decay`: a tree of bools."""
    return jax.tree.map(lambda role: role in DECAYED[decay], roles(params_like))


def input_dims(path: str) -> int:
    """How many dims of a kernel are inputs, by its path: blocks/0/attention/out/kernel."""
    return next(rule.input_dims for rule in RULES if re.fullmatch(rule.pattern, path))


def _rule(path: tuple[Any, ...]) -> Rule:
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    rules = [rule for rule in RULES if re.fullmatch(rule.pattern, name)]
    if len(rules) != 1:
        found = " and ".join(rule.pattern for rule in rules) or "none"
        raise ValueError(
            f"parameter {name} must match exactly one of the rules, but matches {found}; "
            f"add or narrow a rule in gpt_jax.optim.updates.RULES"
        )
    return rules[0]


# ---------------------------------------------------------------------------------------------
# Update rules


class Hyperparameters(NamedTuple):
    """The numbers of an update rule: floats, or tracers (a packed sweep maps over them).

    Meanings and units are those of the fields of `OptimizerConfig`. Whether there is clipping
    (`clip_norm` is None or not) is part of the structure.
    """

    learning_rate: Scalar
    adam_learning_rate: Scalar
    b1: Scalar
    b2: Scalar
    epsilon: Scalar
    weight_decay: Scalar
    clip_norm: Scalar | None

    @classmethod
    def of(cls, config: OptimizerConfig) -> "Hyperparameters":
        return cls(
            learning_rate=config.learning_rate,
            adam_learning_rate=config.adam_learning_rate or config.learning_rate,
            b1=config.b1,
            b2=config.b2,
            epsilon=config.epsilon,
            weight_decay=config.weight_decay,
            clip_norm=config.clip_norm,
        )


def make_optimizer(
    config: OptimizerConfig,
    params_like: Params,
    learning_rate: Scalar,
    hyperparameters: Hyperparameters | None = None,
    model: ModelConfig | None = None,
) -> optax.GradientTransformation:
    """The update of one step: clip, direction, weight decay, times minus the learning rate.

    Args:
      config: decides the rule, what decays, and the numbers where `hyperparameters` is None.
      params_like: parameters, or anything with their structure; only paths are read.
      learning_rate: of this step, the schedule applied. `init` depends on no number, so any
        value will do for it.
      hyperparameters: numbers that take the place of those in `config`.
      model: its parametrization sets learning rate, weight decay and epsilon of each parameter in
        relation to these numbers; None: the standard one, which has the same for all.

    Weight decay is decoupled, times the learning rate of the step, except for `adam`: there it is
    the classic L2 term, added to the clipped gradient. Lion, SGD and Adafactor follow the papers,
    with `b1` as momentum; Adafactor's learning rate is relative to the RMS of each parameter.
    Muon orthogonalises the kernels inside the blocks, each layer's and each expert's by itself; the
    rest, routers too, is AdamW.
    """
    h = hyperparameters or Hyperparameters.of(config)
    clip = optax.identity() if h.clip_norm is None else _clip(h.clip_norm)
    decay = optax.add_decayed_weights(h.weight_decay, decay_mask(params_like, config.decay))
    direction = _parametrized(_direction(config.name, params_like, h), config.name, model)
    rates = roles(params_like)
    if config.name == "muon":
        adam_rate = learning_rate * (h.adam_learning_rate / h.learning_rate)
        rates = jax.tree.map(lambda r: learning_rate if r == "matrix" else adam_rate, rates)
    else:
        rates = jax.tree.map(lambda _: learning_rate, rates)
    descend = optax.stateless(
        lambda updates, _: jax.tree.map(lambda rate, u: -rate * u, rates, updates)
    )
    if config.name == "adam":
        return optax.chain(clip, decay, direction, descend)
    return optax.chain(clip, direction, decay, descend)


def _direction(name: str, params_like: Params, h: Hyperparameters) -> optax.GradientTransformation:
    """The rule proper: gradients to updates of the parameters, learning rate and sign aside."""
    match name:
        case "adamw" | "adam":
            return _adam(h)
        case "lion":
            return optax.scale_by_lion(h.b1, h.b2)
        case "sgd":
            return optax.trace(h.b1)
        case "muon":
            labels = jax.tree.map(
                lambda role: "muon" if role == "matrix" else "adam", roles(params_like)
            )
            return optax.partition({"muon": _muon(h), "adam": _adam(h)}, labels)
        case "adafactor":
            labels = jax.tree_util.tree_map_with_path(lambda path, _: _stack(path), params_like)
            single = _adafactor(h)
            rules = {"layers": _per_layer(single), "single": single}
            if "experts" in jax.tree.leaves(labels):
                rules["experts"] = _per_layer(single)
            return optax.partition(rules, labels)
    raise ValueError(f"optimizer.name = {name} has no update rule in gpt_jax.optim.updates")


def _parametrized(
    direction: optax.GradientTransformation, optimizer: str, model: ModelConfig | None
) -> optax.GradientTransformation:
    """`direction` with the learning rates and epsilons of the model's parametrization.

    Adam with f times the epsilon is Adam of gradients divided by f. Weight decay comes after, so
    that times the learning rate it is the same for all parameters.
    """
    if model is None or model.parametrization == "standard":
        return direction

    def scaled(tree: Any, of_group: Callable[[Group], float]) -> Any:
        def scale(path: tuple[Any, ...], x: jax.Array) -> jax.Array:
            by = of_group(_rule(path).group)
            return x if by == 1 else by * x

        return jax.tree_util.tree_map_with_path(scale, tree)

    def update(gradients: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        if optimizer not in ("lion", "sgd"):
            gradients = scaled(gradients, lambda group: 1 / gradient_factor(model, group))
        updates, state = direction.update(gradients, state, params)
        rates = functools.partial(learning_rate_factor, model, optimizer)
        return scaled(updates, rates), state

    return optax.GradientTransformation(direction.init, update)


def clip_factor(norm: jax.Array, limit: Scalar) -> jax.Array:
    """Factor that scales gradients with global norm `norm` down to at most `limit`: a scalar.

    `optax.clip_by_global_norm` divides every value instead.
    """
    return jnp.minimum(1.0, limit / norm)


def _clip(limit: Scalar) -> optax.GradientTransformation:
    def scale(updates: Any, _: Any) -> Any:
        factor = clip_factor(optax.global_norm(updates), limit)
        return jax.tree.map(lambda u: factor * u, updates)

    return optax.stateless(scale)


def _adam(h: Hyperparameters) -> optax.GradientTransformation:
    """`optax.scale_by_adam` (Kingma and Ba 2015), with one division of each value, not three.

    XLA writes down whatever is divided and used twice: on a CPU a pass over memory each.
    """

    def update(gradients: Any, state: Any, _: Any = None) -> tuple[Any, Any]:
        count = optax.safe_increment(state.count)
        mu = jax.tree.map(lambda m, g: h.b1 * m + (1 - h.b1) * g, state.mu, gradients)
        nu = jax.tree.map(lambda v, g: h.b2 * v + (1 - h.b2) * g * g, state.nu, gradients)
        unbias_mu, unbias_nu = (1 / (1 - b**count) for b in (h.b1, h.b2))
        updates = jax.tree.map(
            lambda m, v: unbias_mu * m / (jnp.sqrt(unbias_nu * v) + h.epsilon), mu, nu
        )
        return updates, optax.ScaleByAdamState(count, mu, nu)

    init = optax.scale_by_adam(h.b1, h.b2, h.epsilon).init
    return optax.GradientTransformation(init, update)


def _stack(path: tuple[Any, ...]) -> Literal["single", "layers", "experts"]:
    """Whether a parameter is stored once, once per layer, or once per layer and expert."""
    if path[0].key != "blocks":
        return "single"
    return "experts" if _rule(path).stack_dims == 2 else "layers"


def _muon(h: Hyperparameters) -> optax.GradientTransformation:
    """Muon for kernels [stack..., inputs..., outputs...]: matrices of inputs x outputs."""

    def dimension_numbers(tree: Any) -> Any:
        def of_kernel(path: tuple[Any, ...], x: jax.Array) -> contrib.MuonDimensionNumbers:
            first, split = _rule(path).stack_dims, _rule(path).stack_dims + _rule(path).input_dims
            inputs, outputs = tuple(range(first, split)), tuple(range(split, x.ndim))
            return contrib.MuonDimensionNumbers(inputs, outputs)

        return jax.tree_util.tree_map_with_path(of_kernel, tree)

    def scale(updates: Any, _: Any) -> Any:
        def by_shape(path: tuple[Any, ...], x: jax.Array) -> jax.Array:
            # An orthogonal matrix of m x n has a root mean square of 1 / sqrt(max(m, n)).
            return MUON_RMS * max(_as_matrices(path, x).shape[1:]) ** 0.5 * x

        return jax.tree_util.tree_map_with_path(by_shape, updates)

    muon = contrib.scale_by_muon(
        beta=h.b1, eps=h.epsilon, weight_dimension_numbers=dimension_numbers
    )
    return optax.chain(muon, optax.stateless(scale))


def _adafactor(h: Hyperparameters) -> optax.GradientTransformation:
    """Adafactor (arXiv:1804.04235) with its update clipping at 1, and momentum as in PaLM."""
    return optax.chain(
        optax.scale_by_factored_rms(),
        optax.clip_by_block_rms(1.0),
        optax.scale_by_param_block_rms(),
        optax.ema(h.b1, debias=False),
    )


def _per_layer(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """`inner` applied to each layer (and expert) of the stacks by itself, with kernels as matrices.

    Adafactor factors the two largest dims and takes root mean squares over a whole array: over
    [G, D, N, H] it would mix layers, and not factor heads smaller than its threshold at all.
    """

    def matrices(tree: Any) -> Any:
        return jax.tree_util.tree_map_with_path(_as_matrices, tree)

    def init(params: Any) -> Any:
        return jax.vmap(inner.init)(matrices(params))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        new, state = jax.vmap(inner.update)(matrices(updates), state, matrices(params))
        return jax.tree.map(lambda n, u: n.reshape(u.shape), new, updates), state

    return optax.GradientTransformation(init, update)


def _as_matrices(path: tuple[Any, ...], x: jax.Array) -> jax.Array:
    """A kernel [G, inputs..., outputs...] as [G, inputs, outputs]; what is no kernel, as it is.

    Stacks of two dims become one of G x E.
    """
    rule = _rule(path)
    n_stacked = math.prod(x.shape[: rule.stack_dims])
    if rule.role not in ("matrix", "router"):
        return x if rule.stack_dims == 1 else x.reshape(n_stacked, *x.shape[rule.stack_dims :])
    n_outputs = math.prod(x.shape[rule.stack_dims + rule.input_dims :])
    return x.reshape(n_stacked, -1, n_outputs)
