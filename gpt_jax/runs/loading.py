"""Runs read again: a model with its parameters, a base that another run begins from, a teacher; and
runs written of parameters that were not trained in them. Must not import jax at its top.
"""

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from gpt_jax.config import Config, overrides, wording
from gpt_jax.cost import flops
from gpt_jax.data.tokenizers import Tokenizer, load_tokenizer
from gpt_jax.data.tokenizers.base import SPEC_FILE
from gpt_jax.output import say
from gpt_jax.runs.checkpoint_choice import choose, default_step, described
from gpt_jax.runs.checkpoint_files import Manifest, Which, read_manifest, saved_steps
from gpt_jax.runs.directory import RunDirectory
from gpt_jax.runs.tracking import Record
from gpt_jax.storage import paths, places
from gpt_jax.storage.checksum import file_checksum, json_checksum
from gpt_jax.storage.json_files import Damaged

if TYPE_CHECKING:
    from gpt_jax.models.gpt import GPT, Params
    from gpt_jax.parallel.sharding import Layout
    from gpt_jax.steps.step import Steps


class Origin(NamedTuple):
    """A checkpoint of the run that another one begins from, or is taught by."""

    step: int
    digest: str
    """12 hex digits over its files."""


def write_model(
    run: RunDirectory,
    config: Config,
    params: "Params",
    tokenizer: Tokenizer,
    facts: Record,
) -> None:
    """A run of parameters that were not trained in it: tokenizer, checkpoint 0 and, last,
    config.json, so that a kill leaves no run."""
    from gpt_jax.runs.checkpoint import Checkpoints

    paths.check_run_directory(run.path)
    run.tokenizer.mkdir(parents=True, exist_ok=True)
    tokenizer.save(run.tokenizer)
    sealed = {"tokenizer": tokenizer.digest}
    with contextlib.closing(Checkpoints(run.checkpoints, config, sealed=sealed)) as checkpoints:
        checkpoints.save(0, {"params": params})
    counts = flops.count_parameters(config.model)
    run.write_config(config, {"data": []} | facts | {"n_params": counts.n_params})
    places.commit(run.path, final=True)


def load_run(
    path: str | Path, checkpoint: Which = "auto", changes: Mapping[str, str] | None = None
) -> "tuple[Config, GPT, Params, Tokenizer]":
    """Config, model, parameters (their moving average if kept) and tokenizer of a run.

    changes: see `computed_as`. Raises ValueError if `path` holds no run, or not that checkpoint.
    """
    run = RunDirectory(path)
    config = computed_as(run.require_config(), changes or {})
    if config.adapt.method == "prompt":
        raise ValueError(
            f"{path} learned a prompt of {config.adapt.length} positions, which stands before its "
            f"task's examples: use gpt-jax predict"
        )
    model, params = load_model(run, config, checkpoint)
    return config, model, params, load_tokenizer(run.tokenizer)


def computed_as(config: Config, changes: Mapping[str, str]) -> Config:
    """A saved config whose compute section is changed: how, never what.

    Raises ValueError for a change of another section.
    """
    for key in changes:
        if key.split(".")[0] != "compute":
            raise ValueError(f"--{key} would change what was trained; allowed here: --compute.KEY")
    return overrides.override(config, changes) if changes else config


def load_model(
    run: RunDirectory, config: Config, checkpoint: Which, layout: "Layout | None" = None
) -> "tuple[GPT, Params]":
    """The model of a run, computed as `config` says, and its parameters on the layout's mesh."""
    import jax

    from gpt_jax.models.gpt import make_gpt
    from gpt_jax.runs.quantised import restore_found
    from gpt_jax.steps.program import make_steps

    path, manifest = choose(run.checkpoints.absolute(), checkpoint)
    _check_seals(run, config, manifest)
    plain = make_gpt(config.model, config.compute, layout)
    steps = make_steps(config, plain)
    frozen, abstract = abstract_params(steps, layout)
    field = "ema" if config.optimizer.ema_decay else "params"
    trained = restore_found(path, manifest, abstract, field)
    if not jax.tree.leaves(frozen):
        return steps.model, trained
    base = base_params(config, plain, layout, _check_base(run, config, manifest))
    return steps.model, combine_params(steps, config.seed, base, trained)


COMPUTED_WITH = ("model.", "adapt.", "task.", "optimizer.ema_decay")
"""The settings that decide what a run's parameters compute; where its data lie may change."""


def _check_seals(run: RunDirectory, config: Config, manifest: Manifest) -> None:
    """Refuse a run whose config or tokenizer is not what its checkpoint was saved with.

    A changed field (`--resume-changed`) is in config.json before it is in a checkpoint: then
    config.json is as it was written. Raises Damaged naming the file, and what was changed.
    """
    facts, step = run.read_facts() or {"config": {}}, manifest.step
    if facts.get("config_digest") != json_checksum(facts["config"]):
        saved = overrides.from_dict(manifest.config)
        changed = [
            f"{key} was {wording.show(old)}, is {wording.show(new)}"
            for key, (old, new) in overrides.differences(saved, config).items()
            if key.startswith(COMPUTED_WITH)
        ]
        if changed:
            raise Damaged(
                f"{run.config} was changed since checkpoint {step} was saved: "
                f"{'; '.join(changed)}; restore it, or train with these settings"
            )
    tokenizer, sealed = run.tokenizer / SPEC_FILE, manifest.sealed.get("tokenizer")
    if sealed and file_checksum(tokenizer) != sealed:
        raise Damaged(
            f"{tokenizer} was changed since checkpoint {step} was saved: its texts would become "
            f"other tokens than the run was trained on; restore it"
        )


def _check_base(run: RunDirectory, config: Config, manifest: Manifest) -> Origin | None:
    """The base's checkpoint that the run was trained with; refuses a base without it."""
    trained_with = manifest.sealed.get("base", (run.read_facts() or {}).get("base"))
    found = origin(config.base, trained_with)
    if trained_with and found and found.digest != trained_with:
        raise Damaged(
            f"the base {config.base} has changed since {run.path} was trained (its weights were "
            f"{trained_with}, are {found.digest}); restore it"
        )
    return found


def base_params(
    config: Config, model: "GPT", layout: "Layout | None", found: Origin | None = None
) -> "Params":
    """Parameters of the model that `config` begins from: of its base run, or fresh ones.

    found: the base's checkpoint; None = what `origin` says. Raises ValueError for a base that is
    no run, or of another architecture.
    """
    import jax

    if not config.base:
        return jax.jit(model.init)(jax.random.key(config.seed))
    base = RunDirectory(config.base).require_config()
    differing = _other_architecture(base, config)
    if differing:
        raise ValueError(
            f"{config.base} is of another architecture: {differing}; a run that begins from it "
            "has its model"
        )
    found = found or origin(config.base)
    return plain_model(config.base, config, layout, found and found.step)[1]


def plain_model(
    path: str, config: Config, layout: "Layout | None", step: int | None = None
) -> "tuple[GPT, Params]":
    """The language model of a run, computed as `config` says, and its parameters at a step (None:
    those of the checkpoint that `--checkpoint auto` means).

    What a task or an adaptation added to it is merged into it, or left behind.
    """
    import jax

    from gpt_jax.adapt import make_adaptation

    run = RunDirectory(path)
    made = run.require_config()
    how = dataclasses.replace(made, compute=config.compute)
    if step is None:
        step = default_step(run.checkpoints)
    say(described(run.checkpoints, step))
    model, params = load_model(run, how, step, layout)
    if made.adapt.method != "full":
        params = make_adaptation(made.adapt, model).merge(params)
        model = dataclasses.replace(model, interceptors=())
    own = jax.eval_shape(model.init, jax.random.key(0))
    return model, {
        name: {k: params[name][k] for k in part} if name == "embedding" else params[name]
        for name, part in own.items()
    }


def with_base_conventions(config: Config, tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer, used as the base's is (an imported model's BOS, ends, chat template), where
    the two have one vocabulary."""
    if not config.base:
        return tokenizer
    base = load_tokenizer(RunDirectory(config.base).tokenizer)
    if base.fingerprint != tokenizer.fingerprint:
        return tokenizer
    return tokenizer.with_conventions(base.conventions)


def _other_architecture(base: Config, config: Config) -> str:
    """The fields in which two models compute different functions of the same parameters."""
    free = set() if flops.position_rows(config.model) else {"model.seq_len"}
    changed = {
        key: values
        for key, values in overrides.differences(base, config).items()
        if key.startswith("model.")
        and not key.startswith(("model.dropout", "model.init"))
        and key not in free
    }
    return "; ".join(
        f"{key} is {wording.show(old)} there, {wording.show(new)} here"
        for key, (old, new) in changed.items()
    )


def begun_with(run: RunDirectory, other: Literal["base", "teacher"], path: str) -> Origin | None:
    """The checkpoint of the run at `path`, a run's base or teacher, that it began with."""
    return origin(path, (run.read_facts() or {}).get(other))


def origin(path: str, sealed: str | None = None) -> Origin | None:
    """The checkpoint of the run at `path` that another run takes; None without a path.

    sealed: the digest that the other run recorded when it began: that checkpoint, where it is
    still there, else what `--checkpoint auto` means. Raises ValueError where there is none.
    """
    if not path:
        return None
    run = RunDirectory(path)
    run.require_config()
    first = default_step(run.checkpoints)
    steps = [first, *reversed(saved_steps(run.checkpoints))] if sealed else [first]
    found = [Origin(step, _files_digest(run.checkpoints / str(step))) for step in steps]
    return next((each for each in found if each.digest == sealed), found[0])


def _files_digest(checkpoint: Path) -> str:
    files = read_manifest(checkpoint).files
    return json_checksum(files)[:12]


def abstract_params(steps: "Steps", layout: "Layout | None") -> "tuple[Params, Params]":
    """(frozen, trained) parameters as shapes, with their shardings on the layout's mesh."""
    import jax

    def made(key: jax.Array) -> "tuple[Params, Params]":
        return steps.split(key, steps.model.init(key))

    abstract = jax.eval_shape(made, jax.random.key(0))
    if layout is None:
        return abstract
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        abstract,
        tuple(map(layout.shardings, steps.axes()[:2])),
    )


def combine_params(steps: "Steps", seed: int, base: "Params", trained: "Params") -> "Params":
    """All of the model's parameters, from those that training began at and the trained ones."""
    import jax

    def combined(base: "Params", trained: "Params") -> "Params":
        frozen = steps.begin(jax.random.key(seed), base)[1]
        return steps.combine(frozen, trained)

    return jax.jit(combined)(base, trained)
