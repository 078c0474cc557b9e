"""`gpt-jax eval RUN`: the papers' tasks, and perplexity of texts. Must not import jax."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt_jax.config import overrides
from gpt_jax.runs import checkpoint_choice
from gpt_jax.runs.tracking import Record, provenance

if TYPE_CHECKING:
    from gpt_jax.evaluate.cache import Cache
    from gpt_jax.evaluate.evaluator import Evaluator
    from gpt_jax.evaluate.items import Asked
    from gpt_jax.evaluate.tasks import Task

DESCRIPTION = """\
Score a run on the papers' tasks and on texts. Each finished item is kept: killed, the same command
continues. Results, with what they were computed from, go to RUN/evaluation/results.json, beside
those of other tasks, texts and settings.
"""
EPILOG = """\
examples:
  gpt-jax eval RUN --tasks lambada,hellaswag --data DIR
  gpt-jax eval RUN --tasks piqa --data DIR --shots 8
  gpt-jax eval RUN --text wiki.test.tokens --detokenize wikitext --stride 32
  gpt-jax eval RUN --tasks mine --task-file my_tasks.py --data DIR
  gpt-jax eval RUN --bias occupations,religion
  gpt-jax eval --list

A task file sets TASKS to a list of gpt_jax.evaluate.tasks.Task; that module shows one.
--mesh.KEY VALUE and --compute.KEY VALUE change how, never what, is computed.
"""
HEADLINES = (
    "accuracy",
    "accuracy_no_stop_words",
    "matthews",
    "perplexity_per_word",
    "perplexity_per_token",
    "exact_match",
    "f1",
    "bleu",
    "rouge1_f1",
    "rouge2_f1",
    "rougeL_f1",
    "bits_per_byte",
    "bits_per_character",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `gpt-jax eval`."""
    parser.usage = "gpt-jax eval RUN [--tasks NAME,NAME,..] [--text FILE] [options]"
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    add = parser.add_argument
    add("directory", metavar="RUN", type=Path, nargs="?", help="a run's directory")
    add("--tasks", default="", metavar="NAME,..", help="tasks to score; --list names them")
    add("--list", action="store_true", help="name the tasks, their files and sources")
    add(
        "--extension",
        action="append",
        default=[],
        metavar="FILE",
        help="a Python file that registers tasks (gpt_jax.evaluate.tasks.register)",
    )
    add("--task-file", type=Path, metavar="FILE", help="a Python file with tasks of your own")
    add("--data", type=Path, default=Path("data"), metavar="DIR", help="default: data")
    add("--tfds", action="store_true", help="read tasks from TensorFlow Datasets where they are")
    add("--shots", type=int, default=0, metavar="K", help="demonstrations in a prompt; default 0")
    add("--seed", type=int, default=0, help="of demonstrations and generated items; default 0")
    add("--limit", type=int, metavar="N", help="only the first N items of a task")
    add("--text", type=Path, action="append", default=[], metavar="FILE", help="score a text")
    add("--detokenize", default="none", metavar="RULES", help="none|wikitext|ptb|1bw|text8")
    add("--stride", type=int, metavar="N", help="tokens a window scores; default half the context")
    add(
        "--bias", default="", metavar="NAME,..", help="occupations|religion|race (GPT-3, section 6)"
    )
    add("--lexicon", type=Path, metavar="FILE", help="word TAB score lines, for --bias race")
    checkpoint_choice.add_argument(parser)
    add("--batch-tokens", type=int, metavar="N", help="tokens of a batch; default 8192")
    add("--out", type=Path, metavar="DIR", help="results and cache; default RUN/evaluation")
    parser.set_defaults(takes_overrides=True)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate, print and write; returns the exit status."""
    from gpt_jax.config import extensions
    from gpt_jax.evaluate.catalog import CATALOG
    from gpt_jax.evaluate.tasks import REGISTERED, load_tasks, select

    for path in arguments.extension:
        extensions.run(path)
    own = load_tasks(arguments.task_file) if arguments.task_file else {}
    catalog = CATALOG | REGISTERED | own
    if arguments.list:
        print(_listing(catalog))
        return 0
    tasks = select([name for name in arguments.tasks.split(",") if name], catalog)
    probes = [name for name in arguments.bias.split(",") if name]
    _check(arguments, bool(tasks or probes))
    import dataclasses

    from gpt_jax.cost.flops import count_parameters
    from gpt_jax.evaluate import bias, evaluator, measures
    from gpt_jax.evaluate import results as kept
    from gpt_jax.evaluate.items import ask

    bias.check(probes, arguments.lexicon)
    for path in arguments.text:
        evaluator.check_text(path, arguments.detokenize)
    for task in tasks:
        measures.check(task)
    changes = overrides.parse_arguments(arguments.rest)
    evaluator.check(arguments.directory, changes)
    asked = [
        ask(
            task,
            arguments.data,
            arguments.shots,
            arguments.seed,
            arguments.limit,
            arguments.tfds,
        )
        for task in tasks
    ]
    config, model = evaluator.load(
        arguments.directory, checkpoint_choice.parse_which(arguments.checkpoint), changes
    )
    if arguments.batch_tokens:
        model = dataclasses.replace(model, batch_tokens=arguments.batch_tokens)
    out = arguments.out or arguments.directory / "evaluation"
    cache = model.open_cache(out)
    results = _evaluate(arguments, model, cache, list(zip(tasks, asked, strict=True)), probes)
    cache.close()
    header = {"run": config.name, "n_params": count_parameters(config.model).n_params}
    n = kept.write(out / kept.RESULTS, header | model.identity | provenance(), results)
    print(f"written: {out / kept.RESULTS}, {n:,} evaluations in all", file=sys.stderr)
    return 0


def _evaluate(
    arguments: argparse.Namespace,
    model: "Evaluator",
    cache: "Cache",
    tasks: "Sequence[tuple[Task, Asked]]",
    probes: Sequence[str],
) -> list[Record]:
    """The results of tasks, texts and bias probes, each printed when it is there."""
    from gpt_jax.evaluate import bias, evaluator

    results: list[Record] = []
    for task, asks in tasks:
        found = evaluator.evaluate_task(model, task, cache, asks)
        results.append(found | ({"limit": arguments.limit} if arguments.limit else {}))
        print(line(results[-1]), flush=True)
    for path in arguments.text:
        results.append(
            evaluator.evaluate_text(model, path, cache, arguments.detokenize, arguments.stride)
        )
        print(line(results[-1]), flush=True)
    for name in probes:
        results.append(bias.probe(model, name, arguments.lexicon, arguments.seed, arguments.limit))
        print(bias.text(results[-1]), flush=True)
    return results


def _check(arguments: argparse.Namespace, asked: bool) -> None:
    """Mistakes that should not wait for jax."""
    if arguments.directory is None:
        raise ValueError("which run? give its directory: gpt-jax eval RUN --tasks ...")
    if not asked and not arguments.text:
        raise ValueError("nothing to evaluate: give --tasks, --text or --bias; --list names tasks")
    texts_alone = arguments.text and not asked
    for name, given in (
        ("limit", arguments.limit is not None),
        ("shots", arguments.shots),
        ("tfds", arguments.tfds),
        ("task-file", arguments.task_file),
    ):
        if texts_alone and given:
            raise ValueError(f"--{name} is of tasks; a --text is scored whole: leave it out")
    if not arguments.text and (arguments.stride or arguments.detokenize != "none"):
        raise ValueError("--stride and --detokenize are of a --text; give one, or leave them out")
    if arguments.text and arguments.limit is not None:
        print("note: --limit is of tasks; each --text is scored whole", file=sys.stderr)
    for name in ("shots", "limit", "batch_tokens", "stride"):
        value = vars(arguments)[name]
        least = 0 if name == "shots" else 1
        if value is not None and value < least:
            option = name.replace("_", "-")
            raise ValueError(f"--{option} {value}; allowed: {least} or more")


def _listing(catalog: Mapping[str, Any]) -> str:
    width = max(map(len, catalog))
    return "\n".join(
        f"{name:<{width}}  {task.kind:<8}  {task.files[0] if task.files else '':<28}  {task.source}"
        for name, task in catalog.items()
    )


def _measure(result: Record) -> str:
    """How a headline accuracy counts, with its name in lm-evaluation-harness."""
    if "measure" not in result:
        return ""
    harness = result.get("measure_in_harness")
    return f" ({f'{harness}, ' if harness else ''}{result['measure']})"


def line(result: Record) -> str:
    """One line for a task or a text."""
    if "text" in result:
        shown = f"{result['text']} ({result['tokens']:,} tokens, {result['words']:,} words)"
    else:
        shown = f"{result['task']} ({result['items']:,} items, {result['shots']} shots)"
    parts = []
    for name in (*HEADLINES, *result.get("own_measures", ())):
        if name in result:
            error = result.get(f"{name}_standard_error")
            deviation = "" if error is None else f" +- {error:.4f}"
            by = _measure(result) if name == "accuracy" else ""
            parts.append(f"{name.replace('_', ' ')}{by} {result[name]:.4f}{deviation}")
    note = f"; {result['convention']}" if "convention" in result else ""
    cut = result.get("items_cut_on_the_left")
    cut_note = f"; {cut:,} items longer than the context, cut on the left" if cut else ""
    return f"{shown}: {', '.join(parts) or 'written'}{note}{cut_note}"
