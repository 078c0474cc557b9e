"""Fixtures shared by all tests."""

import contextlib
import itertools
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import bucket_servers
import pytest
from hypothesis import settings
from xla_flags import add_xla_flag

from gpt_jax.runtime import collect_less_often

# A busy machine is not a failure.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

# Ctrl-C is ignored by what a shell starts in the background, and by its children.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).resolve().parent.parent

# Processes that tests start find Python's compiled files, away from the sources where those are to
# stay without: importing JAX and flax takes 1.6 s of a processor then, and 4.4 s otherwise.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
    os.environ["PYTHONPYCACHEPREFIX"] = str(REPOSITORY / ".pytest_cache" / "bytecode")

# One thread of linear algebra: matrices here are small, and threads that wait for one another spin.
for library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

# Tests compile many programs more than once, here and in the processes that they start.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(REPOSITORY / ".pytest_cache" / "compiled"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# And compute little, so that compiling is what takes the time: for the training step of a model of
# one layer 13.9 s of a processor, 4.5 s without most of XLA's passes, and 1.2 s with the simpler of
# its emitters of loops. With JAX_DISABLE_MOST_OPTIMIZATIONS=0 the tests run what users run; the
# smoke tests of .ci/run do.
if os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1") == "1":
    add_xla_flag("--xla_cpu_use_fusion_emitters=false")
    # In one piece: 32 pieces for as many processors cost a sixth more of two.
    add_xla_flag("--xla_cpu_parallel_codegen_split_count=1")

# As in every process of gpt-jax.
collect_less_often()


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout: configs/, experiments/ and README.md are there."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data for tests, or a skip: GPT_JAX_SHARED_DATA, else ../shared/data beside the clone."""
    path = Path(os.environ.get("GPT_JAX_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no shared data at {path} (set GPT_JAX_SHARED_DATA)")
    return path


@pytest.fixture(scope="session")
def bucket_server() -> Iterator[Callable[[str], dict[str, str]]]:
    """The environment of a kind's server (gs, s3), which is started when first asked for."""
    started: dict[str, dict[str, str]] = {}
    with contextlib.ExitStack() as stack:

        def of_kind(kind: str) -> dict[str, str]:
            if kind not in started:
                started[kind] = stack.enter_context(bucket_servers.SERVERS[kind]())
            return started[kind]

        yield of_kind


_folders = itertools.count()


@pytest.fixture(params=bucket_servers.KINDS)
def bucket(request, bucket_server, monkeypatch, tmp_path) -> str:
    """The address of an empty folder in a bucket of each kind; copies and cache are the test's."""
    for key, value in bucket_server(request.param).items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user-cache"))
    with bucket_servers.forgotten():
        yield f"{request.param}://{bucket_servers.BUCKET}/{next(_folders)}"
