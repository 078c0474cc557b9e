"""Loss curves under nine schedules of the multi-power law. Must not import jax."""

from collections.abc import Callable, Sequence
from typing import Any

from gpt_jax.published.runs.entry import (
    FILE,
    TABLE,
    Check,
    Columns,
    Document,
    File,
    Form,
    Number,
    Record,
    RunsEntry,
    Value,
    parameters,
)

_SIZES = ("25", "100")
_TRAIN = ("cosine_24000", "constant_24000", "wsdcon_9")
_TEST = (
    "constant_72000", "cosine_72000", "wsd_20000_24000", "wsdld_20000_24000", "wsdcon_3",
    "wsdcon_18",
)  # fmt: skip
_SYMBOLS = ("L0", "A", "alpha", "B", "C", "beta", "gamma")
_PRINTED = {
    "25": ("3.040", "0.525", "0.508", "363.8", "2.066", "0.583", "0.641", ".9988", ".409"),
    "100": ("2.651", "0.601", "0.453", "437.9", "2.132", "0.598", "0.655", ".9983", ".583"),
}


def _named(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Size and schedule from the name of each curve's file."""
    for record in records:
        folder, _, name = str(record[FILE]).partition("/")
        record["size"] = folder.removeprefix("csv_")
        record["schedule"] = name.removesuffix(".csv")
    return records


def _run(record: Record) -> str:
    return f"{record['size']}M {record['schedule']}"


_COLUMNS: Columns = {
    "run": _run,
    "step": "step",
    "loss": "loss",
    "learning_rate": "lr",
    "schedule": "schedule",
    "setting_size": "size",
}


def _held_out(
    what: str, of: Callable[[Sequence[float]], float], times: float
) -> Callable[[Sequence[Document]], Value]:
    """A figure of quality over the curves that were not fitted."""

    def pick(documents: Sequence[Document]) -> Value:
        curves = documents[0]["curves"]
        return Value(times * of([curves[name]["quality"][what] for name in _TEST]))

    return pick


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _check(size: str) -> Check:
    command = (
        "fit", "curve", TABLE, "--where", f"setting_size={size}", "--rate", "learning_rate",
        "--warmup", "2160", "--train", ",".join(_TRAIN), "--bootstrap", "200",
    )  # fmt: skip
    printed = _PRINTED[size]
    numbers = parameters(dict(zip(_SYMBOLS, printed, strict=False)))
    quality = (
        Number("R2, held out", printed[-2], _held_out("r2", _mean, 1.0)),
        Number("worst error, held out, %", printed[-1], _held_out("worst_error", _mean, 100.0)),
    )
    return Check((command,), numbers + quality, "README and src/config.py", f"{size}M")


ENTRY = RunsEntry(
    name="multi-power-law",
    title="loss curves of 25M and 100M models under nine schedules",
    authors="Luo et al. 2025",
    paper="2503.12811",
    licence="MIT",
    repository="thu-yao-01-luo/MultiPowerLaw",
    commit="8da9f19",
    forms=(
        Form(
            tuple(
                File(
                    f"csv_{size}/{name}.csv",
                    "https://github.com/thu-yao-01-luo/MultiPowerLaw/raw/8da9f19/"
                    f"loss_curve_repo/csv_{size}/{name}.csv",
                )
                for size in _SIZES
                for name in (*_TRAIN, *_TEST)
            ),
            _COLUMNS,
            _named,
        ),
        Form(
            (
                File(
                    "multi_power_law_curves.csv.gz",
                    sha256="56d5fac9488678a3d3da35714674a3732d9949059753d0da6f61598301c8121e",
                ),
            ),
            _COLUMNS,
            remark="all curves in one file; the authors' curves before the end of warm-up are not "
            "in it",
        ),
    ),
    constants={"convention": "sizes are nominal; warm-up 2,160 steps, peak rate 3e-4"},
    rows=4162,
    verified="rows, columns and fits from the copy in one file; addresses are made of the paths in "
    "the repository's README and config; the authors' files were not opened, and only the first "
    "digits of their commit are known",
    checks=tuple(_check(size) for size in _SIZES),
)
