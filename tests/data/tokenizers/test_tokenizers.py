import base64
import hashlib
import io
import json
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_jax.data.tokenizers import from_spec, load_tokenizer
from gpt_jax.data.tokenizers.entries.byte import ByteTokenizer
from gpt_jax.data.tokenizers.entries.char import CharTokenizer
from gpt_jax.data.tokenizers.making import make_tokenizer
from gpt_jax.data.tokenizers.subword import BytePairTokenizer, SentencePieceTokenizer
from gpt_jax.data.tokenizers.tokenizer_json import JsonTokenizer
from gpt_jax.data.tokenizers.vocabularies import GPT2_MERGES_URL

TEXTS = [
    "def f(x):\n    return x + 1\n" * 20,
    "the cat sat on the mat. " * 30,
    "Überraschung 123 " * 9,
]


@pytest.fixture(scope="module")
def bpe() -> BytePairTokenizer:
    return BytePairTokenizer.train(TEXTS, 290)


@pytest.fixture(scope="module")
def json_tokenizer() -> JsonTokenizer:
    """A word-level tokenizer.json as another library would write it, with gaps in its ids."""
    import tokenizers

    vocabulary = {"the": 0, "cat": 1, "?": 2}
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="?"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    model.add_special_tokens(["</s>"])
    model.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 3)]
    )
    return JsonTokenizer(model.to_str())


@pytest.fixture(scope="module")
def sentencepiece_model() -> bytes:
    sentencepiece = pytest.importorskip("sentencepiece")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=model, vocab_size=30, minloglevel=2
    )
    return model.getvalue()


@pytest.fixture
def gpt2(shared_data):
    return make_tokenizer("gpt2", str(shared_data / "tokenizers" / "gpt2"))


# Round trips


@pytest.mark.smoke
@settings(deadline=None)
@given(text=st.text())
def test_byte_round_trip(text):
    tokenizer = ByteTokenizer()
    ids = tokenizer.encode(text)
    assert ids.tolist() == list(text.encode())
    assert tokenizer.decode(ids) == text


@pytest.mark.smoke
@settings(deadline=None)
@given(text=st.text())
def test_bpe_round_trip(bpe, text):
    ids = bpe.encode(text)
    assert bpe.decode(ids) == text
    assert bpe.end_of_text not in ids


@settings(deadline=None)
@given(alphabet=st.text(min_size=1), data=st.data())
def test_char_round_trip(alphabet, data):
    tokenizer = CharTokenizer.from_texts([alphabet])
    text = data.draw(st.text(st.sampled_from(sorted(set(alphabet)))))
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert ids.tolist() == [sorted(set(alphabet)).index(c) for c in text]


@pytest.mark.parametrize("marker", ["<|endoftext|>", "a<|endoftext|>b"])
def test_end_of_text_in_a_text_is_ordinary(bpe, marker):
    for tokenizer in (bpe, ByteTokenizer()):
        assert tokenizer.end_of_text not in tokenizer.encode(marker)
        assert tokenizer.decode(tokenizer.encode(marker)) == marker


def test_end_of_text_is_shown(bpe):
    for tokenizer in (bpe, ByteTokenizer()):
        assert tokenizer.end_of_text == tokenizer.vocab_size - 1
        ids = [*tokenizer.encode("ab"), tokenizer.end_of_text, *tokenizer.encode("c")]
        assert tokenizer.decode(ids) == "ab<|endoftext|>c"


def test_broken_utf8_is_replaced(bpe):
    first_byte = ByteTokenizer().encode("ü")[:1]
    assert ByteTokenizer().decode(first_byte) == "\ufffd"
    assert bpe.decode([bpe.tokens.index("Ã")]) == "\ufffd"


def test_id_outside_the_vocabulary(bpe):
    for tokenizer in (bpe, ByteTokenizer(), CharTokenizer("ab")):
        for bad in (-1, tokenizer.vocab_size):
            with pytest.raises(ValueError, match=f"token id {bad} is outside the vocabulary"):
                tokenizer.decode([0, bad])


# Each kind


def test_unknown_character_is_named():
    with pytest.raises(ValueError, match=r"character 'é' at position 3 is not among the 3"):
        CharTokenizer("abc").encode("abcé")
    with pytest.raises(ValueError, match=r"character 'b' at position 1"):
        CharTokenizer("ac").encode("ab")


def test_bpe_is_deterministic_and_has_the_size_asked_for(bpe):
    again = BytePairTokenizer.train(TEXTS, 290)
    assert again.tokens == bpe.tokens
    assert bpe.vocab_size == len(bpe.tokens) + 1 == 290
    assert len(bpe.encode("the cat sat")) < len(ByteTokenizer().encode("the cat sat")) // 2


def test_bpe_gives_the_ids_of_the_merges_it_learned(shared_data):
    """Our encoder knows ranks only; the trainer's own encoder applies its list of merges."""
    import tokenizers

    text = (shared_data / "text" / "tinyshakespeare.txt").read_text()[:200_000]
    reference = tokenizers.Tokenizer(tokenizers.models.BPE())
    reference.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=1023,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    reference.train_from_iterator([text], trainer)
    ours = BytePairTokenizer.train([text], 1024)
    assert ours.encode(text).tolist() == reference.encode(text).ids


def test_bpe_of_too_little_text():
    with pytest.raises(ValueError, match=r"yields only \d+ tokens; use at most bpe:\d+"):
        BytePairTokenizer.train(["abc abc"], 1000)
    with pytest.raises(ValueError, match="at least 257"):
        make_tokenizer("bpe:256", texts=lambda: ["abc"])


def test_gpt2(gpt2):
    assert gpt2.vocab_size == 50257
    assert gpt2.end_of_text == 50256
    assert gpt2.encode("Hello world").tolist() == [15496, 995]
    assert gpt2.decode([15496, 995, 50256]) == "Hello world<|endoftext|>"


def test_gpt2_agrees_with_the_published_encoder(gpt2, shared_data):
    vocabulary = json.loads((shared_data / "tokenizers/gpt2/encoder.json").read_text())
    assert {token: i for i, token in enumerate([*gpt2.tokens, "<|endoftext|>"])} == vocabulary


def test_gpt2_is_found_in_an_installed_package_or_cache(gpt2, shared_data, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "none"))
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "tiktoken"))
    monkeypatch.delitem(sys.modules, "whisper", raising=False)
    with pytest.raises(ValueError, match=r"no vocab.bpe .* set data.tokenizer_path"):
        make_tokenizer("gpt2")

    assets = tmp_path / "packages" / "whisper" / "assets"
    assets.mkdir(parents=True)
    (assets.parent / "__init__.py").write_text("raise RuntimeError('must not be imported')")
    ranks = [gpt2._encoding.decode_single_token_bytes(i) for i in range(50256)]
    lines = [base64.b64encode(token) + b" %d\n" % i for i, token in enumerate(ranks)]
    (assets / "gpt2.tiktoken").write_bytes(b"".join(lines))
    monkeypatch.syspath_prepend(str(assets.parent.parent))
    assert make_tokenizer("gpt2").tokens == gpt2.tokens

    cached = tmp_path / "tiktoken" / hashlib.sha1(GPT2_MERGES_URL.encode()).hexdigest()
    cached.parent.mkdir()
    cached.write_bytes((shared_data / "tokenizers/gpt2/vocab.bpe").read_bytes())
    assert make_tokenizer("gpt2").tokens == gpt2.tokens
    cached.write_bytes(b"#version: 0.2\na b\n")
    with pytest.raises(ValueError, match="is not GPT-2's vocabulary"):
        make_tokenizer("gpt2")


def test_gpt1(shared_data):
    tokenizer = make_tokenizer("gpt1", str(shared_data / "tokenizers" / "gpt1"))
    assert tokenizer.vocab_size == 40478
    assert tokenizer.end_of_text is None
    assert tokenizer.encode("the president is").tolist() == [481, 4735, 544]
    assert tokenizer.encode("The President IS").tolist() == [481, 4735, 544]
    assert tokenizer.decode(tokenizer.encode("A café, at noon.")) == "a café , at noon ."
    with pytest.raises(ValueError, match=r"no encoder_bpe_40000.json and vocab_40000.bpe found in"):
        make_tokenizer("gpt1", str(shared_data))


def test_json_tokenizer(json_tokenizer, tmp_path):
    (tmp_path / "tokenizer.json").write_text(json.dumps(json.loads(json_tokenizer.spec["json"])))
    tokenizer = make_tokenizer(str(tmp_path / "tokenizer.json"))
    assert tokenizer.encode("the cat dog").tolist() == [0, 1, 2], "nothing is added"
    assert tokenizer.vocab_size == 4
    assert tokenizer.end_of_text == 3
    for content in ("{", "[1]", '{"a": 1}'):
        with pytest.raises(ValueError, match=r"tokenizer\.json"):
            JsonTokenizer(content)


def test_sentencepiece(sentencepiece_model, tmp_path):
    (tmp_path / "m.model").write_bytes(sentencepiece_model)
    tokenizer = make_tokenizer(str(tmp_path / "m.model"))
    assert tokenizer.vocab_size == 30
    assert tokenizer.end_of_text == 2
    assert tokenizer.decode(tokenizer.encode("the cat sat")) == "the cat sat"
    with pytest.raises(ValueError, match="not a SentencePiece model"):
        SentencePieceTokenizer(b"junk")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpt3", r"data.tokenizer = gpt3; allowed: byte .*did you mean 'gpt2'\?"),
        ("bpe:", r"did you mean 'bpe:4096'"),
        ("none/tokenizer.json", "there is no such file"),
        ("char", "is learned from a corpus"),
    ],
)
def test_mistakes(name, message):
    with pytest.raises(ValueError, match=message):
        make_tokenizer(name)


# Saving


def test_saved_and_loaded(bpe, json_tokenizer, sentencepiece_model, tmp_path):
    tokenizers = [
        bpe,
        json_tokenizer,
        ByteTokenizer(),
        CharTokenizer.from_texts(TEXTS),
        SentencePieceTokenizer(sentencepiece_model),
    ]
    assert len({t.fingerprint for t in tokenizers}) == len(tokenizers)
    for tokenizer in tokenizers:
        tokenizer.save(tmp_path)
        loaded = load_tokenizer(tmp_path)
        assert type(loaded) is type(tokenizer)
        assert loaded.fingerprint == tokenizer.fingerprint
        assert (loaded.vocab_size, loaded.end_of_text) == (
            tokenizer.vocab_size,
            tokenizer.end_of_text,
        )
        assert np.array_equal(loaded.encode(TEXTS[0]), tokenizer.encode(TEXTS[0]))
    assert [p.name for p in tmp_path.iterdir()] == ["tokenizer_spec.json"]


def test_nothing_saved(tmp_path):
    with pytest.raises(ValueError, match="no tokenizer in"):
        load_tokenizer(tmp_path)
    with pytest.raises(ValueError, match="unknown kind 'morse'"):
        from_spec({"kind": "morse"})
