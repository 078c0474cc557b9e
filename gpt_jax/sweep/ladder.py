"""Ladders of model shapes, as grids: by depth, by width, by aspect ratio, by parameter counts.

Each change sets model.n_layers, model.d_model, and model.n_heads such that heads keep their size
(model.head_size = none: width / heads). Widths are multiples of `multiple`, which is the head size
unless said otherwise. The base config should leave model.ffn_size none, so that the MLP scales too.
Must not import jax.
"""

import math
from collections.abc import Iterable, Sequence

from gpt_jax.config import ModelConfig
from gpt_jax.scaling.ladder import (
    ASPECT_RATIO,
    DEEPEST,
    HEAD_SIZE,
    SizeConvention,
    count,
    nearest,
    ratio,
    shape,
)
from gpt_jax.sweep.grid import Changes, Grid

TOLERANCE = 1.5
"""The factor by which a shape's aspect ratio or parameter count may miss what was asked for."""


def by_depth(
    depths: Iterable[int],
    aspect_ratio: float = ASPECT_RATIO,
    head_size: int = HEAD_SIZE,
    multiple: int | None = None,
) -> Grid:
    """Models of these depths, aspect_ratio times as wide as deep."""
    step = _step(head_size, multiple)
    return [_changes(L, _rounded(aspect_ratio * L, step), head_size) for L in depths]


def by_width(
    widths: Iterable[int], n_layers: int, head_size: int = HEAD_SIZE, multiple: int | None = None
) -> Grid:
    """Models of these widths, rounded to the multiple, all of one depth."""
    step = _step(head_size, multiple)
    return [_changes(n_layers, _rounded(width, step), head_size) for width in widths]


def by_aspect_ratio(
    base: ModelConfig,
    aspect_ratios: Iterable[float],
    n_params: float,
    convention: SizeConvention = "n_params_non_embedding",
    head_size: int = HEAD_SIZE,
    multiple: int | None = None,
) -> Grid:
    """Models from deep to wide of nearly n_params parameters (Kaplan et al. 2020, Fig. 5).

    Of each depth there is one candidate, the width that comes nearest to n_params; each ratio of
    width to depth takes the candidate nearest to it, and a candidate serves once. `base` says
    what else counts: vocabulary, context, biases. Raises ValueError if no candidate is near a
    ratio, or the candidate's size is not near n_params.
    """
    step = _step(head_size, multiple)
    candidates = []
    for n_layers in range(len(base.layer_pattern), DEEPEST, len(base.layer_pattern)):
        candidates.append(_best_width(base, n_layers, n_params, convention, head_size, step))
        if candidates[-1].d_model == step:
            break
    found: dict[int, ModelConfig] = {}
    for asked in aspect_ratios:
        model = min(candidates, key=lambda m: ratio(m.d_model / m.n_layers, asked))
        _check_near("width / depth", model, model.d_model / model.n_layers, asked)
        _check_near(convention, model, count(model, convention), n_params)
        found[model.n_layers] = model
    return [_changes(m.n_layers, m.d_model, head_size) for m in found.values()]


def by_parameters(
    base: ModelConfig,
    sizes: Sequence[float],
    convention: SizeConvention = "n_params",
    aspect_ratio: float = ASPECT_RATIO,
    head_size: int = HEAD_SIZE,
    multiple: int | None = None,
) -> Grid:
    """For each size the model whose parameter count is nearest to it.

    Candidates are all depths with all widths whose ratio is within a factor of TOLERANCE of
    aspect_ratio. `base` says what else counts: vocabulary, context, biases. Raises ValueError if
    nothing is near a size.
    """
    step = _step(head_size, multiple)
    grid = []
    for size in sizes:
        candidates = []
        for n_layers in range(len(base.layer_pattern), DEEPEST, len(base.layer_pattern)):
            low = max(step, math.ceil(aspect_ratio * n_layers / TOLERANCE / step) * step)
            high = aspect_ratio * n_layers * TOLERANCE
            narrowest = shape(base, n_layers, low, head_size)
            if low <= high:
                model = _best_width(base, n_layers, size, convention, head_size, step)
                width = min(max(model.d_model, low), int(high) // step * step)
                candidates.append(shape(base, n_layers, width, head_size))
            if count(narrowest, convention) > TOLERANCE * size:
                break
        if not candidates:
            raise ValueError(
                f"no width that is a multiple of {step} is near {aspect_ratio:g} times a depth; "
                f"lower the head size or `multiple` of the ladder"
            )
        model = nearest(candidates, size, convention)
        _check_near(convention, model, count(model, convention), size)
        grid.append(_changes(model.n_layers, model.d_model, head_size))
    return grid


def _best_width(
    base: ModelConfig,
    n_layers: int,
    n_params: float,
    convention: SizeConvention,
    head_size: int,
    step: int,
) -> ModelConfig:
    """The model of this depth, of a width that is a multiple of step, nearest to n_params."""

    def model(steps: int) -> ModelConfig:
        return shape(base, n_layers, steps * step, head_size)

    low, high = 1, 2
    while count(model(high), convention) < n_params:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(model(middle), convention) < n_params else (low, middle)
    return nearest([model(low), model(high)], n_params, convention)


def _changes(n_layers: int, d_model: int, head_size: int) -> Changes:
    return {
        "model.n_layers": n_layers,
        "model.d_model": d_model,
        "model.n_heads": d_model // head_size,
        "model.head_size": None,
    }


def _step(head_size: int, multiple: int | None) -> int:
    """Number that widths are multiples of."""
    step = head_size if multiple is None else multiple
    if head_size <= 0 or step <= 0 or step % head_size:
        raise ValueError(
            f"a ladder's widths are multiples of {step}, which is not one of head_size = "
            f"{head_size}; heads would change their size"
        )
    return step


def _rounded(width: float, step: int) -> int:
    return max(1, round(width / step)) * step


def _check_near(what: str, model: ModelConfig, got: float, asked: float) -> None:
    if ratio(got, asked) > TOLERANCE:
        raise ValueError(
            f"no shape has {what} near {asked:,.6g}: the nearest, {model.n_layers} layers of width "
            f"{model.d_model}, has {got:,.6g}; lower the ladder's head_size or multiple, or ask "
            f"for another size"
        )
