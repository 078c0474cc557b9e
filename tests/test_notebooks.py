"""The notebooks run from their first cell to their last, with small settings."""

import functools
import importlib.metadata
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")

NOTEBOOKS = sorted(
    (Path(__file__).resolve().parent.parent / "experiments" / "notebooks").glob("*.ipynb")
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Corpora and compiled programs, of both."""
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, cache, tmp_path, monkeypatch):
    monkeypatch.setenv("GPT_JAX_NOTEBOOK_SMALL", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(path.parents[2]))
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=400, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()  # raises for a cell that raises
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [o for o in outputs if "image/png" in o.get("data", {})]
    said = "".join(o.get("text", "") for o in outputs)
    # A shell command that fails raises nothing: its line says so.
    assert "gpt-jax: " not in said, said[-2000:]
    assert "6 of 6 done" in said or "6 trials: 6 done" in said
    assert "bits per byte" in said
    assert len(pictures) >= 3


def first_cells(path, n=3):
    """Source of the first code cells."""
    cells = json.loads(path.read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"][:n]


@pytest.mark.parametrize(
    ("source", "files", "wanted"),
    [
        ("gpt_jax", [], "gpt-jax @ file://{here}/gpt_jax"),
        ("gpt_jax", ["nvidia-smi"], "gpt-jax[cuda] @ file://{here}/gpt_jax"),
        ("git+https://example.org/x.git", [], "gpt-jax @ git+https://example.org/x.git"),
    ],
)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_install_cell_installs_where_a_clone_lies_beside_it(
    path, source, files, wanted, tmp_path, monkeypatch
):
    """The clone's folder is named like the package, but is no installation of it."""
    asked = []

    class Shell:
        def run_line_magic(self, name, line):
            asked.append((name, line))

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    (tmp_path / "gpt_jax" / "gpt_jax").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GPT_JAX_SOURCE", source)
    monkeypatch.setattr("shutil.which", lambda name: name if name in files else None)
    monkeypatch.setattr("glob.glob", lambda pattern: [])
    monkeypatch.setattr(importlib.metadata, "version", missing)
    transformer = pytest.importorskip("IPython.core.inputtransformer2")
    cell = transformer.TransformerManager().transform_cell(first_cells(path, 1)[0])
    names = {"get_ipython": Shell}
    exec(cell, names)
    (magic, line), *more = asked
    assert (magic, more) == ("pip", [])
    requirement = shlex.split(line.format(**names))[-1]  # a line magic puts variables in
    assert requirement == wanted.format(here=tmp_path)
    assert Requirement(requirement).name == "gpt-jax"
    # Installed, the same cell does nothing.
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.1.0")
    exec(cell, names)
    assert len(asked) == 1


@pytest.mark.slow
@pytest.mark.parametrize("how", ["clone", "git+"])
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_first_cells_in_an_empty_environment(path, how, tmp_path):
    """Python 3.12 and the newest JAX that pip finds; downloads some 500 MB the first time."""
    python = shutil.which("python3.12")
    if python is None:
        pytest.skip("no python3.12 here")
    run = functools.partial(subprocess.run, check=True, cwd=tmp_path, timeout=1800)
    run([python, "-m", "venv", "env"])
    programs = tmp_path / "env" / "bin"
    run([programs / "pip", "install", "-q", "ipython"])
    repository, here = path.parents[2], tmp_path / "empty"
    here.mkdir()
    address = "https://example.org/gpt_jax.git"  # git finds this checkout behind it
    source = f"git+{address}"
    if how == "clone":
        source = "gpt_jax"
        run(["git", "clone", "-q", str(repository), "empty/gpt_jax"])
    (here / "cells.ipy").write_text("\n\n".join(first_cells(path)) + "\nimport gpt_jax.config\n")
    done = subprocess.run(
        [programs / "ipython", "cells.ipy"],
        cwd=here,
        env={
            "PATH": os.pathsep.join([str(programs), "/usr/local/bin", "/usr/bin", "/bin"]),
            "HOME": str(tmp_path),
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"url.file://{repository}.insteadOf",
            "GIT_CONFIG_VALUE_0": address,
            "GPT_JAX_SOURCE": source,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-3000:]
    assert "Traceback" not in said, said[-3000:]
    assert re.search(r"jax +0\.\d+", said), said[-3000:]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs_and_pins_nothing(path):
    cells = json.loads(path.read_text())["cells"]
    assert not [cell for cell in cells if cell.get("outputs")]
    installs = [line for cell in cells for line in cell["source"] if "pip install" in line]
    assert installs
    assert not re.search(r"[=<>]=|jax\[", "".join(installs))
    assert path.stat().st_size < 50_000


def test_both_notebooks_are_there():
    assert [path.stem for path in NOTEBOOKS] == ["colab_quickstart", "colab_tpu"]
