"""What the fake IRC server does with each command. Plain functions over its state."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hermes.testing.fake_irc import Channel, Client, FakeIrc, Said

Work = Callable[["FakeIrc", "Client", list[str]], None]


def mask(irc: FakeIrc, client: Client) -> str:
    """A client as others see it."""
    return f"{client.nick}!~{client.user}@{irc.host}"


def _cap(irc: FakeIrc, client: Client, params: list[str]) -> None:
    if not irc.offered:
        irc.number(client, "421", "CAP", "Unknown command")
        return
    match params[0].upper():
        case "LS":
            client.negotiating = not client.welcomed
            shown = ["sasl=PLAIN" if name == "sasl" else name for name in sorted(irc.offered)]
            for star, some in ((" *", shown[:3]), ("", shown[3:])):  # in several lines, as where there are many
                irc.answer(client, f":irc.test CAP * LS{star} :{' '.join(some)}")
        case "REQ":
            names = params[1].split()
            known = set(names) <= irc.offered
            if known:
                client.capabilities.update(names)
            irc.answer(client, f":irc.test CAP * {'ACK' if known else 'NAK'} :{params[1]}")
        case "END":
            client.negotiating = False


def _nick(irc: FakeIrc, client: Client, params: list[str]) -> None:
    wanted = params[0]
    if wanted.lower() in irc.clients or wanted.lower() in irc.reserved:
        if irc.clients.get(wanted.lower()) is not client:
            irc.number(client, "433", wanted, "Nickname is already in use")
        return
    before = client.nick
    if before:
        irc.clients.pop(before.lower(), None)
        for channel in irc.channels.values():
            if before.lower() in channel.members:
                channel.members = channel.members - {before.lower()} | {wanted.lower()}
    line = f":{mask(irc, client)} NICK {wanted}"
    client.nick = wanted
    irc.clients[wanted.lower()] = client
    if client.welcomed:
        irc.write(client, line)
        irc.tell_neighbours(client, line)


def _user(irc: FakeIrc, client: Client, params: list[str]) -> None:  # noqa: ARG001
    client.user = params[0]


def _authenticate(irc: FakeIrc, client: Client, params: list[str]) -> None:
    if params[0] == "PLAIN":
        client.credentials = ""
        irc.answer(client, "AUTHENTICATE +")
        return
    said = "" if params[0] == "+" else params[0]
    client.credentials = (client.credentials or "") + said
    if len(said) == 400:
        return
    try:
        _, name, password = base64.b64decode(client.credentials).decode().split("\0")
    except (ValueError, binascii.Error):
        name = password = ""
    if irc.accounts.get(name) == password and password:
        client.account = name
        irc.number(client, "900", mask(irc, client), name, f"You are now logged in as {name}")
        irc.number(client, "903", "SASL authentication successful")
    else:
        irc.number(client, "904", "SASL authentication failed")


def registered(irc: FakeIrc, client: Client) -> None:
    """Welcome a client once everything is known of it."""
    if client.welcomed or client.negotiating or not client.nick or not client.user:
        return
    client.welcomed = True
    irc.number(client, "001", f"Welcome to the test network {mask(irc, client)}")
    irc.number(
        client, "005", "CHANTYPES=#", "CASEMAPPING=rfc1459", "NICKLEN=30", "NETWORK=Test", "BOT=B", "are supported"
    )
    for text in irc.waiting[:1]:
        irc.answer(client, f":friend!{irc.people['friend'][0]} PRIVMSG {client.nick} :{text}")
    irc.number(client, "422", "There is no message of the day")
    for text in irc.waiting[1:]:
        irc.answer(client, f":friend!{irc.people['friend'][0]} PRIVMSG {client.nick} :{text}")


def _join(irc: FakeIrc, client: Client, params: list[str]) -> None:
    from hermes.testing.fake_irc import Channel  # this module is imported by that one

    keys = params[1].split(",") if len(params) > 1 else []
    for position, name in enumerate(params[0].split(",")):
        channel = irc.channels.setdefault(name.lower(), Channel(name=name))
        why = _closed(channel, client, keys[position] if position < len(keys) else "")
        if why is not None:
            irc.number(client, *why)
            continue
        channel.members.add(client.nick.lower())
        for nick in channel.members:
            if (other := irc.clients.get(nick)) is not None:
                line = f":{mask(irc, client)} JOIN {channel.name}"
                irc.answer(other, line) if other is client else irc.write(other, line)
        irc.number(client, "366", channel.name, "End of /NAMES list")


def _closed(channel: Channel, client: Client, key: str) -> tuple[str, str, str] | None:
    if client.nick.lower() in channel.banned:
        return "474", channel.name, "Cannot join channel (+b)"
    if channel.invite_only:
        return "473", channel.name, "Cannot join channel (+i)"
    if channel.key and channel.key != key:
        return "475", channel.name, "Cannot join channel (+k)"
    return None


def _part(irc: FakeIrc, client: Client, params: list[str]) -> None:
    channel = irc.channels.get(params[0].lower())
    if channel is not None:
        irc.answer(client, f":{mask(irc, client)} PART {channel.name}")
        channel.members.discard(client.nick.lower())


def kick(irc: FakeIrc, name: str, nick: str, why: str = "out") -> None:
    """Somebody is put out of a channel."""
    channel = irc.channels[name.lower()]
    for member in list(channel.members):
        irc.tell(member, f":friend!~friend@home.test KICK {channel.name} {nick} :{why}")
    channel.members.discard(nick.lower())


def _privmsg(irc: FakeIrc, client: Client, params: list[str]) -> None:
    target, text = params[0], params[1]
    channel = irc.channels.get(target.lower())
    if target.startswith("#"):
        if channel is None:
            irc.number(client, "403", target, "No such channel")
            return
        if client.nick.lower() not in channel.members:
            irc.number(client, "404", target, "Cannot send to channel (+n)")
            return
        if channel.bare_only and any(letter < " " for letter in text):
            irc.number(client, "404", target, "Cannot send to channel: formatting codes are blocked (+c)")
            return
    elif target.lower() not in irc.clients and target not in irc.people:
        irc.number(client, "401", target, "No such nick/channel")
        return
    said = irc.pass_on(mask(irc, client), client.account, target, text, by=client)
    if "echo-message" in client.capabilities:
        irc.answer(client, irc.as_line(client, said))


def _ping(irc: FakeIrc, client: Client, params: list[str]) -> None:
    irc.answer(client, f":irc.test PONG irc.test :{params[0]}")


def _quit(irc: FakeIrc, client: Client, params: list[str]) -> None:
    irc.answer(client, f"ERROR :Closing Link: (Quit: {params[0] if params else ''})")
    irc.close(client)


def _history(irc: FakeIrc, client: Client, params: list[str]) -> None:
    own = client.nick.lower()

    def other(said: Said) -> str | None:
        """The chat that a message is of, as this client sees it."""
        nick = said.source.partition("!")[0]
        if said.target.startswith("#"):
            return said.target.lower()
        return nick.lower() if said.target.lower() == own else said.target.lower() if nick.lower() == own else None

    if params[0] == "TARGETS":
        begin, end = (each.partition("=")[2] for each in params[1:3])
        latest = {chat: said for said in irc.history if (chat := other(said)) is not None}
        lines = [
            f"@batch=h CHATHISTORY TARGETS {chat} {said.stamp}"
            for chat, said in sorted(latest.items(), key=lambda each: each[1].at)
            if begin < said.stamp < end
        ]
        _batch(irc, client, "draft/chathistory-targets", lines[: int(params[3])])
        return
    kind, _, value = params[2].partition("=")
    found = [said for said in irc.history if other(said) == params[1].lower()]
    if kind == "msgid":
        at = next((index for index, said in enumerate(found) if said.id == value), len(found))
        found = found[at + 1 :]
    else:
        found = [said for said in found if said.stamp > value]
    lines = [irc.as_line(client, said, "h") for said in found[: int(params[3])]]
    _batch(irc, client, f"chathistory {params[1]}", lines)


def _batch(irc: FakeIrc, client: Client, kind: str, lines: list[str]) -> None:
    for line in (f"BATCH +h {kind}", *lines, "BATCH -h"):
        irc.answer(client, line)


def _nothing(irc: FakeIrc, client: Client, params: list[str]) -> None:
    """Taken, and of no consequence here."""


COMMANDS: Mapping[str, Work] = MappingProxyType(
    {
        "CAP": _cap, "NICK": _nick, "USER": _user, "PASS": _nothing, "AUTHENTICATE": _authenticate, "JOIN": _join,
        "PART": _part, "PRIVMSG": _privmsg, "NOTICE": _nothing, "PING": _ping, "PONG": _nothing, "QUIT": _quit,
        "MODE": _nothing, "CHATHISTORY": _history,
    }
)  # fmt: skip
