"""What begins with a slash: said to the chat, never to the agent."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from hermes.cli.chat.terminal import PROMPT
from hermes.cli.chat.text import cut, one_line
from hermes.cli.running import when

if TYPE_CHECKING:
    from hermes.cli.chat.interactive import Chat

LISTED: Final = 20
SHOWN_MESSAGES: Final = 4
COMMANDS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "help": ("", "this list"),
        "new": ("", "begin a new conversation"),
        "sessions": ("", "the newest conversations"),
        "resume": ("ID", "go on with a conversation, by its id or its number in /sessions"),
        "title": ("TEXT", "give this conversation a title"),
        "model": ("[NAME]", "ask another model from now on; without a name: which there are"),
        "stop": ("", "end what still runs in this conversation, whoever asked for it"),
        "quit": ("", "leave, as Control-D does"),
    }
)
_COMMAND: Final = re.compile(r"/([A-Za-z?][A-Za-z?_-]*)(?:\s+(.*))?\Z", re.DOTALL)


def parse(text: str) -> tuple[str, str] | None:
    """The command and its argument; None for a message. A path such as `/etc/hosts` is no command."""
    found = _COMMAND.match(text)
    return None if found is None else (found[1].lower(), (found[2] or "").strip())


def complete(text: str) -> str | None:
    """The one command that begins so."""
    names = [name for name in COMMANDS if f"/{name}".startswith(text)] if text.startswith("/") else []
    return f"/{names[0]}{' ' if COMMANDS[names[0]][0] else ''}" if len(names) == 1 else None


async def run(chat: Chat, name: str, argument: str) -> bool:
    """Do a command; False when the person leaves."""
    match name:
        case "quit" | "exit":
            return False
        case "help" | "?":
            _help(chat)
        case "new":
            chat.conversation.forget()
            chat.note("a new conversation begins with your next message")
        case "sessions":
            await _sessions(chat)
        case "resume":
            await _resume(chat, argument)
        case "model":
            await _model(chat, argument)
        case "title" | "stop" if chat.conversation.session is None:
            chat.note("there is no conversation yet")
        case "title":
            await _title(chat, argument)
        case "stop":
            ended = await chat.conversation.stop()
            chat.note("stopped" if ended else "nothing runs in this conversation")
        case _:
            chat.fail(f"there is no command /{name}; /help lists them")
    return True


def _help(chat: Chat) -> None:
    for name, (argument, about) in COMMANDS.items():
        chat.note(f"{f'/{name} {argument}':<16} {about}")
    chat.note("")
    chat.note("A backslash at the end of a line, Alt-Enter or a block in three double quotes makes several lines.")
    chat.note("Control-C interrupts the reply.")


async def _sessions(chat: Chat) -> None:
    chat.listed = await chat.conversation.sessions(LISTED)
    if not chat.listed:
        chat.note("there are no conversations yet")
    painter = chat.terminal.painter
    for number, session in enumerate(chat.listed, 1):
        about = f"{number:>2}  {one_line(str(session['id']))}  {when(session.get('updated_at'))}"
        title = one_line(str(session.get("title") or ""))
        mark = " (this one)" if session["id"] == chat.conversation.session else ""
        room = max(10, painter.columns - len(about) - len(mark) - 2)
        chat.terminal.put(painter.line(f"{painter.style(about, 'dim')}  {cut(title, room)}{mark}"))


async def _resume(chat: Chat, argument: str) -> None:
    if argument.isdecimal() and len(argument) < 4 and 0 < int(argument) <= len(chat.listed):
        argument = str(chat.listed[int(argument) - 1]["id"])
    if not argument:
        chat.fail("which one? /resume ID, or /sessions and then /resume NUMBER")
        return
    await show_last(chat, await chat.conversation.resume(argument))


async def show_last(chat: Chat, session: Mapping[str, Any]) -> None:
    """Show with which words a conversation stands."""
    known = int(session.get("messages") or 0)
    chat.note(f"{one_line(str(session.get('title') or session['id']))} · {known} messages")
    painter = chat.terminal.painter
    for message in await chat.conversation.last_messages(known, SHOWN_MESSAGES):
        text = message.get("content")
        if message.get("role") in ("user", "assistant") and isinstance(text, str) and text.strip():
            mark = PROMPT if message["role"] == "user" else " " * len(PROMPT)
            chat.terminal.put(painter.line(painter.style(mark + cut(one_line(text), painter.columns - 2), "dim")))


async def _title(chat: Chat, argument: str) -> None:
    if not argument:
        chat.fail("which title? /title TEXT")
        return
    await chat.conversation.rename(one_line(argument))
    chat.note(f"the title is now: {one_line(argument)}")


async def _model(chat: Chat, argument: str) -> None:
    if argument:
        await chat.conversation.choose(argument)
        chat.note(f"from now on: {one_line(argument)}")
        return
    asked = chat.conversation.model or "hermes"
    for name in await chat.conversation.models():
        chat.note(f"{'*' if name == asked else ' '} {one_line(name)}")
