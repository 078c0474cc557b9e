"""GPT-3 13B
(Brown et al. 2020, Language Models are Few-Shot Learners: section 2, appendix B, Tables 2.1, D.1).

    gpt-jax train configs/gpt3_13b.py --mesh.fsdp 16 --mesh.tensor 8

Hardware: 128 TPU v5p chips.
State: 206 GB of parameters, gradients and Adam moments (float32), over all devices.
Time: estimate, 1,510 tpu_v5p chip-days at 40% MFU, 12 days on 128: 2.40e22 FLOPs (convention
`palm`) / (459e12 FLOP/s x 0.4 x 86,400 s). Not run by us.
Loss: only curves are published. The frontier of Figure 3.1, 2.57 C^-0.048, is at 1.97 nats per
token of the authors' validation text for this run's C = 262 PF-days (convention `kaplan`); a model
that is trained past the optimum ends above the frontier.

Oddity: Table 2.1 prints width 5140 with 40 heads of 128, which is 5120. The 12,850M parameters of
Table D.1 are those of width 5120 (5140 would give 12,936M), so 5120 it is.

Not published, and assumed: a batch of "2M" tokens is 1024 sequences of 2048 (2,097,152 tokens);
the batch ramp takes 8 of the "4 to 12 billion" tokens; the bands are 256 tokens wide and every
second layer is banded, as in GPT-Neo; no dropout; weight decay leaves out biases and gains, as in
GPT-1. Padding the vocabulary to a multiple of 128 changes no result.

The corpus was never released: the paths stand for its five parts, and the weights are those of
Table 2.2. With shards of your own: --data.source shards --data.path DIR --data.mixture []
"""

from recipes.gpt3 import gpt3

from gpt_jax.config import Config


def get_config() -> Config:
    return gpt3(
        "gpt3_13b",
        n_layers=40,
        d_model=5120,
        n_heads=40,
        batch_sequences=1024,
        ramp_tokens=8_000_000_000,
        learning_rate=1.0e-4,
    )
