"""What people may type as a command: the registry, and how a text is read as one. Pure.

Running them is `hermes.commands.run`; who may use which is `hermes.access`. The reference page `docs/reference/commands.md` is
compared with the registry by a test.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from hermes.platform import CommandSpec

COMMANDS: Final = (
    CommandSpec(name="start", help="Say hello"),
    CommandSpec(name="help", help="What there is to type, or what one command does", arguments="[command]"),
    CommandSpec(name="commands", help="The commands alone, in one list"),
    CommandSpec(name="new", help="Begin a new conversation; the old one is kept", arguments="[title]"),
    CommandSpec(name="reset", help="The same as /new", arguments="[title]"),
    CommandSpec(name="stop", help="End what is being answered, and what waits"),
    CommandSpec(name="status", help="What is going on in this conversation"),
    CommandSpec(name="whoami", help="Your id here, where you are, and what you may use"),
    CommandSpec(name="queue", help="Say something that waits for its turn", arguments="words"),
    CommandSpec(name="steer", help="Say something into the turn that runs", arguments="words"),
    CommandSpec(name="retry", help="Forget the last answer and try again"),
    CommandSpec(name="undo", help="Forget what was said last, and its answer", arguments="[how many]"),
    CommandSpec(name="title", help="Name this conversation, or say its name", arguments="[words]"),
    CommandSpec(name="sessions", help="Your conversations, the newest first"),
    CommandSpec(name="resume", help="Go on with another conversation of yours", arguments="number, title or id"),
    CommandSpec(name="branch", help="Go on in a copy of this conversation; it stays as it is", arguments="[title]"),
    CommandSpec(name="sethome", help="What nobody asked for at a place of its own is sent here"),
    CommandSpec(name="platforms", help="How the accounts of this gateway do"),
    CommandSpec(name="platform", help="Connect an account again now", arguments="retry account"),
    CommandSpec(name="restart", help="Finish what runs and start the gateway again"),
)
ALIASES: Final[Mapping[str, str]] = MappingProxyType(
    {"reset": "new", "q": "queue", "fork": "branch", "set_home": "sethome", "gateway": "platforms"}
)
SPECS: Final[Mapping[str, CommandSpec]] = MappingProxyType({each.name: each for each in COMMANDS})
NAMES: Final = frozenset(SPECS) - frozenset(ALIASES)
SAYS: Final = frozenset({"queue", "steer"})  # their arguments are a message
ALWAYS: Final = frozenset({"start", "help", "commands", "whoami", "stop"})  # cannot be taken from anybody who may speak
FOR_ADMINS: Final = frozenset({"restart", "platform", "sethome"})  # unless an account says otherwise
MAX_TITLE: Final = 200

_COMMAND: Final = re.compile(r"/([A-Za-z][A-Za-z0-9_-]{0,31})(?:@([A-Za-z0-9_.-]{1,100}))?(?:\s+(.*))?\Z", re.DOTALL)
_TYPED: Final = re.compile(rf"(?<![\w/.:~-])/(?=(?:{'|'.join(sorted(SPECS, key=len, reverse=True))})\b)")
_DASHES: Final = re.compile(r"(?<!\S)[\u2013\u2014](?=\w)")  # what a telephone makes of two hyphens before an option


@dataclass(frozen=True, slots=True)
class Command:
    """A command as typed: its proper name where it is one of ours, and what follows it."""

    name: str
    arguments: str = ""

    @property
    def known(self) -> bool:
        """Whether it is one of ours."""
        return self.name in NAMES


def parse(text: str, our_name: str | None = None) -> Command | None:
    """The command that a text is; None if it is none, and is to be read as words.

    A path such as `/etc/hosts` is none. Nor is a command for another program, `/stop@other`: only `@` and our own name, in any
    case, may follow a command.

    Args:
        text: as it was written.
        our_name: what people call us at this service; a platform that takes it off by itself leaves nothing to compare.
    """
    found = _COMMAND.match(text.strip())
    if found is None:
        return None
    if found[2] is not None and (our_name is None or found[2].lower() != our_name.lower()):
        return None
    name = found[1].lower().replace("-", "_")
    name = ALIASES.get(name, name)
    arguments = (found[3] or "").strip()
    return Command(name, arguments if name in SAYS else _DASHES.sub("--", arguments))


def usage(name: str) -> str:
    """How a command is typed, as markdown."""
    spec = SPECS[name]
    return f"`/{name} {spec.arguments}`" if spec.arguments else f"`/{name}`"


def help_text(names: frozenset[str] | None = None) -> str:
    """What there is to type, as markdown.

    Args:
        names: of the commands that may be used; None = all.
    """
    return "Write to me in plain words, or:\n\n" + list_text(names)


def list_text(names: frozenset[str] | None = None) -> str:
    """The commands alone, as markdown; those that are another name of one are left out."""
    chosen = [each for each in COMMANDS if each.name in (NAMES if names is None else names & NAMES)]
    return "\n".join(f"- {usage(each.name)} {each.help}" for each in chosen)


def names_text(names: frozenset[str]) -> str:
    """The commands in one line, for a service where a list of them takes long, as markdown."""
    chosen = " ".join(f"/{each.name}" for each in COMMANDS if each.name in names & NAMES)
    return f"Write to me in plain words, or: {chosen} (/help and a name says more)"


def one_text(name: str) -> str:
    """What one command does, and its other names, as markdown."""
    other = ", ".join(f"`/{alias}`" for alias, meant in ALIASES.items() if meant == name)
    return f"{usage(name)} {SPECS[name].help}." + (f" Also: {other}." if other else "")


def named(word: str) -> Command | None:
    """The command that a word names, with or without what is typed before it; None if it can be none."""
    return parse("/" + word.lstrip(string.punctuation))


def unknown_text(command: Command) -> str:
    """What is said to a command that is none of ours."""
    return f"There is no command `/{command.name}`. /help lists them. (It was not passed on.)"


def as_typed(text: str, prefix: str) -> str:
    """Words of ours, with the commands that they name as people type them at a service.

    Args:
        prefix: what stands before a command's name there.
    """
    return text if prefix == "/" else _TYPED.sub(lambda _: prefix, text)
