"""From the token shards on the host to batches on the devices."""

import time
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Sharding

from gpt_jax.data.batch import Batch
from gpt_jax.data.stream import Stream
from gpt_jax.timetable import Timetable


def process_rows(batch_sequences: int) -> slice:
    """The rows of a global batch that this process reads."""
    each = batch_sequences // jax.process_count()
    return slice(jax.process_index() * each, (jax.process_index() + 1) * each)


def read_batches(
    stream: Stream, timetable: Timetable, first_step: int, n_steps: int, capacity: int
) -> tuple[Batch, float]:
    """This process's rows of the batches of consecutive steps, and the seconds it took.

    Arrays are [capacity, B, T], of which the first n_steps are filled. All these steps must have
    one batch size.
    """
    began = time.monotonic()
    sequences = timetable.batch_sequences(first_step)
    steps = range(first_step, first_step + n_steps)
    read = [
        stream.batch(timetable.samples_before(step), sequences, process_rows(sequences))
        for step in steps
    ]
    return stack(read, capacity), time.monotonic() - began


def stack(batches: Sequence[Batch], capacity: int) -> Batch:
    """Batches along a new dim in front, filled up with the last one."""
    filled = [*batches, *[batches[-1]] * (capacity - len(batches))]
    return jax.tree.map(lambda *arrays: np.stack(arrays), *filled)


def put_batch(batch: Batch, sharding: Sharding) -> Batch:
    """This process's rows of a batch, as global arrays on the mesh."""
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)
    return jax.tree.map(lambda rows: jax.make_array_from_process_local_data(sharding, rows), batch)


def put_count(n: int, sharding: Sharding) -> jax.Array:
    """A number of steps as an int32 on the devices: nothing of a step is moved there implicitly."""
    return jax.device_put(np.int32(n), sharding)
