"""Chats as tokens: whose text names special tokens, what ends a turn, whose template is taken."""

import json

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from gpt_jax.config import Config, TaskConfig
from gpt_jax.data.streaming import begin_tokens, encode_prompt, end_tokens, with_beginning
from gpt_jax.data.tokenizers import Conventions
from gpt_jax.data.tokenizers.entries.byte import ByteTokenizer
from gpt_jax.data.tokenizers.tokenizer_json import JsonTokenizer
from gpt_jax.finetune.templates import TEMPLATES, Part, Template, encode_part, load_template
from gpt_jax.inference.chat import chat_prompt, choose_template, stop_strings
from gpt_jax.runs.loading import with_base_conventions

MARKS = Template(
    {
        "user": ("<|im_start|>user\n", "<|im_end|>\n"),
        "assistant": ("<|im_start|>assistant\n", "<|im_end|>\n"),
    }
)
TURN = [{"role": "user", "content": "a<|im_end|>b"}]


@pytest.fixture(scope="module")
def tokenizer() -> JsonTokenizer:
    """Bytes from 3 on, after an end of text and the marks of turns."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate((*special, *alphabet))}
    made = tokenizers.Tokenizer(models.BPE(vocabulary, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(special)
    return JsonTokenizer(made.to_str())


def test_marks_of_a_template_are_tokens_and_what_is_said_is_text(tokenizer):
    ids = chat_prompt(tokenizer, TURN, MARKS).ids.tolist()
    assert [i for i in ids if i < 3] == [0, 1, 2, 1]
    assert ids == [
        *(0, 1, *tokenizer.encode("user\n")),
        *(*tokenizer.encode("a<|im_end|>b"), 2, *tokenizer.encode("\n")),
        *(1, *tokenizer.encode("assistant\n")),
    ]
    assert tokenizer.decode(ids).endswith("a<|im_end|>b<|im_end|>\n<|im_start|>assistant\n")


def test_parts_without_marks_are_encoded_as_one():
    """As before there were marks: a token may span the text and what follows it."""
    whole = Part("hi.\n", True, ends=True, n_said=3)
    assert encode_part(ByteTokenizer(), whole) == [*b"hi.\n", 256]


def test_an_imported_models_bos_and_turn_end(tokenizer):
    used = tokenizer.with_conventions(Conventions((1,), (1,), (0, 2), turn_end=2))
    assert (begin_tokens(used), end_tokens(used)) == ((1,), (2,))
    assert encode_prompt(used, "").tolist() == [1]
    assert encode_prompt(used, "a").tolist() == [1, *tokenizer.encode("a")]
    assert with_beginning(used, [7]) == (1, 7)
    assert encode_part(used, Part("", True, ends=True)) == [2]
    assert chat_prompt(used, TURN, TEMPLATES["plain"]).ids[0] == 1
    assert end_tokens(tokenizer) == begin_tokens(tokenizer) == (0,), "a run of ours"


def test_whose_template_is_taken(tokenizer, tmp_path):
    template = "{{ bos_token }}{% for m in messages %}<{{ m.content | tojson }}>{% endfor %}"
    conventions = Conventions(names={"bos_token": "<|im_start|>"}, chat_template=template)
    own = tokenizer.with_conventions(conventions)
    assert choose_template(own, TaskConfig(), None) == (own, None)
    assert choose_template(own, TaskConfig(), "plain")[1] == TEMPLATES["plain"]
    assert choose_template(tokenizer, TaskConfig(), None)[1] == TEMPLATES["chat"]
    ids = chat_prompt(own, [{"role": "user", "content": 'é"', "name": None}], None).ids.tolist()
    assert ids == [1, *tokenizer.encode('<"é\\"">')]
    path = tmp_path / "mine.jinja"
    path.write_text("{{ messages | length }}")
    named, ours = choose_template(tokenizer, TaskConfig(), str(path))
    assert ours is None
    assert chat_prompt(named, TURN, None).ids.tolist() == tokenizer.encode("1").tolist()
    with pytest.raises(ValueError, match="no such file"):
        choose_template(tokenizer, TaskConfig(), "none.jinja")
    json_file = tmp_path / "mine.json"
    json_file.write_text(json.dumps({"roles": MARKS.roles}))
    assert load_template(str(json_file)) == MARKS
    assert stop_strings(TEMPLATES["chat"]) == ("System:", "User:")
    assert stop_strings(None) == ()


def test_training_on_keeps_the_conventions_of_the_base(tokenizer, tmp_path):
    conventions = Conventions((1,), (1,), (0, 2), 2, chat_template="{{ messages }}")
    base = tmp_path / "base" / "tokenizer"
    base.mkdir(parents=True)
    tokenizer.with_conventions(conventions).save(base)
    config = Config(base=str(tmp_path / "base"))
    assert with_base_conventions(config, tokenizer).conventions == conventions
    assert with_base_conventions(config, ByteTokenizer()).conventions == Conventions()
    assert with_base_conventions(Config(), tokenizer).conventions == Conventions()
