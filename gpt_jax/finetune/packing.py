"""Several examples in a row, which do not see each other. Must not import jax."""

from collections.abc import Sequence

import numpy as np

from gpt_jax.data.batch import Batch
from gpt_jax.finetune.inputs import Encoded


def packed(sequences: Sequence[Encoded], length: int, restart: bool = False) -> Batch:
    """Several sequences a row, numbered as segments: the longest first, each into the row where it
    leaves the least room.

    restart: positions are given, which begin with 0 in each segment, as they do where an example
    stands alone; otherwise a model counts them through the row.
    """
    rows: list[list[int]] = []
    with_room: list[list[int]] = [[] for _ in range(length + 1)]
    for i in sorted(range(len(sequences)), key=lambda i: -len(sequences[i].tokens)):
        size = len(sequences[i].tokens)
        room = next((room for room in range(size, length + 1) if with_room[room]), None)
        if room is None:
            room = length
            with_room[room].append(len(rows))
            rows.append([])
        row = with_room[room].pop()
        rows[row].append(i)
        with_room[room - size].append(row)
    shape = (len(rows), length)
    tokens, targets, segments, positions = (np.zeros(shape, np.int32) for _ in range(4))
    weights = np.zeros(shape, np.float32)
    for row, members in enumerate(rows):
        at = 0
        for number, i in enumerate(members, 1):
            sequence = sequences[i]
            size = len(sequence.tokens)
            tokens[row, at : at + size] = sequence.tokens
            targets[row, at : at + size - 1] = sequence.tokens[1:]
            weights[row, at : at + size - 1] = sequence.learned[1:]
            segments[row, at : at + size] = number
            positions[row, at : at + size] = np.arange(size)
            at += size
    batch = Batch(tokens, targets, weights, segments)
    return batch._replace(positions_BT=positions) if restart else batch
