"""Fields of the entries of positions, changes of attention scores, kinds of layers, activations and
norms.

Must not import jax.

`gpt_jax/models/positions`, `scores`, `layer_kinds`, `activations` and `norms` hold one file for
each, which imports jax where it computes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from gpt_jax.config import ModelConfig
from gpt_jax.config import entries as tables
from gpt_jax.config.entries import Entry, Table

if TYPE_CHECKING:
    import jax

    Embed = Callable[[jax.Array, jax.Array, jax.Array | None, ModelConfig, Any], jax.Array]

Shape = tuple[int, ...]
Form = Literal["cpu", "ring", "splash", "cudnn"]
"""Forms of attention that cannot compute any change of scores: the CPU's own, ring attention, and
the fused kernels. The plain ones (reference, blockwise, cached decoding) compute all."""

OURS: frozenset[Form] = frozenset({"cpu", "ring"})
"""Forms that compute penalties by distance, functions of a score, and outputs."""


class Parameter(NamedTuple):
    """A parameter of one layer."""

    shape: Shape
    axes: tuple[str | None, ...]
    """Logical names of its dims (`gpt_jax.parallel.sharding.RULES`): heads, embed, ..."""
    std: float = 0.0
    """Standard deviation at initialisation, around `mean`."""
    mean: float = 0.0


class Change(NamedTuple):
    """An entry's effect on attention, its parameters in hand. Dims: B batch, T query position, S
    key position, N heads, H head size. Scores are q k / divisor, float32."""

    slopes: tuple[float, ...] | None = None
    """Slope of each head: score - slope * distance."""
    elementwise: "Callable[[jax.Array], jax.Array] | None" = None
    """A function of each score, without parameters."""
    scores: "Callable[[jax.Array, jax.Array], jax.Array] | None" = None
    """(scores [B, N, T, S], distance [B or 1, T, S] of key from query) -> scores, of the plain
    forms alone; may use parameters."""
    output: "Callable[[jax.Array, jax.Array], jax.Array] | None" = None
    """(output [B, T, N, H], logarithm of the softmax's denominator [B, T, N]) -> output."""
    splash: tuple[tuple[str, Any], ...] = ()
    """Arguments with which splash attention is made, where that computes the change by itself."""
    splash_heads: "tuple[tuple[str, jax.Array], ...]" = ()
    """Arguments [N] with which splash attention is called."""


def no_parameters(model: ModelConfig, options: Any) -> Mapping[str, Parameter]:
    """No parameters."""
    return {}


@dataclass(frozen=True, kw_only=True)
class ScoreEntry(Entry):
    """A change of attention scores that `model.scores` can name, or a position can ask for."""

    change: "Callable[[ModelConfig, Any, Mapping[str, jax.Array]], Change]"
    """(model, options, parameters by name) -> what it does."""
    kernels: frozenset[Form]
    """Forms of attention that compute it besides the plain ones. Where a kernel is not among them,
    it is refused if asked for by name, and `auto` falls back from it with a line."""
    parameters: Callable[[ModelConfig, Any], Mapping[str, Parameter]] = no_parameters
    """Parameters of every layer, by name; they are not decayed, and keep their learning rate under
    muP. In a tree they are at blocks/*/attention/scores_NAME/PARAMETER."""
    title: str = ""
    """As messages name it; empty = its name."""


@dataclass(frozen=True, kw_only=True)
class PositionEntry(Entry):
    """Where position comes from: what `model.position` can name."""

    table: Callable[[ModelConfig, Any], int] | None = None
    """Rows of a learned table of width D, embedding/positions; None = there is none."""
    embed: "Embed | None" = None
    """(embeddings [B, T, D], positions [B, T], rows of the table [B, T, D], model, options) ->
    embeddings."""
    turn: "Callable[[jax.Array, jax.Array, ModelConfig, Any], jax.Array] | None" = None
    """(queries or keys [B, T, N, H], positions [B, T], model, options) -> the same, with their
    positions in them."""
    scores: tuple[str, ...] = ()
    """Changes of scores that it consists of."""
    absolute: bool = False
    """Whether outputs depend on where a text begins, so that packed texts count from 0 again."""
    check: Callable[[ModelConfig], None] = lambda model: None
    """Raises ValueError for a model that cannot have it."""


@dataclass(frozen=True, kw_only=True)
class LayerEntry(Entry):
    """Kind of a layer's attention: what `model.layer_pattern` can name. It has no options.

    All kinds have the same parameters: layers are stacked.
    """

    window: Callable[[ModelConfig], int | None] = lambda model: None
    """Tokens that a query sees, its own included; None = all before."""
    turns: bool = True
    """Whether queries and keys have the positions of model.position."""
    with_positions: Callable[[ModelConfig], ModelConfig] = lambda model: model
    """The model with the positions of these layers in place of the others'."""
    check: Callable[[ModelConfig], None] = lambda model: None
    """Raises ValueError for a model that cannot have it."""


@dataclass(frozen=True, kw_only=True)
class ActivationEntry(Entry):
    """Non-linearity of the MLP: what `model.activation` can name. It has no options."""

    function: "Callable[[jax.Array], jax.Array]"
    """Elementwise."""
    gated: bool = False
    """Whether it is applied to a gate projection, whose result multiplies the hidden units."""
    cpu_copies: int = 3
    """Arrays of hidden units that XLA's CPU compiler keeps for the backward pass, for the estimate
    of memory (`gpt_jax.cost.memory`)."""


@dataclass(frozen=True, kw_only=True)
class NormEntry(Entry):
    """Normalisation layer: what `model.norm` can name. It has no options."""

    normalise: "Callable[[jax.Array, float], jax.Array]"
    """(float32 [..., D], epsilon) -> the normalised array, before its gain and bias."""
    has_bias: bool
    """Whether it has a bias where model.bias asks for biases."""


LAYERS: Table[LayerEntry] = tables.LAYERS
POSITIONS: Table[PositionEntry] = tables.POSITIONS
SCORES: Table[ScoreEntry] = tables.SCORES
ACTIVATIONS: Table[ActivationEntry] = tables.ACTIVATIONS
NORMS: Table[NormEntry] = tables.NORMS


def position_of(model: ModelConfig) -> tuple[PositionEntry, Any]:
    """The model's position encoding, and its options."""
    entry = POSITIONS.find(model.position)
    return entry, model.options_of(entry)


def score_changes(model: ModelConfig) -> list[tuple[ScoreEntry, Any]]:
    """The model's changes of attention scores in order, with their options."""
    names = (*POSITIONS.find(model.position).scores, *model.scores)
    entries = [SCORES.find(name) for name in names]
    return [(entry, model.options_of(entry)) for entry in entries]
