"""What people may type as a command, and how it is read. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from hermes.platform import CommandSpec

COMMANDS: Final = (
    CommandSpec(name="help", help="What there is to type"),
    CommandSpec(name="new", help="Begin a new conversation; the old one is kept"),
    CommandSpec(name="stop", help="End what is being answered, and what waits"),
    CommandSpec(name="status", help="What is going on in this conversation"),
    CommandSpec(name="whoami", help="Your id here, and where you are"),
    CommandSpec(name="title", help="Name this conversation, or say its name", arguments="[words]"),
    CommandSpec(name="queue", help="Say something that waits for its turn", arguments="words"),
    CommandSpec(name="steer", help="Say something into the turn that runs", arguments="words"),
)
ALIASES: Final[Mapping[str, str]] = MappingProxyType({"start": "help", "commands": "help", "reset": "new"})
NAMES: Final = frozenset(each.name for each in COMMANDS)
SAYS: Final = frozenset({"queue", "steer"})  # their arguments are a message

_COMMAND: Final = re.compile(r"/([A-Za-z][A-Za-z0-9_-]{0,31})(?:\s+(.*))?\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Command:
    """A command as typed: its proper name where it is one of ours, and what follows it."""

    name: str
    arguments: str = ""

    @property
    def known(self) -> bool:
        """Whether it is one of ours."""
        return self.name in NAMES


def parse(text: str) -> Command | None:
    """The command that a text is; None if it is none. A path, such as /etc/hosts, is none."""
    found = _COMMAND.match(text.strip())
    if found is None:
        return None
    name = found[1].lower().replace("-", "_")
    return Command(ALIASES.get(name, name), (found[2] or "").strip())


def help_text() -> str:
    """What there is to type, as markdown."""
    lines = [f"- `/{each.name}{' ' + each.arguments if each.arguments else ''}` {each.help}" for each in COMMANDS]
    return "Write to me in plain words, or:\n\n" + "\n".join(lines)


def unknown_text(command: Command) -> str:
    """What is said to a command that is none of ours."""
    return f"There is no command `/{command.name}`. /help lists them. (It was not passed on.)"
