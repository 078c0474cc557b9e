"""Every family against `transformers`: what it saves, read; what we write, loaded; and back."""

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs pip install 'gpt-jax[parity]'")
transformers = pytest.importorskip("transformers", reason="needs pip install 'gpt-jax[parity]'")

from published_folders import byte_level  # noqa: E402
from random_runs import FLOAT32  # noqa: E402
from tiny_families import CASES  # noqa: E402

from gpt_jax.cost.flops import count_parameters  # noqa: E402
from gpt_jax.inference.decode import generate_tokens  # noqa: E402
from gpt_jax.inference.settings import SamplingConfig  # noqa: E402
from gpt_jax.interop.family import FAMILIES, find_family, model_types  # noqa: E402
from gpt_jax.interop.folders import read_folder, write_folder  # noqa: E402
from gpt_jax.models.gpt import make_gpt  # noqa: E402

pytestmark = pytest.mark.parity

TEXTS = ["the cat sat", "öß 😀  x\n", "a user says: hello"]
FLAT = [(name, i) for name, cases in CASES.items() for i in range(len(cases))]


def saved(folder, model_type, facts):
    """A folder of `transformers` with random weights, norms' too, and a tokenizer."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(model_type, **facts)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for weight in model.parameters():
            spread = 0.3 if weight.ndim > 1 else 0.2
            weight += spread * torch.randn(weight.shape)
    model.save_pretrained(folder)
    tokenizer = byte_level(["<|endoftext|>"], 280)
    tokenizer.save(str(folder / "tokenizer.json"))
    return model.eval()


def loaded(folder):
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    return model.eval()


def logits_of(model, tokens):
    with torch.no_grad():
        return model(torch.tensor(tokens)).logits.numpy()


@pytest.mark.parametrize(("model_type", "case"), FLAT)
def test_family(model_type, case, tmp_path):
    peer = saved(tmp_path, model_type, CASES[model_type][case])
    imported = read_folder(tmp_path)
    assert imported.model_type == model_type
    config, params = imported.config, imported.params
    counted = sum(p.numel() for p in set(peer.parameters()))
    unused = find_family(model_type).unused(config)
    assert count_parameters(config).n_params + unused == counted

    model = make_gpt(config, FLOAT32)
    tokens = np.random.default_rng(1).integers(0, 290, (2, 40))
    ours = np.asarray(jax.jit(model.apply)(params, tokens))[..., : config.vocab_size]
    assert ours.std() > 0.1
    np.testing.assert_allclose(logits_of(peer, tokens), ours, atol=1e-4, rtol=0)

    prompts = [row[:9] for row in tokens]
    greedy = SamplingConfig(max_new_tokens=20, temperature=0.0)
    outputs = generate_tokens(model, params, prompts, greedy)
    theirs = peer.generate(
        torch.tensor(np.stack(prompts)),
        attention_mask=torch.ones(2, 9, dtype=torch.long),
        max_new_tokens=20,
        do_sample=False,
        eos_token_id=None,
    )
    np.testing.assert_array_equal(np.stack(outputs), theirs[:, 9:].numpy())

    folder = tmp_path / "exported"
    written = write_folder(folder, config, params, imported.tokenizer, 1 << 30, model_type)
    assert written == model_type
    again = read_folder(folder)
    assert again.config == config
    jax.tree.map(np.testing.assert_array_equal, again.params, params)
    np.testing.assert_allclose(logits_of(loaded(folder), tokens), ours, atol=1e-4, rtol=0)
    same = transformers.AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        ids = imported.tokenizer.encode(text).tolist()
        assert same.encode(text, add_special_tokens=False) == ids
        assert again.tokenizer.encode(text).tolist() == ids


def test_every_family_has_cases():
    assert CASES.keys() == set(model_types())


@pytest.mark.parametrize("name", FAMILIES.names())
def test_published_sizes_have_the_parameters_of_the_reference(name):
    family = FAMILIES.find(name)
    for size in family.sizes:
        config = transformers.AutoConfig.for_model(family.model_type, **size.facts)
        with torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(config)
        counted = sum(p.numel() for p in set(model.parameters()))
        assert counted == size.n_params, size.name
