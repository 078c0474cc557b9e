"""Every file in configs/: it loads, is what its header says, and has the paper's counts."""

import ast
import json
import re
import shlex
from pathlib import Path
from typing import Any

import jax
import pytest

from gpt_jax.config import Config, OptimizerConfig
from gpt_jax.config.overrides import fingerprint, from_dict, load, parse_arguments, to_dict
from gpt_jax.config.timetable import make_timetable
from gpt_jax.cost.flops import count_parameters, training_flops
from gpt_jax.cost.hardware import chip
from gpt_jax.cost.state import state_bytes
from gpt_jax.models.gpt import make_gpt

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
FILES = sorted(CONFIGS.glob("*.py"))
GPT3 = ("125m", "350m", "760m", "1p3b", "2p7b", "6p7b", "13b", "175b")

N_PARAMS = {
    "nanogpt_shakespeare_char_cpu": 804_096,
    "nanogpt_shakespeare_char": 10_745_088,
    "gpt1": 116_534_784,
    "gpt2_124m": 124_439_808,
    "gpt2_355m": 354_823_168,
    "gpt2_774m": 774_030_080,
    "gpt2_1558m": 1_557_611_200,
}
"""Published to the unit, but nanoGPT's GPU model: 10.65M without 256 x 384 positions."""


def header(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text())) or ""


def one_line(path: Path) -> str:
    return " ".join(header(path).split())


def command_overrides(path: Path) -> dict[str, str]:
    """The overrides in the header's command, which must be for this file."""
    lines = header(path).replace("\\\n", " ").splitlines()
    verb = "finetune" if takes_base(path) else "train"
    commands = [shlex.split(line) for line in lines if line.strip().startswith(f"gpt-jax {verb}")]
    assert len(commands) == 1
    assert commands[0][:3] == ["gpt-jax", verb, f"configs/{path.name}"]
    if takes_base(path):
        base_run = "gpt1" if path.stem.startswith("gpt1_") else "finetune_base"
        assert commands[0][3:] == ["--from", f"runs/{base_run}"]
        return {}
    return parse_arguments(commands[0][3:])


def takes_base(path: Path) -> bool:
    return "get_config(base" in path.read_text()


def base(path: Path) -> Config | None:
    """What a config of fine-tuning changes; None for another."""
    return named("finetune_base") if takes_base(path) else None


def named(stem: str) -> Config:
    return load(CONFIGS / f"{stem}.py")


@pytest.mark.smoke
def test_all_the_papers_models_are_there() -> None:
    expected = {*N_PARAMS, *(f"gpt3_{size}" for size in GPT3)}
    assert expected <= {path.stem for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_loads_round_trips_and_runs_by_its_header(path: Path) -> None:
    config = load(path, base=base(path))
    assert config.name == path.stem
    again = from_dict(json.loads(json.dumps(to_dict(config))))
    assert again == config
    assert fingerprint(again) == fingerprint(config)
    load(path, command_overrides(path), base(path))


@pytest.mark.parametrize("stem", N_PARAMS)
def test_parameters_to_the_unit(stem: str) -> None:
    model = named(stem).model
    params = jax.eval_shape(make_gpt(model, backend="cpu").init, jax.random.key(0))
    assert count_parameters(model).n_params == N_PARAMS[stem]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == N_PARAMS[stem]


@pytest.fixture
def gpt3(shared_data: Path) -> dict[str, Any]:
    path = shared_data.parent / "papers" / "gpt3.json"
    if not path.is_file():
        pytest.skip(f"no table of GPT-3 at {path}")
    return json.loads(path.read_text())


@pytest.mark.parametrize("row", range(8), ids=GPT3)
def test_gpt3_is_its_tables(row: int, gpt3: dict[str, Any]) -> None:
    config = named(f"gpt3_{GPT3[row]}")
    model, train = config.model, config.train
    name, _, n_layers, d_model, n_heads, d_head, batch_tokens, lr = gpt3["table_2_1"]["rows"][row]
    assert model.n_layers == n_layers
    assert model.d_head == d_head
    assert config.optimizer.learning_rate == lr
    assert train.batch_sequences * model.seq_len == pytest.approx(batch_tokens, rel=0.05)
    assert model.d_model == (5120 if name == "13B" else d_model)
    assert model.n_heads == (16 if name == "XL" else n_heads)

    _, _, _, params_M, _ = gpt3["table_D_1_training_compute"]["rows"][row]
    digit = 1 if params_M < 1000 else 10 if params_M < 100_000 else 100
    params = jax.eval_shape(make_gpt(model, backend="cpu").init, jax.random.key(0))
    padding = (model.padded_vocab_size - model.vocab_size) * model.d_model
    stored = sum(leaf.size for leaf in jax.tree.leaves(params))
    for n_params in (count_parameters(model).n_params, stored - padding, stored):
        assert round(n_params / 1e6 / digit) * digit == params_M


@pytest.mark.parametrize("size", GPT3)
def test_gpt3_ramps_its_batch_and_sees_300_billion_tokens(size: str) -> None:
    config = named(f"gpt3_{size}")
    timetable = make_timetable(config)
    full_batch = config.train.batch_sequences * 2048
    assert 0 <= timetable.n_tokens - 300e9 < full_batch
    assert timetable.batch_sequences(0) * 2048 == 32_768
    assert 4e9 <= config.train.ramp_tokens <= 12e9
    last = timetable.stages[-1]
    assert last.batch_sequences == config.train.batch_sequences
    assert 0 <= timetable.tokens_before(last.first_step) - config.train.ramp_tokens < full_batch
    assert (config.schedule.warmup_tokens, config.schedule.decay_tokens) == (375e6, 260e9)


@pytest.mark.parametrize(
    ("stem", "n_steps", "step_tokens"),
    [
        ("nanogpt_shakespeare_char_cpu", 2_000, 12 * 64),
        ("nanogpt_shakespeare_char", 5_000, 64 * 256),
        ("gpt1", 3_051_758, 64 * 512),
        ("gpt2_124m", 572_205, 512 * 1024),
    ],
)
def test_steps(stem: str, n_steps: int, step_tokens: int) -> None:
    timetable = make_timetable(named(stem))
    assert timetable.n_steps == n_steps
    assert timetable.tokens_before(1) == step_tokens
    assert timetable.n_tokens == n_steps * step_tokens


def test_warmups_in_steps() -> None:
    for stem, n_steps in {
        "nanogpt_shakespeare_char_cpu": 100,
        "gpt1": 2000,
        "gpt2_355m": 2000,
    }.items():
        config = named(stem)
        assert make_timetable(config).step_after_tokens(config.schedule.warmup_tokens) == n_steps


@pytest.mark.parametrize(
    "path", [p for p in FILES if "chip-days" in p.read_text()], ids=lambda path: path.stem
)
def test_estimates_in_headers_can_be_computed_again(path: Path) -> None:
    text, config = one_line(path), load(path)
    cost = re.search(
        r"Time: estimate, ([\d,.]+) (\w+) chip-days at (\d+)% MFU, "
        r"([\d.]+) days on (\d+): (\S+) FLOPs",
        text,
    )
    state = re.search(r"State: ([\d.,]+) (GB|TB) of", text)
    assert cost is not None
    assert state is not None
    chip_days, name, mfu, days, n_chips, flops = cost.groups()
    computed = training_flops(config.model, make_timetable(config).n_tokens, "palm")
    rate = chip(name).peak("bfloat16") * int(mfu) / 100
    expected = computed / rate / 86_400
    assert float(flops) == pytest.approx(computed, rel=6e-3)
    assert float(chip_days.replace(",", "")) == pytest.approx(expected, rel=6e-3)
    assert float(days) == pytest.approx(expected / int(n_chips), rel=0.05)
    assert re.search(rf"Hardware: {n_chips} ", text)
    n_bytes = float(state[1].replace(",", "")) * {"GB": 1e9, "TB": 1e12}[state[2]]
    assert n_bytes == pytest.approx(state_bytes(config.model, OptimizerConfig()).total, rel=6e-3)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_counts_in_headers_are_those_of_the_config(path: Path) -> None:
    """`gpt-jax train CONFIG --dry-run` prints them; `gpt-jax plan CONFIG`, rounded."""
    text = one_line(path)
    said = {
        name: re.search(rf"([\d,]{{5,}}) {what}", text)
        for name, what in {
            "n_params": "parameters",
            "n_params_non_embedding": "of them not embeddings",
            "n_params_active": "compute one token",
            "tokens": "tokens, [\\d,]+ (steps|blocks)",
        }.items()
    }
    steps = re.search(r"([\d,]+) steps(?! of warmup|, as Gopher)", text)
    given = {name: int(found[1].replace(",", "")) for name, found in said.items() if found}
    if not given:
        pytest.skip("its header counts nothing in full")
    config = load(path)
    counts, table = count_parameters(config.model), make_timetable(config)
    expected = {
        "n_params": counts.n_params,
        "n_params_non_embedding": counts.n_params_non_embedding,
        "n_params_active": counts.n_params_active,
        "tokens": table.n_tokens,
    }
    if config.task.name != "language_model":  # its examples decide how long it is trained
        given.pop("tokens", None)
    assert given == {name: expected[name] for name in given}
    if steps and "Time:" in text and "tokens" in given:
        assert int(steps[1].replace(",", "")) == table.n_steps


@pytest.mark.parametrize("size", GPT3)
def test_gpt3_headers(size: str) -> None:
    path = CONFIGS / f"gpt3_{size}.py"
    text = one_line(path)
    frontier = re.search(r"is at ([\d.]+) nats .* this run's C = ([\d,.]+) PF-days", text)
    assert frontier is not None
    pf_days = training_flops(load(path).model, 300 * 10**9, "kaplan") / 8.64e19
    assert float(frontier[2].replace(",", "")) == pytest.approx(pf_days, rel=6e-3)
    assert frontier[1] == f"{2.57 * pf_days**-0.048:.2f}"
    shards = re.search(r"With shards of your own: (.*)$", text)
    assert shards is not None
    config = load(path, parse_arguments(shlex.split(shards[1])))
    assert (config.data.source, config.data.path, config.data.mixture) == ("shards", "DIR", ())
