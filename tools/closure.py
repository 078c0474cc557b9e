"""How much code stands behind one training command, here or in another checkout.

    python tools/closure.py                                     this project
    python tools/closure.py ../nanodo --entry nanodo/main.py    and another checkout, by its imports
    python tools/closure.py --unused                            and what is imported, but not called

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

CALLED = """
import json, sys, threading
called = set()
def note(frame, event, _):
    code = frame.f_code
    called.add(f"{code.co_filename}:{code.co_firstlineno}")
threading.setprofile(note)
sys.setprofile(note)
from gpt_jax.cli import main
status = main(json.loads(sys.argv[1]))
sys.setprofile(None)
assert not status, status
print("\\n" + json.dumps(sorted(called)))
"""
"""Train, then print FILE:LINE of every function that ran."""

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
    found = map(Path, printed(program, *arguments, cwd=cwd))
    return [path for path in found if path.is_relative_to(ROOT / "gpt_jax")]


def printed(program: str, *arguments: str, cwd: Path) -> list[str]:
    """The list that a program prints on its last line."""
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
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


def imported_by_training(config: Path) -> list[Path]:
    """Files of this project that `gpt-jax train CONFIG` imports, by training for two steps."""
    found = map(Path, train(config, IMPORTED))
    return [path for path in found if path.is_relative_to(ROOT / "gpt_jax")]


def train(config: Path, program: str) -> list[str]:
    """The list that a program prints when it trains the config for two steps."""
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
        return printed(program, json.dumps(command), cwd=Path(directory))


def not_called(config: Path, files: Iterable[Path]) -> dict[Path, dict[str, int]]:
    """{file: {function: its lines}} of those that `gpt-jax train CONFIG` does not call."""
    called = set(train(config, CALLED))

    def visit(node: ast.AST, file: Path) -> dict[str, int]:
        found: dict[str, int] = {}
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, ast.FunctionDef):
                found |= visit(child, file)
                continue
            first = min([child.lineno, *(d.lineno for d in child.decorator_list)])
            if f"{file}:{first}" in called:
                found |= visit(child, file)
            else:
                found[f"{child.name} ({first})"] = (child.end_lineno or first) - first + 1
        return found

    return {file: visit(ast.parse(file.read_text(encoding="utf-8")), file) for file in files}


def count_prose(files: Iterable[Path]) -> int:
    """Lines of docstrings and comments, and blank ones."""
    total = 0
    for file in files:
        text = file.read_text(encoding="utf-8")
        total += sum(line.strip()[:1] in ("", "#") for line in text.splitlines())
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                lines = text.splitlines()[node.lineno - 1 : node.end_lineno]
                total += sum(line.strip()[:1] not in ("", "#") for line in lines)
    return total


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
    parser.add_argument(
        "--unused", action="store_true", help="list functions that are imported and not called"
    )
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
    if arguments.unused:
        tell_unused(arguments.config, modules)


def tell_unused(config: Path, modules: list[Path]) -> None:
    """Print what of the imported lines is prose, and what is not called."""
    found = not_called(config, modules)
    n = sum(sum(functions.values()) for functions in found.values())
    print(
        f"\nof {count_lines(modules):,} imported lines {count_prose(modules):,} are docstrings, "
        f"comments and blank, and {n:,} are in functions that this run does not call:"
    )
    for file, functions in sorted(found.items(), key=lambda item: -sum(item[1].values())):
        if functions:
            named = ", ".join(f"{name} {lines}" for name, lines in functions.items())
            print(f"  {sum(functions.values()):>4}  {file.relative_to(ROOT)}: {named}")


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
