"""Where a run starts: anew, at its checkpoint, or off the trunk of another run."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import jax

from gpt_jax.config import Config, overrides
from gpt_jax.models.gpt import Params
from gpt_jax.parallel.processes import is_writer
from gpt_jax.runs.checkpoint import Checkpoints
from gpt_jax.runs.directory import RunDirectory
from gpt_jax.runs.tracking import Record
from gpt_jax.steps.step import TrainState
from gpt_jax.storage import places
from gpt_jax.train.experiment import (
    Experiment,
    Prepared,
    bind,
    bind_base,
    facts,
)


def finished_result(
    run: RunDirectory, config: Config, resume_changed: bool = False
) -> Record | None:
    """The result of a run that is done under this config; refuses to go on under another one."""
    saved = run.read_config()
    if saved is None:
        return None
    if not resume_changed:
        from gpt_jax.runs.restoring import check_fingerprint

        check_fingerprint(saved, config)
    return None if overrides.differences(saved, config) else run.read_result()


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
    tokenizer = experiment.data.tokenizer
    if experiment.config.base:
        from gpt_jax.runs.loading import with_base_conventions

        tokenizer = with_base_conventions(experiment.config, tokenizer)
    tokenizer.save(_made(run.tokenizer))
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
        from gpt_jax.runs.loading import base_params, begun_with

        found = begun_with(prepared.run, "base", config.base)
        params = base_params(config, prepared.model, prepared.layout, found)
        base = bind_base(prepared, params)
    given: Params = {}
    if config.distill.teacher:
        from gpt_jax.train.teacher import teacher_params

        given = teacher_params(config, prepared.run, prepared.layout)
    if resuming:
        from gpt_jax.train.resume import step_to_resume, timetable_after

        step = step_to_resume(prepared.run, checkpoints) if step is None else step
        state, done = checkpoints.restore(prepared.steps.abstract_state, step)
        timetable = timetable_after(prepared, done)
        return bind(prepared, base, given, timetable), state, done
    experiment = bind(prepared, base, given)
    if branch is not None:
        from gpt_jax.train.resume import take_over

        return experiment, *take_over(experiment, *branch)
    if base is not None:
        return experiment, base.state, 0
    return experiment, prepared.steps.init(jax.random.key(config.seed)), 0


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
