"""Objects of a bucket: the operations that object stores have, and no others.

An object is put whole, put where there is none, read by ranges, listed and deleted: there is no
rename, no append and no lock. `gcs.py` and `s3.py` do it with a library each, which takes its
credentials from the environment's usual places. A request that fails for a passing reason (429,
5xx, a broken connection) is repeated with backoff for RETRY_SECONDS; then the failure is named.
Imported where a path has a scheme. Must not import jax.
"""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

RETRY_SECONDS = 120.0
"""For which a failing request is repeated before it is an error."""


@dataclasses.dataclass(frozen=True)
class Stat:
    """Size, tag and time of an object, as a listing says them."""

    size: int
    """Bytes."""
    tag: str
    """Another one whenever the object is put anew with other content."""
    modified: float
    """Seconds since the epoch by the server's clock, when it was put."""


class Objects(Protocol):
    """The objects of one bucket, by key.

    Every method raises `errors.BucketFailed` for a bucket that does not answer, and ValueError
    for one that is not there or that this user may not use; both name it.
    """

    def put(self, key: str, content: bytes | Path) -> str:
        """Store an object whole, in place of one that is there; returns its tag."""

    def create(self, key: str, content: bytes) -> bool:
        """Store an object if there is none under the key; whether this call did.

        Of several callers one gets True. The content must be the caller's own (hold something
        random): by it a repeated request recognises that the first one had arrived.
        """

    def read(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        """Bytes start to stop of an object. Raises FileNotFoundError where there is none."""

    def download(self, key: str, path: Path) -> None:
        """Write an object to a file. Raises FileNotFoundError where there is none."""

    def stat(self, key: str) -> Stat | None:
        """Size, tag and time of one object; None where there is none."""

    def list(self, folder: str) -> dict[str, Stat]:
        """Keys beneath a folder (empty: all), of any depth, in order."""

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; one that is not there is as good as deleted."""


def denied(address: str, why: str, usual: str) -> ValueError:
    """The error for a bucket that this user may not use; usual: the places of credentials."""
    return ValueError(f"{address}: access is refused ({why}); credentials are taken from {usual}")
