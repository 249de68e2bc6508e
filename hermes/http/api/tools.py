"""The client's own functions as requests declare them, the same in chat completions and in responses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hermes.agent.validate import TOOL_NAME
from hermes.http.api.fields import Fields, wrong_type, wrong_value
from hermes.intake import ClientTool

MAX_TOOLS = 128
MAX_DESCRIPTION = 65_536


def client_tool(function: Fields) -> ClientTool:
    """One function from the object that holds its `name`, `description`, `parameters` and `strict`."""
    name = function.require("name", function.string("name"))
    if not TOOL_NAME.fullmatch(name):
        raise wrong_value(function.at("name"), "must have 1 to 64 characters of a-z A-Z 0-9 _ -")
    return ClientTool(
        name=name,
        description=function.string("description", most=MAX_DESCRIPTION) or "",
        parameters=function.opaque("parameters") or {},
        strict=function.boolean("strict"),
    )


def check_names(tools: Sequence[ClientTool], path: str) -> None:
    """Raise RequestError 400 when two functions have the same name."""
    seen: set[str] = set()
    for index, tool in enumerate(tools):
        if tool.name in seen:
            raise wrong_value(f"{path}[{index}]", f"is a second function named {tool.name!r}")
        seen.add(tool.name)


def chat_tools(body: Fields) -> tuple[ClientTool, ...]:
    """The field `tools` of chat completions."""
    tools = []
    for each in body.objects("tools", most=MAX_TOOLS) or ():
        each.require("type", each.string("type", choices=("function",)))
        tools.append(client_tool(each.require("function", each.object("function"))))
    check_names(tools, "tools")
    return tuple(tools)


def chat_tool_choice(body: Fields, tools: Sequence[ClientTool]) -> Any:
    """The field `tool_choice` of chat completions, which may force only what the client itself has sent."""
    choice = body.value("tool_choice")
    path = body.at("tool_choice")
    if choice is None or choice in ("none", "auto"):
        return choice
    if type(choice) is dict:
        fields = body.child(choice, path)
        fields.require("type", fields.string("type", choices=("function",)))
        function = fields.require("function", fields.object("function"))
        name = function.require("name", function.string("name"))
        if name not in {tool.name for tool in tools}:
            raise wrong_value(function.at("name"), "is not one of tools")
        return {"type": "function", "function": {"name": name}}
    if type(choice) is not str:
        raise wrong_type(path, "a string or an object", choice)
    if choice != "required":
        raise wrong_value(path, "must be 'none', 'auto', 'required' or name a function")
    if not tools:
        raise wrong_value(path, "needs tools")
    return choice
