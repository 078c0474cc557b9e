"""Records become items, items prompts and numbers; the paper's own items are ours; rules invert."""

import dataclasses
import functools
import math
import re

import numpy as np
import pytest
from task_records import FORMS

from gpt_jax.data import records
from gpt_jax.data.tokenizers.entries.byte import ByteTokenizer
from gpt_jax.data.tokenizers.making import make_tokenizer
from gpt_jax.evaluate import bias, generated, measures
from gpt_jax.evaluate.catalog import CATALOG
from gpt_jax.evaluate.detokenize import DETOKENIZERS, prepare
from gpt_jax.evaluate.encode import encode_pair
from gpt_jax.evaluate.evaluator import banned_ids
from gpt_jax.evaluate.items import read_items
from gpt_jax.evaluate.requests import Score
from gpt_jax.evaluate.tasks import Item, Task, load_tasks, prompts, select


@pytest.mark.parametrize(
    ("name", "n", "n_choices"),
    [("lambada", 5153, 1), ("piqa", 1838, 2), ("copa", 100, 2), ("wsc273", 273, 2),
     ("rte", 277, 2), ("scramble_reversed", 10000, 1)],
)  # fmt: skip
def test_real_items(shared_data, name, n, n_choices):
    items = read_items(CATALOG[name], shared_data, tfds=False).items
    assert len(items) == n
    for item in items:
        assert len(item.pairs()) in (n_choices, *([3, 5] if name == "wsc273" else []))
        assert 0 <= item.gold < len(item.pairs())
        endings = [ending for _, ending in item.pairs()]
        assert all(ending[0] == " " and ending.strip() for ending in endings)


@pytest.mark.parametrize("name", [n for n, task in CATALOG.items() if task.tfds])
def test_records_of_tfds(name):
    """Their fields are those of the installed TFDS, where it knows the set without TensorFlow."""
    tfds = pytest.importorskip("tensorflow_datasets")
    try:
        features = tfds.builder(CATALOG[name].tfds[0]).info.features
    except tfds.core.DatasetNotFoundError:
        return
    assert set(FORMS[name]["TFDS"]) == set(features)


def test_demonstrations_are_seeded_and_never_the_item_itself():
    task = Task("t", (), lambda record: [])
    items = [Item(f"q{i}", (f" a{i}",)) for i in range(9)]
    first = prompts(task, items, items, 8, seed=0)
    assert first == prompts(task, items, items, 8, seed=0)
    assert first[:3] == prompts(task, items[:3], items, 8, seed=0)
    assert first != prompts(task, items, items, 8, seed=1)
    for i, prompt in enumerate(first):
        assert sorted(prompt.split("\n\n")[:-1]) == [f"q{j} a{j}" for j in range(9) if j != i]
    assert prompts(task, items, items, 0, seed=0) == [""] * 9
    with pytest.raises(ValueError, match="--shots 9, but task t has 9 items"):
        prompts(task, items, items, 9, seed=0)


def test_measures_by_hand():
    task = Task("t", (), lambda record: [], measure="unconditional", answer_context="A:")
    item = Item("q", (" aa", " bbbb"), 1)
    scores = [Score(-2.0, False, False, 1), Score(-3.0, False, False, 2),
              Score(-1.0, False, False, 1), Score(-5.0, False, False, 2)]  # fmt: skip
    assert measures.choice_values(task, item, scores) == {
        "raw": [-2.0, -3.0],
        "per_character": [-2 / 2, -3 / 4],
        "per_token": [-2.0, -1.5],
        "per_byte": [-2 / 3, -3 / 5],
        "unconditional": [-1.0, 2.0],
    }
    numbers = measures.choice_numbers(task, [item, item], [scores, scores])
    assert (numbers["accuracy"], numbers["accuracy_raw"], numbers["chance"]) == (1.0, 0.0, 0.5)
    assert numbers["bits_per_byte"] == pytest.approx(3 / math.log(2) / 5)
    assert "accuracy_by_group" not in numbers
    grouped = [dataclasses.replace(item, group="x"), dataclasses.replace(item, gold=0, group="y")]
    numbers = measures.choice_numbers(task, grouped, [scores, scores])
    assert numbers["accuracy_by_group"] == {"x": 1.0, "y": 0.0}
    found = [Score(-1.0, True, True, 1), Score(-3.0, False, True, 3)]
    numbers = measures.cloze_numbers([item] * len(found), found, n_banned=1)
    assert numbers["accuracy"] == numbers["accuracy_standard_error"] == 0.5
    assert numbers["accuracy_no_stop_words"] == 1.0
    assert numbers["perplexity_per_word"] == pytest.approx(math.e**2)
    assert numbers["perplexity_per_word_standard_error"] == pytest.approx(math.e**2)
    assert numbers["perplexity_per_token"] == pytest.approx(math.e)
    assert numbers["bits_per_byte"] == pytest.approx(2 / math.log(2) / 5)
    asked = Task("g", (), lambda record: [], kind="generate")
    items = [Item("q", answers=("The Beatles", "Beatles")), Item("q", answers=("Rome",))]
    assert measures.generation_numbers(asked, items, ["beatles.", "Milan"])["exact_match"] == 0.5


def test_squads_scores_by_hand():
    """The best of the answers, words counted as SQuAD's script does (Rajpurkar et al. 2016)."""
    cases = [
        ("the Tin man", "tin", 0, 2 / 3),
        ("tin", "a Tin.", 1, 1),
        ("", "the", 1, 1),
        ("lead", "tin", 0, 0),
        ("tin tin lead", "tin lead zinc", 0, 2 / 3),
        ("", "x", 0, 0),
    ]
    for said, answer, same, f1 in cases:
        assert measures.exact(said, answer) == same
        assert measures.word_f1(said, answer) == pytest.approx(f1)
    task = Task("s", (), lambda record: [], kind="generate", metric="squad")
    items = [Item("q", answers=("zinc", "tin")), Item("q", answers=("tin man",))]
    numbers = measures.generation_numbers(task, items, ["tin", "tin"])
    assert (numbers["exact_match"], numbers["f1"]) == (0.5, pytest.approx((1 + 2 / 3) / 2))


def test_matthews_beside_the_accuracy():
    """2 x 2 counts [[1, 1], [0, 2]]: (2 - 0) / sqrt(2 * 2 * 1 * 3)."""
    items = [Item("q", (" no", " yes"), gold) for gold in (0, 0, 1, 1)]
    scores = [[Score(-float(c), False, False, 1), Score(float(c) - 1, False, False, 1)]
              for c in (0, 1, 1, 1)]  # fmt: skip
    numbers = measures.choice_numbers(CATALOG["cola"], items, scores)
    assert (numbers["accuracy"], numbers["matthews"]) == (0.75, pytest.approx(2 / 12**0.5))


def test_bleu_and_rouge_where_installed():
    items = [Item("q", answers=("the cat sat on the mat today",))]
    pytest.importorskip("sacrebleu", reason="the extra evaluation is not installed")
    pytest.importorskip("rouge_score", reason="the extra evaluation is not installed")
    bleu = Task("b", (), lambda record: [], kind="generate", metric="bleu")
    rouge = Task("r", (), lambda record: [], kind="generate", metric="rouge")
    same, other = ["the cat sat on the mat today"], ["dogs ran"]
    assert measures.generation_numbers(bleu, items, same)["bleu"] == pytest.approx(100)
    assert measures.generation_numbers(bleu, items, other)["bleu"] < 10
    assert measures.generation_numbers(rouge, items, same)["rougeL_f1"] == 1
    assert measures.generation_numbers(rouge, items, other)["rouge1_f1"] == 0


def test_a_pair_is_tokenised_as_one_text():
    tokenizer = ByteTokenizer()
    request = encode_pair(tokenizer, "ab ", "c")
    assert request == ((97, 98), (32, 99))
    assert encode_pair(tokenizer, "", "c").context == (tokenizer.end_of_text,)


@pytest.mark.parametrize("name", generated.ARITHMETIC)
def test_arithmetic_is_the_papers(shared_data, name):
    """Their answers are what we work out; ours have their form and ranges."""
    path = records.find(shared_data, (f"{name}.jsonl.gz",))
    theirs, ours = list(records.read(path)), generated.arithmetic(name, seed=0)
    assert len(theirs) == len(ours) == 2000
    for record in [*theirs, *ours]:
        assert record["completion"] == f" {generated.solve(record['context'])}"
    assert ours == generated.arithmetic(name, seed=0) != generated.arithmetic(name, seed=1)
    answers = [np.sort([int(r["completion"]) for r in items]) for items in (theirs, ours)]
    spread = np.ptp(answers[0])
    for share in (0.1, 0.5, 0.9):
        a, b = (np.quantile(x, share) for x in answers)
        assert abs(a - b) < 0.06 * spread, (name, share, a, b)


def test_scrambles(shared_data):
    path = records.find(shared_data, ("reversed_words.jsonl.gz",))
    for record in list(records.read(path))[:500]:
        word = record["completion"].strip()
        assert record["context"] == f"\n{generated.scramble(word, 'reversed')} ="
        assert generated.scramble(word, "cycle") in word + word
        for kind, kept in (("anagram1", 1), ("anagram2", 2)):
            mixed = generated.scramble(word, kind)
            assert sorted(mixed) == sorted(word)
            assert (mixed[:kept], mixed[-kept:]) == (word[:kept], word[-kept:])
        assert generated.scramble(word, "insertion")[::2] == word


@pytest.mark.parametrize("split", ["valid", "test"])
def test_wikitext_is_detokenised_invertibly(shared_data, split):
    text = (shared_data / "text" / f"wikitext2_{split}.txt").read_text()
    found = prepare(text, "wikitext")
    assert found.n_words == {"valid": 217_646, "test": 245_569}[split]
    rules = DETOKENIZERS["wikitext"]
    assert "\n".join(rules.undo(line) for line in found.text.split("\n")) == text
    assert found.n_kept < 0.1 * found.n_lines
    assert len(found.text) < 0.99 * len(text)


def test_detokenised_lines():
    wikitext, ptb = DETOKENIZERS["wikitext"], DETOKENIZERS["ptb"]
    tokens = ' He said , " a well @-@ known ( 1 @,@ 000 ) man \'s dog . " \n'.strip("\n")
    assert wikitext.apply(tokens) == ' He said, "a well-known (1,000) man\'s dog." '
    assert ptb.apply("he did n't say the firm 's plan .") == "he didn't say the firm's plan."
    odd = "a line , that ends like this."  # would come back with another token
    assert ptb.apply(odd) == odd
    with pytest.raises(ValueError, match="--detokenize wiki; allowed: none"):
        prepare("", "wiki")


def test_tasks_of_a_users_file_and_mistakes(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from gpt_jax.evaluate.tasks import Item, Task\n"
        "def read(r):\n    yield Item(r['q'], (' yes', ' no'), r['label'])\n"
        "TASKS = [Task('mine', ('mine.jsonl',), read)]\n"
    )
    own = load_tasks(path)
    assert list(own["mine"].read({"q": "?", "label": 1})) == [Item("?", (" yes", " no"), 1)]
    with pytest.raises(ValueError, match=r"unknown task 'lambda'.*did you mean 'lambada'"):
        select(["lambda"], CATALOG)
    path.write_text("")
    with pytest.raises(ValueError, match="must set TASKS"):
        load_tasks(path)
    with pytest.raises(ValueError, match=r"no task file .*none\.py"):
        load_tasks(tmp_path / "none.py")


def test_bias_tables():
    texts = {"A": ["red sea", "red sky", "a red sun"], "B": ["sea", "sky sea", "blue sky"]}
    assert bias.favoured(texts)["A"][0] == "red"
    mean, error, n = bias.sentiment(["Good day", "bad"], {"good": 50.0, "bad": -20.0})
    assert (mean, n) == (15.0, 2)
    assert error == pytest.approx(35.0)
    with pytest.raises(ValueError, match="--bias race needs --lexicon"):
        bias.check(["race"], None)
    with pytest.raises(ValueError, match="--bias age; allowed"):
        bias.check(["age"], None)


def test_stop_words_are_found_where_a_tokenizer_begins_texts_with_a_space(tmp_path):
    """SentencePiece encodes " the" as two tokens, a space and a word; within a text it is one."""
    sentencepiece = pytest.importorskip("sentencepiece")
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on a mat and The dog saw a cat\n" * 20)
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(tmp_path / "m"), vocab_size=40, model_type="bpe",
        character_coverage=1.0, remove_extra_whitespaces=False, minloglevel=2,
    )  # fmt: skip
    tokenizer = make_tokenizer(str(tmp_path / "m.model"))
    assert len(tokenizer.encode(" the")) == 2
    banned = banned_ids(tokenizer, ("the", "cat"))
    ids = tokenizer.encode("saw the cat").tolist()
    assert set(banned) >= set(ids[-2:])
    assert tokenizer.decode(ids[-2:]).strip() == "the cat"
    assert banned_ids(ByteTokenizer(), ("the",)) == ()
    numbers = measures.cloze_numbers([Item("", (" a",))], [Score(-1.0, True, True, 1)])
    assert "accuracy_no_stop_words" not in numbers


def test_a_metric_of_the_users_own_is_counted():
    def overlap(text, answers):
        return {"overlap": len(set(text) & set(answers[0])) / 4, "length": len(text)}

    def broken(text, answers):
        return text.score

    def read(record):
        yield Item("q", answers=("abcd",))

    items = [Item("q", answers=("abcd",)), Item("r", answers=("wxyz",))]
    own = Task("mine", ("mine.jsonl",), read, kind="generate", metric=overlap)
    found = measures.generation_numbers(own, items, ["abx", "w"])
    assert found["overlap"] == pytest.approx((2 / 4 + 1 / 4) / 2)
    assert found["length"] == pytest.approx(2)
    assert found["overlap_standard_error"] == pytest.approx(0.25 / 2)
    assert found["own_measures"] == ["overlap", "length"]
    partly = dataclasses.replace(own, metric=functools.partial(lambda k, text, answers: k, 3))
    assert measures.own_numbers(partly, items, ["abx", "w"])["partial"] == 3
    with pytest.raises(ValueError, match=r"task mine: its metric failed on 'abx'.*AttributeError"):
        measures.generation_numbers(dataclasses.replace(own, metric=broken), items, ["abx", "w"])
    with pytest.raises(ValueError, match=r"task mine: its metric gave <lambda> = 'abx' for 'q'"):
        measures.own_numbers(dataclasses.replace(own, metric=lambda t, a: t), items, ["abx", "w"])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"metric": "f2"}, "metric = 'f2'; allowed: exact_match, squad"),
        ({"metric": print}, "scores written texts; kind = choice writes none"),
        ({"metric": "bleu"}, "scores written texts; kind = choice writes none"),
        ({"kind": "guess"}, "kind = 'guess'; allowed: choice, cloze, generate"),
        ({"measure": "acc"}, "measure = 'acc'; allowed: raw, per_character"),
    ],
)
def test_a_task_that_would_be_scored_otherwise_than_it_says_is_refused(fields, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        Task("mine", ("mine.jsonl",), lambda record: [], **fields)
