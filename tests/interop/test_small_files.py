"""Damaged small files of a folder (tokenizers, their configs, ids): one line that names it."""

import json

import pytest
from damaged_json import changed
from fuzzed import mistakes
from hypothesis import given
from hypothesis import strategies as st
from published_folders import FORMS

from gpt_jax.interop.conventions import read_facts
from gpt_jax.interop.tokenizer_reading import read_tokenizer


@pytest.fixture(scope="module", params=sorted(FORMS))
def form(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "config.json").write_text("{}")
    FORMS[request.param](folder)
    return folder


@mistakes(10)
@given(data=st.data())
def test_mutated_small_files(form, data):
    names = sorted(p.name for p in form.glob("*.json") if p.name not in ("tokenizer.json",))
    path = form / data.draw(st.sampled_from(names))
    sound = path.read_text()
    said = str(form)
    try:
        path.write_text(json.dumps(changed(data, json.loads(sound))))
        made = read_tokenizer(read_facts(form, "llama"), 300)
        made.encode_marked("the cat <|im_end|>")
        assert all(type(i) is int for i in (*made.ends, *made.conventions.begin))
        json.dumps(made.saved)
    except ValueError as error:
        said = str(error)
    finally:
        path.write_text(sound)
    assert said.startswith(str(form))
    assert "\n" not in said
