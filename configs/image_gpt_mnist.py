"""Image GPT (Chen et al. 2020) on MNIST: a token a pixel, the next one predicted.

    python experiments/image_gpt/prepare.py MNIST image_gpt_data
    gpt-jax train configs/image_gpt_mnist.py

Hardware: a CPU with two cores.
Time: 7,092,000 tokens, 2,250 steps of 16 images; nine and a half minutes on two cores, shared with
other jobs.
Loss: 0.384 nats per pixel over the 1,000 held-out digits, one run; 0.740 by the pixel's place alone
(experiments/image_gpt, which also draws samples).

210,368 parameters. An image of 14 x 14 pixels in 8 levels of grey is a response to an empty prompt,
so a sequence is one image behind the token that begins it, and positions are pixels. The recipe is
that of shakespeare_char_cpu_best but for learned positions, as in the paper.
"""

from gpt_jax.config import (
    CheckpointConfig,
    Config,
    DataConfig,
    EvaluateConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    TaskConfig,
    TrainConfig,
)

DATA = "image_gpt_data"
N_PIXELS = 14 * 14


def get_config() -> Config:
    return Config(
        name="image_gpt_mnist",
        model=ModelConfig(
            vocab_size=9,
            seq_len=1 + N_PIXELS,
            n_layers=4,
            d_model=64,
            n_heads=4,
            bias=False,
            norm="rmsnorm",
            activation="relu_squared",
            position="learned",
            init_matrices="fan_in",
            init_residual="zero",
        ),
        data=DataConfig(tokenizer=f"{DATA}/tokenizer_spec.json"),
        task=TaskConfig(
            name="respond",
            train=f"{DATA}/train.jsonl",
            validation=f"{DATA}/validation.jsonl",
            template=f"{DATA}/template.json",
            epochs=4,
            warmup=0.02,
            validations=1,
        ),
        train=TrainConfig(batch_sequences=16),
        optimizer=OptimizerConfig(
            name="muon", learning_rate=5e-3, b1=0.95, b2=0.99, weight_decay=0.05
        ),
        schedule=ScheduleConfig(name="linear"),
        evaluate=EvaluateConfig(batch_sequences=50),
        checkpoint=CheckpointConfig(keep_latest=1),
    )
