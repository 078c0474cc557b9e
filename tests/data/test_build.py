import hashlib
import itertools
import json
import os
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
    prepare,
    prepare_mixture,
)
from gpt_jax.data import progress as progress_module
from gpt_jax.data.build import build
from gpt_jax.data.sources import Document
from gpt_jax.data.splits import is_held_out, pieces, sample_blocks


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


@pytest.mark.parametrize(("fraction", "split"), [(0.5, "validation"), (1.0, "train")])
def test_empty_split_is_an_error(make_corpus, fraction, split):
    text = next(
        t
        for t in map(str, range(99))
        if not is_held_out(Document("0000.txt", t), fraction) or fraction == 1
    )
    with pytest.raises(ValueError, match=rf"no text fell into the {split} split: 1 documents"):
        make_corpus([text], validation_fraction=fraction)


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
from gpt_jax.config import DataConfig
write, left = b._write, [int(sys.argv[3])]
def writing(path, content):
    left[0] -= 1
    if left[0] == 0:  # in the middle of a file
        path.with_name("." + path.name + ".1.tmp").write_bytes(content[: len(content) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    write(path, content)
b._write = writing
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
    assert error.startswith("tokenizing: ")
    assert error.endswith("(100%)\n")
    assert "\x1b" not in error
