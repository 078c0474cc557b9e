"""Where a run starts: anew, at its checkpoint, or off the trunk of another run."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import jax

from gpt_jax.config import Config, overrides
from gpt_jax.config.timetable import Timetable, make_timetable
from gpt_jax.output import say
from gpt_jax.parallel.processes import is_writer
from gpt_jax.runs.checkpoint import Checkpoints, check_fingerprint, restore_state
from gpt_jax.runs.directory import (
    RunDirectory,
    base_params,
    with_base_conventions,
)
from gpt_jax.runs.history import copy_until, tokens_after
from gpt_jax.runs.tracking import Record
from gpt_jax.steps.step import TrainState
from gpt_jax.storage import places
from gpt_jax.train.experiment import (
    Experiment,
    Prepared,
    bind,
    bind_base,
    bind_teacher,
    facts,
)
from gpt_jax.train.recorder import whole_steps

LENGTH = tuple(key for key, info in overrides.fields().items() if info.facts.length)
"""Fields in which a branch may differ from its trunk: it continues the same stable part."""


def finished_result(
    run: RunDirectory, config: Config, resume_changed: bool = False
) -> Record | None:
    """The result of a run that is done under this config; refuses to go on under another one."""
    saved = run.read_config()
    if saved is not None and not resume_changed:
        check_fingerprint(saved, config)
    changed = saved is None or overrides.differences(saved, config)
    return None if changed else run.read_result()


@contextlib.contextmanager
def opened(experiment: Prepared, resume_changed: bool = False) -> Iterator[Checkpoints]:
    """The run's checkpoints, after checking that its data are what they were."""
    known = facts(experiment)
    _check_data(experiment.run, known)
    checkpoints = Checkpoints(
        experiment.run.checkpoints,
        experiment.config,
        allow_changed=resume_changed,
        sealed={
            "tokenizer": experiment.data.tokenizer.digest,
            "base": known["base"],
            "teacher": known["teacher"],
        },
    )
    with contextlib.closing(checkpoints):
        yield checkpoints


def begin(experiment: Prepared) -> None:
    """Write what the run's directory holds before its first step: one process does."""
    if not is_writer():
        return
    run = experiment.run
    run.write_config(experiment.config, facts(experiment))
    run.result.unlink(missing_ok=True)  # of the run before its config was changed
    with_base_conventions(experiment.config, experiment.data.tokenizer).save(_made(run.tokenizer))
    places.commit(run.path)


def initial_state(
    prepared: Prepared,
    checkpoints: Checkpoints,
    branch: tuple[RunDirectory, int] | None = None,
    step: int | None = None,
) -> tuple[Experiment, TrainState, int]:
    """The experiment, ready to train, the state to go on from and the number of steps done.

    The state is a checkpoint's, that of a trunk, or a new one. step: of the checkpoint to go on
    from; none = the latest.
    """
    config, resuming = prepared.config, bool(checkpoints.steps())
    base = None
    if prepared.needs_base or (config.base and not resuming):
        found = prepared.run.begun_with("base", config.base)
        params = base_params(config, prepared.model, prepared.layout, found)
        base = bind_base(prepared, params)
    given = bind_teacher(prepared)
    if resuming:
        step = _step_to_resume(prepared.run, checkpoints) if step is None else step
        state, done = checkpoints.restore(prepared.steps.abstract_state, step)
        timetable = _timetable_after(prepared, done)
        return bind(prepared, base, given, timetable), state, done
    experiment = bind(prepared, base, given)
    if branch is not None:
        return experiment, *take_over(experiment, *branch)
    if base is not None:
        return experiment, base.state, 0
    return experiment, prepared.steps.init(jax.random.key(config.seed)), 0


def _timetable_after(prepared: Prepared, done: int) -> Timetable:
    """The timetable that goes on from what was done, under this config or another batch or length
    (--resume-changed)."""
    table, tokens = prepared.timetable, tokens_after(prepared.run.metrics, done)
    if tokens is None or (done <= table.n_steps and table.tokens_before(done) == tokens):
        return table
    return make_timetable(prepared.config, (done, tokens))


def _step_to_resume(run: RunDirectory, checkpoints: Checkpoints) -> int | None:
    """The step of the checkpoint to go on from where that is not the latest: the last one before
    what metrics.jsonl lacks. None = the latest."""
    saved = checkpoints.steps()
    whole = whole_steps(run.path, run.metrics, saved)
    if whole[-1] == saved[-1]:
        return None
    if is_writer():
        say(
            f"{run.metrics} ends before the checkpoint of step {saved[-1]:,}: going back to that "
            f"of step {whole[-1]:,}"
        )
    return whole[-1]


def take_over(experiment: Experiment, trunk: RunDirectory, step: int) -> tuple[TrainState, int]:
    """The state of a warmup-stable-decay trunk after `step` steps, and its records up to there.

    Up to the beginning of its own cooldown the run would compute exactly these: data order, rate
    and randomness are functions of the step. Raises ValueError if the trunk is another experiment,
    or its rate decays before the step.
    """
    config, source = experiment.config, trunk.require_config()
    changed = overrides.differences(source, config)
    tokens = experiment.timetable.tokens_before(step)
    stable = min(c.train.tokens - c.schedule.cooldown_tokens for c in (config, source))
    wrong = [key for key in changed if key not in LENGTH]
    if wrong or config.schedule.name != "wsd" or tokens > stable:
        why = f"they differ in {', '.join(wrong)}" if wrong else f"a rate decays before {tokens:,}"
        raise ValueError(
            f"cannot branch off {trunk.path} at step {step:,}: {why}; a branch has schedule.name = "
            f"wsd and differs from its trunk in {' and '.join(LENGTH)} alone"
        )
    done = tokens_after(trunk.metrics, step)
    if done not in (None, tokens):
        raise ValueError(
            f"cannot branch off {trunk.path} at step {step:,}: it had trained {done:,} tokens by "
            f"then, this config would have {tokens:,}; its batch was changed on the way"
        )
    state = restore_state(trunk.checkpoints, experiment.steps.abstract_state, step)
    whole_steps(trunk.path, trunk.metrics, [step])
    if is_writer():
        copy_until(trunk.metrics, experiment.run.metrics, step)
    return state, step


def _check_data(run: RunDirectory, new: Record) -> None:
    """Refuse to continue on other tokens, or from another base, than the run began with."""
    old = run.read_facts()
    for other in ("base", "teacher"):
        if old is not None and old.get(other) != new[other]:
            raise ValueError(
                f"the {other} run has changed since {run.path} began (its weights were "
                f"{old.get(other)}, are {new[other]}); restore it, or start anew in another "
                "--workdir"
            )
    if old is not None and old["data"] != new["data"]:
        raise ValueError(
            f"the corpus has changed since {run.path} began (fingerprint {', '.join(old['data'])} "
            f"then, {', '.join(new['data'])} now); restore it, or start anew in another --workdir"
        )


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory
