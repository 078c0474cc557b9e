"""Text from a model with random parameters: stops, streams, prompts, and the verb."""

import functools
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gpt_jax.runs.loading
from gpt_jax import cli
from gpt_jax.config import ComputeConfig, ModelConfig
from gpt_jax.data.streaming import SEPARATOR, encode_prompt
from gpt_jax.data.tokenizers.entries.byte import ByteTokenizer
from gpt_jax.data.tokenizers.entries.char import CharTokenizer
from gpt_jax.inference.filters import Filters
from gpt_jax.inference.generate import generate_text
from gpt_jax.inference.settings import SamplingConfig
from gpt_jax.models.gpt import make_gpt

LETTERS = CharTokenizer("abcdefgh öß😀")
SAMPLING = SamplingConfig(max_new_tokens=40, temperature=1.0, seed=1)


@functools.cache
def model_and_params():
    """A model with more token ids than the tokenizers have."""
    config = ModelConfig(vocab_size=300, seq_len=32, n_layers=1, d_model=16, n_heads=2, bias=False)
    model = make_gpt(config, ComputeConfig(layers="scan"))
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    return model, jax.tree.map(
        lambda x: jnp.asarray(random.normal(0, 0.3, x.shape), jnp.float32), shapes
    )


def generate(tokenizer, prompts, **changes):
    """Four rows at a time, so that all calls share one compiled program."""
    return generate_text(*model_and_params(), tokenizer, prompts, SAMPLING, **changes)


@pytest.mark.smoke
@pytest.mark.parametrize("tokenizer", [LETTERS, ByteTokenizer()], ids=["char", "byte"])
def test_streamed_text_is_the_text(tokenizer):
    prompts = ["cab", "öße 😀"]
    texts = generate(tokenizer, prompts, n_samples=2)
    stream = io.StringIO()
    assert generate(tokenizer, prompts, n_samples=2, stream=stream) == texts
    shown = [f"{prompt}{text}\n" for prompt, text in zip(np.repeat(prompts, 2), texts, strict=True)]
    assert stream.getvalue() == f"{SEPARATOR}\n".join(shown)
    assert len(set(texts)) == 4
    assert all(text and SEPARATOR not in text for text in texts)
    assert generate(tokenizer, prompts[1:], n_samples=2) == texts[2:]


def test_a_stop_string_over_several_tokens_ends_a_text_before_it():
    prompts = ["a", "b", "ab", "ba"]
    whole = generate(LETTERS, prompts)
    assert all(len(text) == SAMPLING.max_new_tokens for text in whole)
    stop = [whole[0][20:23], whole[1][11:13]]
    cut = generate(LETTERS, prompts, stop=stop)
    for text, before in zip(cut, whole, strict=True):
        found = [before.index(s) for s in stop if s in before]
        assert text == before[: min(found, default=None)]
    assert len(cut[0]) <= 20
    assert len(cut[1]) <= 11


def test_an_empty_prompt_begins_a_new_document():
    class WithoutLineBreaks(ByteTokenizer):
        end_of_text = None

        def encode(self, text):
            return super().encode(text.strip())

    assert encode_prompt(ByteTokenizer(), "").tolist() == [256]
    assert encode_prompt(CharTokenizer("ab\n"), "").tolist() == [2]
    assert encode_prompt(CharTokenizer("ab"), "").tolist() == [0]
    assert encode_prompt(WithoutLineBreaks(), "").tolist() == [0]
    assert encode_prompt(WithoutLineBreaks(), "a").tolist() == [97]


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="samples = 0; allowed: 1 or more"):
        generate(LETTERS, ["a"], n_samples=0)
    with pytest.raises(ValueError, match="stop string is empty"):
        generate(LETTERS, ["a"], stop=[""])
    assert generate(LETTERS, []) == []


def test_the_verb_prints_the_same_streamed_or_not(monkeypatch, capsys):
    asked = []

    def load_run(path, checkpoint, changes):
        asked.append((path, checkpoint, changes))
        return (None, *model_and_params(), LETTERS)

    monkeypatch.setattr(gpt_jax.runs.loading, "load_run", load_run)
    arguments = ["generate", "some/run", "--prompt", "cab", "--prompt", "a b", "--samples", "2"]
    arguments += ["--max-new-tokens", "40", "--seed", "1"]
    assert cli.main(arguments) == 0
    streamed = capsys.readouterr().out
    assert cli.main([*arguments, "--no-stream", "--checkpoint", "best"]) == 0
    assert capsys.readouterr().out == streamed
    texts = generate(LETTERS, ["cab", "a b"], n_samples=2)
    assert streamed.split(f"\n{SEPARATOR}\n")[3] == f"a b{texts[3]}\n"
    how = ["--compute.dtype", "float32"]
    assert cli.main([*arguments, "--checkpoint", "120", *how]) == 0
    assert asked == [
        ("some/run", "auto", {}),
        ("some/run", "best", {}),
        ("some/run", 120, {"compute.dtype": "float32"}),
    ]
    capsys.readouterr()

    assert cli.main([*arguments, "--checkpoint", "newest"]) == 2
    assert "allowed: auto, latest, best, or the number of a step" in capsys.readouterr().err
    assert cli.main([*arguments, "--top-p", "2"]) == 2
    assert "top_p = 2.0; allowed" in capsys.readouterr().err


def test_filters_cut_texts_and_change_prompts():
    """The streamed form shows nothing that the filter takes away."""
    prompts = ["ab", "ba"]
    whole = generate(LETTERS, prompts)
    between = "".join(whole).replace(" ", "")  # a word of the first text, whole there
    word = next(w for w in whole[0].split(" ")[1:-1] if w and between.count(w) == 1)
    filters = Filters((word,))
    stream = io.StringIO()
    cut = generate(LETTERS, prompts, filters=filters, stream=stream)
    assert cut[0] == whole[0][: whole[0].index(f" {word} ") + 1]
    assert cut[1] == whole[1]
    assert stream.getvalue() == f"ab{cut[0]}\n{SEPARATOR}\nba{cut[1]}\n"
    with pytest.raises(ValueError, match=r"the prompt has 'ha', which the stop list"):
        generate(LETTERS, ["ab ha b"], filters=Filters(("ha",)))
    mail = "a@b.de"
    seen = io.StringIO()
    generate(ByteTokenizer(), [mail], filters=Filters(personal_data=True), stream=seen)
    assert seen.getvalue().startswith("[email]")
