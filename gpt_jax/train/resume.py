"""Where a run goes on: after its last sound checkpoint, or off the trunk of another run."""

from collections.abc import Sequence
from pathlib import Path

from gpt_jax.config import overrides
from gpt_jax.config.timetable import Timetable, make_timetable
from gpt_jax.output import say
from gpt_jax.parallel.processes import is_writer
from gpt_jax.runs.checkpoint import Checkpoints
from gpt_jax.runs.directory import RunDirectory
from gpt_jax.runs.history import copy_until, steps_recorded, tokens_after
from gpt_jax.runs.restoring import restore_state
from gpt_jax.steps.step import TrainState
from gpt_jax.train.experiment import Experiment, Prepared

LENGTH = tuple(key for key, info in overrides.fields().items() if info.facts.length)
"""Fields in which a branch may differ from its trunk: it continues the same stable part."""


def timetable_after(prepared: Prepared, done: int) -> Timetable:
    """The timetable that goes on from what was done, under this config or another batch or length
    (--resume-changed)."""
    table, tokens = prepared.timetable, tokens_after(prepared.run.metrics, done)
    if tokens is None or (done <= table.n_steps and table.tokens_before(done) == tokens):
        return table
    return make_timetable(prepared.config, (done, tokens))


def step_to_resume(run: RunDirectory, checkpoints: Checkpoints) -> int | None:
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


def whole_steps(run: Path, metrics: Path, saved: Sequence[int]) -> list[int]:
    """Steps of checkpoints up to which metrics.jsonl has the record of every step.

    Raises ValueError that names the first step that is missing if there is none.
    """
    n = steps_recorded(metrics)
    whole = [step for step in saved if step <= n]
    if not whole:
        raise ValueError(
            f"{metrics} lacks the record of step {n + 1:,}, and the first checkpoint is that of "
            f"step {min(saved):,}: restore the file, or start anew in another --workdir than {run}"
        )
    return whole
