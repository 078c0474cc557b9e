"""Settings of sampling: what a user may ask of the choice of tokens. Must not import jax."""

import dataclasses
import math
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
    """How the next token is chosen. Raises ValueError for values out of range."""

    max_new_tokens: int = 200
    """Tokens to add to each prompt, at most."""
    temperature: float = 1.0
    """Logits are divided by it; 0 takes the likeliest token (greedy)."""
    top_k: int | None = None
    """Only the k likeliest tokens."""
    top_p: float | None = None
    """Only the likeliest tokens that together have at least this probability (nucleus)."""
    min_p: float | None = None
    """Only tokens at least this fraction as likely as the likeliest."""
    repetition_penalty: float = 1.0
    """Above 1, tokens that occur in prompt or continuation become less likely."""
    seed: int = 0

    def __post_init__(self) -> None:
        def require(
            name: str, value: float | None, allowed: str, fits: Callable[[float], bool]
        ) -> None:
            if value is not None and not fits(value):
                option = name.replace("_", "-")
                raise ValueError(f"{name} = {value}; allowed: {allowed}; set by --{option}")

        require("max_new_tokens", self.max_new_tokens, "1 or more", lambda n: n >= 1)
        require("temperature", self.temperature, "0 (greedy) or more", lambda t: 0 <= t < math.inf)
        require("top_k", self.top_k, "1 or more", lambda k: k >= 1)
        require("top_p", self.top_p, "above 0, up to 1", lambda p: 0 < p <= 1)
        require("min_p", self.min_p, "0 to 1", lambda p: 0 <= p <= 1)
        penalty = self.repetition_penalty
        require("repetition_penalty", penalty, "above 0", lambda r: 0 < r < math.inf)
        require("seed", self.seed, "0 to 2^32 - 1", lambda n: 0 <= n < 2**32)
