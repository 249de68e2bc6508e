"""`hermes sessions`: the conversations of a home, asked of its gateway, or of an embedded one where none runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from hermes.cli.running import DONE, add_home, add_json, home_of, in_words, print_json, printable, run_trio, when
from hermes.home import Home

PAGE: Final = 200
Ask = Callable[..., Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="list them, the newest first", allow_abbrev=False)
    listing.add_argument("--limit", type=int, default=50, metavar="N", help="how many at most (default: 50)")
    show = actions.add_parser("show", help="print one with its messages", allow_abbrev=False)
    export = actions.add_parser("export", help="write one as JSON", allow_abbrev=False)
    delete = actions.add_parser("delete", help="delete for good", allow_abbrev=False)
    for action in (listing, show, export, delete):
        add_home(action)
        add_json(action)
    show.add_argument("session", metavar="ID", help="the session's id")
    export.add_argument("session", metavar="ID", help="the session's id")
    export.add_argument("file", type=Path, nargs="?", metavar="FILE", help="where to (default: standard output)")
    delete.add_argument("session", nargs="+", metavar="ID", help="the sessions' ids")


def run(arguments: argparse.Namespace) -> int:
    """Do one of the actions."""
    action = {"list": _list, "show": _show, "export": _export, "delete": _delete}[arguments.action]

    async def ask_for_it() -> int:
        async with reach_gateway(home_of(arguments)) as ask:
            return await action(ask, arguments)

    return run_trio(ask_for_it)


@asynccontextmanager
async def reach_gateway(home: Home) -> AsyncIterator[Ask]:
    """A way to ask the gateway of a home: `await ask(method, path, body)`; where none runs, one is embedded meanwhile."""
    from hermes.cli.reach import open_reach
    from hermes.gateway_options import ServeOptions

    async with open_reach(home, lambda: ServeOptions(home=home.path)) as reach:
        yield reach.ask


async def _list(ask: Ask, arguments: argparse.Namespace) -> int:
    found = await _listed(ask, max(0, arguments.limit))
    if arguments.json:
        print_json(found)
        return DONE
    if not found and arguments.limit > 0:
        print("there are no conversations yet", file=sys.stderr)
    width = max((len(in_words(session.get("id"))) for session in found), default=0)
    for session in found:
        fields = (in_words(session.get("id")).ljust(width), when(session.get("updated_at")), session.get("title"))
        print("  ".join(in_words(field) for field in fields if field is not None))
    return DONE


async def _show(ask: Ask, arguments: argparse.Namespace) -> int:
    document = await _document(ask, arguments.session)
    if arguments.json:
        print_json(document)
        return DONE
    for name, value in document["session"].items():
        if value is None or name == "object":
            continue
        print(f"{in_words(name)}: {when(value) if name.endswith('_at') and value else in_words(value)}")
    for message in document["messages"]:
        print(f"\n[{in_words(message.get('role', '?'))}]")
        for line in _text(message.get("content")).splitlines():
            print(printable(line))
        for called in message.get("tool_calls") or ():
            print(f"(calls {in_words(called)})")
    return DONE


async def _export(ask: Ask, arguments: argparse.Namespace) -> int:
    document = await _document(ask, arguments.session)
    if arguments.file is None:
        print_json(document)
        return DONE
    import json

    from hermes.errors import HermesError
    from hermes.home import write_atomic

    try:
        write_atomic(arguments.file, json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n")
    except OSError as error:
        raise HermesError(f"{arguments.file} cannot be written: {error.strerror}") from None
    print(f"written to {in_words(str(arguments.file))}", file=sys.stderr)
    return DONE


async def _delete(ask: Ask, arguments: argparse.Namespace) -> int:
    for session in arguments.session:
        await ask("DELETE", f"/api/sessions/{quote(session, safe='')}")
        if not arguments.json:
            print(f"deleted {in_words(session)}")
    if arguments.json:
        print_json({"deleted": arguments.session})
    return DONE


async def _document(ask: Ask, session: str) -> dict[str, Any]:
    path = f"/api/sessions/{quote(session, safe='')}"
    return {"session": await ask("GET", path), "messages": await _messages(ask, path)}


async def _listed(ask: Ask, most: int) -> list[dict[str, Any]]:
    """The newest sessions, asked for in pages."""
    found: list[dict[str, Any]] = []
    while len(found) < most:
        query = urlencode({"limit": min(PAGE, most - len(found)), "offset": len(found)})
        answer = await ask("GET", f"/api/sessions?{query}")
        found.extend(answer["data"])
        if not answer["data"] or not answer["has_more"]:
            break
    return found


async def _messages(ask: Ask, path: str) -> list[dict[str, Any]]:
    """Every message of a session, asked for in pages that each begin after the last message of the one before."""
    found: list[dict[str, Any]] = []
    while True:
        query = urlencode({"limit": PAGE} | ({"after": found[-1]["seq"]} if found else {}))
        answer = await ask("GET", f"{path}/messages?{query}")
        found.extend(answer["data"])
        if not answer["data"] or not answer["has_more"]:
            return found


def _text(content: Any) -> str:
    """The text of a message's content, which is text or a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(str(part.get("text") or f"({part.get('type')})") for part in content if isinstance(part, dict))
    return ""
