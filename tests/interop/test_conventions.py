"""Folders in published forms: how their texts begin and end, here and in `transformers`."""

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs pip install 'gpt-jax[parity]'")
transformers = pytest.importorskip("transformers", reason="needs pip install 'gpt-jax[parity]'")
pytest.importorskip("jinja2", reason="needs pip install 'gpt-jax[chat]'")

from published_folders import FORMS, make_folder  # noqa: E402
from random_runs import GPT2, LLAMA, make_run  # noqa: E402

from gpt_jax import cli  # noqa: E402
from gpt_jax.data.streaming import begin_tokens, encode_prompt, end_tokens  # noqa: E402
from gpt_jax.inference.chat import chat_prompt, render_jinja  # noqa: E402
from gpt_jax.inference.decode import generate_tokens  # noqa: E402
from gpt_jax.inference.settings import SamplingConfig  # noqa: E402
from gpt_jax.runs.loading import load_run  # noqa: E402

pytestmark = pytest.mark.parity

PROMPTS = ["the cat", "hello <|im_end|> <|user|>x</s> <|eot_id|>", "  ü 42\n", "<s>"]
TURNS = [
    {"role": "user", "content": " the cat? "},
    {"role": "assistant", "content": "sat </s><|im_end|>"},
    {"role": "user", "content": "ünder"},
]


@pytest.fixture(scope="module", autouse=True)
def leave_this_process_alone():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "prepare_process", lambda: None)
        yield


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Exported folders of random weights, by family."""
    root = tmp_path_factory.mktemp("weights")
    for name, fields in (("gpt2", GPT2), ("llama", LLAMA)):
        run = make_run(root / f"run-{name}", fields)
        assert cli.main(["export", str(run.path), "--to", str(root / name)]) == 0
    return root


@pytest.fixture(scope="module", params=FORMS)
def imported(request, weights, tmp_path_factory):
    """A folder of a published form, and the run of it."""
    root = tmp_path_factory.mktemp(request.param)
    family = "gpt2" if request.param == "gpt2" else "llama"
    folder = make_folder(weights / family, root / "folder", request.param)
    assert cli.main(["import", str(folder), "--workdir", str(root / "run")]) == 0
    return folder, root / "run"


def loaded(run: Path):
    return load_run(run, changes={"compute.dtype": "float32", "compute.layers": "scan"})


def ends_of(folder: Path):
    if (folder / "generation_config.json").is_file():
        peer = transformers.GenerationConfig.from_pretrained(folder)
    else:
        config = transformers.AutoConfig.from_pretrained(folder)
        peer = transformers.GenerationConfig.from_model_config(config)
    ends = peer.eos_token_id
    return peer, ends if isinstance(ends, list) else [ends]


def test_prompts_and_chats_have_the_ids_of_transformers(imported):
    folder, run = imported
    _, _, _, tokenizer = loaded(run)
    peer = transformers.AutoTokenizer.from_pretrained(folder)
    for text in PROMPTS:
        assert encode_prompt(tokenizer, text).tolist() == peer(text).input_ids, text
        assert tokenizer.decode(tokenizer.encode_marked(text)) == peer.decode(
            peer.encode(text, add_special_tokens=False)
        )
    assert render_jinja(tokenizer, TURNS) == peer.apply_chat_template(
        TURNS, tokenize=False, add_generation_prompt=True
    )
    want = peer.apply_chat_template(TURNS, add_generation_prompt=True, return_dict=False)
    assert chat_prompt(tokenizer, TURNS, None).ids.tolist() == want
    assert begin_tokens(tokenizer) == (peer.bos_token_id,)
    assert end_tokens(tokenizer) == (peer.eos_token_id,)
    assert tokenizer.vocab_size == len(peer)


@pytest.mark.slow
def test_greedy_texts_are_those_of_transformers(imported, weights):
    folder, run = imported
    config, model, params, tokenizer = loaded(run)
    peer = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    _, ends = ends_of(folder)
    assert sorted(tokenizer.ends) == sorted(ends)
    prompts = [encode_prompt(tokenizer, text) for text in ("the cat", "<s>")]
    n_ids, greedy = tokenizer.vocab_size, SamplingConfig(max_new_tokens=12, temperature=0)

    def written(ends):
        return generate_tokens(model, params, prompts, greedy, ends, vocab_size=n_ids)

    outputs = written(tokenizer.ends)
    for prompt, output in zip(prompts, outputs, strict=True):
        beyond = list(range(n_ids, config.model.vocab_size))
        said = peer.generate(
            torch.tensor(prompt[None]),
            max_new_tokens=12,
            do_sample=False,
            suppress_tokens=beyond or None,
        )[0, len(prompt) :].tolist()
        assert output.tolist() == [token for token in said if token not in ends]
    whole = outputs[0].tolist()
    others = (*tokenizer.ends[:-1], whole[len(whole) // 2])
    assert written(others)[0].tolist() == whole[: whole.index(others[-1])]


def test_a_run_gives_its_conventions_back(imported, tmp_path):
    folder, run = imported
    back = tmp_path / "back"
    assert cli.main(["export", str(run), "--to", str(back)]) == 0
    peer, ends = ends_of(folder)
    again, ends_again = ends_of(back)
    assert (again.bos_token_id, ends_again) == (peer.bos_token_id, ends)
    one, two = (transformers.AutoTokenizer.from_pretrained(path) for path in (folder, back))
    for text in PROMPTS:
        assert one(text).input_ids == two(text).input_ids
    assert (two.bos_token, two.eos_token, len(two)) == (one.bos_token, one.eos_token, len(one))
    chats = [t.apply_chat_template(TURNS, tokenize=False) for t in (one, two)]
    assert chats[0] == chats[1]
    assert cli.main(["import", str(back), "--workdir", str(tmp_path / "run")]) == 0
    _, _, _, tokenizer = loaded(tmp_path / "run")
    assert tokenizer.conventions == loaded(run)[3].conventions


def test_the_template_says_what_it_refuses(weights, tmp_path, capsys):
    folder = make_folder(weights / "llama", tmp_path / "folder", "llama2")
    assert cli.main(["import", str(folder), "--workdir", str(tmp_path / "run")]) == 0
    _, _, _, tokenizer = loaded(tmp_path / "run")
    for turns in ([TURNS[1]], [TURNS[0], TURNS[0]]):
        with pytest.raises(ValueError, match=r"refuses these messages: Roles must alternate: {"):
            chat_prompt(tokenizer, turns, None)
    ask = ["generate", str(tmp_path / "run"), "--prompt", "the", "--max-new-tokens", "3"]
    chat = [*ask, "--chat", "--system", "be brief", "--compute.dtype", "float32", "--no-stream"]
    assert cli.main([*chat, "--temperature", "0"]) == 0
    capsys.readouterr()
    assert cli.main([*ask, "--system", "be brief"]) == 2
    assert "give --chat too" in capsys.readouterr().err
    assert cli.main([*ask, "--model.n_layers", "1"]) == 2
    assert "would change what was trained" in capsys.readouterr().err


@pytest.mark.parametrize(
    "template",
    ["{{ ''.__class__.__mro__ }}", "{{ messages.append(1) }}", "{{ 1 / 0 }}", "{% if %}"],
)
def test_templates_are_kept_in_a_sandbox(template, weights, tmp_path):
    from gpt_jax.data.tokenizers import Conventions
    from gpt_jax.data.tokenizers.entries.byte import ByteTokenizer

    tokenizer = ByteTokenizer().with_conventions(Conventions(chat_template=template))
    with pytest.raises(ValueError, match="the chat template refuses these messages"):
        render_jinja(tokenizer, TURNS)


def test_a_model_of_symbols_reads_and_writes_ids(weights, tmp_path, capsys):
    """A folder without any tokenizer file."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("model.safetensors", "config.json"):
        (folder / name).write_bytes((weights / "llama" / name).read_bytes())
    run = tmp_path / "run"
    assert cli.main(["import", str(folder), "--workdir", str(run)]) == 0
    assert "texts are token ids" in capsys.readouterr().err
    ask = ["generate", str(run), "--prompt", "3 41 299", "--temperature", "0", "--no-stream"]
    assert cli.main([*ask, "--max-new-tokens", "5", "--compute.dtype", "float32"]) == 0
    said = capsys.readouterr().out.split()
    peer = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    want = peer.generate(torch.tensor([[3, 41, 299]]), max_new_tokens=5, do_sample=False)
    assert said == [str(i) for i in want[0].tolist() if i != 256]
    assert cli.main([*ask[:3], "3 300"]) == 2
    assert "is no token id" in capsys.readouterr().err
    assert cli.main(["export", str(run), "--to", str(tmp_path / "back")]) == 0
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "back")
    assert again.encode("3 41 299") == [3, 41, 299]
    facts = json.loads((run / "config.json").read_text())["config"]
    assert facts["data"]["tokenizer"] == "ids:300"


def test_tokens_beyond_the_rows_are_left_out(weights, tmp_path, capsys):
    folder = make_folder(weights / "llama", tmp_path / "folder", "smollm")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    like = tokenizer["added_tokens"][-1]
    n = like["id"] + 1
    tokenizer["added_tokens"] += [like | {"id": i, "content": f"<x{i}>"} for i in range(n, 302)]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert cli.main(["import", str(folder), "--workdir", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().err
    assert "the model has rows for 300 ids; left out of the tokenizer: <x300>, <x301>" in said
    _, _, _, tokenizer = loaded(tmp_path / "run")
    assert tokenizer.vocab_size == 300
    assert tokenizer.encode_marked("<x299>").tolist() == [299]
    assert len(tokenizer.encode_marked("<x300>")) > 1
    np.testing.assert_array_less(tokenizer.encode_marked("<x300>"), 300)
