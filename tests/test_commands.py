"""Commands of the guides, config headers and --help can be pasted.

A shell takes each apart, with a function in the place of `gpt-jax` that writes its words down; the
verb's own parser then reads them, and settings, config files and tables that they name must be
there. Running them all would take days: parsed only.
"""

import ast
import re
import subprocess
from pathlib import Path

import pytest

from gpt_jax import cli, pasting
from gpt_jax.config import overrides
from gpt_jax.published.tables import find_table

ROOT = Path(__file__).parent.parent
GUIDES = [
    ROOT / "README.md",
    ROOT / ".github" / "CONTRIBUTING.md",
    *sorted(ROOT.glob("gpt_jax/**/*.md")),
    *sorted(ROOT.glob("configs/*.md")),
    *sorted(ROOT.glob("experiments/**/*.md")),
]
HEADERS = [*sorted(ROOT.glob("configs/**/*.py")), *sorted(ROOT.glob("experiments/**/*.py"))]
PLACEHOLDER = re.compile(r"^[A-Z_]+(\.\w+)?$")
"""CONFIG, RUN, FILE.jsonl: what the reader puts in."""
SHELL = r"""
set -f
task=cola
gpt-jax() { printf '%s\0' "$@" >&9; printf '\1\0' >&9; }
for name in python pip pytest vllm git source cat head curl; do eval "$name() { :; }"; done
"""


def commands(text: str) -> list[str]:
    """Lines that call gpt-jax, with those that a backslash continues."""
    joined = re.sub(r"\\\n\s*", " ", text)
    lines = [line.strip().removeprefix("$ ") for line in joined.splitlines()]
    return [line for line in lines if re.match(r"(gpt-jax |(pip|git) .*&& gpt-jax )", line)]


def fenced(text: str) -> str:
    """The blocks of a guide that hold no Python."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return "\n".join(block for language, block in blocks if language != "python")


def inline(text: str) -> list[str]:
    """What a guide calls by its name within a sentence, arguments left out or not."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return [" ".join(span.split()) for span in re.findall(r"`(gpt-jax [a-z][^`]+)`", prose)]


def all_commands() -> list[tuple[str, str]]:
    """(where it stands, command)."""
    found = [(str(p.relative_to(ROOT)), c) for p in GUIDES for c in commands(fenced(p.read_text()))]
    found += [
        (str(p.relative_to(ROOT)), c)
        for p in HEADERS
        for c in commands(ast.get_docstring(ast.parse(p.read_text())) or "")
    ]
    for verb in cli.VERBS:
        parser = cli.make_parser(verb)[1]
        found += [(f"{verb} --help", c) for c in commands(f"{parser.epilog}\n{parser.description}")]
    return found


def words_of(lines: list[str], tmp_path: Path) -> list[list[list[str]]]:
    """The words of each gpt-jax that a line calls, as a shell makes them."""
    script, out = tmp_path / "script", tmp_path / "words"
    body = "".join(f"{line}\nprintf '\\2\\0' >&9\n" for line in lines)
    script.write_text(f"exec 9>{out}\n{SHELL}\n{body}")
    done = subprocess.run(
        ["bash", str(script)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    per_line = out.read_text().split("\2\0")[:-1]
    calls = [[c.split("\0")[:-1] for c in line.split("\1\0")[:-1]] for line in per_line]
    assert len(calls) == len(lines)
    return calls


def check(words: list[str]) -> None:
    """Raises ValueError, or SystemExit, for words that gpt-jax does not take."""
    verb, *rest = cli._verb_first(words)
    if verb not in cli.VERBS:
        raise ValueError(f"no verb {verb}")
    if "--help" in rest:
        return
    parsed = cli.parse(cli.make_parser(verb)[1], rest)
    overrides.parse_arguments(parsed.rest)
    given = vars(parsed)
    for path in [given.get("config"), *(given.get("configs") or []), given.get("sweep")]:
        if path and not PLACEHOLDER.match(path) and path.startswith(("configs", "experiments")):
            assert list(ROOT.glob(path)), f"no file {path}"
    if verb == "table" and given["name"] and not PLACEHOLDER.match(given["name"]):
        find_table(given["name"])


def refusals(found: list[tuple[str, str]], tmp_path: Path, capsys) -> list[str]:
    """Where a command stands, the command, and why it cannot be pasted."""
    refused = []
    for (place, line), calls in zip(
        found, words_of([line for _, line in found], tmp_path), strict=True
    ):
        assert calls, line
        for words in calls:
            try:
                check(words)
            except (ValueError, SystemExit, AssertionError) as error:
                said = capsys.readouterr().err.strip().splitlines()
                refused.append(f"{place}: {line}: {said[-1] if said else error}")
    return refused


def test_every_command_can_be_pasted(tmp_path, capsys):
    found = all_commands()
    assert len(found) > 130
    refused = refusals(found, tmp_path, capsys)
    assert not refused, "\n".join(refused)


def test_commands_within_sentences_have_options_that_there_are(tmp_path, capsys):
    found = [(str(p.relative_to(ROOT)), c) for p in GUIDES for c in inline(p.read_text())]
    assert len(found) > 40
    refused = refusals(found, tmp_path, capsys)
    wrong = [line for line in refused if "arguments are required" not in line]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "line",
    ["gpt-jax doctor   what runs", "gpt-jax data build | inspect", "gpt-jax table no-such-table"],
)
def test_what_cannot_be_pasted_is_found(line, tmp_path, capsys):
    """Prose behind a command without #, a list of choices, a name that is not there."""

    def paste() -> None:
        for words in words_of([line], tmp_path)[0]:
            check(words)

    with pytest.raises((ValueError, SystemExit, AssertionError)):
        paste()


def test_next_commands_keep_their_words_in_a_shell(tmp_path):
    changes = {"data.path": "my folder", "evaluate.sample_prompt": "it's $HOME", "name": "a#b"}
    command = pasting.command("train", "my config.py", changes=changes)
    text = pasting.shown([(command, "it's prose"), ("gpt-jax doctor", "what runs")])
    first, second = words_of([line.strip() for line in text.splitlines()[1:]], tmp_path)
    assert first == [
        ["train", "my config.py", *[w for k, v in changes.items() for w in (f"--{k}", v)]]
    ]
    assert second == [["doctor"]]
