"""Files as they come: the state of a call in them, names of special tokens in texts, damage."""

import json

import numpy as np
import pytest
import tokenizers
from damaged_json import changed
from fuzzed import mistakes
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers, trainers

from gpt_jax.data.tokenizers import (
    Conventions,
    Tokenizer,
    from_spec,
    load_tokenizer,
    tokenizer_identity,
)
from gpt_jax.data.tokenizers.entries.byte import ByteTokenizer
from gpt_jax.data.tokenizers.entries.char import CharTokenizer
from gpt_jax.data.tokenizers.entries.ids import IdsTokenizer
from gpt_jax.data.tokenizers.making import make_tokenizer
from gpt_jax.data.tokenizers.subword import BytePairTokenizer
from gpt_jax.data.tokenizers.tokenizer_json import JsonTokenizer, printable_bytes

TEXT = "the cat sat on the mat and the dog sat on the cat, "
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def byte_level(special=SPECIAL, model=None) -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(model or models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=290,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([TEXT * 9], trainer)
    return made


def unigram() -> tokenizers.Tokenizer:
    pieces = [("<unk>", 0.0), ("</s>", 0.0)] + [(c, -3.0) for c in "</s>abc "] + [("ab", -1.0)]
    made = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=0))
    made.add_special_tokens(["</s>"])
    return made


def word_level() -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.WordLevel({"a": 0, "</s>": 1, "?": 2}, unk_token="?"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens(["</s>"])
    return made


def merged() -> tokenizers.Tokenizer:
    """Merges that make a special token's name of ordinary text, as of a converted Llama."""
    vocabulary = {c: i for i, c in enumerate("</s>ab")} | {"</": 6, "s>": 7, "</s>": 8}
    merges = [("<", "/"), ("s", ">"), ("</", "s>")]
    made = tokenizers.Tokenizer(models.BPE(vocabulary, merges, ignore_merges=True))
    made.add_special_tokens(["</s>"])
    return made


@pytest.fixture(scope="module")
def plain() -> str:
    return byte_level().to_str()


def saved_after_a_call(text: str) -> dict:
    made = tokenizers.Tokenizer.from_str(text)
    made.enable_truncation(16)
    made.enable_padding(length=16, pad_id=0, pad_token="<|endoftext|>")
    return json.loads(made.to_str())


# The state of a call


@pytest.mark.parametrize("length", [1, 16, 512])
def test_truncation_and_padding_are_switched_off(plain, length, tmp_path, capsys):
    content = saved_after_a_call(plain)
    content["truncation"]["max_length"] = length
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content))
    made, want = make_tokenizer(str(path)), JsonTokenizer(plain)
    (said,) = capsys.readouterr().err.splitlines()
    assert f"{path}: switched off: truncation (to {length} tokens) and padding" in said
    for text in ("a", TEXT * 40):
        np.testing.assert_array_equal(made.encode(text), want.encode(text))
        np.testing.assert_array_equal(made.encode_marked(text), want.encode(text))
    assert json.loads(made.spec["json"])["truncation"] is None
    np.testing.assert_array_equal(from_spec(made.saved).encode(TEXT * 40), want.encode(TEXT * 40))


def test_dropout_and_sampling_are_switched_off(plain, capsys):
    content = json.loads(plain)
    content["model"]["dropout"] = 0.5
    assert set(map(len, (JsonTokenizer(json.dumps(content)).encode(TEXT) for _ in range(9)))) == {
        len(JsonTokenizer(plain).encode(TEXT))
    }
    assert "switched off: model.dropout = 0.5" in capsys.readouterr().err
    content = json.loads(unigram().to_str())
    content["model"] |= {"alpha": 0.1, "nbest_size": 64}
    made = JsonTokenizer(json.dumps(content))
    assert "model.alpha = 0.1 and model.nbest_size = 64" in capsys.readouterr().err
    assert {tuple(made.encode("abcabab")) for _ in range(20)} == {(10, 8, 10, 10)}


def test_a_corpus_of_the_wrong_tokens_is_not_taken_for_the_right_one(plain, tmp_path):
    """The cache of corpora names them by this: one that was built truncated is built again."""
    path = tmp_path / "tokenizer.json"
    path.write_text(plain)
    sound = tokenizer_identity(str(path))
    path.write_text(json.dumps(saved_after_a_call(plain)))
    import hashlib

    assert hashlib.sha256(path.read_bytes()).hexdigest() not in tokenizer_identity(str(path))
    path.write_text(plain)
    assert tokenizer_identity(str(path)) == sound
    assert hashlib.sha256(path.read_bytes()).hexdigest() in sound, "as earlier versions named it"


# The end of text


@pytest.mark.parametrize(
    ("special", "end"),
    [
        (["<|eod|>"], "<|eod|>"),
        (["<s>", "<|EndOfDoc|>", "<pad>"], "<|EndOfDoc|>"),
        (["<bos>", "[EOT]"], "[EOT]"),
        (["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"], "<|end_of_text|>"),
        (["<pad>", "<unk>"], None),
    ],
)
def test_end_of_text_by_other_names(special, end, tmp_path, capsys):
    path = tmp_path / "tokenizer.json"
    path.write_text(byte_level(special).to_str())
    made = make_tokenizer(str(path))
    assert made.end_of_text == (None if end is None else special.index(end))
    said = capsys.readouterr().err
    assert ("no end-of-text token found" in said) == (end is None)
    made.save(tmp_path)
    assert load_tokenizer(tmp_path).end_of_text == made.end_of_text


def test_a_config_beside_the_file_names_the_end_of_text(tmp_path, capsys):
    path = tmp_path / "tokenizer.json"
    path.write_text(byte_level(["<pad>", "<stop>"]).to_str())
    unnamed = tokenizer_identity(str(path))
    token = {"__type": "AddedToken", "content": "<stop>", "special": True}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": token}))
    assert make_tokenizer(str(path)).end_of_text == 1
    assert capsys.readouterr().err == ""
    assert tokenizer_identity(str(path)) != unnamed, "other separators, another corpus"


def test_an_earlier_run_keeps_its_end_of_text():
    """A spec that says nothing of it was used without one."""
    spec = {"kind": "json", "json": byte_level(["<|eod|>"]).to_str()}
    assert from_spec(spec).end_of_text is None


# Names of special tokens in a text


@pytest.mark.parametrize(
    "tokenizer",
    [
        ByteTokenizer(),
        BytePairTokenizer([*printable_bytes().values()]),
        JsonTokenizer(byte_level().to_str()),
        JsonTokenizer(unigram().to_str()),
        JsonTokenizer(word_level().to_str()),
        JsonTokenizer(merged().to_str()),
    ],
    ids=["byte", "bpe", "json bpe", "unigram", "words", "merges"],
)
def test_data_names_no_special_token_and_a_prompt_does(tokenizer: Tokenizer):
    for name, token in tokenizer.special.items():
        for text in (f"a {name} b", name, f"a{name}{name}"):
            ids = tokenizer.encode(text)
            assert token not in ids, (name, text, ids)
            assert tokenizer.encode_marked(text).tolist().count(token) == text.count(name)
        assert name in tokenizer.decode([token])
    assert tokenizer.end_of_text in tokenizer.special.values()


def test_text_that_is_data_is_all_there():
    made = JsonTokenizer(byte_level().to_str())
    text = "a <|im_start|>user<|im_end|>"
    assert made.decode(made.encode(text)) == text
    assert made.encode_marked(text).tolist() == [
        *made.encode("a "),
        1,
        *made.encode("user"),
        2,
    ]


def test_added_tokens_that_are_words_are_words_everywhere():
    model = byte_level()
    model.add_tokens(["<user>"])
    made = JsonTokenizer(model.to_str())
    assert made.encode("<user>").tolist() == [made.vocab_size - 1]
    assert made.encode_marked("<user>").tolist() == [made.vocab_size - 1]


# Long blanks


@pytest.mark.parametrize("blank", [" ", "\u2003\t"])
def test_a_million_blanks(blank):
    """The words are those of the same pattern in the other library."""
    tokens = [*printable_bytes().values(), "ĠĠ", "ĊĊ", "Ġx"]
    merges = [("Ġ", "Ġ"), ("Ċ", "Ċ"), ("Ġ", "x")]
    vocabulary = {t: i for i, t in enumerate(tokens)}
    other = tokenizers.Tokenizer(models.BPE(vocabulary, merges))
    other.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    text = "ab" + blank * (260_000 // len(blank)) + "x y" + blank * 60_000 + "z" + blank * 9
    made = BytePairTokenizer(tokens)
    np.testing.assert_array_equal(made.encode(text), other.encode(text).ids)


# Damage


def test_bytes_without_a_token_are_refused_not_dropped():
    made = JsonTokenizer(
        json.dumps(
            {
                "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []},
                "pre_tokenizer": {
                    "type": "ByteLevel",
                    "add_prefix_space": False,
                    "trim_offsets": True,
                },
            }
        ),
        "mine.json",
    )
    assert made.encode("abba").tolist() == [0, 1, 1, 0]
    with pytest.raises(ValueError, match=r"mine.json has no token for 'x' at position 2 .*254"):
        made.encode("abxa")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff\xfe{}", "is not UTF-8"),
        (b"{", "is not a tokenizer.json"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[1]", "has no 'model'"),
        (b'{"model": 3}', "has no 'model'"),
        (b'{"model": {"vocab": {}}}', "no sound model.vocab"),
        (b'{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["x y"]}}', "is damaged"),
        (b'{"model": {"vocab": {"a": 0}}, "added_tokens": [{}]}', "added_tokens is no list"),
    ],
)
def test_damaged_files_are_named(content, said, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=said) as error:
        make_tokenizer(str(path))
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "spec",
    [
        "[]",
        "{",
        '{"kind": "char"}',
        '{"kind": "char", "characters": 5}',
        '{"kind": "bpe", "tokens": ["a", "a"]}',
        '{"kind": "bpe", "tokens": ["\u2603"]}',
        '{"kind": "json", "json": "{}"}',
        '{"kind": "sentencepiece", "model": "AAAA"}',
        '{"kind": "byte", "conventions": {"before": 3}}',
    ],
)
def test_damaged_specs_are_named(spec, tmp_path):
    path = tmp_path / "tokenizer_spec.json"
    path.write_text(spec)
    with pytest.raises(ValueError, match=r"tokenizer_spec\.json") as error:
        load_tokenizer(tmp_path)
    assert "\n" not in str(error.value)


FILES = {f.__name__: json.loads(f().to_str()) for f in (byte_level, unigram, word_level, merged)}


@mistakes(100)
@given(data=st.data())
def test_mutated_files_work_or_are_refused_in_one_line(data):
    content = changed(data, FILES[data.draw(st.sampled_from(sorted(FILES)))])
    said = "mine.json"
    try:
        made = JsonTokenizer(json.dumps(content), "mine.json")
        ids = made.encode("a cat <|im_end|></s>")
        made.encode_marked("a cat <|im_end|></s>")
        made.decode(ids)
        from_spec(made.saved, "mine.json")
    except ValueError as error:
        said = str(error)
    assert said.startswith("mine.json")
    assert "\n" not in said


# Ids, and conventions


def test_ids_in_and_out():
    made = make_tokenizer("ids:50")
    assert made.encode("3 49\n0").tolist() == [3, 49, 0]
    assert made.decode([3, 49, 0]) == "3 49 0"
    assert isinstance(from_spec(made.saved), IdsTokenizer)
    for bad in ("50", "-1", "a", "1.5", "\u0663"):
        with pytest.raises(ValueError, match=r"word 2 of a text, is no token id; .* 0 to 49"):
            made.encode(f"1 {bad}")


def test_conventions_are_kept_and_change_no_vocabulary(tmp_path):
    conventions = Conventions((1,), (1,), (2, 0), 2, {"bos_token": "<|im_start|>"}, "{{ a }}")
    made = JsonTokenizer(byte_level().to_str())
    used = made.with_conventions(conventions)
    used.save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert again.conventions == conventions
    assert again.fingerprint == made.fingerprint
    assert (made.ends, used.ends, CharTokenizer("a").ends) == ((0,), (2, 0), ())
    assert "conventions" not in made.saved
