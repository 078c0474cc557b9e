"""The size of the core: what training imports, what a step is read in, how long functions are."""

import ast
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

LONGEST = 60
"""Lines of a function, its docstring included."""
IMPORTED = (122, 12_400)
"""Modules and lines that `gpt-jax train` may import for a pretraining config. The design's target
is (55, 8_500)."""
READ = (23, 3_450)
"""Files and lines in which a training step may be read. The design's target is (10, 2_600)."""
FOREIGN = {"finetune", "adapt", "inference", "interop", "compress", "sweep", "serve"}
"""Packages that pretraining never imports."""


@pytest.fixture(scope="module")
def closure(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("closure", repository / "tools" / "closure.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_function_is_long(repository):
    long = {
        f"{path.relative_to(repository)}:{node.lineno} {node.name}": node.end_lineno
        - node.lineno
        + 1
        for path in (repository / "gpt_jax").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert len(long) > 1000
    assert {name: n for name, n in long.items() if n > LONGEST} == {}


def test_the_loop_is_free_of_what_is_built_on_it():
    """Imports alone; what a run imports on the way is measured by the slow test below."""
    program = (
        "import json, sys\n"
        "import gpt_jax.train.loop, gpt_jax.verbs.train\n"
        "print(json.dumps([name for name in sys.modules if name.startswith('gpt_jax.')]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    modules = json.loads(done.stdout)
    assert "gpt_jax.steps.step" in modules
    assert {name for name in modules if name.split(".")[1] in FOREIGN} == set()
    assert len(modules) <= IMPORTED[0]


@pytest.mark.slow
def test_training_imports_and_a_step_is_read_in_no_more_than_was_reached(closure, repository):
    config = repository / "configs" / "quickstart.py"
    found = (closure.imported_by_training(config), closure.traced_in_a_step(config))
    for files, (most_files, most_lines) in zip(found, (IMPORTED, READ), strict=True):
        assert len(files) <= most_files
        assert closure.count_lines(files) <= most_lines
    assert {file.relative_to(repository / "gpt_jax").parts[0] for file in found[0]}.isdisjoint(
        FOREIGN
    )


def test_the_table_names_another_checkout(closure, tmp_path):
    """Imports are followed from its entry, through the tops of modules and packages."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "__init__.py").write_text("")
    (tmp_path / "lib" / "muon.py").write_text("import jax\n\nmuon = 1\n")
    (tmp_path / "unused.py").write_text("x = 1\n")
    (tmp_path / "train.py").write_text("from lib import muon\n\ndef f():\n    import unused\n")
    files = closure.imported_statically(tmp_path, tmp_path / "train.py")
    row = closure.row("other", tmp_path, files, [], ("muon", "alibi"))
    assert row == ["other", "3 / 7", "-", "2", "0"]
