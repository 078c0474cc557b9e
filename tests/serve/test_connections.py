"""Connections: answers leave at once, and nobody holds one open by sending half of a request."""

import asyncio
import contextlib
import socket
import time

import pytest

uvicorn = pytest.importorskip("uvicorn")
pytest.importorskip("h11")

from gpt_jax.serve.server import Patience, patient  # noqa: E402

PATIENCE = Patience(headers=0.4, body=0.8, reading=0.3)


async def app(scope, receive, send):
    """Answers with the length of the body."""
    if scope["type"] == "lifespan":
        return
    n, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        n, more = n + len(message["body"]), message["more_body"]
    length = 50_000_000 if scope["path"] == "/long" else len(str(n))
    headers = [(b"content-length", str(length).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    body = b"x" * length if scope["path"] == "/long" else str(n).encode()
    await send({"type": "http.response.body", "body": body})


@contextlib.asynccontextmanager
async def served():
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, http=patient(PATIENCE), ws="none", log_level="error", timeout_keep_alive=30
    )
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext
    task = asyncio.create_task(server.serve(sockets=[listening]))
    while not server.started:
        await asyncio.sleep(0.01)
    yield listening.getsockname()[1], server
    server.should_exit = True
    await task


async def answer(port, *parts, pause=0.0):
    """(all that comes until the connection is closed, seconds)"""
    began = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    reading = asyncio.create_task(reader.read())
    with contextlib.suppress(ConnectionError):
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause)
    try:
        got = await asyncio.wait_for(reading, 20)
    except ConnectionError:
        got = b""
    writer.close()
    return got, time.monotonic() - began


def test_half_a_request_is_closed_in_time():
    post = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\nconnection: close\r\n\r\n"

    async def run():
        async with served() as (port, server):
            results = await asyncio.gather(
                answer(port),
                answer(port, b"GET / HTT"),
                answer(port, b"GET / HTTP/1.1\r\n", *[b"x: y\r\n"] * 100, pause=0.02),
                answer(port, post, b"abc"),
                answer(port, post, *[b"a"] * 8, pause=0.2),
                answer(port, post, b"abc", b"defghi", pause=0.05),
                answer(port, post.replace(b"connection: close\r\n", b"") + b"abcdefghiGET / H"),
                answer(port, b"\x16\x03\x01\x00garbage\r\n\r\n"),
            )
            for _ in range(100):
                if not server.server_state.connections:
                    return results
                await asyncio.sleep(0.05)
            raise AssertionError("a connection is left open")

    silent, begun, drip, half, slow_body, whole, ahead, garbage = asyncio.run(run())
    for got, _ in (silent, begun):
        assert got.startswith(b"HTTP/1.1 408 ")
        assert b"the headers did not come within 0.4 seconds" in got
    assert half[0].startswith(b"HTTP/1.1 408 ")
    assert b"the body did not come within 0.8 seconds" in half[0]
    # Who goes on sending may lose the answer to it, but not the end.
    for got, _ in (drip, slow_body):
        assert got[:12] in (b"HTTP/1.1 408", b"")
    assert whole[0].endswith(b"\r\n\r\n9")
    assert ahead[0].startswith(b"HTTP/1.1 200 ")
    assert b"the headers did not come within 0.4 seconds" in ahead[0]
    assert garbage[0].startswith(b"HTTP/1.1 400 ")
    assert b'"error"' in garbage[0]


def test_a_client_that_does_not_read_is_let_go():
    async def run():
        async with served() as (port, server):
            _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 12)
            writer.write(b"GET /long HTTP/1.1\r\nhost: a\r\n\r\n")
            await writer.drain()
            for _ in range(500):
                await asyncio.sleep(0.02)
                if server.server_state.total_requests and not server.server_state.connections:
                    break
            left = len(server.server_state.connections)
            writer.close()
            return left

    assert asyncio.run(run()) == 0


def test_answers_are_sent_at_once():
    async def run():
        async with served() as (port, server):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            while not server.server_state.connections:
                await asyncio.sleep(0.01)
            (connection,) = server.server_state.connections
            there = connection.transport.get_extra_info("socket")
            delayed = there.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0
            writer.close()
            return delayed

    assert not asyncio.run(run())
