"""Entry of an optimizer: all that the rest of the package knows of it. Must not import jax.

`gpt_jax/optim/entries/` holds one file for each; `OPTIMIZERS.register` adds one from elsewhere.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from gpt_jax.config import OptimizerConfig
from gpt_jax.config import entries as tables
from gpt_jax.config.entries import Entry, Table
from gpt_jax.optim.parametrization import Group, UpdateRule
from gpt_jax.optim.roles import Params, Role

if TYPE_CHECKING:
    import jax
    import optax

Scalar: TypeAlias = "float | jax.Array"
Shape = tuple[int, ...]

FLOAT32 = 4
"""Bytes of a number."""


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
    clip_norm: "Scalar | None"

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


class Build(NamedTuple):
    """Inputs from which an update rule is built, inside the traced step."""

    params_like: Params
    """Parameters, or anything with their structure; only paths are read."""
    numbers: Hyperparameters
    learning_rate: Scalar
    """The learning rate of this step, the schedule applied."""
    options: Any
    """The entry's own options (`Entry.options`), validated."""


Direction = Callable[[Build], "optax.GradientTransformation"]


def every_parameter(role: Role) -> bool:
    """True for every role."""
    return True


@dataclass(frozen=True, kw_only=True)
class OptimizerEntry(Entry):
    """An update rule that `optimizer.name` can name."""

    direction: Direction
    """The rule proper: gradients to updates of the parameters. Learning rate and sign are applied
    after it, unless the entry is `complete`. Imports jax and optax when it is called."""
    state_bytes: Callable[[str, Shape, Any], int]
    """(path of a parameter, its shape with the dims of layers in front, options) -> bytes that the
    rule keeps for it, step counters aside."""
    mup: Callable[[Group, Any], UpdateRule] | None
    """(group of parameters, options) -> how their update depends on the gradient, which decides
    their learning rate under muP and CompleteP (`parametrization.LEARNING_RATE`); None: there is no
    rule, and configs of these parametrizations are refused."""
    follows_epsilon: bool = True
    """Whether `optimizer.epsilon` is compared with gradients, so that it has to keep pace with
    their size under muP."""
    at_learning_rate: Callable[[Role], bool] = every_parameter
    """Roles of the parameters at `optimizer.learning_rate`; the others are at
    `optimizer.adam_learning_rate`."""
    decay_in_gradient: bool = False
    """Whether weight decay is the classic L2 term, added to the clipped gradient, and not
    decoupled."""
    complete: bool = False
    """Whether the updates of `direction` have learning rate and sign already."""
    unread: tuple[str, ...] = ()
    """Fields of the `optimizer` section that the rule has no use for: a config that sets one is
    refused."""


OPTIMIZERS: Table[OptimizerEntry] = tables.OPTIMIZERS


def bytes_of(n_moments: int) -> Callable[[str, Shape, Any], int]:
    """`OptimizerEntry.state_bytes` of a rule that keeps so many float32 copies of a parameter."""
    return lambda path, shape, options: n_moments * FLOAT32 * math.prod(shape)
