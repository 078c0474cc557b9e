"""`gpt-jax inspect RUN --prompt TEXT`: what happens inside, as a page to look at."""

import argparse
from pathlib import Path

from gpt_jax.runs import checkpoint_choice
from gpt_jax.runs.checkpoint_choice import choose, parse_which


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="RUN", help="a run's directory")
    parser.add_argument("--prompt", required=True, metavar="TEXT", help="the text to look at")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="the page; default: RUN/inspect.html"
    )
    checkpoint_choice.add_argument(parser)
    parser.add_argument(
        "--max-tokens", type=int, default=128, help="tokens of the text, at most; default 128"
    )
    parser.epilog = "--compute.KEY VALUE changes how it is computed, e.g. --compute.dtype float32."
    parser.set_defaults(takes_overrides=True)


def run(arguments: argparse.Namespace) -> int:
    from gpt_jax.config.overrides import parse_arguments
    from gpt_jax.cost.flops import count_parameters
    from gpt_jax.data.streaming import encode_prompt
    from gpt_jax.inspection.look import look
    from gpt_jax.inspection.page import make_page, shown
    from gpt_jax.runs.directory import RunDirectory
    from gpt_jax.runs.loading import load_run
    from gpt_jax.storage.atomic import write_atomically

    changes = parse_arguments(arguments.rest)
    run = RunDirectory(arguments.directory)
    run.require_config()
    step = choose(run.checkpoints, parse_which(arguments.checkpoint))[1].step
    config, model, params, tokenizer = load_run(run.path, step, changes)
    ids = encode_prompt(tokenizer, arguments.prompt)
    most = min(arguments.max_tokens, config.model.seq_len)
    if not 2 <= len(ids) <= most:
        raise ValueError(
            f"the prompt has {len(ids):,} tokens; allowed: 2 to {most:,} (--max-tokens, and the "
            f"model's context of {config.model.seq_len:,})"
        )
    seen = look(model, params, ids)
    loss = float(seen.losses_T[1:].mean())
    n_params, m = count_parameters(config.model).n_params, config.model
    facts = (
        f"{n_params:,} parameters, {m.n_layers} layers of {m.n_heads} heads, width {m.d_model}; "
        f"checkpoint {step}",
        f"{len(ids)} tokens, {loss:.3f} nats per token",
    )

    def name(token: int) -> str:
        return shown(tokenizer.decode([token])) if token < tokenizer.vocab_size else f"<{token}>"

    page = make_page(config.name, facts, [name(int(i)) for i in ids], seen, name)
    path = arguments.output or Path(arguments.directory) / "inspect.html"
    write_atomically(path, page)
    print(f"{path}: {len(ids)} tokens, {loss:.3f} nats per token; open it in a browser")
    return 0
