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

from gpt_jax.data.tokenizers import Tokenizer
from gpt_jax.streaming import end_tokens

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
        value = json.loads(path.read_text(encoding="utf-8"))
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
    """The turns of a record: its `messages`, or a prompt and a response from two fields."""
    if "messages" in record:
        return record["messages"]
    prompt, response = (record[field] for field in fields)
    return [{"role": "user", "content": prompt}, {"role": LEARNED, "content": response}]


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
