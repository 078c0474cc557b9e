"""The processes of one run, by themselves: they meet, agree, and watch each other.

jax has its own service for this. It waits without a limit for processes whose number differs,
ends a process by a signal where a port is in use or another one is frozen, and does not know what
must be equal. So the processes meet here first, at the same HOST:PORT: process 0 listens there
until all have come, tells all what differs, and leaves the port to jax. The connections stay: each
process says every few seconds that it lives, the kernel closes the connection of one that is
killed, and whoever notices ends its own process with one line. Lines of JSON; must not import jax.
"""

import contextlib
import json
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from gpt_jax import failures
from gpt_jax.errors import Lost
from gpt_jax.output import rewritten

BEAT_SECONDS = 2.0
SILENT_SECONDS = 30.0
"""Without a sign of life for so long, a process counts as lost: less than jax waits."""
PREPARE_SECONDS = 3600.0
"""How long processes wait for each other before the first step: data may have to be built."""
STRANGER_SECONDS = 0.5
"""Whoever listens and takes no more than this to hang up is no process of the run."""
LINGER_SECONDS = 5.0
"""How long process 0 tells those that come late that the run does not begin."""
SHOWN = 3
"""Differences that are named."""
LONGEST_LINE = 1 << 22

Message = dict[str, Any]
Facts = Mapping[str, Any]


class Companions:
    """This process's connections to the others: to all from process 0, to process 0 from them."""

    def __init__(self, number: int, n_processes: int, lines: dict[int, "Line"]):
        self.number, self.n_processes, self.lines = number, n_processes, lines
        self._inbox: queue.Queue[tuple[int, Message]] = queue.Queue()
        self._ended = threading.Event()
        self._speaking = threading.Lock()
        self._gone: set[int] = set()
        for other, line in lines.items():
            threading.Thread(target=self._listen, args=(other, line), daemon=True).start()
        threading.Thread(target=self._beat, daemon=True).start()

    def agree(self, facts: Facts) -> None:
        """Wait until all have said their facts. Raises ValueError naming the first that differ."""
        deadline = time.monotonic() + PREPARE_SECONDS
        facts = _plain(facts)
        if self.number:
            self._tell_all({"facts": facts})
            verdict = self._next(deadline, [0])[1]["verdict"]
        else:
            said: dict[int, Facts] = {}
            while len(said) < self.n_processes - 1:
                other, message = self._next(deadline, [i for i in self.lines if i not in said])
                said[other] = message["facts"]
            verdict = difference(facts, said, self.n_processes)
            self._tell_all({"verdict": verdict})
        if verdict:
            raise ValueError(verdict)

    def leave(self, status: int, line: str) -> None:
        """Tell the others that this process ends, and why: they end with the same status."""
        self._ended.set()
        self._tell_all({"ended": status, "line": line, "process": self.number})

    def close(self) -> None:
        """Tell the others that this process has done its part."""
        self._ended.set()
        self._tell_all({"done": True})

    def _next(self, deadline: float, others: Sequence[int]) -> tuple[int, Message]:
        """The next message of one of the others."""
        while True:
            if gone := self._gone.intersection(others):
                raise ValueError(
                    f"process {min(gone)} of {self.n_processes} has nothing left to do: is the "
                    f"run's directory on a file system that all processes share?"
                )
            with contextlib.suppress(queue.Empty):
                return self._inbox.get(timeout=min(1.0, max(0.01, deadline - time.monotonic())))
            if time.monotonic() > deadline:
                raise ValueError(
                    f"process {others[0]} of {self.n_processes} was not ready to begin within "
                    f"{PREPARE_SECONDS:.0f} s"
                )

    def _tell_all(self, message: Message) -> None:
        for line in self.lines.values():
            line.send(message)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            self._tell_all({"beat": True})

    def _listen(self, other: int, line: "Line") -> None:
        """In the background, until the other process has done its part, or this one ends."""
        who = f"process {other} of {self.n_processes} on {line.host}"
        while True:
            try:
                message = line.receive(SILENT_SECONDS)
            except TimeoutError:
                return self._lose(f"{who}: no sign of life for {SILENT_SECONDS:.0f} s (frozen?)")
            except OSError:
                message = None
            if message is None:
                return self._lose(f"{who}: it was killed (its log, or the kernel's, may say why)")
            if "ended" in message:
                return self._follow(message)
            if "done" in message:
                self._gone.add(other)
                return None
            if "beat" not in message:
                self._inbox.put((other, message))

    def _lose(self, what: str) -> None:
        """End this process, for another one is lost: unless it is ending by itself."""
        line = failures.lost(what)
        self._end({"ended": failures.LOST, "line": line, "process": self.number}, line)

    def _follow(self, message: Message) -> None:
        """End this process because of another one's failure, and tell the rest."""
        source = message["process"]
        said = f"process {source} of {self.n_processes} ended: {message['line']}"
        self._end(message, said)

    def _end(self, message: Message, line: str) -> None:
        with self._speaking:
            if self._ended.is_set():
                return
            self._ended.set()
            self._tell_all(message)
            end(self.number, self.n_processes, message["ended"], line)


def end(number: int, n_processes: int, status: int, line: str) -> NoReturn:
    """Say a line and end this process at once: an orderly end waits for processes that are gone."""
    with contextlib.suppress(OSError, ValueError):
        said = rewritten(f"gpt-jax: process {number} of {n_processes}: {line}")
        print(said, file=sys.stderr, flush=True)
        sys.stdout.flush()
    os._exit(status)


def difference(facts: Facts, said: Mapping[int, Facts], n_processes: int) -> str | None:
    """The line that names in what the first process that differs from process 0 does."""
    for other in sorted(said):
        theirs = said[other]
        keys = [key for key in {**facts, **theirs} if facts.get(key) != theirs.get(key)]
        if keys:
            shown = "; ".join(
                f"{key} is {_show(theirs.get(key))} there, {_show(facts.get(key))} in process 0"
                for key in keys[:SHOWN]
            )
            more = f"; and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
            return (
                f"process {other} of {n_processes} disagrees: {shown}{more}; all must be started "
                f"alike"
            )
    return None


def meet(
    host: str, port: int, n_processes: int, number: int, facts: Facts, wait: float
) -> Companions:
    """Wait for the other processes of the run at HOST:PORT, for so many seconds, and agree.

    Raises ValueError naming what differs, who did not come, or what is wrong with the port.
    """
    hello = {"process": number, "processes": n_processes, "facts": _plain(facts)}
    deadline = time.monotonic() + wait
    if number:
        return Companions(number, n_processes, {0: _call(host, port, hello, deadline, wait)})
    try:
        server = listen(port)
    except OSError as error:
        _ask_who_listens(host, port, hello)
        raise ValueError(
            f"--coordinator {host}:{port}: process 0 cannot listen there ({error.strerror}): is "
            f"it of another run or program? choose another port"
        ) from None
    with server:
        lines = _gather(server, hello, deadline, wait)
    return Companions(0, n_processes, lines)


def listen(port: int) -> socket.socket:
    """A socket that listens on all of this host's addresses."""
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def _gather(
    server: socket.socket, hello: Message, deadline: float, wait: float
) -> dict[int, "Line"]:
    """In process 0: the connections of all others, once they have come and agree."""
    n_processes: int = hello["processes"]
    lines: dict[int, Line] = {}
    said: dict[int, Facts] = {}
    verdict: str | None = None
    while len(lines) < n_processes - 1 and verdict is None:
        if gone := [other for other, line in lines.items() if line.is_closed()]:
            for line in lines.values():
                line.close()
            raise Lost(f"process {gone[0]} of {n_processes}, before all had come")
        server.settimeout(max(0.01, min(1.0, deadline - time.monotonic())))
        try:
            line = Line(*server.accept())
            message = line.receive(min(10.0, wait)) or {}
        except TimeoutError:
            if time.monotonic() < deadline:
                continue
            missing = sorted(set(range(1, n_processes)) - lines.keys())
            verdict = (
                f"the processes of the run did not meet within {wait:.0f} s: of {n_processes}, "
                f"process {', '.join(map(str, missing))} did not come"
            )
            break
        except OSError:
            continue
        if "processes" not in message:
            line.close()  # a stranger
            continue
        verdict = _mistaken(message, n_processes, lines)
        if verdict is not None:
            line.send({"verdict": verdict})
        else:
            lines[message["process"]], said[message["process"]] = line, message["facts"]
    verdict = verdict or difference(hello["facts"], said, n_processes)
    for line in lines.values():
        line.send({"verdict": verdict})
    if verdict:
        _turn_away(server, verdict, n_processes - 1 - len(lines))
        raise ValueError(verdict)
    return lines


def _mistaken(message: Message, n_processes: int, lines: Mapping[int, "Line"]) -> str | None:
    """The line of a process that cannot be one of the run."""
    number, theirs = message["process"], message["processes"]
    if theirs != n_processes:
        return (
            f"--processes is {theirs} in process {number}, {n_processes} in process 0; all must "
            f"say the same"
        )
    if number == 0 or number in lines:
        return f"two processes say --process {number}; each has its own, 0 to {n_processes - 1}"
    return None


def _turn_away(server: socket.socket, verdict: str, n_late: int) -> None:
    """Tell those that come late that the run does not begin, for a few seconds."""
    deadline = time.monotonic() + LINGER_SECONDS
    while n_late > 0 and time.monotonic() < deadline:
        server.settimeout(max(0.01, deadline - time.monotonic()))
        with contextlib.suppress(OSError):
            late = Line(*server.accept())
            late.receive(1.0)
            late.send({"verdict": verdict})
            n_late -= 1


def _call(host: str, port: int, hello: Message, deadline: float, wait: float) -> "Line":
    """The connection to process 0, once all have come and agree."""
    why = "nothing listens there"
    while time.monotonic() < deadline:
        try:
            address = (host, port)
            line = Line(socket.create_connection(address, min(5.0, wait)), address)
            line.send(hello)
            called = time.monotonic()
            # Process 0 waits as long as this one, from when it began.
            answer = line.receive(max(1.0, deadline + LINGER_SECONDS - time.monotonic()))
        except OSError as error:
            why = error.strerror or str(error)
            time.sleep(0.2)
            continue
        if answer is None and time.monotonic() - called > STRANGER_SECONDS:
            raise Lost(f"process 0 of {hello['processes']}, before all had come")
        if answer is None:
            why = "another program listens there"
            line.close()
            time.sleep(0.5)
        elif "verdict" not in answer:
            raise ValueError(f"--coordinator {host}:{port}: another program listens there")
        elif answer["verdict"]:
            raise ValueError(answer["verdict"])
        else:
            return line
    raise ValueError(
        f"the processes of the run did not meet within {wait:.0f} s: process 0 at {host}:{port}: "
        f"{why}"
    )


def _ask_who_listens(host: str, port: int, hello: Message) -> None:
    """Raise what another process 0 says of this one, if it is that which has the port."""
    with contextlib.suppress(OSError):
        address = ("localhost", port)
        with socket.create_connection(address, 2.0) as connection:
            line = Line(connection, address)
            line.send(hello)
            answer = line.receive(2.0)
        if answer is not None and answer.get("verdict"):
            raise ValueError(answer["verdict"])


class Line:
    """A connection that carries lines of JSON."""

    def __init__(self, connection: socket.socket, address: Any):
        self.host = str(address[0]).removeprefix("::ffff:")
        self._socket, self._buffer = connection, b""
        self._sending = threading.Lock()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, message: Message) -> None:
        """Send a message; one to a process that is gone is dropped: reading tells that it is."""
        with self._sending, contextlib.suppress(OSError):
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, seconds: float) -> Message | None:
        """The next message; None at the end of the connection, or of what is no message.

        Raises TimeoutError.
        """
        self._socket.settimeout(seconds)
        while b"\n" not in self._buffer:
            chunk = self._socket.recv(1 << 16)
            if not chunk or len(self._buffer) > LONGEST_LINE:
                return None
            self._buffer += chunk
        text, _, self._buffer = self._buffer.partition(b"\n")
        try:
            message = json.loads(text)
        except ValueError:
            return None
        return message if isinstance(message, dict) else None

    def is_closed(self) -> bool:
        """Whether the other end is gone, while it has nothing to say."""
        self._socket.settimeout(0.0)
        try:
            return not self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def close(self) -> None:
        self._socket.close()


def _plain(facts: Facts) -> Message:
    """Facts as they arrive: tuples are lists."""
    plain: Message = json.loads(json.dumps(dict(facts)))
    return plain


def _show(value: Any) -> str:
    text = "absent" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
