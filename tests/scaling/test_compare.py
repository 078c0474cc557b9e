"""`gpt-jax compare`: planted multipliers, seeds, refusals, figures, the committed runs."""

import csv
import json

import numpy as np
import pytest

from gpt_jax.cli import main
from gpt_jax.scaling.compare import _compare_cost, compare
from gpt_jax.scaling.pair_law import SHARED, PairLaw
from gpt_jax.scaling.rungs import make_ladder, seed_tests
from gpt_jax.scaling.table import RunTable, make_table

TIMES = 1.8


def loss(compute, times=1.0, exponent=0.15):
    """1.7 + 1.2 (times C / 1e19)^-exponent: `times` is the compute multiplier."""
    return 1.7 + 1.2 * (times * compute / 1e19) ** -exponent


def ladder(name, times, seed=0, sigma=0.0, n_seeds=1, shift=None):
    rng = np.random.default_rng(seed)
    compute = np.repeat(np.geomspace(1e18, 1e21, 5), n_seeds)
    noise = sigma * rng.standard_normal(compute.size) + (0 if shift is None else np.tile(shift, 5))
    size = np.sqrt(compute / 120)
    table = make_table(n_params=size, flops=compute, loss=loss(compute, times) * np.exp(noise))
    labels = {"seed": tuple(str(k % n_seeds) for k in range(compute.size))}
    return make_ladder(name, RunTable(table.quantities, labels, table.conventions))


def test_planted_multiplier_is_found_without_noise():
    found = compare(ladder("A", 1.0), ladder("B", TIMES), at_flops=1e20).costs[0]
    assert found.target.value == pytest.approx(TIMES, rel=1e-4)
    assert [point.value for point in found.curve] == pytest.approx([TIMES] * 9, rel=1e-3)
    at_loss = compare(ladder("A", 1.0), ladder("B", TIMES), at_loss=2.4).costs[0].target
    assert at_loss.value == pytest.approx(TIMES, rel=1e-4)
    assert loss(at_loss.cost, TIMES) == pytest.approx(2.4)  # what B spends there
    tokens = compare(ladder("A", 1.0), ladder("B", TIMES), at_loss=2.4).costs[1]
    assert tokens.target.value == pytest.approx(TIMES**0.5, rel=1e-3)  # D grows as the root of C


@pytest.mark.slow
def test_intervals_hold_the_multiplier_at_their_nominal_rate():
    held = {80: 0, 95: 0}
    for seed in range(200):
        pair = ladder("A", 1.0, 2 * seed, 0.003), ladder("B", TIMES, 2 * seed + 1, 0.003)
        target = _compare_cost(*pair, "compute", None, 1e20, None).target
        for level, (low, high) in target.intervals.items():
            held[level] += not (low > TIMES or high < TIMES)
    assert abs(held[80] / 200 - 0.80) < 0.08
    assert abs(held[95] / 200 - 0.95) < 0.05


def test_paired_seeds_see_what_unpaired_ones_do_not():
    shift = 0.02 * np.array([-1.0, 0.0, 1.0])  # of a seed, in both ladders
    a = ladder("A", 1.0, 0, 0.001, 3, shift)
    b = ladder("B", 1.1, 1, 0.001, 3, shift)
    paired = seed_tests(a, b)[-1]
    b_other = make_ladder("B", RunTable(b.runs.quantities, {}, b.runs.conventions))
    welch = seed_tests(a, b_other)[-1]
    assert paired.paired
    assert not welch.paired
    assert paired.p < 0.01 < 0.1 < welch.p


def test_p_values_are_those_of_scipy():
    from scipy import stats

    a, b = ladder("A", 1.0, 0, 0.01, 3), ladder("B", TIMES, 1, 0.01, 3)
    first = a.runs["loss"][:3], b.runs["loss"][:3]
    assert seed_tests(a, b)[0].p == pytest.approx(stats.ttest_rel(*first).pvalue)
    bare = make_ladder("B", RunTable(b.runs.quantities, {}, b.runs.conventions))
    expected = stats.ttest_ind(*first, equal_var=False).pvalue
    assert seed_tests(a, bare)[0].p == pytest.approx(expected)


@pytest.mark.parametrize("shared", SHARED)
def test_gradient_and_symbols_of_the_law(shared):
    law = PairLaw(shared, 3.0)
    rng = np.random.default_rng(0)
    theta = rng.uniform(0.1, 1, (1, len(law.symbols)))
    x = {"x": rng.uniform(1, 5, 6), "ladder": np.array([0.0, 1, 0, 1, 1, 0])}
    _, gradient = law.log_loss(theta, x)
    for place in range(theta.shape[1]):
        step = 1e-6 * np.eye(theta.shape[1])[place]
        rise = law.log_loss(theta + step, x)[0] - law.log_loss(theta - step, x)[0]
        assert gradient[0, place] == pytest.approx(rise[0] / 2e-6, abs=1e-7)
    assert law.from_log_symbols(law.log_symbols(theta)) == pytest.approx(theta)


def write(path, compute, losses, **labels):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["flops", "n_params", "loss", "bits_per_byte", *labels])
        for c, one in zip(compute, losses, strict=True):
            writer.writerow([c, (c / 120) ** 0.5, one, one / 3, *labels.values()])
    return str(path)


@pytest.mark.parametrize(
    ("label", "values", "said"),
    [
        ("tokenizer", ("gpt2", "llama"), "tokenizer differs: a has gpt2, b has llama"),
        ("validation", ("c4", "pile"), "validation differs"),
        ("corpus", ("c4", "pile"), "--allow corpus"),
        ("convention", ("N all", "N bare"), "convention differs"),
        ("loss_unit", ("nats", "bits"), "loss_unit differs"),
    ],
)
def test_incomparable_ladders_are_refused_by_name(tmp_path, capsys, label, values, said):
    compute = np.geomspace(1e18, 1e21, 5)
    paths = [
        write(tmp_path / f"{name}.csv", compute, loss(compute, times), **{label: value})
        for name, times, value in zip("ab", (1, TIMES), values, strict=True)
    ]
    assert main(["compare", *paths]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_bits_per_byte_compare_tokenizers_with_everything_written(tmp_path, capsys):
    compute = np.geomspace(1e18, 1e21, 5)
    wobble = 1 + 0.002 * np.array([1, -1, 0.5, -1, 1])
    a = write(tmp_path / "a.csv", compute, loss(compute) * wobble, tokenizer="x")
    b = write(tmp_path / "b.csv", compute, loss(compute, TIMES), tokenizer="y")
    out = tmp_path / "out"
    options = ["--metric", "bits_per_byte", "--json", str(out / "c.json"), "--plots", str(out)]
    assert main(["compare", a, b, *options]) == 0
    document = json.loads((out / "c.json").read_text())
    target = document["costs"]["compute"]["target"]
    low, high = target["intervals"]["95"]
    assert low < TIMES < high
    assert low < target["times"] < high
    assert len(document["costs"]["compute"]["held_out"]) == 2
    assert document["not_compared"]["seconds"]
    assert (out / "compare-compute.png").stat().st_size > 10_000
    drawn = (out / "compare-compute.svg").read_text()
    assert "10²⁰" in drawn
    assert "mathdefault" not in drawn  # figures parse no formulas: their ticks must not be one
    assert "A needs" in capsys.readouterr().out


def test_committed_ladders_of_one_recipe_do_not_differ(repository, capsys, tmp_path):
    """Two studies of one recipe on one text: the multiplier's interval holds 1."""
    runs = {
        name: str(repository / "experiments" / name / "runs.csv")
        for name in ("cpu_scaling", "ladder", "mup")
    }
    assert main(["compare", runs["cpu_scaling"], runs["mup"]]) == 2
    assert "corpus differs: cpu_scaling has stdlib (bdbe35d2137e)" in capsys.readouterr().err
    out = tmp_path / "found.json"
    where = ["--floors", "one-multiplier", "--json", str(out)]
    assert main(["compare", runs["cpu_scaling"], runs["ladder"], *where]) == 0
    low, high = json.loads(out.read_text())["costs"]["compute"]["target"]["intervals"]["95"]
    assert low < 1 < high


def test_mistakes_are_one_line(tmp_path, capsys):
    compute = np.geomspace(1e18, 1e21, 5)
    a = write(tmp_path / "a.csv", compute, loss(compute))
    short = write(tmp_path / "s.csv", compute[:1], loss(compute[:1]))
    for given, said in (
        ([a], "1 ladders given"),
        ([a, short], "one rung"),
        ([a, str(tmp_path / "no")], "no table of runs"),
        ([a, "--by", "colour"], "has the columns"),
        ([a, a, "--at-loss", "0.5"], "no compute reaches it"),
        ([a, a, "--allow", "everything"], "allowed are"),
    ):
        assert main(["compare", *given]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
