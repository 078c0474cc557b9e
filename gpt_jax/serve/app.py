"""The endpoint: requests checked, handed to the engine, answered whole or as they come."""

import asyncio
import collections
import contextlib
import functools
import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from gpt_jax import pages
from gpt_jax.data.tokenizers import Tokenizer
from gpt_jax.finetune.templates import Template
from gpt_jax.inference.chat import stop_strings
from gpt_jax.inference.filters import NO_FILTERS, Filters
from gpt_jax.serve.access import Access, HostGuard
from gpt_jax.serve.batching import N_BANNED
from gpt_jax.serve.engine import Busy, Engine, Event, Request, Stopped, Token, describe
from gpt_jax.serve.forms import ChatForm, CompletionForm, Form, token_counts
from gpt_jax.serve.prompts import chat_prompt, completion_prompts
from gpt_jax.serve.protocol import ApiError, ChatRequest, CompletionRequest, invalid, parse

MAX_BODY_BYTES = 1 << 20
DEFAULT_TOKENS = 16
"""max_tokens of a completion that gives none, as at OpenAI; a chat may fill the context."""
GONE = 499
"""Status under which the metrics count clients that disconnected before the answer."""


class Served:
    """State that the request handlers share."""

    def __init__(
        self,
        engine: Engine,
        name: str,
        template: Template | None,
        access: Access | None = None,
        filters: Filters = NO_FILTERS,
        knows_chats: bool = False,
    ):
        """knows_chats: whether the chat page converses, and does not continue texts."""
        self.engine, self.name, self.template = engine, name, template
        self.access, self.filters = access or Access(), filters
        self.knows_chats = knows_chats
        self.at_work: dict[str, int] = {}
        self.created = int(time.time())
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "gpt_jax_requests", "Requests by answer.", ["path", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "gpt_jax_request_seconds", "From request to last token.", registry=self.registry
        )
        self.first_token_seconds = Histogram(
            "gpt_jax_first_text_seconds", "From request to first text.", registry=self.registry
        )
        self.gauges = {
            name: Gauge(f"gpt_jax_{name}", name.replace("_", " "), registry=self.registry)
            for name in describe(engine)
        }

    @functools.cached_property
    def page(self) -> str:
        """The chat page."""
        return pages.render(
            "gpt_jax.serve/chat.html",
            self.name,
            "gpt_jax.serve/chat.css",
            "gpt_jax.serve/chat.js",
            asks_server=True,
            model=self.name,
            chat=self.knows_chats,
            needs_key=bool(self.access.keys),
        )

    @property
    def tokenizer(self) -> Tokenizer:
        return self.engine.tokenizer


def make_app(served: Served) -> Starlette:
    """The application; its lifespan starts and ends the engine."""

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        served.engine.start()
        yield
        await asyncio.to_thread(served.engine.close)

    def route(path: str, method: str, handler: Callable[..., Awaitable[Response]]) -> Route:
        async def answer(request: HttpRequest) -> Response:
            try:
                response = await handler(served, request)
            except ApiError as error:
                response = JSONResponse(error.body, error.status)
            except ClientDisconnect:
                response = Response(status_code=GONE)
            served.requests.labels(path, response.status_code).inc()
            return response

        return Route(path, answer, methods=[method])

    return Starlette(
        routes=[
            route("/", "GET", _page),
            route("/v1/completions", "POST", _completions),
            route("/v1/chat/completions", "POST", _chat),
            route("/v1/models", "GET", _models),
            route("/v1/models/{name:path}", "GET", _model),
            route("/health", "GET", _health),
            route("/metrics", "GET", _metrics),
        ],
        lifespan=lifespan,
        middleware=[Middleware(HostGuard, access=served.access)],
        exception_handlers={HTTPException: _not_found, Exception: _failed},
    )


async def _page(served: Served, _: HttpRequest) -> Response:
    """The page to talk with the model; who may is decided by the requests that it sends."""
    return HTMLResponse(served.page, headers={"Content-Security-Policy": "frame-ancestors 'none'"})


async def _not_found(request: HttpRequest, error: Exception) -> Response:
    """A path or method that there is none of."""
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}"
    body = ApiError(error.status_code, message, "invalid_request_error").body
    return JSONResponse(body, error.status_code)


async def _failed(_: HttpRequest, __: Exception) -> Response:
    return JSONResponse(ApiError(500, "the server failed; see its log", "server_error").body, 500)


async def _health(served: Served, _: HttpRequest) -> Response:
    ready = served.engine.healthy
    return JSONResponse({"status": "ready" if ready else "stopping"}, 200 if ready else 503)


async def _metrics(served: Served, request: HttpRequest) -> Response:
    if not served.access.open_metrics:
        served.access.key_of(request)
    for name, value in describe(served.engine).items():
        served.gauges[name].set(value)
    return Response(generate_latest(served.registry), media_type="text/plain; version=0.0.4")


async def _models(served: Served, request: HttpRequest) -> Response:
    served.access.key_of(request)
    return JSONResponse({"object": "list", "data": [_described(served)]})


async def _model(served: Served, request: HttpRequest) -> Response:
    served.access.key_of(request)
    _check_model(served, request.path_params["name"])
    return JSONResponse(_described(served))


def _described(served: Served) -> dict[str, Any]:
    return {"id": served.name, "object": "model", "created": served.created, "owned_by": "gpt_jax"}


async def _completions(served: Served, request: HttpRequest) -> Response:
    key = served.access.key_of(request)
    asked: CompletionRequest = parse(CompletionRequest, await _body(served, request))
    _check(served, key, asked, len(asked.prompt))
    prompts = await asyncio.to_thread(
        completion_prompts, asked, served.tokenizer, served.filters, served.engine.context
    )
    tokens = asked.max_tokens or max(DEFAULT_TOKENS, asked.min_tokens)
    form = CompletionForm(served.name, served.tokenizer, asked)
    return await _answer(served, request, key, asked, form, prompts, tokens, asked.stops)


async def _chat(served: Served, request: HttpRequest) -> Response:
    key = served.access.key_of(request)
    asked: ChatRequest = parse(ChatRequest, await _body(served, request))
    _check(served, key, asked, 1)
    prompt = await asyncio.to_thread(
        chat_prompt,
        asked,
        served.template,
        served.tokenizer,
        served.filters,
        served.engine.context,
    )
    stops = (*asked.stops, *stop_strings(served.template))
    tokens = asked.max_tokens or served.engine.context
    form = ChatForm(served.name, served.tokenizer, asked)
    return await _answer(served, request, key, asked, form, [prompt], tokens, stops)


async def _body(served: Served, request: HttpRequest) -> bytes:
    """Raises ApiError for a body that is too large, before all of it is read, or no JSON."""
    served.access.check_content_type(request)
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_BODY_BYTES:
            raise ApiError(
                413, f"the body is over {MAX_BODY_BYTES:,} bytes", "invalid_request_error"
            )
    return bytes(content)


def _check_model(served: Served, name: str) -> None:
    if name != served.name:
        message = f"there is no model {name[:100]!r}; this server has {served.name!r}"
        raise ApiError(404, message, "invalid_request_error", "model_not_found", "model")


def _check(
    served: Served, key: str, asked: CompletionRequest | ChatRequest, n_prompts: int
) -> None:
    """All that can be said before a text is read. Raises ApiError."""
    _check_model(served, asked.model)
    if served.filters and asked.tells_tokens:
        message = "logprobs: this server filters texts and tells no single tokens"
        raise invalid(message, parameter="logprobs")
    known, ends = served.tokenizer.vocab_size, served.engine.ends.union(asked.stop_token_ids)
    if not all(0 <= token < known for token in ends):
        message = f"stop_token_ids: token ids are 0 to {known - 1}"
        raise invalid(message, parameter="stop_token_ids")
    if asked.min_tokens and not len(ends) < min(known, N_BANNED + 1):
        message = f"min_tokens: {len(ends)} of {known} tokens end the text; allowed: {N_BANNED}"
        raise invalid(message, parameter="min_tokens")
    _check_rate(served, key, n_prompts * asked.n)


def _check_rate(served: Served, key: str, n_choices: int) -> None:
    if served.at_work.get(key, 0) + n_choices > served.access.per_key:
        raise _too_many(f"{served.access.per_key} texts of one key at a time; try again later")


async def _answer(
    served: Served,
    http: HttpRequest,
    key: str,
    asked: CompletionRequest | ChatRequest,
    form: Form,
    prompts: list[np.ndarray],
    max_tokens: int,
    stops: tuple[str, ...],
) -> Response:
    """Submit every choice, and answer when all are done, or as they come."""
    n_choices = len(prompts) * asked.n
    _check_rate(served, key, n_choices)  # again: others came while the prompts were encoded
    events: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()
    submitted = _submit(served, asked, prompts, max_tokens, stops, events)
    served.at_work[key] = served.at_work.get(key, 0) + n_choices
    n_prompt = sum(len(ids) for ids in prompts)

    def release() -> None:
        _cancel(submitted)
        served.at_work[key] -= n_choices

    told = _told(served, n_choices, events)
    if served.filters:
        told = _filtered(served.filters, told)
    if asked.stream:
        return _Stream(_lines(form, told, n_prompt, asked.stream_options.include_usage), release)
    try:
        return await _whole(http, form, told, n_choices, n_prompt)
    finally:
        release()


def _submit(
    served: Served,
    asked: CompletionRequest | ChatRequest,
    prompts: list[np.ndarray],
    max_tokens: int,
    stops: tuple[str, ...],
    events: asyncio.Queue[tuple[int, Event]],
) -> list[Request]:
    """Hand every choice to the engine, which tells `events` of it; all of them, or none."""
    loop = asyncio.get_running_loop()
    base = secrets.randbits(32) if asked.seed is None else asked.seed
    submitted: list[Request] = []

    def teller(index: int) -> Callable[[Event], None]:
        def tell(event: Event) -> None:
            loop.call_soon_threadsafe(events.put_nowait, (index, event))

        return tell

    try:
        for index in range(len(prompts) * asked.n):
            request = Request(
                ids=prompts[index // asked.n],
                max_tokens=max_tokens,
                temperature=asked.temperature,
                top_p=asked.top_p,
                seed=base % 2**32,
                number=index,
                stop=stops,
                tell=teller(index),
                top_k=asked.top_k if asked.top_k > 0 else None,
                min_tokens=asked.min_tokens,
                ends=frozenset(asked.stop_token_ids),
                n_likeliest=asked.n_likeliest,
            )
            served.engine.submit(request)
            submitted.append(request)
    except Stopped as stopped:
        _cancel(submitted)
        raise ApiError(503, str(stopped), "server_error") from None
    except Busy as busy:
        _cancel(submitted)
        raise _too_many(str(busy)) from None
    return submitted


class _Stream(StreamingResponse):
    """Server-sent events; released however it ends, also before its first line."""

    def __init__(self, lines: AsyncIterator[str], release: Callable[[], None]):
        super().__init__(lines, media_type="text/event-stream")
        self._release = release

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._release()


async def _told(
    served: Served, n_choices: int, events: asyncio.Queue[tuple[int, Event]]
) -> AsyncIterator[tuple[int, Event]]:
    """The events of all choices until each has ended."""
    began, first, left = time.monotonic(), True, n_choices
    while left:
        index, event = await events.get()
        if first:
            served.first_token_seconds.observe(time.monotonic() - began)
            first = False
        left -= event.finish_reason is not None
        yield index, event
    served.seconds.observe(time.monotonic() - began)


async def _filtered(
    filters: Filters, told: AsyncIterator[tuple[int, Event]]
) -> AsyncIterator[tuple[int, Event]]:
    """Each choice as one event, when its text is complete: before that nobody knows what is in
    it."""
    texts: dict[int, str] = collections.defaultdict(str)
    tokens: dict[int, tuple[Token, ...]] = collections.defaultdict(tuple)
    async with contextlib.aclosing(told):  # type: ignore[type-var]
        async for index, event in told:
            texts[index] += event.text
            tokens[index] += event.tokens
            if event.finish_reason is not None:
                text, cut = await asyncio.to_thread(_kept, filters, texts[index])
                yield index, Event(text, tokens[index], _reason(event, cut))


def _kept(filters: Filters, text: str) -> tuple[str, bool]:
    return filters.output(text), filters.cuts(text)


def _reason(event: Event, cut: bool) -> str | None:
    failed = event.finish_reason == "error"
    return "content_filter" if cut and not failed else event.finish_reason


def _cancel(requests: list[Request]) -> None:
    for request in requests:
        request.cancelled = True


def _too_many(message: str) -> ApiError:
    return ApiError(429, message, "requests", "rate_limit_exceeded")


async def _whole(
    http: HttpRequest,
    form: Form,
    told: AsyncIterator[tuple[int, Event]],
    n_choices: int,
    n_prompt: int,
) -> Response:
    texts, tokens = [""] * n_choices, [list[Token]() for _ in range(n_choices)]
    reasons: list[str | None] = [None] * n_choices
    async with contextlib.aclosing(told):  # type: ignore[type-var]
        async for index, event in told:
            texts[index] += event.text
            tokens[index] += event.tokens
            reasons[index] = event.finish_reason
            if await http.is_disconnected():
                return Response(status_code=GONE)
    if "error" in reasons:
        raise ApiError(500, "the model failed; see the server's log", "server_error")
    choices = [form.choice(*c) for c in zip(range(n_choices), texts, tokens, reasons, strict=True)]
    usage = token_counts(n_prompt, sum(map(len, tokens)))
    return JSONResponse({**form.head(False), "choices": choices, "usage": usage})


async def _lines(
    form: Form, told: AsyncIterator[tuple[int, Event]], n_prompt: int, includes_usage: bool
) -> AsyncIterator[str]:
    """Server-sent events."""
    head, n_tokens, begun = form.head(True), 0, set[int]()
    async with contextlib.aclosing(told):  # type: ignore[type-var]
        async for index, event in told:
            if event.finish_reason == "error":
                body = ApiError(500, "the model failed; see the server's log", "server_error").body
                yield f"data: {json.dumps(body)}\n\n"
                return
            n_tokens += len(event.tokens)
            choice = form.part(index, event, index not in begun)
            begun.add(index)
            yield f"data: {json.dumps({**head, 'choices': [choice]}, ensure_ascii=False)}\n\n"
    if includes_usage:
        usage = token_counts(n_prompt, n_tokens)
        yield f"data: {json.dumps({**head, 'choices': [], 'usage': usage})}\n\n"
    yield "data: [DONE]\n\n"
