"""`gpt-jax train CONFIG`: argument handling, and what is printed before and after training."""

import argparse
import shlex
from pathlib import Path

from gpt_jax import failures
from gpt_jax.config import Config, overrides
from gpt_jax.config.timetable import make_timetable
from gpt_jax.output import say
from gpt_jax.parallel import processes
from gpt_jax.runs.directory import RunDirectory, default_directory
from gpt_jax.runs.tracking import Record, code_commit, format_seconds, versions
from gpt_jax.runtime import INTERRUPTED


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "gpt-jax train CONFIG [--workdir DIR] [options] [--KEY VALUE ...]"
    parser.add_argument("config", metavar="CONFIG", help="a configs/*.py, or a run's config.json")
    add_options(parser)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `gpt-jax train` and `gpt-jax finetune` share."""
    parser.add_argument("--workdir", type=Path, help="the run's directory (default: runs/NAME)")
    parser.add_argument(
        "--resume-changed", action="store_true", help="continue although the config has changed"
    )
    parser.add_argument(
        "--branch-from",
        type=Path,
        metavar="RUN",
        help="begin this run's cooldown at the checkpoint that a warmup-stable-decay run has there",
    )
    parser.add_argument(
        "--profile", action="store_true", help="record a jax trace of a few steps in DIR/profile"
    )
    processes.add_arguments(parser)
    parser.set_defaults(takes_overrides=True)
    parser.epilog = f"{failures.EPILOG}\n\n{_list_fields(Config())}"


def run(arguments: argparse.Namespace) -> int:
    config = overrides.load(arguments.config, overrides.parse_arguments(arguments.rest))
    return launch(config, arguments.workdir or default_directory(config), arguments)


def launch(config: Config, directory: Path, arguments: argparse.Namespace) -> int:
    """Train in this process, as one of several if the arguments say so; the exit status."""
    where = processes.place(arguments)
    if where is None:
        return _train(config, directory, arguments)
    processes.join(where, _said(config, directory, arguments), arguments.join_seconds)
    try:
        status = _train(config, directory, arguments)
    except Exception as error:
        processes.leave(error)
    processes.finish()
    return status


def _said(config: Config, directory: Path, arguments: argparse.Namespace) -> Record:
    """Settings that all processes of a run must share, or the steps of one would not be
    those of another."""
    flat = overrides.flatten(config)
    settings = {k: v for k, v in flat.items() if k not in overrides.FINGERPRINT_IGNORES}
    return settings | {
        "--workdir": str(directory.absolute()),
        "--branch-from": str(arguments.branch_from),
        "--resume-changed": arguments.resume_changed,
        **{f"the version of {name}": version for name, version in versions().items()},
        "the commit of gpt-jax": code_commit(),
    }


def _train(config: Config, directory: Path, arguments: argparse.Namespace) -> int:
    # Imported here: --help and a mistyped override should not wait for jax.
    from gpt_jax.train.loop import Interrupted, train

    was_done = RunDirectory(directory).result.exists()
    try:
        result = train(
            config,
            directory,
            resume_changed=arguments.resume_changed,
            branch=_branch(config, arguments.branch_from),
            profile=arguments.profile,
        )
    except Interrupted as interrupted:
        say(f"gpt-jax: {interrupted}")
        return INTERRUPTED
    if not processes.is_writer():
        return 0
    if was_done:
        print(f"{directory} is done; delete it, or choose another --workdir, to train anew\n")
    _print_result(result, directory)
    if config.evaluate.sample_tokens and not was_done and processes.place(arguments) is None:
        _print_sample(config, directory)
    _print_next(config, arguments.config, directory)
    return 0


def _branch(config: Config, trunk: Path | None) -> tuple[RunDirectory, int] | None:
    """The trunk and the step at which this config's cooldown begins."""
    if trunk is None:
        return None
    stable = config.train.tokens - config.schedule.cooldown_tokens
    return RunDirectory(trunk), make_timetable(config).step_after_tokens(stable)


def _print_result(result: Record, directory: Path) -> None:
    error = result["validation_loss_standard_error"]
    deviation = f" +- {error:.4f}" if isinstance(error, float) else ""
    seconds = format_seconds(result["training_seconds"])
    loss = f"validation loss {result['validation_loss']:.4f}{deviation}"
    if "validation_bits_per_byte" in result:
        loss += (
            f" nats per token, {result['validation_bits_per_byte']:.4f} bits per byte "
            f"({result['validation_tokens']:,} tokens)"
        )
    print(
        f"{loss}\n"
        f"trained on {result['n_tokens']:,} tokens in {seconds}; loss curve: "
        f"{directory / 'loss.png'}"
    )


def _print_sample(config: Config, directory: Path) -> None:
    from gpt_jax.inference.generate import generate_text
    from gpt_jax.inference.settings import SamplingConfig
    from gpt_jax.runs.directory import load_run

    _, model, params, tokenizer = load_run(directory)
    sampling = SamplingConfig(
        temperature=0.7, top_k=50, max_new_tokens=config.evaluate.sample_tokens, seed=config.seed
    )
    prompt = config.evaluate.sample_prompt
    (text,) = generate_text(model, params, tokenizer, [prompt], sampling)
    print(f"\nsample:\n{'-' * 80}\n{prompt}{text}\n{'-' * 80}")


def _print_next(config: Config, config_path: str, directory: Path) -> None:
    place, config_path = shlex.quote(str(directory)), shlex.quote(config_path)
    files = f"  {place}/metrics.jsonl holds every step; result.json and config.json the rest"
    if config.task.name not in ("language_model", "prefer"):
        print(
            f"\nnext:\n  gpt-jax predict {place} --input FILE.jsonl    label new examples\n{files}"
        )
        return
    print(
        f"\nnext:\n"
        f"  gpt-jax generate {place} --prompt 'def '         continue a prompt\n"
        f"  gpt-jax train {config_path} --workdir {place}    say that it is done, or continue it\n"
        f"  gpt-jax train {config_path} --name wider --model.d_model 256    change a setting\n"
        f"  gpt-jax train {config_path} --help               list every setting\n"
        f"{files}"
    )


def _list_fields(config: Config) -> str:
    rows = overrides.help_lines(config)
    lines = ["settings (--KEY VALUE or KEY=VALUE), with type, default and meaning:"]
    for key, kind, value, meaning in rows:
        lines.append(f"  --{key}  [{kind}]  default: {value or 'empty'}\n      {meaning}")
    return "\n".join(lines)
