"""Exported folders in `transformers`: the same logits, the same greedy text; and back again."""

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs pip install 'gpt-jax[parity]'")
transformers = pytest.importorskip("transformers", reason="needs pip install 'gpt-jax[parity]'")

from random_runs import ARCHITECTURES, FLOAT32, make_run  # noqa: E402

from gpt_jax import cli  # noqa: E402
from gpt_jax.data.tokenizers.entries.byte import ByteTokenizer  # noqa: E402
from gpt_jax.data.tokenizers.entries.char import CharTokenizer  # noqa: E402
from gpt_jax.data.tokenizers.subword import BytePairTokenizer  # noqa: E402
from gpt_jax.data.tokenizers.tokenizer_json import JsonTokenizer  # noqa: E402
from gpt_jax.data.tokenizers.vocabularies import load_gpt1  # noqa: E402
from gpt_jax.inference.decode import generate_tokens  # noqa: E402
from gpt_jax.inference.settings import SamplingConfig  # noqa: E402
from gpt_jax.interop.folders import read_folder  # noqa: E402
from gpt_jax.interop.tokenizer_files import write_tokenizer  # noqa: E402
from gpt_jax.models.gpt import make_gpt  # noqa: E402
from gpt_jax.runs.loading import load_run  # noqa: E402

pytestmark = pytest.mark.parity


def theirs(folder):
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    return model.eval()


def logits_of(model, tokens):
    with torch.no_grad():
        return model(torch.tensor(tokens)).logits.numpy()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_exported_folder_gives_our_logits_and_text(name, tmp_path):
    model_type, fields = ARCHITECTURES[name]
    run = make_run(tmp_path / "run", fields)
    folder = tmp_path / "exported"
    assert cli.main(["export", str(run.path), "--to", str(folder), "--shard-size", "30KB"]) == 0
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    config, model, params, _ = load_run(run.path)
    peer = theirs(folder)
    assert peer.config.model_type == model_type
    tokens = np.random.default_rng(1).integers(0, config.model.vocab_size, (3, 40))
    ours = np.asarray(jax.jit(model.apply)(params, tokens))[..., : config.model.vocab_size]
    assert ours.std() > 0.3
    np.testing.assert_allclose(logits_of(peer, tokens), ours, atol=1e-4, rtol=0)

    prompts = [row[:9] for row in tokens]
    greedy = SamplingConfig(max_new_tokens=30, temperature=0.0)
    outputs = generate_tokens(model, params, prompts, greedy)
    peers = peer.generate(
        torch.tensor(np.stack(prompts)), max_new_tokens=30, do_sample=False, eos_token_id=None
    )
    np.testing.assert_array_equal(np.stack(outputs), peers[:, 9:].numpy())


@pytest.mark.parametrize("name", ["gpt2", "gpt1 untied relu", "llama grouped"])
def test_what_transformers_saves_is_read(name, tmp_path):
    """Another writer's folder, bit for bit: its names, shards and config.json are not ours."""
    run = make_run(tmp_path / "run", ARCHITECTURES[name][1])
    exported, saved = tmp_path / "exported", tmp_path / "saved"
    assert cli.main(["export", str(run.path), "--to", str(exported)]) == 0
    peer = theirs(exported)
    peer.save_pretrained(saved, max_shard_size="30KB")
    transformers.AutoTokenizer.from_pretrained(exported).save_pretrained(saved)
    again = read_folder(saved)
    _, _, params, _ = load_run(run.path)
    jax.tree.map(np.testing.assert_array_equal, again.params, params)

    half = tmp_path / "half"
    peer.bfloat16().save_pretrained(half)
    rounded = read_folder(half, tokenizer="byte")
    model = make_gpt(rounded.config, FLOAT32)
    tokens = np.random.default_rng(1).integers(0, 300, (2, 20))
    want = logits_of(theirs(half), tokens)
    np.testing.assert_allclose(model.apply(rounded.params, tokens), want, atol=1e-4)


TEXTS = ["Hello, world! It's 1984.", "  blanks\n\n\tand tabs ", "öß 😀 naïve", "don't", ""]


def same_ids(tokenizer, folder, texts):
    write_tokenizer(folder, tokenizer, 48)
    loaded = transformers.AutoTokenizer.from_pretrained(folder)
    for text in texts:
        ids = tokenizer.encode(text).tolist()
        assert loaded.encode(text, add_special_tokens=False) == ids, text
        assert loaded.decode(ids) == tokenizer.decode(ids)
    assert loaded.eos_token_id == tokenizer.end_of_text


@pytest.mark.parametrize("model_type", ["gpt2", "openai-gpt", "llama"])
@pytest.mark.parametrize("kind", ["byte", "char", "bpe"])
def test_tokenizers_load_with_the_same_ids(kind, model_type, tmp_path, repository):
    source = (repository / "gpt_jax" / "config" / "model.py").read_text()
    texts = TEXTS
    if kind == "byte":
        tokenizer = ByteTokenizer()
    elif kind == "char":
        tokenizer, texts = CharTokenizer.from_texts([source]), [source[:3000], "ab\n c"]
    else:
        tokenizer, texts = BytePairTokenizer.train([source], 900), [*TEXTS, source]
    (tmp_path / "config.json").write_text(f'{{"model_type": "{model_type}"}}')
    same_ids(tokenizer, tmp_path, texts)


def test_gpt1_tokenizer_loads_with_the_same_ids(shared_data, tmp_path):
    tokenizer = load_gpt1(str(shared_data / "tokenizers" / "gpt1"))
    assert isinstance(tokenizer, JsonTokenizer)
    (tmp_path / "config.json").write_text('{"model_type": "openai-gpt"}')
    same_ids(tokenizer, tmp_path, TEXTS)
