"""Listening, and stopping without losing anybody: uvicorn with our own signals."""

import asyncio
import contextlib
import signal
import socket as sockets
from collections.abc import Iterator
from types import ModuleType
from typing import Any

DRAIN_SECONDS = 600
"""After a signal, at most so long until requests at work are cut off."""


def listen(host: str, port: int) -> sockets.socket:
    """A bound socket. Raises ValueError for a port that is taken or not allowed."""
    try:
        return sockets.create_server((host, port), backlog=512)
    except (OSError, OverflowError) as error:
        raise ValueError(
            f"cannot listen on {host}:{port}: {error}; choose another --port"
        ) from None


def serve(uvicorn: ModuleType, app: Any, socket: sockets.socket) -> None:
    """Serve until SIGTERM or SIGINT; then finish what is at work, and return."""

    class Server(uvicorn.Server):  # type: ignore[name-defined]
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            """uvicorn would raise the signal again in the end, and the exit status be its."""
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self.handle_exit, number, None)
            yield

    config = uvicorn.Config(
        app, log_level="warning", access_log=False, timeout_graceful_shutdown=DRAIN_SECONDS
    )
    asyncio.run(Server(config).serve(sockets=[socket]))
