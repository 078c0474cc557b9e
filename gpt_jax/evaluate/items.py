"""A task's items, read from its files or TensorFlow Datasets, or made. Must not import jax."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from gpt_jax.data import records
from gpt_jax.data.records import Located
from gpt_jax.evaluate.formats import files
from gpt_jax.evaluate.formats.form import Forms, shown
from gpt_jax.evaluate.tasks import Item, Task, prompts


class Items(NamedTuple):
    """A task's items, and where they are from."""

    items: list[Item]
    origin: str
    """File, data set or generator; empty where no training items are named."""
    forms: dict[str, int]
    """How many records came in each form; empty for a user's own task and made items."""


class Asked(NamedTuple):
    """The items of a task, and those that its demonstrations are drawn from."""

    items: list[Item]
    pool: list[Item]
    """Where demonstrations are drawn from; empty for zero-shot."""
    origin: str
    forms: dict[str, int]
    shots: int
    seed: int


def ask(
    task: Task,
    data: Path,
    shots: int = 0,
    seed: int = 0,
    limit: int | None = None,
    tfds: bool = False,
) -> Asked:
    """A task's items, or the first `limit` of them, with the pool of their demonstrations.

    Raises ValueError as `read_items` does, and for no items or fewer than the demonstrations need.
    """
    found = read_items(task, data, tfds, seed=seed)
    pool = (read_items(task, data, tfds, training=True).items or found.items) if shots else []
    items = found.items[:limit]
    if not items:
        raise ValueError(f"task {task.name}: {found.origin} holds no items")
    prompts(task, items[:1], pool, shots, seed)
    return Asked(items, pool, found.origin, found.forms, shots, seed)


def read_items(task: Task, data: Path, tfds: bool, training: bool = False, seed: int = 0) -> Items:
    """A task's items. Training items are none where the task names none.

    Raises ValueError where no file is found, or naming the file and line of a record that the task
    cannot read.
    """
    if tfds and task.tfds:
        name, *splits = task.tfds
        split = splits[1 if training else 0]
        numbered = enumerate(records.tfds_records(name, split), 1)
        found = (Located(f"TFDS {name} {split} record {i}", record) for i, record in numbered)
        return _items(task, found, f"TFDS {name} {split}")
    names = task.demonstrations if training else task.names()
    path = records.find(data, names) if names else None
    if path is not None:
        return read_file(task, path)
    if training:
        return Items([], "", {})
    if task.make is not None:
        return Items(task.make(seed), f"generated, seed {seed}", {})
    raise ValueError(
        f"task {task.name}: none of {', '.join(names)} is in {data}; give the directory by --data"
        + (f", or --tfds to read {task.tfds[0]}" if task.tfds else "")
    )


def read_file(task: Task, path: Path) -> Items:
    """The items of a file or folder of records. Raises ValueError as `read_items` does."""
    return _items(task, files.located(task, path), path.name)


def _items(task: Task, found: Iterable[Located], origin: str) -> Items:
    items: list[Item] = []
    forms: Counter[str] = Counter()
    for where, record in found:
        try:
            if isinstance(task.read, Forms):
                forms[task.read.form_of(record).name] += 1
            items += task.read(record)
        except ValueError as error:
            raise ValueError(f"{where}: task {task.name}: {error}") from None
        except (AttributeError, IndexError, KeyError, TypeError) as error:  # a user's own `read`
            fields = ", ".join(map(str, record)) if isinstance(record, Mapping) else shown(record)
            told = f"{type(error).__name__}: {error}"
            raise ValueError(
                f"{where}: task {task.name} cannot read this record ({told}); it has {fields}"
            ) from error
    return Items(items, origin, dict(forms))
