"""What tools/benchmark.py measures of gpt_jax, through the functions that its verbs run.

Training is `gpt_jax.train.loop.train` on a real text into a real run directory, read from its
metrics.jsonl; validation, decoding and data are `validate`, `generate_text` and `Stream`; scoring
is the compiled evaluation step. Starts are whole processes of the command line. Models have fresh
parameters: speed does not depend on them. Called once in a process, before jax is imported.
"""

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from benchmark_cases import (
    DATA_BATCHES,
    NEW_TOKENS,
    PROMPT_TOKENS,
    QUICKSTART,
    SCORED_TOKENS,
    TEXT_TOKENS,
    VALIDATION_FRACTION,
    Case,
    Record,
    chunk_means,
    compute_settings,
    fastest_product,
    peak_bytes,
    seconds_until,
    steady,
    time_units,
)

from gpt_jax.config import Config, DataConfig, ModelConfig, TrainConfig, overrides
from gpt_jax.runs.tracking import read_records
from gpt_jax.runtime import prepare_process, use_huge_pages
from gpt_jax.storage.atomic import write_json

REPOSITORY = Path(__file__).resolve().parent.parent
PEAK_SIZES = (512, 768, 1024, 1536, 2048)
WATCH_SECONDS = 0.05
"""Between two looks at the memory of a training process."""
FIRST_STEPS = 3
"""Steps of a run of which only the first is waited for."""


def measure(case: Case, mode: str, n_units: int, data: Path) -> Record:
    """One measurement: `seconds` of units, `work` of a unit, and what else is known.

    data: the directory of `write_texts`; corpora are kept beside the texts.
    """
    kinds: dict[str, Callable[[Case, str, int, Path], Record]] = {
        "train": measure_training,
        "evaluate": measure_validation,
        "score": measure_scoring,
        "decode": measure_decoding,
        "data": measure_data,
        "help": measure_help,
        "first_step": measure_first_step,
        "peak": measure_peak,
    }
    use_huge_pages()  # as the command line does
    prepare_process()
    return kinds[case.kind](case, mode, n_units, data) | {"versions": versions()}


def versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("jax", "jaxlib", "numpy")}


def make_config(case: Case, mode: str, n_steps: int, data: Path) -> Config:
    """GPT-2's architecture and AdamW: what the peers are, with `compute` as the mode says."""
    shape, words = case.shape, case.text == "words"
    config = Config(
        name=case.name,
        model=ModelConfig(
            vocab_size=shape.vocab_size,
            seq_len=shape.block,
            n_layers=shape.n_layers,
            d_model=shape.width,
            n_heads=shape.n_heads,
        ),
        data=DataConfig(
            source="text",
            path=str(data / f"{case.text}.txt"),
            tokenizer=str(data / "words.json") if words else "char",
            validation="tail",
            validation_fraction=VALIDATION_FRACTION,
            cache=str(data / "corpora"),
        ),
        train=TrainConfig(tokens=n_steps * case.batch * shape.block, batch_sequences=case.batch),
    )
    return overrides.override(config, compute_settings(mode))


# ---------------------------------------------------------------------------------------------
# Training


class TrainingPeak(threading.Thread):
    """The most memory held before the last step's record: validation and checkpoint come after."""

    def __init__(self, metrics: Path, n_steps: int):
        super().__init__(daemon=True)
        self.metrics, self.n_steps, self.ended = metrics, n_steps, threading.Event()
        self.peak_bytes = self.start_peak_bytes = 0
        """Of all steps; and before the first record: initialisation, compilation, one step."""

    def run(self) -> None:
        while not self.ended.wait(WATCH_SECONDS):
            peak, n_records = peak_bytes(), self._n_records()
            if n_records >= self.n_steps:
                return
            self.peak_bytes = peak
            if not n_records:
                self.start_peak_bytes = peak

    def _n_records(self) -> int:
        return self.metrics.read_bytes().count(b"\n") if self.metrics.exists() else 0


def measure_training(case: Case, mode: str, n_units: int, data: Path) -> Record:
    """A whole run of `gpt-jax train`; a step's time is what metrics.jsonl says of it."""
    from gpt_jax.train.loop import train

    n_steps = case.warm_up + n_units
    config = make_config(case, mode, n_steps, data)
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place) / "run"
        watch = TrainingPeak(directory / "metrics.jsonl", n_steps)
        watch.start()
        try:
            train(config, directory)
        finally:
            watch.ended.set()
        watch.join()
        records = read_records(directory / "metrics.jsonl")
        facts = json.loads((directory / "config.json").read_text())
    seconds = [r["step_seconds"] for r in records if "step_seconds" in r]
    return {
        "seconds": chunk_means(steady(seconds, case.warm_up)),
        "work": case.batch * case.shape.block,
        "first_step_seconds": seconds[0],
        "peak_bytes": watch.peak_bytes or peak_bytes(),
        "start_peak_bytes": watch.start_peak_bytes,
        "whole_run_peak_bytes": peak_bytes(),
        **{name: facts[name] for name in ("operands", "attention", "layers")},
    }


# ---------------------------------------------------------------------------------------------
# Evaluation and decoding


def measure_validation(case: Case, mode: str, n_units: int, data: Path) -> Record:
    """Passes over the whole validation split, as training makes them."""
    import jax

    from gpt_jax.runs.directory import RunDirectory
    from gpt_jax.train.experiment import bind, prepare

    config = make_config(case, mode, FIRST_STEPS, data)
    with tempfile.TemporaryDirectory() as place:
        prepared = prepare(config, RunDirectory(place))
        experiment = bind(prepared, None, {})
    params = jax.jit(experiment.model.init)(jax.random.key(0))
    n_tokens = 0

    def unit() -> None:
        nonlocal n_tokens
        n_tokens = experiment.validate(params).n_tokens

    seconds = time_units(unit, case, n_units)
    return {"seconds": seconds, "work": n_tokens, "peak_bytes": peak_bytes()}


def measure_scoring(case: Case, mode: str, n_units: int, data: Path) -> Record:
    """Log-probabilities of the last tokens of texts, a batch read before the next begins."""
    import jax

    from gpt_jax.evaluate.requests import Request
    from gpt_jax.evaluate.scoring import Scorer, scoring_weights
    from gpt_jax.models.gpt import make_gpt
    from gpt_jax.parallel.sharding import make_layout

    config = make_config(case, mode, FIRST_STEPS, data)
    layout = make_layout(config)
    model = make_gpt(config.model, config.compute, layout)
    weights = scoring_weights(model, jax.jit(model.init)(jax.random.key(0)))
    scorer = Scorer(model, weights, layout, batch_tokens=case.batch * TEXT_TOKENS)
    texts = np.fromfile(data / f"{case.text}.bin", np.uint16).astype(np.int32)
    n_texts = len(texts) // (TEXT_TOKENS + 1)
    texts_NT = texts[: n_texts * (TEXT_TOKENS + 1)].reshape(n_texts, -1).tolist()
    rows = np.arange(case.batch)

    def unit() -> None:
        nonlocal rows
        chosen = [tuple(texts_NT[row]) for row in rows % n_texts]
        asked = [Request(text[:-SCORED_TOKENS], text[-SCORED_TOKENS:]) for text in chosen]
        assert len(scorer.score_all(asked)) == case.batch
        rows = rows + case.batch

    seconds = time_units(unit, case, n_units)
    return {"seconds": seconds, "work": case.batch * TEXT_TOKENS, "peak_bytes": peak_bytes()}


def measure_decoding(case: Case, mode: str, n_units: int, data: Path) -> Record:
    """Greedy continuations of prompts; every one has NEW_TOKENS tokens, for want of an end."""
    import jax

    from gpt_jax.data.tokenizers.making import make_tokenizer
    from gpt_jax.inference.generate import generate_text
    from gpt_jax.inference.settings import SamplingConfig
    from gpt_jax.models.gpt import make_gpt

    config = make_config(case, mode, FIRST_STEPS, data)
    model = make_gpt(config.model, config.compute)
    params = jax.jit(model.init)(jax.random.key(0))
    tokenizer = make_tokenizer(config.data.tokenizer)
    words = (data / "words.txt").read_text().split()[: case.batch * PROMPT_TOKENS]
    prompts = [" ".join(words[i :: case.batch]) for i in range(case.batch)]
    sampling = SamplingConfig(max_new_tokens=NEW_TOKENS, temperature=0)

    def unit() -> None:
        texts = generate_text(model, params, tokenizer, prompts, sampling)
        assert [len(text.split()) for text in texts] == [NEW_TOKENS] * case.batch

    seconds = time_units(unit, case, n_units)
    return {"seconds": seconds, "work": case.batch * NEW_TOKENS, "peak_bytes": peak_bytes()}


# ---------------------------------------------------------------------------------------------
# Data, starts, peaks


def measure_data(case: Case, mode: str, n_units: int, data: Path) -> Record:
    """Batches on the host, one after another."""
    from gpt_jax.data import Stream, prepare

    corpus = prepare(make_config(case, mode, FIRST_STEPS, data).data)
    stream = Stream([(corpus.split("train"), 1.0)], case.shape.block, seed=0)
    n_read = 0

    def unit() -> None:
        nonlocal n_read
        for _ in range(DATA_BATCHES):
            stream.batch(n_read, case.batch)
            n_read += case.batch

    seconds = time_units(unit, case, n_units)
    work = DATA_BATCHES * case.batch * case.shape.block
    return {"seconds": seconds, "work": work, "peak_bytes": peak_bytes()}


def measure_help(case: Case, mode: str, n_units: int, data: Path) -> Record:
    command = [sys.executable, "-m", "gpt_jax", *case.arguments]

    def unit() -> None:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    return {"seconds": time_units(unit, case, n_units), "work": 1}


def measure_first_step(case: Case, mode: str, n_units: int, data: Path) -> Record:
    """From the start of `gpt-jax train` to its first record, the corpus having been built."""
    from gpt_jax.data import prepare

    config = _first_step_config(case, mode, data)
    prepare(config.data)
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "config.json"
        write_json(file, overrides.to_dict(config))

        def unit() -> float:
            with tempfile.TemporaryDirectory(dir=place) as workdir:
                command = [sys.executable, "-m", "gpt_jax", "train", str(file)]
                cache = workdir if case.cold else place
                return seconds_until(
                    Path(workdir) / "run" / "metrics.jsonl",
                    [*command, "--workdir", f"{workdir}/run"],
                    {"JAX_COMPILATION_CACHE_DIR": f"{cache}/compiled"},
                )

        for _ in range(case.warm_up):
            unit()
        return {"seconds": [unit() for _ in range(n_units)], "work": 1}


def _first_step_config(case: Case, mode: str, data: Path) -> Config:
    if case.shape != QUICKSTART:
        return make_config(case, mode, FIRST_STEPS, data)
    tokens = FIRST_STEPS * case.batch * case.shape.block
    changes = {
        "train.tokens": tokens,
        "schedule.warmup_tokens": 0,
        "data.cache": str(data / "corpora"),
        **compute_settings(mode),
    }
    return overrides.load(REPOSITORY / "configs" / "quickstart.py", changes)


def measure_peak(case: Case, mode: str, n_units: int, data: Path) -> Record:
    """The fastest square product, results in float32, `n_units` seconds for all sizes together."""
    import jax
    import jax.numpy as jnp

    product: Any = jax.jit(lambda x: jnp.dot(x, x, preferred_element_type=jnp.float32))
    operands = [jnp.ones((size, size), mode.split()[1]) for size in PEAK_SIZES]
    return fastest_product(lambda x: product(x).block_until_ready(), operands, n_units)
