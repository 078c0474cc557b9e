"""A conversation as the tokens of a prompt: by a model's own Jinja template, or by one of ours.

A template of a published model is code of somebody else: it is rendered in Jinja's sandbox, in the
environment that `transformers` gives it, so the text is the same. Must not import jax.
"""

import dataclasses
import datetime
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpt_jax.config import TaskConfig
from gpt_jax.data.streaming import begin_tokens
from gpt_jax.data.tokenizers import Tokenizer
from gpt_jax.finetune.templates import (
    LEARNED,
    Template,
    encode_part,
    load_template,
    render_prompt,
)
from gpt_jax.storage.optional import require

Turns = Sequence[dict[str, Any]]
"""{"role": ..., "content": ...} each, the first first."""


class ChatPrompt(NamedTuple):
    """The prompt of a conversation, and strings that end its answer besides `Tokenizer.ends`."""

    ids: NDArray[np.int32]
    stops: tuple[str, ...]


def chat_prompt(tokenizer: Tokenizer, turns: Turns, template: Template | None) -> ChatPrompt:
    """The prompt for the assistant's next turn.

    template: one of ours; None: the tokenizer's own Jinja template, which writes BOS and the marks
    of turns itself. Names of special tokens in what somebody says are these tokens there, as in
    `transformers`, and ordinary text in templates of ours.

    Raises ValueError for turns that the template does not allow, or a missing or faulty template.
    """
    if template is None:
        ids = tokenizer.encode_marked(render_jinja(tokenizer, turns))
        if not len(ids):
            raise ValueError("the chat template makes nothing of these messages")
        return ChatPrompt(np.asarray(ids, np.int32), ())
    tokens = [*begin_tokens(tokenizer)]
    for part in render_prompt(template, turns):
        tokens += encode_part(tokenizer, part)
    return ChatPrompt(np.asarray(tokens, np.int32), stop_strings(template))


def stop_strings(template: Template | None) -> tuple[str, ...]:
    """Strings that begin another speaker's turn: where a model that ends none is stopped."""
    if template is None:
        return ()
    others = [before.strip() for role, (before, _) in template.roles.items() if role != LEARNED]
    return tuple(text for text in others if text)


def choose_template(
    tokenizer: Tokenizer, task: TaskConfig, named: str | None
) -> tuple[Tokenizer, Template | None]:
    """The template that a run's chats are in, and the tokenizer with it where it is a Jinja one.

    named: chat, plain, a JSON file of ours or a .jinja file; None: what the run was fine-tuned
    with, else what its model came with, else chat. Raises ValueError for another.
    """
    if named is not None and named.endswith(".jinja"):
        if not Path(named).is_file():
            raise ValueError(f"--template {named}: no such file")
        text = Path(named).read_text(encoding="utf-8")
        kept = dataclasses.replace(tokenizer.conventions, chat_template=text)
        return tokenizer.with_conventions(kept), None
    if named is not None:
        return tokenizer, load_template(named)
    if task.has_examples and task.entry.spoken:
        return tokenizer, load_template(task.template)
    if tokenizer.conventions.chat_template:
        return tokenizer, None
    return tokenizer, load_template("chat")


def knows_chats(tokenizer: Tokenizer, task: TaskConfig) -> bool:
    """Whether a run was fine-tuned on conversations, or its model came with a chat template."""
    return task.name in ("respond", "prefer") or bool(tokenizer.conventions.chat_template)


def render_jinja(tokenizer: Tokenizer, turns: Turns, generation_prompt: bool = True) -> str:
    """The turns as the tokenizer's own template writes them."""
    jinja2 = require("jinja2", "chat")
    kept = tokenizer.conventions
    if not kept.chat_template:
        raise ValueError("the run has no chat template; name one with --template")
    try:
        return _compiled(kept.chat_template).render(
            messages=[{k: v for k, v in turn.items() if v is not None} for turn in turns],
            tools=None,
            documents=None,
            add_generation_prompt=generation_prompt,
            **kept.names,
        )
    # Templates of others fail in every way that Python has; their own refusals are TemplateErrors.
    except (
        *(jinja2.TemplateError, ArithmeticError, LookupError),
        *(TypeError, ValueError, AttributeError, RecursionError),
    ) as error:
        said = " ".join(str(error).split())[:300]
        raise ValueError(f"the chat template refuses these messages: {said}") from None


@functools.lru_cache(maxsize=8)
def _compiled(text: str) -> Any:
    """The template in `transformers`' environment: blocks trimmed, loop controls, and the names
    that templates call."""
    jinja2 = require("jinja2", "chat")
    from jinja2 import ext, nodes, sandbox

    class Generation(ext.Extension):
        """{% generation %} marks what the assistant says; it leaves the text as it is."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body, lineno=line)

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    def tojson(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(
            value,
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=separators,
            sort_keys=sort_keys,
        )

    environment = sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, ext.loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return environment.from_string(text)
