"""A sweep's directory: its trials, the state of each, and claims that keep workers apart.

The state of a trial follows from files in its run directory, so that any number of workers on any
hosts that share the file system agree on it, and a kill at any moment loses nothing:

result.json     done
outcome.json    diverged, stopped (early), failed, damaged or preempted, and why; a running trial
                has a live claim
claims/NUMBER   a claim (`claims.py`); the highest number counts

A trial with a file that cannot be read is damaged; the others go on. Must not import jax.
"""

import dataclasses
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from gpt_jax.config import Config, extensions, overrides, wording
from gpt_jax.config.timetable import make_timetable
from gpt_jax.hints import did_you_mean
from gpt_jax.runs import checkpoint_files
from gpt_jax.runs.directory import RunDirectory
from gpt_jax.runs.tracking import Record
from gpt_jax.storage import paths, places
from gpt_jax.storage.atomic import write_json
from gpt_jax.storage.json_files import Damaged, read_object
from gpt_jax.storage.paths import Address
from gpt_jax.sweep.claims import Claim, is_released, latest, live_claim, make_claim, owner
from gpt_jax.sweep.trial import Trial

State = Literal[
    "pending", "running", "done", "stopped", "diverged", "failed", "damaged", "preempted"
]
STATES: tuple[State, ...] = get_args(State)
FINAL: tuple[State, ...] = ("done", "stopped", "diverged", "failed", "damaged")
LABELS = {"stopped": "stopped early"}
"""States as people read them, where that is not the word itself."""

RETRIED: tuple[State, ...] = ("failed", "diverged", "damaged", "stopped")
"""States of trials that are taken up again where asked for."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """A trial as sweep.json holds it."""

    name: str
    fingerprint: str
    varied: Mapping[str, Any]
    trunk: str | None
    """Fingerprint of the trial that it may branch off."""
    config: Config


class SweepDirectory:
    """The trials of a sweep, where they run, and their states."""

    def __init__(self, place: Path | Address, entries: Sequence[Entry]):
        self.place, self.entries = place, tuple(entries)
        """Path, or address in a bucket; `path` is then its copy here."""
        self.path = places.on_disk(place)
        self.identity = secrets.token_hex(8)
        """Identity in the claims made through this object: a worker's, where its launcher gave it
        one."""
        self._only: frozenset[str] | None = None
        self._by_name = {entry.name: entry for entry in self.entries}
        self._by_fingerprint = {entry.fingerprint: entry for entry in self.entries}

    @classmethod
    def open(cls, place: str | Path | Address) -> "SweepDirectory":
        """The sweep that was begun there; ValueError if there is none."""
        path = places.on_disk(place)
        file = path / "sweep.json"
        if not file.is_file():
            raise ValueError(
                f"{place} holds no sweep; gpt-jax sweep run SWEEP begins one, --workdir names it"
            )
        extensions.look_in(path)
        try:
            entries = [
                Entry(
                    t["name"],
                    t["fingerprint"],
                    t["varied"],
                    t["trunk"],
                    overrides.from_dict(t["config"]),
                )
                for t in read_object(file, "trials")["trials"]
            ]
        except (KeyError, TypeError) as error:
            raise Damaged(f"{file} is damaged: a trial in it lacks {error}") from None
        return cls(paths.given(place), entries)

    @classmethod
    def create(
        cls, place: Path | Address, name: str, file: str, trials: Sequence[Trial]
    ) -> "SweepDirectory":
        """Begin a sweep, or go on with it under a longer, shorter or reordered list of trials.

        Raises ValueError where a trial of that name was trained under another config.
        """
        entries = [
            Entry(
                trial.name,
                overrides.fingerprint(trial.config),
                dict(trial.varied),
                None if trial.trunk is None else overrides.fingerprint(trial.trunk),
                trial.config,
            )
            for trial in trials
        ]
        sweep = cls(place, entries)
        sweep._rename_old()
        for entry in entries:
            try:
                saved = sweep.run(entry.name).read_config()
            except Damaged:
                continue  # the trial alone is, and its worker says so
            changed = {} if saved is None else overrides.differences(saved, entry.config)
            if changed:
                key, (old, new) = next(iter(changed.items()))
                raise ValueError(
                    f"trial {entry.name} in {place} was run under another config ({key} was "
                    f"{wording.show(old)}, is {wording.show(new)}); choose another --workdir"
                )
        for entry in entries:
            extensions.write_copies(entry.config.extensions, sweep.path)
        document = [
            {**dataclasses.asdict(entry), "config": overrides.to_dict(entry.config)}
            for entry in entries
        ]
        write_json(sweep.path / "sweep.json", {"name": name, "file": file, "trials": document})
        places.put_back(sweep.path)
        return sweep

    def refresh(self, older_than: float = 0.0) -> None:
        """Fetch what others changed in a bucket, if the last look was so many seconds ago."""
        places.refresh(self.path, older_than)

    @staticmethod
    def begun_in(place: Path | Address) -> list[Entry]:
        """Trials of a sweep that was begun there and have runs; none without one."""
        path = places.on_disk(place)
        if not (path / "sweep.json").is_file() or not (path / "trials").is_dir():
            return []
        entries = SweepDirectory.open(place).entries
        return [entry for entry in entries if (path / "trials" / entry.name).is_dir()]

    def _rename_old(self) -> None:
        """Trials are named by what varies: where a longer grid names one anew, its run follows."""
        if not (self.path / "sweep.json").exists():
            return
        before = SweepDirectory.open(self.place)
        for old in before.entries:
            entry = self._by_fingerprint.get(old.fingerprint)
            if entry is None or entry.name == old.name or not before.run(old.name).path.exists():
                continue
            if before.state(old.name) == "running":
                raise ValueError(
                    f"trial {old.name} in {self.place} is running and would be renamed "
                    f"{entry.name}; wait for it, or choose another --workdir"
                )
            if paths.is_address(self.place):
                raise ValueError(
                    f"trial {old.name} in {self.place} would be renamed {entry.name}, which a "
                    f"bucket cannot do; keep the trials as they were, or choose another --workdir"
                )
            os.rename(before.run(old.name).path, self.run(entry.name).path)

    def __getitem__(self, name: str) -> Entry:
        return self._by_name[name]

    def run(self, name: str) -> RunDirectory:
        """The run directory of a trial."""
        return RunDirectory(self.path / "trials" / name)

    def state(self, name: str) -> State:
        """The state of a trial now."""
        state = self.unclaimed_state(name)
        if state in ("done", "damaged") or live_claim(self._claims(name)) is None:
            return state
        return "running"

    def damage(self, name: str) -> str:
        """The fault of the files that hold the trial's state; empty if there is none."""
        try:
            self._has_result(name)
            self._read_outcome(name)
        except Damaged as error:
            return f"{error}; restore it, or delete {self.run(name).path} to train it anew"
        except OSError as error:
            return f"{error.filename}: {error.strerror}"
        return ""

    def states(self) -> dict[str, State]:
        self.refresh()
        return {entry.name: self.state(entry.name) for entry in self.entries}

    def outcome(self, name: str) -> Record | None:
        """How the last attempt ended if the trial is not done: state, message, attempts."""
        if damage := self.damage(name):
            return {"state": "damaged", "message": damage, "attempts": 0}
        outcome = self._read_outcome(name)
        # That of another config, or of an attempt before a retry that was done, says nothing.
        current = outcome is not None and outcome["fingerprint"] == self[name].fingerprint
        return outcome if current and not self._has_result(name) else None

    def finish(self, name: str, state: State, message: str) -> None:
        """Note how an attempt ended; `done` is noted by result.json alone."""
        before = self.outcome(name)
        write_json(
            self._outcome(name),
            {
                "state": state,
                "message": message,
                "attempts": 1 + (0 if before is None else before["attempts"]),
                "fingerprint": self[name].fingerprint,
            },
        )
        places.put_back(self._outcome(name))

    def is_ready(self, entry: Entry) -> bool:
        """False while the trial waits for a trunk that will save it its stable part.

        A trunk that ended without the checkpoint is not waited for: a branch is a whole run.
        """
        trunk = self._by_fingerprint.get(entry.trunk or "")
        if trunk is None or self.run(entry.name).checkpoints.exists():
            return True
        return self.branch_step(entry) is not None or self.state(trunk.name) in FINAL

    def branch_step(self, entry: Entry) -> tuple[RunDirectory, int] | None:
        """The trunk's run and the step that this trial can go on from, once it is saved."""
        trunk = self._by_fingerprint.get(entry.trunk or "")
        if trunk is None:
            return None
        stable = entry.config.train.tokens - entry.config.schedule.cooldown_tokens
        step = make_timetable(entry.config).step_after_tokens(stable)
        run = self.run(trunk.name)
        return (run, step) if step in checkpoint_files.saved_steps(run.checkpoints) else None

    def only(self, names: Sequence[str]) -> "SweepDirectory":
        """The same sweep with no work but on these trials; ValueError for one that is not there."""
        for name in names:
            if name not in self._by_name:
                hint = did_you_mean(name, self._by_name)
                raise ValueError(f"no trial '{name}' in {self.place}{hint}")
        limited = SweepDirectory(self.place, self.entries)
        limited.identity = self.identity
        limited._only = frozenset(names)
        return limited

    def claimable(self, retry: Sequence[State] = ()) -> list[Entry]:
        """Trials that nobody works on and that want work, in the sweep's order."""
        self.refresh()
        wanted = {"pending", "preempted", *retry}
        entries = [e for e in self.entries if self._only is None or e.name in self._only]
        return [e for e in entries if self.state(e.name) in wanted]

    def claim(self, name: str, retry: Sequence[State] = ()) -> Claim | None:
        """This process's claim on a trial that wants work, or None if another one was faster."""
        claims, run = self._claims(name), self.run(name)
        places.refresh(run.path)
        number = latest(claims) + 1
        if live_claim(claims) is not None:
            return None
        claim = make_claim(claims, number, self.identity)
        places.refresh(run.path)
        # Between the look at the state and the claim, somebody may have finished the trial.
        if claim is not None and self.unclaimed_state(name) not in {
            "pending",
            "preempted",
            *retry,
        }:
            claim.release()
            return None
        return claim

    def claimed_by(self, identity: str) -> list[str]:
        """Trials with a claim of this identity that was not given back."""
        self.refresh()
        found = []
        for entry in self.entries:
            claims = self._claims(entry.name)
            said = owner(claims, latest(claims))
            if not is_released(claims) and said.get("identity") == identity:
                found.append(entry.name)
        return found

    def unclaimed_state(self, name: str) -> State:
        """The state of a trial whoever may be working on it: how it ended, if it did."""
        outcome = self.outcome(name)
        if outcome is not None:
            state: State = outcome["state"]
            return state
        return "done" if self._has_result(name) else "pending"

    def _read_outcome(self, name: str) -> Record | None:
        path = self._outcome(name)
        if not path.exists():
            return None
        outcome = read_object(path, "state", "message", "attempts", "fingerprint")
        if outcome["state"] not in STATES or not isinstance(outcome["attempts"], int):
            raise Damaged(f"{path} is damaged: state {outcome['state']!r}")
        return outcome

    def _has_result(self, name: str) -> bool:
        result = self.run(name).read_result()
        return result is not None and result["fingerprint"] == self[name].fingerprint

    def _outcome(self, name: str) -> Path:
        return self.run(name).path / "outcome.json"

    def _claims(self, name: str) -> Path:
        return self.run(name).path / "claims"
