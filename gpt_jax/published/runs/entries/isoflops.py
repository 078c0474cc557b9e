"""IsoFLOP studies gathered by Open Athena. Must not import jax."""

from gpt_jax.published.runs.entry import (
    NOT_SEEN,
    TABLE,
    Check,
    File,
    Form,
    Record,
    RunsEntry,
    parameters,
    raw,
)

_REPOSITORY = "Open-Athena/scaling-law-analysis"
_COMMIT = "bb2a20e570ab5ba71c9659da429baf4cbb09f03b"
_LLAMA = "group=llama_3__raw_loss"


def _run(record: Record) -> str:
    return f"{record['experiment']} C={record['budget']} N={record['params']}"


ENTRY = RunsEntry(
    name="isoflops",
    title="IsoFLOP studies gathered: Chinchilla (read off twice), Llama 3, Marin on three corpora",
    authors="Czech et al. 2026",
    paper="2603.22339",
    licence=NOT_SEEN,
    repository=_REPOSITORY,
    commit=_COMMIT,
    forms=(
        Form(
            (
                File(
                    "isoflops.csv",
                    raw(_REPOSITORY, _COMMIT, "data/isoflops/extract/isoflops.csv"),
                ),
            ),
            {
                "run": _run,
                "group": "experiment",
                "n_params": "params",
                "n_tokens": "tokens",
                "flops": "budget",
                "loss": "loss",
                "corpus": "dataset",
                "setting_model": "model",
                "setting_source": "source",
            },
        ),
    ),
    constants={"convention": "N and D as in each study; losses of other units in each"},
    rows=None,
    verified="columns, and the 133 rows of Llama 3: with them the second fit below comes out "
    "to the digits of its grid; the file was not read whole, so its digest is not known",
    checks=(
        Check(
            (
                (
                    "fit", TABLE, "--law", "chinchilla-isoflop", "--where", _LLAMA,
                    "--bootstrap", "200",
                ),
            ),
            parameters({"a": "0.4632", "b": "0.5368"}),
            "analysis/results/isoflop_comparison.md",
            "Llama 3, approach 2: parabolas through all sizes there, local ones here",
        ),
        Check(
            (
                (
                    "fit", TABLE, "--law", "chinchilla-parametric", "--objective", "l2",
                    "--space", "linear", "--where", _LLAMA, "--bootstrap", "200",
                ),
            ),
            parameters(
                {"E": "0.6048", "A": "59.14", "B": "156.22", "alpha": "0.3100", "beta": "0.3140",
                 "a": "0.5032"}
            ),
            "analysis/results/isoflop_comparison.md",
            "Llama 3, approach 3: exponents on a grid of 0.001 there",
        ),
    ),
    notes=("choose a study with --where group=...; losses of different studies do not compare",),
)  # fmt: skip
