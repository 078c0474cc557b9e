"""Learning from a teacher: the loss by hand, its gradient, and runs that learn from a run."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from once import once
from tiny_run import N_STEPS, Workspace, make_workspace, records
from xla_flags import simulated_devices

from gpt_jax import cli
from gpt_jax.config import ComputeConfig, Config, DistillConfig, ModelConfig, overrides
from gpt_jax.cost import blocks
from gpt_jax.data.batch import Batch
from gpt_jax.models.gpt import make_gpt
from gpt_jax.objectives.distillation import Teacher, distillation_loss, divergence
from gpt_jax.objectives.in_parts import token_parts
from gpt_jax.objectives.pretraining import batch_loss
from gpt_jax.runs.directory import RunDirectory
from gpt_jax.steps.program import make_steps

STUDENT = ModelConfig(vocab_size=29, seq_len=16, n_layers=1, d_model=8, n_heads=2)
LARGER = ModelConfig(vocab_size=29, seq_len=32, n_layers=2, d_model=16, n_heads=2)
COMPUTE = ComputeConfig(dtype="float32", attention="reference", products="plain")
RANDOM = np.random.default_rng(0)


def away_from_start(model, seed):
    """Parameters whose predictions differ from even ones."""
    return jax.tree.map(lambda x: 8 * x, jax.jit(model.init)(jax.random.key(seed)))


@pytest.fixture(scope="module")
def models():
    student, larger = make_gpt(STUDENT, COMPUTE), make_gpt(LARGER, COMPUTE)
    tokens = RANDOM.integers(0, 29, (3, 17), np.int32)
    batch = Batch(tokens[:, :-1], tokens[:, 1:], RANDOM.random((3, 16)) < 0.7, None)
    return student, away_from_start(student, 0), Teacher(larger, away_from_start(larger, 1)), batch


@pytest.mark.smoke
def assert_sums_equal(ones, others):
    """Sums over tokens, some of which cancel: within a few roundings of the largest of all."""
    rounding = np.finfo(np.float32).eps * max(np.abs(x).max() for x in jax.tree.leaves(others))
    for one, other in zip(jax.tree.leaves(ones), jax.tree.leaves(others), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=4 * rounding)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_divergence_is_the_sum_over_the_vocabulary(temperature):
    teacher, student = RANDOM.normal(size=(2, 4, 7))
    p, q = (np.exp(x / temperature) for x in (teacher, student))
    p, q = p / p.sum(-1, keepdims=True), q / q.sum(-1, keepdims=True)
    expected = np.sum(p * np.log(p / q), axis=-1)
    np.testing.assert_allclose(divergence(teacher, student, temperature), expected, rtol=1e-5)
    np.testing.assert_allclose(divergence(teacher, teacher, temperature), np.zeros(4), atol=1e-6)


@pytest.mark.parametrize("n_parts", [1, 4])
def test_the_loss_is_made_of_whole_logits_and_flows_to_the_student_alone(
    models, n_parts, monkeypatch
):
    student, params, teacher, batch = models
    config = DistillConfig(teacher="somewhere", weight=0.3, temperature=2.0)
    monkeypatch.setattr(blocks, "LOGIT_BYTES", 4 * 3 * 16 * 32 // n_parts)
    assert token_parts(student, 3, 16) == n_parts

    def by_parts(params, taught):
        return distillation_loss(
            config, student, params, Teacher(teacher.model, taught), batch, 0.1
        )

    def whole(params):
        _, sums = batch_loss(student, params, batch)
        wanted = teacher.model.apply(teacher.params, batch.tokens_BT)[..., :29]
        apart_BT = divergence(wanted, student.apply(params, batch.tokens_BT)[..., :29], 2.0)
        apart = jnp.sum(batch.weights_BT * apart_BT)
        return 0.7 * sums.cross_entropy + 0.1 * sums.z_loss + 0.3 * 4 * apart, (sums, apart)

    ((mine, sums), gradients) = jax.jit(jax.value_and_grad(by_parts, (0, 1), has_aux=True))(
        params, teacher.params
    )
    (expected, (plain, apart)), gradient = jax.jit(jax.value_and_grad(whole, has_aux=True))(params)
    np.testing.assert_allclose(mine, expected, rtol=1e-5)
    np.testing.assert_allclose(sums.distillation, apart, rtol=1e-5)
    assert float(apart) > 1  # they differ, or there is nothing to learn
    np.testing.assert_allclose(sums.cross_entropy, plain.cross_entropy, rtol=1e-5)
    assert_sums_equal(gradients[0], gradient)
    assert not any(np.any(x) for x in jax.tree.leaves(gradients[1]))


def test_microbatches_add_up(models):
    student, params, teacher, batch = models
    batch = jax.tree.map(lambda x: np.concatenate([x, x[:1]]), batch)
    found = []
    for n in (1, 2):
        config = overrides.override(
            Config(model=STUDENT, compute=COMPUTE),
            {
                "compute.microbatches": n,
                "distill.teacher": "somewhere",
                "train.batch_sequences": 4,
            },
        )
        steps = make_steps(config, student, teacher.model)
        found.append(steps.sum_gradients(params, batch, None, given=teacher.params))
    (gradients, sums), taught = found[0], config.distill
    assert float(sums.distillation) > 1
    expected = jax.grad(
        lambda params: distillation_loss(taught, student, params, teacher, batch)[0]
    )(params)
    assert_sums_equal(gradients, expected)
    assert_sums_equal(*found)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    return Workspace(once(tmp_path_factory, "tiny_run", make_workspace))


@pytest.fixture
def train(workspace, monkeypatch):
    """train(workdir, **changes) -> status, in this process with the shared caches."""
    for name, value in workspace.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(cli, "prepare_process", lambda: None)
    monkeypatch.setattr("gpt_jax.cost.cpu_speed.measured_cpu_peak", lambda dtype: 1e10)

    def run(workdir, **changes):
        flags = [f"--{key.replace('__', '.')}={value}" for key, value in changes.items()]
        command = ["train", str(workspace.config_file), "--workdir", str(workdir)]
        return cli.main([*command, *flags])

    return run


def test_a_run_learns_from_a_run_and_goes_on_after_a_kill(workspace, train, tmp_path, capsys):
    changes = {
        "distill__teacher": workspace.reference.path,
        "distill__weight": 1.0,
        "model__d_model": 8,
    }
    student, killed = RunDirectory(tmp_path / "student"), RunDirectory(tmp_path / "killed")
    assert train(student.path, **changes) == 0
    assert "learns from" in capsys.readouterr().err
    apart = [r["distillation_loss"] for r in records(student) if "distillation_loss" in r]
    assert len(apart) == N_STEPS
    assert apart[-1] < 0.7 * apart[0]  # by the teacher's predictions, with no word of the text
    result = student.read_result()
    assert result["teacher_flops"] > result["flops"] / 3  # a larger model's forward passes
    assert cli.main(["generate", str(student.path), "--prompt=a", "--max-new-tokens=4"]) == 0

    shutil.copytree(student.path, killed.path)
    killed.result.unlink()
    shutil.rmtree(killed.checkpoints / str(N_STEPS))
    assert train(killed.path, **changes) == 0
    assert "continuing after step" in capsys.readouterr().err
    assert records(killed) == records(student)

    assert train(killed.path, **(changes | {"distill__weight": 0.5})) == 2
    assert "distill.weight" in capsys.readouterr().err


def test_on_four_devices_it_learns_as_on_one(workspace, train, tmp_path, monkeypatch):
    """A teacher's parameters are split over the mesh as its own training would split them."""
    changes = {
        "distill__teacher": workspace.reference.path,
        "train__tokens": 20 * 4 * 16,
        "train__ramp_from_sequences": "none",
        "train__ramp_tokens": 0,
        "compute__dtype": "float32",
        "compute__products": "plain",
        "model__dropout_residual": 0,
    }
    alone, split = RunDirectory(tmp_path / "alone"), RunDirectory(tmp_path / "split")
    assert train(alone.path, **changes) == 0
    flags = [f"--{key.replace('__', '.')}={value}" for key, value in changes.items()]
    monkeypatch.setenv("XLA_FLAGS", simulated_devices(4))
    done = workspace.train(split.path, *flags, "--mesh.fsdp=2", "--mesh.sequence=2")
    assert done.returncode == 0, done.stderr
    assert "fsdp 2 x sequence 2 x tensor 1" in done.stderr
    ones, others = ([r for r in records(run) if "loss" in r] for run in (alone, split))
    assert len(ones) == len(others) == 20
    for name in ("loss", "distillation_loss", "gradient_norm"):
        np.testing.assert_allclose([r[name] for r in ones], [r[name] for r in others], rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"distill__teacher": "nowhere"}, "not a run directory"),
        ({"distill__teacher": "TEACHER", "data__tokenizer": "char"}, "another tokenizer"),
        ({"distill__teacher": "TEACHER", "model__vocab_size": 300}, "model.vocab_size = 257"),
        ({"distill__teacher": "TEACHER", "model__seq_len": 32}, "reads 16 tokens"),
        ({"distill__teacher": "TEACHER", "model__n_experts": 4}, "does not go with"),
    ],
)
def test_mistakes_are_told(workspace, train, tmp_path, capsys, changes, said):
    given = {
        key: workspace.reference.path if value == "TEACHER" else value
        for key, value in changes.items()
    }
    assert train(tmp_path / "run", **given) == 2
    assert said in capsys.readouterr().err
