"""Roles of parameters: what each is to the optimizer and to the parametrization, by its path.

Must not import jax at its top: closed forms of memory read roles too.
"""

import functools
import math
import re
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from gpt_jax.optim.parametrization import Group

if TYPE_CHECKING:
    import jax

Params: TypeAlias = Any
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
    Rule(r"blocks/\d+/(attention|mlp)(_out)?_norm/scale", "gain", "hidden_vector"),
    Rule(r"blocks/\d+/attention/(query|key)_heads_norm/scale", "gain", "hidden_vector"),
    Rule(r"blocks/\d+/attention/(query|key)_norm/scale", "gain", "per_head"),
    Rule(r"blocks/\d+/attention/scores_\w+/\w+", "gain", "per_head"),
    Rule(r"(final_norm|embedding/norm)/bias", "bias", "vector"),
    Rule(r"(final_norm|embedding/norm)/scale", "gain", "vector"),
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


@functools.cache
def rule(path: str) -> Rule:
    """The rule of a parameter by its path, blocks/0/attention/out/kernel.

    Raises ValueError naming a parameter that no rule covers, or more than one does.
    """
    rules = [rule for rule in RULES if re.fullmatch(rule.pattern, path)]
    if len(rules) != 1:
        found = " and ".join(rule.pattern for rule in rules) or "none"
        raise ValueError(
            f"parameter {path} must match exactly one of the rules, but matches {found}; "
            f"add or narrow a rule in gpt_jax.optim.roles.RULES"
        )
    return rules[0]


def rule_at(path: tuple[Any, ...]) -> Rule:
    """The rule of a parameter by its path in a tree, as jax gives it."""
    import jax

    return rule(jax.tree_util.keystr(path, simple=True, separator="/"))


def roles(params_like: Params) -> Params:
    """The role of every parameter, in a tree of the same structure.

    Raises ValueError naming a parameter that no rule covers, or more than one does.
    """
    import jax

    return jax.tree_util.tree_map_with_path(lambda path, _: rule_at(path).role, params_like)


def decay_mask(params_like: Params, decay: str) -> Params:
    """Which parameters decay under `optimizer.decay`: a tree of bools."""
    import jax

    return jax.tree.map(lambda role: role in DECAYED[decay], roles(params_like))


def input_dims(path: str) -> int:
    """How many dims of a kernel are inputs, by its path: blocks/0/attention/out/kernel."""
    return next(rule.input_dims for rule in RULES if re.fullmatch(rule.pattern, path))


def n_stacked(path: str) -> int:
    """Number of leading dims of a parameter that count layers, or layers and experts."""
    return rule(path).stack_dims if path.startswith("blocks/") else 0


def as_matrix(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of one layer's (and expert's) parameter: (inputs, outputs) of a kernel in the blocks,
    else without the dims that count layers."""
    of, inner = rule(path), shape[n_stacked(path) :]
    if of.role not in ("matrix", "router") or not path.startswith("blocks/"):
        return inner
    return math.prod(inner[: of.input_dims]), math.prod(inner[of.input_dims :])


def as_matrices(path: tuple[Any, ...], x: "jax.Array") -> "jax.Array":
    """A parameter of the blocks [G, ...] as [G, inputs, outputs] (kernels) or [G, ...].

    Stacks of two dims become one of G x E.
    """
    import jax

    name = jax.tree_util.keystr(path, simple=True, separator="/")
    n_matrices = math.prod(x.shape[: n_stacked(name)])
    return x.reshape(n_matrices, *as_matrix(name, x.shape))
