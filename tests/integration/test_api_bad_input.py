"""Whatever a client sends: a 4xx with a reason and a path, never a 5xx, and nothing written."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hermes.http.api.app import build_app
from hermes.http.services import Services
from hermes.settings import HttpConfig
from hermes.testing.api import KEY, open_api
from hermes.testing.door import ScriptedDoor
from hermes.testing.spine import Spine, open_spine

PATH = "/v1/chat/completions"
HI = [{"role": "user", "content": "hi"}]
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CALLED = [*HI, {"role": "assistant", "content": None, "tool_calls": [CALL]}]
RESULT = {"role": "tool", "tool_call_id": "c", "content": "r"}
DEEP: Any = {}
for _ in range(200):
    DEEP = {"a": DEEP}


async def written(spine: Spine) -> list[tuple[Any, ...]]:
    """How many rows there are of everything that a request can write."""
    tables = ("inbox", "sessions", "messages", "turns", "idempotency")
    return await spine.rows("SELECT " + ", ".join(f"(SELECT count(*) FROM {table})" for table in tables))


BODIES: list[tuple[bytes, str]] = [
    (b"", "not valid JSON"),
    (b"{", "not valid JSON"),
    (b"null", "must be a JSON object"),
    (b"[]", "must be a JSON object"),
    (b'"x"', "must be a JSON object"),
    (b"\xff\xfe", "not valid JSON"),
    (b'{"model":"\xff"}', "not UTF-8"),
    (b'{"model":"\xed\xa0\x80"}', "not UTF-8"),
    (b'{"model":"\\ud800"}', "not valid JSON"),
    (b'{"model":"\\udc00"}', "not valid JSON"),
    (b'{"model":"a\x00b"}', "not valid JSON"),
    (b'{"temperature":NaN}', "not valid JSON"),
    (b'{"temperature":Infinity}', "not valid JSON"),
    (b'{"temperature":1e999}', "not valid JSON"),
    (b'{"seed":' + b"9" * 5000 + b"}", "not valid JSON"),
    (b"[" * 100_000, "nested too deeply"),
    (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested too deeply"),
    (b'{"messages":[' + b"{}," * 250_000 + b"{}]}", "more than 100000 values"),
    (b'{"a":"' + b"\\" * 900_001, "not valid JSON"),
]


@pytest.mark.parametrize(("body", "reason"), BODIES, ids=range(len(BODIES)))
async def test_a_body_that_is_no_json_object_is_refused(tmp_path: Path, body: bytes, reason: str) -> None:
    async with open_api(tmp_path) as api:
        answer = await api.client.post(PATH, content=body)
        assert answer.status_code == 400
        assert reason in answer.json()["error"]["message"]
        assert await written(api.spine) == [(0, 0, 0, 0, 0)]


def cases() -> Iterator[tuple[dict[str, Any], str]]:
    """(a change to a valid body, the path that is refused)."""
    for name, wrong in (
        ("model", 1), ("model", None), ("messages", None), ("messages", {}), ("messages", []), ("stream", "yes"),
        ("temperature", "1"), ("temperature", 3), ("temperature", True), ("top_p", -0.1), ("top_p", 2), ("n", 2),
        ("n", 1.0), ("max_tokens", 0), ("max_tokens", 1.5), ("max_completion_tokens", "9"), ("max_tokens", 10**30),
        ("stop", 1), ("stop", ["a"] * 5), ("stop", ""), ("seed", 2**63), ("seed", 0.5), ("presence_penalty", 3),
        ("frequency_penalty", []), ("reasoning_effort", "huge"), ("logprobs", True), ("logit_bias", {"1": 1}),
        ("logit_bias", 1), ("functions", []), ("function_call", "auto"), ("audio", {}), ("modalities", ["audio"]),
        ("stream_options", {}), ("response_format", "json"), ("user", 1), ("store", 0), ("metadata", []),
        ("parallel_tool_calls", 1), ("tools", {}), ("tool_choice", 1), ("tool_choice", "some"),
        ("tool_choice", "required"), ("prediction", {}), ("web_search_options", {}),
    ):  # fmt: skip
        yield {name: wrong}, name
    yield {"stop": ["a", 1]}, "stop[1]"
    yield {"metadata": {"a": 1}}, "metadata.a"
    yield {"response_format": {"type": "yaml"}}, "response_format.type"
    yield {"response_format": {"type": "json_schema"}}, "response_format.json_schema"
    yield {"response_format": {"type": "json_schema", "json_schema": {"name": 1}}}, "response_format.json_schema.name"
    yield {"response_format": {"type": "json_object", "a": DEEP}}, "response_format"
    yield {"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage"
    yield {"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice.function.name"
    yield {"tools": [{"type": "custom"}]}, "tools[0].type"
    yield {"tools": [{"type": "function"}]}, "tools[0].function"
    function = {"name": "f"}
    yield {"tools": [{"type": "function", "function": {**function, "name": "no way"}}]}, "tools[0].function.name"
    yield {"tools": [{"type": "function", "function": {**function, "parameters": 1}}]}, "tools[0].function.parameters"
    yield (
        {"tools": [{"type": "function", "function": {**function, "parameters": DEEP}}]},
        "tools[0].function.parameters",
    )
    yield {"tools": [{"type": "function", "function": function}] * 2}, "tools[1]"
    for messages, path in MESSAGES:
        yield {"messages": messages}, path


def asked(content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


MESSAGES: list[tuple[list[Any], str]] = [
    ([1], "messages[0]"),
    ([{}], "messages[0].role"),
    ([{"role": "king", "content": "x"}], "messages[0].role"),
    ([{"role": 1, "content": "x"}], "messages[0].role"),
    ([{"role": "user"}], "messages[0].content"),
    (asked(1), "messages[0].content"),
    (asked([]), "messages[0].content"),
    (asked(["x"]), "messages[0].content[0]"),
    (asked([{"type": "text"}]), "messages[0].content[0].text"),
    (asked([{"type": "text", "text": {}}]), "messages[0].content[0].text"),
    (asked([{"type": "file", "file": {"file_id": "f"}}]), "messages[0].content[0]"),
    (asked([{"type": "video"}]), "messages[0].content[0].type"),
    (asked([{"type": "image_url", "image_url": "https://x"}]), "messages[0].content[0].image_url"),
    (
        asked([{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]),
        "messages[0].content[0].image_url.url",
    ),
    (
        asked([{"type": "image_url", "image_url": {"url": "https://x", "detail": "max"}}]),
        "messages[0].content[0].image_url.detail",
    ),
    (asked([{"type": "input_audio", "input_audio": {"data": "x"}}]), "messages[0].content[0].input_audio.format"),
    ([{"role": "user", "content": "x", "name": "a b"}], "messages[0].name"),
    ([{"role": "system", "content": "x"}], "messages[0]"),
    ([{"role": "system", "content": [{"type": "image_url"}]}, *HI], "messages[0].content[0].type"),
    ([*HI, {"role": "assistant", "content": "x"}], "messages[1]"),
    ([*HI, {"role": "assistant"}, *HI], "messages[1].content"),
    ([*HI, {"role": "assistant", "content": "x", "function_call": {}}, *HI], "messages[1].function_call"),
    ([*CALLED], "messages[1]"),
    ([*CALLED, *HI], "messages[2]"),
    ([*CALLED, {**RESULT, "tool_call_id": "d"}], "messages[2].tool_call_id"),
    ([*CALLED, RESULT, RESULT], "messages[3].tool_call_id"),
    ([*CALLED, {"role": "tool", "content": "x"}], "messages[2].tool_call_id"),
    ([*CALLED, {**RESULT, "content": None}], "messages[2].content"),
    ([*HI, RESULT], "messages[1]"),
    ([RESULT], "messages"),
    ([*HI, {"role": "assistant", "tool_calls": [CALL, CALL]}, RESULT], "messages[1].tool_calls[1].id"),
    (
        [*HI, {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "f", "arguments": {}}}]}, RESULT],
        "messages[1].tool_calls[0].function.arguments",
    ),
    (
        [*HI, {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "", "arguments": ""}}]}, RESULT],
        "messages[1].tool_calls[0].function.name",
    ),
]


async def test_a_wrong_field_is_named_by_its_path_and_nothing_is_written(tmp_path: Path) -> None:
    async with open_api(tmp_path) as api:
        for change, path in cases():
            answer = await api.chat(**change)
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, path), (change, answer.text)
        assert await written(api.spine) == [(0, 0, 0, 0, 0)]
        assert api.errors == []


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Hermes-Session-Id": ""},
        {"X-Hermes-Session-Id": "a/b"},
        {"X-Hermes-Session-Id": "x" * 201},
        {"X-Hermes-Session-Id": b"\xe9"},
        {"Idempotency-Key": ""},
        {"Idempotency-Key": "x" * 256},
        {"Idempotency-Key": "a b"},
        {"Idempotency-Key": b"\xe9"},
        [("X-Hermes-Session-Id", "a"), ("X-Hermes-Session-Id", "b")],
        [("Idempotency-Key", "a"), ("Idempotency-Key", "b")],
    ],
)
async def test_wrong_headers_are_refused(tmp_path: Path, headers: Any) -> None:
    async with open_api(tmp_path) as api:
        body = {"model": "hermes", "messages": HI}
        answer = await api.client.post(PATH, json=body, headers=headers)
        assert answer.status_code == 400
        assert await written(api.spine) == [(0, 0, 0, 0, 0)]


async def test_nul_is_taken_and_kept_whole(tmp_path: Path) -> None:
    door = ScriptedDoor()
    async with open_api(tmp_path, door) as api:
        answer = await api.chat("a\0b", headers={"X-Hermes-Session-Id": "s"})
        assert answer.json()["choices"][0]["message"]["content"] == "echo: a\0b"
        stored = await api.spine.store.sessions.history("s")
        assert [message.text for message in stored] == ["a\0b", "echo: a\0b"]


async def test_a_large_body_is_read_beside_the_loop(tmp_path: Path) -> None:
    door = ScriptedDoor()
    async with open_api(tmp_path, door, http=HttpConfig(max_body_bytes=3_000_000)) as api:
        text = 'much, of {it} "[is]" \\ quoted; ' * 70_000
        answer = await api.chat(text)
        assert answer.json()["choices"][0]["message"]["content"] == f"echo: {text}"
        longer = await api.chat(text * 2)
        assert (longer.status_code, longer.json()["error"]["code"]) == (413, "body_too_large")
        packed = await api.client.post(PATH, content=b"x", headers={"content-encoding": "gzip"})
        assert packed.status_code == 415


VALID: dict[str, Any] = {
    "model": "hermes",
    "messages": [
        {"role": "system", "content": [{"type": "text", "text": "s"}]},
        {"role": "user", "name": "n", "content": [
            {"type": "text", "text": "t"},
            {"type": "image_url", "image_url": {"url": "https://x", "detail": "low"}},
            {"type": "input_audio", "input_audio": {"data": "x", "format": "wav"}},
        ]},
        {"role": "assistant", "content": "w", "refusal": None, "tool_calls": [CALL]},
        RESULT,
        {"role": "user", "content": "hi"},
    ],
    "tools": [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": False}}],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
    "stop": ["a"], "temperature": 1, "top_p": 0.5, "seed": 1, "max_tokens": 5, "stream": True,
    "stream_options": {"include_usage": True}, "metadata": {"a": "b"}, "n": 1,
}  # fmt: skip

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5) | st.sampled_from(["user", "assistant", "tool", "system", "text", "c", "f", "hermes", "\0"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place inside a JSON value."""
    if path:
        yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*path, key))


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    """A valid request with one to three places replaced, removed or doubled."""
    body = copy.deepcopy(VALID)
    for _ in range(draw(st.integers(1, 3))):
        *above, key = draw(st.sampled_from(list(places(body))))
        holder: Any = body
        for step in above:
            holder = holder[step]
        match draw(st.sampled_from(["replace", "remove", "double"])):
            case "replace":
                holder[key] = draw(JSON)
            case "remove":
                del holder[key]
            case "double" if isinstance(holder, list):
                holder.append(copy.deepcopy(holder[key]))
        if not body:
            break
    return body


class Exchange:
    """Calls the application in process, so that many requests cost little."""

    def __init__(self, spine: Spine) -> None:
        services = Services(config=lambda: spine.config, key=lambda: KEY, store=spine.store, sessions=spine.sessions)
        self._app = build_app(services)

    async def post(self, body: bytes, path: str = PATH) -> tuple[int, bytes]:
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
            "root_path": "", "headers": [(b"authorization", b"Bearer " + KEY.encode())], "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }  # fmt: skip
        await self._app(scope, receive, send)
        return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


def in_a_spine(home: Path, bodies: list[bytes]) -> None:
    """Send bodies, one after the other: a 4xx writes nothing, and nothing is ever a 5xx."""

    async def main() -> None:
        async with open_spine(home) as spine:
            exchange = Exchange(spine)
            before = await written(spine)
            for body in bodies:
                status, answer = await exchange.post(body)
                assert 200 <= status < 500, (status, answer, body)
                after = await written(spine)
                if status != 200:
                    assert after == before, (status, answer, body)
                    assert json.loads(answer)["error"]["message"]
                before = after

    trio.run(main)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bodies=st.lists(mutated(), min_size=20, max_size=20))
def test_no_mutation_of_a_valid_request_is_our_fault(tmp_path: Path, bodies: list[dict[str, Any]]) -> None:
    in_a_spine(tmp_path, [json.dumps(body).encode() for body in bodies])


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    bodies=st.lists(st.binary(max_size=60) | JSON.map(lambda each: json.dumps(each).encode()), min_size=20, max_size=20)
)
def test_no_bytes_are_our_fault(tmp_path: Path, bodies: list[bytes]) -> None:
    in_a_spine(tmp_path, bodies)


async def test_a_valid_request_is_valid(tmp_path: Path) -> None:
    async with open_spine(tmp_path) as spine:
        status, answer = await Exchange(spine).post(json.dumps(VALID).encode())
        assert status == 200
        assert answer.endswith(b"data: [DONE]\n\n")
