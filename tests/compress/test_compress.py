"""What is rounded is as near as its bits allow; what is taken away is what mattered least."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_runs import make_run, model_config, random_params

from gpt_jax import cli
from gpt_jax.compress import prune
from gpt_jax.compress.matrices import TABLE, as_matrices, as_stored, is_kernel
from gpt_jax.models.gpt import make_gpt
from gpt_jax.models.trees import flatten, unflatten
from gpt_jax.runs import quantised
from gpt_jax.runs.directory import RunDirectory
from gpt_jax.runs.loading import load_run

TOKENS = jnp.asarray(np.random.default_rng(3).integers(300, size=(2, 24)))
pytest.importorskip("qwix")


def logits(config, params):
    return jax.jit(make_gpt(config).apply)(params, TOKENS)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 5]))
def test_two_integers_to_a_byte_and_back(seed, n_inputs):
    values = np.random.default_rng(seed).integers(-8, 8, (2, n_inputs, 3))
    stored = quantised.packed(jnp.asarray(values, jnp.int8))
    assert stored.shape == (2, -(-n_inputs // 2), 3)
    assert stored.dtype == jnp.uint8
    np.testing.assert_array_equal(quantised.unpacked(stored, n_inputs), values)


@pytest.mark.parametrize(("weights", "bits", "group"), [("int8", 8, None), ("int4", 4, 16)])
def test_every_weight_is_within_half_a_step_of_its_own_scale(weights, bits, group):
    config = model_config({"tied_embeddings": False, "n_kv_heads": 2})
    params = random_params(config)
    stored, flat = quantised.quantise(params, weights, group or 1), flatten(params)
    entries = quantised.flatten_entries(stored, flat)
    n_rounded = 0
    for path, x in flat.items():
        if not (is_kernel(path) or path == TABLE):
            assert entries[path] is x
            continue
        n_rounded += 1
        matrices = np.asarray(as_matrices(path, x))
        np.testing.assert_array_equal(as_stored(path, matrices, x.shape), x)
        n_groups, n_inputs, n_outputs = matrices.shape
        expected = {TABLE: (1, 32, 300), "head/kernel": (1, 32, 300)}
        assert matrices.shape == expected.get(path, (2, n_inputs, n_outputs))
        assert n_inputs == (128 if "down" in path else 32)
        size = group or n_inputs
        scale = np.asarray(entries[path]["scale"])
        assert scale.shape == (n_groups, n_inputs // size, n_outputs)
        by_scale = np.abs(matrices).reshape(n_groups, -1, size, n_outputs)
        np.testing.assert_allclose(scale, by_scale.max(axis=2) / (2 ** (bits - 1) - 0.5), rtol=1e-5)
        back = quantised.dequantised(path, entries[path], x.shape)
        error = np.abs(as_matrices(path, np.asarray(back)) - matrices).reshape(by_scale.shape)
        assert np.all(error <= 0.5001 * scale[:, :, None])
        assert error.max() > 0.3 * scale.min(), "it was rounded"
        assert entries[path][weights].nbytes == x.size * bits // 8
    assert n_rounded == 8, "six kernels of a layer, the table and the head"


def test_small_weights_go_and_exactly_so_many():
    params = random_params(model_config({}))
    half, fours = prune.without_small(params, 0.5), prune.two_of_four(params)
    for path, x in flatten(params).items():
        if not is_kernel(path):
            assert flatten(half)[path] is x
            continue
        for pruned in (half, fours):
            left = as_matrices(path, flatten(pruned)[path])
            assert np.all(np.count_nonzero(left, axis=(1, 2)) == left[0].size // 2)
        for layer, was in zip(
            as_matrices(path, flatten(half)[path]),
            np.abs(as_matrices(path, np.asarray(x))),
            strict=True,
        ):
            assert was[layer == 0].max() <= was[layer != 0].min()
        n_groups, n_inputs, n_outputs = left.shape
        was = np.abs(as_matrices(path, np.asarray(x))).reshape(
            n_groups, n_inputs // 4, 4, n_outputs
        )
        assert np.all(np.count_nonzero(left.reshape(was.shape), axis=2) == 2)
        np.testing.assert_array_equal(
            np.sort(np.abs(left.reshape(was.shape)), axis=2)[:, :, 2:],
            np.sort(was, axis=2)[:, :, 2:],
        )


@pytest.mark.parametrize("fields", [{}, {"bias": False, "position": "rotary", "norm": "rmsnorm"}])
def test_heads_that_add_nothing_go_and_the_model_computes_the_same(fields):
    config = model_config({"n_layers": 3} | fields)
    flat = {path: np.array(x) for path, x in flatten(random_params(config)).items()}
    silent = ([0, 2], [1, 3], [3, 2])  # of each layer
    out = flat["blocks/0/attention/out/kernel"]
    for layer, heads in enumerate(silent):
        out[layer, heads] = 0
    params = unflatten(flat)
    smaller, left = prune.without_heads(config, params, 2)
    assert (smaller.n_heads, smaller.d_head) == (2, config.d_head)
    assert flatten(left)["blocks/0/attention/query/kernel"].shape == (3, 32, 2, 8)
    np.testing.assert_allclose(logits(smaller, left), logits(config, params), atol=2e-4)
    _, fewer = prune.without_heads(config, params, 3)
    changed = logits(prune.without_heads(config, params, 3)[0], fewer)
    assert np.abs(changed - logits(config, params)).max() > 0.01


def test_layers_that_change_nothing_go_and_the_model_computes_the_same():
    config = model_config({"n_layers": 8, "layer_pattern": ("dense", "banded"), "window": 8})
    flat = {path: np.array(x) for path, x in flatten(random_params(config)).items()}
    for path in flat:  # the second and the last group of two
        if "/out/" in path or "/down/" in path:
            flat[path][[1, 3]] = 0
    params, model = unflatten(flat), make_gpt(config)
    found = np.asarray(prune.influences(model, params, TOKENS))
    assert np.all(np.abs(found[[1, 3]]) < 1e-5)
    assert np.all(found[[0, 2]] > 1e-3)
    smaller, left = prune.without_layers(model, params, 4, TOKENS)
    assert smaller.n_layers == 4
    np.testing.assert_allclose(logits(smaller, left), logits(config, params), atol=2e-4)
    with pytest.raises(ValueError, match=r"a multiple of the length of model\.layer_pattern, 2"):
        prune.without_layers(model, params, 3, TOKENS)


def test_a_compressed_run_is_a_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cli, "prepare_process", lambda: None)
    source = make_run(tmp_path / "whole", {"vocab_size": 257}).path
    (tmp_path / "text").write_text("some text to look at layers with " * 8)
    for options, weights in (
        (["--weights", "int4", "--group", "16"], 0.25),
        (["--prune", "layers:1", "--text", str(tmp_path / "text"), "--weights", "int8"], 0.25),
    ):
        made = tmp_path / options[1].replace(":", "")
        assert cli.main(["compress", str(source), "--workdir", str(made), *options]) == 0
        said = capsys.readouterr().out
        assert float(said.split("parameters, ")[1].split("%")[0]) < 100 * weights
        config, model, params, _ = load_run(made)
        shapes = jax.eval_shape(model.init, jax.random.key(0))
        assert jax.tree.map(lambda x: (x.shape, x.dtype), params) == jax.tree.map(
            lambda x: (x.shape, x.dtype), shapes
        )
        assert config.model.n_layers == (1 if "layers:1" in options else 2)
        facts = RunDirectory(made).read_facts()
        assert facts["compressed_from"] == str(source)
    _, _, params, _ = load_run(tmp_path / "int4")
    _, _, whole, _ = load_run(source)
    expected = quantised.quantise(whole, "int4", 16)
    entry = expected["blocks"]["0"]["mlp"]["up"]["kernel"]
    np.testing.assert_array_equal(
        params["blocks"]["0"]["mlp"]["up"]["kernel"],
        quantised.dequantised("blocks/0/mlp/up/kernel", entry, (2, 32, 128)),
    )


def test_mistakes_are_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "prepare_process", lambda: None)
    source = str(make_run(tmp_path / "whole", {"vocab_size": 257, "n_kv_heads": 2}).path)
    (tmp_path / "short").write_text("short")
    for options, said in (
        ([], "nothing to do"),
        (["--prune", "half"], "--prune half; allowed: magnitude:SHARE, 2:4"),
        (["--prune", "magnitude:1.5"], "--prune magnitude:1.5; allowed"),
        (["--prune", "layers:1"], "give --text FILE"),
        (["--prune", "layers:2", "--text", str(tmp_path / "short")], "has 5 tokens; 48 or more"),
        (["--prune", "layers:2", "--text", "nowhere"], "--text nowhere: no such file"),
        (["--prune", "heads:1"], "keys are shared"),
        (["--weights", "int4", "--group", "24"], "--group 24 does not divide the 32 inputs"),
        (["--weights", "int8", "--text", "x"], "--text is for --prune layers:N"),
    ):
        made = tmp_path / "made"
        assert cli.main(["compress", source, "--workdir", str(made), *options]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert not (made / "config.json").exists()
    assert cli.main(["compress", "none", "--workdir", "new", "--weights", "int8"]) == 2
    assert "none is not a run directory" in capsys.readouterr().err
    assert not Path("new").exists()
    assert cli.main(["compress", source, "--workdir", source, "--weights", "int8"]) == 2
    assert "holds a run already" in capsys.readouterr().err
