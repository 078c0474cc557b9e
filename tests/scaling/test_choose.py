"""Which runs next: the planted target, the linear update, what buys nothing, the command."""

import csv
import json

import numpy as np
import pytest

from gpt_jax.cli import main
from gpt_jax.scaling.choose import believe, plan
from gpt_jax.sweep.load import read_sweep


def planted(n, d):
    return 1.7 + 400 / n**0.34 + 1500 / d**0.36


@pytest.fixture(scope="module")
def study():
    """12 runs, 36 candidates and a target: variables (M, 2), losses, places."""
    rng = np.random.default_rng(0)
    n, d = (g.ravel() for g in np.meshgrid(np.geomspace(1e7, 1e9, 6), np.geomspace(3e8, 3e10, 6)))
    seen = np.concatenate([np.arange(3), np.arange(6, 9), np.arange(12, 15), np.arange(18, 21)])
    x = np.log(np.concatenate([[n[seen], d[seen]], [n, d], [[1e10], [2e11]]], 1).T)
    loss = planted(*np.exp(x[:12].T)) * np.exp(0.002 * rng.standard_normal(12))
    return x, loss, np.arange(12, 48), np.array([48])


def test_target_is_predicted_within_its_deviation(study):
    x, loss, _, target = study
    belief = believe(x, np.arange(12), loss)
    truth = planted(1e10, 2e11)
    assert abs(belief.mean[48] - truth) < 3 * belief.deviation(target)
    assert sum(belief.weights.values()) == pytest.approx(1)


def test_a_run_that_is_far_off_does_not_decide_the_target(study):
    """One of 36 runs is 20% too high; least squares moves the target by ten times as much."""
    x, _, runs, _ = study
    loss = planted(*np.exp(x[runs].T)) * np.exp(0.002 * np.random.default_rng(1).normal(size=36))
    off = loss * np.where(np.arange(36) == 20, 1.2, 1.0)
    right, belief = (believe(x, runs, values) for values in (loss, off))
    design = np.column_stack([np.ones(49), x, x**2, x[:, 0] * x[:, 1]])
    least = [np.exp(design[48] @ np.linalg.lstsq(design[runs], np.log(v), rcond=None)[0])
             for v in (loss, off)]  # fmt: skip
    moved = abs(belief.mean[48] - right.mean[48])
    assert moved < 0.1 * abs(least[1] - least[0])


def test_what_no_polynomial_follows_is_a_misfit():
    """Losses that saturate above a size: a misfit has the weight, and predicts between the runs."""
    n, d = (g.ravel() for g in np.meshgrid(np.geomspace(1e7, 1e9, 12), np.geomspace(3e8, 3e10, 6)))
    loss = 2 + 0.3 * np.maximum(0, np.log10(3e7 / n)) + 300 / d**0.3
    rng = np.random.default_rng(0)
    loss *= np.exp(0.002 * rng.standard_normal(n.size))
    x, seen = np.log([n, d]).T, np.flatnonzero(rng.random(n.size) < 0.6)
    belief = believe(x, seen, loss[seen])
    assert sum(w for name, w in belief.weights.items() if "misfit" in name) > 0.9
    rest = np.setdiff1d(np.arange(n.size), seen)
    z = np.column_stack([np.ones(n.size), x, x**2, x[:, 0] * x[:, 1]])
    quadratic = z[rest] @ np.linalg.lstsq(z[seen], loss[seen], rcond=None)[0]
    assert np.std(loss[rest] - belief.mean[rest]) < 0.75 * np.std(loss[rest] - quadratic)


def test_first_step_is_the_candidate_whose_conditioning_leaves_the_least_variance(study):
    """By the whole covariance matrix, as textbooks condition a normal distribution."""
    x, loss, candidates, target = study
    belief = believe(x, np.arange(12), loss)
    cov = belief.root @ belief.root.T
    t = target[0]
    left = [cov[t, t] - cov[t, c] ** 2 / (cov[c, c] + belief.noise[c]) for c in candidates]
    one, _ = plan(belief, target, candidates, np.ones(49), 1.0, most=1)
    assert one[0].place == candidates[int(np.argmin(left))]
    assert one[0].after == pytest.approx(min(left) ** 0.5)
    two, _ = plan(belief, target, candidates, np.ones(49), 2.0, most=2)
    a, b = (chosen.place for chosen in two)
    block = cov[np.ix_([a, b], [a, b])] + np.diag(belief.noise[[a, b]])
    both = cov[t, t] - cov[t, [a, b]] @ np.linalg.solve(block, cov[[a, b], t])
    assert two[-1].after == pytest.approx(both**0.5)  # conditioned on both at once


def test_plan_keeps_the_budget_and_says_when_nothing_is_bought(study):
    x, loss, candidates, target = study
    cost = np.exp(x.sum(1))
    belief = believe(x, np.arange(12), loss)
    chosen, _ = plan(belief, target, candidates, cost, 5e18)
    assert 0 < sum(c.cost for c in chosen) <= 5e18
    assert all(c.after < c.before for c in chosen)
    nothing, done = plan(belief, target, candidates, cost, 1e30, nothing=0.9999)
    assert (nothing, done) == ([], True)
    unaffordable, done = plan(belief, target, candidates, cost, 1.0)
    assert (unaffordable, done) == ([], False)


def test_plan_leaves_less_variance_than_as_dear_random_runs(study):
    x, loss, candidates, target = study
    cost, t = np.exp(x.sum(1)), target[0]
    belief = believe(x, np.arange(12), loss)
    cov = belief.root @ belief.root.T
    chosen, _ = plan(belief, target, candidates, cost, 5e18, nothing=0.0)
    rng = np.random.default_rng(1)
    for _ in range(20):
        budget, taken = 5e18, []
        for place in rng.permutation(candidates):
            if cost[place] <= budget:
                taken.append(place)
                budget -= cost[place]
        block = cov[np.ix_(taken, taken)] + np.diag(belief.noise[taken])
        left = cov[t, t] - cov[t, taken] @ np.linalg.solve(block, cov[taken, t])
        assert chosen[-1].after < left**0.5


def test_a_learning_rate_is_a_dimension_where_cells_have_several(tmp_path, capsys):
    """Planted bowls whose best learning rate falls with N: it comes out at the target, and the
    runs that are written have learning rates."""
    path = tmp_path / "runs.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["n_params", "n_tokens", "loss", "learning_rate"])
        for n in np.geomspace(1e7, 1e9, 4):
            for d in np.geomspace(3e8, 3e10, 3):
                for rate in np.geomspace(1e-4, 1e-2, 5):
                    bowl = 0.02 * np.log(rate / (1e-3 * (n / 1e8) ** -0.3)) ** 2
                    writer.writerow([n, d, planted(n, d) * np.exp(bowl), rate])
    out, document = tmp_path / "chosen.py", tmp_path / "next.json"
    target = ["--budget", "1e21", "--target", "1e21", "--most", "3"]
    command = ["next", str(path), *target, "--json", str(document)]
    assert main([*command, "--out", str(out)]) == 0
    assert "differ in learning rate, which is varied" in capsys.readouterr().out
    found = json.loads(document.read_text())
    best = 1e-3 * (found["n_params"] / 1e8) ** -0.3
    assert found["learning_rate"] == pytest.approx(best, rel=0.8)  # steps of the search are 1.78
    assert all(",lr=" in run["run"] for run in found["runs"])
    trials = read_sweep(out, {}).trials
    rates = [float(run["run"].partition(",lr=")[2]) for run in found["runs"]]
    assert [t.config.optimizer.learning_rate for t in trials] == pytest.approx(rates, rel=0.01)
    assert main([*command, "--vary", "none"]) == 0
    assert "differ in learning rate" not in capsys.readouterr().out
    assert json.loads(document.read_text())["learning_rate"] is None


def test_command_chooses_and_writes_a_sweep(tmp_path, study, capsys):
    x, loss, _, _ = study
    path = tmp_path / "runs.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["n_params", "n_tokens", "loss"])
        writer.writerows([*np.exp(row), value] for row, value in zip(x[:12], loss, strict=True))
    out, document = tmp_path / "chosen.py", tmp_path / "next.json"
    options = ["--budget", "1e20", "--target", "1e22", "--most", "3"]
    written = ["--out", str(out), "--json", str(document)]
    assert main(["next", str(path), *options, *written]) == 0
    found = json.loads(document.read_text())
    assert 1 <= len(found["runs"]) <= 3
    assert sum(run["cost"] for run in found["runs"]) <= 1e20
    assert main(["sweep", "plan", str(out), "--chip", "h100"]) == 0
    sweep = read_sweep(out, {})
    assert len(sweep.trials) == len(found["runs"])
    capsys.readouterr()
    assert main(["next", str(path), *options[:4], "--most", "0"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    poor = ["next", str(path), "--budget", "1", "--target", "1e22"]
    assert main([*poor, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "the cheapest candidate costs" in said
    assert "not written, no run was chosen" in said
    assert len(read_sweep(out, {}).trials) == len(found["runs"])
    own = tmp_path / "own.py"
    own.write_text("mine = 1\n")
    assert main([*poor, "--out", str(own)]) == 2
    assert "there is another file" in capsys.readouterr().err
    assert own.read_text() == "mine = 1\n"
