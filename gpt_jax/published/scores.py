"""Scores of `gpt-jax eval` beside a paper's: `gpt-jax table NAME --results RUN`.

Must not import jax.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from gpt_jax.published.compare import (
    Cell,
    Comparison,
    Row,
    compare,
    load,
    not_comparable,
    number,
)
from gpt_jax.storage.json_files import read_object

NO_RESULT = "no results of it were given (--results)"
NOT_OF_THE_PAPER = "the paper has no model of this size"


@dataclass(frozen=True)
class Scored:
    """A run's evaluations."""

    name: str
    n_params: int | None
    results: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Column:
    """Where a printed score stands among results: of a task, or of a text."""

    measure: str
    task: str = ""
    detokenize: str = ""
    named: str = ""
    """Part of the text's file name, in lower case."""
    scale: float = 1.0

    def fits(self, result: Mapping[str, Any]) -> bool:
        """Whether a result is this column's."""
        if self.measure not in result:
            return False
        if self.task:
            return result.get("task") == self.task
        name = str(result.get("text", "")).lower()
        rules = result.get("detokenize") == self.detokenize if self.detokenize else True
        return "text" in result and rules and self.named in name

    def asks(self) -> str:
        """The options of `gpt-jax eval` that would give it."""
        if self.task:
            return f"--tasks {self.task}"
        named = f" with {self.named} in its name" if self.named else ""
        rules = f" --detokenize {self.detokenize}" if self.detokenize else ""
        return f"--text FILE{named}{rules}"


GPT2_COLUMNS = {
    "LAMBADA ppl": Column("perplexity_per_word", task="lambada"),
    "LAMBADA acc": Column("accuracy_no_stop_words", task="lambada", scale=100),
    "CBT-CN acc": Column("accuracy", task="cbt_cn", scale=100),
    "CBT-NE acc": Column("accuracy", task="cbt_ne", scale=100),
    "WikiText2 ppl": Column("perplexity_per_word", detokenize="wikitext"),
    "PTB ppl": Column("perplexity_per_word", detokenize="ptb"),
    "enwik8 bpb": Column("bits_per_byte", named="enwik8"),
    "text8 bpc": Column("bits_per_character", detokenize="text8"),
    "WikiText103 ppl": Column("perplexity_per_word", detokenize="wikitext", named="103"),
    "1BW ppl": Column("perplexity_per_word", detokenize="1bw"),
}
"""Columns of GPT-2's Table 3 and our results. WikiText-2 and -103 have one test text; the paper
scores them differently, so that the second is told by 103 in the file's name."""


def read_scored(path: str | Path) -> Scored:
    """The evaluations of a run's directory, of an evaluation's, or of a results.json.

    Raises ValueError where there are none.
    """
    place = Path(path)
    files = [place, place / "evaluation" / "results.json", place / "results.json"]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise ValueError(
            f"--results {path}: no results there; make them: gpt-jax eval {path} --tasks lambada"
        )
    whole = read_object(file, "results", "run")
    n_params = whole.get("n_params")
    config = file.parent.parent / "config.json"
    if n_params is None and config.is_file():
        n_params = read_object(config).get("n_params")
    return Scored(str(whole["run"]), n_params, whole["results"])


def gpt2_table_3(given: Sequence[Scored] = ()) -> Comparison:
    """GPT-2's zero-shot scores: a run of a released size beside its row, others in their own."""
    data = load("gpt2")
    table = dict(data["table_3_zero_shot"])
    columns = table.pop("columns")
    sizes = {m["printed"]: int(m["n_params_released"]) for m in data["table_2_models"]}
    rows = []
    for model, values in table.items():
        ours = next((one for one in given if one.n_params == sizes[model]), None)
        cells = [_cell(c, value, ours) for c, value in zip(columns, values, strict=True)]
        rows.append(Row(model if ours is None else f"{model}: {ours.name}", tuple(cells)))
    for one in given:
        if one.n_params not in sizes.values():
            size = "" if one.n_params is None else f", {one.n_params:,} parameters"
            rows.append(Row(f"{one.name}{size}", tuple(_alone(one))))
    return Comparison(
        "GPT-2, Table 3: zero-shot scores",
        data["paper"],
        "models by the sizes that the paper prints",
        tuple(rows),
        (data["oddities"]["table_2_models"],),
    )


def _cell(name: str, printed: Decimal, ours: Scored | None) -> Cell:
    if ours is None:
        return not_comparable(name, printed, NO_RESULT)
    column = GPT2_COLUMNS[name]
    value, reason = _value(column, ours)
    if value is None:
        return not_comparable(name, printed, reason)
    return compare(name, printed, value)


def _alone(ours: Scored) -> list[Cell]:
    found = [(name, _value(column, ours)[0]) for name, column in GPT2_COLUMNS.items()]
    verdict = f"not comparable because {NOT_OF_THE_PAPER}"
    return [Cell(n, "none", number(float(f"{v:.4g}")), verdict) for n, v in found if v is not None]


def _value(column: Column, ours: Scored) -> tuple[float | None, str]:
    """The last result of a column that counted every item, or why there is none."""
    found = [result for result in ours.results if column.fits(result)]
    whole = [result for result in found if not result.get("limit")]
    if whole:
        return column.scale * float(whole[-1][column.measure]), ""
    if found:
        return None, f"only the first {found[-1]['limit']} items were scored (--limit)"
    return None, f"{ours.name} has no such result: gpt-jax eval {column.asks()}"


BUILDERS: Mapping[str, Callable[[Sequence[Scored]], Comparison]] = {"gpt2-table-3": gpt2_table_3}
"""Tables that can take results."""
