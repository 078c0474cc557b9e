"""A run's directory: what is in it, who may write it, and how a finished model is loaded again.

config.json     the config, its fingerprint, and where the run came from
metrics.jsonl   a line per step and per validation
checkpoints/    see gpt_jax.runs.checkpoint
tokenizer/      of the corpus, so that the directory alone can generate
loss.png        the loss curve
result.json     written last: the run is done when it exists
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Literal, NamedTuple

from gpt_jax.config import Config, extensions, notation, overrides
from gpt_jax.cost import flops
from gpt_jax.data.tokenizers import Tokenizer, load_tokenizer
from gpt_jax.data.tokenizers.base import SPEC_FILE
from gpt_jax.output import say
from gpt_jax.parallel.processes import is_writer
from gpt_jax.runs.checkpoint_files import (
    Manifest,
    Which,
    choose,
    default_step,
    described,
    read_manifest,
    saved_steps,
)
from gpt_jax.runs.tracking import Record, provenance
from gpt_jax.storage import paths, places
from gpt_jax.storage.atomic import write_json
from gpt_jax.storage.checksum import file_checksum, json_checksum
from gpt_jax.storage.json_files import Damaged, read_object
from gpt_jax.storage.locks import Held, locked

if TYPE_CHECKING:
    from gpt_jax.models.gpt import GPT, Params
    from gpt_jax.parallel.sharding import Layout


class Busy(ValueError):
    """Another process is training in the directory."""


class Origin(NamedTuple):
    """A checkpoint of the run that another one begins from, or is taught by."""

    step: int
    digest: str
    """12 hex digits over its files."""


class RunDirectory:
    """Paths of a run, and its two JSON records."""

    def __init__(self, path: str | PurePath):
        """path: of the run, or its address in a bucket: `self.path` is then its copy here."""
        self.path = places.on_disk(path)
        self.config, self.result = self.path / "config.json", self.path / "result.json"
        self.metrics, self.loss_curve = self.path / "metrics.jsonl", self.path / "loss.png"
        self.checkpoints, self.tokenizer = self.path / "checkpoints", self.path / "tokenizer"

    def read_config(self) -> Config | None:
        """The config of the run that is here, if there is one. Raises `Damaged`."""
        if not self.config.exists():
            return None
        try:
            return overrides.load(self.config)
        except Damaged:
            raise
        except ValueError as error:
            raise Damaged(f"{self.config} is damaged, or of another version: {error}") from None

    def require_config(self) -> Config:
        """The config of the run that is here. Raises ValueError if there is none."""
        config = self.read_config()
        if config is None:
            raise ValueError(f"{self.path} is not a run directory: it has no config.json")
        return config

    def read_facts(self) -> Record | None:
        """All that config.json records: sizes, devices, data, provenance; None without a run."""
        return read_object(self.config, "config") if self.config.exists() else None

    def read_result(self) -> Record | None:
        """result.json of a finished run; None if the run is not done. Raises `Damaged`."""
        return read_object(self.result, "fingerprint") if self.result.exists() else None

    def begun_with(self, other: Literal["base", "teacher"], path: str) -> Origin | None:
        """The checkpoint of the run at `path`, this run's base or teacher, that it began with."""
        return origin(path, (self.read_facts() or {}).get(other))

    def write_config(self, config: Config, facts: Record) -> None:
        """config.json: the config, its fingerprint, provenance, and further facts."""
        extensions.write_copies(config.extensions, self.path)
        tree = overrides.to_dict(config)
        record = {"fingerprint": overrides.fingerprint(config), **facts, **provenance()}
        write_json(self.config, {"config": tree, "config_digest": json_checksum(tree), **record})

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """The directory is this block's alone; the kernel frees the lock of a killed process, and
        in a bucket its lease runs out.

        Of the processes of one run, the first takes it for all. Raises ValueError if it cannot be
        written, and Busy if somebody else is training in it.
        """
        paths.check_run_directory(self.path)
        if not is_writer():
            yield
            return
        with contextlib.ExitStack() as stack:
            try:
                if copy := places.copy_of(self.path):
                    stack.enter_context(copy.taken(copy.name_of(self.path)))
                self.path.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(self.path / ".lock", wait=False))
            except Held as held:
                raise Busy(
                    f"another process is training in {self.path} ({held}); wait for it, or choose "
                    f"another --workdir"
                ) from None
            except OSError as error:
                raise ValueError(
                    f"cannot write the run directory {self.path}: {error.strerror}; choose another "
                    f"with --workdir"
                ) from None
            yield


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
    from gpt_jax.steps.compiled_steps import abstract_params, combine_params
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
            f"{key} was {notation.show(old)}, is {notation.show(new)}"
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
        f"{key} is {notation.show(old)} there, {notation.show(new)} here"
        for key, (old, new) in changed.items()
    )


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


def default_directory(config: Config) -> Path:
    """runs/NAME, in the working directory. Raises ValueError for a name that leads elsewhere."""
    parts = Path(config.name).parts
    if not parts or parts[0] == "/" or ".." in parts:
        raise ValueError(
            f"name = {config.name}; the run's directory is runs/NAME: give a name within runs/ "
            f"(--name), or --workdir DIR"
        )
    return Path("runs") / config.name
