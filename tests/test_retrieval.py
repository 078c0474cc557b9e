"""Passages hold all of a text in order; the best that fit stand before the question."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_runs import make_run

from gpt_jax import cli
from gpt_jax.inference.retrieval import Index, Passage, cut, read_passages, with_passages

pytest.importorskip("bm25s")
PARAGRAPHS = st.lists(st.lists(st.sampled_from(["ab", "c", "def"]), max_size=9), max_size=6)


@given(PARAGRAPHS, st.integers(1, 6))
def test_passages_are_the_text_in_order_and_short(paragraphs, n_words):
    text = "\n \n".join(" ".join(words) for words in paragraphs)
    passages = cut(text, n_words)
    assert " ".join(passages).split() == text.split()
    sizes = [len(passage.split()) for passage in passages]
    assert all(1 <= size <= n_words for size in sizes)
    fitting = [words for words in paragraphs if 0 < len(words) <= n_words]
    for words in fitting:  # is whole
        assert any(" ".join(words) in passage for passage in passages)
    if all(len(words) <= n_words for words in paragraphs):
        # None could have been joined to the one before it.
        firsts = [len(passage.split("\n\n")[0].split()) for passage in passages]
        assert all(a + b > n_words for a, b in zip(sizes, firsts[1:], strict=False))


TEXTS = {
    "a.txt": "The heron stands in the river.\n\n" + "Other words entirely, at length. " * 20,
    "b/c.md": "A river has two banks.",
    "b/d.txt": "The heron, a bird of the river, waits for fish; the heron is grey.",
    "e.log": "heron heron heron",
}


def write(folder):
    for name, text in TEXTS.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_the_nearest_come_first_and_strangers_not_at_all(tmp_path):
    passages = read_passages(write(tmp_path))
    assert sorted({p.file for p in passages}) == ["a.txt", "b/c.md", "b/d.txt"]
    index = Index(passages)
    best = index.best("Where does a heron wait?", 5)
    assert [p.file for p in best] == ["b/d.txt", "a.txt"]
    assert best[0].score > best[1].score > 0
    assert index.best("Where does a heron wait?", 1) == best[:1]
    assert index.best("zebra", 3) == []
    assert index.best("the of and", 3) == [], "stop words alone"
    assert Index([]).best("heron", 1) == Index([Passage("1", "the of")]).best("of", 1) == []
    twins = [Passage("1", "same words here"), Passage("2", "same words here")]
    assert [p.file for p in Index(twins).best("words", 2)] == ["1", "2"]


def test_as_many_as_fit_and_the_best_next_to_the_question():
    passages = [Passage("1", "x" * 10), Passage("2", "y" * 30), Passage("3", "z" * 5)]
    for budget, files in ((18, ["1"]), (24, ["1"]), (25, ["1", "3"]), (57, ["1", "2", "3"])):
        prompt, used = with_passages(passages, "q" * 6, len, budget)
        assert [p.file for p in used] == files
        assert len(prompt) <= budget
    assert prompt == "z" * 5 + "\n\n" + "y" * 30 + "\n\n" + "x" * 10 + "\n\n" + "q" * 6
    assert with_passages(passages, "q" * 6, len, 12) == ("q" * 6, [])


def test_generate_reads_a_folder(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cli, "prepare_process", lambda: None)
    run = str(make_run(tmp_path / "run", {"seq_len": 96, "vocab_size": 257}).path)
    folder, words = str(write(tmp_path / "texts")), tmp_path / "words"
    words.write_text("banks\n")
    ask = ["generate", run, "--max-new-tokens", "8", "--no-stream", "--retrieve", folder]
    assert cli.main([*ask, "--prompt", "two banks", "--passages", "1"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("A river has two banks.\n\ntwo banks")
    assert "retrieved: b/c.md (BM25 " in err
    assert cli.main([*ask, "--prompt", "two", "--stop-list", str(words)]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("two")
    assert "no passage: none shares a word" in err
    (tmp_path / "empty").mkdir()
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "x.txt").write_bytes(b"\xff\xfe\xfa")
    for options, said in (
        (["--retrieve", "nowhere", "--prompt", "a"], "nowhere: no such folder"),
        (["--retrieve", str(tmp_path / "empty"), "--prompt", "a"], "no text in it"),
        (["--retrieve", str(tmp_path / "odd"), "--prompt", "a"], "x.txt is not a text in UTF-8"),
        (["--retrieve", folder], "give --prompt TEXT"),
        (["--prompt", "a", "--passages", "0"], "--passages 0; allowed"),
    ):
        assert cli.main(["generate", run, *options]) == 2
        assert said in capsys.readouterr().err
