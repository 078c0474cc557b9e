"""GPT-3 2.7B
(Brown et al. 2020, Language Models are Few-Shot Learners: section 2, appendix B, Tables 2.1, D.1).

    gpt-jax train configs/gpt3_2p7b.py --mesh.fsdp 16

Hardware: 16 TPU v5p chips.
State: 42.4 GB of parameters, gradients and Adam moments (float32), over all devices.
Time: estimate, 322 tpu_v5p chip-days at 40% MFU, 20 days on 16: 5.11e21 FLOPs (convention `palm`)
/ (459e12 FLOP/s x 0.4 x 86,400 s). Not run by us.
Loss: only curves are published. The frontier of Figure 3.1, 2.57 C^-0.048, is at 2.13 nats per
token of the authors' validation text for this run's C = 52.5 PF-days (convention `kaplan`); a
model that is trained past the optimum ends above the frontier.

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
        "gpt3_2p7b",
        n_layers=32,
        d_model=2560,
        n_heads=32,
        batch_sequences=512,
        ramp_tokens=6_000_000_000,
        learning_rate=1.6e-4,
    )
