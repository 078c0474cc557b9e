"""The table of families: what is read, with published sizes counted by us. Must not import jax."""

from gpt_jax.cost.flops import count_parameters
from gpt_jax.interop.family import FAMILIES, Family, read_config

HEAD = (
    "| model_type | models | published sizes, with our number of parameters | refused |\n"
    "|---|---|---|---|"
)


def family_table() -> str:
    """A Markdown table of every family.

    Each size has the number of parameters that our config of its config.json makes; one that is
    not the published number would say so.
    """
    families = sorted(map(FAMILIES.find, FAMILIES.names()), key=lambda family: family.model_type)
    return "\n".join([HEAD, *map(_row, families)])


def _row(family: Family) -> str:
    cells = f"`{family.model_type}`", family.summary, _sizes(family), family.refused
    return f"| {' | '.join(cells)} |"


def _sizes(family: Family) -> str:
    shown = []
    for size in family.sizes:
        facts = {"model_type": family.model_type, **size.facts}
        _, config = read_config(facts, size.name)
        n = count_parameters(config).n_params + family.unused(config)
        differs = "" if n == size.n_params else f" (published: {size.n_params:,})"
        shown.append(f"{size.name} {n:,}{differs}")
    return "; ".join(shown)
