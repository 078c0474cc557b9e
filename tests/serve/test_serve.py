"""A real server process and OpenAI's own client."""

import asyncio
import concurrent.futures
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

import pytest
from random_runs import make_run

openai = pytest.importorskip("openai")
pytest.importorskip("uvicorn")
pytest.importorskip("starlette")
pytest.importorskip("prometheus_client")

from starlette.testclient import TestClient  # noqa: E402

from gpt_jax import cli  # noqa: E402
from gpt_jax.finetune.templates import load_template  # noqa: E402
from gpt_jax.inference.filters import Filters  # noqa: E402
from gpt_jax.inference.generate import generate_text  # noqa: E402
from gpt_jax.inference.settings import SamplingConfig  # noqa: E402
from gpt_jax.runs.directory import RunDirectory  # noqa: E402
from gpt_jax.runs.loading import load_run  # noqa: E402
from gpt_jax.serve.app import Served, make_app  # noqa: E402
from gpt_jax.serve.engine import Engine  # noqa: E402

ROWS = 4
KEY = "secret"


class Server(NamedTuple):
    process: subprocess.Popen
    url: str
    run: Path

    def client(self, key: str = KEY) -> "openai.OpenAI":
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=120)

    def get(self, path: str) -> str:
        request = urllib.request.Request(self.url + path)
        request.add_header("authorization", f"Bearer {KEY}")
        return urllib.request.urlopen(request, timeout=10).read().decode()

    def metric(self, name: str) -> float:
        lines = self.get("/metrics").splitlines()
        return float(next(line for line in lines if line.startswith(f"gpt_jax_{name} ")).split()[1])


def start(run: Path, *options: str) -> Server:
    command = [sys.executable, "-m", "gpt_jax", "serve", str(run), "--port", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert "serving" in line, line
    server = Server(process, line.split(" on ")[1].split("/v1")[0], run)
    for _ in range(200):
        try:
            if json.loads(server.get("/health"))["status"] == "ready":
                return server
        except OSError:
            time.sleep(0.05)
    raise AssertionError("it never was ready")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("serve") / "tiny"
    return make_run(path, {"seq_len": 96, "vocab_size": 257}).path


@pytest.fixture(scope="module")
def server(run):
    keys = run.parent / "keys"
    keys.write_text(f"other\n{KEY}\n")
    options = ["--name", "tiny", "--rows", str(ROWS), "--keys", str(keys), "--per-key", "70"]
    options += ["--header-seconds", "1", "--body-seconds", "1"]
    server = start(run, *options)
    yield server
    server.process.kill()


def prompts(n):
    return [f"prompt number {i} of {n}" for i in range(n)]


def alone(run, texts, n_tokens):
    """What `gpt-jax generate` makes of each."""
    _, model, params, tokenizer = load_run(run)
    sampling = SamplingConfig(temperature=0.0, max_new_tokens=n_tokens)
    return generate_text(model, params, tokenizer, texts, sampling)


def test_many_at_once_are_what_each_is_alone(server):
    texts = prompts(11)

    def ask(i):
        stream = i % 2 == 0
        answer = server.client().completions.create(
            model="tiny", prompt=texts[i], max_tokens=20 + i, temperature=0, stream=stream
        )
        if not stream:
            return answer.choices[0].text
        parts = list(answer)
        assert parts[-1].choices[0].finish_reason == "length"
        return "".join(part.choices[0].text for part in parts)

    with concurrent.futures.ThreadPoolExecutor(len(texts)) as pool:
        got = list(pool.map(ask, range(len(texts))))
    want = [alone(server.run, [text], 20 + i)[0] for i, text in enumerate(texts)]
    assert got == want
    assert len(set(got)) > 5
    # More than one row was at work in a step, and all of it is over.
    assert server.metric("row_steps") > 1.5 * server.metric("steps")
    assert server.metric("rows_active") == 0


def test_a_seed_is_a_text_whoever_else_is_there(server):
    client = server.client()

    def ask(seed, n=1):
        return client.completions.create(
            model="tiny", prompt="abc", max_tokens=30, seed=seed, n=n, top_p=0.9
        )

    (before,) = ask(7).choices
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        crowd = list(pool.map(ask, [1, 7, 2, 3]))
    assert crowd[1].choices[0].text == before.text
    assert crowd[0].choices[0].text != before.text
    several = ask(7, n=3)
    assert [c.index for c in several.choices] == [0, 1, 2]
    assert several.choices[0].text == before.text
    assert len({c.text for c in several.choices}) == 3
    assert ask(8).choices[0].text not in {c.text for c in several.choices}
    assert several.usage.prompt_tokens == 3
    assert 3 <= several.usage.completion_tokens <= 90


def test_log_probabilities_stop_strings_and_ids(server):
    client = server.client()
    prompt = "the"
    (text,) = alone(server.run, [prompt], 24)
    stop = next(c for c in text if c.isascii() and c != text[0])
    ask = {"model": "tiny", "prompt": prompt, "max_tokens": 24, "temperature": 0}
    choice = client.completions.create(**ask, stop=[stop], logprobs=3).choices[0]
    assert choice.text == text[: text.index(stop)]
    assert choice.finish_reason == "stop"
    best = choice.logprobs
    for token, log_p, top in zip(best.tokens, best.token_logprobs, best.top_logprobs, strict=True):
        assert log_p <= 0
        assert len(top) == 3, "bytes that are no character are told apart"
        assert max(top.values()) == pytest.approx(log_p)
        assert top[token] == pytest.approx(log_p)
    ids = client.completions.create(**{**ask, "prompt": list(prompt.encode())}).choices[0].text
    assert ids == text


def test_chat(server):
    messages = [{"role": "user", "content": "hi"}]
    ask = {"model": "tiny", "messages": messages, "max_tokens": 8, "temperature": 0}
    whole = server.client().chat.completions.create(**ask, logprobs=True, top_logprobs=2)
    assert whole.choices[0].message.role == "assistant"
    parts = list(
        server.client().chat.completions.create(
            **ask, stream=True, stream_options={"include_usage": True}
        )
    )
    text = "".join(p.choices[0].delta.content or "" for p in parts if p.choices)
    assert text == whole.choices[0].message.content
    assert parts[-1].usage.completion_tokens == len(whole.choices[0].logprobs.content) == 8
    n_prompt = len("User: hi\nAssistant: ") + 1
    assert whole.usage.prompt_tokens == n_prompt


def test_bad_requests_get_the_apis_errors(server):
    client = server.client()
    ask = {"model": "tiny", "prompt": "a", "max_tokens": 4}
    for changes, error, said in (
        ({"model": "gpt-5"}, openai.NotFoundError, "no model 'gpt-5'; this server has 'tiny'"),
        ({"prompt": "a" * 96}, openai.BadRequestError, "the prompt has 96 tokens; the model's"),
        ({"temperature": 3}, openai.BadRequestError, "temperature"),
        ({"prompt": [257]}, openai.BadRequestError, "token ids are 0 to 256"),
        ({"echo": True}, openai.BadRequestError, "echo"),
        ({"n": 16, "prompt": ["a"] * 5}, openai.RateLimitError, "70 texts of one key at a time"),
        ({"prompt": "a" * 2_000_000}, openai.APIStatusError, "the body is over"),
    ):
        with pytest.raises(error, match=said) as caught:
            client.completions.create(**{**ask, **changes})
        assert set(caught.value.body) == {"message", "type", "param", "code"}
    with pytest.raises(openai.AuthenticationError) as caught:
        server.client("wrong").completions.create(**ask)
    assert caught.value.code == "invalid_api_key"
    strange = urllib.request.Request(f"{server.url}/v1/models")
    strange.add_header("authorization", "Bearer \u00e9")
    nowhere = urllib.request.Request(f"{server.url}/v1/nothing")
    otherwise = urllib.request.Request(f"{server.url}/v1/completions", method="GET")
    for request, status in ((strange, 401), (nowhere, 404), (otherwise, 405)):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=10)
        assert refused.value.code == status
        assert "message" in json.loads(refused.value.read())["error"]
    with pytest.raises(openai.BadRequestError, match="role 'tool'"):
        client.chat.completions.create(model="tiny", messages=[{"role": "tool", "content": "x"}])
    assert [m.id for m in client.models.list()] == ["tiny"]
    assert client.completions.create(**ask).usage.completion_tokens == 4, "it goes on"


def test_who_goes_away_frees_the_row(server):
    stream = server.client().completions.create(
        model="tiny", prompt="long", max_tokens=80, stream=True
    )
    next(iter(stream))
    stream.close()
    for _ in range(100):
        if server.metric("rows_active") == 0:
            break
        time.sleep(0.05)
    assert server.metric("rows_active") == 0
    assert 'path="/v1/completions",status="400"' in server.get("/metrics")


def test_a_crowd_and_garbage_lose_nothing(server, repository, monkeypatch):
    """The short form of tests/serve/test_serve_load.py."""
    monkeypatch.syspath_prepend(str(repository / "tools"))
    tool = importlib.import_module("load_serve")
    monkeypatch.setattr(tool, "PROMPTS", tool.PROMPTS[:2])
    monkeypatch.setattr(tool, "TOKENS", (8, 16))
    url, address = f"{server.url}/v1", server.url.removeprefix("http://")
    best = {name: times[0] for name, times in tool.latencies(address, "tiny", KEY, 20).items()}
    assert best["GET /v1/models"] < 0.03, "an answer waits for an acknowledgement"
    alone = asyncio.run(tool.references(url, "tiny", KEY))
    answers = asyncio.run(tool.load(url, "tiny", 64, 1, alone, KEY))
    assert len(answers) >= 64
    assert all(answer.right for answer in answers)
    became = asyncio.run(tool.throw(address, 300))
    assert len(became) > 15
    assert not [kind for kind, states in became.items() if states["left open"]]
    assert server.metric("rows_active") == 0


def test_told_to_stop_it_finishes_what_it_has(run):
    server = start(run, "--name", "tiny", "--rows", "2")
    client, n = server.client(), 6
    with concurrent.futures.ThreadPoolExecutor(n) as pool:
        asked = [
            pool.submit(
                client.completions.create,
                model="tiny",
                prompt=text,
                max_tokens=70,
                temperature=0,
            )
            for text in prompts(n)
        ]
        while server.metric("rows_active") == 0:
            time.sleep(0.01)
        os.kill(server.process.pid, signal.SIGTERM)
        texts = [future.result().choices[0].text for future in asked]
    assert texts == [alone(run, [text], 70)[0] for text in prompts(n)]
    assert server.process.wait(timeout=30) == 0
    with pytest.raises(openai.APIConnectionError):
        client.completions.create(model="tiny", prompt="a", max_tokens=1)


def test_listed_words_and_personal_data_are_kept_out(run):
    text = alone(run, ["a"], 60)[0]
    word = re.search(r"(?<!\w)\w+(?!\w)", text)[0]
    _, model, params, tokenizer = load_run(run)
    served = Served(
        Engine(model, params, tokenizer, n_rows=2),
        "tiny",
        load_template("chat"),
        filters=Filters((word,), personal_data=True),
    )
    ask = {"model": "tiny", "prompt": "a", "max_tokens": 60, "temperature": 0}
    with TestClient(make_app(served), base_url="http://127.0.0.1") as client:

        def post(path="completions", **changes):
            asked = {**ask, **changes}
            if path != "completions":
                del asked["prompt"]
            return client.post(f"/v1/{path}", json=asked)

        (choice,) = post().json()["choices"]
        assert choice["text"] == text[: text.index(word)]
        assert choice["finish_reason"] == "content_filter"
        assert post().json()["usage"]["completion_tokens"] == 60
        sent = [line for line in post(stream=True).text.split("\n\n") if '"choices"' in line]
        (streamed,) = [json.loads(line.removeprefix("data: "))["choices"][0] for line in sent]
        assert streamed["text"] == choice["text"], "nothing before it is complete"
        # Personal data are replaced before the model reads them.
        redacted = [post(prompt=p).json()["usage"]["prompt_tokens"] for p in ("a@b.com", "[email]")]
        assert redacted == [7, 7]
        for changes, said in (
            ({"prompt": f"so {word}!"}, "the stop list does not allow"),
            ({"prompt": [1, 2]}, "takes no token ids"),
            ({"logprobs": 1}, "tells no single tokens"),
            (
                {"path": "chat/completions", "messages": [{"role": "user", "content": word}]},
                "the stop list does not allow",
            ),
        ):
            answer = post(**changes)
            assert answer.status_code == 400
            assert said in answer.json()["error"]["message"]


def test_mistakes_at_the_start(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cli, "prepare_process", lambda: None)
    (tmp_path / "none").write_text("\n")
    for options, said in (
        (["--keys", str(tmp_path / "none")], "holds no keys"),
        (["--rows", "0"], "--rows 0; 1 or more"),
        (["--header-seconds", "0"], "--header-seconds 0.0; above 0"),
        (["--port", "99999"], "cannot listen on 127.0.0.1:99999"),
        (["--stop-list", str(tmp_path / "none")], "no word in it"),
        (["--template", "odd"], "task.template = odd"),
    ):
        assert cli.main(["serve", str(run), *options]) == 2
        assert said in capsys.readouterr().err
    assert RunDirectory(run).read_config() is not None
