"""One step: the division, moving averages, bad steps, and what the compiled program may do.

The update is tested on toy parameters, which compile at once; one tiny GPT is compiled for what
only the whole program shows. Meshes and microbatches: test_sharding.py.
"""

import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpt_jax.config import Config, overrides
from gpt_jax.config.timetable import make_timetable
from gpt_jax.data.batch import Batch
from gpt_jax.models.gpt import make_gpt
from gpt_jax.objectives.cross_entropy import LossSums, cross_entropy_sums
from gpt_jax.optim.updates import make_optimizer
from gpt_jax.parallel.feed import put_count
from gpt_jax.parallel.sharding import Layout, make_layout
from gpt_jax.steps.compiled_steps import CompiledSteps, compile_steps, program_config
from gpt_jax.steps.program import make_steps
from gpt_jax.steps.step import (
    LOSS_MEMORY,
    Settings,
    TrainState,
    apply_gradients,
    evaluation_params,
    make_settings,
)

LEARNING_RATE = 0.1


def assert_equal_trees(got: Any, want: Any) -> None:
    assert jax.tree.structure(got) == jax.tree.structure(want)
    jax.tree.map(np.testing.assert_array_equal, got, want)


# --- the update, on toy parameters --------------------------------------------------------------


class Toy:
    """A state of two small parameters, and a compiled `apply_gradients`."""

    def __init__(self, **changes: Any):
        settings = {key.replace("__", "."): value for key, value in changes.items()}
        self.config = overrides.override(Config(), settings)
        of_config = make_settings(self.config, make_timetable(self.config))
        rates = jnp.full(8, LEARNING_RATE, jnp.float32)
        constant = jax.tree.map(jnp.asarray, of_config._replace(learning_rates=rates))
        self.update = jax.jit(
            lambda state, gradients, sums: apply_gradients(
                self.config, constant, state, gradients, sums
            )
        )

    def start(self) -> TrainState:
        random = np.random.default_rng(0)
        params = {
            "head": {"kernel": jnp.asarray(random.normal(size=(3, 4)), jnp.float32)},
            "final_norm": {"scale": jnp.ones(3)},
        }
        optimizer = make_optimizer(self.config.optimizer, params, learning_rate=0.0)
        ema = jax.tree.map(jnp.copy, params) if self.config.optimizer.ema_decay else None
        return TrainState(jnp.int32(0), params, optimizer.init(params), ema, jnp.zeros(()))

    def step(self, state: TrainState, loss: float = 3.0, size: float = 1.0, tokens: float = 8.0):
        """One update with gradients drawn from the step's number, of this mean loss."""
        random = np.random.default_rng(int(state.step))
        gradients = jax.tree.map(
            lambda p: jnp.asarray(size * tokens * random.normal(size=p.shape), p.dtype),
            state.params,
        )
        sums = LossSums(jnp.float32(loss * tokens), jnp.zeros(()), jnp.float32(tokens))
        return self.update(state, gradients, sums)


@pytest.mark.smoke
def test_gradients_and_losses_are_divided_once_by_the_tokens():
    toy = Toy(
        optimizer__name="sgd",
        optimizer__b1=0.0,
        optimizer__clip_norm=None,
        optimizer__weight_decay=0.0,
    )
    state = toy.start()
    gradients = jax.tree.map(jnp.ones_like, state.params)
    new, metrics = toy.update(state, gradients, LossSums(*map(jnp.float32, (24.0, 80.0, 8.0))))
    assert float(metrics.loss) == 3.0
    assert float(metrics.z_loss) == 10.0
    assert float(metrics.target_tokens) == 8.0
    assert float(metrics.gradient_norm) == pytest.approx(15**0.5 / 8)
    moved = jax.tree.map(lambda old, got: got - old, state.params, new.params)
    for leaf in jax.tree.leaves(moved):
        np.testing.assert_allclose(leaf, -LEARNING_RATE / 8, rtol=1e-4)


def test_a_batch_without_targets_changes_nothing_into_nan():
    toy = Toy()
    state = toy.start()
    zeros = jax.tree.map(jnp.zeros_like, state.params)
    new, metrics = toy.update(state, zeros, LossSums(*[jnp.zeros(())] * 3))
    assert not bool(metrics.bad)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(new.params))


def test_the_gradient_norm_is_that_before_clipping():
    toy = Toy(optimizer__clip_norm=0.5)
    _, metrics = toy.step(toy.start(), size=100.0)
    assert float(metrics.gradient_norm) > 100


def test_moving_average_of_parameters():
    decay = 0.75
    toy = Toy(optimizer__ema_decay=decay)
    state = toy.start()
    want = jax.tree.map(np.asarray, state.params)
    for _ in range(4):
        state, _ = toy.step(state)
        want = jax.tree.map(
            lambda old, new: decay * old + (1 - decay) * np.asarray(new), want, state.params
        )
    assert state.ema is not None
    for got, expected in zip(jax.tree.leaves(state.ema), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(got, expected, 1e-6)
    assert evaluation_params(state) is state.ema
    assert np.abs(state.ema["head"]["kernel"] - state.params["head"]["kernel"]).max() > 0.01


def test_without_a_moving_average_the_parameters_are_evaluated():
    state = Toy().start()
    assert evaluation_params(state) is state.params


# --- bad steps ----------------------------------------------------------------------------------

BAD = {
    "loss nan": {"loss": float("nan")},
    "loss inf": {"loss": float("inf")},
    "gradient nan": {"size": float("nan")},
    "gradient inf": {"size": float("inf")},
}


@pytest.fixture(scope="module")
def skipping() -> Toy:
    return Toy(train__on_bad_step="skip", train__spike_threshold=2.0, optimizer__ema_decay=0.5)


@pytest.mark.smoke
@pytest.mark.parametrize("kind", BAD)
def test_a_skipped_step_changes_nothing_but_the_step(skipping, kind):
    state, metrics = skipping.step(skipping.start())
    assert not bool(metrics.bad)
    after, metrics = skipping.step(state, **BAD[kind])
    assert bool(metrics.bad)
    assert int(after.step) == int(state.step) + 1
    assert_equal_trees(after._replace(step=state.step, mean_loss=state.mean_loss), state)
    assert float(after.mean_loss) == pytest.approx(float(state.mean_loss))
    resumed, metrics = skipping.step(after)
    assert not bool(metrics.bad)
    assert np.abs(resumed.params["head"]["kernel"] - state.params["head"]["kernel"]).max() > 0
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(resumed))


def test_a_good_step_is_not_skipped(skipping):
    start = skipping.start()
    unwatched = Toy(optimizer__ema_decay=0.5)
    assert_equal_trees(skipping.step(start)[0].params, unwatched.step(start)[0].params)


@pytest.mark.parametrize("kind", BAD)
def test_where_bad_steps_stop_the_run_they_are_reported(kind):
    toy = Toy()
    _, metrics = toy.step(toy.start(), **BAD[kind])
    assert bool(metrics.bad)


def test_a_spike_is_measured_from_the_running_mean(skipping):
    state, mean = skipping.start(), 0.0
    for loss in (9.0, 8.0, 7.0):
        state, metrics = skipping.step(state, loss=loss)
        assert not bool(metrics.bad)
        mean = loss if mean == 0 else LOSS_MEMORY * mean + (1 - LOSS_MEMORY) * loss
    assert float(state.mean_loss) == pytest.approx(mean)
    assert not bool(skipping.step(state, loss=mean + 1.9)[1].bad)
    after, metrics = skipping.step(state, loss=mean + 2.1)
    assert bool(metrics.bad)
    assert float(after.mean_loss) == pytest.approx(
        LOSS_MEMORY * mean + (1 - LOSS_MEMORY) * (mean + 2.1)
    )
    after, metrics = skipping.step(state, loss=1e30)  # threshold 2: no more than that
    assert float(after.mean_loss) == pytest.approx(mean + 2)


def test_a_loss_that_stays_high_is_no_spike_for_ever(skipping):
    """The first update of a run goes astray, by 5 nats where 2 are a spike: once the mean has
    followed, training goes on. 5 x 0.98^n < 2: n = 46 of the steps after it are left out."""
    state, _ = skipping.step(skipping.start(), loss=5.0)
    bad = []
    for _ in range(60):
        state, metrics = skipping.step(state, loss=10.0)
        bad.append(bool(metrics.bad))
    assert bad == [True] * 46 + [False] * 14


def test_a_bad_first_step_does_not_make_spikes_of_the_next(skipping):
    state, metrics = skipping.step(skipping.start(), loss=float("nan"))
    assert bool(metrics.bad)
    state, metrics = skipping.step(state, loss=9.0)
    assert not bool(metrics.bad)
    assert float(state.mean_loss) == 9.0


def test_without_a_threshold_no_loss_is_a_spike():
    toy = Toy()
    state, _ = toy.step(toy.start(), loss=1.0)
    assert not bool(toy.step(state, loss=1e6)[1].bad)


# --- losses and randomness ----------------------------------------------------------------------


def test_cross_entropy_sums_against_numpy():
    random = np.random.default_rng(0)
    logits = random.normal(size=(2, 5, 7)) * 5
    targets, weights = random.integers(0, 7, (2, 5)), random.integers(0, 2, (2, 5)).astype(float)
    log_normaliser = np.log(np.exp(logits).sum(-1))
    losses = log_normaliser - np.take_along_axis(logits, targets[..., None], -1)[..., 0]
    sums = cross_entropy_sums(jnp.asarray(logits), jnp.asarray(targets), jnp.asarray(weights))
    np.testing.assert_allclose(sums.cross_entropy, (weights * losses).sum(), rtol=1e-5)
    np.testing.assert_allclose(sums.z_loss, (weights * log_normaliser**2).sum(), rtol=1e-5)
    assert float(sums.weight) == weights.sum()


def test_dropout_keys_are_a_function_of_seed_and_step():
    def key(seed: int, step: int) -> tuple[int, ...]:
        changes = {"model.dropout_residual": 0.1}
        config = overrides.override(Config(), changes)
        made = make_steps(config, make_gpt(config.model)).key(jnp.uint32(seed), jnp.int32(step))
        assert made is not None
        return tuple(np.asarray(jax.random.key_data(made)).tolist())

    keys = [key(seed, step) for seed in (0, 1) for step in (0, 1, 2)]
    assert len(set(keys)) == len(keys)
    assert key(1, 2) == keys[-1]
    plain = make_steps(Config(), make_gpt(Config().model))
    assert plain.key(jnp.uint32(0), jnp.int32(0)) is None


# --- the compiled program -----------------------------------------------------------------------


class Compiled(NamedTuple):
    steps: CompiledSteps
    settings: Settings
    config: Config
    layout: Layout

    def batches(self, sequences: int, capacity: int = 1) -> Batch:
        """`capacity` different batches of so many sequences, on the device."""
        shape = (capacity, sequences, 9)
        tokens = np.random.default_rng(0).integers(0, 16, shape).astype(np.int32)
        weights = np.ones((capacity, sequences, 8), np.float32)
        batches = Batch(tokens[..., :-1], tokens[..., 1:], weights, None)
        return jax.device_put(batches, self.layout.batches)

    def count(self, n_steps: int) -> jax.Array:
        return put_count(n_steps, self.layout.everywhere)


@pytest.fixture(scope="module")
def compiled() -> Compiled:
    changes = {
        "model.vocab_size": 16,
        "model.seq_len": 8,
        "model.n_layers": 1,
        "model.d_model": 8,
        "model.n_heads": 1,
        "model.norm": "rmsnorm",
        "model.bias": False,
        "model.position": "none",
        "optimizer.name": "sgd",
        "optimizer.ema_decay": 0.5,
        "optimizer.learning_rate": 0.1,
        "train.batch_sequences": 4,
        "train.tokens": 1000,
    }
    config = overrides.override(Config(), changes)
    layout = make_layout(config, jax.devices()[:1])
    model = make_gpt(config.model, config.compute, layout)
    steps = compile_steps(config, model, layout)
    settings = jax.device_put(make_settings(config, make_timetable(config)), layout.everywhere)
    return Compiled(steps, settings, config, layout)


def test_the_step_is_one_program_a_batch_size_in_place_and_without_transfers(compiled):
    """In one test, because each of these needs the compiled program."""
    steps = compiled.steps
    state = steps.init(jax.random.key(0))
    four, two, one = compiled.batches(4), compiled.batches(2), compiled.count(1)
    first_loss = None
    for _ in range(3):
        before = jax.tree.leaves(state)
        state, metrics = steps.train(state, four, one, compiled.settings)
        assert all(x.is_deleted() for x in before), "the old state is not donated"
        first_loss = float(metrics.loss[0]) if first_loss is None else first_loss
    assert steps.train._cache_size() == 1
    with jax.transfer_guard("disallow"):
        for _ in range(3):
            state, metrics = steps.train(state, four, one, compiled.settings)
    assert steps.train._cache_size() == 1
    assert float(metrics.loss[0]) < first_loss
    assert int(state.step) == 6
    state, _ = steps.train(state, two, one, compiled.settings)
    assert steps.train._cache_size() == 2
    program = steps.train.lower(state, four, one, compiled.settings).compile().as_text()
    state_arrays = re.compile(r" copy\((f32\[[\d,]+\]\S* )?%state_(params|opt_state)")
    assert "%state_params" in program
    assert not state_arrays.search(program), "the step keeps a copy of the old state"
    # The state comes back as it went in: else the next step would be compiled again.
    leaves = zip(jax.tree.leaves(state), jax.tree.leaves(steps.abstract_state), strict=True)
    for got, planned in leaves:
        assert (got.shape, got.dtype) == (planned.shape, planned.dtype)
        assert got.sharding == planned.sharding


def test_steps_of_one_call_are_the_same_bits_however_they_are_grouped(compiled):
    """6 steps as 6 calls of one program, 2 calls, or one; and as steps without a loop around."""
    steps, batches = compiled.steps, compiled.batches(4, 6)

    def run(sizes: list[int]) -> tuple[TrainState, list[float]]:
        state, losses, done = steps.init(jax.random.key(0)), [], 0
        for n in sizes:
            rest = jax.tree.map(lambda x: jnp.roll(x, -done, axis=0), batches)  # noqa: B023
            rest = jax.device_put(rest, compiled.layout.batches)
            state, metrics = steps.train(state, rest, compiled.count(n), compiled.settings)
            assert metrics.loss.shape == (6,)
            losses += metrics.loss[:n].tolist()
            done += n
        return state, losses

    programs = steps.train._cache_size()
    state, losses = run([1] * 6)
    assert len(set(losses)) == 6
    for sizes in ([4, 2], [6]):
        other_state, other_losses = run(sizes)
        assert other_losses == losses
        assert_equal_trees(other_state, state)
    assert steps.train._cache_size() == programs + 1
    plain, plain_losses = steps.init(jax.random.key(0)), []
    for i in range(6):
        batch = jax.tree.map(lambda x: x[i : i + 1], batches)  # noqa: B023
        batch = jax.device_put(batch, compiled.layout.batches)
        plain, metrics = steps.train(plain, batch, compiled.count(1), compiled.settings)
        plain_losses.append(float(metrics.loss[0]))
    assert plain_losses == pytest.approx(losses, rel=1e-6)


def test_runs_that_differ_in_settings_share_the_program_and_not_the_numbers(compiled):
    base = compiled.config
    changes = {
        "seed": 7,
        "train.tokens": 900,
        "optimizer.learning_rate": 0.01,
        "optimizer.b1": 0.5,
        "optimizer.weight_decay": 0.0,
        "optimizer.clip_norm": 0.1,
        "schedule.name": "constant",
        "model.init_std": 0.1,
    }
    other = overrides.override(base, changes)
    layout = make_layout(base, jax.devices()[:1])
    assert program_config(other) == program_config(base) != base
    steps = compile_steps(other, make_gpt(other.model, other.compute, layout), layout)
    assert steps.train is compiled.steps.train
    programs = steps.train._cache_size()
    losses = []
    for config, init in ((base, compiled.steps.init), (other, steps.init)):
        settings = jax.device_put(make_settings(config, make_timetable(config)), layout.everywhere)
        state = init(jax.random.key(config.seed))
        for _ in range(3):
            state, metrics = steps.train(state, compiled.batches(4), compiled.count(1), settings)
        losses.append(float(metrics.loss[0]))
        rate = config.optimizer.learning_rate
        assert float(metrics.learning_rate[0]) == pytest.approx(rate, rel=0.2)
    assert steps.train._cache_size() == programs
    assert abs(losses[0] - losses[1]) > 0.01


@pytest.mark.parametrize(
    "change",
    [
        {"optimizer.clip_norm": None},
        {"optimizer.name": "adamw"},
        {"optimizer.ema_decay": None},
        {"train.z_loss": 0.1},
        {"model.d_model": 16},
        {"compute.remat": "full"},
    ],
)
def test_what_changes_the_program_is_in_its_config(compiled, change):
    assert program_config(overrides.override(compiled.config, change)) != program_config(
        compiled.config
    )
