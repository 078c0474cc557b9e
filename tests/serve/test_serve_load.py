"""Load, as tools/load_serve.py puts it on a server of its own: the long form."""

import asyncio
import importlib

import pytest

pytest.importorskip("openai")
pytest.importorskip("uvicorn")
pytest.importorskip("starlette")
pytest.importorskip("prometheus_client")


@pytest.mark.slow
def test_a_minute_of_64_clients_and_10_000_requests_of_garbage(repository, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(repository / "tools"))
    tool = importlib.import_module("load_serve")
    run = tool.make_tiny_run(tmp_path / "tiny")
    with tool.started(run, "--per-key", "1000") as address:
        url = f"http://{address}/v1"
        # Where an answer waits for an acknowledgement, the quickest takes 40 ms.
        best = {name: seconds[0] for name, seconds in tool.latencies(address, "it").items()}
        assert max(best.values()) < 0.03, best
        alone = asyncio.run(tool.references(url, "it"))
        answers = asyncio.run(tool.load(url, "it", 64, 60, alone))
        assert len(answers) > 64
        assert all(answer.right for answer in answers)
        became = asyncio.run(tool.throw(address, 10_000))
        assert sum(sum(states.values()) for states in became.values()) == 10_000
        assert {kind: states for kind, states in became.items() if states["left open"]} == {}
        answers = asyncio.run(tool.load(url, "it", 1, 1, alone))
        assert answers
        assert all(answer.right for answer in answers)
