"""How many training steps the host hands to the devices in one call.

A call costs the host about a millisecond whatever it computes: as much as a step of a small model.
The compiled step therefore takes several batches, and any number of steps up to that many
(`Steps.train_many`), each computed by the same instructions however they are grouped. The program's
capacity follows from the config alone, so that a run that is continued computes the same bits; how
much of it is used is measured.
"""

import time
from typing import Any

import jax

from gpt_jax.config import Config
from gpt_jax.cost import flops

MOST_STEPS = 16
SMALL_STEP = {"cpu": 1e10, "gpu": 2e12, "tpu": 2e12}
"""FLOPs of a step, on a CPU of all its cores, elsewhere of each device, up to which a call takes
several: some 20 to 50 milliseconds."""
CALL_SECONDS = 0.1
"""About how long a call lasts: the run can be stopped, and shows its progress, between two."""
FREE_SECONDS = 0.001
"""After its end, a call's temporary buffers are free; 0.2 to 0.7 ms were measured."""
MEASURED_CALLS = 3
"""One step each, after the first, which compiles."""


def capacity(config: Config, platform: str, n_devices: int) -> int:
    """The most steps of a call: `compute.steps_per_dispatch`, or by the FLOPs of a step."""
    if config.compute.steps_per_dispatch is not None:
        return config.compute.steps_per_dispatch
    tokens = config.train.batch_sequences * config.model.seq_len
    step = flops.training_flops(config.model, tokens, "6nd")
    small = step / (1 if platform == "cpu" else n_devices) <= SMALL_STEP[platform]
    return MOST_STEPS if small else 1


def waits(capacity: int, platform: str) -> bool:
    """Whether a call begins when the one before has ended.

    A CPU gives temporary buffers of its own to every call that is under way; where a call is one
    long step, they are large, and there is nothing to gain.
    """
    return platform == "cpu" and capacity == 1


def wait_for_end(outputs: Any) -> None:
    """Wait until a call on a CPU has ended and its temporary buffers are free for the next one.

    XLA frees them on a thread of its own, some tenths of a millisecond after the outputs are there.
    A call that begins before takes new ones: more memory, and pages to be mapped, call after call.
    """
    jax.block_until_ready(outputs)
    time.sleep(FREE_SECONDS)


class Pace:
    """Steps of the next call, from how long those before it took."""

    def __init__(self, config: Config, capacity: int):
        self._capacity = capacity
        # Processes of one run must agree, and each has its own clock.
        self._measured = config.compute.steps_per_dispatch is None and jax.process_count() == 1
        self._seconds: list[float] = []

    @property
    def steps(self) -> int:
        """As many as are asked for, or make a call last CALL_SECONDS."""
        if not self._measured or self._capacity == 1:
            return self._capacity
        if len(self._seconds) <= MEASURED_CALLS:
            return 1
        step_seconds = min(self._seconds[1:])
        return max(1, min(self._capacity, round(CALL_SECONDS / step_seconds)))

    def took(self, seconds: float) -> None:
        """Note how long each step of a call took."""
        if len(self._seconds) <= MEASURED_CALLS:
            self._seconds.append(seconds)
