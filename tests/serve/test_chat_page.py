"""The chat page in a real browser, and the conversation in a terminal."""

import html
import io
import json
import re
import time

import numpy as np
import pytest

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")

from browser import find_browser, open_browser
from random_runs import make_run
from test_serve import start

from gpt_jax import cli
from gpt_jax.verbs.chat import converse, fit


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("chat") / "<b>tiny"
    return make_run(path, {"seq_len": 96, "vocab_size": 257}).path


@pytest.fixture(scope="module")
def server(run):
    server = start(run, "--name", "<img src=x onerror=alert(1)>", "--template", "chat")
    yield server
    server.process.terminate()
    server.process.wait(60)


@pytest.mark.skipif(find_browser() is None, reason="no Chromium is installed")
def test_a_conversation_on_the_page(server, tmp_path):
    with open_browser(tmp_path) as page:
        page.open(f"{server.url}/")
        assert page.run("document.querySelector('h1').textContent") == (
            "<img src=x onerror=alert(1)>"
        )
        page.run("document.getElementById('tokens').value = 20")
        said_by_user = ["hello", "<b>again</b>", "x" * 60]
        for said in said_by_user:
            page.run(f"document.getElementById('text').value = {json.dumps(said)}")
            page.run("document.getElementById('form').requestSubmit()")
            deadline = time.monotonic() + 60
            while page.run("document.getElementById('send').textContent") != "Send":
                assert time.monotonic() < deadline
                time.sleep(0.1)
        shown = page.run(
            "[...document.querySelectorAll('#turns li')].map(x => [x.className, x.textContent])"
        )
        answers = [text for role, text in shown if role == "assistant"]
        assert any(answers)  # one without text is not shown
        assert [text for role, text in shown if role == "user"] == said_by_user
        notes = [text for role, text in shown if role == "note"]
        assert set(notes) == {"The oldest message has left the context."}
        assert "error" not in {role for role, _ in shown}
        for width, name in ((1280, "desk"), (390, "phone")):
            page.window(width, 800)
            page.screenshot(tmp_path / f"{name}.png")
        page.run("document.getElementById('clear').click()")
        assert page.run("document.querySelectorAll('#turns li').length") == 0
        page.run("document.querySelector('main').dataset.model = 'other'")
        page.run("document.getElementById('text').value = 'x'")
        page.run("document.getElementById('form').requestSubmit()")
        deadline = time.monotonic() + 30
        while not (error := page.run("document.querySelector('li.error')?.textContent")):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert "there is no model 'other'" in error
        refused = "404", "400"  # another model; a conversation longer than the context
        assert [e for e in page.errors() if not any(n in str(e) for n in refused)] == []


def test_the_page_runs_its_own_script_alone(server):
    page = server.get("/")
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1])
    assert "connect-src 'self'" in policy
    assert "<img" not in page


def turns_of(lines, first=(), refuse=()):
    """[(turns before each answer, seed)] of a conversation whose answers count."""
    seen = []

    def allowed(text):
        if text in refuse:
            raise ValueError(f"{text} is refused")
        return text

    def answer(turns, seed):
        seen.append(([turn["content"] for turn in turns], seed))
        return f"answer {len(seen)}"

    converse(iter(lines), list(first), allowed, answer, seed=7)
    return seen


def test_what_a_line_means():
    asked = turns_of(["a", "", "/retry", "b", "bad", "/new", "/retry", "c", "/quit", "d"],
                     refuse=("bad",))  # fmt: skip
    assert asked == [
        (["a"], 7),
        (["a"], 8),
        (["a", "answer 2", "b"], 9),
        (["c"], 10),
    ]
    system = [{"role": "system", "content": "s"}]
    assert turns_of(["a", "/new", "b"], system) == [(["s", "a"], 7), (["s", "b"], 8)]


def test_old_turns_make_room():
    def encode(turns):
        return np.arange(sum(len(turn["content"]) for turn in turns))

    said = [("system", "ss"), ("user", "aaa"), ("assistant", "bbb"), ("user", "cc")]
    turns = [{"role": role, "content": content} for role, content in said]
    assert [len(fit(turns, encode, budget)[0]) for budget in (10, 9, 4)] == [10, 4, 4]
    assert fit(turns, encode, 9)[1] == 2
    with pytest.raises(ValueError, match="longer than the 3 tokens"):
        fit(turns, encode, 3)


def test_lines_on_standard_input(run, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("hello\nagain\n"))
    given = ["--max-new-tokens", "8", "--temperature", "0"]
    assert cli.main(["chat", str(run), *given]) == 0
    out, err = capsys.readouterr()
    assert out.count("model: ") == 2
    assert "was not trained on conversations" in err
    assert cli.main(["chat", str(run), "--max-new-tokens", "96"]) == 2
    assert "leaves no room for what is said" in capsys.readouterr().err
