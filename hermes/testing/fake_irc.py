"""An IRC server for tests: real TCP on the loopback, the rules of the protocol, and its bad days on request.

In a test: `async with open_fake_irc() as irc:`, then `irc.say("hello")` and look at `irc.shown`. That it behaves like a server is
proven by running the same tests against real ones.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

import trio

from hermes.testing.fake_irc_commands import COMMANDS, registered
from hermes.testing.service import Switch

MODERN = frozenset(
    ("message-tags", "server-time", "batch", "labeled-response", "echo-message", "account-tag", "draft/chathistory", "sasl")
)  # fmt: skip
PLAIN: frozenset[str] = frozenset()
MAX_LINE = 512
HTML = b"<html>\r\n" + b"<p>502 Bad Gateway</p>\r\n" * 20
NAME = "irc.test"


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A message that was said."""

    at: float
    id: str
    source: str
    account: str
    target: str
    text: str

    @property
    def stamp(self) -> str:
        """Its time as a tag has it."""
        seconds, thousandths = divmod(round(self.at * 1000), 1000)
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{thousandths:03d}Z"


@dataclass(slots=True, kw_only=True)
class Channel:
    """A channel: who is in it, and who may not be."""

    name: str
    members: set[str] = field(default_factory=set)
    key: str = ""
    banned: set[str] = field(default_factory=set)
    invite_only: bool = False
    bare_only: bool = False


@dataclass(eq=False, slots=True, kw_only=True)
class Client:
    """Somebody who is connected."""

    stream: trio.abc.Stream
    nick: str = ""
    user: str = ""
    account: str = ""
    capabilities: set[str] = field(default_factory=set)
    welcomed: bool = False
    negotiating: bool = False
    credentials: str | None = None
    label: str = ""
    answers: list[bytes] = field(default_factory=list)
    out: list[bytes] = field(default_factory=list)
    work: trio.Event = field(default_factory=trio.Event)
    busy_until: float = 0.0
    closing: bool = False


class FakeIrc:
    """The server.

    Attributes:
        offered: the capabilities that it offers.
        accounts: name -> password of its services.
        people: nick -> (`user@host`, account) of people who are there without a connection.
        host: what everybody's host is.
        channels: by name.
        clients: by nick, in small letters.
        history: everything that was said to somebody or in a channel.
        shown: target -> texts of clients, as others see them.
        asked: each line that came, without its tags and what varies.
        day: which switch is on.
        flood: lines that may be ahead before a client is cut off; None = any number.
        reserved: nicks that somebody else has.
        waiting: what a friend says to whoever is welcome, the first before the welcome's last line, the others right behind it.
    """

    def __init__(self, offered: Collection[str], clock: Callable[[], float]) -> None:
        self.port = 0
        self.offered = frozenset(offered)
        self.accounts = {"hermes": "secret"}
        self.people = {"friend": ("~friend@home.test", "friend")}
        self.host = "127.0.0.1"
        self.channels: dict[str, Channel] = {}
        self.clients: dict[str, Client] = {}
        self.history: list[Said] = []
        self.shown: defaultdict[str, list[str]] = defaultdict(list)
        self.asked: list[str] = []
        self.day: Switch | None = None
        self.flood: int | None = None
        self.reserved: set[str] = set()
        self.waiting: tuple[str, ...] = ()
        self.connections = 0
        self.clock = clock
        self.changed = trio.lowlevel.ParkingLot()
        self._serial = 0

    # What a test does.

    def say(self, text: str, *, to: str = "hermes", nick: str = "friend") -> str:
        """One of the people says something; its id."""
        mask, account = self.people[nick]
        return self.pass_on(f"{nick}!{mask}", account, to, text).id

    async def until(self, fact: Callable[[], object]) -> None:
        """Wait for something to be true of the server."""
        while not fact():
            await self.changed.park()

    def client(self, nick: str = "hermes") -> Client | None:
        """Who has a nick."""
        return self.clients.get(nick.lower())

    def cut(self, nick: str = "hermes", *, words: str = "") -> None:
        """Close somebody's connection, with an ERROR if there are words."""
        if (client := self.client(nick)) is not None:
            if words:
                self.write(client, f"ERROR :{words}")
            self.close(client)

    def tell(self, nick: str, line: str) -> None:
        """Send somebody a line."""
        if (client := self.client(nick)) is not None:
            self.write(client, line)

    # How it works.

    def tell_neighbours(self, client: Client, line: str) -> None:
        """Send a line to all who are in a channel with a client."""
        shared = [channel.members for channel in self.channels.values() if client.nick.lower() in channel.members]
        for nick in set().union(*shared) - {client.nick.lower()}:
            self.tell(nick, line)

    def pass_on(self, source: str, account: str, target: str, text: str, *, by: Client | None = None) -> Said:
        """Keep a message and give it to all whom it is for."""
        self._serial += 1
        at = self.clock()
        if self.history:
            at = max(at, self.history[-1].at + 0.001)  # no two in one millisecond
        said = Said(at=at, id=f"m{self._serial}", source=source, account=account, target=target, text=text)
        self.history.append(said)
        if by is not None:
            line = f":{source} PRIVMSG {target} :{text}".encode()[: MAX_LINE - 2].decode("utf-8", "ignore")
            self.shown[target].append(line.partition(" :")[2])
        channel = self.channels.get(target.lower())
        nicks = channel.members if channel is not None else {target.lower()}
        for nick in sorted(nicks):
            client = self.clients.get(nick)
            if client is not None and (client is not by or channel is None) and self.day != "hang":
                for _ in range(2 if self.day == "repeat" else 1):
                    self.write(client, self.as_line(client, said))
        self.changed.unpark_all()
        return said

    def as_line(self, client: Client, said: Said, batch: str = "") -> str:
        """A message as a client gets it."""
        tags = {}
        if batch:
            tags["batch"] = batch
        if "message-tags" in client.capabilities:
            tags["msgid"] = said.id
        if "server-time" in client.capabilities:
            tags["time"] = said.stamp
        if "account-tag" in client.capabilities and said.account:
            tags["account"] = said.account
        head = "@" + ";".join(f"{name}={value}" for name, value in tags.items()) + " " if tags else ""
        line = f":{said.source} PRIVMSG {said.target} :{said.text}".encode()[: MAX_LINE - 2].decode("utf-8", "ignore")
        return head + line

    def answer(self, client: Client, line: str) -> None:
        """Answer the line that is being dealt with."""
        client.answers.append(line.encode())

    def number(self, client: Client, number: str, *params: str) -> None:
        """Answer with a numeric."""
        *middle, last = params
        self.answer(client, " ".join((f":{NAME} {number} {client.nick or '*'}", *middle, f":{last}")))

    def write(self, client: Client, line: str) -> None:
        """Send a line that answers nothing."""
        client.out.append(line.encode() + b"\r\n")
        client.work.set()

    def close(self, client: Client) -> None:
        """Close a connection once everything is written."""
        client.closing = True
        client.work.set()
        self.forget(client)

    def forget(self, client: Client) -> None:
        """A client is gone."""
        if self.clients.get(client.nick.lower()) is not client:
            return
        self.tell_neighbours(client, f":{client.nick}!~{client.user}@{self.host} QUIT :gone")
        del self.clients[client.nick.lower()]
        for channel in self.channels.values():
            channel.members.discard(client.nick.lower())
        self.changed.unpark_all()

    def take(self, client: Client, raw: bytes) -> None:
        """Deal with a line."""
        text = raw.decode("utf-8", "replace")
        client.label = ""
        if text.startswith("@"):
            tags, _, text = text[1:].partition(" ")
            client.label = dict(each.partition("=")[::2] for each in tags.split(";")).get("label", "")
        head, colon, trailing = text.partition(" :")
        command, *params = head.split()
        command = command.upper()
        params += [trailing] if colon else []
        self.asked.append(command if command in ("PING", "AUTHENTICATE") else " ".join((command, *params[:1])))
        self.changed.unpark_all()
        if self._bad_day(client, command, params):
            return
        if len(text.encode()) > MAX_LINE - 2:
            self.number(client, "417", "Input line was too long")
        elif not client.welcomed and command not in (
            "CAP",
            "NICK",
            "USER",
            "PASS",
            "AUTHENTICATE",
            "PING",
            "PONG",
            "QUIT",
        ):
            self.number(client, "451", "You have not registered")
        elif (work := COMMANDS.get(command)) is None:
            self.number(client, "421", command, "Unknown command")
        else:
            work(self, client, params)
        registered(self, client)
        self._flush(client)
        if self.day == "lose":
            client.out.clear()
            self.close(client)

    def _flush(self, client: Client) -> None:
        """Send the answers, labelled where the client asked for that."""
        lines, client.answers = client.answers, []
        if client.label and "labeled-response" in client.capabilities:
            label = f"label={client.label}".encode()
            if not lines:
                lines = [b":%s ACK" % NAME.encode()]
            if len(lines) > 1 and not lines[0].startswith(b"BATCH"):
                lines = [b"BATCH +l labeled-response", *(_tagged(each, b"batch=l") for each in lines), b"BATCH -l"]
            lines[0] = _tagged(lines[0], label)
        client.out += [line + b"\r\n" for line in lines]
        client.work.set()

    def _bad_day(self, client: Client, command: str, params: list[str]) -> bool:
        """Whether the day has dealt with a line."""
        shows = command == "PRIVMSG"
        if command in ("QUIT", "PONG") and self.day != "hang":
            return False
        match self.day:
            case "hang":
                return True
            case "garbage":
                client.out.append(HTML)
                client.work.set()
                return True
            case "refuse":
                self.number(client, "465", "You are banned from this server")
                self._flush(client)
                self.write(client, "ERROR :Closing Link: (You are banned)")
                self.close(client)
                return True
            case "fail" | "limit" if not client.welcomed:
                full = "Closing Link: (The server is full)"
                self.write(client, f"ERROR :{full if self.day == 'fail' else 'Throttled: wait 7 seconds'}")
                self.close(client)
                return True
            case "fail" if shows:
                self.number(client, "437", params[0], "Nick/channel is temporarily unavailable")
            case "limit" if shows:
                self.number(client, "263", command, "Please wait 7 seconds and try again")
            case "reject" if shows:
                self.number(client, "404", params[0], "Cannot send to nick/channel")
            case "fail" if command == "CHATHISTORY":
                self.answer(client, "FAIL CHATHISTORY TEMPORARILY_UNAVAILABLE :Not now")
            case _:
                return False
        self._flush(client)
        return True

    async def serve(self, stream: trio.abc.Stream) -> None:
        """One connection."""
        client = Client(stream=stream)
        self.connections += 1
        self.asked.append("connect")
        try:
            async with stream, trio.open_nursery() as nursery:
                nursery.start_soon(self._write, client, nursery.cancel_scope)
                with suppress(trio.BrokenResourceError):  # the client left
                    await self._read(client)
                nursery.cancel_scope.cancel()
        finally:
            self.forget(client)

    async def _read(self, client: Client) -> None:
        buffer = bytearray()
        while data := await client.stream.receive_some(65_536):
            buffer += data
            *lines, rest = bytes(buffer).split(b"\n")
            buffer[:] = rest
            for raw in lines:
                if raw.strip() and not client.closing and not self._floods(client):
                    self.take(client, raw.rstrip(b"\r"))

    def _floods(self, client: Client) -> bool:
        """RFC 1459, section 8.10: each line makes its client busy for two seconds, and few may be ahead."""
        if self.flood is None or not client.welcomed:
            return False
        now = trio.current_time()
        client.busy_until = max(client.busy_until, now) + 2.0
        if client.busy_until <= now + 2.0 * self.flood:
            return False
        self.write(client, "ERROR :Closing Link: (Excess Flood)")
        self.close(client)
        return True

    async def _write(self, client: Client, scope: trio.CancelScope) -> None:
        while True:
            while client.out:
                data = b"".join(client.out)
                client.out.clear()
                try:
                    await client.stream.send_all(data)
                except trio.BrokenResourceError:
                    scope.cancel()
                    return
            if client.closing:
                scope.cancel()
                return
            client.work = trio.Event()
            await client.work.wait()


def _tagged(line: bytes, tag: bytes) -> bytes:
    return b"@" + tag + b";" + line[1:] if line.startswith(b"@") else b"@" + tag + b" " + line


@asynccontextmanager
async def open_fake_irc(
    offered: Collection[str] = MODERN, *, clock: Callable[[], float] | None = None
) -> AsyncIterator[FakeIrc]:
    """Serve on a port of the loopback while inside.

    Args:
        offered: capabilities.
        clock: seconds since the epoch; trio's by default, from a moment in 2023.
    """
    server = FakeIrc(offered, clock or (lambda: 1_700_000_000.0 + trio.current_time()))
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        server.port = listener.socket.getsockname()[1]
        await nursery.start(trio.serve_listeners, server.serve, [listener])
        try:
            yield server
        finally:
            nursery.cancel_scope.cancel()
