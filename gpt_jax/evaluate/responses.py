"""Responses to prompts, greedily, by a model that was fine-tuned to give them."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax

from gpt_jax.config import Config
from gpt_jax.data.tokenizers import Tokenizer
from gpt_jax.finetune.examples import load_images, n_prefix
from gpt_jax.finetune.inputs import Record, encoder
from gpt_jax.finetune.responses import image_prefix
from gpt_jax.inference.decode import decoding_params, generate_tokens
from gpt_jax.inference.settings import SamplingConfig
from gpt_jax.models.gpt import GPT, Params

MAX_NEW_TOKENS = 128


def respond(
    config: Config,
    model: GPT,
    params: Params,
    tokenizer: Tokenizer,
    found: Sequence[Record],
    batch_rows: int,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> Iterator[str]:
    """The response to each record's prompt, or turns so far, batch_rows at a time."""
    encode = encoder(config.model, config.task, tokenizer, n_prefix(config))
    sampling = SamplingConfig(max_new_tokens=max_new_tokens, temperature=0.0)
    prefix = jax.jit(lambda vision, images: image_prefix(config, vision, images))
    vision = params.get("vision")
    params = decoding_params(model, {k: x for k, x in params.items() if k != "vision"})
    for first in range(0, len(found), batch_rows):
        part = found[first : first + batch_rows]
        images = load_images(config.task, part)
        outputs = generate_tokens(
            model,
            params,
            [encode.prompt(record) for record in part],
            sampling,
            end_of_text=tokenizer.ends,
            vocab_size=tokenizer.vocab_size,
            prefix_BPD=None if images is None else prefix(vision, images),
        )
        yield from (tokenizer.decode(output.tolist()) for output in outputs)


def response_scores(found: Sequence[Record], said: Sequence[str], field: str) -> dict[str, Any]:
    """exact_match, and BLEU where sacrebleu is installed (its default: 13a, mixed case)."""
    expected = [str(record[field]).strip() for record in found]
    said = [text.strip() for text in said]
    right = sum(a == b for a, b in zip(expected, said, strict=True))
    scores = {"exact_match": right / len(expected)}
    try:
        import sacrebleu
    except ModuleNotFoundError:
        return scores
    return scores | {"bleu": sacrebleu.corpus_bleu(list(said), [expected]).score}
