"""GPT-3, 175B parameters
(Brown et al. 2020, Language Models are Few-Shot Learners: section 2, appendix B, Tables 2.1, D.1).

    gpt-jax train configs/gpt3_175b.py \
        --mesh.fsdp 64 --mesh.tensor 8 --train.ramp_from_sequences 64

Hardware: 512 TPU v5p chips. Their 64 shares of a batch need batches that 64 divides, so the
command starts the ramp at 64 sequences (131k tokens) and not at the paper's 32k tokens.
State: 2.79 TB of parameters, gradients and Adam moments (float32), over all devices.
Time: estimate, 20,100 tpu_v5p chip-days at 40% MFU, 39 days on 512: 3.19e23 FLOPs (convention
`palm`) / (459e12 FLOP/s x 0.4 x 86,400 s). Not run by us.
Loss: only curves are published. The frontier of Figure 3.1, 2.57 C^-0.048, is at 1.73 nats per
token of the authors' validation text for this run's C = 3,620 PF-days (convention `kaplan`); a
model that is trained past the optimum ends above the frontier.

Not published, and assumed: a batch of "3.2M" tokens is 1536 sequences of 2048 (3,145,728 tokens),
the multiple of 512 nearest to 3.2M tokens, as in Narayanan et al. 2021 (Table 2); the batch ramp
takes 12 of the "4 to 12 billion" tokens; the bands are 256 tokens wide and every second layer is
banded, as in GPT-Neo; no dropout; weight decay leaves out biases and gains, as in GPT-1. Padding
the vocabulary to a multiple of 128 changes no result.

The corpus was never released: the paths stand for its five parts, and the weights are those of
Table 2.2. With shards of your own: --data.source shards --data.path DIR --data.mixture []
"""

from recipes.gpt3 import gpt3

from gpt_jax.config import Config


def get_config() -> Config:
    return gpt3(
        "gpt3_175b",
        n_layers=96,
        d_model=12288,
        n_heads=96,
        batch_sequences=1536,
        ramp_tokens=12_000_000_000,
        learning_rate=0.6e-4,
    )
