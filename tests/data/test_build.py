import hashlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_jax.config import DataConfig, MixtureComponent
from gpt_jax.data import (
    Corpus,
    default_cache,
    evaluation_batches,
    parts,
    prepare,
    prepare_mixture,
    splits,
    verified,
)
from gpt_jax.data import progress as progress_module
from gpt_jax.data.build import build
from gpt_jax.data.documents import Document
from gpt_jax.data.shards import distinct_names
from gpt_jax.data.splits import is_held_out, pieces, sample_blocks
from gpt_jax.data.tokenizers.making import make_tokenizer


def contents(directory: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in directory.iterdir()}


@pytest.fixture
def text_config(tmp_path, random_texts) -> DataConfig:
    (tmp_path / "text").mkdir()
    for i, text in enumerate(random_texts(80)):
        (tmp_path / "text" / f"{i:03d}.txt").write_text(text, newline="")
    return DataConfig(
        source="text",
        path=str(tmp_path / "text"),
        tokenizer="bpe:300",
        validation_fraction=0.2,
        cache=str(tmp_path / "cache"),
    )


# What is built


@pytest.mark.smoke
def test_tokens_decode_to_the_documents(make_corpus, random_texts):
    texts = random_texts(50)
    for tokenizer in ("byte", "bpe:280"):
        corpus = make_corpus(texts, name=tokenizer.replace(":", ""), tokenizer=tokenizer)
        found = {}
        for name in ("train", "validation"):
            shards = corpus.split(name)
            assert len(shards.records) > 1, "several shards"
            bounds = [*shards.document_starts.tolist(), shards.n_tokens]
            for begin, end in itertools.pairwise(bounds):
                ids = shards.read(begin, end - begin)
                assert ids[-1] == corpus.tokenizer.end_of_text
                found[corpus.tokenizer.decode(ids[:-1])] = name
            kept = [t for t in texts if found.get(t) == name]
            assert shards.n_documents == len(kept)
            assert shards.n_bytes == sum(len(t.encode()) for t in kept)
        assert set(found) == set(texts)


def test_read_across_shards(make_corpus, random_texts):
    shards = make_corpus(random_texts(50)).split("train")
    whole = shards.read(0, shards.n_tokens)
    assert whole.tobytes() == b"".join(
        (shards.directory / r.files()[0]).read_bytes() for r in shards.records
    )
    border = shards.records[0].n_tokens
    for start, length in ((border - 3, 6), (border, 2), (0, 0), (5, shards.n_tokens - 5)):
        assert np.array_equal(shards.read(start, length), whole[start : start + length])
    for start, length in ((-1, 2), (shards.n_tokens, 1), (0, shards.n_tokens + 1)):
        with pytest.raises(ValueError, match="are outside corpus/train"):
            shards.read(start, length)


def test_nanogpt_token_counts(shared_data, tmp_path):
    """nanoGPT's data/shakespeare and data/shakespeare_char print these numbers."""
    config = {
        "source": "text",
        "path": str(shared_data / "text" / "tinyshakespeare.txt"),
        "tokenizer_path": str(shared_data / "tokenizers" / "gpt2"),
        "validation": "tail",
        "validation_fraction": 0.1,
    }
    gpt2 = build(DataConfig(tokenizer="gpt2", **config), tmp_path / "gpt2", progress=False)
    assert gpt2.split("train").n_tokens == 301_966
    assert gpt2.split("validation").n_tokens == 36_059
    char = build(DataConfig(tokenizer="char", **config), tmp_path / "char", progress=False)
    assert char.split("train").n_tokens == 1_003_854
    assert char.split("validation").n_tokens == 111_540
    assert char.tokenizer.vocab_size == 65
    assert char.tokenizer.end_of_text is None
    blocks = evaluation_batches(char.split("validation"), 64, 100)
    assert sum(int(b.weights_BT.sum()) for b in blocks) == 1742 * 64


def test_dtype_follows_the_vocabulary(make_corpus):
    wide = "".join(chr(c) for c in range(0x4E00, 0x4E00 + 20_000))
    wider = wide + "".join(chr(c) for c in range(0x20000, 0x20000 + 42_000)) + wide[:99]
    options = {"tokenizer": "char", "validation": "tail", "validation_fraction": 0.01}
    small = make_corpus([wide], name="small", **options)
    assert small.manifest["dtype"] == "<u2"
    rest = "".join(chr(c) for c in range(0xAC00, 0xAC00 + 11_000))
    large = make_corpus([wider + rest], name="large", **options)
    assert large.manifest["dtype"] == "<u4"
    train = large.split("train")
    ids = train.read(0, train.n_tokens)
    assert ids.max() > 2**16
    assert large.tokenizer.decode(ids) == (wider + rest)[: len(ids)]


# Splits


@settings(deadline=None)
@given(
    texts=st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=8),
    fraction=st.floats(0, 1),
)
def test_tail_cuts_the_joined_text(texts, fraction):
    documents = [Document(str(i), t) for i, t in enumerate(texts)]
    config = DataConfig(validation="tail", validation_fraction=fraction)
    joined = "".join(texts)
    found = list(pieces(documents, config, len(joined)))
    cut = int(len(joined) * (1 - fraction))
    assert "".join(p.text for p in found if p.split == "train") == joined[:cut]
    assert "".join(p.text for p in found if p.split == "validation") == joined[cut:]
    assert all(p.text for p in found)
    assert sum(p.ends for p in found) == len(texts) - 1, "end of text only between documents"


def test_held_out_share_depends_on_name_and_content():
    documents = [Document(f"n{i}", f"text {i}") for i in range(4000)]
    held = [d for d in documents if is_held_out(d, 0.1)]
    assert 310 < len(held) < 490
    assert all(is_held_out(d, 0.2) for d in held), "a larger fraction holds out more, not others"
    for other in (lambda d: d._replace(name="x" + d.name), lambda d: d._replace(text=d.text + "x")):
        assert 0 < sum(is_held_out(other(d), 0.1) for d in held) < 100
    assert not any(is_held_out(d, 0.0) for d in documents)
    assert all(is_held_out(d, 1.0) for d in documents)


def splits_of(corpus: Corpus) -> dict[str, list[str]]:
    """The documents of a corpus of bytes, by split."""
    found = {}
    for shards in corpus.splits:
        ids = shards.read(0, shards.n_tokens)
        bounds = [*shards.document_starts.tolist(), shards.n_tokens]
        found[shards.split] = [
            bytes(t for t in ids[b:e].tolist() if t < 256).decode()
            for b, e in itertools.pairwise(bounds)
        ]
    return found


def test_copies_of_a_document_are_on_one_side(make_corpus, monkeypatch):
    texts = [f"text {i}" for i in range(150)]
    monkeypatch.setattr(splits, "RECENT", 16)
    once = splits_of(make_corpus(texts, name="once"))
    found = splits_of(make_corpus(texts * 3, name="thrice"))
    assert not set(found["train"]) & set(found["validation"])
    assert sorted(found["train"] + found["validation"]) == sorted(texts * 3)
    assert 10 < len(once["validation"]) < 60
    assert set(found["validation"]) == set(once["validation"]), "the first one decides"
    assert [t for t in texts if is_held_out(Document(f"{texts.index(t):04d}.txt", t), 0.2)] == (
        once["validation"]
    ), "as versions did that knew of no copies"


def test_documents_of_validation_files_are_not_trained_on(tmp_path, capsys):
    for name, texts in {"train": "abc", "validation": "cd", "test": "e"}.items():
        content = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (tmp_path / f"{name}-0.jsonl").write_text(content)
    config = DataConfig(source="jsonl", path=str(tmp_path), tokenizer="byte")
    corpus = build(config, tmp_path / "out")
    assert splits_of(corpus) == {"train": ["a", "b"], "validation": ["c", "d"]}
    assert "the validation files have them too: 1 document" in capsys.readouterr().err
    assert corpus.manifest["notes"][0].endswith("(data.named_splits = false trains on all)")


@pytest.mark.parametrize("n_files", [1, 3, 5])
def test_few_documents_hold_out_the_tail(make_corpus, n_files):
    texts = [f"{i} " * 200 for i in range(n_files)]
    found = splits_of(make_corpus(texts, validation_fraction=0.01))
    joined = "".join(found["train"] + found["validation"])
    assert joined == "".join(texts)
    assert len("".join(found["validation"])) == pytest.approx(len(joined) / 100, abs=2)
    assert (
        make_corpus(texts, validation_fraction=0.01, name="again")
        .manifest["notes"][0]
        .endswith("of the text is held out instead (data.validation = tail)")
    )


def test_a_corpus_of_an_earlier_version_is_used_as_it_is(text_config, tmp_path, capsys):
    """Their identity knew of no copies, their manifest had no seal."""
    corpus = prepare(text_config, progress=False)
    manifest = json.loads((corpus.directory / "manifest.json").read_text())
    del manifest["seal"], manifest["identity"]["copies"]
    digest = hashlib.sha256(json.dumps(manifest["identity"]).encode()).hexdigest()[:12]
    earlier = corpus.directory.with_name(corpus.directory.name[:-12] + digest)
    corpus.directory.rename(earlier)
    (earlier / "manifest.json").write_text(json.dumps(manifest))
    capsys.readouterr()
    found = prepare(text_config)
    assert found.directory == earlier
    assert found.fingerprint == corpus.fingerprint
    assert "was made by an earlier version and is used as it is" in capsys.readouterr().err
    assert build(text_config, earlier, progress=False).fingerprint == corpus.fingerprint


def test_long_documents_are_cut_without_a_trace(tmp_path, monkeypatch, random_texts):
    text = "\n\n  ".join(random_texts(60)) + "\x1c x\x85\u3000y \n"
    (tmp_path / "t.txt").write_text(text, newline="")
    monkeypatch.setattr(parts, "CHUNK_BYTES", 50)
    for tokenizer in ("byte", "char", "bpe:300"):
        config = DataConfig(
            source="text",
            path=str(tmp_path / "t.txt"),
            tokenizer=tokenizer,
            validation_fraction=0.0,
        )
        corpus = build(config, tmp_path / tokenizer, progress=False)
        train = corpus.split("train")
        ids = train.read(0, train.n_tokens).tolist()
        whole = corpus.tokenizer.encode(text).tolist()
        assert ids[: len(whole)] == whole
        assert train.n_documents == 1
        assert train.n_bytes == len(text.encode())


@settings(deadline=None, max_examples=300)
@given(text=st.text("ab1.' \n\t\x1c\x85\u3000é漢", min_size=1, max_size=30), data=st.data())
def test_words_are_not_cut(bpe, text, data):
    place = bpe.cut(text, data.draw(st.integers(1, len(text))))
    halves = [*bpe.encode(text[:place]).tolist(), *bpe.encode(text[place:]).tolist()]
    assert halves == bpe.encode(text).tolist()


@pytest.fixture(scope="module")
def bpe():
    texts = ["ab ab  \n\n\n ba b a 11 .. a'b \t\t" * 20]
    return make_tokenizer("bpe:262", texts=lambda: iter(texts))


def test_sample_blocks():
    texts = ["a" * 40_000, "b" * 100, "c" * 300_000]
    assert "".join(sample_blocks(texts, 340_100, 10**9)) == "".join(texts)
    some = "".join(sample_blocks(texts, 340_100, 100_000))
    assert 60_000 < len(some) < 140_000
    assert {"a", "c"} <= set(some)


def test_bpe_never_sees_the_validation_text(tmp_path):
    config = DataConfig(
        source="text",
        path=str(tmp_path / "t.txt"),
        tokenizer="bpe:258",
        validation="tail",
        validation_fraction=0.9,
    )
    Path(config.path).write_text("ab " * 300 + "xy" * 4000)
    tokens = build(config, tmp_path / "out", progress=False).tokenizer.tokens
    assert "ab" in tokens[256:]


def test_empty_documents_are_counted(tmp_path, capsys):
    records = [{"text": f"words {i}"} for i in range(30)] + [{"text": ""}] * 3
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    path = str(tmp_path / "t.jsonl")
    config = DataConfig(source="jsonl", path=path, tokenizer="byte", validation_fraction=0.2)
    build(config, tmp_path / "out")
    assert "left out as empty: 3 documents" in capsys.readouterr().err


def test_characters_that_were_not_valid_are_counted(tmp_path, capsys):
    texts = [f"words {i}" for i in range(30)] + ["a \ud800 b", "\udc00"]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    path = str(tmp_path / "t.jsonl")
    config = DataConfig(source="jsonl", path=path, tokenizer="byte", validation_fraction=0.2)
    build(config, tmp_path / "out")
    assert "become it) in 2 documents" in capsys.readouterr().err


def test_empty_split_is_an_error(make_corpus):
    with pytest.raises(ValueError, match="no text fell into the train split: 1 documents"):
        make_corpus(["text"], validation_fraction=1.0)
    with pytest.raises(ValueError, match=r"no text fell into the train split: .*use more text"):
        make_corpus(["a"], name="short", validation_fraction=0.5)


def test_no_validation_where_none_is_asked(make_corpus):
    corpus = make_corpus(["abc"], validation_fraction=0.0)
    assert corpus.split("train").n_documents == 1
    with pytest.raises(ValueError, match="has no validation tokens"):
        corpus.split("validation")


# Interruption, concurrency, damage


def test_workers_do_not_change_the_bytes(text_config, tmp_path):
    for workers in (1, 3):
        build(text_config, tmp_path / str(workers), workers=workers, progress=False)
    assert contents(tmp_path / "1") == contents(tmp_path / "3")


KILLED = """
import os, signal, sys
import gpt_jax.data.build as b
import gpt_jax.data.output as output
from gpt_jax.config import DataConfig
write, left = b.write, [int(sys.argv[3])]
def writing(path, content):
    left[0] -= 1
    if left[0] == 0:  # in the middle of a file
        whole = b"".join(bytes(data) for data in content)
        path.with_name("." + path.name + ".1.tmp").write_bytes(whole[: len(whole) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    write(path, content)
b.write = output.write = writing
b.build(DataConfig(**eval(sys.argv[1])), sys.argv[2], progress=False, part_bytes=4000)
"""


def test_killed_build_resumes_to_the_same_bytes(text_config, tmp_path):
    options = dict.fromkeys(("source", "path", "tokenizer", "validation_fraction"))
    given = repr({k: getattr(text_config, k) for k in options})
    build(text_config, tmp_path / "whole", progress=False, part_bytes=4000)
    for writes in (2, 8, 14):
        command = [sys.executable, "-c", KILLED, given, str(tmp_path / "killed"), str(writes)]
        assert subprocess.run(command).returncode == -signal.SIGKILL
        with pytest.raises(ValueError, match="no finished corpus"):
            Corpus(tmp_path / "killed")
    shard = tmp_path / "killed" / "train-00000.bin"
    kept = shard.stat().st_mtime_ns
    resumed = build(text_config, tmp_path / "killed", progress=False, part_bytes=4000)
    assert shard.stat().st_mtime_ns == kept, "what was finished is not made again"
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert resumed.fingerprint == Corpus(tmp_path / "whole", verify=True).fingerprint


def test_killed_by_another_process_at_any_moment(text_config, tmp_path):
    given = repr({k: getattr(text_config, k) for k in ("source", "path", "tokenizer")})
    command = [sys.executable, "-c", KILLED, given, str(tmp_path / "killed"), "-1"]
    process = subprocess.Popen(command)
    while not list((tmp_path / "killed").glob("part-00001.json")):
        assert process.poll() is None, "it finished before it could be killed"
        time.sleep(0.001)
    process.kill()
    process.wait()
    config = DataConfig(**eval(given))
    build(config, tmp_path / "killed", progress=False, part_bytes=4000)
    build(config, tmp_path / "whole", progress=False, part_bytes=4000)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_unfinished_build_of_other_text_is_dropped(text_config, tmp_path):
    given = repr({k: getattr(text_config, k) for k in ("source", "path", "tokenizer")})
    command = [sys.executable, "-c", KILLED, given, str(tmp_path / "out"), "8"]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    (Path(text_config.path) / "000.txt").write_text("changed")
    config = DataConfig(**eval(given))
    build(config, tmp_path / "out", progress=False, part_bytes=4000)
    build(config, tmp_path / "whole", progress=False, part_bytes=4000)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_builders_of_one_corpus_at_the_same_time(text_config, tmp_path):
    build(text_config, tmp_path / "alone", progress=False, part_bytes=4000)
    results, errors = [], []

    def run():
        try:
            results.append(
                build(text_config, tmp_path / "shared", progress=False, part_bytes=4000).fingerprint
            )
        except (ValueError, OSError) as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(set(results)) == 1
    assert contents(tmp_path / "shared") == contents(tmp_path / "alone")


@pytest.mark.parametrize("file", ["train-00001.bin", "validation-00000.documents.bin"])
def test_damaged_shard_is_named(make_corpus, random_texts, file):
    directory = make_corpus(random_texts(50)).directory
    whole = (directory / file).read_bytes()
    (directory / file).write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    Corpus(directory)
    with pytest.raises(ValueError, match=rf"shard .*{file} has changed: its sha256"):
        Corpus(directory, verify=True)
    (directory / file).write_bytes(whole[:-8])
    with pytest.raises(ValueError, match=rf"shard .*{file} has [\d,]+ bytes; the manifest says"):
        Corpus(directory)
    (directory / file).unlink()
    with pytest.raises(ValueError, match=rf"shard .*{file} is missing"):
        Corpus(directory)


def test_shards_are_verified_once(make_corpus, random_texts, monkeypatch):
    directory = make_corpus(random_texts(50)).directory
    config = DataConfig(source="shards", path=str(directory))
    read: list[str] = []
    check = verified.check_hash
    monkeypatch.setattr(
        verified, "check_hash", lambda path, sha256: (read.append(path.name), check(path, sha256))
    )
    prepare(config)
    assert not read, "written here"
    copy = directory.with_name("copy")
    shutil.copytree(directory, copy)
    for _ in range(2):
        prepare(DataConfig(source="shards", path=str(copy)))
        assert len(read) == len(list(copy.glob("*.bin")))
    shard = copy / "train-00001.bin"
    status, content = shard.stat(), bytearray(shard.read_bytes())
    content[5] ^= 1
    shard.write_bytes(content)
    os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns))
    mixture = (MixtureComponent(path=str(copy)),)
    for config in (
        DataConfig(source="shards", path=str(copy)),
        DataConfig(source="mixture", mixture=mixture),
    ):
        with pytest.raises(ValueError, match=r"shard .*copy/train-00001.bin has changed: its sha2"):
            prepare_mixture(config)


def test_edited_manifest_is_refused(make_corpus):
    path = make_corpus(["abc"], validation_fraction=0.0).directory / "manifest.json"
    whole = path.read_text()
    for old, new in (('"n_tokens": 4', '"n_tokens": 3'), ("validation_fraction", "validation_of")):
        path.write_text(whole.replace(old, new))
        with pytest.raises(ValueError, match="was changed after the corpus was built: its seal"):
            Corpus(path.parent)
    manifest = json.loads(whole)
    digest = manifest["splits"]["train"]["shards"][0]["sha256"]
    del manifest["seal"]
    path.write_text(json.dumps(manifest).replace(digest, "0" * 64))
    with pytest.raises(ValueError, match="has changed: its sha256"):
        prepare(DataConfig(source="shards", path=str(path.parent)))


def test_corpora_of_one_name_are_told_apart(make_corpus, tmp_path):
    names = [Path("x/en/shards"), Path("x/de/shards"), Path("y/other"), Path("x/en/shards/")]
    assert distinct_names(names) == ["en/shards", "de/shards", "other", "en/shards"]
    assert distinct_names([Path("a/a"), Path("a")]) == ["a/a", f"{Path.cwd().name}/a"]
    for language in ("en", "de"):
        (tmp_path / language).mkdir()
        built = make_corpus(["abc"], name=language + "-1", validation_fraction=0.0).directory
        built.rename(tmp_path / language / "shards")
    parts = tuple(MixtureComponent(path=str(tmp_path / n / "shards")) for n in ("en", "de"))
    found = prepare_mixture(DataConfig(source="mixture", mixture=parts))
    assert [c.name for c, _ in found] == ["en/shards", "de/shards"]
    assert found[1][0].split("train").name == "de/shards/train"


def test_changed_manifest_or_tokenizer(make_corpus):
    corpus = make_corpus(["abc"], validation_fraction=0.0)
    (corpus.directory / "tokenizer_spec.json").write_text('{"kind": "char", "characters": "ab"}')
    with pytest.raises(ValueError, match=r"the tokenizer in .* has changed"):
        _ = Corpus(corpus.directory).tokenizer
    path = corpus.directory / "manifest.json"
    path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 99'))
    with pytest.raises(ValueError, match="has format version 99, this program reads 1"):
        Corpus(corpus.directory)
    path.write_text("{")
    with pytest.raises(ValueError, match="is not valid JSON"):
        Corpus(corpus.directory)


def test_directory_of_something_else_is_left_alone(text_config, tmp_path, make_corpus):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match="is not empty and holds no corpus"):
        build(text_config, tmp_path / "mine", progress=False)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"
    other = make_corpus(["abc"], validation_fraction=0.0).directory
    with pytest.raises(ValueError, match="holds a corpus of other text or settings"):
        build(text_config, other, progress=False)


def test_unwritable_place_is_one_line(text_config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot write .*data.cache") as caught:
        build(text_config, tmp_path / "file" / "below", progress=False)
    assert "\n" not in str(caught.value)


# The cache


def test_prepare_builds_once_and_again_when_the_text_changes(text_config, tmp_path):
    first = prepare(text_config, progress=False)
    stamps = {p.name: p.stat().st_mtime_ns for p in first.directory.iterdir()}
    again = prepare(text_config, progress=False)
    assert again.directory == first.directory
    assert {p.name: p.stat().st_mtime_ns for p in again.directory.iterdir()} == stamps
    assert first.directory.parent == tmp_path / "cache"
    (Path(text_config.path) / "000.txt").write_text("changed")
    changed = prepare(text_config, progress=False)
    assert changed.directory != first.directory
    assert changed.fingerprint != first.fingerprint


def test_default_cache_follows_xdg(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "gpt_jax" / "data"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache() == tmp_path / ".cache" / "gpt_jax" / "data"


def test_manifest_says_what_made_it(text_config):
    corpus = prepare(text_config, progress=False)
    manifest = json.loads((corpus.directory / "manifest.json").read_text())
    assert manifest["config"]["tokenizer"] == "bpe:300"
    assert "cache" not in manifest["config"]
    assert manifest["tokenizer"]["vocab_size"] == 300
    assert manifest["source"]["description"] == "text of 80 files"
    for split in manifest["splits"].values():
        for count in ("n_documents", "n_tokens", "n_bytes"):
            assert split[count] == sum(s[count] for s in split["shards"]) > 0
        for shard in split["shards"]:
            content = (corpus.directory / f"{shard['name']}.bin").read_bytes()
            assert shard["sha256"] == hashlib.sha256(content).hexdigest()


def test_shards_and_mixture(make_corpus):
    texts = ["abc", "defg"]
    a = make_corpus(texts, name="a", validation_fraction=0.0)
    b = make_corpus(["hello"], name="b", validation_fraction=0.0)
    shards = prepare(DataConfig(source="shards", path=str(a.directory)))
    assert shards.fingerprint == a.fingerprint
    parts = (
        MixtureComponent(path=str(a.directory), weight=3),
        MixtureComponent(path=str(b.directory)),
    )
    found = prepare_mixture(DataConfig(source="mixture", mixture=parts))
    assert [(c.fingerprint, w) for c, w in found] == [(a.fingerprint, 3.0), (b.fingerprint, 1.0)]
    with pytest.raises(ValueError, match="already made of tokens"):
        prepare(DataConfig(source="mixture", mixture=parts))
    other = make_corpus(["abc"], name="c", tokenizer="char", validation_fraction=0.0)
    parts = (*parts, MixtureComponent(path=str(other.directory)))
    with pytest.raises(ValueError, match=r"another tokenizer than .* \(char, byte\)"):
        prepare_mixture(DataConfig(source="mixture", mixture=parts))
    with pytest.raises(ValueError, match="holds no finished corpus"):
        prepare(DataConfig(source="shards", path=os.devnull))


def test_progress_lines_where_there_is_no_terminal(text_config, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress_module, "SECONDS_BETWEEN_LINES", 0.0)
    build(text_config, tmp_path / "out")
    error = capsys.readouterr().err
    learning, error = error.split("\n", 1)
    assert learning.startswith("learning a vocabulary")
    assert error.startswith("tokenizing: ")
    assert error.endswith("(100%)\n")
    assert "\x1b" not in error
