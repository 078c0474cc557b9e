"""The command line: help without waiting, mistakes as one line on stderr and status 2."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from gpt_jax import cli, completion
from gpt_jax.config import overrides, settings_help, wording

TINY = "from gpt_jax.config import Config\n\n\ndef get_config() -> Config:\n    return Config()\n"


@pytest.fixture(autouse=True)
def leave_this_process_alone(monkeypatch):
    """The allocator and cache settings are for the process of a command, not for pytest's."""
    monkeypatch.setattr(cli, "prepare_process", lambda: None)


@pytest.fixture
def config_file(tmp_path: Path) -> str:
    path = tmp_path / "tiny.py"
    path.write_text(TINY)
    return str(path)


def one_line(captured) -> str:
    """The only line that was printed, on stderr."""
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    assert captured.err.startswith("gpt-jax: ")
    return captured.err


# --- help ---------------------------------------------------------------------------------------


@pytest.mark.smoke
def test_help_is_quick_and_imports_neither_jax_nor_pydantic():
    program = (
        "import contextlib, json, sys\n"
        "from gpt_jax.cli import main\n"
        "status = main(['--help'])\n"
        "with contextlib.suppress(SystemExit):\n"
        "    main(['fit', '--help'])\n"
        "print(json.dumps([status, sorted(sys.modules)]))"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    *text, last = output.stdout.splitlines()
    status, modules = json.loads(last)
    assert status == 0
    assert "usage: gpt-jax VERB" in text[0]
    assert all(any(line.strip().startswith(f"{verb} ") for line in text) for verb in cli.VERBS)
    assert not {"jax", "pydantic", "numpy", "rich", "flax"} & set(modules)
    # CPU time of the process: 0.1 s where it was written. Wall time would measure the machine.
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert spent < 0.5


@pytest.mark.parametrize("command", [[sys.executable, "-m", "gpt_jax"], ["gpt-jax"]])
def test_both_entry_points(command):
    if command == ["gpt-jax"]:
        command = [str(Path(sys.executable).with_name("gpt-jax"))]
        if not os.access(command[0], os.X_OK):
            pytest.skip("gpt-jax is not installed as a command beside this Python")
    output = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
    assert output.stdout.strip().count(".") >= 1


def test_help_of_train_lists_every_field(capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["train", "--help"])
    assert exit_.value.code == 0
    short = capsys.readouterr().out
    assert len(short.splitlines()) < 120
    assert sum(f"--{key} " in short for key in overrides.fields()) == 10
    assert all(f"\n  {section} " in short for section in settings_help.sections())
    assert cli.main(["train", "--help", "all"]) == 0
    text = capsys.readouterr().out
    for key, info in overrides.fields().items():
        kind = ", ".join(filter(None, (wording.describe(info.annotation), info.facts.unit)))
        assert f"--{key}  [{kind}]" in text
        assert info.description
        assert info.description in text


def test_help_of_a_section(capsys):
    for words in (["help", "train", "optimizer"], ["finetune", "x.py", "--help", "optimizer"]):
        assert cli.main(words) == 0
        text = capsys.readouterr().out
        assert "--optimizer.learning_rate" in text
        assert "--model." not in text
    assert cli.main(["train", "--help", "optimiser"]) == 2
    assert "did you mean 'optimizer'?" in one_line(capsys.readouterr())
    assert cli.main(["help"]) == 0
    assert "usage: gpt-jax VERB" in capsys.readouterr().out


def test_help_with_a_config_is_help(config_file, capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["train", config_file, "--help"])
    assert exit_.value.code == 0
    assert "--model.d_model" in capsys.readouterr().out


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_has_help(verb, capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main([verb, "--help"])
    assert exit_.value.code == 0
    assert f"usage: gpt-jax {verb}" in capsys.readouterr().out


# --- mistakes -----------------------------------------------------------------------------------


def test_a_reader_that_has_seen_enough_is_no_failure():
    """As in `gpt-jax --help | head -1`, unbuffered, so that nothing waits for the end."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-u", "-m", "gpt_jax", "--help"],
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
        text=True,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_no_verb(capsys):
    assert cli.main([]) == 2
    assert "usage" in capsys.readouterr().out


def test_unknown_verb(capsys):
    assert cli.main(["trian"]) == 2
    said = one_line(capsys.readouterr())
    assert "unknown verb 'trian'" in said
    assert said.rstrip().endswith("; did you mean 'train'?")
    assert all(verb in said for verb in cli.VERBS)


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model.d_modle", "96"], "did you mean 'model.d_model'"),
        (["--model.d_model", "wide"], "model.d_model = wide; allowed: integer > 0"),
        (["--model.n_heads", "5"], "model.d_model = 768 is not divisible by model.n_heads = 5"),
        (["model.n_layers"], "unexpected argument 'model.n_layers'"),
        (["--seed"], "--seed needs a value"),
        (["--lr", "1"], "unknown config key 'lr'; here it is 'optimizer.learning_rate'"),
        (["--optimizer.lr", "1"], "here it is 'optimizer.learning_rate'"),
        (["--work-dir", "x"], "unknown option --work-dir; did you mean '--workdir'?"),
    ],
)
def test_mistaken_overrides(config_file, capsys, arguments, said):
    assert cli.main(["train", config_file, *arguments]) == 2
    assert said in one_line(capsys.readouterr())


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        (
            "model=ModelConfig(d_modle=32)",
            "line 6: unknown config key 'model.d_modle'; did you mean 'model.d_model'? "
            "(gpt-jax train --help all lists them)",
        ),
        ("model=ModelConfig(d_model='wide')", "line 6: model.d_model = wide; allowed: integer > 0"),
        (
            "modle=None",
            "line 5: unknown config key 'modle'; did you mean 'model'? "
            "(gpt-jax train --help all lists them)",
        ),
        (
            "schedule=ScheduleConfig(warmup_tokens=10**9)",
            "line 5: schedule.warmup_tokens = 1,000,000,000 exceeds train.tokens = 300,000,000",
        ),
    ],
)
def test_mistakes_in_a_config_or_a_sweep_are_a_line_with_their_place(
    tmp_path, capsys, mistake, said
):
    text = (
        f"from gpt_jax.config import *\n\n\ndef NAME():\n    return Config(\n        {mistake})\n"
    )
    path = tmp_path / "mine.py"
    for verb, function in ((["train"], "get_config"), (["sweep", "plan"], "get_sweep")):
        path.write_text(text.replace("NAME", function))
        assert cli.main([*verb, str(path)]) == 2
        assert one_line(capsys.readouterr()) == f"gpt-jax: {path}, {said}\n"


def test_a_config_is_printed_as_it_would_be_trained(config_file, tmp_path, capsys):
    assert cli.main(["train", config_file, "--print-config", "--model.d_model", "96"]) == 0
    printed = tmp_path / "printed.json"
    printed.write_text(capsys.readouterr().out)
    changed = overrides.load(config_file, {"model.d_model": 96})
    assert overrides.load(printed) == changed


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("gpt-jax tr", {"train"}),
        ("gpt-jax train quicks", {"quickstart"}),
        ("gpt-jax train quickstart --optimizer.na", {"--optimizer.name"}),
        ("gpt-jax train quickstart --compute.dtype bf", {"bfloat16"}),
        ("gpt-jax sweep run x --la", {"--launcher"}),
        ("gpt-jax fit chain x --sp", {"--spec"}),
        ("gpt-jax generate x --retr", {"--retrieve"}),
    ],
)
def test_a_shell_completes_verbs_configs_keys_and_values(line, offered):
    argcomplete = pytest.importorskip("argcomplete")
    quote, prefix, _, words, colon = argcomplete.lexers.split_line(line, len(line))
    parser = completion.parser_for(line)
    finder = argcomplete.CompletionFinder(parser, always_complete_options="long")
    found = finder._get_completions(words, prefix, quote, colon)
    assert {word.strip() for word in found} == offered


def test_a_config_that_is_taken_for_a_verb(capsys):
    assert cli.main(["quickstart"]) == 2
    assert "did you mean 'gpt-jax train quickstart'?" in one_line(capsys.readouterr())


def test_missing_config_file(config_file, capsys):
    assert cli.main(["train", config_file.replace("tiny", "tinny")]) == 2
    said = one_line(capsys.readouterr())
    assert "no config file" in said
    assert "tiny.py" in said


def test_a_mistake_in_a_real_process_is_one_line_without_a_traceback(config_file):
    output = subprocess.run(
        [sys.executable, "-m", "gpt_jax", "train", config_file, "--train.tokens", "-1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert output.returncode == 2
    assert output.stdout == ""
    assert output.stderr == "gpt-jax: train.tokens = -1; allowed: integer > 0\n"


def test_arguments_that_a_verb_does_not_know(capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["data", "inspect", "somewhere", "--fast"])
    assert exit_.value.code == 2
    assert "unrecognised arguments: --fast" in capsys.readouterr().err
