"""Read a sweep: a file with `get_sweep() -> Iterable[Trial]`. Must not import jax."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from gpt_jax.config import overrides, python_file
from gpt_jax.storage import paths
from gpt_jax.sweep.law_values import PREFIX
from gpt_jax.sweep.naming import LONGEST, safe, with_hash
from gpt_jax.sweep.trial import Cell, Infeasible, Trial, one_of_each

SWEEP_FILE = "sweep.py"


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Declarations of a sweep file."""

    name: str
    trials: list[Trial]
    infeasible: list[Infeasible]


def load_sweep(path: str | Path, changes: Mapping[str, Any]) -> tuple[str, list[Trial]]:
    """The name and the trials of a sweep that is to run.

    Raises ValueError as `read_sweep` does, and if any cell of its grid is infeasible.
    """
    sweep = read_sweep(path, changes)
    if sweep.infeasible:
        bad = sweep.infeasible[0]
        n, n_cells = len(sweep.infeasible), len(sweep.infeasible) + len(sweep.trials)
        raise ValueError(
            f"{n} of {n_cells} cells of {path} cannot be trained (gpt-jax sweep plan lists them; "
            f"leave them out with grid.where), first {describe(bad.varied)}: {bad.reason}"
        )
    return sweep.name, sweep.trials


def read_sweep(path: str | Path, changes: Mapping[str, Any]) -> Sweep:
    """The trials of a file's `get_sweep()`, and the cells of its grid that cannot be trained.

    Args:
      path: the file, or the directory of a sweep.py. The sweep has the directory's name if the
        file is sweep.py, and else the file's.
      changes: {dotted key: value or string}, applied to the config of every trial.

    Equal trials are one; different ones get different names. Raises ValueError for a file that is
    missing or has no get_sweep, for what is no trial, and for a sweep without cells.
    """
    path = Path(paths.local(str(path)))
    if path.is_dir():
        path = path / SWEEP_FILE
    if "name" in changes:
        raise ValueError("--name would give all trials one name; a sweep's trials name themselves")
    overrides.check_keys(changes)
    overrides.run_extensions(changes)
    cells = [_overridden(cell, changes) for cell in _get_sweep(path)]
    if not cells:
        raise ValueError(f"get_sweep() in {path} yields no trials")
    cells = one_of_each(cells)
    trials = _apart([cell for cell in cells if isinstance(cell, Trial)])
    name = path.resolve().parent.name if path.name == SWEEP_FILE else path.stem
    infeasible = [cell for cell in cells if isinstance(cell, Infeasible)]
    return Sweep(safe(name), trials, _told_apart(infeasible, trials))


def read_resources(path: str | Path) -> Callable[[Trial], Mapping[str, Any]] | None:
    """The file's get_resources(trial) -> resources of a Slurm job, if it has one."""
    path = Path(path)
    module = python_file.execute(path / SWEEP_FILE if path.is_dir() else path, "sweep file")
    return module.get_resources if hasattr(module, "get_resources") else None


def describe(varied: Mapping[str, Any]) -> str:
    """Settings of a trial, for a message."""
    return ", ".join(f"{key} = {value}" for key, value in varied.items()) or "the only trial"


def _get_sweep(path: Path) -> Iterable[Cell]:
    with overrides.told():
        module = python_file.execute(path, "sweep file")
    if not hasattr(module, "get_sweep"):
        raise ValueError(f"{path} defines no get_sweep() -> Iterable[Trial]")

    def get_sweep() -> Any:
        cells = module.get_sweep()
        return list(cells) if isinstance(cells, Iterable) else cells

    with overrides.told():
        cells = python_file.call(path, get_sweep)
    if not isinstance(cells, Iterable):
        raise ValueError(f"get_sweep() in {path} returned {type(cells).__name__}; need trials")
    for cell in cells:
        if not isinstance(cell, Trial | Infeasible):
            raise ValueError(
                f"get_sweep() in {path} yields {type(cell).__name__}; need Trial, as make_trials "
                f"makes them"
            )
        yield cell


def _overridden(cell: Cell, changes: Mapping[str, Any]) -> Cell:
    if isinstance(cell, Infeasible) or not changes:
        return cell
    try:
        trunk = None if cell.trunk is None else overrides.override(cell.trunk, changes)
        config = overrides.override(cell.config, changes)
    except ValueError as error:
        return Infeasible(cell.name, cell.varied, str(error))
    by_law = tuple(one for one in cell.by_law if one.law.key not in changes)
    gone = {PREFIX + key for key in changes}
    varied = {key: value for key, value in cell.varied.items() if key not in gone}
    return Trial(config, varied, trunk, by_law)


def _apart(trials: list[Trial]) -> list[Trial]:
    """The trials, all named differently and safely; a trunk has the name it has as a trial."""
    names = [safe(trial.name) for trial in trials]
    uses = Counter(name.casefold() for name in names)
    renamed = {}
    for trial, name in zip(trials, names, strict=True):
        fingerprint = overrides.fingerprint(trial.config)
        if uses[name.casefold()] > 1 or len(name) > LONGEST:
            name = with_hash(name, fingerprint)
        renamed[fingerprint] = dataclasses.replace(trial.config, name=name)
    result = []
    for trial, config in zip(trials, renamed.values(), strict=True):
        trunk = trial.trunk
        if trunk is not None:
            trunk = renamed.get(overrides.fingerprint(trunk), trunk)
        result.append(dataclasses.replace(trial, config=config, trunk=trunk))
    return result


def _told_apart(infeasible: list[Infeasible], trials: list[Trial]) -> list[Infeasible]:
    """The infeasible cells, called by all that they set where another cell has their name."""
    uses = Counter([cell.name for cell in infeasible] + [trial.name for trial in trials])
    return [
        cell if uses[cell.name] == 1 else dataclasses.replace(cell, name=describe(cell.varied))
        for cell in infeasible
    ]
