"""`gpt-jax train CONFIG`: argument handling, and what is printed before and after training."""

import argparse
import json
import shlex
from pathlib import Path

from gpt_jax import pasting
from gpt_jax.config import Config, overrides
from gpt_jax.config.timetable import make_timetable
from gpt_jax.output import say
from gpt_jax.parallel import processes
from gpt_jax.runs.directory import RunDirectory, default_directory
from gpt_jax.runs.tracking import Record, code_commit, format_seconds, versions
from gpt_jax.runtime import INTERRUPTED
from gpt_jax.verbs import next_steps


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "gpt-jax train CONFIG [--workdir DIR] [options] [--KEY VALUE ...]"
    parser.add_argument("config", metavar="CONFIG", help="a configs/*.py, or a run's config.json")
    add_options(parser)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of `gpt-jax train` and `gpt-jax finetune`, besides the config."""
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
    parser.add_argument(
        "--print-config",
        action="store_true",
        help="print the config with these settings, as JSON that can be trained, and end",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="prepare the data and check everything, vocabulary and mesh too; train nothing",
    )
    processes.add_arguments(parser)
    verb = parser.prog.removeprefix("gpt-jax ")
    parser.set_defaults(takes_overrides=True, verb=verb, tells_settings=True)


def run(arguments: argparse.Namespace) -> int:
    config = overrides.load(arguments.config, overrides.parse_arguments(arguments.rest))
    return launch(config, arguments.workdir or default_directory(config), arguments)


def launch(config: Config, directory: Path, arguments: argparse.Namespace) -> int:
    """Train in this process, as one of several if the arguments say so; the exit status."""
    if arguments.print_config:
        print(json.dumps(overrides.to_dict(config), indent=1))
        return 0
    if arguments.dry_run:
        return dry_run(config, directory)
    where = processes.place(arguments)
    if where is None:
        return _train(config, directory, arguments)
    from gpt_jax.parallel import meeting

    meeting.join(where, _said(config, directory, arguments), arguments.join_seconds)
    try:
        status = _train(config, directory, arguments)
    except Exception as error:  # the other processes wait for this one, whatever ended it
        meeting.leave(error)
    processes.finish()
    return status


def _said(config: Config, directory: Path, arguments: argparse.Namespace) -> Record:
    """Settings that all processes of a run must share, or the steps of one would not be
    those of another."""
    known = overrides.fields()
    settings = {
        key: value
        for key, value in overrides.flatten(config).items()
        if known[key].facts.scope != "machine"
    }
    return settings | {
        "--workdir": str(directory.absolute()),
        "--branch-from": str(arguments.branch_from),
        "--resume-changed": arguments.resume_changed,
        **{f"the version of {name}": version for name, version in versions().items()},
        "the commit of gpt-jax": code_commit(),
    }


def dry_run(config: Config, directory: Path) -> int:
    """Everything up to the first step, and what was found."""
    from gpt_jax.train.dry_run import check

    for line in check(config, directory):
        print(line)
    print("all checks passed; nothing was trained")
    return 0


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
    prompt = _prompt(config, arguments)
    if config.evaluate.sample_tokens and not was_done and processes.place(arguments) is None:
        _print_sample(config, directory, prompt)
    commands, guides = _next(config, arguments, directory, prompt)
    print(f"\n{pasting.shown(commands)}")
    print(f"guides: {', '.join(guides)}")
    print(f"{directory / 'metrics.jsonl'} holds every step; result.json and config.json the rest")
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


def _print_sample(config: Config, directory: Path, prompt: str) -> None:
    from gpt_jax.inference.generate import generate_text
    from gpt_jax.inference.settings import SamplingConfig
    from gpt_jax.runs.loading import load_run

    _, model, params, tokenizer = load_run(directory)
    sampling = SamplingConfig(
        temperature=0.7, top_k=50, max_new_tokens=config.evaluate.sample_tokens, seed=config.seed
    )
    (text,) = generate_text(model, params, tokenizer, [prompt], sampling)
    print(f"\nsample:\n{'-' * 80}\n{prompt}{text}\n{'-' * 80}")


def _prompt(config: Config, arguments: argparse.Namespace) -> str:
    """The prompt of the sample: the config's, unless other text was asked for beside it."""
    changes = overrides.parse_arguments(arguments.rest)
    of_config = "data.source" not in changes and "data.path" not in changes
    if "evaluate.sample_prompt" in changes or (of_config and config.evaluate.sample_prompt):
        return config.evaluate.sample_prompt
    return next_steps.prompt_for(config) if _continues_text(config) else ""


def _continues_text(config: Config) -> bool:
    return not config.task.has_examples or config.task.labels_by_base


def _next(
    config: Config, arguments: argparse.Namespace, directory: Path, prompt: str
) -> tuple[list[tuple[str, str]], list[str]]:
    """Commands that can follow, with the settings that were given; and guides."""
    changes = overrides.parse_arguments(arguments.rest)
    start = again_words(arguments)
    same = pasting.command(*start, "--workdir", directory, changes=changes)
    found = [(same, "continue it, or hear that it is done")]
    anew = {key: value for key, value in changes.items() if key != "name"}
    if _continues_text(config):
        ask = pasting.command("generate", directory, "--prompt", prompt or "Once")
        found.insert(0, (ask, "continue a prompt"))
        anew |= {"name": "wider", "model.d_model": str(2 * config.model.d_model)}
        guides = [("evaluate", "score it"), ("finetune", "adapt it"), ("sweep", "train a grid")]
    else:
        label = pasting.command("predict", directory, "--input", "FILE.jsonl")
        found.insert(0, (label, "label new examples"))
        rate = f"{config.optimizer.learning_rate / 2:g}"
        anew |= {"name": "slower", "optimizer.learning_rate": rate}
        guides = [("finetune", "tasks, adapters"), ("serve", "answer requests")]
    found.append((pasting.command(*start, changes=anew), "change a setting"))
    found.append((pasting.command(start[0], "--help", "all"), "every setting"))
    if config.tracking.wandb and config.tracking.wandb_mode == "offline":
        for run in sorted((RunDirectory(directory).path / "wandb").glob("offline-run-*")):
            found.append((f"wandb sync {shlex.quote(str(run))}", "show it in Weights & Biases"))
    return found, [f"{next_steps.guide(name)} ({what})" for name, what in guides]


def again_words(arguments: argparse.Namespace) -> list[str]:
    """The words that asked for the run, but for its directory and settings."""
    given = vars(arguments)
    words = [given["verb"], str(arguments.config)]
    if given.get("base") is not None:
        words += ["--from", str(given["base"])]
    return [*words, "--scratch"] if given.get("scratch") else words
