"""config.json of tiny models of every family, with each flag that changes what is computed."""

from typing import Any

LLAMA_LIKE: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 44,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 48,
}
NEOX = {k: v for k, v in LLAMA_LIKE.items() if k != "num_key_value_heads"}
GPT = {"vocab_size": 300, "n_positions": 48, "n_embd": 32, "n_layer": 3, "n_head": 4}
OPT = {
    "vocab_size": 300,
    "hidden_size": 32,
    "ffn_dim": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 48,
    "word_embed_proj_dim": 32,
    "pad_token_id": None,
}
BLOOM = {"vocab_size": 300, "hidden_size": 32, "n_layer": 2, "n_head": 4, "seq_length": 48}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 24,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 100.0,
    "factor": 4.0,
    "original_max_position_embeddings": 20,
}
LINEAR = {"rope_type": "linear", "rope_theta": 100.0, "factor": 2.0}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2}

CASES: dict[str, list[dict[str, Any]]] = {
    "gpt2": [
        GPT | {"scale_attn_by_inverse_layer_idx": True},
        GPT | {"scale_attn_weights": False, "n_inner": 40, "activation_function": "gelu"},
        GPT | {"reorder_and_upcast_attn": True, "scale_attn_by_inverse_layer_idx": True},
    ],
    "openai-gpt": [GPT],
    "llama": [
        LLAMA_LIKE | {"rope_parameters": LLAMA3},
        LLAMA_LIKE | {"rope_parameters": YARN, "tie_word_embeddings": True, "head_dim": 12},
        LLAMA_LIKE | {"rope_parameters": YARN | {"attention_factor": 1.3, "beta_fast": 8.0}},
        LLAMA_LIKE | {"rope_parameters": LINEAR, "attention_bias": True},
        LLAMA_LIKE | {"attention_bias": True, "mlp_bias": True},
        LLAMA_LIKE | {"mlp_bias": True, "hidden_act": "gelu_pytorch_tanh"},
    ],
    "arcee": [
        LLAMA_LIKE,
        LLAMA_LIKE | {"tie_word_embeddings": True, "hidden_act": "gelu", "head_dim": 12},
        LLAMA_LIKE | {"rope_parameters": LLAMA3, "attention_bias": True, "mlp_bias": True},
    ],
    "gpt_neox": [
        NEOX,
        NEOX | {"use_parallel_residual": False, "tie_word_embeddings": True},
        NEOX
        | {
            "attention_bias": False,
            "hidden_act": "gelu_new",
            "rope_parameters": LINEAR | {"partial_rotary_factor": 0.5},
            "layer_norm_eps": 1e-3,
        },
        NEOX | {"rope_parameters": {"rope_theta": 50.0, "partial_rotary_factor": 1.0}},
    ],
    "qwen2": [
        LLAMA_LIKE,
        LLAMA_LIKE
        | {
            "num_hidden_layers": 4,
            "use_sliding_window": True,
            "max_window_layers": 1,
            "sliding_window": 5,
            "tie_word_embeddings": True,
        },
    ],
    "mistral": [
        LLAMA_LIKE | {"sliding_window": 7},
        LLAMA_LIKE | {"sliding_window": None, "head_dim": 12},
    ],
    "qwen3": [
        LLAMA_LIKE | {"head_dim": 12},
        LLAMA_LIKE
        | {
            "head_dim": 8,
            "attention_bias": True,
            "use_sliding_window": True,
            "max_window_layers": 1,
            "sliding_window": 6,
            "tie_word_embeddings": True,
        },
    ],
    "olmo": [
        LLAMA_LIKE | {"clip_qkv": 0.5},
        LLAMA_LIKE | {"attention_bias": True, "tie_word_embeddings": True},
    ],
    "olmo2": [LLAMA_LIKE, LLAMA_LIKE | {"attention_bias": True, "rms_norm_eps": 1e-3}],
    "smollm3": [
        LLAMA_LIKE | {"num_hidden_layers": 4, "pad_token_id": None},
        LLAMA_LIKE
        | {
            "num_hidden_layers": 4,
            "pad_token_id": None,
            "no_rope_layers": [0, 1, 0, 1],
            "attention_bias": True,
            "mlp_bias": True,
            "tie_word_embeddings": False,
        },
    ],
    "gemma": [
        LLAMA_LIKE | {"head_dim": 12, "num_key_value_heads": 1},
        LLAMA_LIKE | {"head_dim": 8, "attention_bias": True, "tie_word_embeddings": False},
    ],
    "gemma2": [
        LLAMA_LIKE | {"head_dim": 12, "sliding_window": 6, "query_pre_attn_scalar": 20},
        LLAMA_LIKE
        | {
            "head_dim": 8,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": None,
            "layer_types": ["full_attention", "full_attention"],
        },
    ],
    "gemma3_text": [
        LLAMA_LIKE | {"head_dim": 12, "num_hidden_layers": 7, "sliding_window": 6},
        LLAMA_LIKE
        | {
            "head_dim": 8,
            "sliding_window": 5,
            "layer_types": ["sliding_attention", "full_attention"],
            "query_pre_attn_scalar": 10,
            "final_logit_softcapping": 3.0,
            "rope_parameters": {
                "full_attention": LINEAR,
                "sliding_attention": {"rope_type": "default", "rope_theta": 30.0},
            },
        },
    ],
    "opt": [
        OPT,
        OPT | {"do_layer_norm_before": False, "activation_function": "gelu"},
        OPT | {"enable_bias": False, "_remove_final_layer_norm": True},
        OPT | {"layer_norm_elementwise_affine": False, "tie_word_embeddings": False},
    ],
    "bloom": [BLOOM, BLOOM | {"n_head": 6, "hidden_size": 36, "tie_word_embeddings": False}],
    "mixtral": [
        LLAMA_LIKE | {"num_local_experts": 4, "sliding_window": 6},
        LLAMA_LIKE | {"num_local_experts": 4, "num_experts_per_tok": 3, "head_dim": 12},
    ],
    "qwen3_moe": [
        LLAMA_LIKE
        | EXPERTS
        | {"head_dim": 12, "moe_intermediate_size": 20, "norm_topk_prob": True},
        LLAMA_LIKE | EXPERTS | {"moe_intermediate_size": 20, "attention_bias": True},
    ],
    "olmoe": [
        LLAMA_LIKE | EXPERTS | {"clip_qkv": 0.5},
        LLAMA_LIKE | EXPERTS | {"num_experts_per_tok": 1, "attention_bias": True},
        LLAMA_LIKE | EXPERTS | {"norm_topk_prob": True},
    ],
    "stablelm": [
        LLAMA_LIKE,
        LLAMA_LIKE | {"use_qkv_bias": True, "use_parallel_residual": True},
        LLAMA_LIKE
        | {
            "rope_parameters": {"rope_theta": 50.0, "partial_rotary_factor": 0.5},
            "tie_word_embeddings": True,
        },
    ],
}
"""model_type -> keys of config.json beside it."""
