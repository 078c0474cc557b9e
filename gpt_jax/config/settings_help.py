"""Help on settings of a config: the most used, those of a section, or all. Must not import jax."""

import dataclasses

from gpt_jax import failures
from gpt_jax.config.config import Config
from gpt_jax.config.overrides import fields, flatten
from gpt_jax.config.wording import describe, show
from gpt_jax.hints import did_you_mean

MOST_USED = (
    "name",
    "data.source",
    "data.path",
    "data.tokenizer",
    "model.n_layers",
    "model.d_model",
    "model.seq_len",
    "train.tokens",
    "train.batch_sequences",
    "optimizer.learning_rate",
)
GENERAL = "general"
"""The section of the settings that stand in none."""


def sections() -> dict[str, list[str]]:
    """{section: its keys}, in the order of the config."""
    found: dict[str, list[str]] = {}
    for key in fields():
        section, dot, _ = key.partition(".")
        found.setdefault(section if dot else GENERAL, []).append(key)
    return found


def epilog(program: str) -> str:
    """The end of the help of `gpt-jax VERB`: settings, and exit statuses."""
    return f"{summary(program.removeprefix('gpt-jax '))}\n\n{failures.EPILOG}"


def summary(verb: str) -> str:
    """The ten most used settings, and which sections there are."""
    names = sections()
    width = max(map(len, names))
    meanings = {
        field.name: (field.type.__doc__ or "").partition("\n")[0]
        for field in dataclasses.fields(Config)
        if isinstance(field.type, type)
    }
    meanings[GENERAL] = f"{', '.join(names[GENERAL])}."
    lines = ["settings, --KEY VALUE or KEY=VALUE; the ten most used:", *_lines(MOST_USED)]
    lines += ["", f"sections (gpt-jax {verb} --help SECTION, or --help all):"]
    lines += [
        f"  {name:<{width}}  {len(keys):>2}  {meanings[name]}" for name, keys in names.items()
    ]
    lines += ["", "--extension FILE: run a Python file that registers entries of your own first"]
    return "\n".join(lines)


def listing(topic: str) -> str:
    """Every setting of a section, or of all. Raises ValueError for another topic."""
    known = sections()
    if topic != "all" and topic not in known:
        near = did_you_mean(topic, [*known, "all"])
        raise ValueError(f"--help {topic}; allowed: all, {', '.join(known)}{near}")
    lines = ["settings (--KEY VALUE or KEY=VALUE), with type, default and meaning:"]
    for name, keys in known.items():
        if topic in ("all", name):
            lines += ["", f"{name}:", *_lines(keys)]
    return "\n".join(lines)


def _lines(keys: list[str] | tuple[str, ...]) -> list[str]:
    known, values = fields(), flatten(Config())
    lines = []
    for key in keys:
        info, value = known[key], show(values[key]) or "empty"
        kind = ", ".join(filter(None, (describe(info.annotation), info.facts.unit)))
        lines.append(f"  --{key}  [{kind}]  default: {value}\n      {info.description}")
    return lines
