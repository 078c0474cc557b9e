"""gpt-jax VERB: picks the verb, imports only what it needs, and prints mistakes as one line.

A verb is a module with `add_arguments(parser)` and `run(arguments) -> exit status`; what the
parser does not know (config overrides) arrives in `arguments.rest`.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from gpt_jax.output import say
from gpt_jax.runtime import INTERRUPTED, USER_ERROR, prepare_process, use_huge_pages
from gpt_jax.storage import paths, places

VERBS = {
    "train": ("gpt_jax.verbs.train", "train a config, or continue it"),
    "finetune": ("gpt_jax.verbs.finetune", "adapt a trained run to a task, by examples"),
    "predict": ("gpt_jax.verbs.predict", "what a fine-tuned run says of new examples"),
    "data": ("gpt_jax.verbs.data", "build token shards from text, or look into them"),
    "sweep": ("gpt_jax.verbs.sweep", "declare, plan, run and report a grid of experiments"),
    "generate": ("gpt_jax.verbs.generate", "continue a prompt with a trained run"),
    "chat": ("gpt_jax.verbs.chat", "talk with a trained run in the terminal"),
    "eval": ("gpt_jax.verbs.evaluate", "score a run on the papers' tasks and on texts"),
    "serve": ("gpt_jax.verbs.serve", "an OpenAI-compatible endpoint for completions and chat"),
    "inspect": ("gpt_jax.verbs.inspect", "attention, logit lens and losses of a text, as a page"),
    "compress": ("gpt_jax.verbs.compress", "a smaller run: fewer bits, weights, heads or layers"),
    "import": ("gpt_jax.verbs.import_", "a Hugging Face model becomes a run"),
    "export": ("gpt_jax.verbs.export", "a run becomes a Hugging Face folder"),
    "coord-check": ("gpt_jax.verbs.coord_check", "do activations keep their size over widths?"),
    "plan": ("gpt_jax.verbs.plan", "memory, time and cost on a topology, without its chips"),
    "fit": ("gpt_jax.verbs.fit", "fit a scaling law to a table of runs"),
    "fit chain": ("gpt_jax.verbs.fit_chain", "from size and data to a loss to a task's score"),
    "fit curve": ("gpt_jax.verbs.fit_curve", "loss curves under a schedule; the best schedule"),
    "fit hyperparameters": ("gpt_jax.verbs.fit_hyperparameters", "best rate and batch from grids"),
    "fit mixture": ("gpt_jax.verbs.fit_mixture", "losses against shares of domains"),
    "compare": ("gpt_jax.verbs.compare", "the compute one ladder needs as a multiple of another's"),
    "next": ("gpt_jax.verbs.next", "which runs to make next, for a budget and a target"),
    "table": ("gpt_jax.verbs.table", "a paper's table beside what we compute"),
    "runs": ("gpt_jax.verbs.runs", "the field's open tables of runs: list, get, verify"),
    "doctor": ("gpt_jax.verbs.doctor", "versions, devices, kernels in use, data found"),
}
"""Verb -> module, one line of help."""

COMPUTING = (
    "train",
    "finetune",
    "predict",
    "sweep",
    "generate",
    "chat",
    "eval",
    "inspect",
    "serve",
    "compress",
    "coord-check",
)
"""Verbs whose time is spent in jax."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status: `gpt_jax.failures` says what each means."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if "_ARGCOMPLETE" in os.environ:  # a shell asks how the line may go on
        importlib.import_module("gpt_jax.completion").complete()
    status = 0
    try:
        status = _run(given, restart=arguments is None)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status


def _run(given: list[str], restart: bool) -> int:
    """restart: whether this process may start again, with huge pages."""
    if given[:1] == ["help"]:
        given = [*_verb_first(given[1:])[:1], "--help", *_verb_first(given[1:])[1:]]
    if not given or given[0] in ("-h", "--help"):
        print(_help())
        return 0 if given else USER_ERROR
    if given[0] == "--version":
        print(importlib.import_module("gpt_jax").__version__)
        return 0
    given = _verb_first(given)
    verb, words = given[0], given[1:]
    if verb not in VERBS:
        print(f"gpt-jax: {_unknown_verb(verb)}", file=sys.stderr)
        return USER_ERROR
    if restart and verb in COMPUTING:
        use_huge_pages()
    prepare_process()
    module, parser = make_parser(verb)
    try:
        if topic := _help_topic(words, parser):
            print(importlib.import_module("gpt_jax.config.settings_help").listing(topic))
            return 0
        parsed = parse(parser, words)
        copies = _fetch(parsed)
        status = int(module.run(parsed))
        for copy in copies:
            places.put_back(copy)
        return status
    except BrokenPipeError:
        raise
    except (ValueError, OSError, MemoryError, RuntimeError) as error:
        failures = importlib.import_module("gpt_jax.failures")
        failure = failures.tell(error)
        if failure is None:
            raise
        say(f"gpt-jax: {failure.line}")
        return failure.status
    except KeyboardInterrupt:
        say("gpt-jax: interrupted")
        return INTERRUPTED


def make_parser(verb: str) -> tuple[ModuleType, argparse.ArgumentParser]:
    """The module of a verb, and the parser of its arguments."""
    module_name, summary = VERBS[verb]
    module = importlib.import_module(module_name)
    parser = argparse.ArgumentParser(f"gpt-jax {verb}", description=summary)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    module.add_arguments(parser)
    return module, parser


def parse(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.Namespace:
    """The arguments of a verb, overrides of the config in `rest`. Raises ValueError for a path that
    the verb cannot take, and ends the process for an option that there is not."""
    if parser.get_default("tells_settings") and {"-h", "--help"} & set(words):
        parser.epilog = importlib.import_module("gpt_jax.config.settings_help").epilog(parser.prog)
    parsed, rest = parser.parse_known_args(words)
    options = [o for o in parser._option_string_actions if o.startswith("--")]
    unknown = [word.partition("=")[0] for word in rest if word.startswith("--")]
    if rest and not parser.get_default("takes_overrides"):
        from gpt_jax.hints import did_you_mean

        near = "".join(did_you_mean(word, options) for word in unknown[:1])
        parser.error(f"unrecognised arguments: {' '.join(rest)}{near}")
    for word in unknown:
        if "." not in word:
            _check_option(word, options)
    parsed.rest = rest
    _check_paths(parsed)
    return parsed


def _check_option(word: str, options: Sequence[str]) -> None:
    """Raises ValueError for an option that is much like one of the verb's, and no setting."""
    from gpt_jax.hints import did_you_mean

    near = did_you_mean(word, options, cutoff=0.8)
    if not near:
        return
    known = importlib.import_module("gpt_jax.config.overrides").fields()
    if word.removeprefix("--").replace("-", "_") not in known:
        raise ValueError(f"unknown option {word}{near}")


def _verb_first(given: list[str]) -> list[str]:
    """The words, with a verb of two words as the first."""
    return [" ".join(given[:2]), *given[2:]] if " ".join(given[:2]) in VERBS else given


def _unknown_verb(verb: str) -> str:
    """A message that names the nearest verb, or how a config is trained."""
    from gpt_jax.hints import did_you_mean

    hint = did_you_mean(verb, VERBS)
    if not hint and (verb.endswith(".py") or verb in config_names()):
        hint = f"; did you mean 'gpt-jax train {verb}'?"
    return f"unknown verb '{verb}'; one of {', '.join(VERBS)}{hint}"


def config_names() -> list[str]:
    """Configs that can be given by name."""
    overrides = importlib.import_module("gpt_jax.config.overrides")
    folders = [Path("configs"), *overrides.SHIPPED]
    return sorted({path.stem for folder in folders for path in folder.glob("*.py")})


def _help_topic(words: Sequence[str], parser: argparse.ArgumentParser) -> str | None:
    """The section of settings of `--help SECTION`, for a verb that takes overrides."""
    for i, word in enumerate(words):
        if word in ("-h", "--help"):
            after = words[i + 1] if i + 1 < len(words) else ""
            asked = parser.get_default("takes_overrides") and after and not after.startswith("-")
            return after if asked else None
    return None


TEXTS = ("prompt", "stop", "base_name", "rest")
"""Arguments that are texts: they may begin like the address of something."""
COPIED = (
    *("directory", "input", "data", "text", "lexicon", "keys", "retrieve", "folder"),
    *("runs", "source", "curves", "tables", "csv", "json", "plots", "out", "output", "to"),
)
"""Arguments that may be addresses, of what a verb reads or writes: it gets the copy on this
machine, and what it has changed there is stored when it ends."""
ADDRESSES = ("workdir", "base", "branch_from", "sweep", "path", "tokenizer")
"""Arguments that may be addresses of what is at work, or read, for longer: the verb gets those."""


def _check_paths(parsed: argparse.Namespace) -> None:
    """Refuse paths that the verb cannot take, such as hf://o/n, before it does anything."""
    for name, value in vars(parsed).items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, str | Path) and name not in TEXTS:
                try:
                    paths.given(item) if name in COPIED + ADDRESSES else paths.local(str(item))
                except ValueError as error:
                    raise ValueError(f"{name.replace('_', '-')}: {error}") from None


def _fetch(parsed: argparse.Namespace) -> list[Path]:
    """Put copies in place of addresses, or addresses in place of what `Path` made of them; returns
    the copies."""
    copies = []
    for name, value in vars(parsed).items():
        items = value if isinstance(value, list) else [value]
        if name not in COPIED + ADDRESSES or not any(map(_is_address, items)):
            continue
        if name in COPIED:
            copies += [places.on_disk(item) for item in items if _is_address(item)]
            items = [type(x)(places.on_disk(x)) if _is_address(x) else x for x in items]
        else:
            items = [paths.given(item) if isinstance(item, Path) else item for item in items]
        setattr(parsed, name, items if isinstance(value, list) else items[0])
    return copies


def _is_address(value: object) -> bool:
    return isinstance(value, str | Path) and paths.is_address(value)


def _help() -> str:
    width = max(len(verb) for verb in VERBS if " " not in verb)
    lines = [f"  {verb:<{width}}  {summary}" for verb, (_, summary) in VERBS.items()]
    return "\n".join(
        [
            "usage: gpt-jax VERB ...",
            "",
            "Declare a family of GPTs, train it on any device, fit the scaling law, compare.",
            "",
            *lines,
            "",
            importlib.import_module("gpt_jax.failures").EPILOG,
            "",
            "gpt-jax VERB --help tells more; start with: gpt-jax train quickstart",
        ]
    )
