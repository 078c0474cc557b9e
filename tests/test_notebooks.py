"""The notebooks run from their first cell to their last, with small settings."""

import json
import os
import re
import sys
from pathlib import Path

import pytest

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
