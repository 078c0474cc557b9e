"""Checkpoints read: the whole state of a run that goes on, or one field of it.

Must not import flax. Orbax takes half a second to import and is imported when first used.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import jax

from gpt_jax.config import Config, extensions, overrides, wording
from gpt_jax.runs.checkpoint_choice import find_sound
from gpt_jax.runs.checkpoint_files import Manifest, Which, named_leaves
from gpt_jax.storage import paths, places

State: TypeAlias = Any
"""A pytree of arrays, or of jax.ShapeDtypeStruct with shardings where it says `abstract`."""


def check_fingerprint(saved: Config, new: Config) -> None:
    """Refuse to continue a run under a config that computes something else.

    Raises ValueError with the differing fields, and how to go on.
    """
    changed = overrides.differences(saved, new)
    if changed:
        fields = "; ".join(
            f"{key} was {wording.show(old)}, is {wording.show(now)}"
            for key, (old, now) in changed.items()
        )
        raise ValueError(
            f"the checkpoint belongs to another config: {fields}. Continue it all the same with "
            f"--resume-changed, or start a new run from its weights with --base RUN"
        )


def resume(
    directory: Path,
    abstract_state: State,
    step: int | None,
    config: Config | None,
    sealed: Mapping[str, str | None],
) -> tuple[State, int]:
    """`Checkpoints.restore`; config: that the checkpoint must have been saved under, or None."""
    path, manifest = find_sound(directory, "latest" if step is None else step)
    if config is not None:
        check_fingerprint(overrides.from_dict(manifest.config), config)
    for name in ("base", "teacher"):
        then, now = manifest.sealed.get(name), sealed.get(name)
        if then and then != now:
            raise ValueError(
                f"the {name} run has changed since checkpoint {manifest.step} of {directory} was "
                f"saved (its weights were {then}, are {now}); restore it, or start anew in another "
                "--workdir"
            )
    return _restore(path, manifest, abstract_state, prefix=""), manifest.step


def saved_config(directory: str | Path, which: Which = "latest") -> Config:
    """The config that a checkpoint was saved under. Errors as in `restore_params`."""
    extensions.look_in(Path(directory).parent)
    return overrides.from_dict(find_sound(Path(directory), which)[1].config)


def restore_state(directory: str | Path, abstract_state: State, step: int) -> State:
    """The whole state that another run saved at `step`. Errors as in `restore_params`."""
    path, manifest = find_sound(Path(directory).absolute(), step)
    return _restore(path, manifest, abstract_state, prefix="")


def restore_params(
    directory: str | Path,
    abstract_params: State,
    which: Which = "latest",
    field: str = "params",
) -> State:
    """One field of a saved state, to generate, evaluate or start from; nothing else is read.

    `field` is "params", or "ema" for the moving average. A corrupt latest checkpoint is passed
    over with a warning. Raises ValueError if there is no such checkpoint, it is corrupt, or its
    arrays are not those of `abstract_params`.
    """
    path, manifest = find_sound(Path(directory).absolute(), which)
    return restore_field(path, manifest, abstract_params, field)


def restore_field(path: Path, manifest: Manifest, abstract: State, field: str) -> State:
    """`restore_params` of a checkpoint that `find_sound` has found."""
    return _restore(path, manifest, abstract, prefix=f"{field}/")


def _restore(path: Path, manifest: Manifest, abstract: State, prefix: str) -> State:
    """The arrays whose names begin with `prefix`, as the tree and on the devices of `abstract`."""
    import orbax.checkpoint as ocp

    paths.check_readable(path)
    wanted = {prefix + name: x for name, x in named_leaves(abstract).items()}
    saved = {name: x for name, x in manifest.arrays.items() if name.startswith(prefix)}
    described = {name: [list(x.shape), str(x.dtype)] for name, x in wanted.items()}
    for name in sorted(described.keys() | saved.keys()):
        if described.get(name) != saved.get(name):
            raise ValueError(
                f"{path} does not fit this model or optimizer: {name} is "
                f"{_array(saved.get(name))} there, {_array(described.get(name))} here"
            )
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    target = {
        name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding or here)
        for name, x in wanted.items()
    }
    arguments = ocp.args.PyTreeRestore(
        item=target,
        restore_args=ocp.checkpoint_utils.construct_restore_args(target),
        partial_restore=True,
    )
    several: dict[str, Any] = {}
    if jax.process_count() > 1 and places.copy_of(path):
        from gpt_jax.runs.apart import alone

        several = alone()
    handler = ocp.PyTreeCheckpointHandler(**several)
    with ocp.Checkpointer(handler, **several) as checkpointer:
        arrays = checkpointer.restore(path / "state", args=arguments)
    return jax.tree.unflatten(jax.tree.structure(abstract), [arrays[name] for name in wanted])


def _array(shape_dtype: list[Any] | None) -> str:
    return "absent" if shape_dtype is None else f"{shape_dtype[1]}{shape_dtype[0]}"
