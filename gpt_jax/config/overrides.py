"""Load a config file, change it by dotted keys, save it as JSON, and fingerprint it.

One path serves the command line (strings) and sweeps (values): all overrides are merged first
and validated once, together. Must not import jax.
"""

import contextlib
import dataclasses
import functools
import inspect
import sysconfig
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import TypeAdapter, ValidationError

from gpt_jax.config import Config, notation, python_file
from gpt_jax.config.fields import DRAFT, Facts
from gpt_jax.storage.checksum import json_checksum
from gpt_jax.storage.json_files import read_object

SHIPPED = (
    Path(__file__).resolve().parent.parent.parent / "configs",
    Path(sysconfig.get_path("data")) / "share" / "gpt_jax" / "configs",
)
"""Where configs/ is: in a checkout, or where a wheel installs it."""

ADDED = "extension"
"""Key of a change that adds to a config's `extensions` instead of replacing them."""


def load(
    path: str | Path, overrides: Mapping[str, Any] | None = None, base: Config | None = None
) -> Config:
    """The config of a `configs/*.py` file (its `get_config()`) or of a saved `config.json`.

    base: the config of the run that this one begins from, which a file of fine-tuning takes:
    `get_config(base)`. Raises ValueError for a missing file, a file without get_config, one that
    needs a base, or a bad override.
    """
    path = find(path)
    run_extensions(overrides or {})
    if path.suffix == ".json":
        _extensions().look_in(path.parent)
        saved = read_object(path)
        tree = saved.get("config", saved)
        if not isinstance(tree, dict):
            raise ValueError(f"{path}: its config is no object of settings")
        return override(from_dict(tree), overrides or {})
    with told():
        module = python_file.execute(path, "config file")
    if not hasattr(module, "get_config"):
        raise ValueError(f"{path} defines no get_config() -> Config")
    takes_base = bool(inspect.signature(module.get_config).parameters)
    if takes_base and base is None:
        raise ValueError(
            f"{path} changes the config of another run: gpt-jax finetune {path} --from RUN"
        )
    arguments = [base] if takes_base else []
    with told():
        config = python_file.call(path, lambda: module.get_config(*arguments))
    if not isinstance(config, Config):
        raise ValueError(f"get_config() in {path} returned {type(config).__name__}, not a Config")
    return override(config, overrides or {})


def run_extensions(changes: Mapping[str, Any]) -> None:
    """Run the extensions among the changes of a command line, before a config or sweep file that
    may use what they register."""
    for key in (ADDED, "extensions"):
        if value := changes.get(key):
            _extensions().run_all(value)


def _unknown(key: str, known: Mapping[str, Any]) -> str:
    from gpt_jax.config import mistakes

    return mistakes.unknown(key, known)


def _one_line(error: ValidationError) -> str:
    from gpt_jax.config import mistakes

    return mistakes.one_line(error, fields())


def _extensions() -> ModuleType:
    """`gpt_jax.config.extensions`, which few runs need."""
    from gpt_jax.config import extensions

    return extensions


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Settings that a Python file got wrong, as one line: the file, its line, the key, and what is
    allowed or was meant."""
    try:
        yield
    except ValidationError as error:
        notes = vars(error).get("__notes__", ())  # of python_file: where it is
        place = "".join(f"{note}: " for note in notes)
        raise ValueError(f"{place}{_one_line(error)}") from None


def find(path: str | Path) -> Path:
    """A config's file; `quickstart` is configs/quickstart.py, of the working directory or else of
    this package. Raises ValueError for a missing file, with the nearest name."""
    path = Path(path)
    if path.is_file():
        return path
    folders, by_name = [path.parent], path.name == str(path) and not path.suffix
    if by_name:
        folders = [Path("configs"), *SHIPPED]
        for folder in folders:
            if (folder / f"{path}.py").is_file():
                return folder / f"{path}.py"
    from gpt_jax.hints import nearest

    names = {file.stem: file for folder in folders for file in folder.glob("*.py")}
    near = nearest(path.stem, names)
    hint = f"; did you mean {near[0] if by_name else names[near[0]]}?" if near else ""
    raise ValueError(f"no config file {path}{hint}")


def override(config: Config, changes: Mapping[str, Any]) -> Config:
    """`config` with dotted keys replaced, e.g. {"optimizer.learning_rate": 1e-3}.

    Values may be strings, as typed on a command line: numbers in any notation that names the
    value exactly (1e9 for an integer), true/false, none, comma-separated or JSON lists.
    Raises ValueError naming the nearest valid key, or the allowed values.
    """
    return from_dict(_changed(config, changes))


def draft(config: Config, changes: Mapping[str, Any]) -> Config:
    """Like `override`, for a config that will be changed further: sections may still disagree.

    Each section is valid, but warmup may be longer than training. Not to be trained.
    """
    return from_dict(_changed(config, changes), context=DRAFT)


def _changed(config: Config, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The tree of `config` with dotted keys replaced, not validated."""
    tree = to_dict(config)
    known = fields()
    check_keys(changes)
    for key, value in changes.items():
        if key == ADDED:
            given = _extensions().run_all(value)
            tree["extensions"] = list(dict.fromkeys([*tree["extensions"], *given]))
            continue
        field, options = _split_option(key, known)
        *parents, leaf = field.split(".")
        node = tree
        for parent in parents:
            node = node[parent]
        if options:
            read = notation.parse_json(value) if isinstance(value, str) else value
            node[leaf] = _with_option(node[leaf], options, read)
        elif isinstance(value, str):
            node[leaf] = notation.parse(key, value, known[key].annotation)
        else:
            node[leaf] = value
    return tree


def _split_option(key: str, known: "Mapping[str, FieldInfo]") -> tuple[str, list[str]]:
    """(field, names): optimizer.options.eps is the option eps of the field optimizer.options; of
    any other key there are no names."""
    parts = key.split(".")
    for n in range(len(parts) - 1, 0, -1):
        field = ".".join(parts[:n])
        if field in known and key not in known and _holds_options(known[field]):
            return field, parts[n:]
    return key, []


def _with_option(given: Mapping[str, Any], names: Sequence[str], value: Any) -> dict[str, Any]:
    """A copy of nested options with one of them replaced."""
    first, *rest = names
    if not rest:
        return {**given, first: value}
    inner = given.get(first, {})
    return {**given, first: _with_option(inner if isinstance(inner, dict) else {}, rest, value)}


def _holds_options(info: "FieldInfo") -> bool:
    return typing.get_origin(notation.strip(info.annotation)) is dict


def from_dict(tree: Mapping[str, Any], context: str | None = None) -> Config:
    """A validated Config from nested mappings, as `to_dict` gives them."""
    _refuse_unknown(tree, "", fields())
    try:
        return TypeAdapter(Config).validate_python(tree, context=context)
    except ValidationError as error:
        raise ValueError(_one_line(error)) from None


def to_dict(config: Config) -> dict[str, Any]:
    """Nested plain values, ready for JSON."""
    return dataclasses.asdict(config)


def fingerprint(config: Config) -> str:
    """12 hex digits over everything that decides what is computed (not how, nor the name)."""
    flat = {
        key: _compared(key, value)
        for key, value in flatten(config).items()
        if fields()[key].facts.scope == "what" and not _is_as_before(key, value)
    }
    return json_checksum(flat)[:12]


def _compared(key: str, value: Any) -> Any:
    """A field's value as it is told apart: of an extension the text counts, not its place."""
    return _extensions().digests(value) if key == "extensions" and value else value


def _is_as_before(key: str, value: Any) -> bool:
    """Whether a field computes what was computed before there was this field."""
    return bool(fields()[key].facts.added) and value == fields()[key].neutral


def differences(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """The fields covered by the fingerprint whose values differ: {key: (old, new)}."""
    a, b = flatten(old), flatten(new)
    keys = [key for key in a if fields()[key].facts.scope == "what"]
    return {k: (a[k], b[k]) for k in keys if _compared(k, a[k]) != _compared(k, b[k])}


def what_sections() -> list[str]:
    """The sections, and fields beside them, that say what is computed."""
    found = (key.split(".")[0] for key, info in fields().items() if info.facts.scope == "what")
    return list(dict.fromkeys(found))


def flatten(config: Config) -> dict[str, Any]:
    """{dotted key: value} over all leaf fields."""
    tree = to_dict(config)
    flat = {}
    for key in fields():
        value: Any = tree
        for part in key.split("."):
            value = value[part]
        flat[key] = value
    return flat


@dataclasses.dataclass(frozen=True)
class FieldInfo:
    """Type, default, description and facts of one leaf field."""

    annotation: Any
    default: Any
    description: str
    facts: Facts

    @property
    def neutral(self) -> Any:
        """The value that computes what was computed before the field was added."""
        return self.default if self.facts.neutral is ... else self.facts.neutral


def check_keys(keys: Iterable[str]) -> None:
    """Raises ValueError for a key that no config has, naming the nearest valid one."""
    known = fields()
    for key in keys:
        if key != ADDED and _split_option(key, known)[0] not in known:
            raise ValueError(_unknown(key, known))


@functools.cache
def fields() -> Mapping[str, FieldInfo]:
    """{dotted key: FieldInfo} of every leaf field, in the order of declaration."""
    return _fields(Config, "", {})


def _fields(cls: Any, prefix: str, of_section: Mapping[str, Any]) -> dict[str, FieldInfo]:
    found: dict[str, FieldInfo] = {}
    for name, info in cls.__pydantic_fields__.items():
        facts = {**of_section, **(info.json_schema_extra or {}).get("facts", {})}
        if isinstance(info.annotation, type) and dataclasses.is_dataclass(info.annotation):
            found |= _fields(info.annotation, f"{prefix}{name}.", facts)
        else:
            annotation = notation.annotation_of(info)
            default = info.get_default(call_default_factory=True)
            meaning = info.description or ""
            found[prefix + name] = FieldInfo(annotation, default, meaning, Facts(**facts))
    return found


def parse_arguments(arguments: Sequence[str]) -> dict[str, str]:
    """`--key value`, `--key=value` and `key=value` into {key: value}; dashes may be underscores.

    Raises ValueError for an argument of another form, a missing value or an unknown key.
    """
    known = fields()
    changes: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        given = rest.pop(0)
        key, equals, value = given.partition("=")
        if not given.startswith("--") and not equals:
            from gpt_jax.config.wording import in_a_line

            raise ValueError(
                f"unexpected argument '{in_a_line(given)}'; overrides look like --seed 1"
            )
        key = key.removeprefix("--").replace("-", "_")
        field = _split_option(key, known)[0]
        if key == ADDED:
            field = "extensions"
        if field not in known:
            raise ValueError(_unknown(key, known))
        if not equals:
            if not rest or rest[0].startswith("--"):
                annotation = known[field].annotation
                if notation.strip(annotation) is not bool:
                    from gpt_jax.config.wording import describe

                    raise ValueError(f"--{key} needs a value ({describe(annotation)})")
                value = "true"
            else:
                value = rest.pop(0)
        if key == ADDED and key in changes:
            value = f"{changes[key]},{value}"
        changes[key] = value
    return changes


def _refuse_unknown(tree: Mapping[str, Any], prefix: str, known: Mapping[str, Any]) -> None:
    for name, value in tree.items():
        key = prefix + name
        if key in known:
            continue
        if not isinstance(value, Mapping) or not any(k.startswith(key + ".") for k in known):
            raise ValueError(_unknown(key, known))
        _refuse_unknown(value, key + ".", known)
