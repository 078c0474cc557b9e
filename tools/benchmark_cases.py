"""What tools/benchmark.py measures: cases, modes, targets, and the texts they read.

Imported by the parent and by every measuring process, so it needs the standard library alone.
A mode is a name of several words: "gpt_jax" and settings of its compute section, or a peer's
family, "eager" or "compiled", and the type of its operands.
"""

import array
import dataclasses
import itertools
import json
import os
import random
import resource
import statistics
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

Record = dict[str, Any]

Kind = Literal["train", "evaluate", "score", "decode", "data", "help", "first_step", "peak"]


@dataclasses.dataclass(frozen=True)
class Shape:
    """Sizes of a GPT-2."""

    n_layers: int
    n_heads: int
    width: int
    block: int
    """Context length, in tokens."""
    vocab_size: int


TINY = Shape(1, 2, 16, 16, 65)
A = Shape(4, 4, 128, 64, 65)
B = Shape(6, 6, 384, 256, 65)
C = Shape(12, 12, 768, 1024, 50304)
QUICKSTART = Shape(4, 4, 128, 128, 2048)
"""Of configs/quickstart.py."""

FAMILIES = ("nanoGPT", "transformers")
DTYPES = ("float32", "bfloat16")
OURS = ("gpt_jax", "gpt_jax float32")
PEERS = tuple(
    f"{family} {how} {dtype}"
    for family, how, dtype in itertools.product(FAMILIES, ("eager", "compiled"), DTYPES)
)
DECODING_PEERS = tuple(
    f"{family} {how} {dtype}"
    for family, how, dtype in itertools.product(
        ("transformers", "torch_cached"), ("eager", "compiled"), DTYPES
    )
)
MEMORY_MODES = (
    "gpt_jax attention=reference layers=unroll loss=whole",
    "gpt_jax layers=unroll loss=whole",
    *(
        f"gpt_jax layers={layers} remat={remat}"
        for layers in ("unroll", "scan")
        for remat in ("none", "attention", "dots", "full")
    ),
)

TEXT_TOKENS, SCORED_TOKENS = 256, 2
"""Tokens that are read of a scored text, and of those the last ones that are scored: a word."""
PROMPT_TOKENS, NEW_TOKENS = 64, 128
DATA_BATCHES = 200
"""Batches that are one unit of the data case: a single one is over in microseconds."""
VALIDATION_FRACTION = 0.02
"""The tail of a text that is held out."""
CHUNKS = 10
"""Consecutive parts of a measurement, of which the median is taken."""


@dataclasses.dataclass(frozen=True)
class Case:
    """Something to be measured, in units: a training step, a pass, a batch, a process."""

    name: str
    kind: Kind
    what: str
    shape: Shape
    batch: int
    modes: tuple[str, ...]
    units_per_second: float
    """About what two cores do: how many units `--seconds` asks for. All modes do as many."""
    least_units: int
    warm_up: int
    """Units before the first that counts."""
    target: float | None = None
    """Times the speed of the fastest peer."""
    cold: bool = False
    """Of first_step: nothing compiled is kept from before."""
    arguments: tuple[str, ...] = ()
    """Of help: what the command is given."""
    by_default: bool = True

    def units(self, seconds: float) -> int:
        return max(self.least_units, round(seconds * self.units_per_second))

    @property
    def text(self) -> str:
        """The name of the text it reads: see `write_texts`."""
        return "words" if self.shape.vocab_size >= N_WORDS else "characters"


BOTH = OURS + PEERS
STARTS = ("gpt_jax", "nanoGPT eager float32", "nanoGPT compiled float32")
PEAKS = ("jax float32", "jax bfloat16", "torch float32", "torch bfloat16")

CASES = (
    Case("peak", "peak", "square matrix products", A, 1, PEAKS, 1.0, 1, 0),
    Case("train-a", "train", "training, 4 layers of 128, 12 x 64", A, 12, BOTH, 30, 40, 40, 1.4),
    Case("train-b", "train", "training, 6 layers of 384, 8 x 256", B, 8, BOTH, 1.5, 8, 4, 1.25),
    Case("train-c", "train", "training, GPT-2 124M, 1 x 1024", C, 1, BOTH, 0.25, 4, 2, 1.2),
    Case("evaluate-b", "evaluate", "validation of (b)", B, 8, BOTH, 0.4, 3, 1),
    Case("score-c", "score", "scoring last words, 124M, 8 x 256", C, 8, BOTH, 0.4, 4, 1, 1.5),
    Case(
        "decode-c-1", "decode", "decoding, 124M, 1 text", C, 1, OURS + DECODING_PEERS,
        0.3, 3, 1, 1.3,
    ),
    Case(
        "decode-c-8", "decode", "decoding, 124M, 8 texts", C, 8, OURS + DECODING_PEERS,
        0.2, 3, 1, 1.5,
    ),
    Case("data", "data", "batches of 8 x 256", B, 8, ("gpt_jax", "nanoGPT memmap"), 20, 10, 2),
    Case(
        "help", "help", "gpt-jax --help", A, 1, ("gpt_jax",), 1.0, 3, 1, arguments=("--help",)
    ),
    Case(
        "help-fit", "help", "gpt-jax fit --help", A, 1, ("gpt_jax",), 0.3, 3, 1,
        arguments=("fit", "--help"),
    ),
    Case(
        "first-step-cold", "first_step", "to the first step, quickstart's size", QUICKSTART, 16,
        STARTS, 0.05, 1, 0, cold=True,
    ),
    Case(
        "first-step-warm", "first_step", "the same, compiled before", QUICKSTART, 16,
        STARTS, 0.05, 1, 1,
    ),
    Case(
        "first-step-c-cold", "first_step", "to the first step, GPT-2 124M", C, 1,
        STARTS, 0.02, 1, 0, cold=True,
    ),
    Case(
        "memory-c", "train", "memory by option, GPT-2 124M, 1 x 1024", C, 1, MEMORY_MODES,
        0.25, 3, 2, by_default=False,
    ),
    Case("train-tiny", "train", "for a test", TINY, 4, OURS + PEERS, 3, 30, 10, by_default=False),
)  # fmt: skip


def case_named(name: str) -> Case:
    """The case of this name; ValueError with the known names otherwise."""
    for case in CASES:
        if case.name == name:
            return case
    raise ValueError(f"--only {name}; allowed: {', '.join(c.name for c in CASES)}")


def is_ours(mode: str) -> bool:
    """Whether a mode is measured with jax; the other processes import torch."""
    return mode.split()[0] in ("gpt_jax", "jax")


def compute_settings(mode: str) -> dict[str, str]:
    """{dotted key: value} that a mode of ours sets; a bare word is the type of the operands."""
    words = [word.split("=") for word in mode.split()[1:]]
    return {f"compute.{w[0]}" if w[1:] else "compute.dtype": w[-1] for w in words}


# ---------------------------------------------------------------------------------------------
# Times and memory


def chunk_means(seconds: Sequence[float], n_chunks: int = CHUNKS) -> list[float]:
    """Seconds of each unit -> mean seconds over each of n_chunks consecutive parts."""
    n_chunks = min(n_chunks, len(seconds))
    edges = [i * len(seconds) // n_chunks for i in range(n_chunks + 1)]
    return [statistics.fmean(seconds[a:b]) for a, b in itertools.pairwise(edges)]


def steady(step_seconds: Sequence[float], warm_up: int) -> list[float]:
    """What is left of a run's steps without those of its first dispatch, and `warm_up` in all.

    Steps of one dispatch have one time between them; the first is the one that compiles.
    """
    first = step_seconds[0]
    compiled = next((i for i, s in enumerate(step_seconds) if s != first), len(step_seconds))
    return list(step_seconds[max(compiled, warm_up) :])


def time_units(do: Callable[[], object], case: Case, n_units: int) -> list[float]:
    """Mean seconds of a unit, over consecutive parts, after the warm-up. `do` waits for its end."""
    for _ in range(case.warm_up):
        do()
    seconds = []
    for _ in range(n_units):
        began = time.perf_counter()
        do()
        seconds.append(time.perf_counter() - began)
    return chunk_means(seconds)


def seconds_until(sign: Path, command: list[str], environment: dict[str, str]) -> float:
    """From the start of a process until `sign` has a line; the process is ended then."""
    began = time.perf_counter()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command, env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=errors
        )
        try:
            while not (sign.exists() and b"\n" in sign.read_bytes()):
                if process.poll() is not None:
                    errors.seek(0)
                    raise RuntimeError(errors.read().decode(errors="replace")[-2000:])
                time.sleep(0.002)
            return time.perf_counter() - began
        finally:
            process.kill()
            process.wait()


def fastest_product(
    product: Callable[[Any], object], operands: list[Any], seconds: float
) -> Record:
    """FLOPs and median seconds of the size with the highest rate; the rates of all sizes."""
    found = []
    for x in operands:
        times: list[float] = []
        product(x)
        stop = time.perf_counter() + seconds / len(operands)
        while time.perf_counter() < stop or len(times) < 3:
            began = time.perf_counter()
            product(x)
            times.append(time.perf_counter() - began)
        found.append((2 * len(x) ** 3, statistics.median(times)))
    work, best = max(found, key=lambda pair: pair[0] / pair[1])
    return {"seconds": [best], "work": work, "rates": [w / s for w, s in found]}


def peak_bytes() -> int:
    """The most memory that this process has held so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


# ---------------------------------------------------------------------------------------------
# Texts

ALPHABET = "\n !$&',-.3:;?" + string.ascii_uppercase + string.ascii_lowercase
"""65 characters, in order: a character's id is its place (they are tinyshakespeare's)."""
N_CHARACTERS = 1_115_394
N_WORDS = 50_257
"""Words that are one token each: as many as GPT-2 has tokens."""
WORDS_IN_TEXT = 400_000


def write_texts(directory: Path) -> None:
    """Two texts drawn at random, always the same, and their tokens as uint16 for the peers.

    characters.txt: made-up words of 65 characters; words.txt: words "w0" to "w50256", the k-th
    about 1 / k as frequent as the first, with words.json, a tokenizer of one token a word.
    """
    if (directory / "words.bin").exists():  # written last
        return
    directory.mkdir(parents=True, exist_ok=True)
    drawn = random.Random(0)
    made = ["".join(drawn.choices(ALPHABET[2:], k=drawn.randint(2, 9))) for _ in range(5000)]
    text = ALPHABET + " ".join(drawn.choices(made, k=N_CHARACTERS // 4))
    text = text[:N_CHARACTERS]
    place = {character: i for i, character in enumerate(ALPHABET)}
    _write(directory / "characters.txt", text.encode())
    _write(directory / "characters.bin", array.array("H", map(place.__getitem__, text)).tobytes())
    weights = list(itertools.accumulate(1 / (k + 1) for k in range(N_WORDS)))
    ids = drawn.choices(range(N_WORDS), cum_weights=weights, k=WORDS_IN_TEXT)
    _write(directory / "words.txt", " ".join(f"w{i}" for i in ids).encode())
    _write(directory / "words.json", json.dumps(_word_tokenizer()).encode())
    _write(directory / "words.bin", array.array("H", ids).tobytes())


def _word_tokenizer() -> Record:
    """A tokenizer.json of one token a word."""
    vocabulary = {f"w{i}": i for i in range(N_WORDS)}
    parts = ("truncation", "padding", "normalizer", "post_processor", "decoder")
    return {
        "version": "1.0",
        **dict.fromkeys(parts),
        "added_tokens": [],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "w0"},
    }


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    os.replace(temporary, path)
