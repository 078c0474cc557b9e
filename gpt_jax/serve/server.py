"""Listening, and stopping without losing anybody: uvicorn with our own signals and time limits."""

import asyncio
import contextlib
import dataclasses
import json
import signal
import socket as sockets
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from gpt_jax.serve.protocol import ApiError

DRAIN_SECONDS = 600
"""After a signal, at most so long until requests at work are cut off."""


@dataclasses.dataclass(frozen=True)
class Patience:
    """Seconds that a client may take."""

    headers: float = 5.0
    """From the connection, or the first byte of a later request, to the end of its headers."""
    body: float = 10.0
    """From there to the end of the body."""
    reading: float = 60.0
    """For room in the connection, where the client does not read its answer."""
    idle: int = 75
    """Between an answer and the next request. Longer than clients keep a connection (OpenAI's: 5
    seconds), so that none is closed just when it is used again."""


def listen(host: str, port: int) -> sockets.socket:
    """A bound socket. Raises ValueError for a port that is taken or not allowed."""
    family = sockets.AF_INET6 if ":" in host else sockets.AF_INET
    try:
        return sockets.create_server((host, port), family=family, backlog=512)
    except (OSError, OverflowError) as error:
        raise ValueError(
            f"cannot listen on {host}:{port}: {error}; choose another --port"
        ) from None


def serve(uvicorn: ModuleType, app: Any, socket: sockets.socket, patience: Patience) -> None:
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
        app,
        http=patient(patience),
        ws="none",
        # What a client sends wrong is told to the client: a flood of it must not fill the log.
        log_level="error",
        access_log=False,
        timeout_keep_alive=patience.idle,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    asyncio.run(Server(config).serve(sockets=[socket]))


class Connection(H11Protocol):
    """uvicorn's connection with time limits on what the client does, and answers sent at once."""

    patience: Patience
    _awaited: type[h11.Request] | type[h11.EndOfMessage] | None = None
    """The part that the timer waits for: the headers or the body."""
    _timer: asyncio.TimerHandle | None = None
    _reading_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # Else the end of an answer waits for the client to acknowledge its beginning: 40 ms.
        socket = transport.get_extra_info("socket")
        if socket is not None and socket.family in (sockets.AF_INET, sockets.AF_INET6):
            socket.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 1)
        self._watch(h11.Request)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        states = {h11.IDLE: h11.Request, h11.SEND_BODY: h11.EndOfMessage}
        self._watch(states.get(self.conn.their_state))

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # A part of the next request may have been sent ahead.
        if self.conn.their_state is h11.SEND_BODY:
            self._watch(h11.EndOfMessage)
        elif self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._watch(h11.Request)

    def connection_lost(self, exc: Exception | None) -> None:
        self._watch(None)
        self.resume_writing()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reading_timer = self.loop.call_later(self.patience.reading, self.transport.abort)

    def resume_writing(self) -> None:
        if self._reading_timer is not None:
            self._reading_timer.cancel()
            self._reading_timer = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, msg)

    def _watch(self, awaited: Any) -> None:
        """Let a timer run while the same thing is awaited, however much of it has come."""
        if self.transport.is_closing():
            awaited = None
        if awaited is self._awaited:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._awaited = None, awaited
        if awaited is not None:
            is_body = awaited is h11.EndOfMessage
            seconds = self.patience.body if is_body else self.patience.headers
            what = "body" if is_body else "headers"
            message = f"the {what} did not come within {seconds:g} seconds"
            self._timer = self.loop.call_later(seconds, self._refuse, 408, message)

    def _refuse(self, status: int, message: str) -> None:
        """Answer, where no answer has begun, and close the connection."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            error = ApiError(status, message, "invalid_request_error")
            body = json.dumps(error.body).encode()
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                (b"connection", b"close"),
            ]
            reason = {400: b"Bad Request", 408: b"Request Timeout"}[status]
            answer = h11.Response(status_code=status, headers=headers, reason=reason)
            for event in (answer, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        if self.cycle is not None:  # whoever is at work on it must not answer as well
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()


def patient(patience: Patience) -> type[H11Protocol]:
    """The connection with these time limits, as uvicorn takes it: a class."""
    return type("PatientConnection", (Connection,), {"patience": patience})
