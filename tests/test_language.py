"""Docstrings stand by themselves: they begin with a noun or a verb, in the field's words."""

import ast
from collections.abc import Iterator
from pathlib import Path

WORDS = ("Of", "What", "By", "Whose")
"""First words that make a reader look elsewhere for what the sentence is about."""


def docstrings(body: list[ast.stmt]) -> Iterator[ast.Constant]:
    """Texts that stand as statements: of modules, classes and functions, and below attributes."""
    for statement in body:
        match statement:
            case ast.Expr(value=ast.Constant(value=str())):
                yield statement.value
        for inner in ("body", "orelse", "finalbody"):
            yield from docstrings(getattr(statement, inner, []))


def test_no_docstring_begins_with_a_word_that_hides_its_subject(repository: Path):
    found, all_of_them = [], 0
    for path in sorted((repository / "gpt_jax").rglob("*.py")):
        for text in docstrings(ast.parse(path.read_text(encoding="utf-8")).body):
            all_of_them += 1
            if str(text.value).split()[:1] and str(text.value).split()[0] in WORDS:
                found.append(f"{path.relative_to(repository)}:{text.lineno}: {text.value[:60]}")
    assert all_of_them > 3000
    assert not found, "\n".join(found)
