"""Losses and outputs of tasks, against the same written for one example at a time."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpt_jax.config import ComputeConfig, Config, ModelConfig, TaskConfig, overrides
from gpt_jax.data.tokenizers.entries.byte import ByteTokenizer
from gpt_jax.finetune import examples
from gpt_jax.finetune.embeddings import special_tokens
from gpt_jax.finetune.inputs import encoder
from gpt_jax.finetune.objective import task_objective
from gpt_jax.finetune.responses import sequence_log_probabilities
from gpt_jax.models.gpt import make_gpt
from gpt_jax.steps.program import make_steps


def task_loss(config, model, params, batch, key=None):
    return task_objective(config, model).loss(params, batch, key, {})


def task_outputs(config, model, params, batch):
    return task_objective(config, model).outputs(params, batch)


TOKENIZER = ByteTokenizer()
MODEL = ModelConfig(vocab_size=257, seq_len=32, n_layers=1, d_model=16, n_heads=2)
FOUND = {
    "classify": [{"text": "ab" * (1 + i), "label": "xyz"[i % 3]} for i in range(6)],
    "entail": [{"premise": "a" * (i + 1), "hypothesis": "b", "label": i % 2} for i in range(6)],
    "similarity": [{"first": "a" * (i + 1), "second": "b", "label": i % 2} for i in range(6)],
    "choose": [
        {"context": "q" * (i + 1), "options": ["x", "yy", "z"][: 2 + i % 2], "label": i % 2}
        for i in range(6)
    ],
    "regress": [{"text": "a" * (1 + i), "label": 0.5 * i - 1} for i in range(6)],
    "tag": [{"tokens": ["ab", "c"] * (1 + i), "tags": ["O", "B-x"] * (1 + i)} for i in range(4)],
    "prefer": [{"prompt": "p", "chosen": "a" * (1 + i), "rejected": "b"} for i in range(6)],
}


def prepared(name, tmp_path, **options):
    """(config, model, params, batch of all examples)."""
    path = tmp_path / f"{name}.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in FOUND[name]))
    task = TaskConfig(name=name, train=str(path), validation=str(path), **options)
    compute = ComputeConfig(dtype="float32", attention="reference", products="plain")
    config = examples.resolve(Config(model=MODEL, task=task, compute=compute), TOKENIZER)
    model = make_gpt(config.model, config.compute)
    params = make_steps(config, model).init(jax.random.key(0)).params
    # Away from the start, where heads and biases are about nothing.
    params = jax.tree.map(lambda x: x + 0.1 * jnp.sin(jnp.arange(x.size)).reshape(x.shape), params)
    return config, model, params, examples.load_rows(config, TOKENIZER, FOUND[name], "").batch


def one_at_a_time(config, model, params):
    """[(scores of the head, language-model loss)] of each example, one sequence at a time."""
    encode = encoder(config.model, config.task, TOKENIZER)
    head, results = params["task_head"], []
    model = model.intercepted(special_tokens)

    @jax.jit
    def both(params, tokens):
        log_p = jax.nn.log_softmax(model.apply(params, tokens))
        return model.apply(params, tokens, logits=False), log_p

    for record in FOUND[config.task.name]:
        read, language = [], []
        for sequence in encode(record):
            tokens = np.zeros((1, 32), np.int32)  # the rest is in the future: it changes nothing
            tokens[0, : len(sequence.tokens)] = sequence.tokens
            x_TD, logits_TV = (np.asarray(y[0]) for y in both(params, tokens))
            counted = [i for i, w in enumerate(sequence.learned) if w]
            losses = [-logits_TV[i - 1, sequence.tokens[i]] for i in counted]
            language.append(sum(losses) / len(losses))
            read.append(x_TD[sequence.read])
        results.append((read, sum(language) / len(language)))
    return head, results


@pytest.mark.parametrize("name", ["classify", "entail", "similarity", "choose", "regress", "tag"])
def test_a_batch_is_its_examples(name, tmp_path):
    config, model, params, batch = prepared(name, tmp_path, language_loss=0.25)
    head, results = one_at_a_time(config, model, params)
    losses, language, expected = [], [], []
    for record, (read, lm) in zip(FOUND[name], results, strict=True):
        label = record[config.task.label_field]
        if name == "tag":
            scores = jax.nn.log_softmax(read[0] @ head["kernel"] + head["bias"])
            classes = [config.task.labels.index(tag) for tag in label]
            losses.append(-sum(scores[i, c] for i, c in enumerate(classes)))
            language.append(lm * len(classes))
            expected.append(scores)
            continue
        language.append(lm)
        if name == "choose":
            scores = jnp.stack([(x @ head["kernel"] + head["bias"])[0, 0] for x in read])
            expected.append(jax.nn.log_softmax(scores))
            losses.append(-expected[-1][label])
            continue
        y = sum(x[0] for x in read) @ head["kernel"] + head["bias"]
        if name == "regress":
            expected.append(y[0])
            losses.append((y[0] - label) ** 2)
        else:
            expected.append(jax.nn.log_softmax(y))
            losses.append(-expected[-1][config.task.labels.index(str(label))])
    objective, sums = jax.jit(lambda p, b: task_loss(config, model, p, b))(params, batch)
    np.testing.assert_allclose(sums.cross_entropy, sum(losses), rtol=2e-5)
    np.testing.assert_allclose(objective, sum(losses) + 0.25 * sum(language), rtol=2e-5)
    n_labels = sum(len(r["tags"]) for r in FOUND["tag"]) if name == "tag" else len(FOUND[name])
    assert sums.weight == n_labels
    _, outputs = jax.jit(lambda p, b: task_outputs(config, model, p, b))(params, batch)
    for row, one in enumerate(expected):
        got = outputs[row][batch.label_weights_BT[row] > 0] if name == "tag" else outputs[row]
        if name == "choose":
            assert np.all(got[len(one) :] < -1e6), "an option that is not there"
            got = got[: len(one)]
        np.testing.assert_allclose(got, one, atol=2e-5)


@pytest.mark.parametrize("name", ["similarity", "choose", "tag", "prefer", "adversarial"])
def test_any_split_into_microbatches_gives_the_same_gradient(name, tmp_path):
    options = {}
    if name == "adversarial":
        name, options = "choose", {"adversarial": "fgm", "head_dropout": 0.0}
    config, model, params, batch = prepared(name, tmp_path, **options)
    key = jax.random.key(0) if options else None
    batch = jax.tree.map(lambda x: x[:4], batch)
    parts = overrides.draft(config, {"compute.microbatches": 2})
    (whole, sums), (split, split_sums) = (
        jax.jit(lambda p, b, c=c: make_steps(c, model).sum_gradients(p, b, key))(params, batch)
        for c in (config, parts)
    )
    np.testing.assert_allclose(sums[:3], split_sums[:3], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), whole, split)
    if name != "prefer":
        assert float(jnp.abs(whole["task_head"]["kernel"]).max()) > 0


@pytest.mark.parametrize("name", ["classify", "tag"])
def test_embeddings_are_moved_as_far_as_asked_to_where_the_loss_is_higher(name, tmp_path):
    """A row of one sequence is moved by its position embeddings, which are added to its own."""
    common = {"language_loss": 0.0, "head_dropout": 0.0}
    plain, model, params, batch = prepared(name, tmp_path, **common)

    @functools.partial(jax.jit, static_argnums=0)
    def objective(config, params, batch):
        return task_loss(config, model, params, batch, jax.random.key(0))[0]

    size, weight, rows = 0.05, 0.5, jax.tree.map(lambda x: x[:2], batch)
    changes = {"task.adversarial_size": size, "task.adversarial_weight": weight}
    fgm, pgd = (
        float(
            objective(overrides.override(plain, changes | {"task.adversarial": how}), params, rows)
        )
        for how in ("fgm", "pgd")
    )
    length = np.sqrt(np.mean(np.sum(np.square(params["embedding"]["tokens"]), axis=1)))
    table = np.asarray(params["embedding"]["positions"])
    slope = jax.jit(jax.grad(lambda params, row: objective(plain, params, row)))
    there, moved = 0.0, 0.0
    for i in range(2):
        row = jax.tree.map(lambda x, i=i: x[i : i + 1], rows)
        gradient = np.array(slope(params, row)["embedding"]["positions"])
        n_read = int(np.flatnonzero(row.label_weights_BT[0])[-1]) + 1
        assert set(np.flatnonzero(np.any(gradient != 0, axis=1))) == set(range(n_read))
        is_word = np.asarray(row.tokens_BT[0, :n_read]) < plain.model.padded_vocab_size
        assert 0 < is_word.sum() < n_read
        gradient[:n_read][~is_word] = 0
        move = size * length * is_word.sum() ** 0.5 * gradient / np.linalg.norm(gradient)
        elsewhere = {**params, "embedding": {**params["embedding"], "positions": table + move}}
        there += float(objective(plain, params, row))
        moved += float(objective(plain, elsewhere, row))
    assert moved > there
    np.testing.assert_allclose(fgm, there + weight * moved, rtol=1e-5)
    assert pgd > fgm


def test_padding_rows_count_nothing(tmp_path):
    config, model, params, _ = prepared("classify", tmp_path)
    rows = examples.load_rows(config, TOKENIZER, FOUND["classify"], "")
    batch = rows.rows(np.asarray([0, 1, -1, -1]))
    loss = jax.jit(functools.partial(task_loss, config, model))
    padded, sums = loss(params, batch)
    alone, sums_alone = loss(params, rows.rows(np.asarray([0, 1])))
    np.testing.assert_allclose(padded, alone, rtol=1e-6)
    np.testing.assert_allclose(sums[:3], sums_alone[:3], rtol=1e-6)


def test_preference_is_equation_7_and_zero_margin_where_training_begins(tmp_path):
    config, model, params, batch = prepared("prefer", tmp_path, preference_beta=0.5)
    score, outputs, objective = (
        jax.jit(functools.partial(function, config, model))
        for function in (sequence_log_probabilities, task_outputs, task_loss)
    )
    began = np.asarray(score(params, batch))
    n, K = began.shape
    read = batch.label_weights_BT.reshape(n, K, -1)
    labels = np.where(read > 0, began[..., None], 0).reshape(n, -1)
    _, margins = outputs(params, batch._replace(labels_BT=labels))
    np.testing.assert_allclose(margins, 0, atol=1e-4)
    moved = jax.tree.map(lambda x: 1.1 * x, params)
    now = np.asarray(score(moved, batch))
    loss, sums = objective(moved, batch._replace(labels_BT=labels))
    margin = 0.5 * ((now - began)[:, 0] - (now - began)[:, 1])
    assert np.abs(margin).max() > 0.01
    np.testing.assert_allclose(loss, np.log1p(np.exp(-margin)).sum(), rtol=1e-3)
    assert sums.weight == n
    # The log-probability of a response is the sum over its tokens, and its end.
    encode = encoder(config.model, config.task, TOKENIZER)
    chosen = encode(FOUND["prefer"][0])[0]
    logits = jax.nn.log_softmax(model.apply(params, jnp.asarray([chosen.tokens]))[0])
    spoken = [i for i, w in enumerate(chosen.learned) if w]
    expected = sum(logits[i - 1, chosen.tokens[i]] for i in spoken)
    np.testing.assert_allclose(began[0, 0], expected, rtol=1e-5)


@pytest.mark.parametrize("position", ["learned", "sinusoidal"])
def test_a_packed_example_is_what_it_is_alone(position, tmp_path):
    """Positions begin anew with each example of a row, as where it stands alone."""
    found = [{"prompt": "p" * i, "response": "abcd"[: i + 1]} for i in range(4)]
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in found))
    compute = ComputeConfig(dtype="float32", attention="reference", products="plain")
    sums = {}
    for pack in (False, True):
        task = TaskConfig(name="respond", train=str(path), pack=pack, length=32)
        model_config = dataclasses.replace(MODEL, position=position)
        config = Config(model=model_config, task=task, compute=compute)
        rows = examples.load_rows(config, TOKENIZER, found, "")
        model = make_gpt(config.model, config.compute)
        params = make_steps(config, model).init(jax.random.key(0)).params
        params = jax.tree.map(
            lambda x: x + 0.1 * jnp.sin(jnp.arange(x.size)).reshape(x.shape), params
        )
        sums[pack] = task_outputs(config, model, params, rows.batch)[0]
        assert rows.n_rows == (1 if pack else 4)
    assert sums[True].weight == sums[False].weight
    np.testing.assert_allclose(sums[True].cross_entropy, sums[False].cross_entropy, rtol=1e-5)
