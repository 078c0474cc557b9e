"""Settings by fitted laws: planted laws come out in trials, and what is too far is infeasible."""

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from gpt_jax.cli import main
from gpt_jax.config import Config, ModelConfig, overrides
from gpt_jax.cost.flops import count_parameters
from gpt_jax.scaling.bowls import VARIABLES
from gpt_jax.sweep.branches import wsd_branches
from gpt_jax.sweep.budget import flops_budgets, tokens_per_param_budgets
from gpt_jax.sweep.grid import chain, product, values
from gpt_jax.sweep.law_values import by_law
from gpt_jax.sweep.load import read_sweep
from gpt_jax.sweep.store import SweepDirectory
from gpt_jax.sweep.trial import Infeasible, Trial, make_trials

RATE, BATCH, DECAY = (2.0, -0.5, 0.2), (0.5, 0.45), (0.3, -0.4)
"""Scale and exponents: of N and D; of D; of D / N."""
BASE = Config(model=ModelConfig(vocab_size=256, seq_len=32, n_layers=2, d_model=32, n_heads=2))
SIZES = values("model.d_model", [32, 64])


@pytest.fixture(scope="module")
def laws(tmp_path_factory) -> str:
    """What `gpt-jax fit hyperparameters` writes of bowls without noise around the planted laws."""
    folder = tmp_path_factory.mktemp("laws")
    rows = []
    for n in (2e4, 2e5):
        for d in (1e6, 2e7):
            best = [RATE[0] * n ** RATE[1] * d ** RATE[2], BATCH[0] * d ** BATCH[1]]
            best += [DECAY[0] * (d / n) ** DECAY[1]]
            for x in np.stack(np.meshgrid(*[np.linspace(-1, 1, 4)] * 3), -1).reshape(-1, 3):
                loss = (1.5 + 50 / d**0.3) * np.exp(0.004 * x @ x)
                rows.append([n, d, loss, *(best * np.exp(x))])
    with (folder / "grid.csv").open("w") as file:
        header = ["n_params_non_embedding", "n_tokens", "loss", *VARIABLES]
        csv.writer(file).writerows([header, *rows])
    command = ["fit", "hyperparameters", str(folder / "grid.csv"), "--json"]
    columns = ["--columns", "n_params=n_params_non_embedding"]
    assert main([*command, str(folder / "laws.json"), *columns]) == 0
    return str(folder / "laws.json")


def test_trials_follow_the_planted_laws(laws):
    keys = ("optimizer.learning_rate", "optimizer.weight_decay")
    grid = product(
        SIZES,
        tokens_per_param_budgets([40, 160], "n_params_non_embedding"),
        *(by_law(key, laws) for key in keys),
        by_law("train.batch_sequences", laws, multiple=2),
    )
    trials = make_trials(BASE, grid)
    assert len(trials) == 4
    for trial in trials:
        assert isinstance(trial, Trial), trial.reason
        config = trial.config
        # The column was called so: N is counted as the law's runs counted it.
        n = count_parameters(config.model).n_params_non_embedding
        ratio = trial.varied["budget.tokens_per_param"]
        d = ratio * n
        assert config.optimizer.learning_rate == pytest.approx(
            RATE[0] * n ** RATE[1] * d ** RATE[2], rel=1e-4
        )
        assert config.optimizer.weight_decay == pytest.approx(
            DECAY[0] * ratio ** DECAY[1], rel=1e-4
        )
        exact = BATCH[0] * d ** BATCH[1] / config.model.seq_len
        assert config.train.batch_sequences == 2 * max(1, round(exact / 2))
        assert abs(config.train.tokens - d) <= config.train.batch_sequences * 32 / 2


def test_what_lies_too_far_is_infeasible_unless_told(laws):
    budget = tokens_per_param_budgets([40])
    far = values("model.d_model", [256])  # N of 1.6 million; the law's runs end at 200,000
    (cell,) = make_trials(BASE, product(far, budget, by_law("optimizer.learning_rate", laws)))
    assert isinstance(cell, Infeasible)
    assert "times beyond its runs (2e+04 to 2e+05); allowed: 2, set beyond=" in cell.reason
    allowed = by_law("optimizer.learning_rate", laws, beyond=10)
    (trial,) = make_trials(BASE, product(far, budget, allowed))
    assert isinstance(trial, Trial)
    n = count_parameters(trial.config.model).n_params_non_embedding
    assert trial.by_law[0].factor == pytest.approx(n / 2e5)


def test_the_plan_shows_it_and_the_sweep_records_the_file(laws, tmp_path, capsys):
    file = tmp_path / "study.py"
    file.write_text(
        "from gpt_jax.sweep.grid import product, values\n"
        "from gpt_jax.sweep.budget import tokens_per_param_budgets\n"
        "from gpt_jax.sweep.law_values import by_law\n"
        "from gpt_jax.sweep.trial import make_trials\n"
        "from gpt_jax.config import *\n"
        "BASE = Config(model=ModelConfig(vocab_size=256, seq_len=32, n_layers=2, d_model=64, "
        "n_heads=2))\n"
        "def get_sweep():\n"
        "    return make_trials(BASE, product(tokens_per_param_budgets([40, 80]),\n"
        f"        by_law('train.batch_sequences', {laws!r}),\n"
        f"        by_law('optimizer.learning_rate', {laws!r})))\n"
    )
    assert main(["sweep", "plan", str(file), "--chip", "h100"]) == 0
    shown = capsys.readouterr().out
    digest = hashlib.sha256(Path(laws).read_bytes()).hexdigest()[:12]
    formula = "2 N^-0.500 D^0.200"
    assert f"optimizer.learning_rate by laws.json (SHA-256 {digest}), bowls: {formula}" in shown
    sweep = read_sweep(file, {})
    for trial in sweep.trials:
        rate = trial.config.optimizer.learning_rate
        assert f"{trial.name}: {rate:.4g}" in shown
    assert [trial.name for trial in sweep.trials] == ["tokens_per_param=40", "tokens_per_param=80"]
    assert ", rounded from " in shown
    directory = SweepDirectory.create(tmp_path / "runs", "study", str(file), sweep.trials)
    saved = json.loads((directory.path / "sweep.json").read_text())["trials"]
    assert saved[0]["varied"]["law.optimizer.learning_rate"] == f"laws.json:{digest}"
    # What a command line sets is not the law's any more.
    (first, _) = read_sweep(file, {"optimizer.learning_rate": "0.5"}).trials
    assert "law.optimizer.learning_rate" not in first.varied
    assert [one.law.key for one in first.by_law] == ["train.batch_sequences"]


def test_branches_share_the_law_of_their_longest(laws):
    law = by_law("optimizer.learning_rate", laws)
    cells = wsd_branches(BASE, product(SIZES, law), [1_000_000, 4_000_000])
    assert all(isinstance(cell, Trial) for cell in cells)
    assert len(cells) == 6
    for width in (32, 64):
        mine = [c.config for c in cells if c.config.model.d_model == width]
        n = count_parameters(mine[0].model).n_params_non_embedding
        expected = RATE[0] * n ** RATE[1] * 4_000_000 ** RATE[2]
        assert [c.optimizer.learning_rate for c in mine] == pytest.approx([expected] * 3, rel=1e-3)


def test_a_law_beside_fixed_values_is_named_apart(laws):
    rates = chain(
        values("optimizer.learning_rate", [1e-3]), by_law("optimizer.learning_rate", laws)
    )
    names = [
        trial.name for trial in make_trials(BASE, product(tokens_per_param_budgets([60]), rates))
    ]
    assert names[0] == "optimizer.learning_rate=0.001"
    assert names[1].startswith("law.optimizer.learning_rate=laws.json_")


@pytest.mark.parametrize(
    ("arguments", "more", "said"),
    [
        (("optimizer.b1",), {}, "no law is of optimizer.b1; allowed: optimizer.learning_rate"),
        (("optimizer.learning_rate",), {"way": "both"}, "allowed: bowls, surface"),
        (("optimizer.learning_rate",), {"beyond": 0.5}, "allowed: a factor of 1 or more"),
        (("optimizer.learning_rate",), {"multiple": 8}, "multiple is of train.batch_sequences"),
        (("optimizer.learning_rate",), {"params": "n"}, "allowed: n_params"),
    ],
)
def test_mistakes_are_named(laws, arguments, more, said):
    with pytest.raises(ValueError, match=said):
        by_law(*arguments, laws, **more)


def test_files_that_are_no_laws_are_refused(laws, tmp_path):
    with pytest.raises(ValueError, match="No such file"):
        by_law("optimizer.learning_rate", tmp_path / "none.json")
    other = tmp_path / "fits.json"
    other.write_text('{"fits": []}')
    with pytest.raises(ValueError, match="damaged, or another program's: it has no 'law'"):
        by_law("optimizer.learning_rate", other)
    document = json.loads(Path(laws).read_text())
    del document["bowls"]["weight_decay"]
    other.write_text(json.dumps(document))
    with pytest.raises(ValueError, match="no law of weight_decay by bowls; it has learning_rate"):
        by_law("optimizer.weight_decay", other)


def test_two_settings_of_one_thing_are_refused(laws):
    law, budget = by_law("optimizer.learning_rate", laws), tokens_per_param_budgets([40])
    twice = product(budget, values("optimizer.learning_rate", [0.1]), law)
    with pytest.raises(ValueError, match="set both by a law and to 0"):
        make_trials(BASE, twice)
    (cell,) = make_trials(
        BASE, product(budget, law), lambda config: {"optimizer.learning_rate": 0.1}
    )
    assert "derive sets optimizer.learning_rate, which laws.json decides" in cell.reason
    with pytest.raises(ValueError, match=r"keys that begin with law\. are by_law's"):
        make_trials(BASE, values("law.optimizer.learning_rate", [0.1]))


def test_a_batch_and_a_flops_budget_settle(laws):
    """A batch decides how tokens are rounded; the law sees them before."""
    grid = product(flops_budgets([3e12, 3.01e12, 3.02e12]), by_law("train.batch_sequences", laws))
    for trial in make_trials(BASE, grid):
        assert isinstance(trial, Trial), trial.reason
        assert trial.config.train.tokens % (32 * trial.config.train.batch_sequences) == 0
        assert overrides.fingerprint(trial.config)
