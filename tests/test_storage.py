"""Checksums, locks, and files that only one creates."""

import os
import re

import pytest

from gpt_jax.storage.checksum import checksum, file_checksum, json_checksum, seed_of
from gpt_jax.storage.locks import Held, create_locked, is_locked, locked

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
"""SHA-256 of "abc": FIPS 180-4's example."""


@pytest.mark.smoke
def test_checksums_are_sha256s_own(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert checksum("abc") == checksum([b"a", memoryview(b"bc")]) == ABC
    assert file_checksum(tmp_path / "abc") == ABC
    assert json_checksum({"b": 1, "a": [2]}) == checksum('{"a": [2], "b": 1}')
    assert seed_of("abc").to_bytes(8, "little") == bytes.fromhex(ABC)[:8]


def test_a_lock_is_one_holders_and_ends_with_it(tmp_path):
    path = tmp_path / "lock"
    with locked(path, wait=False):
        assert is_locked(path)
        with pytest.raises(Held), locked(path, wait=False):
            pass
    assert is_locked(path) is False
    assert is_locked(tmp_path / "none") is None
    with locked(tmp_path, wait=True):
        assert is_locked(tmp_path)


def test_a_file_is_created_once_locked_and_whole(tmp_path):
    path = tmp_path / "claim"
    descriptor = create_locked(path, b"mine")
    assert descriptor is not None
    assert create_locked(path, b"another's") is None
    assert path.read_bytes() == b"mine"
    assert is_locked(path)
    os.close(descriptor)
    assert is_locked(path) is False
    assert os.listdir(tmp_path) == ["claim"]


def test_nowhere_else_is_a_file_locked_or_summed(repository):
    """Other hashes (a cache's names by another program, 64 bits for doubles) are no checksums."""
    own = {"checksum.py", "locks.py"}
    package = repository / "gpt_jax"
    others = [path for path in package.rglob("*.py") if path.name not in own]
    assert len(others) > 200
    for path in others:
        assert not re.search(r"sha256\(|file_digest|fcntl|O_EXCL", path.read_text()), path
