"""Tables of shapes, counts and scores: the paper's numbers beside our closed forms.

Must not import jax.
"""

from collections.abc import Callable
from decimal import Decimal

from gpt_jax.config import ModelConfig, overrides
from gpt_jax.cost.flops import count_parameters, forward_flops_per_sequence, parameter_shapes
from gpt_jax.published.compare import (
    FLOPS_PER_PF_DAY,
    Comparison,
    Row,
    compare,
    load,
    not_comparable,
    rounding,
)
from gpt_jax.published.fits import Fits

OPENAI_WEIGHTS = "it needs OpenAI's weights or training corpus, which are not here"
GPT3_CONFIGS = {
    "Small": "gpt3_125m",
    "Medium": "gpt3_350m",
    "Large": "gpt3_760m",
    "XL": "gpt3_1p3b",
    "2.7B": "gpt3_2p7b",
    "6.7B": "gpt3_6p7b",
    "13B": "gpt3_13b",
    "175B": "gpt3_175b",
}
"""Row of Table 2.1 -> our config of it."""


def gpt1_architecture(_: Fits) -> Comparison:
    data = load("gpt1")
    shape = data["architecture"]
    model = ModelConfig(
        vocab_size=int(shape["vocab_size"]),
        seq_len=int(shape["seq_len"]),
        n_layers=int(shape["n_layers"]),
        d_model=int(shape["d_model"]),
        n_heads=int(shape["n_heads"]),
        ffn_size=int(shape["d_ff"]),
        norm_position="post",
        final_norm=False,
    )
    size = compare("parameters", shape["n_params"], count_parameters(model).n_params)
    perplexity = data["pretraining"]["token_perplexity"]
    reason = "it needs BooksCorpus, which is not here"
    cells = (size, not_comparable("perplexity of a token", perplexity, reason))
    return Comparison(
        "GPT-1: the released model",
        data["paper"],
        "N counts all parameters",
        (Row("12 layers, width 768", cells),),
    )


def gpt1_scores(table: str, title: str) -> Callable[[Fits], Comparison]:
    """Accuracies after fine-tuning the released model."""

    def build(_: Fits) -> Comparison:
        data = load("gpt1")
        rows = tuple(
            Row(task, (not_comparable("score", value, OPENAI_WEIGHTS),))
            for task, value in data[table].items()
        )
        return Comparison(title, data["paper"], "fine-tuned from the released model", rows)

    return build


def gpt2_table_2(_: Fits) -> Comparison:
    data = load("gpt2")
    common, rows = data["common"], []
    for entry in data["table_2_models"]:
        model = ModelConfig(
            vocab_size=int(common["vocab_size"]),
            seq_len=int(common["seq_len"]),
            n_layers=int(entry["n_layers"]),
            d_model=int(entry["d_model"]),
            n_heads=int(entry["n_heads"]),
        )
        ours = count_parameters(model).n_params
        printed = compare("as printed", millions(entry["printed"]), ours)
        released = compare("as released", entry["n_params_released"], ours)
        rows.append(Row(entry["printed"], (printed, released)))
    return Comparison(
        "GPT-2, Table 2: model sizes",
        data["paper"],
        "N counts all parameters",
        tuple(rows),
        (data["oddities"]["table_2_models"],),
    )


def gpt3_table_2_1(_: Fits) -> Comparison:
    data = load("gpt3")
    rows = []
    for name, printed, layers, width, heads, head, batch, rate in data["table_2_1"]["rows"]:
        model, config = gpt3_model(name), overrides.load(GPT3_CONFIGS[name])
        batch_tokens = config.train.batch_sequences * config.model.seq_len
        cells = (
            compare("parameters", millions(printed), count_parameters(model).n_params),
            compare("layers", layers, model.n_layers),
            compare("width", width, model.d_model),
            compare("heads", heads, model.n_heads),
            compare("head size", head, model.d_head),
            compare("batch (tokens)", batch, batch_tokens),
            compare("learning rate", rate, config.optimizer.learning_rate),
        )
        rows.append(Row(name, cells))
    return Comparison(
        "GPT-3, Table 2.1: model shapes",
        data["paper"],
        "N counts all parameters; batch and learning rate are those of configs/gpt3_*.py",
        tuple(rows),
        (data["oddities"]["table_2_1"],),
    )


def gpt3_table_d1(_: Fits) -> Comparison:
    data = load("gpt3")
    rows = []
    for name, pf_days, flops, params, tokens in data["table_D_1_training_compute"]["rows"]:
        n_params = count_parameters(gpt3_model(name)).n_params
        n_tokens = float(tokens) * 1e9
        # Zeros at the end of the printed counts are rounding, and the compute is made from them.
        params, pf_days = params.normalize(), pf_days.normalize()
        slack = rounding(params)
        cells = (
            compare("parameters (M)", params, n_params / 1e6),
            compare("FLOPs = 6 N D", flops, 6 * n_params * n_tokens, slack),
            compare("PF-days", pf_days, 6 * n_params * n_tokens / float(FLOPS_PER_PF_DAY), slack),
        )
        rows.append(Row(name, cells))
    return Comparison(
        "GPT-3, Table D.1: training compute",
        data["paper"],
        "N counts all parameters; C = 6 N D with 300 billion tokens, attention left out",
        tuple(rows),
        (data["oddities"]["table_2_1"],),
    )


def gpt3_model(name: str) -> ModelConfig:
    """The shape behind Table D.1's counts: Table 2.1's, its two oddities resolved."""
    data = load("gpt3")
    common = data["common"]
    row = next(r for r in data["table_2_1"]["rows"] if r[0] == name)
    n_layers, d_model, n_heads, d_head = (int(v) for v in row[2:6])
    if name == "13B":
        d_model = n_heads * d_head
    return ModelConfig(
        vocab_size=int(common["vocab_size"]),
        seq_len=int(common["seq_len"]),
        n_layers=n_layers,
        d_model=d_model,
        n_heads=d_model // d_head,
    )


def kaplan_table_1(_: Fits) -> Comparison:
    """The formulas of the paper and our own counts, both for one shape."""
    data = load("kaplan2020")
    conventions = data["conventions"]
    model = ModelConfig(
        vocab_size=int(conventions["vocab_size"]), seq_len=int(conventions["seq_len"])
    )
    D, L, F = model.d_model, model.n_layers, model.d_ff
    V, T, attention = model.vocab_size, model.seq_len, model.n_heads * model.d_head
    counts = count_parameters(model)
    n_printed = 2 * D * L * (2 * attention + F)
    qkv = sum(kernel_size(model, f"attention/{name}") for name in ("query", "key", "value"))
    project, mlp = kernel_size(model, "attention/out"), kernel_size(model, "mlp")
    whole = forward_flops_per_sequence(model, "kaplan_table_1") / T
    products = 2 * counts.n_params_matmul
    mask = forward_flops_per_sequence(model, "exact_causal") / T - products
    embed = counts.token_embedding + counts.position_embedding
    ours: dict[str, tuple[float | None, float | None, float | None, float | None]] = {
        "Embed": ((V + T) * D, embed, None, None),
        "Attention: QKV": (L * D * 3 * attention, qkv, 2 * L * D * 3 * attention, 2 * qkv),
        "Attention: Mask": (None, None, 2 * L * T * attention, mask),
        "Attention: Project": (L * attention * D, project, 2 * L * attention * D, 2 * project),
        "Feedforward": (L * 2 * D * F, mlp, 2 * L * 2 * D * F, 2 * mlp),
        "De-embed": (None, None, 2 * D * V, 2 * (counts.n_params_matmul - qkv - project - mlp)),
        "Total (Non-Embedding)": (
            n_printed,
            counts.n_params_non_embedding,
            2 * n_printed + 2 * L * T * attention,
            whole,
        ),
    }
    rows = []
    for operation, parameters, flops in data["table_1"]["rows"]:
        paper_n, our_n, paper_c, our_c = ours.get(operation, (None,) * 4)
        cells = []
        if paper_n is not None and our_n is not None:
            cells.append(compare(f"parameters: {parameters}", Decimal(int(paper_n)), our_n))
        if paper_c is not None and our_c is not None:
            cells.append(compare(f"FLOPs: {flops}", Decimal(int(paper_c)), our_c))
        elif flops:
            reason = "ours counts matrix products, and a look-up is none"
            cells.append(not_comparable(f"FLOPs: {flops}", flops, reason))
        rows.append(Row(operation, tuple(cells)))
    return Comparison(
        f"Kaplan et al., Table 1: parameters and forward FLOPs per token, at {L} layers, width {D}",
        data["paper"],
        "N leaves out embeddings, biases and norms (ours has the last two: 0.1%); a product of "
        "m x k and k x n is 2 m k n FLOPs; Mask, ours: scores and values of the tokens that a "
        "query sees, itself included (without that one the paper's)",
        tuple(rows),
        (data["oddities"]["table_1"], data["oddities"]["conventions"]),
    )


def kernel_size(model: ModelConfig, part: str) -> int:
    """Weights of the projections whose path holds `part`, over all layers."""
    total = 0
    for path, shape in parameter_shapes(model).items():
        if f"/{part}/" in path and path.endswith("/kernel"):
            size = 1
            for dim in shape:
                size *= dim
            total += size
    return total


def millions(printed: str) -> Decimal:
    """'125M' or '1.3B' as a number of parameters with the printed digits."""
    scale = {"M": 6, "B": 9}[printed[-1]]
    return Decimal(printed[:-1]).scaleb(scale)
