"""Checks of a task and its examples before training: refusals, and lines for the user.

Must not import jax.
"""

from collections.abc import Sequence

from gpt_jax.config import Config
from gpt_jax.finetune.inputs import Encoded, Encoder, Record, place


def said_of_reports(config: Config) -> list[str]:
    """Lines about choices that a report makes without being asked."""
    task = config.task
    said = list(task.entry.notes(config))
    if task.robustness and not task.test:
        said.append("task.robustness = true says nothing without task.test")
    return said


def said_of_cuts(
    encode: Encoder, rows: Sequence[list[Encoded]], found: Sequence[Record], path: str
) -> tuple[str, ...]:
    """How many examples were cut to the length, and how many lost targets by it.

    Raises ValueError if no example has a target left.
    """
    n, length = len(rows), encode.room
    cut = [i for i, row in enumerate(rows) if any(x.n_cut for x in row)]
    empty = [i for i, row in enumerate(rows) if not encode.has_targets(row)]
    partly = [i for i, row in enumerate(rows) if any(x.n_lost for x in row)]
    partly = sorted(set(partly) - set(empty))

    def first(indices: Sequence[int]) -> str:
        return f"(first: {place(found[indices[0]], path, indices[0])})"

    advice = "raise task.length, up to model.seq_len, or shorten the texts before them"
    if len(empty) == n:
        raise ValueError(
            f"{path}: none of {n:,} examples has a target within {length:,} tokens "
            f"{first(empty)}: nothing would be learned or measured; {advice}"
        )
    notes = []
    if cut:
        notes.append(f"{len(cut):,} of {n:,} examples are cut to {length:,} tokens {first(cut)}")
    # A word without a position is scored as if O were said of it.
    fate = "are not learned" if encode.task.entry.labels == "classes" else "do not count"
    if empty:
        notes.append(
            f"{len(empty):,} of {n:,} examples lost all of their targets {first(empty)} and {fate}"
            f"; {advice}"
        )
    if partly:
        notes.append(
            f"{len(partly):,} of {n:,} examples lost part of their targets {first(partly)}"
            f"; {advice}"
        )
    return tuple(f"{path}: {note}" for note in notes)


def said_of_prompts(
    prompts: Sequence[Encoded], found: Sequence[Record], path: str, room: int
) -> tuple[str, ...]:
    """How many prompts are longer than a sequence."""
    cut = [i for i, prompt in enumerate(prompts) if prompt.n_cut]
    if not cut:
        return ()
    first = place(found[cut[0]], path, cut[0])
    return (
        f"{path}: {len(cut):,} of {len(found):,} prompts are longer than {room:,} tokens (first: "
        f"{first}), and lose their ends",
    )
