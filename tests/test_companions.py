"""Processes that meet, agree and watch each other; here each is a thread with its own end."""

import json
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from gpt_jax import errors, failures
from gpt_jax.parallel import companions
from gpt_jax.parallel.companions import Companions, meet

FACTS = {"data.path": "a", "seed": 0, "layers": ("dense", "banded")}


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch) -> None:
    monkeypatch.setattr(companions, "LINGER_SECONDS", 0.3)


@pytest.fixture
def port() -> int:
    with companions.listen(0) as free:
        return free.getsockname()[1]


@pytest.fixture
def ends(monkeypatch) -> list[tuple[int, int, str]]:
    """(process, status, line) of those that the watch ended; each thread goes on."""
    ended: list[tuple[int, int, str]] = []
    monkeypatch.setattr(companions, "end", lambda mine, n, *said: ended.append((mine, *said)))
    return ended


def start(port: int, *processes: tuple[int, int, dict[str, Any]], wait: float = 10.0):
    """Futures of `meet`, of (number, n_processes, facts)."""
    pool = ThreadPoolExecutor(len(processes))
    return [
        pool.submit(meet, "localhost", port, n, number, facts, wait)
        for number, n, facts in processes
    ]


def lines(futures: list[Future[Companions]]) -> list[str]:
    return [str(future.exception(timeout=30)) for future in futures]


def until(true: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 20
    while not true():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def test_those_that_agree_meet_and_agree_again(port, ends):
    met = [f.result(30) for f in start(port, *((i, 3, FACTS) for i in (2, 0, 1)))]
    with ThreadPoolExecutor(3) as pool:
        for facts in ({"digest": "x"}, {"digest": "y", "steps": [1, 2]}):
            list(pool.map(lambda one: one.agree(facts), met))  # noqa: B023
        said = list(pool.map(lambda one: disagreement(one, {"digest": str(one.number)}), met))
    line = "process 1 of 3 disagrees: digest is 1 there, 0 in process 0; all must be started alike"
    assert said == [line] * 3
    for one in met:
        one.close()
    assert not ends


def disagreement(one: Companions, facts: dict[str, Any]) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        one.agree(facts)
    return str(caught.value)


@pytest.mark.parametrize(
    ("processes", "said"),
    [
        (
            [(0, 2, FACTS), (1, 2, FACTS | {"data.path": "b"})],
            "process 1 of 2 disagrees: data.path is b there, a in process 0",
        ),
        (
            [(0, 3, FACTS), (1, 3, FACTS), (2, 3, FACTS | dict.fromkeys("abcd", 1))],
            "process 2 of 3 disagrees: a is 1 there, absent in process 0; b is 1 there, absent in "
            "process 0; c is 1 there, absent in process 0; and 1 more",
        ),
        ([(0, 2, FACTS), (1, 3, FACTS)], "--processes is 3 in process 1, 2 in process 0"),
        ([(0, 3, FACTS), (1, 2, FACTS), (2, 3, FACTS)], "--processes is 2 in process 1, 3 in"),
        ([(0, 2, FACTS), (0, 2, FACTS)], "two processes say --process 0; each has its own"),
        (
            [(0, 3, FACTS), (1, 3, FACTS), (1, 3, FACTS)],
            "two processes say --process 1; each has its own, 0 to 2",
        ),
    ],
)
def test_what_differs_is_one_line_in_all(port, processes, said):
    for line in lines(start(port, *processes)):
        assert line.startswith(said)
        assert "\n" not in line


def test_those_that_do_not_come_are_not_waited_for_without_end(port):
    (first,) = lines(start(port, (0, 3, FACTS), wait=0.5))
    assert first == (
        "the processes of the run did not meet within 0 s: of 3, process 1, 2 did not come"
    )
    (second,) = lines(start(port, (1, 2, FACTS), wait=0.5))
    assert second.startswith("the processes of the run did not meet within 0 s: process 0 at ")


def test_a_port_in_use_is_named():
    with companions.listen(0) as other:
        port = other.getsockname()[1]
        (said,) = lines(start(port, (0, 2, FACTS), wait=3.0))
    assert said.startswith(f"--coordinator localhost:{port}: process 0 cannot listen there")


def test_another_program_at_the_port_is_no_run(port):
    def hang_up() -> None:
        with companions.listen(port) as server:
            for _ in range(2):
                server.accept()[0].close()

    threading.Thread(target=hang_up, daemon=True).start()
    (said,) = lines(start(port, (1, 2, FACTS), wait=1.5))
    assert "did not meet within" in said


def test_a_stranger_does_not_disturb(port, ends):
    (first,) = start(port, (0, 2, FACTS))
    until(lambda: _connects(port))
    with socket.create_connection(("localhost", port)) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
    assert start(port, (1, 2, FACTS))[0].result(30).number == 1
    assert first.result(30).number == 0


def _connects(port: int) -> bool:
    try:
        socket.create_connection(("localhost", port)).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("lost", [0, 1])
def test_one_that_is_killed_ends_the_others(port, ends, lost):
    met = [f.result(30) for f in start(port, *((i, 3, FACTS) for i in range(3)))]
    met[lost]._ended.set()
    for line in met[lost].lines.values():  # as the kernel does
        line._socket.shutdown(socket.SHUT_RDWR)
    until(lambda: len(ends) == 2)
    assert {number for number, *_ in ends} == {0, 1, 2} - {lost}
    assert {status for _, status, _ in ends} == {failures.LOST}
    assert all(f"lost process {lost} of 3" in line for _, _, line in ends)


def test_a_frozen_one_ends_the_others(port, ends, monkeypatch):
    monkeypatch.setattr(companions, "SILENT_SECONDS", 0.6)
    monkeypatch.setattr(companions, "BEAT_SECONDS", 0.1)
    first, second = (f.result(30) for f in start(port, (0, 2, FACTS), (1, 2, FACTS)))
    time.sleep(1.0)
    assert not ends
    second._ended.set()  # it beats no more
    until(lambda: bool(ends))
    ((number, status, line),) = ends
    assert (number, status) == (0, failures.LOST)
    assert "lost process 1 of 2" in line
    assert "no sign of life for" in line
    assert first.number == 0


def test_a_failure_of_one_is_told_to_all_with_its_status(port, ends):
    met = [f.result(30) for f in start(port, *((i, 3, FACTS) for i in range(3)))]
    met[2].leave(failures.OUT_OF_MEMORY, "out of memory: 3 GiB")
    until(lambda: len(ends) == 2)
    said = "process 2 of 3 ended: out of memory: 3 GiB"
    assert sorted(ends) == [(i, failures.OUT_OF_MEMORY, said) for i in (0, 1)]


def test_one_that_is_done_is_missed_by_those_that_wait_for_it(port, ends):
    first, second = (f.result(30) for f in start(port, (0, 2, FACTS), (1, 2, FACTS)))
    second.close()
    assert "has nothing left to do" in disagreement(first, {})
    assert not ends


def test_a_wait_before_the_first_step_has_an_end(port, ends, monkeypatch):
    monkeypatch.setattr(companions, "PREPARE_SECONDS", 0.2)
    first, _ = (f.result(30) for f in start(port, (0, 2, FACTS), (1, 2, FACTS)))
    assert "process 1 of 2 was not ready to begin within 0 s" in disagreement(first, {})


class Runtime(RuntimeError):
    """As jax's errors are."""


@pytest.mark.parametrize(
    ("error", "several", "status", "said"),
    [
        (ValueError("seq_len = 3"), False, 2, "seq_len = 3"),
        (errors.Diverged("step 3 went wrong"), False, 3, "step 3 went wrong"),
        (MemoryError(), True, 4, "out of memory: of the host"),
        (Runtime("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes"), True, 4, "Out of memory"),
        (Runtime("RESOURCE_EXHAUSTED: Out of memory while Gloo waits"), True, 4, "Out of memory"),
        (Runtime("INTERNAL: the compiler failed"), True, None, ""),
        (Runtime("UNKNOWN: Gloo AllReduce failed: reset"), True, 75, "lost another process"),
        (Runtime("UNKNOWN: Gloo AllReduce failed: reset"), False, None, ""),
        (errors.Lost("process 1 of 2"), False, 75, "lost process 1 of 2; start all of them"),
        (errors.SaveFailed("cannot save"), False, 5, "cannot save"),
        (OSError(28, "No space left on device", "/x"), False, 5, "/x: No space left on device"),
        (OSError(5, "Input/output error", "/x"), False, 5, "/x: Input/output error"),
        (FileNotFoundError(2, "No such file", "/x"), False, 2, "/x: No such file"),
        (RecursionError("maximum recursion depth"), False, 2, "nested too deeply"),
        (KeyError("a bug"), True, None, ""),
    ],
)
def test_causes_have_statuses_of_their_own(error, several, status, said):
    failure = failures.tell(error, several)
    assert (None if failure is None else failure.status) == status
    assert said in ("" if failure is None else failure.line)
    assert status is None or status in failures.STATUSES


def test_what_is_sent_is_one_line_of_json(port):
    with companions.listen(port) as server:
        (calling,) = start(port, (1, 2, FACTS), wait=5.0)
        line = companions.Line(*server.accept())
        hello = line.receive(5.0)
        assert hello == {"process": 1, "processes": 2, "facts": json.loads(json.dumps(FACTS))}
        line.send({"verdict": "no"})
        assert lines([calling]) == ["no"]
