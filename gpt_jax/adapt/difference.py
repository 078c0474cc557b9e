"""Difference pruning (Guo et al. 2021): a sparse difference to the base, learned by gates.

Of every parameter of the model there is a difference w and a gate's log-odds alpha. While training,
the model is base + z w with z drawn from the hard concrete distribution (section 3.1); what is
evaluated and merged has the adapt.fraction of z w that is largest, and nothing else (section 3.3).
"""

import jax
import jax.numpy as jnp

from gpt_jax.models.trees import Flat, Tree, flatten, unflatten

LOW, HIGH = -1.5, 1.5
"""The interval to which a gate is stretched before it is cut to [0, 1]."""
DIFFERENCE, GATE = "difference", "gate"


def fresh(base: Flat) -> Flat:
    """No difference, and gates that are open half of the time."""
    made = {}
    for path, x in base.items():
        made[f"{path}/{DIFFERENCE}"] = jnp.zeros_like(x)
        made[f"{path}/{GATE}"] = jnp.zeros_like(x)
    return made


def applied(base: Flat, trained: Flat, fraction: float, key: jax.Array | None) -> Flat:
    """The parameters with their differences. key: of the gates; None = the largest alone."""
    changes = {}
    for i, path in enumerate(sorted(base)):
        w, log_odds = trained[f"{path}/{DIFFERENCE}"], trained[f"{path}/{GATE}"]
        if key is not None:
            u = jax.random.uniform(
                jax.random.fold_in(key, i), w.shape, minval=1e-6, maxval=1 - 1e-6
            )
            log_odds = log_odds + jnp.log(u) - jnp.log1p(-u)
        z = jnp.clip(jax.nn.sigmoid(log_odds) * (HIGH - LOW) + LOW, 0, 1)
        changes[path] = z * w
    if key is None:
        changes = largest(changes, fraction)
    return {path: x + changes[path] for path, x in base.items()}


def largest(changes: Flat, fraction: float) -> Flat:
    """The changes, all but the `fraction` of largest magnitude at zero."""
    sizes = jnp.concatenate([jnp.abs(x).reshape(-1) for x in changes.values()])
    n = max(1, int(fraction * sizes.size))
    threshold = jax.lax.top_k(sizes, n)[0][-1]
    return {p: jnp.where(jnp.abs(x) >= threshold, x, 0.0) for p, x in changes.items()}


def expected_share(trained: Tree) -> jax.Array:
    """Expected share of parameters that differ from the base: the mean probability that a gate is
    not zero (equation 6)."""
    gates = [x for path, x in flatten(trained).items() if path.endswith(f"/{GATE}")]
    bias = jnp.log(-LOW / HIGH)
    return sum(jnp.sum(jax.nn.sigmoid(x - bias)) for x in gates) / sum(x.size for x in gates)


def undone(trained: Tree) -> Tree:
    """The parts of a trained tree that are no difference or gate."""
    return unflatten(
        {p: x for p, x in flatten(trained).items() if p.split("/")[-1] not in (DIFFERENCE, GATE)}
    )
