"""Load on a server of ours: many clients at once, every answer checked against one asked alone.

    python tools/load_serve.py RUN [--clients 1,8,64] [--seconds 60] [--rows 16]

Starts `gpt-jax serve RUN` on a free port of this machine, asks with OpenAI's client, streamed, and
prints for each number of clients: texts and tokens a second, the seconds to the first text and to
the last (median, 95th and 99th percentile), and how many answers were wrong or lost.
"""

import argparse
import asyncio
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import openai

PROMPTS = [
    f"The {a} {b} " for a in ("old", "red", "small", "last") for b in ("man", "dog", "day", "way")
]
TOKENS = (8, 16, 24, 32)


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


async def load(url: str, model: str, n_clients: int, seconds: float, alone: dict) -> list[Asked]:
    """What n clients are answered, each asking one thing after another for so long."""
    client = openai.AsyncOpenAI(base_url=url, api_key="-", max_retries=0, timeout=300)
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


async def references(url: str, model: str) -> dict[tuple[str, int], str]:
    """Every question asked alone."""
    client = openai.AsyncOpenAI(base_url=url, api_key="-", max_retries=0, timeout=300)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("--clients", default="1,8,64")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--json", type=Path, help="write the rows there")
    options = parser.parse_args()
    command = [sys.executable, "-m", "gpt_jax", "serve", options.run, "--port", "0", "--name", "it"]
    command += ["--rows", str(options.rows), "--per-key", "1000"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        address = server.stdout.readline().split(" on ")[1].split("/v1")[0] + "/v1"
        alone = asyncio.run(references(address, "it"))
        print(
            "clients  texts/s  tokens/s   first text s: p50   p95   p99   last: p50    p95    p99"
            "  answers  wrong"
        )
        rows = []
        for n in map(int, options.clients.split(",")):
            began = time.monotonic()
            answers = asyncio.run(load(address, "it", n, options.seconds, alone))
            r = row(n, time.monotonic() - began, answers)
            rows.append(r)
            print(
                f"{n:7}  {r['texts_per_second']:7.1f}  {r['tokens_per_second']:8.1f}"
                f"  {r['first_50']:19.3f} {r['first_95']:5.2f} {r['first_99']:5.2f}"
                f"  {r['last_50']:9.3f} {r['last_95']:6.2f} {r['last_99']:6.2f}"
                f"  {r['answers']:7}  {r['wrong']:5}",
                flush=True,
            )
        if options.json:
            options.json.write_text(json.dumps(rows, indent=1) + "\n")
    finally:
        server.terminate()
        server.wait(timeout=60)


if __name__ == "__main__":
    main()
