"""Cleaning: rules at their edges, copies, what is written, and what a kill leaves."""

import gzip
import json
import random
import re

import pytest

from gpt_jax import cli
from gpt_jax.config import DataConfig
from gpt_jax.data.cleaning import clean as cleaning
from gpt_jax.data.cleaning.clean import clean
from gpt_jax.data.cleaning.duplicates import Seen, shingles, signature
from gpt_jax.data.cleaning.judge import Steps, judge
from gpt_jax.data.cleaning.rules import RULES, c4, gopher, gopher_repetition
from gpt_jax.data.documents import Document, Source
from gpt_jax.data.sources import documents, open_source


def words(n, *first):
    """So many different words of five letters, after the given ones."""
    rng = random.Random(0)
    made = [*first]
    while len(made) < n:
        word = "".join(rng.choices("abcdefghij", k=5))
        made += [word] if word not in made else []
    return made


@pytest.mark.parametrize(
    ("kept", "removed", "reason"),
    [
        (words(50, "the", "of"), words(49, "the", "of"), "fewer than 50 words"),
        (words(50, "the", "of"), words(50, "the"), "fewer than 2 stop words"),
        (words(60, "the", "of", *["#"] * 6), words(60, "the", "of", *["#"] * 7), "0.1 hashes"),
        (words(60, "the", "of", *["…"] * 6), words(60, "the", "of", *["…"] * 7), "0.1 ellipses"),
        (
            words(50, "the", "of", *["1" * 5] * 10),
            words(50, "the", "of", *["1" * 5] * 11),
            "letter",
        ),
        (
            ["the", "of", "abcd", *["abc"] * 47],
            ["the", "of", *["abc"] * 48],
            "mean word length outside 3 to 10",
        ),
    ],
)
def test_gophers_criteria_at_their_edges(kept, removed, reason):
    """Rae et al. 2021, A.1.1."""
    assert gopher(" ".join(kept)).reason == ""
    assert reason in gopher(" ".join(removed)).reason


@pytest.mark.parametrize(
    ("mark", "n", "reason"),
    [("- {}", 9, "begin with a bullet"), ("{} ...", 3, "end with an ellipsis")],
)
def test_gophers_lines(mark, n, reason):
    """90% of lines with a bullet are allowed, 30% that end with an ellipsis."""
    lines = [" ".join(words(200, "the", "of")[i * 10 : i * 10 + 10]) for i in range(10)]
    for marked, said in ((n, ""), (n + 1, reason)):
        text = "\n".join(mark.format(x) if i < marked else x for i, x in enumerate(lines))
        assert said in gopher(text).reason
        assert bool(gopher(text).reason) == bool(said)


def test_repeated_lines_and_paragraphs():
    """Of ten lines three may have occurred before (30%), if short: 20% of characters."""
    lines = [" ".join(words(90)[i * 10 : i * 10 + 10]) for i in range(9)]
    allowed = [*lines[:7], "a", "a", "a", "a"]
    assert gopher_repetition("\n".join(allowed)).reason == ""
    assert "30% of lines" in gopher_repetition("\n".join([*allowed, "a", "a"])).reason
    longer = [*lines[:8], *lines[:3]]
    assert "20% of characters of lines" in gopher_repetition("\n".join(longer)).reason
    paragraphs = ["a b", "a b", "\n".join(lines[:8])]
    assert "30% of paragraphs" in gopher_repetition("\n\n".join(paragraphs)).reason


def test_repeated_n_grams():
    """A pair of words k times among n five-letter words has 2 k / n of the characters."""
    for k, said in ((10, ""), (11, "more than 20% of characters in one 2-gram")):
        rest = words(100 - 2 * k)
        mixed = [x for i in range(k) for x in ("ababa", "babab", rest[i])] + rest[k:]
        assert gopher_repetition(" ".join(mixed)).reason == said
    base = words(100)
    # Ten words again, in a row: 10 of 110 words is less than 10%; 12 of 112 is 10.7%.
    assert gopher_repetition(" ".join(base + base[:10])).reason == ""
    said = gopher_repetition(" ".join(base + base[:12])).reason
    assert said == "more than 10% of characters in repeated 10-grams"


def test_c4s_lines_and_pages():
    """Raffel et al. 2020, section 2.2: what each of its sentences says."""
    sentences = [f"This is sentence {n}." for n in "abcde"]
    kept = c4("\n".join(sentences))
    assert kept == ("\n".join(sentences), "")
    menu = ["Home", "About us", "It needs Javascript to work.", "Read our privacy policy here."]
    short = ["Oh no.", "And so on..."]
    assert c4("\n".join([*menu, *sentences, *short])) == kept
    assert c4("\n".join(sentences)[:-1]).reason.startswith("fewer than 5 sentences")
    assert c4("One two three. Four. Five! Six? It is seven.").reason == ""
    assert c4("\n".join([*sentences, "a = {b} it is."])).reason == "a curly bracket"
    assert c4("\n".join([*sentences, "Lorem ipsum dolor sit."])).reason == "lorem ipsum"
    cited = c4("\n".join(["It is so.[12][citation needed]", *sentences[1:]]))
    assert cited.text.startswith("It is so.\n")


def test_signatures_estimate_the_similarity_of_sets():
    pytest.importorskip("datasketch")
    base = words(300)
    for n_changed in (0, 3, 30):
        other = [x + "z" if i % 100 < n_changed // 3 else x for i, x in enumerate(base)]
        ours, theirs = set(shingles(" ".join(base))), set(shingles(" ".join(other)))
        exact = len(ours & theirs) / len(ours | theirs)
        same = (signature(" ".join(base)) == signature(" ".join(other))).mean()
        assert abs(same - exact) < 0.15, n_changed  # three standard errors are .13
        seen = Seen(0.8)
        seen.add(b"1", signature(" ".join(base)))
        assert bool(seen.copies(b"2", signature(" ".join(other)))) == (exact > 0.8)


def test_the_steps_of_a_document():
    steps = Steps(personal="redact")
    mended = judge(steps, Document("a", "cafe\u0301\x00 a@b.org\r\nx"))
    assert mended[:4] == ("a", "café [email]\nx", "", ("unicode", "personal data"))
    assert judge(Steps(personal="remove"), Document("a", "a@b.org")).reason == "personal data"
    assert judge(steps, Document("a", " \n")).reason == "empty"
    assert judge(Steps(unicode="none"), Document("a", "e\u0301")).text == "e\u0301"
    assert judge(Steps(unicode="nfkc"), Document("a", "ﬁne")).text == "fine"
    assert judge(steps, Document("a", "A  b")).digest == judge(steps, Document("b", "a\nB")).digest


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--rules", "gophre"], "--rules gophre; allowed: gopher, .*did you mean 'gopher'"),
        (["--duplicates", "fuzzy"], "--duplicates fuzzy; allowed: exact, near"),
        (["--near-threshold", "1.5"], "--near-threshold 1.5; allowed: between 0 and 1"),
        (["--workers", "0"], "--workers 0; allowed: 1 or more"),
    ],
)
def test_mistakes_are_one_line(given, said, tmp_path, capsys):
    (tmp_path / "a.txt").write_text("a")
    where = ["--source", "text", "--path", str(tmp_path), "--output", str(tmp_path / "out")]
    assert cli.main(["data", "clean", *where, *given]) == 2
    error = capsys.readouterr().err
    assert re.search(said, error)
    assert error.count("\n") == 1


TEXTS = [f"{' '.join(words(60, 'the', 'of'))} {i}" for i in range(12)]


def source(texts=TEXTS, held_out=()):
    def reader(named, prefix):
        return lambda: (Document(f"{prefix}{i}", text) for i, text in enumerate(named))

    validation = reader(held_out, "v") if held_out else None
    return Source("twelve texts", "1", reader(texts, "d"), validation)


def contents(directory):
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def test_a_killed_cleaning_continues_to_the_same_bytes(tmp_path, monkeypatch):
    texts = [*TEXTS[:6], *TEXTS[:3], "short", *TEXTS[6:]]
    steps = Steps(rules=("gopher",))
    whole = clean(source(texts), steps, tmp_path / "a", workers=0, progress=False, part_bytes=900)
    assert (whole.n_kept, whole.n_documents) == (12, 16)
    assert whole.reasons == {"copy of an earlier document": 3, "gopher: fewer than 50 words": 1}

    class Killed(BaseException):
        pass

    for at in range(40):  # killed before each of its writes in turn
        left = at
        kept = cleaning.write

        def write(path, content, kept=kept):
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            kept(path, content)

        with monkeypatch.context() as patch:
            patch.setattr(cleaning, "write", write)
            patch.setattr(
                cleaning, "write_json", lambda p, x: write(p, [json.dumps(x, indent=1).encode()])
            )
            directory = tmp_path / f"b{at}"
            try:
                clean(source(texts), steps, directory, workers=0, progress=False, part_bytes=900)
                break
            except Killed:
                pass
        again = clean(source(texts), steps, directory, workers=0, progress=False, part_bytes=900)
        assert vars(again) == vars(whole)
        names = {n: x for n, x in contents(tmp_path / "a").items() if n.endswith(".gz")}
        assert {n: x for n, x in contents(directory).items() if n.endswith(".gz")} == names
    assert at > 10


def test_processes_do_not_change_the_result(tmp_path, monkeypatch):
    monkeypatch.setattr(cleaning, "CHUNK_BYTES", 1000)
    steps = Steps(rules=("gopher", "gopher-repetition"))
    for name, workers in (("a", 0), ("b", 2)):
        clean(source(), steps, tmp_path / name, workers=workers, progress=False)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_what_is_held_out_by_name_stays_held_out(tmp_path):
    """Copies of validation documents are removed from training, as a build does."""
    clean(source(TEXTS, TEXTS[:2]), Steps(), tmp_path / "out", workers=0, progress=False)
    kept = open_source(DataConfig(source="jsonl", path=str(tmp_path / "out" / "documents")))
    assert kept.read_validation is not None
    assert [d.text for d in kept.read_validation()] == TEXTS[:2]
    assert [d.text for d in kept.read()] == TEXTS[2:]


def test_another_cleaning_is_not_continued(tmp_path):
    clean(source(), Steps(), tmp_path / "out", workers=0, progress=False)
    with pytest.raises(ValueError, match="holds another cleaning, of twelve texts"):
        clean(source(), Steps(unicode="nfkc"), tmp_path / "out", workers=0, progress=False)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.txt").write_text("x")
    with pytest.raises(ValueError, match="holds other files"):
        clean(source(), Steps(), tmp_path / "own", workers=0, progress=False)


def test_the_command_and_its_report(tmp_path, capsys):
    rows = [{"text": text} for text in [*TEXTS, TEXTS[0], "a <b> short one"]]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    out = tmp_path / "out"
    given = ["--source", "jsonl", "--path", str(tmp_path / "in.jsonl"), "--output", str(out)]
    assert cli.main(["data", "clean", *given, "--rules", "gopher", "--workers", "1"]) == 0
    said = capsys.readouterr().out
    for line in ("removed: copy of an earlier document", "in.jsonl:13", "kept", "next:"):
        assert line in said
    report = json.loads((out / "report.json").read_text())
    assert report["counts"]["n_kept"] == 12
    assert report["counts"]["examples"]["gopher: fewer than 50 words"] == [
        ["in.jsonl:14", "a <b> short one"]
    ]
    with gzip.open(out / "removed" / "part-00000.jsonl.gz", "rt") as stream:
        assert [json.loads(line)["name"] for line in stream] == ["in.jsonl:13", "in.jsonl:14"]
    assert not (out / "index").exists()
    assert cli.main(["data", "clean", *given, "--rules", "gopher", "--workers", "1"]) == 0
    assert capsys.readouterr().out == said


def test_languages(tmp_path):
    pytest.importorskip("py3langid")
    steps = Steps(languages=("en",))
    steps.check()
    assert judge(steps, Document("a", "This is an English sentence, and a long one.")).reason == ""
    german = judge(steps, Document("a", "Dies ist ein deutscher Satz, und ein langer dazu."))
    assert german.reason == "language de"
    with pytest.raises(ValueError, match=r"--languages xx; allowed: .*en"):
        Steps(languages=("xx",)).check()


def test_wrongly_decoded_text_is_mended():
    pytest.importorskip("ftfy")
    mended = judge(Steps(repair=True), Document("a", "donâ€™t"))
    assert (mended.text, mended.changes) == ("don't", ("repair",))


def test_rules_have_a_source():
    assert all(rule.name == name and rule.source for name, rule in RULES.items())


def test_rows_of_a_table_are_documents(tmp_path):
    (tmp_path / "t.csv").write_text('id,body\n1,"a, b\nc"\n2,d\n')
    config = DataConfig(source="csv", path=str(tmp_path / "t.csv"), field="body")
    assert [d.text for d in documents(config)] == ["a, b\nc", "d"]
    with pytest.raises(ValueError, match=r"no field 'text' \(data.field\); it has id, body"):
        list(documents(DataConfig(source="csv", path=str(tmp_path / "t.csv"))))
