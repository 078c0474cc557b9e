"""Hyperparameters that hold across widths and depths: muP and CompleteP, as tables of exponents.

Let m be the width over the base width (`model.d_model / model.base_d_model`) and l the depth over
the base depth (`model.n_layers / model.base_n_layers`; 1 under muP). Whatever the parametrization
changes is multiplied by a power of m and a power of l: at the base it is the standard one, and what
is tuned there holds elsewhere. Every hidden size (heads, key and value heads, MLP) is taken to grow
in proportion with the width.

Sources:

- muP: Yang et al. 2022, "Tensor Programs V", arXiv:2203.03466, in the form of table 8, the one in
  which input and output weights have the same rules and may be tied: output weights start at the
  same size at every width, and their product is divided by the width. (Table 3 is the same function
  with the multiplier moved into the weights.)
- CompleteP: Dey et al. 2025, arXiv:2505.01618, table 1 with alpha = 1: each residual addition is
  divided by l. Adam's epsilon for embeddings and head follows its equation 40.
- Muon has no row in either: the spectral condition of Yang, Simon and Bernstein 2023,
  arXiv:2310.17813 (condition 1).

Must not import jax.
"""

import math
from typing import Literal, NamedTuple

from gpt_jax.config import ModelConfig

Group = Literal["input", "hidden", "hidden_vector", "per_head", "vector", "output", "router"]
"""Kinds of parameters that the tables distinguish, by the dims that grow with the width.

- input: token and position embeddings, finite -> width ("input weights");
- hidden: the kernels in the blocks, width -> width ("hidden weights");
- hidden_vector: biases and gains in the blocks ("all biases"; CompleteP's pre-LN and bias rows);
- per_head: gains of the query and key norms, of head size: no dim grows, all heads share them;
- vector: gain and bias of the final norm ("all biases"; CompleteP's final-LN row);
- output: the untied head, width -> finite ("output weights");
- router: of experts, width -> finite as well, in the blocks: the same but for depth. The experts'
  own kernels are hidden ones.
"""

UpdateRule = Literal["adam", "sgd", "muon"]
"""How an update depends on the size of the gradient: not at all, entry by entry (Adam and Lion);
in proportion (SGD); not at all, as a matrix (Muon)."""


class Power(NamedTuple):
    """The factor m ** width * l ** depth."""

    width: float = 0.0
    depth: float = 0.0


INIT_STD: dict[Group, Power] = {
    "input": Power(),
    "hidden": Power(width=-1 / 2),
    "hidden_vector": Power(),
    "per_head": Power(),
    "vector": Power(),
    "output": Power(),
    "router": Power(),
}
"""Standard deviation at initialisation, over that at the base.

TP5 table 8, "Init. Var.": 1 / fan_in for hidden weights, and for input weights, where that is
constant; constant for output weights. CompleteP table 1: 1 / m for hidden weights.
"""

LEARNING_RATE: dict[UpdateRule, dict[Group, Power]] = {
    "adam": {
        "input": Power(),
        "hidden": Power(width=-1),
        "hidden_vector": Power(),
        "per_head": Power(),
        "vector": Power(),
        "output": Power(),
        "router": Power(),
    },
    "sgd": {
        "input": Power(width=1),
        "hidden": Power(depth=1),
        "hidden_vector": Power(width=1, depth=1),
        "per_head": Power(depth=1),
        "vector": Power(width=1),
        "output": Power(width=1),
        "router": Power(width=1, depth=1),
    },
    "muon": {"hidden": Power(width=-1 / 2)},
}
"""Learning rate, over that at the base.

- adam: TP5 table 8, "Adam LR": 1 for input and output, 1 / fan_in for hidden. CompleteP table 1:
  hidden LR m^-1 l^(alpha - 1), pre-LN and bias LR l^(alpha - 1), which is 1 for alpha = 1.
- sgd: TP5 table 8, "SGD LR": fan_out for input weights and biases, fan_in for output, 1 for hidden;
  a parameter without a growing dim keeps its rate. CompleteP has no SGD: a block's gradient has its
  residual multiplier 1 / l as a factor, and a rate of l makes each block change by as much as at
  the base.
- muon: our update of an (inputs x outputs) kernel has the spectral norm
  `optim.entries.muon.MUON_RMS` sqrt(max(inputs, outputs)), which grows as sqrt(m); the spectral
  condition asks for sqrt(outputs / inputs), which does not grow. Its size does not depend on the
  gradient's, hence not on l. What Muon leaves to AdamW follows adam.

Weight decay times learning rate is the same at every width and depth for every parameter: its
factor is the inverse of the one here (CompleteP table 1, "Hidden WD": m for AdamW).
"""

GRADIENT: dict[Group, Power] = {
    "input": Power(width=-1),
    "hidden": Power(width=-1, depth=-1),
    "hidden_vector": Power(width=-1, depth=-1),
    "per_head": Power(depth=-1),
    "vector": Power(width=-1),
    "output": Power(width=-1),
    "router": Power(width=-1, depth=-1),
}
"""Size of a gradient's entries, over that at the base: Adam's epsilon has to keep pace with it.
CompleteP table 1, "AdamW epsilon": 1 / (m l) in residual blocks; equation 40: 1 / m elsewhere. The
gains of the query and key norms are not in it: their gradient is a sum over m times the heads."""


def width_ratio(model: ModelConfig) -> float:
    """m: the width over the base width; 1 under the standard parametrization."""
    return model.d_model / (model.base_d_model or model.d_model)


def depth_ratio(model: ModelConfig) -> float:
    """l: the depth over the base depth; 1 under anything but CompleteP."""
    return model.n_layers / (model.base_n_layers or model.n_layers)


def factor(model: ModelConfig, power: Power) -> float:
    return width_ratio(model) ** power.width * depth_ratio(model) ** power.depth


def learning_rate_factor(model: ModelConfig, rule: UpdateRule, group: Group) -> float:
    """Factor that multiplies a parameter's learning rate and divides its weight decay.

    rule: of the optimizer for this group (`OptimizerEntry.mup`).
    """
    return factor(model, LEARNING_RATE[rule][group])


def gradient_factor(model: ModelConfig, group: Group) -> float:
    """Factor that multiplies Adam's epsilon for a parameter."""
    return factor(model, GRADIENT[group])


def matrix_std(model: ModelConfig, n_inputs: int, group: Group) -> float:
    """Standard deviation of a projection's weights at initialisation, before `init_residual`."""
    fixed = model.init_matrices == "fixed"
    at_base = model.init_std if fixed else 1 / math.sqrt(n_inputs / width_ratio(model))
    return at_base * factor(model, INIT_STD[group])


def residual_init_layers(model: ModelConfig) -> int:
    """The L of GPT-2's 1 / sqrt(2 L): under CompleteP the base depth (table 1: no l in any row)."""
    return model.base_n_layers or model.n_layers


def score_divisor(model: ModelConfig) -> float:
    """Attention scores are q k over this: model.score_divisor or sqrt(H), times sqrt(H / base H) if
    heads grow.

    TP5 definition 4.1: 1 / H instead of 1 / sqrt(H), with the constant that makes them equal at the
    base.
    """
    H = model.d_head
    at_base = model.score_divisor or math.sqrt(H)
    return at_base * math.sqrt(H / (model.base_head_size or H))


def output_multiplier(model: ModelConfig) -> float:
    """Factor of the activations before the head or a router: 1 / m.

    TP5 table 8, "Multiplier", output weights; CompleteP table 1, "Unemb. fwd".
    """
    return 1 / width_ratio(model)


def residual_multiplier(model: ModelConfig) -> float:
    """Factor of a sub-block's output before it is added to the residual stream: 1 / l.

    CompleteP table 1, "MHA residual" and "MLP residual", alpha = 1.
    """
    return 1 / depth_ratio(model)


def sinusoid_embedding_multiplier(model: ModelConfig) -> float:
    """Factor of the embeddings before sinusoids are added: sqrt of the base width.

    Vaswani et al. (2017), section 3.4, take sqrt(width), to the size of the sinusoids; TP5 table 8
    has no multiplier on input weights that grows.
    """
    return (model.base_d_model or model.d_model) ** 0.5
