"""Modules import only from layers before their own, and what is said to be free of jax is.

The order below is the picture in gpt_jax/README.md: change both together.
"""

import ast
import json
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import pytest

LAYERS = (
    {"gpt_jax", "runtime", "paths", "config", "config_fields", "config_how", "tables", "output"}
    | {"config_task", "config_adapt", "config_distill", "config_optimizer", "processes", "buckets"}
    | {"companions", "failures", "json_files", "csv_cells", "python_file"}
    | {"compressed", "optional"},
    {"overrides", "timetable", "flops", "meshes", "hardware", "scaling", "parametrization"},
    {"published", "cost"},
    {"sharding", "data", "optim"},
    {"models"},
    {
        "objectives",
        "sampling",
        "streaming",
        "filters",
        "retrieval",
        "decode",
        "dispatch",
        "feed",
        "adapt",
        "pages",
    },
    {"finetune"},
    {"step", "program", "compiled_steps", "coord_check", "checkpoint_files", "tracking"}
    | {"history", "chat"},
    {"checkpoint"},
    {"compress"},
    {"run"},
    {"evaluate", "generate", "interop", "inspection", "serve"},
    {"experiment", "task_data"},
    {"recorder", "plan", "task_report"},
    {"start"},
    {"train"},
    {"sweep"},
    {
        "train_verb",
        "finetune_verb",
        "predict",
        "inspect_verb",
        "serve_verb",
        "compress_verb",
        "doctor",
        "coord_check_verb",
        "compare_verb",
        "next_verb",
    },
    {"cli"},
    {"__main__"},
)
"""Modules and sub-packages of gpt_jax; each may import from sets before its own, or its own."""

LAYER = {name: depth for depth, names in enumerate(LAYERS) for name in names}

JAX_FREE = (
    "config",
    "overrides",
    "timetable",
    "flops",
    "hardware",
    "chat",
    "filters",
    "retrieval",
    "parametrization",
    "published.verb",
    "data.verb",
    "interop.import_verb",
    "interop.export_verb",
    "checkpoint_files",
    "tracking",
    "run",
    "runtime",
    "train_verb",
    "finetune_verb",
    "inspect_verb",
    "serve_verb",
    "compress_verb",
    "predict",
    "coord_check_verb",
    "compare_verb",
    "next_verb",
    "plan.verb",
    "doctor",
    "cli",
)
"""What must not import jax. With them come the modules that they import."""


@pytest.fixture(scope="module")
def imports(repository: Path) -> dict[str, set[str]]:
    """{module: modules it imports, at its top or inside functions}, as dotted names."""
    files = {module_name(path, repository): path for path in (repository / "gpt_jax").rglob("*.py")}
    return {name: imported(path, files.keys()) for name, path in files.items()}


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path, known: Collection[str]) -> set[str]:
    """Absolute names; `from package import module` counts as the module."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else str(node.module) for name in names}
    return found


def part(module: str) -> str:
    """The module or sub-package of gpt_jax that a dotted name belongs to."""
    return module.split(".")[1] if "." in module else module


@pytest.mark.smoke
def test_modules_import_only_from_layers_before(imports):
    upward = [
        f"{module} imports {other}"
        for module, others in imports.items()
        for other in others
        if other.split(".")[0] == "gpt_jax" and LAYER[part(other)] > LAYER[part(module)]
    ]
    assert not upward


def test_every_module_has_a_layer(imports):
    assert {part(module) for module in imports} <= LAYER.keys()


def test_no_two_modules_import_each_other(imports):
    inside = {m: {o for o in others if o in imports} for m, others in imports.items()}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path, module])
        if module not in done:
            for other in inside[module]:
                visit(other, (*path, module))
            done.add(module)

    for module in inside:
        visit(module, ())


def test_only_models_know_flax(imports):
    users = {m for m, others in imports.items() if any(o.split(".")[0] == "flax" for o in others)}
    assert users
    assert {part(module) for module in users} == {"models"}


def test_what_is_said_not_to_import_jax_does_not(repository):
    """In a real process: every module of JAX_FREE, and every one whose docstring claims it."""
    claiming = {
        module_name(path, repository)
        for path in (repository / "gpt_jax").rglob("*.py")
        if "Must not import jax" in (ast.get_docstring(ast.parse(path.read_text())) or "")
    }
    names = sorted(claiming | {f"gpt_jax.{name}" for name in JAX_FREE})
    program = (
        "import importlib, json, sys\n"
        "found = {}\n"
        f"for name in {names}:\n"
        "    importlib.import_module(name)\n"
        "    found[name] = sorted({'jax', 'flax', 'optax', 'orbax'} & sys.modules.keys())\n"
        "print(json.dumps(found))"
    )
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    found = json.loads(output.stdout)
    assert found.keys() == set(names)
    assert {name: modules for name, modules in found.items() if modules} == {}
