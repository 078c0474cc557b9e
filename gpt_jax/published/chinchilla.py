"""The tables of Hoffmann et al. 2022 (Chinchilla) beside ours.

Must not import jax.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from gpt_jax.config import ModelConfig
from gpt_jax.cost.flops import count_parameters, forward_flops_per_sequence
from gpt_jax.published.compare import Comparison, Row, compare, load, load_rows, rounding
from gpt_jax.published.fits import CHINCHILLA, KAPLAN, Fits, against_fit

APPROACHES = {
    "1. minimum over training curves": "chinchilla-envelope",
    "2. IsoFLOP profiles": "chinchilla-isoflop",
    "3. parametric fit": "chinchilla-parametric",
}
"""Row of Table 2 -> our law."""
A_GPT = "ours: a GPT with RMSNorm, biases and a tied head"
SYMBOLS = ("E", "A", "B", "alpha", "beta")


def table_2(fits: Fits) -> Comparison:
    """Exponents of N_opt and D_opt, with what follows from printed laws; Kaplan's as well."""
    data, kaplan = load("chinchilla"), load("kaplan2020")
    refit = load("besiroglu2024")["refit"]
    intervals = {row[0]: row[1:] for row in data["table_2_intervals"]["rows"]}
    *printed, (kaplan_label, kaplan_a, kaplan_b) = data["table_2_exponents"]["rows"]
    rows = []
    for label, a, b in printed:
        law, (around_a, around_b) = APPROACHES[label], intervals[label]
        cells = [
            against_fit("a", a, fits, law, "a", CHINCHILLA, around_a),
            against_fit("b", b, fits, law, "b", CHINCHILLA, around_b),
        ]
        if law == "chinchilla-parametric":
            for who, its in (("the printed law", data["approach_3_printed"]), ("its refit", refit)):
                alpha, beta = its["alpha"], its["beta"]
                total, slack = float(alpha + beta), rounding(alpha, beta) / 2
                cells.append(compare(f"a from {who}", a, float(beta) / total, slack))
                cells.append(compare(f"b from {who}", b, float(alpha) / total, slack))
        rows.append(Row(label, tuple(cells)))
    exponents = kaplan["compute_optimal"]["exponents"]
    cells = [
        compare("a, in Kaplan's paper", kaplan_a, float(exponents["N"])),
        compare(
            "b, as exponents of B and S there", kaplan_b, float(exponents["B"] + exponents["S"])
        ),
    ]
    for law in APPROACHES.values():
        if law in fits.by_law:
            cells.append(against_fit(f"a of {law}", kaplan_a, fits, law, "a", KAPLAN))
            cells.append(against_fit(f"b of {law}", kaplan_b, fits, law, "b", KAPLAN))
    rows.append(Row(kaplan_label, tuple(cells)))
    odd = data["oddities"]
    return Comparison(
        "Chinchilla, Table 2: N_opt ~ C^a, D_opt ~ C^b",
        data["paper"],
        "N counts all parameters (Kaplan: without embeddings); C = 6 N D; the paper's intervals "
        "are 80%, ours 95%; its refit: Besiroglu et al. 2024",
        tuple(rows),
        (odd["table_2_intervals"], odd["approach_3_printed"], kaplan["oddities"]["conventions"]),
    )


def approach_3(fits: Fits) -> Comparison:
    """The law as printed, refitted by Besiroglu et al., and by us."""
    data, besiroglu = load("chinchilla"), load("besiroglu2024")
    law, printed = "chinchilla-parametric", data["approach_3_printed"]
    ours = tuple(against_fit(s, printed[s], fits, law, s, CHINCHILLA) for s in SYMBOLS)
    refit = tuple(against_fit(s, besiroglu["refit"][s], fits, law, s, CHINCHILLA) for s in SYMBOLS)
    return Comparison(
        "Chinchilla, approach 3: L = E + A/N^alpha + B/D^beta",
        data["paper"],
        f"N counts all parameters; {printed['loss']}; E, A and B depend on corpus and tokenizer; "
        f"refit: {besiroglu['paper']}, {besiroglu['method']}",
        (Row("parametric fit", ours), Row("refit by Besiroglu et al.", refit)),
        (data["oddities"]["approach_3_printed"],),
    )


def table_3(_: Fits) -> Comparison:
    """Approach 1's optimal models: the printed compute is 6 N D of the printed N and D."""
    data = load("chinchilla")
    rows = []
    for params, flops, tokens in data["table_3_approach_1"]["rows"]:
        ours = 6 * float(params) * float(tokens)
        cell = compare("FLOPs = 6 N D", flops, ours, rounding(params, tokens))
        rows.append(Row(f"{_billions(params)} on {_billions(tokens)} tokens", (cell,)))
    return Comparison(
        "Chinchilla, Table 3: compute-optimal models by approach 1",
        data["paper"],
        "N counts all parameters; 6 N D of the printed N and D, their rounding allowed for",
        tuple(rows),
    )


def table_a3(_: Fits) -> Comparison:
    """Optimal tokens by approaches 2 and 3, beside those of the printed law and of its refit."""
    data, refit = load("chinchilla"), load("besiroglu2024")["refit"]
    printed_law, rows = data["approach_3_printed"], []
    by_approach_3 = {row[0]: row[1:] for row in data["table_A3_approach_3"]["rows"]}
    for params, tokens in data["table_A3_approach_2_tokens"]["rows"]:
        flops_3, tokens_3 = by_approach_3[params]
        six_nd = 6 * float(params) * float(tokens_3)
        cells = (
            compare("2: tokens; refit", tokens, optimal_tokens(refit, float(params))),
            compare("3: tokens; printed law", tokens_3, optimal_tokens(printed_law, float(params))),
            compare("3: FLOPs = 6 N D", flops_3, six_nd, rounding(params, tokens_3)),
        )
        rows.append(Row(_billions(params), cells))
    return Comparison(
        "Chinchilla, Table A3: optimal tokens by approaches 2 and 3",
        data["paper"],
        "N counts all parameters; ours: the optimum of approach 3 as printed, and as refitted by "
        "Besiroglu et al. 2024; 6 N D of the printed N and D",
        tuple(rows),
        (data["oddities"]["table_A3"], data["oddities"]["approach_3_printed"]),
    )


def table_a4(_: Fits) -> Comparison:
    """FLOPs as appendix F counts them over 6 N D."""
    data = load("chinchilla")
    sizes = {(m["n_layers"], m["d_model"]): m["params"] for m in load_rows("chinchilla_models")}
    rows = []
    for label, layers, width, hidden, heads, head, ratio in data["table_A4"]["rows"]:
        model = _model(layers, width, heads, head, hidden)
        n_params = sizes[int(layers), int(width)]
        per_token = forward_flops_per_sequence(model, "chinchilla") / model.seq_len
        softmax = 3 * model.n_heads * model.n_layers * model.seq_len
        embedding_and_head = 2 * 2 * model.vocab_size * model.d_model
        # Table A9's sizes are printed in millions.
        slack = 0.5e6 / n_params
        cells = (
            compare("appendix F, as printed", ratio, per_token / (2 * n_params), slack),
            compare(
                "without embedding, head, softmax",
                ratio,
                (per_token - softmax - embedding_and_head) / (2 * n_params),
                slack,
            ),
        )
        rows.append(Row(label, cells))
    return Comparison(
        "Chinchilla, Table A4: FLOPs over 6 N D",
        data["paper"],
        "N of Table A9, its rounding allowed for; vocabulary 32,000 and 2,048 tokens, neither of "
        "which appendix F prints",
        tuple(rows),
        (data["oddities"]["table_A4"],),
    )


def table_a9(_: Fits) -> Comparison:
    data = load("chinchilla")
    rows = []
    for entry in load_rows("chinchilla_models"):
        shape = (entry[k] for k in ("n_layers", "d_model", "n_heads", "d_head", "d_ff"))
        model = _model(*shape)
        printed = Decimal(entry["params"]).scaleb(-6).normalize().quantize(Decimal(1))
        label = f"{model.n_layers} layers, width {model.d_model}, {model.n_heads} heads"
        rows.append(Row(label, _sizes(model, "parameters (M)", printed, 1e6)))
    return Comparison(
        "Chinchilla, Table A9: the models",
        data["paper"],
        f"N counts all parameters, vocabulary 32,000; {A_GPT}",
        tuple(rows),
        (data["oddities"]["table_A9"],),
    )


def chinchilla_70b(_: Fits) -> Comparison:
    data = load("chinchilla")
    shape = data["chinchilla_70b"]
    width = shape["d_model"]
    model = _model(shape["n_layers"], width, shape["n_heads"], shape["d_head"], 4 * width)
    return Comparison(
        "Chinchilla, Table 4: the model of 70 billion parameters",
        data["paper"],
        f"N counts all parameters, vocabulary 32,000; {A_GPT}",
        (Row("80 layers, width 8192", _sizes(model, "parameters (B)", Decimal(70), 1e9)),),
        (data["oddities"]["table_A9"],),
    )


def optimal_tokens(law: Mapping[str, Any], n_params: float) -> float:
    """D at which a model of n_params is compute-optimal under A/N^alpha + B/D^beta, C = 6 N D.

    There dL / dlog N = dL / dlog D: alpha A N^-alpha = beta B D^-beta.
    """
    a, alpha, b, beta = (float(law[k]) for k in ("A", "alpha", "B", "beta"))
    return (beta * b / (alpha * a / n_params**alpha)) ** (1 / beta)


def _model(layers: Any, width: Any, heads: Any, head: Any, hidden: Any) -> ModelConfig:
    conventions = load("chinchilla")["conventions"]
    return ModelConfig(
        vocab_size=int(conventions["vocab_size"]),
        seq_len=int(conventions["seq_len"]),
        n_layers=int(layers),
        d_model=int(width),
        n_heads=int(heads),
        head_size=int(head),
        ffn_size=int(hidden),
        norm="rmsnorm",
        position="none",
    )


def _sizes(model: ModelConfig, name: str, printed: Decimal, unit: float) -> tuple[Any, ...]:
    ours = count_parameters(model).n_params
    relative = model.n_layers * model.d_model * model.n_heads * model.d_head
    return (
        compare(name, printed, ours / unit),
        compare("with relative positions", printed, (ours + relative) / unit),
    )


def _billions(count: Decimal) -> str:
    return f"{float(count) / 1e9:g}B"
