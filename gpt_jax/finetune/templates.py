"""How turns of a conversation become text: templates are data. Must not import jax.

A template's file is JSON:

    {"roles": {"user": ["User: ", "\\n"], "assistant": ["Assistant: ", "\\n"]}, "end": true}

the text before and after what each role says; end: whether an end-of-text token follows each turn
of the assistant, whose turns alone are learned.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gpt_jax.data.streaming import end_tokens
from gpt_jax.data.tokenizers import Tokenizer
from gpt_jax.storage import tables

LEARNED = "assistant"


class Template(NamedTuple):
    """Text around what each role says."""

    roles: dict[str, tuple[str, str]]
    end: bool = True


TEMPLATES = {
    "plain": Template({"system": ("", "\n"), "user": ("", "\n"), LEARNED: ("", "")}),
    "chat": Template(
        {
            "system": ("System: ", "\n"),
            "user": ("User: ", "\n"),
            LEARNED: ("Assistant: ", "\n"),
        }
    ),
}


class Part(NamedTuple):
    """A stretch of text, and whether its tokens are learned."""

    text: str
    learned: bool
    ends: bool = False
    """Whether an end-of-text token follows, learned as the text is."""
    n_said: int = 0
    """Characters at its beginning that somebody says; the others are the template's."""


def load_template(name: str) -> Template:
    """A template by its name, or of a JSON file. Raises ValueError for another."""
    if name in TEMPLATES:
        return TEMPLATES[name]
    path = Path(name)
    if not path.is_file():
        raise ValueError(f"task.template = {name}; allowed: {', '.join(TEMPLATES)}, or a JSON file")
    try:
        value = json.loads(tables.read_text(path))
        roles = {
            role: (str(before), str(after)) for role, (before, after) in value["roles"].items()
        }
        template = Template(roles, bool(value.get("end", True)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f'{path} is no template {{"roles": {{...}}}}: {error}') from None
    if LEARNED not in roles:
        raise ValueError(f"{path} has no role {LEARNED}, whose turns are learned")
    return template


def messages(record: dict[str, Any], fields: Sequence[str]) -> list[dict[str, str]]:
    """The turns of a record: its `messages`, or a prompt and a response from two fields.

    Raises ValueError where they are no turns, or no texts.
    """
    if "messages" in record:
        return _turns(record["messages"])
    return exchange(record, *fields)


def exchange(record: dict[str, Any], asked: str, answered: str) -> list[dict[str, str]]:
    """Two fields of a record as a turn of the user and one of the assistant."""
    return [
        {"role": role, "content": tables.as_text(record[field], f"its field {field!r}")}
        for role, field in (("user", asked), (LEARNED, answered))
    ]


def given_turns(record: dict[str, Any], asked: str) -> list[dict[str, str]]:
    """The turns after which a response is to come: a record's `messages`, or its prompt."""
    if record.get("messages"):
        return _turns(record["messages"])
    if asked not in record:
        raise ValueError(f"it has no field {asked!r}, but {', '.join(record)}")
    content = tables.as_text(record[asked], f"its field {asked!r}")
    return [{"role": "user", "content": content}]


def asked_and_expected(record: dict[str, Any], fields: Sequence[str]) -> tuple[dict[str, Any], str]:
    """The record without the response that it holds, and that response.

    Raises ValueError where `messages` do not end with a turn of the assistant.
    """
    turns = messages(record, fields)
    if turns[-1]["role"] != LEARNED:
        raise ValueError(f"its messages end with {turns[-1]['role']!r}, not with {LEARNED!r}")
    rest = {k: x for k, x in record.items() if k not in ("messages", fields[1])}
    if "messages" in record:
        rest["messages"] = turns[:-1]
    return rest, turns[-1]["content"]


def _turns(value: Any) -> list[dict[str, str]]:
    """The `messages` of a record, checked."""
    if not isinstance(value, list) or not value:
        raise ValueError(f"its messages are {tables.kind(value)}, not a list of turns")
    for i, turn in enumerate(value, 1):
        if not isinstance(turn, dict) or not {"role", "content"} <= turn.keys():
            raise ValueError(f"its message {i} has no role and content")
        tables.as_text(turn["role"], f"the role of its message {i}")
    return [
        {
            "role": str(turn["role"]),
            "content": tables.as_text(turn["content"], f"the content of its message {i}"),
        }
        for i, turn in enumerate(value, 1)
    ]


def render(template: Template, turns: Sequence[dict[str, str]]) -> list[Part]:
    """The turns as stretches of text. Raises ValueError for a role that the template lacks."""
    parts = []
    for turn in turns:
        role, content = turn["role"], turn["content"]
        if role not in template.roles:
            raise ValueError(f"role {role!r}; the template has {', '.join(template.roles)}")
        before, after = template.roles[role]
        learned = role == LEARNED
        # What stands after a learned turn tells the model to stop, so it is learned too.
        parts.append(Part(before, False))
        ends = learned and template.end
        parts.append(Part(content + after, learned, ends, n_said=len(content)))
    return parts


def encode_part(tokenizer: Tokenizer, part: Part) -> list[int]:
    """The tokens of a part, its end among them. The template's text may name special tokens; in
    what somebody says names are ordinary text."""
    said, marks = part.text[: part.n_said], part.text[part.n_said :]
    ids: list[int] = []
    if any(name in marks for name in tokenizer.special):
        ids = tokenizer.encode(said).tolist() if said else []
        ids += tokenizer.encode_marked(marks).tolist()
    elif part.text:
        ids = tokenizer.encode(part.text).tolist()
    return [*ids, *(end_tokens(tokenizer) if part.ends else ())]


def render_prompt(template: Template, turns: Sequence[dict[str, str]]) -> list[Part]:
    """The turns, and what stands before the assistant's next one."""
    return [*render(template, turns), Part(template.roles[LEARNED][0], False)]
