"""The base model of experiments/finetune: a small GPT of English and Python.

    python experiments/finetune/prepare.py SHARED_DATA finetune_data
    gpt-jax data build --source jsonl --path finetune_data/english.jsonl --tokenizer bpe:8192 \\
        --validation-fraction 0.02 --output finetune_data/english
    gpt-jax data build --tokenizer finetune_data/english/tokenizer_spec.json \\
        --output finetune_data/python
    gpt-jax train configs/finetune_base.py

5,245,184 parameters, 3,148,032 of them not embeddings. Hardware: a CPU with two cores.
"""

from gpt_jax.config import (
    CheckpointConfig,
    Config,
    DataConfig,
    EvaluateConfig,
    MixtureComponent,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
)

TOKENS = 12_000_000


def get_config() -> Config:
    return Config(
        name="finetune_base",
        model=ModelConfig(
            vocab_size=8192,
            seq_len=128,
            n_layers=4,
            d_model=256,
            n_heads=4,
            bias=False,
            norm="rmsnorm",
            activation="relu_squared",
            position="rotary",
            init_matrices="fan_in",
            init_residual="zero",
        ),
        data=DataConfig(
            source="mixture",
            mixture=(
                MixtureComponent(path="finetune_data/english", weight=0.9),
                MixtureComponent(path="finetune_data/python", weight=0.1),
            ),
        ),
        train=TrainConfig(tokens=TOKENS, batch_sequences=32),
        optimizer=OptimizerConfig(
            name="muon", learning_rate=1e-2, b1=0.95, b2=0.99, weight_decay=0.05
        ),
        schedule=ScheduleConfig(name="linear", warmup_tokens=TOKENS // 50),
        evaluate=EvaluateConfig(
            every_tokens=TOKENS // 6, max_sequences=128, sample_prompt="The man", sample_tokens=100
        ),
        checkpoint=CheckpointConfig(every_tokens=TOKENS // 6),
    )
