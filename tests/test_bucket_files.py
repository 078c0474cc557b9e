"""Tables, texts and results in a bucket: read and written by the verbs as those of a disk."""

import json
import os

import pytest
from bucket_servers import forgotten

from gpt_jax import cli
from gpt_jax.config import DataConfig
from gpt_jax.data import verified
from gpt_jax.data.corpora import prepare
from gpt_jax.storage import copies, places
from gpt_jax.storage.buckets import bucket_of
from gpt_jax.storage.paths import Address

TABLE = "n_params,n_tokens,loss\n" + "\n".join(
    f"{n},{d},{1.7 + 400 * n**-0.34 + 410 * d**-0.28}"
    for n in (10**6, 3 * 10**6, 10**7, 3 * 10**7)
    for d in (10**8, 10**9, 10**10)
)


def put(bucket: str, name: str, content: str) -> str:
    address = Address(bucket) / name
    bucket_of(address).put(address.key, content.encode())
    return str(address)


def test_a_table_is_fitted_and_the_answer_stored(bucket, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(cli, "prepare_process", lambda: None)
    table, answer = put(bucket, "runs.csv", TABLE), Address(bucket) / "out" / "fit.json"
    command = [
        "fit",
        table,
        "--law",
        "chinchilla-parametric",
        "--bootstrap",
        "0",
        "--json",
        str(answer),
    ]
    assert cli.main(command) == 0
    assert "alpha" in capsys.readouterr().out
    assert json.loads(bucket_of(answer).read(answer.key))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs.csv").write_text(TABLE)
    assert cli.main(["fit", "runs.csv", *command[2:-1], "fit.json"]) == 0
    ours, theirs = bucket_of(answer).read(answer.key), (tmp_path / "fit.json").read_text()
    assert ours.decode().replace(table, "runs.csv") == theirs


def test_a_file_that_is_not_there_is_named_by_its_address(bucket, monkeypatch, capsys):
    monkeypatch.setattr(cli, "prepare_process", lambda: None)
    assert cli.main(["fit", f"{bucket}/none.csv", "--law", "chinchilla-parametric"]) == 2
    assert f"no table of runs at {bucket}/none.csv" in capsys.readouterr().err


def test_a_text_is_a_corpus_once(bucket, tmp_path):
    path = put(bucket, "texts/a.txt", "a text of some length. " * 200)
    config = DataConfig(source="text", path=path, tokenizer="byte", cache=str(tmp_path / "cache"))
    first = prepare(config, progress=False)
    with forgotten():  # another process finds it built
        again = prepare(config, progress=False)
    assert again.directory == first.directory
    assert again.split("train").n_tokens > 1000


def test_shards_are_built_into_a_bucket_and_trained_from_there(bucket, monkeypatch, tmp_path):
    monkeypatch.setattr(cli, "prepare_process", lambda: None)
    text = tmp_path / "a.txt"
    text.write_text("a text of some length. " * 400)
    built = ["data", "build", "--source", "text", "--path", str(text), "--tokenizer", "byte"]
    place = f"{bucket}/corpus"
    assert cli.main([*built, "--output", place]) == 0
    assert cli.main([*built, "--output", str(tmp_path / "corpus")]) == 0
    local = prepare(DataConfig(source="shards", path=str(tmp_path / "corpus")), progress=False)
    cached = copies.cached_object("").parent
    hashed: list[str] = []
    check = verified.check_hash
    monkeypatch.setattr(verified, "check_hash", lambda p, h: (hashed.append(p.name), check(p, h)))
    for _ in range(2):
        with forgotten():
            corpus = prepare(DataConfig(source="shards", path=place), progress=False)
            assert corpus.fingerprint == local.fingerprint
            assert (corpus.split("train").read(0, 9) == local.split("train").read(0, 9)).all()
        assert len(list(cached.iterdir())) == len(hashed) == 4, "fetched and compared once"


def test_a_copy_follows_its_bucket(bucket):
    put(bucket, "x/a.txt", "one")
    put(bucket, "x/b/c.txt", "two")
    copy = places.on_disk(f"{bucket}/x")
    assert (copy / "b" / "c.txt").read_text() == "two"
    assert places.on_disk(f"{bucket}/x/b") == copy / "b"
    put(bucket, "x/a.txt", "ONE")
    bucket_of(Address(bucket)).delete([f"{Address(bucket).key}/x/b/c.txt"])
    places.refresh(copy)
    assert (copy / "a.txt").read_text() == "ONE"
    assert not (copy / "b" / "c.txt").exists()
    (copy / "new.txt").write_text("mine")
    places.put_back(copy)
    assert bucket_of(Address(bucket)).read(f"{Address(bucket).key}/x/new.txt") == b"mine"
    assert places.named(f"cannot read {copy}/a.txt") == f"cannot read {bucket}/x/a.txt"


def test_what_goes_before_it_is_read_is_looked_for_again(bucket, monkeypatch):
    """As the parts of a metrics file do, when a run that ends puts them into one file."""
    put(bucket, "x/metrics.jsonl.parts/000001-0", "one\n")
    put(bucket, "x/a.txt", "a")
    listed = copies.Copy._list
    stale = []

    def list_and_end(self, under):
        found = listed(self, under)
        if not stale:
            stale.append(found)
            put(bucket, "x/metrics.jsonl", "one\ntwo\n")
            gone = [f"{Address(bucket).key}/x/{n}" for n in ("a.txt", *found) if n != "a.txt"]
            bucket_of(Address(bucket)).delete(gone)
        return found

    monkeypatch.setattr(copies.Copy, "_list", list_and_end)
    copy = places.on_disk(f"{bucket}/x")
    assert "metrics.jsonl.parts/000001-0" in stale[0]
    assert (copy / "metrics.jsonl").read_text() == "one\ntwo\n"
    assert (copy / "a.txt").read_text() == "a"


@pytest.mark.parametrize("kind", ["s3"])
def test_the_cache_of_large_objects_is_bounded(kind, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(copies.CACHE_BYTES, "100")
    for i in range(5):
        copies.make_room(40)
        path = copies.cached_object(str(i))
        path.write_bytes(b"x" * 40)
        os.utime(path, (i, i))
    left = sorted(p.stat().st_mtime for p in copies.cached_object("0").parent.iterdir())
    assert left == [3, 4]
