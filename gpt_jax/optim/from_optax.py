"""Any optimizer of optax or optax.contrib, by the name of its function, as an entry.

What this package needs to know of an optimizer is found out: the size of its state from its
abstract state, whether it works on each number, each array or all parameters at once, and its rule
under muP, by trying its first update on small arrays. Must not import flax.
"""

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax import contrib

from gpt_jax.config.entries import unknown_option
from gpt_jax.config.fields import HashableDict
from gpt_jax.optim.entry import Build, OptimizerEntry, Shape
from gpt_jax.optim.layers import each_layer_alone
from gpt_jax.optim.parametrization import UpdateRule

OURS = {
    "learning_rate": "optimizer.learning_rate and schedule",
    "weight_decay": "optimizer.weight_decay",
    "mask": "optimizer.decay",
}
"""Arguments of an optax function that other fields of a config set."""
TOLERANCE = 0.02
"""Two sizes of an update that differ by less than this share are the same."""

Factory = Callable[..., optax.GradientTransformation]


def find(name: str) -> OptimizerEntry | None:
    """The entry of an optax function: `adabelief`, `optax.adamw`, `contrib.prodigy`; or None."""
    factory = _factory(name)
    if factory is None:
        return None
    reference = f"{factory.__module__.split('.')[0]}: {name}"
    return OptaxEntry(
        name=name,
        summary=f"{reference}, of the library optax",
        direction=lambda build: _direction(factory, build),
        state_bytes=functools.partial(_state_bytes, factory),
        mup=lambda group, options: mup_rule(factory, name, options),
        complete=True,
        unread=("b1", "b2", "epsilon", "adam_learning_rate"),
        factory=factory,
    )


def _factory(name: str) -> Factory | None:
    *package, function = name.removeprefix("optax.").split(".")
    places = {"": (optax, contrib), "contrib": (contrib,)}.get(".".join(package), ())
    for place in places:
        found = vars(place).get(function)
        if inspect.isfunction(found) and not function.startswith(("_", "scale_by_")):
            parameters = inspect.signature(found).parameters
            if "learning_rate" in parameters:
                return found
    return None


@dataclass(frozen=True, kw_only=True)
class OptaxEntry(OptimizerEntry):
    """An entry whose options are the arguments of an optax function."""

    factory: Factory

    def read_options(self, given: Mapping[str, Any], key: str) -> HashableDict:
        """The options given; defaults are the function's. Raises ValueError for one that it has
        not, that another field sets, or without which it cannot be called."""
        parameters = inspect.signature(self.factory).parameters
        known = [name for name in parameters if name not in OURS]
        for option in given:
            if option in OURS:
                raise ValueError(f"{key}.{option} is set by {OURS[option]}; leave it out")
            if option not in known:
                raise ValueError(unknown_option(f"{key}.{option}", self.name, option, known))
        for option in known:
            if parameters[option].default is inspect.Parameter.empty and option not in given:
                raise ValueError(f"optimizer.name = {self.name} needs {key}.{option}")
        options = HashableDict(given)
        _check_runs(self.factory, self.name, options)
        return options


@functools.lru_cache
def _check_runs(factory: Factory, name: str, options: HashableDict) -> None:
    """Raises ValueError for a rule that cannot be built with these options, or that an update of
    gradients and parameters alone does not satisfy."""
    array = {"x": jax.ShapeDtypeStruct((4, 4), jnp.float32)}

    def update(params: Any) -> Any:
        rule = _make(factory, options, 0.1)
        return rule.update(params, rule.init(params), params)[0]

    try:
        jax.eval_shape(update, array)
    except (TypeError, ValueError, AttributeError) as error:
        line = " ".join(str(error).split())[:200]
        raise ValueError(
            f"optimizer.name = {name} cannot be used here with optimizer.options = "
            f"{dict(options)}: {line}"
        ) from None


def _make(factory: Factory, options: Mapping[str, Any], learning_rate: Any) -> Any:
    """The rule with the learning rate of a step; weight decay is applied beside it."""
    parameters = inspect.signature(factory).parameters
    none = {"weight_decay": 0.0} if "weight_decay" in parameters else {}
    return factory(learning_rate=learning_rate, **none, **options)


def _direction(factory: Factory, build: Build) -> optax.GradientTransformation:
    """The rule over the whole tree, or over each layer alone where that is another function."""
    rule = _make(factory, build.options, build.learning_rate)
    with jax.ensure_compile_time_eval():
        scope = _scope(factory, build.options)
    return each_layer_alone(rule, build.params_like) if scope == "array" else rule


@functools.lru_cache
def _state_bytes(factory: Factory, path: str, shape: Shape, options: Any) -> int:
    """Bytes of the abstract state of one parameter, counters and constants aside."""
    tree: Any = jax.ShapeDtypeStruct(shape, jnp.float32)
    for key in reversed(path.split("/")):
        tree = {key: tree}

    def init(params: Any) -> Any:
        build = Build(params, None, 0.1, options)  # type: ignore[arg-type]
        return _direction(factory, build).init(params)

    def stored(tree: Any) -> int:
        leaves = jax.tree.leaves(jax.eval_shape(init, tree))
        return sum(math.prod(x.shape) * x.dtype.itemsize for x in leaves if x.shape)

    return stored(tree) - stored({})  # constants of the rule are no parameter's


# What a rule does, found out by its first update


def _first_update(factory: Factory, options: Mapping[str, Any], params: Any, gradients: Any) -> Any:
    """The first update of a rule at learning rate 1, as numpy arrays."""
    rule = _make(factory, options, 1.0)
    updates, _ = rule.update(gradients, rule.init(params), params)
    return jax.tree.map(np.asarray, updates)


@functools.lru_cache
def _scope(factory: Factory, options: HashableDict) -> str:
    """Scope of an update: "number" (its own gradient alone), "array", or "tree" (all arrays)."""
    random = np.random.default_rng(0)
    x, y, other = (random.normal(size=(4, 6)).astype(np.float32) for _ in range(3))
    stacked = np.stack([x, 3 * y])
    first = functools.partial(_first_update, factory, options)

    def same(a: Any, b: Any) -> bool:
        return bool(np.allclose(a, b, rtol=1e-4, atol=1e-7))

    ones = {"a": jnp.ones((4, 6)), "b": jnp.ones((4, 6))}
    together = first(ones, {"a": jnp.asarray(x), "b": jnp.asarray(other)})["a"]
    if not same(together, first(ones, {"a": jnp.asarray(x), "b": jnp.asarray(9 * y)})["a"]):
        return "tree"
    whole = first({"a": jnp.ones((2, 4, 6))}, {"a": jnp.asarray(stacked)})["a"]
    alone = [first({"a": jnp.ones((4, 6))}, {"a": jnp.asarray(g)})["a"] for g in stacked]
    if not all(same(w, a) for w, a in zip(whole, alone, strict=True)):
        return "array"
    flat = first({"a": jnp.ones(48)}, {"a": jnp.asarray(stacked.reshape(-1))})["a"]
    return "number" if same(flat, whole.reshape(-1)) else "array"


def mup_rule(factory: Factory, name: str, options: HashableDict) -> UpdateRule:
    """The rule of an optax optimizer under muP: adam if the size of an update does not depend on
    that of the gradient, sgd if it is in proportion, number by number in either case.

    Raises ValueError for anything else: its learning rate would have to be derived.
    """
    size = 3.0 * np.where(np.arange(48).reshape(4, 12) % 3, 1, -1).astype(np.float32)
    at = jnp.ones((4, 12))

    def rms(gradient: np.ndarray, params: jax.Array) -> float:
        update = _first_update(factory, options, {"a": params}, {"a": jnp.asarray(gradient)})["a"]
        return float(np.sqrt(np.mean(np.square(update))))

    base = rms(size, at)
    grown, scaled = rms(4 * size, at) / base, rms(size, 4 * at) / base
    if _scope(factory, options) == "number" and abs(scaled - 1) < TOLERANCE:
        for rule, factor in (("adam", 1.0), ("sgd", 4.0)):
            if abs(grown / factor - 1) < TOLERANCE:
                return rule  # type: ignore[return-value]
    raise ValueError(
        f"optimizer.name = {name} has no rule under model.parametrization: its first update is "
        f"{grown:.3g} times as large for a gradient 4 times as large, and {scaled:.3g} times for "
        f"parameters 4 times as large; choose one that works number by number, or "
        f"model.parametrization = standard"
    )
