"""`gpt-jax chat RUN`: a conversation with a run in the terminal. Must not import jax."""

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt_jax.config.overrides import parse_arguments
from gpt_jax.inference import chat
from gpt_jax.inference import filters as text_filters
from gpt_jax.inference.settings import SamplingConfig
from gpt_jax.runs import checkpoint_choice
from gpt_jax.verbs.generate import HOW, add_sampling, add_template, sampling_of

PROMPT = "you: "
NAME = "model: "
COMMANDS = "/new begins anew, /retry draws the last answer again, Ctrl-D or /quit ends"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `gpt-jax chat`."""
    parser.description = (
        "Talk with a run; its chat template is the one that it was fine-tuned with, or came with. "
        f"{COMMANDS}. Lines on standard input are taken where it is no terminal."
    )
    parser.add_argument("directory", metavar="RUN", help="a run's directory")
    add_sampling(parser, dataclasses.replace(SamplingConfig(), max_new_tokens=256))
    add_template(parser)
    text_filters.add_arguments(parser)
    parser.add_argument("--seed", type=int, default=0, help="of the first answer; default 0")
    checkpoint_choice.add_argument(parser)
    parser.epilog = HOW
    parser.set_defaults(takes_overrides=True)


def run(arguments: argparse.Namespace) -> int:
    """Converse until the user ends it; returns the exit status."""
    sampling = sampling_of(arguments)
    changes = parse_arguments(arguments.rest)
    kept_out = text_filters.make_filters(arguments)
    which = checkpoint_choice.parse_which(arguments.checkpoint)
    from gpt_jax.inference.decode import decoding_params
    from gpt_jax.inference.generate import generate_text
    from gpt_jax.runs.loading import load_run

    config, model, params, tokenizer = load_run(arguments.directory, which, changes)
    if arguments.template is None and not chat.knows_chats(tokenizer, config.task):
        print(
            "this run was not trained on conversations: what it says are continuations of the "
            "template `chat`",
            file=sys.stderr,
        )
    tokenizer, template = chat.choose_template(tokenizer, config.task, arguments.template)
    params = decoding_params(model, params)
    stops = [*arguments.stop, *chat.stop_strings(template)]
    budget = model.config.seq_len - sampling.max_new_tokens
    if budget < 1:
        raise ValueError(
            f"--max-new-tokens {sampling.max_new_tokens} leaves no room for what is said: the "
            f"model reads {model.config.seq_len:,} tokens"
        )

    def encode(turns: chat.Turns) -> NDArray[np.int32]:
        return chat.chat_prompt(tokenizer, turns, template).ids

    def answer(turns: chat.Turns, seed: int) -> str:
        ids, n_left_out = fit(turns, encode, budget)
        if n_left_out:
            print(f"(the first {n_left_out} messages are out of the context)", file=sys.stderr)
        print(NAME, end="", flush=True)
        (text,) = generate_text(
            model,
            params,
            tokenizer,
            [""],
            dataclasses.replace(sampling, seed=seed),
            stop=stops,
            stream=sys.stdout,
            filters=kept_out,
            encode=lambda _: ids,
        )
        return text

    print(COMMANDS, file=sys.stderr)
    first = [] if arguments.system is None else [{"role": "system", "content": arguments.system}]
    converse(_lines(), first, kept_out.prompt, answer, arguments.seed)
    return 0


def converse(
    lines: Iterator[str],
    first: list[dict[str, Any]],
    allowed: Callable[[str], str],
    answer: Callable[[chat.Turns, int], str],
    seed: int,
) -> None:
    """Answer line after line.

    first: turns before the user's. allowed: what the model sees of a line; raises ValueError for
    one that is refused. answer: (turns, seed) -> the assistant's text, which it has shown.
    """
    turns = list(first)
    for line in lines:
        said = line.strip()
        if said == "/quit":
            return
        if said == "/new":
            turns = list(first)
            continue
        if said == "/retry":
            if turns[-1:] and turns[-1]["role"] == "assistant":
                turns.pop()
            else:
                print("there is no answer yet", file=sys.stderr)
                continue
        elif not said:
            continue
        else:
            try:
                turns.append({"role": "user", "content": allowed(said)})
            except ValueError as error:
                print(error, file=sys.stderr)
                continue
        turns.append({"role": "assistant", "content": answer(turns, seed)})
        seed += 1


def fit(
    turns: chat.Turns, encode: Callable[[chat.Turns], NDArray[np.int32]], budget: int
) -> tuple[NDArray[np.int32], int]:
    """The prompt of as many of the last turns as fit, and how many are left out.

    A system's turn at the beginning is kept. Raises ValueError where the last turn does not fit.
    """
    kept = [turn for turn in turns[:1] if turn["role"] == "system"]
    rest = list(turns[len(kept) :])
    for n in range(0, len(rest), 2):  # a user's turn and its answer at a time
        ids = encode([*kept, *rest[n:]])
        if len(ids) <= budget:
            return ids, n
    raise ValueError(
        f"the last message is longer than the {budget:,} tokens that the context leaves; shorten "
        "it, or lower --max-new-tokens"
    )


def _lines() -> Iterator[str]:
    """Lines of the user until the end of input."""
    if not sys.stdin.isatty():
        yield from sys.stdin
        return
    import readline  # noqa: F401  # history and editing of `input`

    while True:
        try:
            yield input(PROMPT)
        except EOFError:
            print()
            return
