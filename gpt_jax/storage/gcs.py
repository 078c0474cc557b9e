"""Google Cloud Storage, by google-cloud-storage (extra `gcs`). Must not import jax."""

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import requests
from google.api_core import exceptions
from google.auth.exceptions import GoogleAuthError
from google.cloud import storage
from google.cloud.storage.retry import DEFAULT_RETRY

from gpt_jax.errors import BucketFailed
from gpt_jax.storage import objects
from gpt_jax.storage.objects import Stat

CREDENTIALS = "gcloud auth application-default login, or GOOGLE_APPLICATION_CREDENTIALS"
BINARY = "application/octet-stream"


class GoogleBucket:
    """The objects of a bucket (`objects.Objects`)."""

    def __init__(self, name: str):
        self.name = f"gs://{name}"
        with self._named(""):
            # A project owns buckets; for their objects it is not asked for.
            project = os.environ.get("GOOGLE_CLOUD_PROJECT", "none")
            self._client = storage.Client(project=project)
            self._bucket = self._client.bucket(name)

    def put(self, key: str, content: bytes | Path) -> str:
        blob = self._bucket.blob(key)
        with self._named(key):
            if isinstance(content, Path):
                blob.upload_from_filename(content, content_type=BINARY, retry=_retry())
            else:
                blob.upload_from_string(content, content_type=BINARY, retry=_retry())
        return str(blob.generation)

    def create(self, key: str, content: bytes) -> bool:
        with self._named(key):
            try:
                self._bucket.blob(key).upload_from_string(
                    content, content_type=BINARY, if_generation_match=0, retry=_retry()
                )
            except exceptions.PreconditionFailed:
                return self.read(key) == content
        return True

    def read(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        last = None if stop is None else stop - 1
        with self._named(key):
            found: bytes = self._bucket.blob(key).download_as_bytes(
                start=start or None, end=last, retry=_retry()
            )
        return found

    def download(self, key: str, path: Path) -> None:
        with self._named(key):
            self._bucket.blob(key).download_to_filename(path, retry=_retry())

    def stat(self, key: str) -> Stat | None:
        with self._named(key):
            blob = self._bucket.get_blob(key, retry=_retry())
        return None if blob is None else _stat(blob)

    def list(self, folder: str) -> dict[str, Stat]:
        prefix = f"{folder}/" if folder else None
        with self._named(folder):
            blobs = self._client.list_blobs(self._bucket, prefix=prefix, retry=_retry())
            return {blob.name: _stat(blob) for blob in blobs}

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            with self._named(key), contextlib.suppress(exceptions.NotFound):
                self._bucket.blob(key).delete(retry=_retry())

    @contextlib.contextmanager
    def _named(self, key: str) -> Iterator[None]:
        address = f"{self.name}/{key}"
        try:
            yield
        except exceptions.NotFound as error:
            if "bucket" in str(error).lower() or not key:
                raise ValueError(f"{self.name}: there is no such bucket") from None
            raise FileNotFoundError(2, "no such object", address) from None
        except (exceptions.Unauthorized, exceptions.Forbidden, GoogleAuthError) as error:
            raise objects.denied(address, _first_line(error), CREDENTIALS) from None
        except (exceptions.GoogleAPIError, requests.RequestException, ConnectionError) as error:
            raise BucketFailed(address, _first_line(error)) from error


def _retry() -> object:
    quick = DEFAULT_RETRY.with_delay(initial=0.2, maximum=10.0, multiplier=2.0)
    return quick.with_timeout(objects.RETRY_SECONDS)


def _stat(blob: storage.Blob) -> Stat:
    return Stat(blob.size, str(blob.generation), blob.updated.timestamp())


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__
