"""Chains, curves, grids and mixtures: planted laws come out, published tables, users' mistakes."""

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from simulated_forms import (
    BATCH,
    CURVE_LAW,
    MIXTURE,
    RATE,
    curves,
    grid,
    ladder,
    mixtures,
    target_run,
    task_loss,
    task_score,
)

from gpt_jax.cli import main
from gpt_jax.scaling.bowls import cells_of, fit_cell, fit_surface, law_through
from gpt_jax.scaling.chain import Settings, fit_chain, trailing_mean
from gpt_jax.scaling.curve import Curve, curve_values, from_parameters, make_blocks
from gpt_jax.scaling.functions import LINKS
from gpt_jax.scaling.mixture import Exponential, fit_domain
from gpt_jax.scaling.schedules import best_schedule, fill_rates

TASKS = ("MMLU", "HellaSwag", "ARC-C", "ARC-E", "PIQA", "CSQA", "Social IQa", "OpenBookQA")


@pytest.fixture(scope="module")
def tables(shared_data: Path) -> Path:
    folder = shared_data / "runs"
    if not folder.is_dir():
        pytest.skip("the open tables of runs are not here")
    return folder


def published(path: Path) -> list[float]:
    with gzip.open(path, "rt") as file:
        return [float(row["Pred"]) for row in csv.DictReader(file)]


def gradient_by_differences(function, theta: np.ndarray, x: dict) -> np.ndarray:
    columns = []
    for p in range(theta.size):
        step = np.zeros(theta.size)
        step[p] = 1e-6 * max(1.0, abs(theta[p]))
        rise = function(theta[None] + step, x)[0] - function(theta[None] - step, x)[0]
        columns.append(rise[0] / (2 * step[p]))
    return np.array(columns)


@pytest.mark.parametrize(("link", "theta"), [
    ("sigmoid", [-0.7, 0.8, 5.0, 0.95]), ("exponential", [0.7, 0.4, 1.3]),
])  # fmt: skip
def test_gradients_of_links(link, theta):
    x = {"loss": np.linspace(0.4, 2, 9)}
    found = LINKS[link].values(np.array([theta]), x)[1][0]
    assert found == pytest.approx(
        gradient_by_differences(LINKS[link].values, np.array(theta), x), abs=1e-7
    )


def test_gradient_of_the_curve_and_the_mixture():
    (curve,) = curves(0, kinds=("cosine",))
    blocks, theta = make_blocks(curve), from_parameters(CURVE_LAW)
    found = curve_values(theta[None], blocks)[1][0]
    by_differences = gradient_by_differences(lambda t, _: curve_values(t, blocks), theta, {})
    assert found == pytest.approx(by_differences, rel=1e-5, abs=1e-7)
    law, x = Exponential(4, 9.0), {"shares": mixtures(0)[0]}
    found = law.values(MIXTURE[None], x)[1][0]
    assert found == pytest.approx(gradient_by_differences(law.values, MIXTURE, x), abs=1e-7)


def test_blocks_are_the_sum_over_steps():
    """The paper's sum, written out step by step, for a schedule with a jump."""
    rates = fill_rates(np.array([200, 500, 600, 900]), np.array([3e-4, 3e-4, 1e-4, 1e-4]), 100)
    assert rates[599] == 3e-4
    assert rates[600] == 1e-4
    v, sums = CURVE_LAW, np.cumsum(rates)
    curve = Curve("", rates, np.array([590, 610, 899]), np.full(3, np.nan))
    found = curve_values(from_parameters(v)[None], make_blocks(curve))[0][0]
    for t, value in zip(curve.steps, found, strict=True):
        k = np.arange(1, t + 1)
        reach = v["C"] * rates[k] ** -v["gamma"] * (sums[t] - sums[k - 1])
        drop = (rates[k] - rates[k - 1]) * (1 - (1 + reach) ** -v["beta"])
        right = v["L0"] + v["A"] * sums[t] ** -v["alpha"] + v["B"] * drop.sum()
        assert value == pytest.approx(right, rel=2e-4)


def test_trailing_mean_by_hand():
    assert trailing_mean(np.array([1.0, 2, 3, 8]), 2).tolist() == [1, 1.5, 2.5, 5.5]


@pytest.mark.parametrize("link", ["sigmoid", "exponential"])
def test_a_planted_chain_comes_out(link):
    exponential = link == "exponential"
    runs = ladder(0, exponential, sigma=0, offset=0)
    chain = fit_chain("task", runs, target_run(), Settings(link=link, average=1, n_refits=30))
    truth = task_loss(7e9, 2e12)
    assert chain.loss.value == pytest.approx(truth, abs=0.01)
    assert chain.score.value == pytest.approx(task_score(truth, exponential), abs=0.02)
    low, high = chain.score.intervals[95]
    assert low < chain.score.value < high


@pytest.mark.slow
def test_olmo_ladder_comes_out(tables, repository, tmp_path, capsys):
    """All eight tasks of the four tables to three digits, and C4, by the printed command."""
    out = tmp_path / "chain.json"
    spec = repository / "experiments" / "olmo_ladder" / "chain.json"
    arguments = ["--spec", str(spec), "--bootstrap", "0", "--json", str(out)]
    assert main(["fit", "chain", str(tables / "olmo_ladder.csv.gz"), *arguments]) == 0
    chains = {c["task"]: c["predictions"] for c in json.loads(out.read_text())["chains"]}
    for field, name in (
        ("loss", "step1"),
        ("score_from_loss", "step2"),
        ("score", "chained"),
        ("score_by_flops", "chained_flops"),
    ):
        right = published(tables / f"olmo_ladder_{name}_main.csv.gz")
        found = [chains[task][field]["value"] for task in TASKS]
        assert found == pytest.approx(right, abs=5e-4), field
    right = published(tables / "olmo_ladder_step1_c4_main.csv.gz")[0]
    assert chains["C4"]["loss"]["value"] == pytest.approx(right, abs=5e-4)
    assert "chained: score from N and D" in capsys.readouterr().out


def test_step_law_comes_out(tables, tmp_path):
    out = tmp_path / "laws.json"
    columns = "n_params=N,n_tokens=D,loss=smooth loss,learning_rate=lr,batch_tokens=bs"
    arguments = ["--tokens-per-sequence", "2048", "--columns", columns, "--json", str(out)]
    path = str(tables / "steplaw_dense.csv.gz")
    assert main(["fit", "hyperparameters", path, *arguments]) == 0
    document = json.loads(out.read_text())
    batch = document["bowls"]["batch_tokens"]
    assert batch["scale"] == pytest.approx(0.546, abs=5e-4)
    assert batch["exponents"]["n_tokens"] == pytest.approx(0.569, abs=5e-4)
    edges = [one["95"][1] for one in document["over_windows"]["learning_rate"]]
    assert min(e[0] for e in edges) < 0.197 < 0.307 < max(e[1] for e in edges)


@pytest.mark.parametrize(
    ("file", "columns", "exponents"),
    [
        # Equation 1, of runs in 42 cells; in 17 what the authors' code gives (their issue 10).
        (
            "active_sl_lr_bsz.csv.gz",
            "n_params=non_embedding_param_size,n_tokens=data_size,loss=lm_loss,batch_tokens=bsz",
            {"N": -0.713, "D": 0.307, "batch": 0.571},
        ),
        (
            "steplaw_dense.csv.gz",
            "n_params=N,n_tokens=D,loss=smooth loss,batch_tokens=bs",
            {"N": -0.7669, "D": 0.1967},
        ),
    ],
)
def test_step_laws_exponents_come_out_its_own_way(tables, tmp_path, file, columns, exponents):
    out = tmp_path / "laws.json"
    arguments = ["--columns", f"{columns},learning_rate=lr", "--tokens-per-sequence", "2048"]
    assert main(["fit", "hyperparameters", str(tables / file), *arguments, "--json", str(out)]) == 0
    near = json.loads(out.read_text())["near"]
    found = {
        "N": near["learning_rate"]["exponents"]["n_params"],
        "D": near["learning_rate"]["exponents"]["n_tokens"],
        "batch": near["batch_tokens"]["exponents"]["n_tokens"],
    }
    for name, right in exponents.items():
        assert found[name] == pytest.approx(right, abs=4e-3), name


def test_planted_grid_and_mixture_come_out():
    runs = grid(0, sigma=0, cell_sigma=0)
    cells = [fit_cell(runs.take(rows)) for rows in cells_of(runs)]
    for laws in ({n: law_through(cells, n) for n in runs.hyper}, fit_surface(runs)):
        assert laws["learning_rate"].exponents == pytest.approx(RATE[1:], abs=2e-3)
        assert laws["batch_tokens"].exponents == pytest.approx(BATCH[1:], abs=2e-3)
        assert np.exp(laws["batch_tokens"].log_scale) == pytest.approx(BATCH[0], rel=0.05)
    fit = fit_domain("domain", *mixtures(0, 40, sigma=0))
    assert fit.theta == pytest.approx(MIXTURE, abs=1e-4)


@pytest.mark.slow
def test_best_schedule_beats_plain_ones_and_never_rises():
    best = best_schedule(from_parameters(CURVE_LAW), 6000, 500, 3e-4)
    assert best.loss < min(best.others.values())
    assert (np.diff(best.rates) <= 0).all()


def write(path: Path, header: str, rows: list[str]) -> str:
    path.write_text("\n".join([header, *rows]) + "\n")
    return str(path)


def test_mistakes_are_one_line(tmp_path, capsys):
    table = write(tmp_path / "runs.csv", "step,lr,loss", ["1,0.1,3", "2,0.1,2", "1,0.1,4"])
    cases = (
        (["fit", "curve", table], "steps do not rise"),
        (["fit", "curve", table, "--loss", "lss"], "did you mean 'loss'?"),
        (["fit", "chain", table], "no task: name its column"),
        (["fit", "hyperparameters", table, "--columns", "lr=a"], "allowed are n_params"),
        (["fit", "mixture", table, "--shares", "lr", "--losses", "loss"], "shares sum to 0.1"),
    )
    for arguments, message in cases:
        assert main(arguments) == 2
        said = capsys.readouterr().err.strip()
        assert message in said
        assert said.count("\n") == 0


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"link": "spline"}, "link: input should be 'sigmoid' or 'exponential'"),
        ({"tasks": {"x": {}}}, "tasks.x.loss: field required"),
        ({"tasks": ["x"]}, "tasks: input should be a valid dictionary"),
        ({"average": "many"}, "average: input should be a valid integer"),
        ({"skip": 1}, "skip: input should be less than 1"),
        ({"n_params": 3}, "n_params.str: input should be a valid string"),
        ({"tasks": {"x": {"loss": {"b": 0}}}}, "tasks.x.loss"),
        ({"colour": 1}, "colour: extra inputs are not permitted"),
    ],
)
def test_a_wrong_spec_is_one_line(tmp_path, capsys, spec, message):
    table = write(tmp_path / "runs.csv", "run,n_params,n_tokens,b", ["a,1e6,1e7,3"])
    path = tmp_path / "spec.json"
    path.write_text(json.dumps({"tasks": {"x": {"loss": "b"}}} | spec))
    assert main(["fit", "chain", table, "--spec", str(path)]) == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert said.startswith(f"gpt-jax: {path}: ")
    assert said.count("\n") == 0


def test_evaluations_without_a_number_are_counted(tmp_path, capsys):
    rows = [f"r{r},{1e6 * 2**r},{(k + 1) * 1e7 * (r % 3 + 1)},{3 - 0.1 * r - 0.05 * k}"
            for r in range(8) for k in range(4)]  # fmt: skip
    table = write(tmp_path / "runs.csv", "run,n_params,n_tokens,b", [*rows, "r1,2e6,5e7,"])
    arguments = ["fit", "chain", table, "--loss", "b", "--bootstrap", "0"]
    assert main(arguments) == 0
    assert "b: 1 evaluations lack a loss or a score: left out" in capsys.readouterr().out
    both = ["--target", "r0", "--at", "n_params=1e9,n_tokens=1e9"]
    assert main([*arguments, *both]) == 2
    assert "give one" in capsys.readouterr().err


def test_options_of_tables_are_refused_for_a_run(tmp_path, capsys):
    assert main(["fit", "curve", str(tmp_path), "--warmup", "10"]) == 2
    assert "--warmup is for tables" in capsys.readouterr().err


def test_the_rest_of_a_run_needs_a_law_and_is_predicted(tmp_path, capsys):
    (curve,) = curves(0, kinds=("constant",))
    rows = [f"{s},{curve.rates[s]},{x}" for s, x in zip(curve.steps, curve.loss, strict=True)]
    table = write(tmp_path / "run.csv", "step,lr,loss", rows)
    then = ["--warmup", "1000", "--then", "cosine:steps=20000,end=3e-5"]
    assert main(["fit", "curve", table, *then]) == 2
    assert "--like LAW.json" in capsys.readouterr().err
    law = tmp_path / "law.json"
    law.write_text(json.dumps({"parameters": CURVE_LAW}))
    assert main(["fit", "curve", table, *then, "--like", str(law)]) == 0
    assert "step 19999: predicted" in capsys.readouterr().out
