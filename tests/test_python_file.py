"""Files that a user names are run as scripts are, each with the files beside it."""

import os
import sys

import pytest

from gpt_jax.config import overrides, python_file


def test_files_of_one_name_beside_two_files_are_told_apart(tmp_path):
    found = []
    for folder, value in (("a", 1), ("b", 2)):
        (tmp_path / folder / "parts").mkdir(parents=True)
        (tmp_path / folder / "shared.py").write_text(f"VALUE = {value}\n")
        (tmp_path / folder / "parts" / "more.py").write_text(f"VALUE = {10 * value}\n")
        file = tmp_path / folder / "mine.py"
        file.write_text("import shared\nfrom parts.more import VALUE\nALL = shared.VALUE + VALUE\n")
        found.append(python_file.execute(file, "config file").ALL)
    assert found == [11, 22]
    assert not {"shared", "parts", "parts.more"} & sys.modules.keys()
    assert str(tmp_path / "a") not in sys.path


def test_what_is_installed_below_the_folder_stays(tmp_path, monkeypatch):
    """An environment inside of the checkout, or this package beside a config at its root."""
    installed = tmp_path / ".venv" / "site"
    installed.mkdir(parents=True)
    (installed / "installed_module.py").write_text("")
    monkeypatch.syspath_prepend(str(installed))
    (tmp_path / "mine.py").write_text("import installed_module\n")
    module = python_file.execute(tmp_path / "mine.py", "config file").installed_module
    assert sys.modules.pop("installed_module") is module


def test_a_file_that_was_changed_at_once_runs_as_it_is(tmp_path, monkeypatch):
    """Python's own import would run the bytecode of the text before: second and size are equal."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file = tmp_path / "mine.py"
    for value in (1, 2):
        file.write_text(f"VALUE = {value}\n")
        os.utime(file, (1e9, 1e9))
        found = python_file.execute(file, "config file").VALUE
        assert found == value
    assert [path.name for path in tmp_path.iterdir()] == ["mine.py"]


def test_this_package_is_never_forgotten(repository):
    """For a config at the root of a checkout, beside which gpt_jax lies."""
    assert not python_file._lies_in("gpt_jax", repository)


def test_a_file_that_exits_is_a_mistake_with_its_line(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("import sys\nsys.exit(3)\n")
    with pytest.raises(ValueError, match=r"mine\.py, line 2: SystemExit: 3"):
        python_file.execute(file, "config file")


def test_configs_are_found_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert overrides.load("quickstart").name == "quickstart"
    with pytest.raises(ValueError, match=r"no config file quickstrat; did you mean quickstart\?"):
        overrides.load("quickstrat")
