"""`gpt-jax generate RUN`: prompts continued by a trained run."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from gpt_jax.config import Config
from gpt_jax.config.overrides import parse_arguments
from gpt_jax.data.streaming import encode_prompt
from gpt_jax.data.tokenizers import Tokenizer
from gpt_jax.inference import chat
from gpt_jax.inference import filters as text_filters
from gpt_jax.inference.filters import Filters
from gpt_jax.inference.retrieval import Index, read_passages, with_passages
from gpt_jax.inference.settings import SamplingConfig
from gpt_jax.runs import checkpoint_choice
from gpt_jax.runs.checkpoint_choice import parse_which

HOW = "--compute.KEY VALUE changes how the run is computed, e.g. --compute.dtype float32."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `gpt-jax generate`."""
    default = SamplingConfig()
    parser.add_argument("directory", metavar="RUN", help="a run's directory")
    parser.add_argument(
        "--prompt",
        action="append",
        metavar="TEXT",
        help="text to continue; may be given several times; without one, a new document",
    )
    parser.add_argument("--samples", type=int, default=1, metavar="N", help="texts for each prompt")
    add_sampling(parser, default)
    _add_chat(parser)
    text_filters.add_arguments(parser)
    parser.add_argument(
        "--retrieve",
        type=Path,
        metavar="FOLDER",
        help="put the passages of its .txt and .md files that are nearest to a prompt before it",
    )
    parser.add_argument(
        "--passages", type=int, default=3, metavar="N", help="of --retrieve, at most; default 3"
    )
    parser.add_argument("--seed", type=int, default=default.seed, help="default 0")
    checkpoint_choice.add_argument(parser)
    parser.add_argument(
        "--no-stream", action="store_true", help="print when all is done, not as it is made"
    )
    parser.epilog = HOW
    parser.set_defaults(takes_overrides=True)


def add_sampling(parser: argparse.ArgumentParser, default: SamplingConfig) -> None:
    """How tokens are drawn, and where a text ends."""
    parser.add_argument(
        "--max-new-tokens",
        type=int,
        default=default.max_new_tokens,
        metavar="N",
        help=f"tokens to add, at most; default {default.max_new_tokens}",
    )
    parser.add_argument(
        "--temperature",
        type=float,
        default=default.temperature,
        metavar="T",
        help=f"0: always the likeliest token; default {default.temperature}",
    )
    parser.add_argument("--top-k", type=int, metavar="K", help="draw from the K likeliest tokens")
    parser.add_argument(
        "--top-p",
        type=float,
        metavar="P",
        help="draw from the likeliest tokens that together have probability P",
    )
    parser.add_argument(
        "--min-p",
        type=float,
        metavar="P",
        help="draw from tokens at least P times as likely as the likeliest",
    )
    parser.add_argument(
        "--repetition-penalty",
        type=float,
        default=default.repetition_penalty,
        metavar="R",
        help="above 1: make tokens that occurred less likely; default 1",
    )
    parser.add_argument(
        "--stop",
        action="append",
        default=[],
        metavar="TEXT",
        help="end a text before this string; may be given several times",
    )


def _add_chat(parser: argparse.ArgumentParser) -> None:
    """Prompts as turns of a conversation."""
    parser.add_argument(
        "--chat",
        action="store_true",
        help="each prompt is what a user says: answer it by the run's chat template",
    )
    add_template(parser, "--chat: ")


def add_template(parser: argparse.ArgumentParser, when: str = "") -> None:
    """Options for the beginning of a conversation, and its template."""
    parser.add_argument("--system", metavar="TEXT", help=f"{when}what the system says first")
    parser.add_argument(
        "--template",
        metavar="NAME",
        help=f"{when}chat, plain, a JSON or a .jinja file; default: the run's own, or chat",
    )


def sampling_of(arguments: argparse.Namespace) -> SamplingConfig:
    """How tokens are drawn, as the options say."""
    return SamplingConfig(
        max_new_tokens=arguments.max_new_tokens,
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        top_p=arguments.top_p,
        min_p=arguments.min_p,
        repetition_penalty=arguments.repetition_penalty,
        seed=arguments.seed,
    )


def run(arguments: argparse.Namespace) -> int:
    """`gpt-jax generate`; returns the exit status."""
    from gpt_jax.inference.decode import decoding_params
    from gpt_jax.inference.generate import generate_text, joined
    from gpt_jax.runs.loading import load_run

    sampling = sampling_of(arguments)
    changes = parse_arguments(arguments.rest)
    if not arguments.chat and (arguments.system or arguments.template):
        raise ValueError("--system and --template are of a chat: give --chat too")
    kept_out = text_filters.make_filters(arguments)
    prompts = [kept_out.prompt(prompt) for prompt in arguments.prompt or [""]]
    index = _index(arguments, prompts, kept_out)
    which = parse_which(arguments.checkpoint)
    config, model, params, tokenizer = load_run(arguments.directory, which, changes)
    stops, encode = arguments.stop, None
    if arguments.chat:
        tokenizer, stops, encode = _chat(arguments, config, tokenizer)
    if index is not None:
        budget = model.config.seq_len - sampling.max_new_tokens
        n = arguments.passages
        prompts = [_retrieve(index, prompt, n, tokenizer, budget) for prompt in prompts]
    params = decoding_params(model, params)
    texts = generate_text(
        model,
        params,
        tokenizer,
        prompts,
        sampling,
        n_samples=arguments.samples,
        stop=stops,
        stream=None if arguments.no_stream else sys.stdout,
        filters=kept_out,
        encode=encode,
    )
    if arguments.no_stream:
        if arguments.chat:
            prompts = [""] * len(prompts)
        shown = [prompt for prompt in prompts for _ in range(arguments.samples)]
        print(joined(shown, texts))
    return 0


def _chat(
    arguments: argparse.Namespace, config: Config, tokenizer: Tokenizer
) -> tuple[Tokenizer, list[str], Callable[[str], NDArray[Any]]]:
    """The tokenizer with its template, strings that end an answer, and how a prompt is encoded."""
    tokenizer, template = chat.choose_template(tokenizer, config.task, arguments.template)
    system = [] if arguments.system is None else [{"role": "system", "content": arguments.system}]

    def encode(said: str) -> NDArray[Any]:
        turns = [*system, {"role": "user", "content": said}]
        return chat.chat_prompt(tokenizer, turns, template).ids

    return tokenizer, [*arguments.stop, *chat.stop_strings(template)], encode


def _index(
    arguments: argparse.Namespace, prompts: Sequence[str], kept_out: Filters
) -> Index | None:
    """Index of the passages that --retrieve may find; those with a listed word are left out."""
    if arguments.passages < 1:
        raise ValueError(f"--passages {arguments.passages}; allowed: 1 or more")
    if arguments.retrieve is None:
        return None
    if not all(prompt.strip() for prompt in prompts):
        raise ValueError("--retrieve looks for what is nearest to a prompt: give --prompt TEXT")
    found = read_passages(arguments.retrieve)
    allowed = [passage for passage in found if not kept_out.cuts(passage.text)]
    return Index([passage._replace(text=kept_out.prompt(passage.text)) for passage in allowed])


def _retrieve(index: Index, question: str, n: int, tokenizer: Tokenizer, budget: int) -> str:
    """The prompt with its best passages, which are named on stderr."""
    best = index.best(question, n)
    prompt, used = with_passages(
        best, question, lambda text: len(encode_prompt(tokenizer, text)), budget
    )
    for passage in reversed(used):
        print(f"retrieved: {passage.file} (BM25 {passage.score:.2f})", file=sys.stderr)
    if not used:
        why = f"none fits into {budget} tokens" if best else "none shares a word with the prompt"
        print(f"retrieved: no passage: {why}", file=sys.stderr)
    return prompt
