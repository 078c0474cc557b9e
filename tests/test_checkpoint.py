"""Checkpoints come back bit for bit, or are named as damaged; whatever happens, one is left."""

import concurrent.futures
import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xla_flags import simulated_devices

from gpt_jax.config import Config, OptimizerConfig, overrides
from gpt_jax.optim.updates import make_optimizer
from gpt_jax.runs import checkpoint_choice
from gpt_jax.runs import checkpoint_files as files
from gpt_jax.runs.checkpoint import Checkpoints
from gpt_jax.runs.restoring import check_fingerprint, restore_params, saved_config


class State(NamedTuple):
    step: jax.Array
    params: dict
    opt_state: Any
    ema: dict | None


def make_state(step: int = 0, optimizer: str = "adamw", ema: bool = False) -> State:
    """A small state with every kind of node: named tuples, empty and masked ones, None, scalars."""
    random = np.random.default_rng(step)
    attention = {
        "query": {"kernel": (2, 4, 2, 3), "bias": (2, 2, 3)},
        "out": {"kernel": (2, 2, 3, 4), "bias": (2, 4)},
    }
    shapes = {"embedding": {"tokens": (7, 4)}, "blocks": {"0": {"attention": attention}}}

    def normal(shape: tuple[int, ...]) -> jax.Array:
        return jnp.asarray(random.normal(size=shape), jnp.float32)

    params = jax.tree.map(normal, shapes, is_leaf=lambda x: isinstance(x, tuple))
    state = make_optimizer(OptimizerConfig(name=optimizer), params, 0.0).init(params)
    state = jax.tree.map(lambda x: normal(x.shape).astype(x.dtype), state)
    return State(jnp.int32(step), params, state, normal_like(params, step) if ema else None)


def normal_like(tree: dict, seed: int) -> dict:
    random = np.random.default_rng(seed + 1)
    return jax.tree.map(lambda x: jnp.asarray(random.normal(size=x.shape), x.dtype), tree)


def abstract(tree: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def assert_same(got: Any, want: Any) -> None:
    assert jax.tree.structure(got) == jax.tree.structure(want)
    jax.tree.map(np.testing.assert_array_equal, got, want)
    assert [x.dtype for x in jax.tree.leaves(got)] == [x.dtype for x in jax.tree.leaves(want)]


def config(keep_latest: int = 2, keep_best: int = 0) -> Config:
    changes = {"checkpoint.keep_latest": keep_latest, "checkpoint.keep_best": keep_best}
    return overrides.override(Config(), changes)


@contextlib.contextmanager
def opened(directory: Path, cfg: Config | None = None, **settings):
    with contextlib.closing(Checkpoints(directory, cfg or config(), **settings)) as checkpoints:
        yield checkpoints


@pytest.fixture(scope="module")
def two_saved(tmp_path_factory) -> Path:
    """A directory with checkpoints of steps 1 and 2; copy it to change it."""
    directory = tmp_path_factory.mktemp("run") / "checkpoints"
    with opened(directory) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, make_state(step))
    return directory


@pytest.fixture
def damaged(two_saved, tmp_path) -> Path:
    """A copy of `two_saved` to be damaged."""
    return Path(shutil.copytree(two_saved, tmp_path / "checkpoints"))


# --- saving and restoring -----------------------------------------------------------------------


@pytest.mark.smoke
@pytest.mark.parametrize("optimizer", ["adamw", "muon", "adafactor", "sgd"])
def test_restores_bit_for_bit(tmp_path, optimizer):
    state = make_state(7, optimizer, ema=optimizer == "muon")
    with opened(tmp_path) as checkpoints:
        checkpoints.save(7, state)
    with opened(tmp_path) as checkpoints:
        restored, step = checkpoints.restore(abstract(state))
    assert step == 7
    assert_same(restored, state)


def test_buffers_may_be_donated_as_soon_as_save_returns(tmp_path):
    """On a CPU, where host and device share memory, jax copies a buffer that is being saved."""
    overwrite = jax.jit(lambda x: x * 0 - 1, donate_argnums=0)
    overwrite(jnp.zeros(1_000_000)).block_until_ready()  # compiled now: below it must be quick
    want = np.arange(1_000_000, dtype=np.float32)
    with opened(tmp_path) as checkpoints:
        for step in range(1, 6):
            state = {"params": jnp.array(want)}
            checkpoints.save(step, state)
            overwrite(state["params"]).block_until_ready()
            restored, _ = checkpoints.restore({"params": jax.ShapeDtypeStruct(want.shape, "f4")})
            np.testing.assert_array_equal(restored["params"], want)


def test_threads_save_side_by_side(tmp_path):
    """As packs on devices of their own do."""

    def save_some(directory: Path) -> None:
        with opened(directory) as checkpoints:
            for step in range(1, 9):
                checkpoints.save(step, make_state(step))
            restored, step = checkpoints.restore(abstract(make_state(8)))
        assert step == 8
        assert_same(restored, make_state(8))

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(save_some, tmp_path / str(i)) for i in range(4)]:
            done.result()


def test_params_alone(tmp_path):
    state = make_state(3, ema=True)
    with opened(tmp_path) as checkpoints:
        checkpoints.save(3, state)
    assert_same(restore_params(tmp_path, abstract(state.params)), state.params)
    assert_same(restore_params(tmp_path, abstract(state.params), field="ema"), state.ema)
    narrower = abstract(state.params) | {
        "embedding": {"tokens": jax.ShapeDtypeStruct((7, 3), "f4")}
    }
    with pytest.raises(ValueError, match=r"tokens is float32\[7, 4\] there, float32\[7, 3\] here"):
        restore_params(tmp_path, narrower)


def test_other_optimizer_is_refused_by_name(two_saved):
    with (
        opened(two_saved) as checkpoints,
        pytest.raises(ValueError, match=r"opt_state/1/\S+ is \S+ there, \S+ here"),
    ):
        checkpoints.restore(abstract(make_state(0, "muon")))


def test_nothing_saved(tmp_path):
    assert files.saved_steps(tmp_path / "absent") == []
    with opened(tmp_path) as checkpoints:
        assert checkpoints.steps() == []
        assert checkpoint_choice.best_step(checkpoints.directory) is None
        with pytest.raises(ValueError, match="no checkpoint in"):
            checkpoints.restore(abstract(make_state()))


RESHARD = """
import sys
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from gpt_jax.runs.checkpoint import Checkpoints
from gpt_jax.config import Config

devices = np.array(jax.devices())
assert len(devices) == 8
values = np.random.default_rng(0).normal(size=(16, 8)).astype(np.float32)

def on(shape, spec):
    return NamedSharding(Mesh(devices[: shape[0] * shape[1]].reshape(shape), ("x", "y")), spec)

checkpoints = Checkpoints(sys.argv[1], Config())
checkpoints.save(1, {"params": {"a": jax.device_put(values, on((2, 4), P("x", "y")))}})
for shape, spec in [((1, 1), P()), ((8, 1), P("x")), ((2, 4), P("y", "x")), ((4, 2), P())]:
    target = jax.ShapeDtypeStruct(values.shape, values.dtype, sharding=on(shape, spec))
    restored = checkpoints.restore({"params": {"a": target}})[0]["params"]["a"]
    assert restored.sharding == target.sharding
    assert np.array_equal(restored, values)
checkpoints.close()
"""


def run_script(script: str, *arguments: str, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        env=os.environ | {"JAX_PLATFORMS": "cpu"} | environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_restores_onto_other_meshes(tmp_path):
    process = run_script(RESHARD, str(tmp_path), XLA_FLAGS=simulated_devices(8))
    assert process.wait() == 0, process.stderr.read()
    values = np.random.default_rng(0).normal(size=(16, 8)).astype(np.float32)
    restored = restore_params(tmp_path, {"a": jax.ShapeDtypeStruct((16, 8), "f4")})
    np.testing.assert_array_equal(restored["a"], values)


# --- which checkpoints stay ---------------------------------------------------------------------


@given(
    st.dictionaries(st.integers(0, 50), st.none() | st.floats(), min_size=1),
    st.integers(1, 4),
    st.integers(0, 4),
)
def test_the_newest_and_the_best_stay(losses, keep_latest, keep_best):
    kept = files.kept_steps(losses, keep_latest, keep_best)
    assert max(losses) in kept
    assert set(sorted(losses)[-keep_latest:]) <= kept <= set(losses)
    others = kept - set(sorted(losses)[-keep_latest:])
    assert len(others) <= keep_best
    measured = {s for s, x in losses.items() if x is not None and np.isfinite(x)}
    if keep_best and measured:
        assert min(measured, key=lambda s: (losses[s], s)) in kept
    assert all(losses[s] <= losses[gone] for s in others for gone in measured - kept)


def test_best_and_latest_are_kept_apart(tmp_path):
    losses = {1: 3.0, 2: 1.0, 3: 2.0, 4: float("nan"), 5: None, 6: 4.0}
    with opened(tmp_path, config(keep_latest=2, keep_best=1)) as checkpoints:
        for step, loss in losses.items():
            checkpoints.save(step, make_state(step), loss)
        checkpoints.wait()
        assert checkpoints.steps() == [2, 5, 6]
        assert checkpoint_choice.best_step(checkpoints.directory) == 2
    best = make_state(2).params
    assert_same(restore_params(tmp_path, abstract(best), which="best"), best)


@pytest.mark.parametrize(
    ("keep_best", "step", "said"), [(1, 2, "best of 3"), (0, 6, "latest of 2")]
)
def test_by_default_the_best_where_one_is_kept_else_the_latest(
    tmp_path, capsys, keep_best, step, said
):
    with opened(tmp_path, config(keep_latest=2, keep_best=keep_best)) as checkpoints:
        for saved, loss in {2: 1.0, 3: 2.0, 5: None, 6: 4.0}.items():
            checkpoints.save(saved, make_state(saved), loss)
    assert checkpoint_choice.default_step(tmp_path) == step
    assert checkpoint_choice.choose(tmp_path, "auto")[1].step == step
    line = capsys.readouterr().err
    assert line == f"checkpoint {step} of {tmp_path.parent}: the {said} kept\n"
    if keep_best:  # a best one that is damaged is passed over, with a warning
        flip_a_bit(tmp_path / "2" / next(iter(checkpoint_choice.verify(tmp_path / "2").files)))
        assert checkpoint_choice.choose(tmp_path, "auto")[1].step == 6
        assert "taking the latest" in capsys.readouterr().err


def test_where_no_checkpoint_has_a_loss_the_latest_is_taken(tmp_path):
    """As in a compressed run, whose config still keeps the best."""
    with opened(tmp_path, config(keep_best=1)) as checkpoints:
        checkpoints.save(0, make_state(0))
    assert checkpoint_choice.choose(tmp_path, "auto")[1].step == 0


def test_a_loss_measured_after_the_save_is_noted_without_writing_again(tmp_path):
    with opened(tmp_path) as checkpoints:
        checkpoints.save(1, make_state(1))
        checkpoints.wait()
        before = (tmp_path / "1/state").stat().st_mtime_ns
        checkpoints.save(1, make_state(1), validation_loss=1.5)
        checkpoints.wait()
        assert checkpoint_choice.best_step(checkpoints.directory) == 1
    assert (tmp_path / "1/state").stat().st_mtime_ns == before
    assert checkpoint_choice.verify(tmp_path / "1").validation_loss == 1.5


def test_rewinding_drops_what_came_later(tmp_path):
    cfg = config(keep_latest=2)
    with opened(tmp_path, cfg) as checkpoints:
        for step in (10, 20):
            checkpoints.save(step, make_state(step))
    with opened(tmp_path, cfg) as checkpoints:
        checkpoints.restore(abstract(make_state()), step=10)
        checkpoints.save(15, make_state(15))
        checkpoints.wait()
        assert checkpoints.steps() == [10, 15]


# --- damage -------------------------------------------------------------------------------------


def truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.smoke
@pytest.mark.parametrize("damage", [truncate, flip_a_bit, Path.unlink])
def test_any_damaged_file_is_named_and_the_one_before_is_used(damaged, damage, capsys):
    names = ["manifest.json", *checkpoint_choice.verify(damaged / "2").files]
    assert len(names) > 5
    for name in names:
        file = damaged / "2" / name
        sound = file.read_bytes()
        if damage is truncate and not sound:
            continue
        damage(file)
        assert checkpoint_choice.find_sound(damaged, "latest")[0].name == "1", name
        warning = capsys.readouterr().err
        assert str(damaged / "2") in warning
        assert name in warning
        assert warning.count("\n") == 1
        with pytest.raises(files.Corrupt, match=name):
            checkpoint_choice.find_sound(damaged, 2)
        file.write_bytes(sound)
    assert checkpoint_choice.find_sound(damaged, "latest")[0].name == "2"


def test_continuing_past_a_corrupt_latest_replaces_it(damaged):
    truncate(next(f for f in (damaged / "2/state").rglob("*") if f.is_file() and f.stat().st_size))
    with opened(damaged, config(keep_latest=1)) as checkpoints:
        restored, step = checkpoints.restore(abstract(make_state()))
        assert step == 1
        assert_same(restored, make_state(1))
        checkpoints.save(2, make_state(2))
        checkpoints.wait()
        assert checkpoints.steps() == [2]
        assert_same(checkpoints.restore(abstract(make_state()))[0], make_state(2))


def test_all_corrupt(damaged):
    for step in "12":
        truncate(damaged / step / "manifest.json")
    with pytest.raises(ValueError, match=r"all checkpoints in .* are corrupt: steps 1, 2"):
        restore_params(damaged, abstract(make_state().params))


KILLED = """
import os, signal, sys, time, warnings
import jax, jax.numpy as jnp
import orbax.checkpoint
from gpt_jax.runs.checkpoint import Checkpoints
from gpt_jax.config import Config

def train(directory):
    checkpoints = Checkpoints(directory, Config())
    step = 0
    if checkpoints.steps():
        abstract = {"params": jax.ShapeDtypeStruct((50_000,), jnp.float32)}
        state, step = checkpoints.restore(abstract)
        assert (state["params"] == step).all()
    while True:
        step += 1
        checkpoints.save(step, {"params": jnp.full((50_000,), step, jnp.float32)})

def finished(directory):
    return sum(name.isdecimal() for name in os.listdir(directory))

warnings.simplefilter("ignore")  # forking is safe: no device has been touched in this process
for delay in map(float, sys.argv[2:]):
    newest = max(map(int, filter(str.isdecimal, os.listdir(sys.argv[1]))), default=0)
    child = os.fork()
    if not child:
        try:
            train(sys.argv[1])
        finally:
            os._exit(1)  # an assertion failed
    while not any(n.isdecimal() and int(n) > newest for n in os.listdir(sys.argv[1])):
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "could not continue"
        time.sleep(0.002)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL, "could not continue"
"""


def test_kill_at_any_moment_leaves_a_sound_latest(tmp_path):
    delays = np.random.default_rng(time.time_ns()).uniform(0, 0.1, size=5)
    process = run_script(KILLED, str(tmp_path), *map(str, delays))
    assert process.wait(120) == 0, (delays, process.stderr.read())
    newest = files.saved_steps(tmp_path)[-1]
    assert newest >= 5
    checkpoint_choice.verify(tmp_path / str(newest))
    with opened(tmp_path) as checkpoints:
        assert not list(tmp_path.glob("*.tmp"))
        target = {"params": jax.ShapeDtypeStruct((50_000,), jnp.float32)}
        state, step = checkpoints.restore(target)
    assert step == newest
    np.testing.assert_array_equal(state["params"], np.full(50_000, newest))


def test_unfinished_save_is_cleared(damaged):
    (damaged / "2").rename(damaged / "2.tmp")
    with opened(damaged) as checkpoints:
        assert checkpoints.steps() == [1]
    assert os.listdir(damaged) == ["1"]


# --- places that cannot be written --------------------------------------------------------------


def test_unwritable_directory_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ValueError, match=r"cannot write checkpoints to .*file/here: Not a dir"
    ) as e:
        Checkpoints(tmp_path / "file" / "here", config())
    assert "\n" not in str(e.value)


@contextlib.contextmanager
def files_limited_to(n_bytes: int):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("limit", [100, 100_000])
def test_failed_write_is_one_line_and_leaves_the_one_before(tmp_path, limit):
    state = {"params": jnp.asarray(np.random.default_rng(0).normal(size=100_000), jnp.float32)}
    with opened(tmp_path) as checkpoints:
        checkpoints.save(1, state)
        checkpoints.wait()

        def save_and_wait() -> None:
            checkpoints.save(2, state)
            checkpoints.wait()

        with files_limited_to(limit), pytest.raises(OSError, match="File too large") as error:
            save_and_wait()
        expected = f"cannot save the checkpoint of step 2 in {tmp_path}: File too large"
        assert str(error.value) == expected
        assert checkpoints.steps() == [1]
        save_and_wait()  # there is room again
        assert checkpoints.steps() == [1, 2]
        assert not list(tmp_path.glob("*.tmp"))


def test_full_disk_is_told_before_writing(tmp_path, monkeypatch):
    with opened(tmp_path) as checkpoints:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 8, 1))
        with pytest.raises(OSError, match=r"No space left on device .*MiB needed"):
            checkpoints.save(1, make_state(1))
    assert os.listdir(tmp_path) == []


# --- the config ---------------------------------------------------------------------------------


def test_changed_config_is_refused_with_its_fields(two_saved):
    changed = overrides.override(config(), {"optimizer.learning_rate": 1e-2, "train.tokens": 10**6})
    with (
        opened(two_saved, changed) as checkpoints,
        pytest.raises(ValueError, match="belongs to another config") as error,
    ):
        checkpoints.restore(abstract(make_state()))
    message = str(error.value)
    assert "optimizer.learning_rate was 0.0003, is 0.01" in message
    assert "train.tokens was 300000000, is 1000000" in message
    assert "--resume-changed" in message
    assert "--base RUN" in message
    with opened(two_saved, changed, allow_changed=True) as checkpoints:
        assert checkpoints.restore(abstract(make_state()))[1] == 2


def test_how_it_is_computed_may_change(two_saved):
    other = overrides.override(config(), {"mesh.fsdp": 2, "checkpoint.keep_latest": 5, "name": "x"})
    check_fingerprint(config(), other)
    assert saved_config(two_saved) == config()


@pytest.mark.parametrize("name", ["base", "teacher"])
def test_other_weights_beside_the_run_are_refused(tmp_path, name):
    with opened(tmp_path, sealed={name: "0123"}) as checkpoints:
        checkpoints.save(1, make_state(1))
    with opened(tmp_path, sealed={name: "0123"}) as checkpoints:
        assert checkpoints.restore(abstract(make_state()))[1] == 1
    with (
        opened(tmp_path, sealed={name: "4567"}) as checkpoints,
        pytest.raises(ValueError, match=f"the {name} run has changed .* were 0123, are 4567"),
    ):
        checkpoints.restore(abstract(make_state()))


def test_manifest_is_plain_json(two_saved):
    manifest = json.loads((two_saved / "2/manifest.json").read_text())["manifest"]
    assert overrides.from_dict(manifest["config"]) == config()
    assert manifest["arrays"]["params/embedding/tokens"] == [[7, 4], "float32"]
