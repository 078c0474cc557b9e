"""What the page shows is what the model computes."""

import base64
import functools
import html
import json
import re

import jax
import numpy as np
import pytest
from browser import find_browser, open_browser

from gpt_jax.config import ComputeConfig, ModelConfig
from gpt_jax.inspection.look import look
from gpt_jax.inspection.page import make_page, shown
from gpt_jax.models import probes
from gpt_jax.models.gpt import make_gpt

IDS = np.asarray([3, 1, 4, 1, 5, 9, 2, 6])
PLAIN = ComputeConfig(dtype="float32", attention="reference", products="plain")
BASE = {"vocab_size": 23, "seq_len": 8, "n_layers": 2, "d_model": 16, "n_heads": 2}
MODELS = {
    "learned": {},
    "alibi": {"position": "alibi", "n_layers": 1},
    "banded": {"layer_pattern": ("dense", "banded"), "window": 3},
    "post-norm": {"norm_position": "post", "final_norm": False},
    "sinks": {"scores": ("sinks",)},
    "mup": {"parametrization": "mup", "base_d_model": 8, "base_head_size": 4},
}


def made(name):
    model = make_gpt(ModelConfig(**{**BASE, **MODELS[name]}, init_std=0.4), PLAIN)
    params = jax.jit(model.init)(jax.random.key(0))
    return model, params, look(model, params, IDS)


@pytest.mark.parametrize("name", MODELS)
def test_losses_and_the_lens_end_at_the_models_answer(name):
    model, params, seen = made(name)
    log_p = np.asarray(jax.nn.log_softmax(jax.jit(model.apply)(params, IDS[None])[0]))
    assert np.isnan(seen.losses_T[0])
    expected = [-log_p[t, token] for t, token in enumerate(IDS[1:])]
    np.testing.assert_allclose(seen.losses_T[1:], expected, atol=1e-4)
    assert seen.ids_LTK[-1, :, 0].tolist() == log_p.argmax(1).tolist()
    np.testing.assert_allclose(seen.probabilities_LTK[-1, :, 0], np.exp(log_p.max(1)), atol=1e-4)
    assert np.abs(seen.probabilities_LTK[0] - seen.probabilities_LTK[-1]).max() > 1e-3 or (
        name == "alibi"
    )


@pytest.mark.parametrize("name", MODELS)
def test_weights_of_the_first_layer_give_its_output(name):
    model, params, seen = made(name)
    inside = jax.jit(functools.partial(probes.activations, model))(params, IDS[None])
    layer = jax.tree.map(lambda x: np.asarray(x[0]), params["blocks"]["0"])
    x = np.asarray(inside["embedding"][0], np.float64)
    if model.config.norm_position == "pre":
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        x = x * layer["attention_norm"]["scale"] + layer["attention_norm"]["bias"]
    attention = layer["attention"]
    v_TNH = np.einsum("td,dnh->tnh", x, attention["value"]["kernel"]) + attention["value"]["bias"]
    mixed = np.einsum("nts,snh->tnh", seen.attention_LNTT[0], v_TNH)
    y = np.einsum("tnh,nhd->td", mixed, attention["out"]["kernel"]) + attention["out"]["bias"]
    np.testing.assert_allclose(inside["attention"][0, 0], y, atol=1e-3)


def test_weights_are_over_what_a_query_sees():
    _, _, seen = made("banded")
    np.testing.assert_allclose(seen.attention_LNTT.sum(-1), 1, atol=1e-5)
    assert (np.triu(seen.attention_LNTT, 1) == 0).all()
    assert (np.tril(seen.attention_LNTT[1], -3) == 0).all()
    assert (np.tril(seen.attention_LNTT[0], -3) > 0).any()


def test_the_page_holds_all_and_needs_no_network():
    _, _, seen = made("learned")
    tokens = ["</script>", "<b>", "a", "b", "c", "d", "é", "…"]
    page = make_page("a <run>", ["x & y"], tokens, seen, lambda i: f"t{i}")
    assert "{{" not in page
    assert "a &lt;run&gt;" in page
    assert re.findall(r"(?:src|href)=\S*|https?://|@import", page) == ['href="data:,">']
    assert "default-src &#39;none&#39;" in page
    (text,) = re.findall(r'<script id="data" type="application/json">(.*?)</script>', page)
    data = json.loads(text)
    assert data["tokens"] == tokens
    weights = np.frombuffer(base64.b64decode(data["attention"]), np.uint8) / 255
    np.testing.assert_allclose(weights.reshape(2, 2, 8, 8), seen.attention_LNTT, atol=0.01)
    assert data["losses"][0] is None
    assert data["lens"][1][0][0][0] == f"t{seen.ids_LTK[1, 0, 0]}"


def test_white_space_is_shown():
    assert shown(" a\n\t") == "·a↵→"
    assert shown("") == "∅"


HOSTILE = [
    "{{data}}", "{{ 7 * 7 }}", "{% raw %}", "<svg/onload=window.hacked=1>", "{{script}}",
    "</script><script>window.hacked=1</script>", "\u2028<!--<script>",
    "\"'><img src=x onerror=hacked=1>",
]  # fmt: skip


def test_names_and_tokens_are_text_in_a_browser(tmp_path):
    if find_browser() is None:
        pytest.skip("no Chromium on this machine: install chromium")
    _, _, seen = made("learned")
    facts = ["<script>window.hacked=1</script>", "javascript:hacked=1"]
    title = "".join(HOSTILE)
    path = tmp_path / "inspect.html"
    path.write_text(make_page(title, facts, HOSTILE, seen, lambda i: HOSTILE[i % len(HOSTILE)]))
    with open_browser(tmp_path / "profile") as browser:
        browser.open(path.as_uri())
        assert browser.run("typeof window.hacked") == "undefined"
        assert browser.run("document.title").startswith("{{data}}{{ 7 * 7 }}{% raw %}<svg")
        assert browser.run("document.querySelector('h1').textContent") == title
        assert browser.run("document.querySelector('.facts').innerText") == "\n".join(facts)
        tokens = browser.run(
            "[...document.querySelectorAll('#tokens span')].map(s => s.textContent)"
        )
        assert tokens == HOSTILE
        assert browser.run("document.querySelectorAll('script').length") == 2
        assert browser.run("document.querySelectorAll('svg, img').length") == 0
        cells = browser.run("[...document.querySelectorAll('#lens td')].map(c => c.textContent)")
        assert set(cells) <= set(HOSTILE)
        assert len(cells) == 2 * len(IDS)
        assert browser.errors() == [], "its own style and script are what the policy names"
        # The policy is enforced, not only there: script that is put in does not run.
        browser.run("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=hacked=1>')")
        browser.run(
            "document.body.append(Object.assign(document.createElement('script'), "
            "{textContent: 'window.hacked = 1'}))"
        )
        assert browser.run("typeof window.hacked") == "undefined"
        assert any("Content Security Policy" in json.dumps(e) for e in browser.errors())
    assert html.escape("<svg/onload") in path.read_text()
