"""`gpt-jax fit mixture RUNS.csv`: losses of domains against their shares in training.

Importing this module is quick. Must not import jax.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt_jax.scaling.arguments import names, number, pair, pairs

if TYPE_CHECKING:
    from gpt_jax.scaling.mixture import BestMixture, DomainFit

DESCRIPTION = """\
The exponential law of domain mixtures (arXiv 2403.16952): L_i = c_i + exp(sum of t_ij r_j), a law
for each measured loss, and the mixture of the lowest weighted mean loss.
"""
EPILOG = """\
examples:
  gpt-jax fit mixture runs.csv --shares 'share_*' --losses 'loss_*' --where group=70M
  gpt-jax fit mixture runs.csv --shares web,code,books --losses loss_web,loss_code \\
      --weights loss_web=2,loss_code=1 --held-out split=test --plots figures
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `gpt-jax fit mixture`."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("runs", metavar="RUNS.csv")
    add("--shares", action="append", required=True, metavar="COLUMN[,COLUMN]",
        help="shares of the domains, summing to 1; * and ? serve")  # fmt: skip
    add("--losses", action="append", required=True, metavar="COLUMN[,COLUMN]",
        help="measured losses; * and ? serve")  # fmt: skip
    add("--where", action="append", default=[], metavar="COLUMN=VALUE", help="only these rows")
    add("--held-out", metavar="COLUMN=VALUE", help="rows that are predicted, not fitted")
    add("--weights", metavar="LOSS=W[,...]", help="of the losses in the mean (default: equal)")
    add("--limit", metavar="X", type=float, default=1.0,
        help="largest share of a domain in the best mixture (default 1)")  # fmt: skip
    add("--seed", type=int, default=0)
    add("--json", metavar="OUT", help="write everything to this file")
    add("--plots", metavar="DIR", help="draw figures (PNG and SVG) into this directory")


def run(arguments: argparse.Namespace) -> int:
    """Fit, print, write; raises ValueError for a user's mistake."""
    import numpy as np

    from gpt_jax.scaling.mixture import best_mixture, fit_domain
    from gpt_jax.scaling.wide import read_wide
    from gpt_jax.storage.atomic import write_json

    wide = read_wide(arguments.runs, [pair("--where", text) for text in arguments.where])
    share_names = _columns(wide.columns, arguments.shares, "--shares")
    loss_names = _columns(wide.columns, arguments.losses, "--losses")
    shares = np.stack([wide.numbers(name, "--shares") for name in share_names], 1)
    losses = np.stack([wide.numbers(name, "--losses") for name in loss_names], 1)
    _check_shares(shares, wide.rows)
    held = np.zeros(len(shares), bool)
    if arguments.held_out:
        column, value = pair("--held-out", arguments.held_out)
        held = np.array([label == value for label in wide.labels(column, "--held-out")])
        if not held.any() or held.all():
            raise ValueError(f"--held-out {arguments.held_out}: {held.sum()} of {held.size} rows")
    weights = _weights(loss_names, arguments.weights)
    if not 1 / len(share_names) <= arguments.limit <= 1:
        raise ValueError(f"--limit {arguments.limit}; allowed: 1/{len(share_names)} to 1")
    fits = []
    for k, name in enumerate(loss_names):
        rows = ~held & np.isfinite(losses[:, k])
        fits.append(fit_domain(name, shares[rows], losses[rows, k]))
    low, high = np.zeros(len(share_names)), np.full(len(share_names), arguments.limit)
    best = best_mixture(fits, weights, low, high, arguments.seed)
    print("\n".join(text(fits, share_names, shares, losses, held, best, weights)))
    if arguments.json:
        qualities = [quality(fit, shares, losses[:, k], held) for k, fit in enumerate(fits)]
        write_json(
            Path(arguments.json), to_json(fits, share_names, best, qualities), allow_nan=False
        )
    if arguments.plots:
        from gpt_jax.scaling.form_plots import draw_mixture

        for path in draw_mixture(fits, shares, losses, held, Path(arguments.plots)):
            print(f"drawn: {path}")
    return 0


def _columns(known: tuple[str, ...], given: list[str], option: str) -> list[str]:
    from gpt_jax.scaling.wide import matches

    found: list[str] = []
    for pattern in names(given):
        hits = [column for column in known if matches(column, [pattern])]
        if not hits:
            raise ValueError(f"{option} {pattern}: no such column; there are {', '.join(known)}")
        found += [hit for hit in hits if hit not in found]
    return found


def _check_shares(shares: Any, rows: Any) -> None:
    import numpy as np

    for total, row in zip(shares.sum(1), rows, strict=True):
        if not np.isfinite(total) or abs(total - 1) > 0.02:
            raise ValueError(
                f"{row.where}: shares sum to {total:.4g}, not 1; name all with --shares"
            )


def _weights(loss_names: list[str], given: str | None) -> Any:
    import numpy as np

    weights = dict.fromkeys(loss_names, 0.0 if given else 1.0)
    for name, value in pairs("--weights", given or "").items():
        if name not in weights:
            raise ValueError(f"--weights {name}: allowed are {', '.join(loss_names)}")
        weights[name] = number("--weights", value)
    found = np.array(list(weights.values()))
    if found.min() < 0 or found.sum() <= 0:
        raise ValueError(f"--weights {given}: allowed are numbers of at least 0, some above")
    return found / found.sum()


def text(
    fits: "list[DomainFit]", share_names: list[str], shares: Any, losses: Any, held: Any,
    best: "BestMixture", weights: Any,
) -> list[str]:  # fmt: skip
    """The laws for a terminal."""
    import numpy as np

    lines = [
        f"mixture: {(~held).sum()} runs, {len(share_names)} shares; "
        "L_i = c_i + exp(sum of t_ij r_j) (arXiv 2403.16952)"
    ]
    lacking = ~np.isfinite(losses)
    lines += [
        f"  {fit.domain}: {lacking[:, k].sum()} runs without it are left out of its law"
        for k, fit in enumerate(fits)
        if lacking[:, k].any()
    ]
    width = max(len(fit.domain) for fit in fits)
    header = "  ".join(f"t {name[-12:]:>10s}" for name in share_names)
    lines.append(f"    {'':{width}s}  {'c':>7s}  {header}  {'scatter':>7s}  R2")
    scores = []
    for k, fit in enumerate(fits):
        found = quality(fit, shares, losses[:, k], held)
        cells = "  ".join(f"{value:12.4f}" for value in fit.theta[1:])
        line = f"    {fit.domain:{width}s}  {fit.theta[0]:7.4f}  {cells}  "
        line += f"{fit.scatter:7.4f}  {found['r2']:.4f}"
        if "r2_held_out" in found:
            scores.append(found["r2_held_out"])
            line += f", held out {scores[-1]:.4f}"
        lines.append(line)
    if scores:
        lines.append(f"  held out: {held.sum()} runs, mean R2 {np.mean(scores):.4f}")
    lines.append(
        f"  best mixture: mean loss {best.loss:.4f} 95% [{best.loss - 1.96 * best.error:.4f}, "
        f"{best.loss + 1.96 * best.error:.4f}]"
    )
    lines += [
        f"    {name:{width}s}  {r:.4f}" for name, r in zip(share_names, best.shares, strict=True)
    ]
    tried = shares.max(0)
    for name, share, most in zip(share_names, best.shares, tried, strict=True):
        if share > most + 1e-6:
            lines.append(f"  warning: {name}: {share:.3f} is more than any run had ({most:.3f})")
    nearest = np.abs(shares - best.shares).sum(1).min() / 2
    if nearest > 0.1:
        lines.append(
            f"  warning: the nearest run differs in {nearest:.0%} of its data: "
            "the best is extrapolated"
        )
    return lines


def quality(fit: "DomainFit", shares: Any, loss: Any, held: Any) -> dict[str, float]:
    """R2 of a law on the rows that it was fitted to, and on those held out if there are any."""
    import numpy as np

    from gpt_jax.scaling.mixture import r_squared

    def r2(rows: Any) -> float:
        return float(r_squared(loss[rows], fit.predict(shares[rows])[0]))

    known = np.isfinite(loss)
    return {"r2": r2(~held & known)} | ({"r2_held_out": r2(held & known)} if held.any() else {})


def to_json(
    fits: "list[DomainFit]", share_names: list[str], best: "BestMixture",
    qualities: list[dict[str, float]],
) -> dict[str, Any]:  # fmt: skip
    """Everything that is known of the laws."""
    return {
        "law": "mixture",
        "domains": {
            fit.domain: {
                "c": float(fit.theta[0]),
                "t": dict(zip(share_names, map(float, fit.theta[1:]), strict=True)),
                "covariance": fit.covariance.tolist(),
                "scatter": fit.scatter,
                **found,
            }
            for fit, found in zip(fits, qualities, strict=True)
        },
        "best_mixture": {
            "shares": dict(zip(share_names, map(float, best.shares), strict=True)),
            "loss": best.loss,
            "standard_error": best.error,
        },
    }
