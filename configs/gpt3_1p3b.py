"""GPT-3 XL, 1.3B parameters
(Brown et al. 2020, Language Models are Few-Shot Learners: section 2, appendix B, Tables 2.1, D.1).

    gpt-jax train configs/gpt3_1p3b.py

Hardware: 16 TPU v5p chips.
State: 21.1 GB of parameters, gradients and Adam moments (float32), over all devices.
Time: estimate, 162 tpu_v5p chip-days at 40% MFU, 10 days on 16: 2.57e21 FLOPs (convention `palm`)
/ (459e12 FLOP/s x 0.4 x 86,400 s). Not run by us.
Loss: only curves are published. The frontier of Figure 3.1, 2.57 C^-0.048, is at 2.20 nats per
token of the authors' validation text for this run's C = 25.2 PF-days (convention `kaplan`); a
model that is trained past the optimum ends above the frontier.

Oddity: Table 2.1 prints 24 heads of 128 at width 2048, which is 3072. The 1,320M parameters of
Table D.1 are those of 16 heads of 128 (24 would give 1,517M), so 16 it is.

Not published, and assumed: a batch of "1M" tokens is 512 sequences of 2048 (1,048,576 tokens); the
batch ramp takes 6 of the "4 to 12 billion" tokens; the bands are 256 tokens wide and every second
layer is banded, as in GPT-Neo; no dropout; weight decay leaves out biases and gains, as in GPT-1.
Padding the vocabulary to a multiple of 128 changes no result.

The corpus was never released: the paths stand for its five parts, and the weights are those of
Table 2.2. With shards of your own: --data.source shards --data.path DIR --data.mixture []
"""

from recipes.gpt3 import gpt3

from gpt_jax.config import Config


def get_config() -> Config:
    return gpt3(
        "gpt3_1p3b",
        n_layers=24,
        d_model=2048,
        n_heads=16,
        batch_sequences=512,
        ramp_tokens=6_000_000_000,
        learning_rate=2.0e-4,
    )
