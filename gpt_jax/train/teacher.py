"""The teacher of a run that learns from another model (config.distill)."""

from gpt_jax.config import Config, meshes, overrides
from gpt_jax.data.tokenizers import Tokenizer, load_tokenizer
from gpt_jax.models.gpt import GPT, Params, make_gpt
from gpt_jax.parallel.sharding import Layout
from gpt_jax.runs.directory import RunDirectory
from gpt_jax.runs.loading import begun_with, plain_model


def make_teacher(config: Config, tokenizer: Tokenizer, layout: Layout) -> GPT:
    """The model of config.distill.teacher. Raises ValueError if it cannot teach this one."""
    run = RunDirectory(config.distill.teacher)
    model = run.require_config().model
    if load_tokenizer(run.tokenizer).fingerprint != tokenizer.fingerprint:
        raise ValueError(
            f"distill.teacher = {run.path} has another tokenizer than the data; both must have one"
        )
    if model.vocab_size != config.model.vocab_size:
        raise ValueError(
            f"distill.teacher = {run.path} has model.vocab_size = {model.vocab_size:,}, this "
            f"config {config.model.vocab_size:,}; set it to that"
        )
    if model.seq_len < config.model.seq_len:
        raise ValueError(
            f"distill.teacher = {run.path} reads {model.seq_len:,} tokens; model.seq_len = "
            f"{config.model.seq_len:,} must not exceed that"
        )
    n_devices, sizes = layout.mesh.size, vars(model)
    laid_out = overrides.draft(config, {f"model.{name}": size for name, size in sizes.items()})
    if obstacle := meshes.obstacle(laid_out, n_devices):
        raise ValueError(f"distill.teacher = {run.path} cannot lie on this mesh: {obstacle}")
    return make_gpt(model, config.compute, layout)


def teacher_params(config: Config, run: RunDirectory, layout: Layout) -> Params:
    """Parameters of the teacher on the mesh: those that the run began with."""
    teacher = config.distill.teacher
    found = begun_with(run, "teacher", teacher)
    return plain_model(teacher, config, layout, found and found.step)[1]
