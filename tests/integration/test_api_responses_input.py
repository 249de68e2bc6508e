"""What `/v1/responses` refuses: with a 4xx, the path of the field, and nothing written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hermes.testing.api import open_api

WEATHER: dict[str, Any] = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}}
TABLES = ("sessions", "inbox", "turns", "messages", "responses")

BAD: list[tuple[dict[str, Any], str]] = [
    ({}, "input"),
    ({"input": 5}, "input"),
    ({"input": []}, "input"),
    ({"input": [7]}, "input[0]"),
    ({"input": [{"role": "user", "content": 7}]}, "input[0].content"),
    ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
    ({"input": [{"role": "user", "content": [{"type": "input_text", "text": 1}]}]}, "input[0].content[0].text"),
    ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]}, "input[0].content[0].type"),
    ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]"),
    ({"input": [{"type": "computer_call_output", "call_id": "x"}]}, "input[0].type"),
    ({"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": {}}]}, "input[0].arguments"),
    ({"input": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}, "input"),
    ({"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}, {"role": "user", "content": "x"}]}, "input"),
    ({"input": "x", "tools": [{"type": "web_search"}]}, "tools[0].type"),
    ({"input": "x", "tools": [{"type": "function", "name": "no spaces"}]}, "tools[0].name"),
    ({"input": "x", "tools": [WEATHER, WEATHER]}, "tools[1]"),
    ({"input": "x", "tools": [{**WEATHER, "parameters": "y"}]}, "tools[0].parameters"),
    ({"input": "x", "tool_choice": "sometimes"}, "tool_choice"),
    ({"input": "x", "tool_choice": "required"}, "tool_choice"),
    ({"input": "x", "text": {"verbosity": "low"}}, "text.verbosity"),
    ({"input": "x", "tool_choice": {"type": "function", "name": "nope"}}, "tool_choice.name"),
    ({"input": "x", "temperature": "hot"}, "temperature"),
    ({"input": "x", "temperature": 3}, "temperature"),
    ({"input": "x", "max_output_tokens": 1.5}, "max_output_tokens"),
    ({"input": "x", "metadata": {"a": 1}}, "metadata.a"),
    ({"input": "x", "metadata": [1]}, "metadata"),
    ({"input": "x", "background": True}, "background"),
    ({"input": "x", "truncation": "some"}, "truncation"),
    ({"input": "x", "text": {"format": {"type": "xml"}}}, "text.format.type"),
    ({"input": "x", "text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema"),
    ({"input": "x", "reasoning": {"effort": 3}}, "reasoning.effort"),
    ({"input": "x", "conversation": 3}, "conversation"),
    ({"input": "x", "conversation": ""}, "conversation"),
    ({"input": "x", "conversation": "a", "previous_response_id": "b"}, "conversation"),
    ({"input": "x", "stream": "yes"}, "stream"),
    ({"input": "x", "store": 1}, "store"),
    ({"input": "x", "instructions": ["a"]}, "instructions"),
    ({"input": "x", "prompt": {"id": "p"}}, "prompt"),
]  # fmt: skip


async def test_bad_fields_are_400_with_their_path_and_change_nothing(tmp_path: Path) -> None:
    async with open_api(tmp_path) as api:
        for body, path in BAD:
            answer = await api.client.post("/v1/responses", json=body)
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, path), (body, answer.text)
        unknown = await api.client.post("/v1/responses", json={"input": "x", "model": "gpt-99"})
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
        for name in TABLES:
            assert await api.spine.rows(f"SELECT count(*) FROM {name}") == [(0,)]
        fine = await api.client.post("/v1/responses", json={"input": "x\u0000y", "unheard_of": 1, "include": ["a"]})
        assert fine.status_code == 200
        assert fine.json()["output"][0]["content"][0]["text"] == "echo: x\u0000y"
        assert api.services.counts["unknown_fields"] == 1
        assert not api.errors
