"""Requests as clients write them: what is not asked for is no mistake, what cannot be done is."""

import json

import pytest

pytest.importorskip("starlette")

from gpt_jax.serve.protocol import ApiError, ChatRequest, CompletionRequest, parse

COMPLETION = {"model": "m", "prompt": "a"}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def read(kind, **changes):
    base = COMPLETION if kind is CompletionRequest else CHAT
    return parse(kind, json.dumps({**base, **changes}).encode())


def says(**values):
    return [{"role": "user", **values}]


NOTHING_ASKED = {
    "temperature": None, "top_p": None, "n": None, "stop": None, "seed": None, "stream": None,
    "stream_options": None, "logit_bias": {}, "presence_penalty": 0, "frequency_penalty": 0.0,
    "response_format": {"type": "text"}, "user": "somebody", "top_k": -1, "min_p": 0,
    "an_option_of_tomorrow": None,
}  # fmt: skip


def test_nulls_and_empty_options_are_what_is_not_given():
    completion = read(
        CompletionRequest, **NOTHING_ASKED, suffix="", echo=False, best_of=1, logprobs=None
    )
    assert completion == read(CompletionRequest, best_of=1)
    chat = read(
        ChatRequest, **NOTHING_ASKED, tools=[], tool_choice="auto", functions=[], store=False
    )
    assert chat == read(ChatRequest)
    assert read(CompletionRequest, prompt=None).prompt == [""]
    assert read(ChatRequest, max_tokens=9, max_completion_tokens=4).max_tokens == 4


@pytest.mark.parametrize(
    ("kind", "changes", "field", "said"),
    [
        (CompletionRequest, {"top_a": 1}, "top_a", "does not know it"),
        (CompletionRequest, {"max_token": 1}, "max_token", "did you mean 'max_tokens'?"),
        (CompletionRequest, {"stop": list("abcde")}, "stop", "5 texts; allowed: up to 4"),
        (CompletionRequest, {"stop": 3}, "stop", "a text, or a list of 1 to 4 texts"),
        (CompletionRequest, {"prompt": {}}, "prompt", "a list of token ids"),
        (CompletionRequest, {"prompt": [True]}, "prompt", "a list of token ids"),
        (CompletionRequest, {"temperature": 3}, "temperature", "equal to 2, not 3"),
        (CompletionRequest, {"logprobs": 6}, "logprobs", "not 6"),
        (CompletionRequest, {"logit_bias": {"3": 1}}, "logit_bias", "allowed: {}, or null"),
        (CompletionRequest, {"suffix": "x"}, "suffix", 'allowed: "", or null'),
        (CompletionRequest, {"echo": True}, "echo", "allowed: false, or null"),
        (CompletionRequest, {"best_of": 3}, "best_of", "3; this server ranks no texts"),
        (CompletionRequest, {"frequency_penalty": 0.5}, "frequency_penalty", "0.5 is not"),
        (CompletionRequest, {"min_tokens": 5, "max_tokens": 4}, "min_tokens", "over max_tokens 4"),
        (CompletionRequest, {"stop_token_ids": [1] * 17}, "stop_token_ids", "at most 16"),
        (CompletionRequest, {"stream_options": {"x": 1}}, "stream_options.x", "not permitted"),
        (ChatRequest, {"response_format": {"type": "json_object"}}, "response_format", '"text"'),
        (ChatRequest, {"functions": [{"name": "f"}]}, "functions", "allowed: [], or null"),
        (ChatRequest, {"tools": [{}]}, "tools", "allowed: [], or null"),
        (ChatRequest, {"tool_choice": "required"}, "tool_choice", '"none" or "auto"'),
        (ChatRequest, {"reasoning_effort": "high"}, "reasoning_effort", '"high" is not'),
        (ChatRequest, {"top_logprobs": 21, "logprobs": True}, "top_logprobs", "equal to 20"),
        (ChatRequest, {"top_logprobs": 2}, "top_logprobs", "needs logprobs"),
        (ChatRequest, {"messages": []}, "messages", "at least 1"),
        (ChatRequest, {"messages": says(content=None)}, "messages.0.content", "is missing"),
        (ChatRequest, {"messages": says(content="a", name="b")}, "messages.0.name", "not know"),
        (
            ChatRequest,
            {"messages": says(content=[{"type": "image_url", "image_url": {}}])},
            "messages.0.content",
            'part 0 is of type "image_url"; this model reads text alone',
        ),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(kind, changes, field, said):
    with pytest.raises(ApiError) as caught:
        read(kind, **changes)
    error = caught.value.body["error"]
    assert caught.value.status == 400
    assert error["param"] == field
    assert error["message"].startswith(f"{field}: ")
    assert said in error["message"]
    assert "\n" not in error["message"]


@pytest.mark.parametrize("body", [b"", b"[1", b"[]", b"3", b'{"prompt": "\xff"}', b"[" * 100_000])
def test_a_body_that_is_no_object_is_one_line(body):
    with pytest.raises(ApiError, match=r"^the body: ") as caught:
        parse(CompletionRequest, body)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_messages_may_be_parts_and_answers_of_ours():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    answer = {
        "role": "assistant", "content": None, "refusal": None, "tool_calls": None,
        "function_call": None, "audio": None, "annotations": [],
    }  # fmt: skip
    asked = read(ChatRequest, messages=[*says(content=parts), answer])
    assert [m.content for m in asked.messages] == ["a\nb", ""]
