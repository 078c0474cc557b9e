"""Our runs as a model of EleutherAI's lm-evaluation-harness.

    pip install 'gpt-jax[harness]'
    python -m gpt_jax.evaluate.harness run --model gpt_jax --model_args run=RUN --tasks piqa

is the harness's own command line, with the model `gpt_jax` known to it; model_args: run (a run's
directory), checkpoint (latest, best or a step), and mesh.* or compute.* settings. Texts are split
into context and continuation as by our own tasks, and scored and continued by the same functions.
Its chat templates and several processes are not supported.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model

from gpt_jax.checkpoint_files import parse_which
from gpt_jax.decode import decoding_params, generate_tokens
from gpt_jax.evaluate.encode import encode_pair
from gpt_jax.evaluate.evaluator import ROWS_A_CALL, Evaluator, load
from gpt_jax.evaluate.requests import Request, Score
from gpt_jax.sampling import SamplingConfig
from gpt_jax.streaming import begin_tokens, encode_prompt

MAX_NEW_TOKENS = 256
"""The harness's default, where a task names none."""


@register_model("gpt_jax")
class HarnessModel(LM):
    """A run, as the harness asks models."""

    def __init__(self, run: str, checkpoint: str = "latest", **changes: Any):
        """The harness's own batch_size and device are not used: batches are cut by tokens, and the
        mesh says where they run. Raises ValueError for what is no run."""
        super().__init__()
        for ignored in ("batch_size", "max_batch_size", "device"):
            changes.pop(ignored, None)
        _, evaluator = load(Path(run), parse_which(str(checkpoint)), changes)
        self.evaluator: Evaluator = evaluator
        self._scorer = evaluator.scorer()

    @property
    def tokenizer_name(self) -> str:
        return self.evaluator.tokenizer.fingerprint

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
            groups.setdefault(_sampling(request.args[1]), []).append(index)
        for sampling, members in groups.items():
            members.sort(key=lambda i: len(requests[i].args[0]))
            for first in range(0, len(members), ROWS_A_CALL):
                rows = members[first : first + ROWS_A_CALL]
                outputs = generate_tokens(
                    self.evaluator.model,
                    params,
                    [encode_prompt(tokenizer, requests[i].args[0]) for i in rows],
                    sampling,
                    end_of_text=tokenizer.end_of_text,
                    vocab_size=tokenizer.vocab_size,
                )
                for i, output in zip(rows, outputs, strict=True):
                    stops = _stops(requests[i].args[1])
                    texts[i] = _before(tokenizer.decode(output.tolist()), stops)
        return texts

    def _scores(self, asked: Sequence[Request], stride: int | None = None) -> list[Score]:
        scores: list[Score | None] = [None] * len(asked)
        for done in self._scorer.score(asked, stride):
            for index, score in done:
                scores[index] = score
        return [score for score in scores if score is not None]


def _sampling(options: dict[str, Any]) -> SamplingConfig:
    """Greedy, unless the task samples."""
    samples = options.get("do_sample", False)
    return SamplingConfig(
        max_new_tokens=int(options.get("max_gen_toks", MAX_NEW_TOKENS)),
        temperature=float(options.get("temperature", 1.0)) if samples else 0.0,
        top_k=options.get("top_k") if samples else None,
        top_p=options.get("top_p") if samples else None,
    )


def _stops(options: dict[str, Any]) -> list[str]:
    until = options.get("until") or []
    return [until] if isinstance(until, str) else list(until)


def _before(text: str, stops: Sequence[str]) -> str:
    return text[: min((text.index(s) for s in stops if s and s in text), default=None)]


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
