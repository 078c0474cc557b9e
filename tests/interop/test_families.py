"""Families without their reference: published sizes, earlier forms of config.json, refusals."""

import pytest
from tiny_families import CASES, LLAMA_LIKE, NEOX, OPT

from gpt_jax import cli
from gpt_jax.config.overrides import load
from gpt_jax.cost.flops import count_parameters
from gpt_jax.interop.family import FAMILIES, family_of_config, find_family, read_config


def config_of(model_type, **facts):
    return read_config({"model_type": model_type} | facts, "config.json")[1]


@pytest.mark.parametrize("name", FAMILIES.names())
def test_published_sizes_are_ours_to_the_unit(name):
    family = FAMILIES.find(name)
    assert family.sizes
    for size in family.sizes:
        config = config_of(family.model_type, **size.facts)
        ours = count_parameters(config).n_params + family.unused(config)
        assert ours == size.n_params, size.name


def test_the_quickstarts_model_has_a_family():
    assert family_of_config(load("quickstart").model).model_type == "arcee"


@pytest.mark.parametrize("model_type", CASES)
def test_what_is_written_is_read_back(model_type):
    family = find_family(model_type)
    for facts in CASES[model_type]:
        config = config_of(model_type, **facts)
        assert family_of_config(config, model_type) is family
        assert config_of(model_type, **family.write(config)) == config


LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


@pytest.mark.parametrize(
    ("model_type", "older", "newer"),
    [
        ("llama", {"rope_theta": 5e5}, {"rope_parameters": {"rope_theta": 5e5}}),
        (
            "llama",
            {"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", **LLAMA3}},
            {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, **LLAMA3}},
        ),
        (
            "llama",
            {"rope_scaling": {"type": "linear", "factor": 4.0}},
            {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}},
        ),
        ("llama", {"rope_scaling": None, "head_dim": None}, {}),
        (
            "qwen2",
            {"use_sliding_window": False, "sliding_window": 9, "max_window_layers": 1},
            {"layer_types": ["full_attention"] * 2, "use_sliding_window": False},
        ),
        (
            "qwen2",
            {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1},
            {
                "use_sliding_window": True,
                "sliding_window": 9,
                "layer_types": ["full_attention", "sliding_attention"],
            },
        ),
        ("gemma", {"hidden_act": "gelu"}, {"hidden_activation": "gelu_pytorch_tanh"}),
        (
            "gemma3_text",
            {
                "head_dim": 8,
                "sliding_window_pattern": 2,
                "sliding_window": 5,
                "rope_theta": 1e6,
                "rope_local_base_freq": 1e4,
                "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            },
            {
                "head_dim": 8,
                "sliding_window": 5,
                "layer_types": ["sliding_attention", "full_attention"],
                "rope_parameters": {
                    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
                },
            },
        ),
        (
            "stablelm",
            {"partial_rotary_factor": 0.5},
            {"rope_parameters": {"partial_rotary_factor": 0.5, "rope_theta": 1e4}},
        ),
        ("smollm3", {}, {"no_rope_layers": [1, 1]}),
    ],
)
def test_earlier_forms_of_config_mean_the_same(model_type, older, newer):
    assert config_of(model_type, **LLAMA_LIKE, **older) == config_of(
        model_type, **LLAMA_LIKE, **newer
    )


def test_earlier_forms_of_gpt_neox_and_bloom():
    pythia = NEOX | {"rotary_pct": 0.5, "rotary_emb_base": 500}
    today = {"rope_parameters": {"partial_rotary_factor": 0.5, "rope_theta": 500.0}}
    assert config_of("gpt_neox", **pythia) == config_of("gpt_neox", **NEOX, **today)
    shape = {"vocab_size": 300, "n_layer": 2, "n_head": 4, "hidden_size": 32}
    older = {"vocab_size": 300, "num_hidden_layers": 2, "num_attention_heads": 4, "n_embed": 32}
    assert config_of("bloom", **shape) == config_of("bloom", **older)


@pytest.mark.parametrize(
    ("model_type", "facts", "named"),
    [
        ("opt", OPT | {"word_embed_proj_dim": 16}, "word_embed_proj_dim = 16"),
        ("stablelm", LLAMA_LIKE | {"qk_layernorm": True}, "qk_layernorm = true"),
        ("llama", LLAMA_LIKE | {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "dynamic"),
        ("llama", LLAMA_LIKE | {"rope_scaling": {"rope_type": "longrope"}}, "longrope"),
        ("llama", LLAMA_LIKE | {"hidden_act": "gelu"}, "hidden_act = gelu"),
        ("qwen3_moe", LLAMA_LIKE | {"mlp_only_layers": [0]}, "mlp_only_layers"),
        ("qwen3_moe", LLAMA_LIKE | {"decoder_sparse_step": 2}, "decoder_sparse_step = 2"),
        ("mixtral", LLAMA_LIKE | {"num_experts_per_tok": 1}, "num_experts_per_tok = 1"),
        ("smollm3", LLAMA_LIKE | {"use_sliding_window": True}, "use_sliding_window"),
        ("gemma2", LLAMA_LIKE | {"layer_types": ["chunked_attention"] * 2}, "chunked_attention"),
        ("gemma", LLAMA_LIKE | {"use_bidirectional_attention": True}, "bidirectional"),
        ("bloom", {"apply_residual_connection_post_layernorm": True}, "post_layernorm = true"),
        ("falcon", {}, "model_type = falcon; allowed: "),
        ("gpt_neox", {"vocab_size": 9}, "has no "),
    ],
)
def test_what_is_not_computed_is_refused_by_name(model_type, facts, named):
    with pytest.raises(ValueError, match=named):
        config_of(model_type, **facts)


def test_the_guide_holds_the_printed_table(repository, capsys):
    assert cli.main(["import", "--families"]) == 0
    printed = capsys.readouterr().out
    guide = (repository / "gpt_jax" / "interop" / "README.md").read_text()
    assert f"<!-- gpt-jax import --families -->\n{printed}<!-- end -->" in guide
    assert "published:" not in printed
