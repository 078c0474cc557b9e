"""One method of adaptation as pure functions: split, combine, merge."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gpt_jax.adapt import difference, low_rank
from gpt_jax.adapt.interceptors import adapted
from gpt_jax.config import AdaptConfig
from gpt_jax.models.gpt import GPT
from gpt_jax.models.trees import Flat, Tree, flatten, join, split, unflatten
from gpt_jax.optim.roles import input_dims
from gpt_jax.parallel.sharding import Axes

ALWAYS = re.compile(r"task_head/.*|embedding/special|vision/.*")
"""Parameters that a task adds to the model: every method trains them."""
MERGES = ("full", "lora", "adalora", "bitfit", "difference", "last_layers", "pattern")
"""Methods after which a plain model computes the same."""


@dataclasses.dataclass(frozen=True)
class Adaptation:
    """A method, for a model."""

    config: AdaptConfig
    model: GPT

    def init(self, key: jax.Array, params: Tree) -> tuple[Tree, Tree]:
        """(frozen, trained) of the model that training begins at, with what its task adds.

        Raises ValueError for a method that finds nothing to train.
        """
        if self.config.method == "full":
            return {}, params
        base, always = split(params, lambda path: bool(ALWAYS.fullmatch(path)))
        frozen, trained = self._init(key, base)
        return frozen, join(trained, always)

    def combine(self, frozen: Tree, trained: Tree, key: jax.Array | None = None) -> Tree:
        """All parameters, as the model takes them. key: of what is drawn while training."""
        method = self.config.method
        if method == "full":
            return trained
        if method == "difference":
            flat, rest = flatten(frozen), difference.undone(trained)
            changed = difference.applied(flat, flatten(trained), self.config.fraction, key)
            return join(unflatten(changed), rest)
        if method == "last_layers":
            return self._with_last_layers(frozen, trained)
        return join(frozen, trained)

    @property
    def draws(self) -> bool:
        """Whether `combine`, or the low-rank terms, draw random numbers while training."""
        return self.config.draws

    @property
    def has_penalty(self) -> bool:
        return self.config.method in ("adalora", "difference")

    def penalty(self, trained: Tree) -> jax.Array:
        """Added to the mean loss."""
        if self.config.method == "adalora":
            return self.config.orthogonality * low_rank.orthogonality(trained)
        return self.config.difference_weight * difference.expected_share(trained)

    def wrap(
        self, optimizer: optax.GradientTransformation, n_steps: Any
    ) -> optax.GradientTransformation:
        """The optimizer of the trained tree. n_steps: of the run; may be traced."""
        if self.config.method != "adalora":
            return optimizer
        return low_rank.with_budget(optimizer, self.config, n_steps)

    def merge(self, params: Tree) -> Tree:
        """The plain model's parameters that compute the same. Raises ValueError if there are none.

        params: as `combine` gives them; of what a task added nothing is changed.
        """
        method = self.config.method
        if method not in MERGES:
            raise ValueError(
                f"adapt.method = {method} computes what no plain model does: it cannot be merged; "
                f"methods that can: {', '.join(MERGES)}"
            )
        return low_rank.merged(params) if method in ("lora", "adalora") else params

    def axes(self, param_axes: Tree) -> tuple[Tree, Tree, Tree]:
        """Logical names of the dims of (frozen, trained, combined) parameters, from those of the
        model that training begins at."""
        shapes = jax.eval_shape(self.model.init, jax.random.key(0))
        known = flatten(param_axes)
        added = {
            path: jax.ShapeDtypeStruct((1,) * len(axes), jnp.float32)
            for path, axes in known.items()
            if path not in flatten(shapes)
        }
        whole = join(shapes, unflatten(added))
        frozen, trained = jax.eval_shape(self.init, jax.random.key(0), whole)
        combined = jax.eval_shape(self.combine, frozen, trained)

        def named(part: Tree) -> Tree:
            return unflatten({path: _axes(path, known) for path in flatten(part)})

        return named(frozen), named(trained), named(combined)

    def _init(self, key: jax.Array, base: Tree) -> tuple[Tree, Tree]:
        adapt = self.config
        match adapt.method:
            case "lora" | "adalora":
                fixed, trained = low_rank.fresh_factors(key, adapt, base)
                return join(base, unflatten(fixed)), unflatten(trained)
            case "adapter":
                return base, unflatten(self._adapters(key))
            case "prefix":
                return base, unflatten(self._prefixes(key))
            case "prompt":
                # As embeddings of tokens drawn at random (Lester et al. 2021, section 3.2.1).
                table = base["embedding"]["tokens"][: self.model.config.vocab_size]
                rows = jax.random.randint(key, (adapt.length,), 0, len(table))
                return base, {"embedding": {"prompt": table[rows]}}
            case "difference":
                return base, unflatten(difference.fresh(flatten(base)))
            case "last_layers":
                return self._without_last_layers(base)
            case "bitfit":
                return self._chosen(base, lambda path: path.endswith("/bias"), "it has no biases")
            case "pattern":
                patterns = [re.compile(pattern) for pattern in adapt.train]
                return self._chosen(
                    base,
                    lambda path: any(pattern.fullmatch(path) for pattern in patterns),
                    f"no parameter matches adapt.train = {','.join(adapt.train)}; they are "
                    f"{', '.join(flatten(base))}",
                )
        raise AssertionError(adapt.method)

    def _chosen(self, base: Tree, chosen: Callable[[str], bool], nothing: str) -> tuple[Tree, Tree]:
        frozen, trained = split(base, chosen)
        if not trained:
            raise ValueError(f"adapt.method = {self.config.method} trains nothing here: {nothing}")
        return frozen, trained

    def _adapters(self, key: jax.Array) -> Flat:
        """Two in each layer, which begin as the identity."""
        model, size = self.model.config, self.config.size
        made: Flat = {}
        groups, D = model.n_layers // len(model.layer_pattern), model.d_model
        for i in range(len(model.layer_pattern)):
            for j, name in enumerate(("attention_adapter", "mlp_adapter")):
                drawn = jax.random.normal(jax.random.fold_in(key, 2 * i + j), (groups, D, size))
                made |= {
                    f"blocks/{i}/{name}/down/kernel": drawn / D**0.5,
                    f"blocks/{i}/{name}/down/bias": jnp.zeros((groups, size)),
                    f"blocks/{i}/{name}/up/kernel": jnp.zeros((groups, size, D)),
                    f"blocks/{i}/{name}/up/bias": jnp.zeros((groups, D)),
                }
        return made

    def _prefixes(self, key: jax.Array) -> Flat:
        """Keys and values trained as such, without the paper's network that makes them."""
        model, made = self.model.config, {}
        groups = model.n_layers // len(model.layer_pattern)
        shape = (groups, self.config.length, model.kv_heads, model.d_head)
        for i in range(len(model.layer_pattern)):
            for j, name in enumerate(("prefix_key", "prefix_value")):
                drawn = jax.random.normal(jax.random.fold_in(key, 2 * i + j), shape)
                made[f"blocks/{i}/attention/{name}"] = model.init_std * drawn
        return made

    @property
    def _n_groups(self) -> int:
        """Groups of layers that are trained by last_layers."""
        model, adapt = self.model.config, self.config
        period, n_layers = len(model.layer_pattern), model.n_layers
        if adapt.layers % period or adapt.layers > n_layers:
            raise ValueError(
                f"adapt.layers = {adapt.layers}; allowed: a multiple of the length of "
                f"model.layer_pattern, {period}, up to model.n_layers = {n_layers}"
            )
        return adapt.layers // period

    def _without_last_layers(self, base: Tree) -> tuple[Tree, Tree]:
        """The last layers and the final norm are trained."""
        n = self._n_groups
        trained = {"blocks": jax.tree.map(lambda x: x[-n:], base["blocks"])}
        frozen = {
            **{name: x for name, x in base.items() if name != "final_norm"},
            "blocks": jax.tree.map(lambda x: x[:-n], base["blocks"]),
        }
        if "final_norm" in base:
            trained["final_norm"] = base["final_norm"]
        return frozen, trained

    def _with_last_layers(self, frozen: Tree, trained: Tree) -> Tree:
        blocks = jax.tree.map(
            lambda first, last: jnp.concatenate([first, last]), frozen["blocks"], trained["blocks"]
        )
        rest = [
            {name: x for name, x in part.items() if name != "blocks"} for part in (frozen, trained)
        ]
        return join(*rest, {"blocks": blocks})


def make_adaptation(config: AdaptConfig, model: GPT) -> Adaptation:
    """The adaptation of a plain model, which it makes compute what the method adds."""
    return Adaptation(config, adapted(model, config))


def _axes(path: str, known: Flat) -> Axes:
    """Logical names of the dims of a leaf of an adaptation."""
    module, _, name = path.rpartition("/")
    if path in known:
        return known[path]
    if name in (difference.DIFFERENCE, difference.GATE):
        return known[module]
    kernel = known.get(f"{module}/kernel", ())
    n_inputs = 1 + input_dims(f"{module}/kernel") if kernel else 0
    return {
        "lora_a": (*kernel[:n_inputs], None),
        "lora_b": (*kernel[:1], None, *kernel[n_inputs:]),
        "lora_lambda": ("layer", None),
        "lora_scale": ("layer",),
        "lora_dropout": ("layer",),
        "prefix_key": ("layer", None, "kv_heads", "head_dim"),
        "prefix_value": ("layer", None, "kv_heads", "head_dim"),
        "prompt": (None, "embed"),
        "down/kernel": ("layer", "embed", None),
        "down/bias": ("layer", None),
        "up/kernel": ("layer", None, "embed"),
        "up/bias": ("layer", "embed"),
    }["/".join(path.split("/")[-2:]) if "_adapter/" in path else name]
