"""GPT-1, 116,534,784 parameters
(Radford et al. 2018, Improving Language Understanding by Generative Pre-Training, section 4.1).

    gpt-jax train configs/gpt1.py --data.path DIRECTORY

Hardware: 8 A100 of 40 GB (OpenAI: 8 P600 for 30 days).
State: 1.86 GB of parameters, gradients and Adam moments (float32), over all devices.
Time: estimate, 7.01 a100_40gb chip-days at 40% MFU, 0.88 days on 8: 7.56e19 FLOPs (convention
`palm`) / (312e12 FLOP/s x 0.4 x 86,400 s). Not run by us.
Loss: 2.91 nats per token on held-out BooksCorpus, the published token perplexity of 18.4.

Published: all of the architecture; Adam with decoupled weight decay 0.01 "on all non bias or gain
weights"; 2.5e-4 after 2,000 steps of warmup, cosine to 0; 100 epochs in batches of 64 sequences of
512 tokens. Taken from the released fine-tuning code: Adam's b1, b2 and epsilon, clipping at 1.
Assumed: an epoch is 1e9 tokens (BooksCorpus has 985M words; its tokens are not published),
initialisation of residual projections like the rest.

BooksCorpus is no longer distributed: data.path stands for a directory of plain-text books.
"""

from gpt_jax.config import (
    CheckpointConfig,
    Config,
    DataConfig,
    EvaluateConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
)


def get_config() -> Config:
    return Config(
        name="gpt1",
        model=ModelConfig(
            vocab_size=40478,
            seq_len=512,
            n_layers=12,
            d_model=768,
            n_heads=12,
            norm_position="post",
            final_norm=False,
            dropout_embedding=0.1,
            dropout_residual=0.1,
            dropout_attention=0.1,
            init_residual="plain",
        ),
        data=DataConfig(source="text", path="data/bookscorpus", tokenizer="gpt1"),
        train=TrainConfig(tokens=100 * 1_000_000_000, batch_sequences=64),
        optimizer=OptimizerConfig(
            name="adamw",
            learning_rate=2.5e-4,
            b1=0.9,
            b2=0.999,
            epsilon=1e-8,
            weight_decay=0.01,
            decay="no_bias_or_gain",
            clip_norm=1.0,
        ),
        schedule=ScheduleConfig(
            name="cosine",
            warmup_tokens=2_000 * 64 * 512,
            final_fraction=0.0,
        ),
        evaluate=EvaluateConfig(every_tokens=1_000_000_000),
        checkpoint=CheckpointConfig(every_tokens=1_000_000_000),
    )
