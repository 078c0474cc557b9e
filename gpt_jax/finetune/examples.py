"""A task's examples as arrays, and the seekable stream of batches made of them.

As with a corpus, sample i is a pure function of (seed, i): an epoch is a keyed permutation of the
examples. Must not import jax.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from gpt_jax.config import Config, TaskConfig, overrides
from gpt_jax.config.entries import POSITIONS
from gpt_jax.config.timetable import sample_tokens
from gpt_jax.data.batch import Batch
from gpt_jax.data.permutation import U64, fold, permute
from gpt_jax.data.stream import SampleLocation
from gpt_jax.data.tokenizers import Tokenizer
from gpt_jax.finetune.checks import said_of_cuts, said_of_prompts
from gpt_jax.finetune.inputs import Encoded, Encoder, Record, encoder, place
from gpt_jax.finetune.packing import packed
from gpt_jax.finetune.reading import class_names, read_records, split_records
from gpt_jax.finetune.templates import asked_and_expected
from gpt_jax.storage.checksum import checksum
from gpt_jax.storage.places import on_disk

Item = TypeVar("Item")

LENGTH_MULTIPLE = 8
"""Lengths are rounded up to it."""


@dataclasses.dataclass(frozen=True)
class Examples:
    """N rows of K sequences of T tokens, and the records that they are of."""

    name: str
    records: Sequence[Record]
    batch: Batch
    """All rows, as one batch of numpy arrays [N, K T]."""
    n_sequences: int
    images_NX: np.ndarray | None = None
    """Image of each row, flattened; None without images."""
    notes: tuple[str, ...] = ()
    """One line each: examples that were cut, and those left out because no target remained."""

    @property
    def n_rows(self) -> int:
        return len(self.batch.tokens_BT)

    def rows(self, indices: np.ndarray) -> Batch:
        """The rows of these indices; those of -1 are padding, in which nothing counts."""
        taken = [None if x is None else x[indices] for x in self.batch]
        batch = Batch(*taken)
        if self.images_NX is not None:
            batch = batch._replace(images_BX=self.images_NX[indices])
        for x in (batch.weights_BT, batch.label_weights_BT):
            if x is not None:
                x[indices < 0] = 0
        return batch


class ExampleStream:
    """An endless, seekable stream of shuffled examples: `gpt_jax.data.stream.Stream` of a task."""

    def __init__(self, examples: Examples, seed: int):
        self.examples = examples
        self._key = fold(np.full(1, seed % 2**64, U64), np.zeros(1, U64))

    def batch(
        self, first_sample: int, batch_sequences: int, rows: slice | np.ndarray | None = None
    ) -> Batch:
        """Samples [first_sample, first_sample + batch_sequences), or those `rows` of them."""
        _, example = self._locate(first_sample, batch_sequences)
        return self.examples.rows(example if rows is None else example[rows])

    def sample_locations(self, first_sample: int, n: int) -> list[SampleLocation]:
        """Location of each sample: file, epoch, and the index of the example in the file."""
        epoch, example = self._locate(first_sample, n)
        return [
            SampleLocation(first_sample + i, self.examples.name, e, x)
            for i, (e, x) in enumerate(zip(epoch.tolist(), example.tolist(), strict=True))
        ]

    def _locate(self, first_sample: int, n: int) -> tuple[np.ndarray, np.ndarray]:
        """(epoch, index of the example) of each sample."""
        size = self.examples.n_rows
        epoch, position = np.divmod(np.arange(first_sample, first_sample + n, dtype=U64), U64(size))
        keys = fold(self._key, epoch)
        return epoch.astype(np.int64), permute(position, size, keys).astype(np.int64)


def in_order(
    examples: Examples,
    batch_rows: int,
    max_rows: int | None = None,
    rows: slice | np.ndarray | None = None,
) -> Iterator[tuple[np.ndarray, Batch]]:
    """(indices, batch) of all examples in order, in batches of one shape; -1 = padding.

    max_rows takes so many, evenly spaced. rows: those of each batch that are read.
    """
    n = examples.n_rows if max_rows is None else min(max_rows, examples.n_rows)
    chosen = np.arange(n) * examples.n_rows // n
    for first in range(0, n, batch_rows):
        indices = np.full(batch_rows, -1)
        part = chosen[first : first + batch_rows]
        indices[: len(part)] = part
        yield indices, examples.rows(indices if rows is None else indices[rows])


def resolve(config: Config, tokenizer: Tokenizer) -> Config:
    """The config with what its training examples decide: labels, length, tokens in all.

    Identity for pretraining, and for a config that has been resolved.
    """
    task = config.task
    if not task.has_examples:
        return config
    training, _ = split_records(config)
    changes: dict[str, Any] = {}
    if task.entry.labels in ("class", "classes") and not task.labels:
        changes["task.labels"] = class_names(training, config)
    if task.images and not task.image_shape:
        changes["task.image_shape"] = image_shape(open_images(task.images))
        config = overrides.override(config, changes)
    if task.length is None:
        labelled = overrides.override(config, changes)
        encode = encoder(config.model, labelled.task, tokenizer, n_prefix(config))
        rows = encode_each(encode, training, task.train)
        longest = max(len(sequence.tokens) for row in rows for sequence in row)
        rounded = -(-longest // LENGTH_MULTIPLE) * LENGTH_MULTIPLE
        changes["task.length"] = min(rounded, config.model.seq_len)
    config = overrides.override(config, changes)
    task.entry.check(config)
    if task.entry.labels == "option" and task.options is None:
        encode = encoder(config.model, config.task, tokenizer, n_prefix(config))
        most = max(map(len, encode_each(encode, training, task.train)))
        config = overrides.override(config, {"task.options": most})
    if task.epochs is not None:
        n_rows = load_rows(config, tokenizer, training, task.train, training=True).n_rows
        config = overrides.override(config, _durations(config, n_rows * sample_tokens(config)))
    return config


def check_test(config: Config, tokenizer: Tokenizer) -> tuple[str, ...]:
    """Lines about the examples of task.test; config: resolved.

    Raises ValueError, before training, for a test that could not be scored after it.
    """
    task = config.task
    notes: list[str] = []
    if not task.test:
        return ()
    found = read_records(task.test, notes)
    if task.generates:
        encode = encoder(config.model, task, tokenizer, n_prefix(config))
        fields = task.record_fields
        prompts = encode_each(
            lambda record: encode.spoken_prompt(asked_and_expected(record, fields)[0]),
            found,
            task.test,
        )
        return (*notes, *said_of_prompts(prompts, found, task.test, encode.room))
    return (*notes, *load_rows(config, tokenizer, found, task.test).notes)


def load_images(task: TaskConfig, found: Sequence[Record]) -> np.ndarray | None:
    """[N, height width channels] uint8, the image of each record; None for a task without.

    Raises ValueError for a file that holds no images, or an index beyond them.
    """
    if not task.images:
        return None
    images = open_images(task.images)
    shape = tuple(image_shape(images))
    if task.image_shape and shape != tuple(task.image_shape):
        raise ValueError(
            f"{task.images} holds images of {shape}, the model reads {task.image_shape}"
        )
    index = np.asarray([int(record.get("image", -1)) for record in found])
    outside = np.flatnonzero((index < 0) | (index >= len(images)))
    if outside.size:
        raise ValueError(
            f"example {outside[0] + 1}: its image, {found[outside[0]].get('image')!r}, is none of "
            f"the {len(images):,} in {task.images}"
        )
    return images[index].reshape(len(index), -1)


def open_images(path: str) -> np.ndarray:
    """The array of a .npy file, mapped. Raises ValueError if it is none of images."""
    file = on_disk(path)
    if not file.is_file():
        raise ValueError(f"task.images = {path}: no such file")
    images = np.load(file, mmap_mode="r", allow_pickle=False)
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise ValueError(
            f"{path} holds {images.dtype}{list(images.shape)}; images are uint8 [N, height, width] "
            f"or [N, height, width, channels]"
        )
    return images


def image_shape(images: np.ndarray) -> tuple[int, int, int]:
    height, width, *channels = images.shape[1:]
    return height, width, (channels or [1])[0]


def _durations(config: Config, epoch_tokens: int) -> dict[str, Any]:
    """Epochs and shares of them as tokens."""
    task = config.task
    assert task.epochs is not None
    tokens = math.ceil(task.epochs * epoch_tokens)
    changes: dict[str, Any] = {
        "train.tokens": tokens,
        "task.epochs": None,
        "task.warmup": None,
        "task.validations": None,
    }
    if task.warmup is not None:
        changes["schedule.warmup_tokens"] = round(task.warmup * tokens)
    if task.validations is not None:
        changes["evaluate.every_tokens"] = epoch_tokens // task.validations
    return changes


def n_prefix(config: Config) -> int:
    """Positions in front of every sequence that the model fills itself."""
    prompt = config.adapt.length if config.adapt.method == "prompt" else 0
    return prompt or config.task.image_tokens


def encode_each(encode: Callable[[Record], Item], found: Sequence[Record], path: str) -> list[Item]:
    """Sequences that `encode` makes of each record. Raises ValueError naming file and line."""
    encoded: list[Item] = []
    for i, record in enumerate(found):
        try:
            encoded.append(encode(record))
        except ValueError as error:
            raise ValueError(f"{place(record, path, i)}: {error}") from None
    return encoded


def load_rows(
    config: Config,
    tokenizer: Tokenizer,
    found: Sequence[Record],
    path: str,
    training: bool = False,
    labelled: bool = True,
) -> Examples:
    """Records of a task as rows; config: resolved. training: task.class_weights are applied.

    Examples without a target (a response that is cut off whole) are left out. To score tags they
    stay, where a word without a position counts as O; in training a batch of them alone would have
    no loss. labelled: False for examples to predict.
    Raises ValueError naming file and line of what is no example, or if none has a target.
    """
    task, length = config.task, config.task.length
    assert length is not None, "resolve() sets it"
    encode = encoder(config.model, task, tokenizer, n_prefix(config), labelled)
    rows = encode_each(encode, found, path)
    notes = said_of_cuts(encode, rows, found, path)
    if task.entry.labels != "classes" or training:
        there = [i for i, row in enumerate(rows) if encode.has_targets(row)]
        found, rows = [found[i] for i in there], [rows[i] for i in there]
    if task.pack:
        absolute = POSITIONS.find(config.model.position).absolute
        restart = absolute or bool(config.distill.teacher)
        batch = packed([row[0] for row in rows], length, restart)
        return Examples(path, found, batch, 1, notes=notes)
    n = task.n_sequences
    for i, sequences in enumerate(rows):
        if len(sequences) > n:
            raise ValueError(
                f"{place(found[i], path, i)} has {len(sequences)} options, more than "
                f"task.options = {n}, which those of training set; raise it"
            )
    batch, images = _arrays(rows, n, length, encode), load_images(task, found)
    if training and task.class_weights == "balanced":
        batch = batch._replace(label_weights_BT=_balanced(batch, len(task.labels)))
    return Examples(path, found, batch, n, images, notes)


def fingerprint(found: Sequence[Record]) -> str:
    """12 hex digits over records."""
    text = json.dumps(found, sort_keys=True, ensure_ascii=False, default=str)
    # A lone surrogate, which JSON can hold, is no UTF-8.
    return checksum(text.encode(errors="surrogatepass"))[:12]


def _arrays(rows: Sequence[list[Encoded]], n: int, length: int, encode: Encoder) -> Batch:
    """Rows of n sequences of `length` tokens."""
    shape = (len(rows), n, length)
    tokens, targets = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    weights, labels, read = (np.zeros(shape, np.float32) for _ in range(3))
    for row, sequences in enumerate(rows):
        for k, sequence in enumerate(sequences):
            size = len(sequence.tokens)
            tokens[row, k, :size] = sequence.tokens
            targets[row, k, : size - 1] = sequence.tokens[1:]
            weights[row, k, : size - 1] = sequence.learned[1:]
            read[row, k, sequence.read] = 1
            if sequence.labels:
                labels[row, k, sequence.read] = sequence.labels
    targets[targets >= encode.first_special] = 0
    if encode.task.has_head:
        # The mean over an example's tokens, times what its labels count for: with sums of both
        # losses divided by the labels, L3 = L2 + lambda L1 (GPT-1, equation 5).
        counted = np.maximum((weights > 0).sum(axis=2, keepdims=True), 1)
        used = np.maximum((weights > 0).any(axis=2).sum(axis=1), 1)[:, None, None]
        per_label = read.sum(axis=(1, 2), keepdims=True)
        if encode.task.entry.labels != "classes":
            per_label = np.minimum(per_label, 1)
        weights *= per_label / (counted * used)
    batch = Batch(tokens, targets, weights, None)
    if not encode.task.generates:
        batch = batch._replace(labels_BT=labels, label_weights_BT=read)
    return Batch(*[None if x is None else x.reshape(len(rows), -1) for x in batch])


def _balanced(batch: Batch, n_classes: int) -> np.ndarray:
    """Label weights that give every class the same sum, and the same sum in all."""
    read, labels = np.asarray(batch.label_weights_BT), np.asarray(batch.labels_BT)
    ids = labels.astype(np.int64)
    counts = np.bincount(ids[read > 0], minlength=n_classes)
    present = counts > 0
    each = np.where(present, counts.sum() / (present.sum() * np.maximum(counts, 1)), 0.0)
    return np.where(read > 0, each[ids], 0.0).astype(np.float32)
