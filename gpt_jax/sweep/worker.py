"""A worker of a sweep: claims a trial, trains it, notes how it ended, and takes the next.

    python -m gpt_jax.sweep.worker runs/SWEEP

Any number may run at once, on any hosts that share the directory; `gpt-jax sweep run` starts them,
and so may Slurm, Ray or Kubernetes. Trials train one after another in this process, so that those
of one shape share their compiled step.
"""

import argparse
import functools
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gpt_jax import failures
from gpt_jax.runtime import INTERRUPTED, USER_ERROR, prepare_process, use_huge_pages
from gpt_jax.storage import paths, places
from gpt_jax.sweep.attempt import attempt
from gpt_jax.sweep.claims import Claim, released
from gpt_jax.sweep.store import FINAL, RETRIED, Entry, State, SweepDirectory

if TYPE_CHECKING:
    from gpt_jax.train.judge import Judge

WAIT_SECONDS = 1.0
"""Between looks at trials that wait for a trunk."""

STOP_RULES = ("hopeless", "asha")
"""Keys of `stopping.RULES`, which is imported where a rule is asked for."""

Stopping = Callable[[SweepDirectory, Entry], "Judge | None"]
"""The judge of a trial; None for a trial that is trained to its end."""
Train = Callable[[SweepDirectory, Sequence[Entry]], dict[str, tuple[State, str]]]
"""Train claimed trials; {name: (state, message)}. Raises `Interrupted` for all of them."""


def work(
    sweep: SweepDirectory,
    train: Train,
    choose: Callable[[SweepDirectory, list[Entry]], list[Entry]],
    retry: Sequence[State] = (),
) -> None:
    """Work until no trial is left that this process could train.

    choose: of the trials that want work, those to train next, together; those that others claim
    in the meantime are left to them. Raises `Interrupted` after noting it.
    """
    tried: set[str] = set()
    while True:
        wanting = [e for e in sweep.claimable(retry) if e.name not in tried]
        ready = [entry for entry in wanting if sweep.is_ready(entry)]
        if not ready:
            if not wanting:
                return
            time.sleep(WAIT_SECONDS)
            continue
        first, *others = choose(sweep, ready)
        claim = sweep.claim(first.name, retry)
        if claim is None:  # another worker is claiming these just now: choose among what it leaves
            time.sleep(WAIT_SECONDS)
            continue
        chosen = [(first, claim), *((e, sweep.claim(e.name, retry)) for e in others)]
        held = [(entry, claim) for entry, claim in chosen if claim is not None]
        tried |= {entry.name for entry, _ in held}
        with released([claim for _, claim in held]):
            _train_claimed(sweep, train, held)


def _train_claimed(
    sweep: SweepDirectory, train: Train, held: Sequence[tuple[Entry, Claim]]
) -> None:
    from gpt_jax.train.loop import Interrupted

    entries = [entry for entry, _ in held]
    try:
        outcomes = train(sweep, entries)
    except Interrupted as interrupted:
        ended = {e.name: sweep.unclaimed_state(e.name) for e in entries}
        cut = [(e, c) for e, c in held if ended[e.name] not in FINAL]
        _note(sweep, {e.name: ("preempted", str(interrupted)) for e, _ in cut}, cut)
        raise
    _note(sweep, outcomes, held)


def _note(
    sweep: SweepDirectory,
    outcomes: dict[str, tuple[State, str]],
    held: Sequence[tuple[Entry, Claim]],
) -> None:
    for entry, claim in held:
        state, message = outcomes[entry.name]
        # One that another process is training after all is not this one's to judge.
        if claim.is_held() and state not in ("done", "running"):
            sweep.finish(entry.name, state, message)
        message = places.named(message)
        print(f"{entry.name}: {state}" + (f": {message}" if message else ""), flush=True)


def train_alone(
    sweep: SweepDirectory, entries: Sequence[Entry], stop: Stopping | None = None
) -> dict[str, tuple[State, str]]:
    """Train trials by themselves, one after another, by the loop of `gpt-jax train`.

    stop: makes the judge of a trial, which may stop it early.
    """
    from gpt_jax.train.loop import train

    outcomes: dict[str, tuple[State, str]] = {}
    for entry in entries:
        directory = sweep.run(entry.name).path
        branch = sweep.branch_step(entry)
        judge = None if stop is None else stop(sweep, entry)
        outcomes[entry.name] = attempt(
            directory,
            lambda: train(entry.config, directory, branch=branch, judge=judge),  # noqa: B023
        )
    return outcomes


def stopping(rule: str) -> Stopping:
    """Factory of the judges of a rule; they share what they read of finished trials."""
    from gpt_jax.sweep.hopeless import FinishedRun
    from gpt_jax.sweep.stopping import make_rule

    known: dict[str, FinishedRun] = {}
    return lambda sweep, entry: make_rule(rule, sweep, entry, known)


def one_at_a_time(sweep: SweepDirectory, ready: list[Entry]) -> list[Entry]:
    """The first."""
    return ready[:1]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a worker; 0 when nothing is left to do, 130 when it was told to stop."""
    if arguments is None:
        use_huge_pages()
    parser = argparse.ArgumentParser("python -m gpt_jax.sweep.worker", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("directory", type=Path, help="of a sweep that `gpt-jax sweep run` began")
    parser.add_argument("--only", action="append", help="work on this trial; may be repeated")
    parser.add_argument(
        "--retry", action="append", default=[], choices=list(RETRIED),
        help="take such trials as well",
    )  # fmt: skip
    parser.add_argument("--stop", choices=STOP_RULES, help="stop trials early by this rule")
    parser.add_argument("--packed", action="store_true", help="train trials of one shape together")
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="of which this one takes a share"
    )
    parser.add_argument("--identity", help="of its claims; its launcher knows them by it")
    parser.add_argument("--cores", help="of this host's CPU, as 0,1: use no others")
    parsed = parser.parse_args(arguments)
    if parsed.cores:
        # Before jax starts: XLA takes as many threads as the process may use cores.
        os.sched_setaffinity(0, {int(core) for core in parsed.cores.split(",")})
    prepare_process()
    from gpt_jax.train.loop import Interrupted

    try:
        place = paths.given(parsed.directory)
        paths.check_run_directory(places.on_disk(place))
        sweep = SweepDirectory.open(place)
        sweep.identity = parsed.identity or sweep.identity
        sweep = sweep.only(parsed.only) if parsed.only else sweep
    except ValueError as error:
        print(f"gpt-jax: {error}", file=sys.stderr)
        return USER_ERROR
    train: Train = train_alone
    choose = one_at_a_time
    if parsed.stop:
        train = functools.partial(train_alone, stop=stopping(parsed.stop))
    if parsed.packed:
        from gpt_jax.sweep.packs import choose_pack, train_packs

        train = train_packs
        choose = functools.partial(choose_pack, n_workers=parsed.workers)
    try:
        work(sweep, train, choose, parsed.retry)
    except Interrupted as interrupted:
        print(f"stopped: {interrupted}", file=sys.stderr)
        return INTERRUPTED
    except (ValueError, OSError) as error:
        failure = failures.tell(error)
        if failure is None:
            raise
        print(f"gpt-jax: {failure.line}", file=sys.stderr)
        return failure.status
    return 0


if __name__ == "__main__":
    sys.exit(main())
