"""Amazon S3 and what speaks its protocol, by obstore with boto3's credentials (extra `s3`).

Must not import jax.
"""

import contextlib
import os
import random
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import boto3
import obstore
from obstore import exceptions
from obstore.auth.boto3 import Boto3CredentialProvider
from obstore.store import S3Store

from gpt_jax.errors import BucketFailed
from gpt_jax.storage import objects
from gpt_jax.storage.objects import Stat

T = TypeVar("T")
CREDENTIALS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ~/.aws, or the role of the machine"
LONGEST_PAUSE = 10.0
"""Seconds between two attempts."""


class S3Bucket:
    """The objects of a bucket (`objects.Objects`)."""

    def __init__(self, name: str):
        self.name = f"s3://{name}"
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
        session = boto3.Session()
        if session.get_credentials() is None:
            raise objects.denied(self.name, "no credentials were found", CREDENTIALS)
        self._store = S3Store(
            name,
            endpoint=endpoint or None,
            credential_provider=Boto3CredentialProvider(session),
            client_options={"allow_http": endpoint.startswith("http://")},
            retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=30)},
        )

    def put(self, key: str, content: bytes | Path) -> str:
        stored = self._repeated(key, lambda: obstore.put(self._store, key, content))
        return str(stored["e_tag"])

    def create(self, key: str, content: bytes) -> bool:
        try:
            self._repeated(key, lambda: obstore.put(self._store, key, content, mode="create"))
        except exceptions.AlreadyExistsError:
            return self.read(key) == content
        return True

    def read(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        if start == 0 and stop is None:
            return self._repeated(key, lambda: bytes(obstore.get(self._store, key).bytes()))
        end = self._size(key) if stop is None else stop
        return self._repeated(
            key, lambda: bytes(obstore.get_range(self._store, key, start=start, end=end))
        )

    def download(self, key: str, path: Path) -> None:
        def write() -> None:
            with path.open("wb") as file:
                for part in obstore.get(self._store, key).stream(min_chunk_size=1 << 22):
                    file.write(part)

        self._repeated(key, write)

    def stat(self, key: str) -> Stat | None:
        try:
            return _stat(self._repeated(key, lambda: obstore.head(self._store, key)))
        except FileNotFoundError:
            return None

    def list(self, folder: str) -> dict[str, Stat]:
        def read() -> dict[str, Stat]:
            pages = obstore.list(self._store, folder or None)
            return {found["path"]: _stat(found) for page in pages for found in page}

        return dict(sorted(self._repeated(folder, read).items()))

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            with contextlib.suppress(FileNotFoundError):
                self._repeated(key, lambda: obstore.delete(self._store, key))  # noqa: B023

    def _no_bucket(self) -> ValueError:
        return ValueError(f"{self.name}: there is no such bucket")

    def _size(self, key: str) -> int:
        return _stat(self._repeated(key, lambda: obstore.head(self._store, key))).size

    def _repeated(self, key: str, do: Callable[[], T]) -> T:
        """Call `do` until it returns: obstore repeats some requests, but none that may have arrived
        and is not idempotent."""
        address, end, pause = f"{self.name}/{key}", time.monotonic() + objects.RETRY_SECONDS, 0.2
        while True:
            try:
                return do()
            except FileNotFoundError as error:
                if _NO_BUCKET in str(error):
                    raise self._no_bucket() from None
                raise FileNotFoundError(2, "no such object", address) from None
            except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
                raise objects.denied(address, _first_line(error), CREDENTIALS) from None
            except exceptions.GenericError as error:
                if _NO_BUCKET in str(error):
                    raise self._no_bucket() from None
                if time.monotonic() + pause > end:
                    raise BucketFailed(address, _first_line(error)) from error
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, LONGEST_PAUSE)


_NO_BUCKET = "<Code>NoSuchBucket"


def _stat(found: "obstore.ObjectMeta") -> Stat:
    return Stat(found["size"], str(found["e_tag"]), found["last_modified"].timestamp())


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]
