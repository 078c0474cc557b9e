"""Objects of a bucket, on a server of each kind, and what becomes of failing requests."""

import threading

import pytest
from bucket_servers import BUCKET, Faulty, forgotten

from gpt_jax.errors import BucketFailed
from gpt_jax.storage import objects
from gpt_jax.storage.buckets import bucket_of
from gpt_jax.storage.paths import Address


def test_objects_are_put_whole_read_by_ranges_listed_and_deleted(bucket, tmp_path):
    address = Address(bucket)
    store, key = bucket_of(address), address.key
    name = f"{key}/a/ü b#[1]%41.json"
    tag = store.put(name, b"0123456789")
    assert store.read(name) == b"0123456789"
    assert (store.read(name, 3, 5), store.read(name, 7), store.read(name, 0, 2)) == (
        b"34",
        b"789",
        b"01",
    )
    (tmp_path / "file").write_bytes(b"of a file")
    store.put(f"{key}/file", tmp_path / "file")
    store.put(f"{key}-not-beneath", b"")
    found = store.list(key)
    assert {n: s.size for n, s in found.items()} == {name: 10, f"{key}/file": 9}
    assert found[name] == store.stat(name)
    assert found[name].tag == tag
    assert store.put(name, b"others") != tag
    store.download(f"{key}/file", tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == b"of a file"
    store.delete([name, f"{key}/file", f"{key}/none"])
    assert store.list(key) == {}
    assert store.stat(name) is None
    for read in (store.read, lambda name: store.download(name, tmp_path / "no")):
        with pytest.raises(FileNotFoundError, match="no such object"):
            read(name)


def test_of_many_that_create_an_object_one_does(bucket):
    key = Address(bucket).key
    for race in range(5):
        won: list[bytes] = []

        def create(content: bytes, name: str = f"{key}/{race}", won: list[bytes] = won) -> None:
            if bucket_of(Address(bucket)).create(name, content):
                won.append(content)

        threads = [threading.Thread(target=create, args=(b"%d" % i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [bucket_of(Address(bucket)).read(f"{key}/{race}")] == won


@pytest.fixture
def faulty(bucket, bucket_server, monkeypatch):
    variable = "STORAGE_EMULATOR_HOST" if bucket.startswith("gs") else "AWS_ENDPOINT_URL"
    server = Faulty(bucket_server(bucket[:2])[variable])
    monkeypatch.setenv(variable, server.url)
    with forgotten():
        yield server
    server.close()


def test_a_request_that_fails_is_repeated(faulty, bucket):
    """Answered 429 or 503, cut off before it arrives (0), and cut off in place of the answer."""
    address = Address(bucket)
    store = bucket_of(address)
    for faults, do in (
        ([503, 0], lambda: store.put(f"{address.key}/x", b"x")),
        ([429], lambda: store.read(f"{address.key}/x") == b"x"),
        ([0], lambda: list(store.list(address.key)) == [f"{address.key}/x"]),
        ([-1], lambda: store.create(f"{address.key}/created", b"by me")),
        ([-1, 503], lambda: store.delete([f"{address.key}/x"]) is None),
    ):
        faulty.faults[:] = faults
        assert do()
        assert faulty.faults == []
    assert list(store.list(address.key)) == [f"{address.key}/created"]


def test_a_bucket_that_does_not_answer_is_named(faulty, bucket, monkeypatch):
    monkeypatch.setattr(objects, "RETRY_SECONDS", 1.0)
    faulty.faults[:] = [503] * 50
    with pytest.raises(BucketFailed, match=f"cannot reach {bucket}/x: "):
        bucket_of(Address(bucket)).put(f"{Address(bucket).key}/x", b"x")
    faulty.faults.clear()


def test_a_bucket_that_is_not_there_or_closed_is_named(faulty, bucket):
    wrong = Address(bucket.replace(BUCKET, "nobodys-bucket"))
    for do in (lambda b: b.list(wrong.key), lambda b: b.put(wrong.key, b"")):
        with pytest.raises(ValueError, match=r"://nobodys-bucket: there is no such bucket"):
            do(bucket_of(wrong))
    faulty.faults[:] = [403]
    with pytest.raises(ValueError, match="access is refused"):
        bucket_of(Address(bucket)).put(f"{Address(bucket).key}/x", b"x")
