"""The endpoint in this process: settings do what they say, by the model's own logits."""

import jax
import numpy as np
import pytest
from random_runs import make_run

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")
pytest.importorskip("prometheus_client")

from starlette.testclient import TestClient

from gpt_jax.finetune.templates import load_template
from gpt_jax.runs.loading import load_run
from gpt_jax.serve.access import Access, names_of
from gpt_jax.serve.app import Served, make_app
from gpt_jax.serve.engine import Engine

PROMPT = "abc"
CONTEXT = 48


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("api") / "tiny", {"seq_len": CONTEXT, "vocab_size": 257})
    _, model, params, tokenizer = load_run(run.path)
    apply = jax.jit(model.apply)

    def log_p(ids):
        """The next token's log-probabilities, of the whole text at once."""
        padded = np.zeros((1, CONTEXT), np.int32)
        padded[0, : len(ids)] = ids
        return np.asarray(jax.nn.log_softmax(apply(params, padded)[0, len(ids) - 1, :257]))

    return model, params, tokenizer, log_p


@pytest.fixture(scope="module")
def ask(loaded):
    model, params, tokenizer, _ = loaded
    access = Access(keys=("key",), hosts=names_of("127.0.0.1", ["proxy.example"]))
    served = Served(Engine(model, params, tokenizer, 4), "m", load_template("chat"), access)
    app = make_app(served)
    with TestClient(app, base_url="http://127.0.0.1") as client:

        def ask(path="/v1/completions", method="POST", headers=(), **body):
            headers = {"authorization": "Bearer key", **dict(headers)}
            if method == "GET":
                return client.get(path, headers=headers)
            base = {"model": "m", "max_tokens": 8, "temperature": 0}
            if path == "/v1/completions":
                base["prompt"] = PROMPT
            return client.post(path, json={**base, **body}, headers=headers)

        ask.client = client
        yield ask


def choice(answer):
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]


def greedy(log_p, n, banned=(), n_banned=0):
    """n greedy tokens; the first n_banned are none of the banned."""
    ids = list(PROMPT.encode())
    for i in range(n):
        p = np.array(log_p(ids))
        if i < n_banned:
            p[list(banned)] = -np.inf
        ids.append(int(p.argmax()))
    return ids[len(PROMPT) :]


def text_of(tokenizer, tokens):
    return tokenizer.decode([*PROMPT.encode(), *tokens])[len(PROMPT) :]


def test_top_k_draws_from_the_k_likeliest(ask, loaded):
    _, _, tokenizer, log_p = loaded
    want = text_of(tokenizer, greedy(log_p, 8))
    assert choice(ask(temperature=1.5, top_k=1, seed=5))["text"] == want
    first = log_p(list(PROMPT.encode())).argsort()[::-1]
    answer = ask(temperature=2, top_k=3, n=16, max_tokens=1, logprobs=0, seed=1).json()
    drawn = {c["logprobs"]["tokens"][0] for c in answer["choices"]}
    names = [choice(ask(prompt=[97, 98, 99], max_tokens=1, logprobs=5))["logprobs"]["top_logprobs"]]
    top = list(names[0][0])[:3]
    assert drawn <= set(top)
    assert len(drawn) > 1
    np.testing.assert_allclose(
        list(names[0][0].values())[:5], log_p(list(PROMPT.encode()))[first[:5]], atol=1e-4
    )
    assert (
        ask(temperature=1, seed=2, top_k=0).json()["choices"]
        == (ask(temperature=1, seed=2, top_k=None).json()["choices"])
    )


def test_stop_tokens_end_a_text_but_not_before_min_tokens(ask, loaded):
    _, _, tokenizer, log_p = loaded
    tokens = greedy(log_p, 8)
    place = next(i for i in range(2, 8) if tokens[i] not in tokens[:i])
    ended = ask(stop_token_ids=[tokens[place]])
    assert choice(ended)["finish_reason"] == "stop"
    assert choice(ended)["text"] == text_of(tokenizer, tokens[:place])
    assert ended.json()["usage"]["completion_tokens"] == place
    banned = {tokens[0], tokens[place], tokenizer.end_of_text}
    longer = greedy(log_p, 8, banned, n_banned=6)
    cut = next((i for i in range(6, 8) if longer[i] in banned), 8)
    answer = ask(stop_token_ids=[tokens[0], tokens[place]], min_tokens=6)
    assert choice(answer)["text"] == text_of(tokenizer, longer[:cut])
    assert answer.json()["usage"]["completion_tokens"] == cut
    assert tokens[0] != longer[0]


def test_stop_strings_wait_for_min_tokens(ask):
    text = choice(ask(max_tokens=24))["text"]
    stop = next(c for c in text[1:12] if c.isascii() and c != text[0])
    place = text.index(stop)
    assert choice(ask(max_tokens=24, stop=stop))["text"] == text[:place]
    waited = ask(max_tokens=24, stop=[stop], min_tokens=place + 6)
    assert choice(waited)["text"].startswith(text[: place + 1])
    assert waited.json()["usage"]["completion_tokens"] >= place + 6


def test_log_probabilities_tell_each_tokens_own_bytes(ask, loaded):
    _, _, _, log_p = loaded
    messages = [{"role": "user", "content": "x"}]
    said = choice(
        ask(
            "/v1/chat/completions", messages=messages, max_tokens=24, temperature=1.5, seed=3,
            logprobs=True, top_logprobs=20,
        )
    )  # fmt: skip
    content = said["logprobs"]["content"]
    data = b"".join(bytes(one["bytes"]) for one in content)
    assert data.decode(errors="replace") == said["message"]["content"]
    assert any(one["token"].startswith("\\x") for one in content), "no partial character came"
    ids = list(b"User: x\nAssistant: ")
    ids = [256, *ids]
    for one in content[:5]:
        p = log_p(ids)
        (drawn,) = one["bytes"]
        assert one["logprob"] == pytest.approx(float(p[drawn]), abs=1e-3)
        top = one["top_logprobs"]
        assert [t["logprob"] for t in top] == pytest.approx(sorted(p.tolist())[:-21:-1], abs=1e-3)
        ids.append(drawn)
    tops = choice(ask(logprobs=5, temperature=1.5, seed=3, max_tokens=20))["logprobs"]
    for token, p, top in zip(
        tops["tokens"], tops["token_logprobs"], tops["top_logprobs"], strict=True
    ):
        assert top[token] == p
        assert len(top) in (5, 6), "the drawn one is there, and none is lost"


def test_a_chat_takes_parts_and_the_developers_role(ask):
    def said(role, content):
        messages = [{"role": role, "content": content}, {"role": "user", "content": "hi"}]
        return choice(ask("/v1/chat/completions", messages=messages))["message"]

    assert said("developer", "be brief") == said("system", "be brief")
    assert said("user", [{"type": "text", "text": "a"}]) == said("user", "a")


def test_a_model_is_described_by_name(ask):
    assert ask("/v1/models/m", "GET").json()["id"] == "m"
    missing = ask("/v1/models/other/x", "GET")
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == "model_not_found"


def test_mistakes_that_only_the_model_knows(ask):
    for changes, said in (
        ({"stop_token_ids": [257]}, "stop_token_ids: token ids are 0 to 256"),
        ({"min_tokens": 46, "max_tokens": 46}, "min_tokens: 46; the prompt leaves room for 45"),
        ({"prompt": "a" * CONTEXT}, "the prompt has 48 tokens"),
        ({"prompt": ["a", "b" * CONTEXT]}, "the prompt has 48 tokens"),
    ):
        answer = ask(**changes)
        assert answer.status_code == 400
        assert said in answer.json()["error"]["message"]


def test_pages_elsewhere_cannot_make_a_browser_ask(ask):
    """Another name of this address (DNS rebinding), and bodies that need no permission."""
    for host, status in (
        ("127.0.0.1:8000", 200), ("localhost", 200), ("[::1]:80", 200), ("10.0.0.7", 200),
        ("proxy.example:443", 200), ("evil.example", 400), ("127.0.0.1.evil.example", 400),
        ("", 400),
    ):  # fmt: skip
        assert ask("/health", "GET", headers={"host": host}).status_code == status, host
    for kind, status in (
        ("application/json", 200), ("application/json; charset=UTF-8", 200),
        ("text/plain", 415), ("application/x-www-form-urlencoded", 415), ("", 415),
        ("application/json; charset=utf-16", 415),
    ):  # fmt: skip
        assert ask(headers={"content-type": kind}).status_code == status, kind


def test_metrics_need_the_key(ask, loaded):
    assert "gpt_jax_tokens" in ask("/metrics", "GET").text
    assert ask("/metrics", "GET", headers={"authorization": ""}).status_code == 401
    assert ask("/health", "GET", headers={"authorization": ""}).status_code == 200


def test_options_open_the_door(loaded):
    model, params, tokenizer, _ = loaded
    access = Access(("key",), hosts=names_of("h", ["*"]), open_metrics=True, any_content_type=True)
    served = Served(Engine(model, params, tokenizer, 1), "m", load_template("chat"), access)
    with TestClient(make_app(served), base_url="http://any.example") as client:
        assert client.get("/metrics").status_code == 200
        body = '{"model": "m", "prompt": "a", "max_tokens": 1}'
        headers = {"authorization": "Bearer key", "content-type": "text/plain"}
        assert client.post("/v1/completions", content=body, headers=headers).status_code == 200
