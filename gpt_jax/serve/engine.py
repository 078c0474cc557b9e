"""The running half: requests wait, take a row, are told their tokens, and leave it to the next."""

import collections
import dataclasses
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from gpt_jax.cost.rounding import round_up
from gpt_jax.data.streaming import Continuation
from gpt_jax.data.tokenizers import Tokenizer
from gpt_jax.inference.decode import decoding_params
from gpt_jax.models.decoding import init_cache
from gpt_jax.models.gpt import GPT, Params
from gpt_jax.serve.batching import N_BANNED, Step, fill_row, next_tokens


class Busy(Exception):
    """The queue is full."""


class Stopped(Exception):
    """The engine is stopping, or has failed."""


class Token(NamedTuple):
    """One token of a request, and what was likely in its place, if asked: {id: log-probability}."""

    token: int
    log_probability: float
    likeliest: dict[int, float]


class Event(NamedTuple):
    """Told of a request: text that nothing can change any more, and its end."""

    text: str
    tokens: tuple[Token, ...]
    finish_reason: str | None = None
    """stop (an end of text, or a stop string), length, or None while more comes."""


@dataclasses.dataclass
class Request:
    """A prompt and how it is continued."""

    ids: np.ndarray
    max_tokens: int
    temperature: float
    top_p: float
    seed: int
    number: int
    """Index of the choice: several choices of one seed are drawn independently."""
    stop: tuple[str, ...]
    tell: Callable[[Event], None]
    """Called from the engine's thread."""
    top_k: int | None = None
    """None takes every token."""
    min_tokens: int = 0
    """Tokens that are drawn before an end of text, one of `ends` or a stop string may end it."""
    ends: frozenset[int] = frozenset()
    """Tokens that end the text beside the tokenizer's end of text, themselves left out."""
    n_likeliest: int = 0
    """Alternatives to report for each token, up to batching.N_LIKELIEST."""
    cancelled: bool = False
    """Set by anybody who no longer listens: its row is free after the next step."""


@dataclasses.dataclass
class _Row:
    """A request at work."""

    request: Request
    continuation: Continuation
    last: int
    position: int
    n_drawn: int = 0
    n_told: int = 0
    untold: list[Token] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Counts:
    """Counters of the engine's work, for the metrics."""

    tokens: int = 0
    steps: int = 0
    row_steps: int = 0
    """Rows at work, summed over steps."""
    prompt_tokens: int = 0


class Engine:
    """Continuous batching over one cache, in a thread of its own."""

    def __init__(
        self,
        model: GPT,
        params: Params,
        tokenizer: Tokenizer,
        n_rows: int = 16,
        n_waiting: int = 256,
    ):
        self.model, self.tokenizer = model, tokenizer
        self.context = model.config.seq_len
        self.counts = Counts()
        self._params = decoding_params(model, params)
        self._cache = init_cache(model, n_rows, self.context)
        self._rows: list[_Row | None] = [None] * n_rows
        self._waiting: queue.Queue[Request] = queue.Queue(n_waiting)
        self._arrived = threading.Event()
        self._closing = False
        self._failed = False
        self._door = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self.recent = collections.deque[float](maxlen=256)
        """Seconds of the last steps."""

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Finish what is at work and waiting, and end the thread."""
        with self._door:
            self._closing = True
        self._arrived.set()
        self._thread.join()

    @property
    def healthy(self) -> bool:
        return self._thread.is_alive() and not self._closing

    @property
    def n_active(self) -> int:
        return sum(row is not None for row in self._rows)

    @property
    def n_waiting(self) -> int:
        return self._waiting.qsize()

    @property
    def ends(self) -> frozenset[int]:
        """Tokens that end every text."""
        return frozenset(self.tokenizer.ends)

    def submit(self, request: Request) -> None:
        """Queue a request of 1 to context - 1 prompt tokens, and fewer than N_BANNED ends.

        Raises Busy if the queue is full, Stopped if nobody would answer.
        """
        with self._door:  # not between the last look into the queue and the thread's end
            if not self.healthy or self._failed:
                raise Stopped("the server is stopping")
            try:
                self._waiting.put_nowait(request)
            except queue.Full:
                raise Busy(f"{self._waiting.maxsize} requests wait; try again later") from None
        self._arrived.set()

    def _run(self) -> None:
        try:
            while True:
                self._admit()
                if any(self._rows):
                    self._step()
                elif self._closing and self._waiting.empty():
                    return
                else:
                    self._arrived.wait(timeout=1.0)
                    self._arrived.clear()
        except BaseException:
            with self._door:
                self._failed = True
                self._fail_all()
            raise

    def _fail_all(self) -> None:
        """Nobody waits for what will not come."""
        for row in self._rows:
            if row is not None:
                row.request.tell(Event("", (), "error"))
        while not self._waiting.empty():
            self._waiting.get_nowait().tell(Event("", (), "error"))

    def _admit(self) -> None:
        """Waiting requests into free rows."""
        for number, row in enumerate(self._rows):
            if row is not None:
                continue
            request = self._next_waiting()
            if request is None:
                return
            ids = request.ids
            if len(ids) > 1:  # a step computes the last token itself
                width = min(round_up(len(ids) - 1), self.context)
                tokens = np.zeros((1, width), np.int32)
                tokens[0, : len(ids) - 1] = ids[:-1]
                self._cache = fill_row(
                    self.model, self._params, self._cache, tokens, np.int32(number)
                )
            continuation = Continuation(self.tokenizer, ids, request.stop)
            self._rows[number] = _Row(request, continuation, int(ids[-1]), len(ids) - 1)
            self.counts.prompt_tokens += len(ids)

    def _next_waiting(self) -> Request | None:
        while True:
            try:
                request = self._waiting.get_nowait()
            except queue.Empty:
                return None
            if not request.cancelled:
                return request

    def _step(self) -> None:
        began = time.monotonic()
        step = self._told()
        following, self._cache = next_tokens(
            self.model, self._params, self._cache, step, self.tokenizer.vocab_size
        )
        found = jax.device_get(following)
        self.counts.steps += 1
        for number, row in enumerate(self._rows):
            if row is None:
                continue
            self.counts.row_steps += 1
            n = row.request.n_likeliest
            ids = found.likeliest_BK[number, :n].tolist()
            token = Token(
                int(found.token_B[number]),
                float(found.log_probability_B[number]),
                dict(zip(ids, found.log_probabilities_BK[number, :n].tolist(), strict=True)),
            )
            if self._take(row, token):
                self._rows[number] = None
        self.recent.append(time.monotonic() - began)

    def _told(self) -> Step:
        """Inputs of the next step; a free row has a token at position 0, its key is never read."""
        n, vocabulary = len(self._rows), self.tokenizer.vocab_size
        step = Step(
            token_B=np.zeros(n, np.int32),
            position_B=np.zeros(n, np.int32),
            temperature_B=np.zeros(n, np.float32),
            top_k_B=np.full(n, vocabulary, np.int32),
            top_p_B=np.ones(n, np.float32),
            seed_B=np.zeros(n, np.uint32),
            number_B=np.zeros(n, np.uint32),
            drawn_B=np.zeros(n, np.uint32),
            banned_BE=np.full((n, N_BANNED), np.iinfo(np.int32).max),
            tells=np.asarray(any(row and row.request.n_likeliest for row in self._rows)),
        )
        for i, row in enumerate(self._rows):
            if row is None:
                continue
            request = row.request
            step.token_B[i], step.position_B[i] = row.last, row.position
            step.temperature_B[i], step.top_p_B[i] = request.temperature, request.top_p
            step.top_k_B[i] = min(request.top_k or vocabulary, vocabulary)
            step.seed_B[i], step.drawn_B[i] = request.seed, row.n_drawn
            step.number_B[i] = request.number
            if row.n_drawn < request.min_tokens:
                banned = sorted(self.ends | request.ends)
                step.banned_BE[i, : len(banned)] = banned
        return step

    def _take(self, row: _Row, token: Token) -> bool:
        """A row's next token; True if its request is done."""
        request = row.request
        if request.cancelled:
            return True
        row.n_drawn += 1
        row.position += 1
        row.last = token.token
        reason: str | None = None
        if token.token in self.ends or token.token in request.ends:
            reason = "stop"
        else:
            self.counts.tokens += 1
            row.untold.append(token)
            if row.continuation.add([token.token], row.n_drawn > request.min_tokens):
                reason = "stop"
            elif row.n_drawn >= request.max_tokens or row.position + 1 >= self.context:
                reason = "length"
        text = row.continuation.text
        end = len(text) if reason else row.continuation.n_certain
        if reason or end > row.n_told:
            request.tell(Event(text[row.n_told : end], tuple(row.untold), reason))
            row.n_told, row.untold = end, []
        return reason is not None


def describe(engine: Engine) -> dict[str, Any]:
    """Gauges and counts, by the names of the metrics."""
    return {
        "rows_active": engine.n_active,
        "requests_waiting": engine.n_waiting,
        **dataclasses.asdict(engine.counts),
    }
