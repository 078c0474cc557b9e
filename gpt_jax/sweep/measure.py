"""Time the steps that training runs, on this machine, without a corpus."""

import dataclasses
import statistics
import time

import jax
import numpy as np

from gpt_jax.config import Config
from gpt_jax.config.timetable import make_timetable
from gpt_jax.data.batch import Batch
from gpt_jax.models.gpt import make_gpt
from gpt_jax.parallel.dispatch import capacity
from gpt_jax.parallel.feed import put_batch, put_count, stack
from gpt_jax.parallel.sharding import make_layout
from gpt_jax.steps.compiled_steps import compile_steps
from gpt_jax.steps.step import make_settings

MIN_STEPS, MAX_STEPS, SECONDS = 3, 20, 2.0
"""Steps that are timed: as many as fit into so many seconds, within these bounds."""


@dataclasses.dataclass(frozen=True)
class Speed:
    """How fast a config trains here."""

    step_seconds: float
    """Median over a few steps with the full batch."""
    compile_seconds: float
    """Time of the first step beyond that of a step; short if the program was in the cache."""


def measure(config: Config) -> Speed:
    """Compile the config's training step as `gpt-jax train` does, and time it on random tokens.

    Raises ValueError if the config cannot be laid out on the devices here, or is no plain
    pretraining.
    """
    if not config.is_pretraining:
        raise ValueError(f"{config.name} is no plain pretraining; plan without measuring it")
    layout = make_layout(config)
    model = make_gpt(config.model, config.compute, layout)
    steps = compile_steps(config, model, layout)
    settings = jax.device_put(make_settings(config, make_timetable(config)), layout.everywhere)
    state = steps.init(jax.random.key(config.seed))
    n = capacity(config, layout.mesh.devices.flat[0].platform, layout.mesh.size)
    batches = put_batch(stack([_random_batch(config)], n), layout.batches)
    count = put_count(n, layout.everywhere)
    times: list[float] = []
    began = time.perf_counter()
    while len(times) <= MIN_STEPS or (len(times) <= MAX_STEPS and sum(times[1:]) < SECONDS):
        state, metrics = steps.train(state, batches, count, settings)
        jax.block_until_ready(metrics.loss)
        now = time.perf_counter()
        times.append((now - began) / n)
        began = now
    step_seconds = statistics.median(times[1:])
    return Speed(step_seconds, max(0.0, n * (times[0] - step_seconds)))


def _random_batch(config: Config) -> Batch:
    """A full batch; sweeps train in one process."""
    shape = (config.train.batch_sequences, config.model.seq_len)
    random = np.random.default_rng(0)
    tokens, targets = random.integers(0, config.model.vocab_size, (2, *shape), np.int32)
    segments = np.ones(shape, np.int32) if config.data.separate_documents else None
    return Batch(tokens, targets, np.ones(shape, np.float32), segments)
