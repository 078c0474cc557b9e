"""Attention sinks: a learned logit of each head in the softmax's denominator. Must not import jax
at its top.

A head whose keys all have low scores gives its weight to the sink, whose value is zero, instead of
to some key. With Z the sum of exp(score) over the keys that a query sees, its output is multiplied
by Z / (Z + exp(logit)).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gpt_jax.config import ModelConfig
from gpt_jax.config.fields import section
from gpt_jax.models.entry import OURS, Change, Parameter, ScoreEntry

if TYPE_CHECKING:
    import jax


@section
class Options:
    """How the sinks begin."""

    start: float = 0.0
    """Logit at initialisation; 0 = a key of score zero (Miller's softmax1)."""


def parameters(model: ModelConfig, options: Options) -> dict[str, Parameter]:
    """A logit a head."""
    return {"logit": Parameter((model.n_heads,), ("heads",), mean=options.start)}


def change(model: ModelConfig, options: Any, parameters: Mapping[str, "jax.Array"]) -> Change:
    """The share of the keys in the denominator, by the logarithm of their sum."""
    logit_N = parameters["logit"]

    def output(out_BTNH: "jax.Array", log_total_BTN: "jax.Array") -> "jax.Array":
        import jax

        share_BTN = jax.nn.sigmoid(log_total_BTN - logit_N)
        return (out_BTNH * share_BTN[..., None]).astype(out_BTNH.dtype)

    return Change(output=output, splash_heads=(("sinks", logit_N),))


ENTRY = ScoreEntry(
    name="sinks",
    title="attention sinks",
    summary="a learned logit of each head in the softmax's denominator",
    source="OpenAI 2025, arXiv:2508.10925 (gpt-oss), section 2.2",
    options=Options,
    parameters=parameters,
    change=change,
    kernels=OURS | {"splash"},
)
