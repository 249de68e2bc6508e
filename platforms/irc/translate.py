"""Lines as events. Pure.

What is an event: `PRIVMSG` in words, and `ACTION`, to us or to a channel. `NOTICE` is for what must never be answered (RFC 2812,
section 3.3.2), and other CTCP asks a client about itself: neither is one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from hermes.events import Address, InboundEvent, Person, Quoted, ReplyRef
from platforms.irc.lines import Line
from platforms.irc.names import Identity, Server, who
from platforms.irc.wording import bare

LONG = 380  # bytes of a line after which more of the same is likely: a person's client cuts what is longer
MAX_NAME = 64
REPLY_TAGS = ("+reply", "+draft/reply")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a translation needs to know.

    Args:
        account: our id in the configuration.
        nick: ours.
        wanted: the nick that we are to have, and had when others wrote to it.
        login: the services account that we are logged in to; empty = none. What it says, we said.
        server: what it says of itself.
        identity: what people are known by.
        nonce: of this connection.
        tagged: the server puts accounts on messages.
        commands: names of commands of ours.
        prefix: what begins one, beside `/`.
        mentions: words that address us as our nick does.
        ours: ids of messages that we wrote.
    """

    account: str
    nick: str
    server: Server
    wanted: str = ""
    login: str = ""
    identity: Identity = "account"
    nonce: str = ""
    tagged: bool = False
    commands: Collection[str] = ()
    prefix: str = "!"
    mentions: tuple[str, ...] = ()
    ours: Collection[str] = ()


def event_of(line: Line, facts: Facts, number: int, *, past: bool = False) -> InboundEvent | None:
    """The event that a line tells of; None for what is none.

    Args:
        line: as it came.
        facts: about us and the server.
        number: of the line in this connection, for a server that gives messages no ids.
        past: it was said before this connection, when we may have had the other nick.
    """
    fold = facts.server.fold
    target, said = line.param(0), line.param(1)
    names = {fold(facts.nick), fold(facts.wanted)} if past else {fold(facts.nick)}
    if line.command != "PRIVMSG" or not line.nick or fold(line.nick) in names or not target:
        return None
    if facts.login and facts.tagged and line.tags.get("account") == facts.login:
        return None
    text = _said(said, line.nick)
    if text is None:
        return None
    sender = who(line, facts.identity, facts.nonce, facts.server, tagged=facts.tagged)
    in_channel = facts.server.is_channel(target)
    if not in_channel and fold(target) not in names:
        return None  # to everybody on the server, or to a name that we had
    quoted = _quoted(line.tags, facts.ours)
    text, addressed = spoken_to(text, (facts.nick, *facts.mentions)) if in_channel else (text, True)
    message = line.tags.get("msgid", "")
    at = moment(line.tags.get("time", ""))
    return InboundEvent(
        id=message[:512] or f"{facts.nonce}.{number}",
        address=Address(facts.account, fold(target) if in_channel else f"{fold(line.nick)}!{sender.id}"),
        chat_kind="group" if in_channel else "dm",
        sender=Person(sender.id, line.nick[:MAX_NAME], bot="bot" in line.tags or "draft/bot" in line.tags),
        text=as_command(text, facts) if addressed else text,
        to_us=addressed or (quoted is not None and quoted.ours),
        reply=ReplyRef(message_id=f"{line.nick} {message}".rstrip()),
        quoted=quoted,
        at=at,
        continues=len(said.encode("utf-8", "replace")) >= LONG,
    )


def _said(text: str, nick: str) -> str | None:
    """The words of a message; None for a question to a client."""
    if text.startswith("\x01"):
        command, _, rest = text.strip("\x01").partition(" ")
        if command.upper() != "ACTION":
            return None
        return f"* {nick} {bare(rest).strip()}"
    return bare(text).strip() or None


def spoken_to(text: str, names: tuple[str, ...]) -> tuple[str, bool]:
    """The words without our name before them, and whether they name us.

    Args:
        text: of a channel.
        names: ours.
    """
    either = "|".join(re.escape(name) for name in names if name)
    begins = re.match(rf"@?(?:{either})(?:[:,;!]+\s*|\s+|$)", text, re.IGNORECASE)
    if begins is not None:
        return text[begins.end() :].strip(), True
    named = re.search(rf"(?<![\w-])@?(?:{either})(?![\w-])", text, re.IGNORECASE)
    return text, named is not None


def as_command(text: str, facts: Facts) -> str:
    """A command of ours in the form that the core knows, whatever it began with; other words as they are."""
    if facts.prefix and text.startswith(facts.prefix):
        name = text[len(facts.prefix) :].partition(" ")[0]
        if name.lower().replace("-", "_") in facts.commands:
            return "/" + text[len(facts.prefix) :]
    return text


def _quoted(tags: Mapping[str, str], ours: Collection[str]) -> Quoted | None:
    message = next((tags[name] for name in REPLY_TAGS if tags.get(name)), "")
    return Quoted(message_id=message[:512], ours=message in ours) if message else None


def moment(text: str) -> float | None:
    """Seconds since the epoch of a `time` tag (IRCv3, "server-time"); None for what is none."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found.replace(tzinfo=found.tzinfo or UTC).timestamp()


def stamp(at: float) -> str:
    """The same back, to the millisecond."""
    seconds, thousandths = divmod(round(at * 1000), 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{thousandths:03d}Z"
