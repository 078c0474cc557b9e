"""Import and export without torch: round trips by the verbs, refusals, damaged folders."""

import builtins
import io
import json
import shutil
import struct
from pathlib import Path

import jax
import numpy as np
import pytest
from random_runs import ARCHITECTURES, GPT1, GPT2, LLAMA, make_run, model_config
from safetensors.numpy import load_file, save_file

from gpt_jax import cli
from gpt_jax.config import overrides
from gpt_jax.data.tokenizers import load_tokenizer
from gpt_jax.data.tokenizers.entries.char import CharTokenizer
from gpt_jax.data.tokenizers.subword import BytePairTokenizer, SentencePieceTokenizer
from gpt_jax.data.tokenizers.tokenizer_json import JsonTokenizer
from gpt_jax.interop.family import family_of_config
from gpt_jax.interop.folders import read_folder
from gpt_jax.interop.tokenizer_files import merges_of, tokenizer_json
from gpt_jax.runs.directory import RunDirectory
from gpt_jax.runs.loading import load_run
from gpt_jax.verbs.export import parse_size

WEIGHTS = "model.safetensors"


@pytest.fixture(autouse=True)
def leave_this_process_alone(monkeypatch):
    """The allocator and cache settings are for the process of a command, not for pytest's."""
    monkeypatch.setattr(cli, "prepare_process", lambda: None)


def export(run, folder, *arguments):
    assert cli.main(["export", str(run.path), "--to", str(folder), *arguments]) == 0
    return folder


def refused(capsys, *arguments):
    """What a command that exits with 2 says, in one line."""
    capsys.readouterr()
    assert cli.main(list(map(str, arguments))) == 2
    error = capsys.readouterr().err
    *progress, last = error.splitlines()
    assert all(line.startswith(("reading", "writing", "checkpoint")) for line in progress)
    assert last.startswith("gpt-jax: ")
    return last


@pytest.fixture(scope="module")
def gpt2_folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("gpt2")
    return export(make_run(root / "run", GPT2), root / "folder")


@pytest.fixture
def folder(gpt2_folder, tmp_path):
    """A copy of a sound folder, to be damaged."""
    return shutil.copytree(gpt2_folder, tmp_path / "folder")


def change_config(folder, **changes):
    path = folder / "config.json"
    facts = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in facts.items() if v != "absent"}))


def change_weights(folder, change):
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(weights, folder / WEIGHTS)


# --- there and back -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gpt2 untied, padded", "gpt1", "llama grouped"])
def test_a_run_comes_back_bit_for_bit(name, tmp_path):
    run = make_run(tmp_path / "run", ARCHITECTURES[name][1])
    folder = export(run, tmp_path / "folder", "--shard-size", "20kb")
    files = sorted(folder.glob("*.safetensors"))
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert len(files) > 2
    assert {path.name for path in files} == set(index["weight_map"].values())
    back = RunDirectory(tmp_path / "back")
    assert cli.main(["import", str(folder), "--workdir", str(back.path)]) == 0
    config, _, params, tokenizer = load_run(run.path)
    again, _, params_again, tokenizer_again = load_run(back.path)
    vocab = config.model.vocab_size
    params["embedding"]["tokens"] = params["embedding"]["tokens"][:vocab]
    if not config.model.tied_embeddings:
        params["head"]["kernel"] = params["head"]["kernel"][:, :vocab]
    jax.tree.map(np.testing.assert_array_equal, params_again, params)
    text = "any text öß"
    np.testing.assert_array_equal(tokenizer_again.encode(text), tokenizer.encode(text))
    assert back.read_facts()["fingerprint"] == overrides.fingerprint(again)
    assert again.data.tokenizer == str(back.tokenizer / "tokenizer.json")


def test_an_imported_folder_generates(folder, tmp_path, capsys):
    assert cli.main(["import", str(folder), "--workdir", str(tmp_path / "run")]) == 0
    assert f"into {tmp_path / 'run'}" in capsys.readouterr().out
    ask = ["generate", str(tmp_path / "run"), "--prompt", "ab", "--temperature", "0"]
    assert cli.main([*ask, "--max-new-tokens", "5", "--no-stream"]) == 0
    assert len(capsys.readouterr().out.encode()) > len("ab\n")


def test_releases_leave_the_prefix_out_and_keep_buffers(folder):
    """As openai-community/gpt2 has it: h.0.attn.bias is a causal mask."""
    want = read_folder(folder).params

    def as_released(weights):
        for name in list(weights):
            weights[name.removeprefix("transformer.")] = weights.pop(name)
        weights["h.0.attn.bias"] = np.tril(np.ones((1, 1, 48, 48), np.float32))
        weights["lm_head.weight"] = weights["wte.weight"].copy()

    change_weights(folder, as_released)
    jax.tree.map(np.testing.assert_array_equal, read_folder(folder).params, want)


def test_a_single_file_goes_before_an_older_index(folder, capsys):
    want = read_folder(folder).params
    older = {name: array + 1 for name, array in load_file(folder / WEIGHTS).items()}
    save_file(older, folder / "model-00001-of-00001.safetensors")
    index = {"weight_map": dict.fromkeys(older, "model-00001-of-00001.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    capsys.readouterr()
    jax.tree.map(np.testing.assert_array_equal, read_folder(folder).params, want)
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"{folder}: model.safetensors is read; model.safetensors.index.json")
    (folder / "model-00001-of-00001.safetensors").unlink()
    jax.tree.map(np.testing.assert_array_equal, read_folder(folder).params, want)


def test_half_precision_is_read_to_the_bit(folder):
    want = load_file(folder / WEIGHTS)
    halves = {name: array.astype(np.float16) for name, array in want.items()}
    save_file(halves, folder / WEIGHTS)
    got = read_folder(folder).params["embedding"]["positions"]
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, halves["transformer.wpe.weight"].astype(np.float32))


def test_merges_give_the_trained_tokenizer_again(repository):
    text = (repository / "gpt_jax" / "config" / "model.py").read_text()
    tokenizer = BytePairTokenizer.train([text], 700)
    lines = [f"{a} {b}" for a, b in merges_of(tokenizer.tokens)]
    assert len(lines) == 700 - 257
    again = BytePairTokenizer.from_merges(lines)
    assert again.tokens[256:] == tokenizer.tokens[256:]


def test_a_character_tokenizer_comes_back(tmp_path):
    run = make_run(tmp_path / "run", GPT2, CharTokenizer("\n abcö😀"))
    folder = export(run, tmp_path / "folder")
    ids = read_folder(folder).tokenizer.encode("ab\n cö😀")
    np.testing.assert_array_equal(ids, load_tokenizer(run.tokenizer).encode("ab\n cö😀"))


def sentencepiece_model(sentences, **settings) -> bytes:
    sentencepiece = pytest.importorskip("sentencepiece")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_writer=model, minloglevel=2, **settings
    )
    return model.getvalue()


LIKE_LLAMA = {
    "byte_fallback": True,
    "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
}
LIKE_GEMMA = LIKE_LLAMA | {
    "add_dummy_prefix": False,
    "user_defined_symbols": ["self", "▁▁", "\n\n"],
}


@pytest.mark.parametrize(
    "kind",
    [
        {"model_type": "unigram"},
        {"model_type": "bpe"},
        {"model_type": "bpe", **LIKE_LLAMA},
        {"model_type": "bpe", **LIKE_GEMMA},
    ],
)
def test_a_sentencepiece_tokenizer_is_written_as_json(kind):
    lines = Path(__file__).read_text().splitlines()
    model = sentencepiece_model([x for x in lines if x.strip()], vocab_size=420, **kind)
    ours = SentencePieceTokenizer(model)
    written = JsonTokenizer(tokenizer_json(ours))
    assert (written.vocab_size, written.end_of_text) == (ours.vocab_size, ours.end_of_text)
    others = ["", "  two  spaces ", "ﬁ Ⅷ A\u0301 日本語 \t x", "\n\nself\n"]
    for line in [*(x for x in lines if "---" not in x), *others]:
        assert written.encode(line).tolist() == ours.encode(line).tolist(), line


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model_type": "word"}, "it is of characters or words"),
        ({"user_defined_symbols": ["cat"]}, "user-defined symbols"),
        ({"add_dummy_prefix": False}, "removes extra whitespace without"),
    ],
)
def test_a_sentencepiece_tokenizer_that_json_cannot_follow(settings, said):
    sentences = ["a cat sat", "on a mat"]
    model = sentencepiece_model(sentences, vocab_size=20, hard_vocab_limit=False, **settings)
    with pytest.raises(ValueError, match=said):
        tokenizer_json(SentencePieceTokenizer(model))


def test_a_sentencepiece_tokenizer_is_read(folder, tmp_path, capsys):
    model = sentencepiece_model(["a cat sat", "on a mat"], vocab_size=20, model_type="char")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_bytes(model)
    assert cli.main(["import", str(folder), "--workdir", str(tmp_path / "run")]) == 0
    tokenizer = load_tokenizer(tmp_path / "run" / "tokenizer")
    assert tokenizer.decode(tokenizer.encode("a mat")) == "a mat"
    target = tmp_path / "target"
    said = refused(capsys, "export", tmp_path / "run", "--to", target)
    assert "this SentencePiece tokenizer cannot be a tokenizer.json" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "run"]


def test_another_tokenizer_can_be_named(folder, capsys, tmp_path):
    (folder / "tokenizer.json").unlink()
    said = refused(capsys, "import", folder, "--workdir", tmp_path / "none")
    assert "has no tokenizer" in said
    assert "--tokenizer" in said
    assert read_folder(folder, tokenizer="byte").tokenizer.vocab_size == 257


# --- what cannot be carried ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"norm": "rmsnorm"}, "gpt2, needs model.norm = layernorm; the config has rmsnorm"),
        (
            {"layer_pattern": ("dense", "banded"), "window": 8},
            "gpt2, needs model.layer_pattern = dense,dense; the config has dense,banded",
        ),
        ({"bias": False}, "gpt2, needs model.bias = true; the config has false"),
        ({"logit_soft_cap": 30.0}, "needs model.logit_soft_cap = none; the config has 30.0"),
        ({"qk_norm": True}, "needs model.qk_norm = false"),
        ({"parallel_block": True}, "needs model.parallel_block = false"),
        ({"position": "alibi"}, "needs model.position = learned; the config has alibi"),
        ({"n_kv_heads": 2}, "needs model.kv_heads = 4; the config has 2"),
        ({"head_size": 16}, "needs model.d_head = 8; the config has 16"),
        (
            {"parametrization": "mup", "base_d_model": 16},
            "needs model.parametrization = standard; the config has mup",
        ),
        ({"position": "rotary", "n_kv_heads": 2}, "gpt_neox, needs model.kv_heads = 4"),
        (GPT1 | {"norm_epsilon": 1e-3, "ffn_size": 40}, "openai-gpt, needs model.d_ff = 128"),
        (LLAMA | {"norm": "layernorm"}, "llama, needs model.norm = rmsnorm"),
        (
            LLAMA | {"activation": "relu", "qk_norm": True},
            "qwen3, needs model.activation = swiglu or geglu",
        ),
        (LLAMA | {"position": "none"}, "llama, needs model.position = rotary"),
    ],
)
def test_what_no_format_carries_is_named(fields, said):
    with pytest.raises(ValueError, match="no Hugging Face format here carries this model") as error:
        family_of_config(model_config(fields))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_refusals_of_export(tmp_path, capsys):
    run = make_run(tmp_path / "run", {"norm": "rmsnorm"})
    target = tmp_path / "folder"
    said = refused(capsys, "export", run.path, "--to", target)
    assert "model.norm = layernorm" in said
    assert not target.exists()
    assert "is not a run directory" in refused(capsys, "export", tmp_path, "--to", target)
    assert "--shard-size 5 apples" in refused(
        capsys, "export", run.path, "--to", target, "--shard-size", "5 apples"
    )
    sound = make_run(tmp_path / "sound", GPT2)
    assert "allowed: auto, latest, best" in refused(
        capsys, "export", sound.path, "--to", target, "--checkpoint", "newest"
    )


def test_an_export_leaves_what_is_there_alone(tmp_path, capsys, folder):
    run = make_run(tmp_path / "run", GPT2)
    before = (folder / WEIGHTS).read_bytes()
    assert "not empty; choose another --to" in refused(capsys, "export", run.path, "--to", folder)
    assert (folder / WEIGHTS).read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "run"]


def test_sizes():
    assert [parse_size(text) for text in ("5GB", "20 mb", "7")] == [5 * 10**9, 20 * 10**6, 7]


# --- folders that cannot be read ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "bert"}, "model_type = bert; allowed: arcee, bloom, gemma, "),
        ({"n_embd": "absent"}, "config.json has no n_embd"),
        ({"n_embd": 33}, "model.d_model = 33 is not divisible by model.n_heads = 4"),
        ({"n_layer": -1}, "model.n_layers = -1; allowed"),
        ({"activation_function": "mish"}, "activation_function = mish is not computed here"),
        ({"add_cross_attention": True}, "add_cross_attention = true"),
        ({"n_layer": 3}, "the weights have no transformer.h.2."),
        ({"n_layer": 1}, "no place for the weights transformer.h.1."),
        ({"n_positions": 47}, "transformer.wpe.weight has shape (48, 32); the config makes it"),
        ({"tie_word_embeddings": False}, "the weights have no lm_head.weight"),
        ({"vocab_size": 100}, "the tokenizer has 257 ids, more than vocab_size = 100"),
    ],
)
def test_configs_that_do_not_fit(folder, changes, said, capsys, tmp_path):
    change_config(folder, **changes)
    assert said in refused(capsys, "import", folder, "--workdir", tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 4.0}}, "rope_type = dynamic"),
        ({"mlp_bias": True}, "the weights have no model.layers.0.mlp.gate_proj.bias"),
        ({"hidden_act": "relu"}, "hidden_act = relu is not computed here"),
    ],
)
def test_llama_settings_that_are_not_computed(changes, said, tmp_path):
    folder = export(make_run(tmp_path / "run", LLAMA), tmp_path / "folder")
    change_config(folder, **changes)
    with pytest.raises(ValueError, match=said):
        read_folder(folder)


def test_rotary_base_of_transformers_4(tmp_path):
    folder = export(make_run(tmp_path / "run", LLAMA), tmp_path / "folder")
    change_config(folder, rope_parameters="absent", rope_theta=500_000.0)
    assert read_folder(folder).config.rotary_base == 500_000.0


def test_damaged_files(folder, capsys, tmp_path):
    whole = (folder / WEIGHTS).read_bytes()
    size = struct.unpack("<Q", whole[:8])[0]
    command = ("import", folder, "--workdir", tmp_path / "run")
    for damaged in (
        whole[:-1],
        whole[: size // 2],
        b"",
        whole[:8] + b"x" * size + whole[8 + size :],
    ):
        (folder / WEIGHTS).write_bytes(damaged)
        assert f"{folder / WEIGHTS} is truncated or damaged" in refused(capsys, *command)
    (folder / WEIGHTS).unlink()
    assert f"{folder} has no model.safetensors" in refused(capsys, *command)
    (folder / "config.json").write_text("{")
    assert "config.json is not JSON" in refused(capsys, *command)
    (folder / "config.json").unlink()
    assert f"{folder} has no config.json" in refused(capsys, *command)
    assert f"no folder {folder}/none" in refused(capsys, "import", f"{folder}/none")


def test_damaged_shards(tmp_path, capsys):
    run = make_run(tmp_path / "source", GPT2)
    folder = export(run, tmp_path / "folder", "--shard-size", "20KB")
    command = ("import", folder, "--workdir", tmp_path / "run")
    index = folder / "model.safetensors.index.json"
    facts = json.loads(index.read_text())
    names = list(facts["weight_map"])
    facts["weight_map"][names[0]] = facts["weight_map"][names[-1]]
    sound = index.read_text()
    index.write_text(json.dumps(facts))
    assert f"has no {names[0]}, which" in refused(capsys, *command)
    index.write_text(sound.replace("model-00001", "../model-00001"))
    assert "which is not a file beside it" in refused(capsys, *command)
    index.write_text("{}")
    assert "has no weight_map" in refused(capsys, *command)
    index.write_text(sound)
    sorted(folder.glob("model-*"))[1].unlink()
    assert f"{folder} has no model-00002-of-" in refused(capsys, *command)


def test_weights_that_do_not_fit(folder, capsys, tmp_path):
    command = ("import", folder, "--workdir", tmp_path / "run")

    def other_head(weights):
        weights["lm_head.weight"] = weights["transformer.wte.weight"] + 1

    def integers(weights):
        del weights["lm_head.weight"]
        weights["transformer.ln_f.bias"] = np.zeros(32, np.int32)

    change_weights(folder, other_head)
    assert "set tie_word_embeddings to false" in refused(capsys, *command)
    change_weights(folder, integers)
    assert "transformer.ln_f.bias is of type I32" in refused(capsys, *command)


def test_pickles_are_never_opened(folder, capsys, tmp_path, monkeypatch):
    (folder / WEIGHTS).unlink()
    opened, real = [], builtins.open
    monkeypatch.setattr(builtins, "open", lambda f, *a, **k: opened.append(f) or real(f, *a, **k))
    for name in ("pytorch_model.bin", "consolidated.00.pth", "model.pt"):
        path = folder / name
        path.touch()
        for source in (folder, path):
            said = refused(capsys, "import", source, "--workdir", tmp_path / "run")
            assert f"{path} is a pickle" in said
            assert "save_pretrained" in said
        path.unlink()
    assert not [f for f in opened if str(f).endswith((".bin", ".pth", ".pt"))]


def test_a_run_is_not_overwritten(folder, capsys, tmp_path):
    run = make_run(tmp_path / "run", GPT2)
    before = run.config.read_text()
    said = refused(capsys, "import", folder, "--workdir", run.path)
    assert "holds a run already; choose another --workdir" in said
    assert run.config.read_text() == before


def test_a_model_that_is_not_here_and_cannot_be_downloaded(capsys, monkeypatch, tmp_path):
    hub = pytest.importorskip("huggingface_hub", reason="needs pip install 'gpt-jax[huggingface]'")
    pytest.importorskip("huggingface_hub.errors")

    def offline(*_, **__):
        raise hub.errors.LocalEntryNotFoundError("no network\nand more")

    monkeypatch.setattr(hub, "snapshot_download", offline)
    monkeypatch.chdir(tmp_path)
    said = refused(capsys, "import", "somebody/no-such-model")
    assert "no folder somebody/no-such-model here, and it cannot be downloaded (no network" in said
