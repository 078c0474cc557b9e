"""Which samples and how many tokens each step sees: durations in tokens made into steps.

A pure function of the config, shared by the loop, the learning-rate schedule, the data stream
and the planner. Step k (from 0) consumes samples [samples_before(k), samples_before(k + 1)).
Must not import jax.
"""

import bisect
import dataclasses
from collections.abc import Callable

from gpt_jax.config import Config

RAMP_STAGES = 16
"""A batch-size ramp is a staircase of at most this many batch sizes: each is one compilation."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """Consecutive steps with one batch size."""

    first_step: int
    first_sample: int
    batch_sequences: int


@dataclasses.dataclass(frozen=True)
class Timetable:
    """The staircase of batch sizes and the number of steps."""

    stages: tuple[Stage, ...]
    n_steps: int
    seq_len: int
    """Tokens of a sample."""
    offset: int = 0
    """Tokens beyond those of the samples: negative, and less than a sample, where a run went on
    with samples of another length."""

    def stage(self, step: int) -> Stage:
        return self.stages[bisect.bisect(self.stages, step, key=lambda s: s.first_step) - 1]

    def batch_sequences(self, step: int) -> int:
        """Sequences in the global batch of this step."""
        return self.stage(step).batch_sequences

    def samples_before(self, step: int) -> int:
        """Samples consumed by the steps before this one: also the index of its first sample."""
        stage = self.stage(step)
        return stage.first_sample + (step - stage.first_step) * stage.batch_sequences

    def tokens_before(self, step: int) -> int:
        """Training tokens consumed by the steps before this one."""
        return self.samples_before(step) * self.seq_len + self.offset

    @property
    def n_tokens(self) -> int:
        """Training tokens in all: train.tokens rounded up to whole batches."""
        return self.tokens_before(self.n_steps)

    def step_after_tokens(self, tokens: float) -> int:
        """The first step that begins with at least this many tokens seen."""
        if tokens >= self.n_tokens:
            return self.n_steps
        return bisect.bisect_left(range(self.n_steps), tokens, key=self.tokens_before)

    def due(self, every_tokens: int) -> Callable[[int], bool]:
        """done_steps -> whether something done every so many tokens is due after that many steps.

        The last step is always due; with 0 only the last is.
        """

        def is_due(done_steps: int) -> bool:
            if done_steps >= self.n_steps:
                return True
            if every_tokens == 0 or done_steps == 0:
                return False
            before, after = self.tokens_before(done_steps - 1), self.tokens_before(done_steps)
            return after // every_tokens > before // every_tokens

        return is_due


def make_timetable(config: Config, done: tuple[int, int] = (0, 0)) -> Timetable:
    """The timetable of a config: train.tokens in batches of train.batch_sequences, ramp included.

    done: steps, and tokens, that were trained under another batch or length before this config's
    go on: no sample is left out or read twice, and tokens count as they were trained. Of steps
    before these the timetable knows the mean batch alone.

    The ramp rises from train.ramp_from_sequences in equal stairs, multiples of that size (what
    divides the first batch divides them all), each held for an equal share of train.ramp_tokens
    (GPT-3: 32k tokens to the full batch over the first 4 to 12 billion).
    """
    train, seq_len = config.train, sample_tokens(config)
    full, start = train.batch_sequences, train.ramp_from_sequences
    step, tokens = done
    sample = -(-tokens // seq_len)
    offset = tokens - sample * seq_len
    stages = [Stage(0, 0, max(1, sample // step))] if step else []
    if start is not None and start < full:
        n_stairs = min(RAMP_STAGES, -(-full // start) - 1)
        for stair in range(n_stairs):
            size = start + (full - start) * stair // n_stairs // start * start
            stages.append(Stage(step, sample, size))
            until = min(train.ramp_tokens * (stair + 1) // n_stairs, train.tokens)
            steps = max(0, -(-(until - sample * seq_len) // (size * seq_len)))
            step, sample = step + steps, sample + steps * size
    stages.append(Stage(step, sample, full))
    left = train.tokens - sample * seq_len - offset
    n_steps = step + max(0, -(-left // (full * seq_len)))
    # A stair that got no step is dropped: two stages never begin at the same step.
    kept = (stage for stage in stages if stage.first_step < n_steps or stage.first_step == done[0])
    last = {stage.first_step: stage for stage in kept}
    return Timetable(tuple(last.values()), n_steps, seq_len, offset)


def sample_tokens(config: Config) -> int:
    """Tokens of a sample: model.seq_len of a corpus; of a task, its K sequences of task.length."""
    task = config.task
    if not task.has_examples:
        return config.model.seq_len
    return task.n_sequences * (task.length or config.model.seq_len)


def is_cooled(config: Config) -> bool:
    """Whether the learning rate has come to the end of its decay when training stops.

    A fit of losses never mixes runs that have with runs that have not: the decay alone lowers the
    loss as much as training several times longer.
    """
    schedule = config.schedule
    match schedule.name:
        case "cosine" | "linear":
            return (schedule.decay_tokens or 0) <= config.train.tokens
        case "wsd":
            return schedule.cooldown_tokens > 0
    return False
