"""Our runs as a model of EleutherAI's lm-evaluation-harness.

    pip install 'gpt-jax[harness]'
    python -m gpt_jax.evaluate.harness run --model gpt_jax --model_args run=RUN --tasks piqa

is the harness's own command line, with the model `gpt_jax` known to it; model_args: run (a run's
directory), checkpoint (latest, best or a step), and mesh.* or compute.* settings. Texts are split
into context and continuation as by our own tasks, and scored and continued by the same functions.
--apply_chat_template is refused, and several processes are not supported.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model

from gpt_jax.data.streaming import begin_tokens, encode_prompt
from gpt_jax.evaluate.encode import encode_pair
from gpt_jax.evaluate.evaluator import ROWS_A_CALL, Evaluator, load
from gpt_jax.evaluate.requests import Request, Score
from gpt_jax.inference.decode import decoding_params, generate_tokens
from gpt_jax.inference.settings import SamplingConfig
from gpt_jax.runs.checkpoint_choice import parse_which

MAX_NEW_TOKENS = 256
"""The harness's default, where a task names none."""
LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""Names of the most tokens to write; the harness takes the first that a task sets."""
FILTERS = ("top_k", "top_p", "min_p", "repetition_penalty")
USED = ("until", "do_sample", "temperature", "seed", *FILTERS, *LENGTHS)
NEUTRAL = {"num_beams": 1, "num_return_sequences": 1}
"""Values of other options that ask for nothing."""

NO_TEMPLATE = (
    "--apply_chat_template: the model gpt_jax puts prompts into no chat template; leave it out "
    "(gpt-jax generate --chat and gpt-jax serve use the run's)"
)


@register_model("gpt_jax")
class HarnessModel(LM):
    """A run, as the harness asks models."""

    def __init__(self, run: str, checkpoint: str = "auto", **changes: Any):
        """The harness's own batch_size and device are not used: batches are cut by tokens, and the
        mesh says where they run. Raises ValueError for what is no run."""
        super().__init__()
        for ignored in ("batch_size", "max_batch_size", "device"):
            changes.pop(ignored, None)
        _, evaluator = load(Path(run), parse_which(str(checkpoint)), changes)
        self.evaluator: Evaluator = evaluator
        self._said: set[str] = set()
        self._scorer = evaluator.scorer()

    @property
    def tokenizer_name(self) -> str:
        return self.evaluator.tokenizer.fingerprint

    def apply_chat_template(self, *_: Any, **__: Any) -> str:
        """Refuse: a prompt here is a task's text, whatever template the run has."""
        raise ValueError(NO_TEMPLATE)

    def chat_template(self, *_: Any, **__: Any) -> str:
        """Refuse, before the harness makes its first request."""
        raise ValueError(NO_TEMPLATE)

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """(log-probability of the continuation, whether it is the greedy one) of each request."""
        asked = [encode_pair(self.evaluator.tokenizer, *request.args) for request in requests]
        return [(score.log_probability, score.greedy) for score in self._scores(asked)]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Log-probability of each whole text, in windows that do not overlap, each after the token
        before it."""
        tokenizer, seq_len = self.evaluator.tokenizer, self.evaluator.model.config.seq_len
        begin = begin_tokens(tokenizer)
        texts = [tuple(tokenizer.encode(request.args[0]).tolist()) for request in requests]
        found = self._scores([Request(begin, ids) for ids in texts if ids], stride=seq_len)
        waiting = iter(found)
        return [next(waiting).log_probability if ids else 0.0 for ids in texts]

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """A continuation of each prompt, cut before the first of its stop strings."""
        tokenizer = self.evaluator.tokenizer
        params = decoding_params(self.evaluator.model, self.evaluator.params)
        texts: list[str] = [""] * len(requests)
        groups: dict[SamplingConfig, list[int]] = {}
        for index, request in enumerate(requests):
            self._say_unused(request.args[1])
            groups.setdefault(sampling_of(request.args[1]), []).append(index)
        for sampling, members in groups.items():
            members.sort(key=lambda i: len(requests[i].args[0]))
            for first in range(0, len(members), ROWS_A_CALL):
                rows = members[first : first + ROWS_A_CALL]
                outputs = generate_tokens(
                    self.evaluator.model,
                    params,
                    [encode_prompt(tokenizer, requests[i].args[0]) for i in rows],
                    sampling,
                    end_of_text=tokenizer.ends,
                    vocab_size=tokenizer.vocab_size,
                )
                for i, output in zip(rows, outputs, strict=True):
                    stops = _stops(requests[i].args[1])
                    texts[i] = _before(tokenizer.decode(output.tolist()), stops)
        return texts

    def _say_unused(self, options: dict[str, Any]) -> None:
        """One line, once, for each option of a task that this model does not follow."""
        for name, value in options.items():
            unused = name not in USED and value is not None and NEUTRAL.get(name) != value
            if unused and name not in self._said:
                self._said.add(name)
                known = ", ".join(USED)
                print(f"gpt_jax ignores {name} = {value!r}; it follows {known}", file=sys.stderr)

    def _scores(self, asked: Sequence[Request], stride: int | None = None) -> list[Score]:
        scores: list[Score | None] = [None] * len(asked)
        for done in self._scorer.score(asked, stride):
            for index, score in done:
                scores[index] = score
        return [score for score in scores if score is not None]


def sampling_of(options: dict[str, Any]) -> SamplingConfig:
    """How a task's generation options ask for texts, as the harness's own models read them.

    Greedy where do_sample is false, or where neither it nor a temperature above 0 is set;
    do_sample without a temperature samples at 1. Raises ValueError for an option that is no number.
    """
    numbers = {
        name: _number(name, options[name])
        for name in ("temperature", "seed", *FILTERS, *LENGTHS)
        if options.get(name) is not None
    }
    temperature, samples = numbers.get("temperature"), options.get("do_sample")
    if samples is None:
        samples = temperature is not None and temperature > 0
    if not samples:
        temperature = 0.0
    elif temperature is None:
        temperature = 1.0
    top_k = int(numbers.get("top_k", 0))
    return SamplingConfig(
        max_new_tokens=int(next((numbers[n] for n in LENGTHS if n in numbers), MAX_NEW_TOKENS)),
        temperature=temperature,
        top_k=top_k if samples and top_k > 0 else None,  # 0 or -1: all, as elsewhere
        top_p=numbers.get("top_p") if samples else None,
        min_p=numbers.get("min_p") if samples else None,
        repetition_penalty=numbers.get("repetition_penalty", 1.0),
        seed=int(numbers.get("seed", 0)),
    )


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"generation option {name} = {value!r}; it must be a number") from None


def _stops(options: dict[str, Any]) -> list[str]:
    until = options.get("until") or []
    return [until] if isinstance(until, str) else list(until)


def _before(text: str, stops: Sequence[str]) -> str:
    return text[: min((text.index(s) for s in stops if s and s in text), default=None)]


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
