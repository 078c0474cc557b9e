"""The fast path of a CPU learns as float32 does: 200 steps of a 10.7M model, by three runs."""

import numpy as np
import pytest

from gpt_jax.config import overrides
from gpt_jax.cost import cpu_speed
from gpt_jax.runs.directory import RunDirectory
from gpt_jax.runs.tracking import read_records
from gpt_jax.train.loop import train

N_STEPS, BATCH, BLOCK = 200, 8, 256
REFERENCE = {
    "compute.dtype": "float32",
    "compute.products": "plain",
    "compute.loss": "whole",
    "compute.attention": "reference",
    "compute.layers": "scan",
}


@pytest.mark.slow
def test_losses_follow_the_reference_within_the_spread_of_two_seeds(
    repository, shared_data, tmp_path
):
    if not cpu_speed.cpu_multiplies_bfloat16():
        pytest.skip("this CPU does not multiply bfloat16: its fast path is float32")

    def losses(name, **changes):
        tokens = BATCH * BLOCK
        common = {
            "train.tokens": N_STEPS * tokens,
            "train.batch_sequences": BATCH,
            "schedule.warmup_tokens": 20 * tokens,
            "evaluate.every_tokens": N_STEPS * tokens,
            "data.path": str(shared_data / "text" / "tinyshakespeare.txt"),
            "data.cache": str(tmp_path / "cache"),
            **{f"model.dropout_{where}": 0.0 for where in ("embedding", "residual", "attention")},
        }
        config = overrides.load(
            repository / "configs" / "nanogpt_shakespeare_char.py", common | changes
        )
        train(config, tmp_path / name)
        records = read_records(RunDirectory(tmp_path / name).metrics)
        return np.array([record["loss"] for record in records if "loss" in record])

    fast = losses("fast")
    reference = losses("reference", **REFERENCE)
    other_seed = losses("seed", **REFERENCE, seed=1)
    assert len(fast) == len(reference) == len(other_seed) == N_STEPS
    assert reference[-1] < reference[0] - 1.5
    difference, spread = np.abs(fast - reference), np.abs(other_seed - reference)
    print(
        f"mean |difference| {difference.mean():.4f}, largest {difference.max():.4f}; "
        f"between seeds {spread.mean():.4f} and {spread.max():.4f} nats"
    )
    assert (difference > 0).any()
    assert difference.mean() < spread.mean()
    assert difference.max() < spread.max()
