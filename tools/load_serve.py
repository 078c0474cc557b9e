"""Load on a server of ours: latencies, many clients at once, and garbage.

    python tools/load_serve.py [RUN] [--clients 1,8,64] [--seconds 60] [--rows 16] [--garbage 10000]

Starts `gpt-jax serve RUN` on a free port of this machine (without RUN: of a tiny model with random
weights) and prints

- the latencies of one client: GET /v1/models, 8 tokens, the first text of a stream;
- for each number of clients, asking with OpenAI's client, streamed: texts and tokens a second, the
  seconds to the first text and to the last (median, 95th and 99th percentile), and how many answers
  were wrong (each is compared with the same asked alone) or lost;
- how many of some thousand requests that are none were answered, closed, or left open.
"""

import argparse
import asyncio
import collections
import contextlib
import http.client
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import openai

PROMPTS = [
    f"The {a} {b} " for a in ("old", "red", "small", "last") for b in ("man", "dog", "day", "way")
]
TOKENS = (8, 16, 24, 32)
KEY = "-"
OPEN_SECONDS = 20.0
"""After which a request that is neither answered nor closed counts as left open."""
GARBAGE_AT_ONCE = 400


class Asked(NamedTuple):
    """One answer."""

    first: float
    """Seconds to the first text."""
    last: float
    tokens: int
    right: bool


async def ask(
    client: openai.AsyncOpenAI, model: str, prompt: str, n: int
) -> tuple[str, float, float, int]:
    """(text, seconds to its beginning, to its end, tokens)."""
    began, first, text, tokens = time.monotonic(), 0.0, "", 0
    stream = await client.completions.create(
        model=model,
        prompt=prompt,
        max_tokens=n,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    async for part in stream:
        if part.usage:
            tokens = part.usage.completion_tokens
        if part.choices and part.choices[0].text:
            first = first or time.monotonic() - began
            text += part.choices[0].text
    return text, first, time.monotonic() - began, tokens


async def load(
    url: str, model: str, n_clients: int, seconds: float, alone: dict, key: str = KEY
) -> list[Asked]:
    """What n clients are answered, each asking one thing after another for so long."""
    client = openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=0, timeout=300)
    until = time.monotonic() + seconds
    answers: list[Asked] = []

    async def one(number: int) -> None:
        draw = random.Random(number)
        while time.monotonic() < until:
            prompt, n = draw.choice(PROMPTS), draw.choice(TOKENS)
            text, first, last, tokens = await ask(client, model, prompt, n)
            answers.append(Asked(first, last, tokens, text == alone[prompt, n]))

    await asyncio.gather(*[one(number) for number in range(n_clients)])
    await client.close()
    return answers


async def references(url: str, model: str, key: str = KEY) -> dict[tuple[str, int], str]:
    """Every question asked alone."""
    client = openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=0, timeout=300)
    found = {}
    for prompt in PROMPTS:
        for n in TOKENS:
            found[prompt, n] = (await ask(client, model, prompt, n))[0]
    await client.close()
    return found


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def row(n_clients: int, seconds: float, answers: list[Asked]) -> dict[str, Any]:
    return {
        "clients": n_clients,
        "texts_per_second": len(answers) / seconds,
        "tokens_per_second": sum(a.tokens for a in answers) / seconds,
        **{
            f"{name}_{share}": percentile([getattr(a, name) for a in answers], share / 100)
            for name in ("first", "last")
            for share in (50, 95, 99)
        },
        "answers": len(answers),
        "wrong": sum(not a.right for a in answers),
    }


def latencies(address: str, model: str, key: str = KEY, n: int = 50) -> dict[str, list[float]]:
    """Seconds of n requests of each kind, sorted, one after another over one connection."""
    connection = http.client.HTTPConnection(address, timeout=60)
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    asked = {"model": model, "prompt": "The ", "max_tokens": 8, "temperature": 0}

    def models() -> float:
        began = time.perf_counter()
        connection.request("GET", "/v1/models", headers=headers)
        connection.getresponse().read()
        return time.perf_counter() - began

    def complete(stream: bool) -> float:
        body = json.dumps({**asked, "stream": stream})
        began = time.perf_counter()
        connection.request("POST", "/v1/completions", body, headers)
        response = connection.getresponse()
        assert response.status == 200, response.read()
        if stream:
            response.readline()
        else:
            response.read()
        seconds = time.perf_counter() - began
        response.read()
        return seconds

    kinds: dict[str, Callable[[], float]] = {
        "GET /v1/models": models,
        "8 tokens": lambda: complete(False),
        "first streamed text": lambda: complete(True),
    }
    found = {}
    for name, measure in kinds.items():
        measure()
        found[name] = sorted(measure() for _ in range(n))
    connection.close()
    return found


def make_garbage(draw: random.Random) -> tuple[str, bytes, bool]:
    """(its kind, what is sent, whether the client then ends its side) of a request that is none."""
    noise = draw.randbytes(draw.randint(1, 400))
    head = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    whole = head + b"content-length: 60\r\n\r\n"
    good = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"
    values: list[Any] = [None, True, -1, 1e400, "x" * 50, [], {}, [[]], "\ud800", 2**70]
    value = json.dumps({"model": draw.choice(values), "prompt": draw.choice(values)}).encode()
    kinds = {
        "nothing": b"",
        "noise": noise,
        "noise in lines": noise + b"\r\n\r\n",
        "half a request": good[: draw.randint(1, len(good) - 1)],
        "half a body": whole + b"x" * draw.randint(0, 59),
        "a wrong length": head + b"content-length: -5\r\n\r\nabc",
        "two lengths": head + b"content-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        "broken chunks": head + b"transfer-encoding: chunked\r\n\r\nzz\r\n" + noise,
        "chunks that end": head + b"transfer-encoding: chunked\r\n\r\n5\r\nab",
        "long headers": head + b"x: " + b"y" * draw.choice([1000, 70_000]) + b"\r\n",
        "a header of noise": head + b"x-" + noise + b"\r\n\r\n",
        "wrong fields": head + b"content-length: %d\r\n\r\n" % len(value) + value,
        "noise for JSON": head + b"content-length: %d\r\n\r\n" % len(noise) + noise,
        "deep JSON": head + b"content-length: 5000\r\n\r\n" + b"[" * 5000,
        "no host": b"GET /health HTTP/1.1\r\n\r\n",
        "another host": b"GET /health HTTP/1.1\r\nhost: " + b"evil.example\r\n\r\n",
        "another version": b"GET /health HTTP/%d.7\r\nhost: a\r\n\r\n" % draw.randint(0, 9),
        "a greeting of TLS": b"\x16\x03\x01\x02\x00\x01\x00" + noise,
        "a greeting of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "an upgrade": good[:-2] + b"connection: upgrade\r\nupgrade: websocket\r\n\r\n",
        "one and a half": good + good[: draw.randint(1, 20)],
        "one and noise": good + noise,
    }
    name = draw.choice(list(kinds))
    return name, kinds[name], draw.random() < 0.2


async def throw(address: str, n: int, seed: int = 0) -> dict[str, collections.Counter[str]]:
    """What became of n requests of garbage, by kind: answered, closed, or left open."""
    host, _, port = address.rpartition(":")
    gate = asyncio.Semaphore(GARBAGE_AT_ONCE)
    became: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)

    async def one(number: int) -> None:
        kind, content, ends = make_garbage(random.Random(f"{seed} {number}"))
        async with gate:
            reader, writer = await asyncio.open_connection(host, int(port))
            answer = b""
            try:
                async with asyncio.timeout(OPEN_SECONDS):
                    writer.write(content)
                    await writer.drain()
                    if ends and writer.can_write_eof():
                        writer.write_eof()
                    answer = await reader.read(12)
                state = "answered" if answer.startswith(b"HTTP/1.1 ") else "closed"
            except TimeoutError:
                state = "left open"
            except OSError:
                state = "answered" if answer else "closed"
            became[kind][state] += 1
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    await asyncio.gather(*[one(number) for number in range(n)])
    return dict(became)


def make_tiny_run(directory: Path) -> Path:
    """A run of 30,000 random weights."""
    import jax

    from gpt_jax.config import ComputeConfig, Config, ModelConfig
    from gpt_jax.data.tokenizers.entries.byte import ByteTokenizer
    from gpt_jax.models.gpt import make_gpt
    from gpt_jax.runs.directory import RunDirectory
    from gpt_jax.runs.loading import write_model

    model = ModelConfig(
        vocab_size=257, seq_len=128, n_layers=2, d_model=32, n_heads=4, init_std=0.2
    )
    config = Config(name="tiny", model=model, compute=ComputeConfig(dtype="float32"))
    params = jax.jit(make_gpt(model).init)(jax.random.key(0))
    write_model(RunDirectory(directory), config, params, ByteTokenizer(), {})
    return directory


@contextlib.contextmanager
def started(run: str | Path, *options: str) -> Iterator[str]:
    """host:port of a server of the run, called `it`; ended at the end."""
    command = [sys.executable, "-m", "gpt_jax", "serve", str(run), "--port", "0", "--name", "it"]
    server = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield server.stdout.readline().split(" on http://")[1].split("/v1")[0]
    finally:
        server.terminate()
        server.wait(timeout=60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", nargs="?", help="default: a tiny one, made for the purpose")
    parser.add_argument("--clients", default="1,8,64")
    parser.add_argument("--seconds", type=float, default=60, help="for each number of clients")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--garbage", type=int, default=10_000, help="requests that are none")
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = options.run or make_tiny_run(Path(folder) / "tiny")
        with started(run, "--rows", str(options.rows), "--per-key", "1000") as address:
            figures = measure(address, options)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


def measure(address: str, options: argparse.Namespace) -> dict[str, Any]:
    """All figures, printed as they come."""
    found = latencies(address, "it")
    for name, seconds in found.items():
        print(
            f"{name:20} {1e3 * statistics.median(seconds):7.2f} ms in the median of "
            f"{len(seconds)}, {1e3 * seconds[0]:.2f} at best",
            flush=True,
        )
    url = f"http://{address}/v1"
    alone = asyncio.run(references(url, "it"))
    print(
        "clients  texts/s  tokens/s   first text s: p50   p95   p99   last: p50    p95    p99"
        "  answers  wrong"
    )
    rows = []
    for n in [int(n) for n in options.clients.split(",") if n]:
        began = time.monotonic()
        answers = asyncio.run(load(url, "it", n, options.seconds, alone))
        r = row(n, time.monotonic() - began, answers)
        rows.append(r)
        print(
            f"{n:7}  {r['texts_per_second']:7.1f}  {r['tokens_per_second']:8.1f}"
            f"  {r['first_50']:19.3f} {r['first_95']:5.2f} {r['first_99']:5.2f}"
            f"  {r['last_50']:9.3f} {r['last_95']:6.2f} {r['last_99']:6.2f}"
            f"  {r['answers']:7}  {r['wrong']:5}",
            flush=True,
        )
    began = time.monotonic()
    became = asyncio.run(throw(address, options.garbage))
    total = sum(became.values(), collections.Counter())
    print(
        f"{options.garbage:,} requests of garbage: "
        + ", ".join(f"{total[state]:,} {state}" for state in ("answered", "closed", "left open"))
        + f", in {time.monotonic() - began:.0f} s"
    )
    for kind in sorted(kind for kind, states in became.items() if states["left open"]):
        print(f"  left open: {kind} ({became[kind]['left open']})")
    return {
        "latencies": {name: statistics.median(seconds) for name, seconds in found.items()},
        "load": rows,
        "garbage": {kind: dict(states) for kind, states in sorted(became.items())},
    }


if __name__ == "__main__":
    main()
