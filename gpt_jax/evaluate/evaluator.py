"""A run's model, evaluated on tasks and texts, with a cache of what is finished.

Must not import flax or the training loop.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpt_jax.config import Config, overrides
from gpt_jax.data.streaming import begin_tokens, with_beginning
from gpt_jax.data.tokenizers import Tokenizer, load_tokenizer
from gpt_jax.evaluate import measures
from gpt_jax.evaluate.cache import Cache, digest_of
from gpt_jax.evaluate.detokenize import DETOKENIZERS, prepare
from gpt_jax.evaluate.encode import encode_pair
from gpt_jax.evaluate.items import Asked
from gpt_jax.evaluate.requests import Request, Score
from gpt_jax.evaluate.scoring import BATCH_TOKENS, Scorer, Weights, scoring_weights, windows
from gpt_jax.evaluate.tasks import Item, Task, prompts
from gpt_jax.evaluate.ticker import Ticker
from gpt_jax.inference.decode import decoding_params, generate_tokens
from gpt_jax.inference.settings import SamplingConfig
from gpt_jax.models.gpt import GPT, Params
from gpt_jax.output import say
from gpt_jax.parallel.sharding import Layout, make_layout
from gpt_jax.runs.checkpoint_choice import choose
from gpt_jax.runs.checkpoint_files import Which
from gpt_jax.runs.directory import RunDirectory
from gpt_jax.runs.loading import load_model
from gpt_jax.runs.tracking import Record
from gpt_jax.storage import tables

ROWS_A_CALL = 32
"""Texts that are written at a time."""


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """A model with its tokenizer, and what identifies them in a cache."""

    model: GPT
    params: Params
    layout: Layout
    tokenizer: Tokenizer
    identity: Record
    """config fingerprint, checkpoint step, operands."""
    batch_tokens: int = BATCH_TOKENS

    def open_cache(self, directory: Path) -> Cache:
        name = "-".join(str(value) for value in self.identity.values())
        return Cache(directory / f"items-{name}.jsonl", self.identity)

    def scorer(self, banned: tuple[int, ...] = ()) -> Scorer:
        return Scorer(self.model, self._weights, self.layout, banned, self.batch_tokens)

    @functools.cached_property
    def _weights(self) -> Weights:
        return scoring_weights(self.model, self.params)


def check(path: Path, changes: dict[str, Any]) -> RunDirectory:
    """The directory of a run. Raises ValueError if `path` is none, or a section is changed that
    says what is computed."""
    run = RunDirectory(path)
    run.require_config()
    for key in changes:
        if key.split(".")[0] not in ("mesh", "compute"):
            raise ValueError(f"--{key} would change the model that was trained; allowed: mesh.*, "
                             "compute.*")  # fmt: skip
    return run


def load(path: Path, which: Which, changes: dict[str, Any]) -> tuple[Config, Evaluator]:
    """A run's model on the mesh; `changes` overrides the config's mesh and compute sections.

    Raises ValueError if `path` holds no run or checkpoint, or another section is changed.
    """
    run = check(path, changes)
    config = overrides.load(run.config, changes)
    layout = make_layout(config)
    checkpoint, _ = choose(run.checkpoints.absolute(), which)
    step = int(checkpoint.name)
    model, params = load_model(run, config, step, layout)
    identity = {
        "fingerprint": overrides.fingerprint(config),
        "checkpoint": step,
        "operands": str(model.execution.how.operands),
    }
    return config, Evaluator(model, params, layout, load_tokenizer(run.tokenizer), identity)


def evaluate_task(evaluator: Evaluator, task: Task, cache: Cache, asked: Asked) -> Record:
    """A task's numbers, with what they were computed from. Items in the cache are not computed."""
    items, shots, seed = asked.items, asked.shots, asked.seed
    before = prompts(task, items, asked.pool, shots, seed)
    record: Record = {"task": task.name, "items": len(items), "shots": shots, "seed": seed}
    record |= {"data": asked.origin, "forms": asked.forms, "source": task.source}
    if task.kind == "generate":
        texts = _write(evaluator, task, items, before, cache, shots)
        record |= measures.generation_numbers(task, items, texts)
        return record | {"texts": texts}
    scores, n_cut = _score(evaluator, task, items, before, cache, shots)
    record["items_cut_on_the_left"] = n_cut
    n_banned = len(banned_ids(evaluator.tokenizer, task.banned_words))
    if task.banned_words and not n_banned:
        say(
            f"{task.name}: accuracy without stop words is left out: none of them is one token of "
            "this tokenizer"
        )
    return record | measures.numbers(task, items, scores, n_banned)


def requests_of(
    tokenizer: Tokenizer, task: Task, items: Sequence[Item], before: Sequence[str]
) -> list[list[Request]]:
    """The requests of each item after its prompt: a continuation for each choice, and each choice
    after the task's answer_context where there is one."""
    found = []
    for item, prompt in zip(items, before, strict=True):
        pairs = [(prompt + context, continuation) for context, continuation in item.pairs()]
        if task.answer_context:
            pairs += [(task.answer_context, choice) for choice in item.choices]
        found.append([encode_pair(tokenizer, *pair) for pair in pairs])
    return found


def _score(
    evaluator: Evaluator,
    task: Task,
    items: Sequence[Item],
    before: Sequence[str],
    cache: Cache,
    shots: int,
) -> tuple[list[list[Score]], int]:
    """Scores of each item's requests, and how many items are longer than the model's context."""
    tokenizer, seq_len = evaluator.tokenizer, evaluator.model.config.seq_len
    banned = banned_ids(tokenizer, task.banned_words)
    requests: list[Request] = []
    owners: list[int] = []
    digests, missing, n_cut = [], [0] * len(items), 0
    found: dict[int, list[Score]] = {}
    for index, encoded in enumerate(requests_of(tokenizer, task, items, before)):
        n_cut += any(len(r.context) + len(r.continuation) > seq_len + 1 for r in encoded)
        digests.append(digest_of((encoded, banned)))
        known = cache.get(task.name, shots, digests[-1])
        if known is not None:
            found[index] = [Score(*score) for score in known]
            continue
        requests += encoded
        owners += [index] * len(encoded)
        missing[index] = len(encoded)
    scores: dict[int, Score] = {}
    first = {owner: i for i, owner in reversed(list(enumerate(owners)))}
    counts = list(missing)
    with Ticker(task.name, len(items), len(found)) as ticker:
        for done in evaluator.scorer(banned).score(requests):
            for index, score in done:
                scores[index] = score
                owner = owners[index]
                missing[owner] -= 1
                if not missing[owner]:
                    begin = first[owner]
                    found[owner] = [scores.pop(i) for i in range(begin, begin + counts[owner])]
                    cache.put(task.name, owner, shots, digests[owner], found[owner])
                    ticker.advance()
    return [found[index] for index in range(len(items))], n_cut


def banned_ids(tokenizer: Tokenizer, words: Sequence[str]) -> tuple[int, ...]:
    """Ids of the words that are one token after another word, written small or with a capital.

    They are looked up behind a word, where they stand in a text: by itself " the" may be several
    tokens, for SentencePiece begins every text with a space.
    """
    found = set()
    for word in words:
        for form in (f" {word}", f" {word.capitalize()}"):
            try:
                ids = encode_pair(tokenizer, "a", form).continuation
            except ValueError:  # letters that a character tokenizer does not know
                continue
            if len(ids) == 1:
                found.add(int(ids[0]))
    return tuple(sorted(found))


def _write(
    evaluator: Evaluator,
    task: Task,
    items: Sequence[Item],
    before: Sequence[str],
    cache: Cache,
    shots: int,
) -> list[str]:
    """A greedy text for each item, up to the task's stop strings."""
    sampling = SamplingConfig(temperature=0, max_new_tokens=task.max_new_tokens)
    tokenizer = evaluator.tokenizer
    texts: dict[int, str] = {}
    waiting: list[tuple[int, str, Any]] = []
    for index, (item, prompt) in enumerate(zip(items, before, strict=True)):
        text = prompt + item.context
        digest = digest_of((text, task.max_new_tokens, task.stop))
        known = cache.get(task.name, shots, digest)
        if known is not None:
            texts[index] = known
        else:
            ids = with_beginning(tokenizer, tokenizer.encode(text))
            waiting.append((index, digest, np.asarray(ids)))
    waiting.sort(key=lambda row: -len(row[2]))
    params = decoding_params(evaluator.model, evaluator.params) if waiting else {}
    with Ticker(task.name, len(items), len(texts)) as ticker:
        for begin in range(0, len(waiting), ROWS_A_CALL):
            rows = waiting[begin : begin + ROWS_A_CALL]
            outputs = generate_tokens(
                evaluator.model,
                params,
                [ids for _, _, ids in rows],
                sampling,
                end_of_text=tokenizer.ends,
                vocab_size=tokenizer.vocab_size,
            )
            for (index, digest, _), output in zip(rows, outputs, strict=True):
                texts[index] = before_stop(tokenizer.decode(output), task.stop)
                cache.put(task.name, index, shots, digest, texts[index])
                ticker.advance()
    return [texts[index] for index in range(len(items))]


def before_stop(text: str, stop: Sequence[str]) -> str:
    """The text up to the first stop string, leading white space apart."""
    text = text.lstrip()
    return text[: min((text.index(s) for s in stop if s in text), default=None)].strip()


def check_text(path: Path, detokenize: str) -> None:
    """Raises ValueError, or OSError, for a text that `evaluate_text` cannot score."""
    if not prepare(tables.read_text(path), detokenize).text:
        raise ValueError(f"{path} holds no text")


def evaluate_text(
    evaluator: Evaluator,
    path: Path,
    cache: Cache,
    detokenize: str = "none",
    stride: int | None = None,
) -> Record:
    """Perplexity and bits per byte of a text file, in sliding windows.

    Every token is scored once, after the last seq_len - stride tokens or more (the first ones after
    what there is); the first follows the end-of-text token. Per word, byte and character count the
    units of the file as it is, before de-tokenising: the published perplexities do.
    """
    text = prepare(tables.read_text(path), detokenize)
    seq_len = evaluator.model.config.seq_len
    stride = max(1, seq_len // 2) if stride is None else stride
    ids = tuple(evaluator.tokenizer.encode(text.text).tolist())
    if not ids:
        raise ValueError(f"{path} holds no text")
    request = Request(begin_tokens(evaluator.tokenizer), ids)
    digest = digest_of((request, stride))
    task = f"text:{path.name}"
    known = cache.get(task, 0, digest)
    if known is None:
        known = _score_text(evaluator, request, stride, cache, task, digest)
    loss = -known
    return {
        "text": path.name,
        "detokenize": detokenize,
        "convention": f"{DETOKENIZERS[detokenize].note}; {text.n_kept} of {text.n_lines} lines "
        f"kept as they are; windows of {seq_len}, stride {stride}",
        "tokens": len(ids),
        "words": text.n_words,
        "bytes": text.n_bytes,
        "loss_per_token": loss / len(ids),
        "perplexity_per_token": _exp(loss / len(ids)),
        "perplexity_per_word": _exp(loss / text.n_words),
        "bits_per_byte": loss / math.log(2) / text.n_bytes,
        "bits_per_character": loss / math.log(2) / text.n_characters,
    }


PIECE_WINDOWS = 64
"""Windows of a text that are scored, and kept, together."""


def _score_text(
    evaluator: Evaluator, request: Request, stride: int, cache: Cache, task: str, digest: str
) -> float:
    """The log-probability of a text, in pieces of which each is kept when it is done."""
    ids = (*request.context, *request.continuation)
    seq_len = evaluator.model.config.seq_len
    cut = windows(len(ids), len(request.context), seq_len, stride)
    requests = [Request(ids[w.start : w.first], ids[w.first : w.stop]) for w in cut]
    total = 0.0
    with Ticker(task, len(requests), 0) as ticker:
        for begin in range(0, len(requests), PIECE_WINDOWS):
            piece = requests[begin : begin + PIECE_WINDOWS]
            key = f"{digest}-{begin}"
            known = cache.get(task, 0, key)
            if known is None:
                known = sum(s.log_probability for s in evaluator.scorer().score_all(piece))
                cache.put(task, begin, 0, key, known)
            total += known
            ticker.advance(len(piece))
    cache.put(task, 0, 0, digest, total)
    return total


def _exp(x: float) -> float:
    return math.exp(x) if x < 700 else math.inf
