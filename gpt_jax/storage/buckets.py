"""The bucket of an address, by the library of its scheme. Must not import jax."""

import threading

from gpt_jax.storage.objects import Objects
from gpt_jax.storage.paths import Address


class _Opened(threading.local):
    def __init__(self) -> None:
        self.buckets: dict[tuple[str, str], Objects] = {}


_opened = _Opened()


def bucket_of(address: Address) -> Objects:
    """The bucket of an address. Connections are kept for the thread that asks."""
    where = address.scheme, address.bucket
    if where not in _opened.buckets:
        _opened.buckets[where] = _open(*where)
    return _opened.buckets[where]


def _open(scheme: str, bucket: str) -> Objects:
    if scheme == "gs":
        from gpt_jax.storage.gcs import GoogleBucket

        return GoogleBucket(bucket)
    from gpt_jax.storage.s3 import S3Bucket

    return S3Bucket(bucket)
