"""How much code stands behind one training command, here or in another checkout.

    python tools/closure.py                                     this project
    python tools/closure.py ../nanodo --entry nanodo/main.py    and another checkout, by its imports

Columns: modules (and lines) that the training command imports; files (and lines) to read for one
training step; files that name a given optimizer and a given position encoding, a measure of how
many places know each. Here the first two are observed: a real `gpt-jax train` of a few steps, on a
corpus that an earlier command has made, lists what it imported, and one step is traced while every
file of ours that runs is noted. Of another checkout, a second row, only the imports are followed,
from its entry and through the tops of its modules, so what it imports inside functions is not
counted; what is not measured prints as a dash.
"""

import argparse
import ast
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

IMPORTED = """
import json, sys
from gpt_jax.cli import main
status = main(json.loads(sys.argv[1]))
assert not status, status
files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
print("\\n" + json.dumps(sorted(f for f in files if f)))
"""
"""Train, then print the files of all imported modules."""

MADE = """
import json, sys
from gpt_jax.config import overrides
from gpt_jax.data import prepare
prepare(overrides.load(sys.argv[1], json.loads(sys.argv[2])).data, progress=False)
print("[]")
"""
"""Make the corpus of a config."""

TRACED = """
import dataclasses, json, sys
import jax, numpy as np
from gpt_jax.config import overrides
from gpt_jax.data.batch import Batch
from gpt_jax.models.gpt import make_gpt
from gpt_jax.steps.program import make_steps
from gpt_jax.steps.step import make_settings
from gpt_jax.config.timetable import make_timetable

config = overrides.load(sys.argv[1], {"compute.products": "plain", "compute.dtype": "bfloat16"})
settings = jax.tree.map(np.asarray, make_settings(config, make_timetable(config)))
steps = make_steps(config, make_gpt(config.model, config.compute, backend="tpu"))
state = jax.eval_shape(steps.init, jax.random.key(0))
tokens = np.zeros((config.train.batch_sequences, config.model.seq_len), np.int32)
batch = Batch(tokens, tokens, tokens.astype(np.float32), None)
files = set()
sys.setprofile(lambda frame, event, _: files.add(frame.f_code.co_filename))
jax.eval_shape(steps.train, state, batch, settings)
sys.setprofile(None)
print(json.dumps(sorted(files)))
"""
"""Trace one training step as an accelerator runs it; print the files whose functions ran."""


def count_lines(files: Iterable[Path]) -> int:
    """Lines of all files together."""
    return sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)


def run(program: str, *arguments: str, cwd: Path) -> list[Path]:
    """The files that a program prints on its last line, those of this project's package alone."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    found = map(Path, json.loads(done.stdout.splitlines()[-1]))
    return [path for path in found if path.is_relative_to(ROOT / "gpt_jax")]


def imported_by_training(config: Path) -> list[Path]:
    """Files of this project that `gpt-jax train CONFIG` imports, by training for two steps."""
    with tempfile.TemporaryDirectory() as directory:
        text = Path(directory) / "text.txt"
        text.write_text("".join(f"line {i} of a short text\n" for i in range(2000)))
        command = ["train", str(config), "--workdir", f"{directory}/run"]
        changes = {
            "data.source": "text",
            "data.path": str(text),
            "data.tokenizer": "byte",
            "data.validation": "tail",
            "data.validation_fraction": "0.2",
            "model.seq_len": "16",
            "model.n_layers": "1",
            "train.batch_sequences": "2",
            "train.tokens": "64",
            "schedule.warmup_tokens": "0",
            "evaluate.max_sequences": "2",
            "evaluate.sample_tokens": "0",
        }
        changes["data.cache"] = f"{directory}/cache"
        for key, value in changes.items():
            command += [f"--{key}", value]
        made = {k: v for k, v in changes.items() if k.startswith("data.")}
        run(MADE, str(config), json.dumps(made), cwd=Path(directory))
        return run(IMPORTED, json.dumps(command), cwd=Path(directory))


def traced_in_a_step(config: Path) -> list[Path]:
    """Files of this project whose functions run while one training step is traced."""
    return run(TRACED, str(config), cwd=ROOT)


def imported_statically(root: Path, entry: Path) -> list[Path]:
    """Files under `root` that importing `entry` reaches through the tops of modules."""
    seen: set[Path] = set()
    waiting = [entry]
    while waiting:
        file = waiting.pop()
        if file in seen:
            continue
        seen.add(file)
        for statement in top_level(ast.parse(file.read_text(encoding="utf-8"))):
            waiting += imported_files(statement, file, root)
    return sorted(seen)


def top_level(tree: ast.Module) -> Iterable[ast.stmt]:
    """Statements that run when a module is imported, those under `if` and `try` included."""
    waiting: list[ast.stmt] = list(tree.body)
    while waiting:
        statement = waiting.pop()
        if isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test):
            continue
        yield statement
        if isinstance(statement, ast.If | ast.Try | ast.With | ast.ClassDef):
            waiting += [s for s in ast.iter_child_nodes(statement) if isinstance(s, ast.stmt)]


def imported_files(statement: ast.stmt, file: Path, root: Path) -> list[Path]:
    """Files under `root` that one import statement loads, packages' `__init__.py` included."""
    names: list[str] = []
    if isinstance(statement, ast.Import):
        names = [alias.name for alias in statement.names]
    elif isinstance(statement, ast.ImportFrom):
        base = list(file.relative_to(root).parent.parts) if statement.level else []
        base = base[: len(base) - statement.level + 1] if statement.level else base
        module = ".".join([*base, *([statement.module] if statement.module else [])])
        names = [module, *(f"{module}.{alias.name}" for alias in statement.names)]
    found = []
    for name in names:
        parts = name.split(".")
        for n in range(1, len(parts) + 1):
            stem = root.joinpath(*parts[:n])
            beside = file.parent.joinpath(*parts[:n])
            for place in (stem, beside):
                found += [
                    f for f in (place / "__init__.py", place.with_suffix(".py")) if f.is_file()
                ]
    return found


def naming(root: Path, word: str) -> int:
    """Python files below `root` that contain a word, those of tests apart."""
    return sum(
        word in file.read_text(encoding="utf-8", errors="replace").lower()
        for file in root.rglob("*.py")
        if not any("test" in part or part.startswith(".") for part in file.relative_to(root).parts)
    )


def table(rows: list[list[str]]) -> str:
    """Rows as aligned columns, the first to the left."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkout", nargs="?", type=Path, help="another project's folder")
    parser.add_argument("--entry", type=Path, help="its training script, relative to the folder")
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "quickstart.py")
    parser.add_argument("--optimizer", default="muon", help="the word that is looked for")
    parser.add_argument("--position", default="alibi", help="the word that is looked for")
    parser.add_argument("--files", action="store_true", help="list the files too")
    arguments = parser.parse_args()
    if arguments.checkout is not None and arguments.entry is None:
        parser.error("--entry: the training script of the other checkout, as in train.py")
    words = arguments.optimizer, arguments.position
    modules, step = imported_by_training(arguments.config), traced_in_a_step(arguments.config)
    rows = [
        ["", "imported", "read for a step", *words],
        ["", "modules / lines", "files / lines", "files", "files"],
        row("gpt_jax", ROOT / "gpt_jax", modules, step, words),
    ]
    if arguments.checkout is not None:
        root = arguments.checkout.resolve()
        rows.append(
            row(root.name, root, imported_statically(root, root / arguments.entry), [], words)
        )
    print(table(rows))
    if arguments.files:
        for title, files in (("imported", modules), ("read for a step", step)):
            print(f"\n{title}")
            for file in files:
                print(f"  {count_lines([file]):>6,}  {file.relative_to(ROOT)}")


def row(
    name: str, root: Path, modules: list[Path], step: list[Path], words: tuple[str, str]
) -> list[str]:
    """The cells of one project."""
    return [
        name,
        f"{len(modules)} / {count_lines(modules):,}",
        f"{len(step)} / {count_lines(step):,}" if step else "-",
        *(str(naming(root, word)) for word in words),
    ]


if __name__ == "__main__":
    main()
