"""From the token shards on the host to batches on the devices."""

import functools
import time
from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, Sharding

from gpt_jax.config.timetable import Timetable
from gpt_jax.data.batch import Batch
from gpt_jax.data.stream import Samples
from gpt_jax.parallel.sharding import Layout

Arrays = TypeVar("Arrays", Batch, np.ndarray)


def process_rows(batch_sequences: int, sharding: NamedSharding) -> np.ndarray:
    """The rows of a global batch that this process's devices hold, ascending: all that it reads.

    sharding: of [B, T]. Where devices of several processes hold the same rows (a tensor axis across
    hosts), each of these processes reads them.
    """
    # Rows alone matter: any length that the axes divide will do.
    return _held_rows(sharding, (batch_sequences, sharding.mesh.size))


def _held_rows(sharding: Sharding, shape: tuple[int, ...]) -> np.ndarray:
    """Indices along the dim before the last that this process's devices hold, ascending."""
    everything = np.arange(shape[-2])
    if jax.process_count() == 1:
        return everything
    places = sharding.addressable_devices_indices_map(shape).values()
    return np.unique(np.concatenate([everything[index[-2]] for index in places if index]))


def read_batches(
    stream: Samples,
    timetable: Timetable,
    first_step: int,
    n_steps: int,
    capacity: int,
    sharding: NamedSharding,
) -> tuple[Batch, float]:
    """This process's rows of the batches of consecutive steps, and the seconds it took.

    Arrays are [capacity, B, T], of which the first n_steps are filled. All these steps must have
    one batch size. sharding: of one batch, [B, T].
    """
    began = time.monotonic()
    sequences = timetable.batch_sequences(first_step)
    steps = range(first_step, first_step + n_steps)
    rows = process_rows(sequences, sharding)
    read = [stream.batch(timetable.samples_before(step), sequences, rows) for step in steps]
    return stack(read, capacity), time.monotonic() - began


def stack(batches: Sequence[Batch], capacity: int) -> Batch:
    """Batches along a new dim in front, filled up with the last one."""
    filled = [*batches, *[batches[-1]] * (capacity - len(batches))]
    return jax.tree.map(lambda *arrays: np.stack(arrays), *filled)


def put_batch(batch: Arrays, sharding: Sharding, n_rows: int | None = None) -> Arrays:
    """This process's rows of a batch, or of any arrays, as global arrays on the mesh.

    They are [..., rows, T]; n_rows: B of the global batch, which several processes have to say.
    """
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)

    assert n_rows is not None, "several processes must say how many rows all have"

    def put(mine: np.ndarray) -> jax.Array:
        shape = (*mine.shape[:-2], n_rows, mine.shape[-1])
        rows = _held_rows(sharding, shape)

        def part(index: Any) -> np.ndarray:
            wanted = np.searchsorted(rows, np.arange(n_rows)[index[-2]])
            return mine[(*index[:-2], wanted)][..., index[-1]]

        return jax.make_array_from_callback(shape, sharding, part)

    return jax.tree.map(put, batch)


def put_count(n: int, sharding: Sharding) -> jax.Array:
    """A number of steps as an int32 on the devices: nothing of a step is moved there implicitly."""
    return jax.device_put(np.int32(n), sharding)


def put_vote(mine: bool, layout: Layout) -> jax.Array | None:
    """Whether any process of the run says so, as an array that all can read; None if there is one.

    Every process must ask at the same place of the program, and read the same answers.
    """
    if jax.process_count() == 1:
        return None
    mesh = layout.mesh
    each = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    votes = jax.make_array_from_callback((mesh.size,), each, lambda _: np.array([mine]))
    return _any(votes, layout.everywhere)


@functools.partial(jax.jit, static_argnums=1)
def _any(votes: jax.Array, everywhere: NamedSharding) -> jax.Array:
    return jax.lax.with_sharding_constraint(jnp.any(votes), everywhere)
