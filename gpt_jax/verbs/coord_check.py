"""`gpt-jax coord-check CONFIG`: sizes of activations as a table, a figure and a verdict.

Importing this module is quick: matplotlib and the rest are imported when a check is run. Must not
import jax.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt_jax.config import Config, overrides
from gpt_jax.runs.directory import default_directory
from gpt_jax.storage import csv_cells
from gpt_jax.storage.atomic import write_atomically

if TYPE_CHECKING:
    from gpt_jax.steps.coord_check import Axis, Row

FAILED = 1
DESCRIPTION = """\
Do activations, and their changes in the first steps of training, keep their size as the model
grows? Under model.parametrization = mup they do over widths, under completep over depths too, and
then the best learning rate stays where it is; under standard they do not.

Models of several widths (and depths) take a few steps with the config's optimizer at its peak
learning rate, on one batch of random tokens with the frequencies of Zipf's law (no corpus is read).
Heads grow in number, not in size. The exit status is 0 if all rows pass, 1 if one fails.
"""
EPILOG = """\
examples:
  gpt-jax coord-check configs/quickstart.py
  gpt-jax coord-check configs/quickstart.py --model.parametrization mup --model.base_d_model 64
  gpt-jax coord-check configs/quickstart.py --model.parametrization completep \\
      --model.base_d_model 64 --model.base_n_layers 2 --depths 2,4,8
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `gpt-jax coord-check`."""
    parser.usage = "gpt-jax coord-check CONFIG [--widths W,W,..] [options] [--KEY VALUE ...]"
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    add = parser.add_argument
    add("config", metavar="CONFIG", help="a configs/*.py, or a run's config.json")
    add(
        "--widths",
        type=_integers,
        metavar="W,W,..",
        help="values of model.d_model (default: four, doubling from 64)",
    )
    add(
        "--depths",
        type=_integers,
        metavar="L,L,..",
        help="values of model.n_layers (default: three, doubling from the base depth, where the "
        "parametrization is completep; else none)",
    )
    add("--steps", type=_positive, default=4, help="training steps (default: 4)")
    add("--seeds", type=_positive, default=2, help="initialisations to average (default: 2)")
    add("--sequences", type=_positive, default=4, help="sequences in the batch (default: 4)")
    add(
        "--seq-len",
        type=_positive,
        default=64,
        help="tokens in a sequence, at most the config's (default: 64)",
    )
    add("--out", type=Path, metavar="DIR", help="figure and CSV (default: runs/NAME/coord-check)")
    parser.set_defaults(takes_overrides=True)


def run(arguments: argparse.Namespace) -> int:
    """Check, print, draw; 0 if everything passes, 1 if something fails."""
    config = overrides.load(arguments.config, overrides.parse_arguments(arguments.rest))
    from gpt_jax.steps.coord_check import Setting, check, default_models

    setting = Setting(
        n_steps=arguments.steps,
        n_seeds=arguments.seeds,
        n_sequences=arguments.sequences,
        seq_len=arguments.seq_len,
    )
    asked: dict[Axis, Sequence[int] | None] = {"width": arguments.widths, "depth": arguments.depths}
    if config.model.parametrization == "completep" and asked["depth"] is None:
        asked["depth"] = default_models(config, "depth")
    if asked["width"] is None:
        asked["width"] = default_models(config, "width")
    rows: list[Row] = []
    for axis, models in asked.items():
        if models is not None:
            rows += check(config, axis, models, setting, tell=_tell)
    _tell("")
    print(text(config, rows))
    out = arguments.out or default_directory(config) / "coord-check"
    written = draw(config, rows, out / "sizes")
    written.append(write_csv(rows, out / "sizes.csv"))
    print("written:", *written)
    return 0 if all(row.passes for row in rows) else FAILED


def text(config: Config, rows: Sequence["Row"]) -> str:
    """A table for each axis, and the verdict."""
    lines = []
    for axis in dict.fromkeys(row.axis for row in rows):
        of_axis = [row for row in rows if row.axis == axis]
        heads = "".join(f"{model:>10}" for model in of_axis[0].models)
        lines.append(f"{f'mean |coordinate| at {axis}':<30}{heads}{'slope':>8}  allowed")
        for row in of_axis:
            moment = "at the start" if row.step == 0 else f"change after {row.step}"
            sizes = "".join(f"{size:10.3g}" for size in row.sizes)
            slope = "-" if row.slope is None else f"{row.slope:+.2f}"
            allowed = "not judged"
            if row.allowed is not None:
                verdict = "pass" if row.passes else "FAIL"
                allowed = f"{row.allowed[0]:+.2f} to {row.allowed[1]:+.2f}  {verdict}"
            lines.append(f"{row.activation:<12}{moment:<18}{sizes}{slope:>8}  {allowed}")
        lines.append("")
    failed = [row for row in rows if not row.passes]
    verdict = f"FAIL: {len(failed)} of {len(rows)} rows" if failed else "PASS"
    return "\n".join([*lines, f"{config.name}, {_title(config)}: {verdict}"])


def draw(config: Config, rows: Sequence["Row"], stem: Path) -> list[Path]:
    """stem.png and stem.svg: a panel for each activation, a line for each moment; an axis a row."""
    import matplotlib
    from matplotlib.figure import Figure

    from gpt_jax.scaling.plots import STYLE, save

    axes_names = list(dict.fromkeys(row.axis for row in rows))
    activations = list(dict.fromkeys(row.activation for row in rows))
    with matplotlib.rc_context(STYLE):
        figure = Figure(
            figsize=(2.7 * len(activations), 3.1 * len(axes_names) + 0.9), layout="constrained"
        )
        panels = figure.subplots(
            len(axes_names), len(activations), squeeze=False, sharex="row", sharey="row"
        )
        for axis, in_row in zip(axes_names, panels, strict=True):
            in_row[0].set_ylabel("mean |coordinate|")
            for activation, panel in zip(activations, in_row, strict=True):
                _panel(panel, [r for r in rows if (r.axis, r.activation) == (axis, activation)])
        handles = panels[0, 0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=len(handles[0]))
        verdict = "pass" if all(row.passes for row in rows) else "FAIL"
        figure.suptitle(f"Coordinate check of {config.name}, {_title(config)}: {verdict}")
        return save(figure, stem)


def _panel(panel: Any, rows: Sequence["Row"]) -> None:
    """Sizes of one activation at all moments, against width or depth."""
    from matplotlib import colormaps
    from matplotlib.ticker import NullLocator

    last = max(row.step for row in rows)
    for row in rows:
        start = row.step == 0
        after = "step" if row.step == 1 else "steps"
        panel.plot(
            row.models,
            [size or float("nan") for size in row.sizes],
            color="black" if start else colormaps["viridis"](0.85 * (1 - row.step / last)),
            linestyle="--" if start else "-",
            marker="o",
            markersize=4,
            label="at the start" if start else f"change after {row.step} {after}",
        )
    panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    panel.set_xticks(rows[0].models, [str(model) for model in rows[0].models])
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_xlabel("width D" if rows[0].axis == "width" else "layers L")
    failed = [row for row in rows if not row.passes]
    verdict = "FAIL" if failed else "pass"
    if rows[0].allowed is None and not failed:
        verdict = "not judged"
    panel.set_title(f"{rows[0].activation}: {verdict}", color="#B00020" if failed else "black")


def write_csv(rows: Sequence["Row"], path: Path) -> Path:
    """Every size, one a line."""
    cells = [
        [
            *(row.axis, model, row.activation, row.step, f"{size:.6g}"),
            "" if row.slope is None else f"{row.slope:.4f}",
            str(row.passes).lower(),
        ]
        for row in rows
        for model, size in zip(row.models, row.sizes, strict=True)
    ]
    header = ["axis", "model", "activation", "step", "size", "slope", "passes"]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, csv_cells.as_csv(header, cells))
    return path


def _title(config: Config) -> str:
    return f"{config.model.parametrization} with {config.optimizer.name}"


def _tell(message: str) -> None:
    """Show the current measurement on one line of a terminal."""
    if sys.stderr.isatty():
        print(f"\r\033[K{message}", end="", file=sys.stderr, flush=True)


def _integers(text: str) -> tuple[int, ...]:
    """`64,128` as numbers; argparse says what is wrong otherwise."""
    return tuple(_positive(part) for part in text.split(","))


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a positive whole number")
    return number
