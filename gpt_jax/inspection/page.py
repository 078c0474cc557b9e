"""A look as one HTML page that needs no network. Must not import jax."""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpt_jax import pages


def make_page(
    title: str, facts: Sequence[str], tokens: Sequence[str], seen: Any, names: Any
) -> str:
    """The page.

    facts: lines under the title. tokens: the text's, as shown. seen: an `inspection.look.Look`.
    names: token id -> how it is shown.
    """
    n_layers, n_heads = seen.attention_LNTT.shape[:2]
    data = {
        "tokens": list(tokens),
        "losses": [None if np.isnan(x) else round(float(x), 3) for x in seen.losses_T],
        "layers": n_layers,
        "heads": n_heads,
        "lens": [
            [
                [[names(int(i)), round(float(p), 4)] for i, p in zip(ids, chances, strict=True)]
                for ids, chances in zip(ids_TK, chances_TK, strict=True)
            ]
            for ids_TK, chances_TK in zip(seen.ids_LTK, seen.probabilities_LTK, strict=True)
        ],
        "entropy": np.round(seen.entropy_LT, 3).tolist(),
        "attention": base64.b64encode(
            np.round(255 * np.asarray(seen.attention_LNTT)).astype(np.uint8).tobytes()
        ).decode(),
    }
    return pages.render(
        "gpt_jax.inspection/page.html",
        title,
        style="gpt_jax.inspection/page.css",
        script="gpt_jax.inspection/page.js",
        colours="light",
        facts=facts,
        data=data,
    )


def shown(text: str) -> str:
    """A token's text with white space that can be seen."""
    return text.replace(" ", "·").replace("\n", "↵").replace("\t", "→") or "∅"
