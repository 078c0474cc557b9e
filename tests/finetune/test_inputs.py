"""Records to tokens: GPT-1's input transformations, tags on words, turns, packing."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_jax.config import Config, ModelConfig, TaskConfig
from gpt_jax.data.tokenizers.entries.byte import ByteTokenizer
from gpt_jax.finetune import examples
from gpt_jax.finetune.inputs import encoder, fit
from gpt_jax.finetune.templates import Template, load_template, render, render_prompt

TOKENIZER = ByteTokenizer()
END = TOKENIZER.end_of_text
MODEL = ModelConfig(vocab_size=257, vocab_multiple=4, seq_len=32, n_layers=1, d_model=8, n_heads=2)
START, DELIMITER, EXTRACT = 260, 261, 262  # after the padded ids


def encode(name, record, **options):
    return encoder(MODEL, TaskConfig(name=name, train="x", **options), TOKENIZER)(record)


def ids(text):
    return TOKENIZER.encode(text).tolist()


def test_one_text():
    (made,) = encode("classify", {"text": "abc", "label": 1}, labels=("0", "1"))
    assert made.tokens == [START, *ids("abc"), EXTRACT]
    assert made.learned == [0, 1, 1, 1, 0]
    assert (made.read, made.labels) == ([4], [1.0])


def test_pairs_have_a_delimiter_and_similarity_both_orders():
    record = {"premise": "ab", "hypothesis": "c", "label": "no"}
    (made,) = encode("entail", record, labels=("no", "yes"))
    assert made.tokens == [START, *ids("ab"), DELIMITER, *ids("c"), EXTRACT]
    assert made.learned == [0, 1, 1, 0, 1, 0]
    pair = {"first": "ab", "second": "c", "label": "yes"}
    forward, backward = encode("similarity", pair, labels=("no", "yes"))
    assert forward.tokens == made.tokens
    assert backward.tokens == [START, *ids("c"), DELIMITER, *ids("ab"), EXTRACT]
    assert forward.labels == backward.labels == [1.0]


def test_each_option_after_the_context():
    record = {"context": "q", "options": ["x", "yy", "z"], "label": 1}
    made = encode("choose", record)
    assert [m.tokens for m in made] == [
        [START, *ids("q"), DELIMITER, *ids(option), EXTRACT] for option in record["options"]
    ]
    assert [m.labels for m in made] == [[0.0], [1.0], [0.0]]


def test_a_question_ends_the_context_and_is_kept_where_that_is_cut():
    fields = ("article", "question", "options")
    record = {"article": "a" * 40, "question": "q?", "options": ["x", "yyy"], "label": 0}
    made = encode("choose", record, fields=fields)
    for sequence, option in zip(made, record["options"], strict=True):
        article = "a" * (MODEL.seq_len - 3 - len(" q?") - len(option))
        assert sequence.tokens == [
            START, *ids(f"{article} q?"), DELIMITER, *ids(option), EXTRACT
        ]  # fmt: skip
    with pytest.raises(ValueError, match=r"task\.fields = a: task\.name = choose takes 2 or 3"):
        TaskConfig(name="choose", fields=("a",))


def test_a_word_is_read_at_its_last_token_and_twice_read_the_second_time():
    record = {"tokens": ["ab", "c"], "tags": ["O", "B-x"]}
    (made,) = encode("tag", record, labels=("O", "B-x"))
    assert made.tokens == [START, *ids("ab c"), EXTRACT]
    assert (made.read, made.labels) == ([2, 4], [0.0, 1.0])
    (made,) = encode("tag", record, labels=("O", "B-x"), repeat=True)
    assert made.tokens == [START, *ids("ab c"), DELIMITER, *ids("ab c"), EXTRACT]
    assert (made.read, made.labels) == ([7, 9], [0.0, 1.0])


def test_words_beyond_the_room_have_no_position():
    record = {"tokens": ["ab", "c", "def"], "tags": ["O", "B-x", "O"]}
    (made,) = encode("tag", record, labels=("O", "B-x"), length=7)
    assert len(made.tokens) <= 7
    assert made.labels == [0.0, 1.0]


def test_a_response_and_its_end_are_learned():
    (made,) = encode("respond", {"prompt": "hi", "response": "yo"})
    assert made.tokens == [END, *ids("hi\n"), *ids("yo"), END]
    assert made.learned == [0, 0, 0, 0, 1, 1, 1]
    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d"},
    ]
    (made,) = encode("respond", {"messages": turns}, template="chat", length=32)
    text = "User: a\nAssistant: b\n"
    assert made.tokens[: len(text) + 2] == [END, *ids(text), END]
    learned = [t for t, w in zip(made.tokens, made.learned, strict=True) if w]
    assert learned[:3] == [*ids("b\n"), END]


def test_the_prompt_is_the_beginning_of_the_example():
    record = {"prompt": "hi", "response": "yo"}
    task = TaskConfig(name="respond", train="x", template="chat")
    encode = encoder(MODEL, task, TOKENIZER)
    whole, prompt = encode(record)[0].tokens, encode.prompt({"prompt": "hi"}).tolist()
    assert whole[: len(prompt)] == prompt
    assert encode(record)[0].learned[len(prompt)] == 1
    assert not any(encode(record)[0].learned[: len(prompt)])


def test_templates(tmp_path):
    path = tmp_path / "t.json"
    path.write_text(json.dumps({"roles": {"user": ["<u>", ""], "assistant": ["<a>", "!"]}}))
    template = load_template(str(path))
    assert template == Template({"user": ("<u>", ""), "assistant": ("<a>", "!")})
    turns = [{"role": "user", "content": "q"}]
    assert "".join(part.text for part in render_prompt(template, turns)) == "<u>q<a>"
    with pytest.raises(ValueError, match="role 'tool'; the template has user, assistant"):
        render(template, [{"role": "tool", "content": ""}])
    path.write_text('{"roles": {"user": ["", ""]}}')
    with pytest.raises(ValueError, match="no role assistant"):
        load_template(str(path))
    with pytest.raises(ValueError, match=r"task\.template = nope; allowed: plain, chat"):
        load_template("nope")


@given(st.lists(st.lists(st.integers(), max_size=12), min_size=1, max_size=4), st.integers(0, 30))
def test_parts_are_cut_from_their_ends_the_longest_first(parts, room):
    made = fit(parts, room)
    assert sum(map(len, made)) == min(room, sum(map(len, parts)))
    for before, after in zip(parts, made, strict=True):
        assert before[: len(after)] == after
    cut = [len(a) for b, a in zip(parts, made, strict=True) if len(a) < len(b)]
    if cut:  # what is left of a part that was cut is about as long as the longest
        assert max(map(len, made)) - min(cut) <= 1


def config(name, found, tmp_path, **options):
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in found))
    made = Config(model=MODEL, task=TaskConfig(name=name, train=str(path), **options))
    return examples.resolve(made, TOKENIZER)


def load(config, found, **options):
    return examples.load_rows(config, TOKENIZER, found, "file", **options)


PAIRS = [{"premise": "abcd", "hypothesis": "e", "label": i % 3 and "no"} for i in range(12)]


def test_what_training_examples_decide(tmp_path):
    made = config("entail", PAIRS, tmp_path, epochs=2, warmup=0.25, validations=3)
    assert made.task.labels == ("0", "no")
    assert made.task.length == 8
    n = 11  # one of twelve is held out
    assert made.train.tokens == 2 * n * 8
    assert made.schedule.warmup_tokens == made.train.tokens // 4
    assert made.evaluate.every_tokens == n * 8 // 3
    assert examples.resolve(made, TOKENIZER) == made


def test_language_model_weights_are_a_mean_over_an_examples_tokens(tmp_path):
    made = config("entail", PAIRS, tmp_path)
    batch = load(made, PAIRS).batch
    np.testing.assert_allclose(batch.weights_BT.sum(axis=1), 1, rtol=1e-6)
    assert batch.label_weights_BT.sum() == len(PAIRS)
    assert batch.targets_BT.max() < START
    words = [{"tokens": ["ab", "c"], "tags": ["O", "O"]}, {"tokens": ["d"], "tags": ["B-x"]}] * 2
    batch = load(config("tag", words, tmp_path), words).batch
    np.testing.assert_allclose(batch.weights_BT.sum(axis=1), [2, 1, 2, 1], rtol=1e-6)
    options = [{"context": "q", "options": ["x", "yy"][: 1 + i % 2], "label": 0} for i in range(4)]
    made = config("choose", options, tmp_path)
    assert made.task.options == 2
    batch = load(made, options).batch
    np.testing.assert_allclose(batch.weights_BT.sum(axis=1), 1, rtol=1e-6)


def test_sentences_that_are_cut_off_whole_are_scored_and_not_trained(tmp_path):
    """A batch of them alone would have a loss of 0 over no label."""
    short = [{"tokens": ["ab", "c"], "tags": ["O", "B-x"]}] * 2
    found = [*short, {"tokens": ["x" * 50, "y"], "tags": ["O", "O"]}]
    made = config("tag", found, tmp_path, length=8)
    assert len(load(made, found, training=True).records) == 2
    scored = load(made, found)
    assert len(scored.records) == 3
    assert list((scored.batch.label_weights_BT > 0).any(axis=1)) == [True, True, False]


def test_balanced_classes_weigh_the_same(tmp_path):
    made = config("entail", PAIRS, tmp_path, class_weights="balanced")
    plain, batch = load(made, PAIRS).batch, load(made, PAIRS, training=True).batch
    assert set(plain.label_weights_BT[plain.label_weights_BT > 0]) == {1.0}
    sums = [batch.label_weights_BT[batch.labels_BT == label].sum() for label in (0, 1)]
    only = batch.label_weights_BT > 0
    sums = [batch.label_weights_BT[only & (batch.labels_BT == c)].sum() for c in (0, 1)]
    np.testing.assert_allclose(sums, [6, 6], rtol=1e-6)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=30))
def test_packing_loses_nothing_and_mixes_nothing(lengths):
    found = [{"prompt": "p", "response": chr(97 + i % 26) * n} for i, n in enumerate(lengths)]
    task = TaskConfig(name="respond", train="x", pack=True, length=32)
    made = Config(model=MODEL, task=task)
    rows, alone = load(made, found), encoder(MODEL, task, TOKENIZER)
    unpacked = []
    for tokens, weights, segments in zip(
        rows.batch.tokens_BT, rows.batch.weights_BT, rows.batch.segments_BT, strict=True
    ):
        for number in range(1, segments.max() + 1):
            mine = segments == number
            assert weights[mine][-1] == 0, "the last token of a segment has no target"
            unpacked.append(tokens[mine].tolist())
    assert sorted(unpacked) == sorted(alone(record)[0].tokens for record in found)
    learned = sum(sum(alone(record)[0].learned) for record in found)
    assert rows.batch.weights_BT.sum() == learned


def test_the_stream_sees_each_example_once_an_epoch(tmp_path):
    found = [{"text": chr(97 + i), "label": i % 2} for i in range(20)]
    rows = load(config("classify", found, tmp_path), found)
    stream = examples.ExampleStream(rows, seed=3)
    for epoch in range(2):
        seen = stream.batch(20 * epoch, 20).tokens_BT[:, 1]
        assert sorted(seen) == list(range(97, 117))
    places = stream.sample_locations(18, 4)
    assert [p.epoch for p in places] == [0, 0, 1, 1]
    assert stream.batch(7, 3).tokens_BT[1].tolist() == stream.batch(8, 1).tokens_BT[0].tolist()
    others = examples.ExampleStream(rows, seed=4).batch(0, 20).tokens_BT
    assert others.tolist() != stream.batch(0, 20).tokens_BT.tolist()


def test_mistakes_name_the_file_and_the_example(tmp_path):
    found = [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]
    made = config("classify", [*found, found[0]], tmp_path)  # the last is held out
    for record, message in (
        ({"txt": "a", "label": "x"}, "example 1: it has no field 'text', but txt, label"),
        ({"text": "a", "label": "z"}, "example 1: its label 'z' is none of x, y"),
    ):
        with pytest.raises(ValueError, match=message):
            load(made, [record])
    with pytest.raises(ValueError, match="2 words and 1 tags"):
        encode("tag", {"tokens": ["a", "b"], "tags": ["O"]}, labels=("O",))
    with pytest.raises(ValueError, match="label 5 is no index of its 2 options"):
        encode("choose", {"context": "", "options": ["a", "b"], "label": 5})
    with pytest.raises(ValueError, match=r"train\.jsonl line 2: it has no field 'label'"):
        config("classify", [found[0], {"text": "b"}, found[0]], tmp_path)
    with pytest.raises(ValueError, match=r"task\.train"):
        Config(task=TaskConfig(name="classify"))
    with pytest.raises(ValueError, match=r"task\.metric = accuracy; of task\.name = regress one"):
        TaskConfig(name="regress", train="x", metric="accuracy")
    made = config("choose", [{"context": "", "options": ["a", "b"], "label": 0}] * 2, tmp_path)
    with pytest.raises(ValueError, match=r"example 1 has 3 options, more than task\.options = 2"):
        load(made, [{"context": "", "options": ["a", "b", "c"], "label": 0}])
    with pytest.raises(ValueError, match=r"task\.length = 33 exceeds model\.seq_len = 32"):
        Config(model=MODEL, task=TaskConfig(name="classify", train="x", length=33))
    with pytest.raises(ValueError, match=r"task\.pack is for task\.name = respond"):
        TaskConfig(name="tag", train="x", pack=True)
