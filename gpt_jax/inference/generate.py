"""Text from a trained model: prompts in, continuations out, shown as they are made.

Must not import flax or the training loop.
"""

from collections.abc import Callable, Sequence
from typing import Any, TextIO

from numpy.typing import NDArray

from gpt_jax.data.streaming import SEPARATOR, Continuation, Printer, encode_prompt
from gpt_jax.data.tokenizers import Tokenizer
from gpt_jax.inference.decode import generate_tokens
from gpt_jax.inference.filters import NO_FILTERS, Filters
from gpt_jax.inference.settings import SamplingConfig
from gpt_jax.models.gpt import GPT, Params


def generate_text(
    model: GPT,
    params: Params,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    sampling: SamplingConfig,
    n_samples: int = 1,
    stop: Sequence[str] = (),
    stream: TextIO | None = None,
    filters: Filters = NO_FILTERS,
    encode: Callable[[str], NDArray[Any]] | None = None,
) -> list[str]:
    """Continuations of each prompt, n_samples of the first, then of the second, and so on.

    An empty prompt starts from the model's BOS or the tokenizer's end of text; where it has none,
    from a line break; where it has no line break either, from token 0. A text ends before the first
    stop string, which may span tokens, and at an end of text. `stream` gets prompts and
    continuations as they are made, in order, with a SEPARATOR line between them.

    encode: a prompt's tokens; by default `encode_prompt`. With it the prompt is not shown.

    filters: of each prompt before the model sees it, and of each continuation, which is then shown
    when it is complete.

    Raises ValueError for an empty stop string, n_samples below 1 or a prompt that is not allowed.
    """
    _check(n_samples, stop)
    shown = [filters.prompt(prompt) for prompt in prompts for _ in range(n_samples)]
    if encode is None:
        encoded = [encode_prompt(tokenizer, prompt) for prompt in shown]
    else:
        encoded, shown = [encode(prompt) for prompt in shown], [""] * len(shown)
    rows = [Continuation(tokenizer, ids, stop) for ids in encoded]
    printer = Printer(stream, shown, rows) if stream and rows and not filters else None

    def on_token(row: int, token: int | None) -> bool:
        stopped = token is not None and rows[row].add([token])
        if printer:
            printer.update(row, complete=token is None)
        return stopped

    watched = bool(stop or printer)
    outputs = generate_tokens(
        model,
        params,
        encoded,
        sampling,
        end_of_text=tokenizer.ends,
        on_token=on_token if watched else None,
        vocab_size=tokenizer.vocab_size,
    )
    if not watched:
        for row, output in zip(rows, outputs, strict=True):
            row.add(output.tolist())
    texts = [filters.output(row.text) for row in rows]
    if stream and not printer:
        stream.write(joined(shown, texts) + "\n")
    return texts


def _check(n_samples: int, stop: Sequence[str]) -> None:
    if n_samples < 1:
        raise ValueError(f"samples = {n_samples}; allowed: 1 or more; set by --samples")
    if "" in stop:
        raise ValueError("a stop string is empty; leave --stop out to stop nowhere")


def joined(prompts: Sequence[str], texts: Sequence[str]) -> str:
    """Prompts with their continuations, with SEPARATOR lines between them."""
    whole = [prompt + text for prompt, text in zip(prompts, texts, strict=True)]
    return f"\n{SEPARATOR}\n".join(whole)
