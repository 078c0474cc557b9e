"""All that is checked before the first step of a run, without a step: `gpt-jax train --dry-run`."""

from pathlib import Path

import jax

from gpt_jax.config import Config, overrides
from gpt_jax.config.mesh_sizes import sizes_of
from gpt_jax.cost import memory, units
from gpt_jax.cost.mesh import without_ramp
from gpt_jax.runs.checkpoint_files import saved_steps
from gpt_jax.runs.directory import RunDirectory
from gpt_jax.runs.loading import base_params
from gpt_jax.storage import paths
from gpt_jax.storage.optional import require
from gpt_jax.train.experiment import Prepared, facts, prepare, resolved
from gpt_jax.train.start import finished_result


def check(config: Config, directory: Path) -> list[str]:
    """Prepare data, mesh, model and steps, and what they are begun from; lines that say what was
    found. Writes nothing but the corpus, in its cache.

    Raises ValueError for whatever would stop the run before its first step.
    """
    config, run = resolved(config), RunDirectory(directory)
    paths.check_run_directory(run.path)
    result = finished_result(run, config)
    if config.tracking.wandb:
        require("wandb", "wandb")
    if config.tracking.tensorboard:
        require("tensorboardX", "tensorboard")
    experiment = prepare(config, run)
    known = facts(experiment)
    if config.base:
        base_params(config, experiment.model, experiment.layout)
    first = experiment.stream.batch(0, 1)
    table, steps = experiment.timetable, saved_steps(run.checkpoints)
    unique = known["unique_tokens"]
    epochs = (
        "" if unique is None else f"{unique:,} tokens, read {table.n_tokens / unique:.3g} times; "
    )
    state = "is done" if result else f"continues after step {steps[-1]:,}" if steps else "is new"
    return [
        f"config: {config.name}, fingerprint {overrides.fingerprint(config)}",
        f"data: {epochs}samples of {first.tokens_BT.shape[1]:,} tokens; vocabulary "
        f"{experiment.data.tokenizer.vocab_size:,} of model.vocab_size {config.model.vocab_size:,}",
        f"model: {known['n_params']:,} parameters, {known['n_params_trained']:,} trained; "
        f"attention {known['attention']}",
        f"devices: {known['devices']}; mesh "
        f"{', '.join(f'{axis} {n}' for axis, n in known['mesh'].items() if n > 1) or 'of one'}"
        f"{_memory(experiment)}",
        f"steps: {table.n_steps:,}, {table.n_tokens:,} tokens",
        f"run: {directory} {state}",
    ]


def _memory(experiment: Prepared) -> str:
    """The estimate of `gpt-jax plan` for a device; nothing for what it does not count."""
    config, backend = experiment.config, jax.default_backend()
    if not config.is_pretraining or backend not in ("cpu", "gpu", "tpu"):
        return ""
    sizes = sizes_of(without_ramp(config), experiment.layout.mesh.size)
    return f"; about {units.size(memory.estimate(config, sizes, backend).total)} of memory each"
