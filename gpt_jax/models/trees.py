"""Nested dicts of parameters by path: "blocks/0/attention/query/kernel"."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

Tree: TypeAlias = dict[str, Any]
Flat: TypeAlias = dict[str, Any]
"""{path: leaf}."""


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Flat:
    """{path: leaf} of a nested dict; what is no dict is a leaf."""
    flat: Flat = {}
    for name, x in tree.items():
        flat |= flatten(x, f"{prefix}{name}/") if isinstance(x, Mapping) else {prefix + name: x}
    return flat


def unflatten(flat: Mapping[str, Any]) -> Tree:
    """The nested dict of {path: leaf}."""
    tree: Tree = {}
    for path, leaf in flat.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return tree


def split(tree: Tree, chosen: Callable[[str], bool]) -> tuple[Tree, Tree]:
    """(the rest, the leaves whose path is chosen)."""
    flat = flatten(tree)
    return (
        unflatten({path: x for path, x in flat.items() if not chosen(path)}),
        unflatten({path: x for path, x in flat.items() if chosen(path)}),
    )


def join(*trees: Tree) -> Tree:
    """One tree of several without a common leaf."""
    flat: Flat = {}
    for tree in trees:
        flat |= flatten(tree)
    return unflatten(flat)
