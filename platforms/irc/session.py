"""What is known while a connection lives: who we are, where we are, and what was said that is not delivered yet. Plain."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

import trio

from hermes.events import InboundEvent
from hermes.platform import Host
from platforms.irc.config import IrcConfig
from platforms.irc.lines import MAX_LINE, Line, build
from platforms.irc.names import Identity, Server
from platforms.irc.registering import Registering
from platforms.irc.rooms import Rooms
from platforms.irc.translate import Facts, event_of

log = logging.getLogger(__name__)

MAX_ARRIVED = 5000  # events that wait to be delivered; beyond it the oldest are lost, and said to be
MAX_OURS = 500
LONGEST_HOST, LONGEST_USER = 63, 11  # where the server has not shown our mask: a user may be given a `~`


class Session:
    """One connection after its registration.

    Args:
        config: of the account.
        host: ours.
        registered: what the registration has brought.
        nonce: of this connection.
        put: writes lines.

    Attributes:
        nick: ours, now.
        arrived: events to be delivered, oldest first.
        lost: how many there was no room for.
        newest_at: the server's time of the newest line, seconds since the epoch; None while it said none.
    """

    def __init__(
        self, config: IrcConfig, host: Host, registered: Registering, nonce: str, put: Callable[..., None]
    ) -> None:
        self.config = config
        self.server: Server = registered.server
        self.capabilities = registered.capabilities
        self.nick = registered.nick
        self.account = registered.account
        self.rooms = Rooms(config.channels, self.server, config.rejoin_s, open_door=config.accept_invites)
        self.arrived: deque[InboundEvent] = deque()
        self.lost = 0
        self.news = trio.Event()
        self._mask = ""  # as the server has shown it last; the welcome may name one that a cloak then replaces
        self._host = host
        self._nonce = nonce
        self._put = put
        self._number = 0
        self._ours: dict[str, None] = {}
        self._commands = frozenset(each.name for each in host.commands)

    def take(self, line: Line) -> None:
        """Take in a line that answers nothing."""
        now = trio.current_time()
        if self._is_me(line.nick):
            self._about_us(line)
        elif line.command in ("QUIT", "NICK") and self._wants(line.nick):
            self._put(build("NICK", self.config.nick))  # whoever had our name has left it
        elif line.command == "396" and line.param(1):
            mask = line.param(1)
            self._mask = mask if "@" in mask else f"{self._mask.partition('@')[0]}@{mask}"
        elif line.command == "005":
            self.server.note(line)
        elif line.command == "CAP" and line.param(1).upper() == "DEL":
            self.capabilities.difference_update(line.words.split())
        self._put(*self.rooms.take(line, now, self.nick))
        if (event := self.event(line)) is not None:
            self._arrive(event)

    def _about_us(self, line: Line) -> None:
        if "!" in line.source:
            self._mask = line.source.partition("!")[2]
        if line.command == "NICK":
            log.info("we are called %.40s now", line.param(0))
            self.nick = line.param(0)
        elif line.command == "CHGHOST":
            self._mask = f"{line.param(0)}@{line.param(1)}"

    def _wants(self, nick: str) -> bool:
        return not self.is_named and self.server.fold(nick) == self.server.fold(self.config.nick)

    @property
    def is_named(self) -> bool:
        """We have the nick that we are to have."""
        return self._is_me(self.config.nick)

    def _is_me(self, nick: str) -> bool:
        return self.server.fold(nick) == self.server.fold(self.nick)

    def event(self, line: Line, *, past: bool = False) -> InboundEvent | None:
        """The event that a line tells of; `past` if it was said before this connection."""
        self._number += 1
        return event_of(line, self.facts, self._number, past=past)

    @property
    def facts(self) -> Facts:
        """What a translation needs."""
        identity: Identity = "hostmask" if self.config.identity == "hostmask" else "account"
        return Facts(
            account=self._host.account,
            nick=self.nick,
            wanted=self.config.nick,
            login=self.account,
            server=self.server,
            identity=identity,
            nonce=self._nonce,
            tagged="account-tag" in self.capabilities,
            commands=self._commands,
            prefix=self.config.command_prefix,
            mentions=self.config.mention_words,
            ours=self._ours,
        )

    def _arrive(self, event: InboundEvent) -> None:
        self.arrived.append(event)
        if len(self.arrived) > MAX_ARRIVED:
            self.arrived.popleft()
            self.lost += 1
            if self.lost & (self.lost - 1) == 0:
                log.error("%d messages came faster than they could be kept, and are lost", self.lost)
        self.news.set()

    def wrote(self, message: str) -> None:
        """A message of ours has this id."""
        self._ours[message] = None
        while len(self._ours) > MAX_OURS:
            del self._ours[next(iter(self._ours))]

    def room(self, target: str) -> int:
        """Bytes that a message to a target may have: the server puts our mask before it when it passes it on."""
        mask = len(self._mask.encode()) if self._mask else LONGEST_USER + 1 + LONGEST_HOST
        head = len(f":{self.nick}! PRIVMSG {target} :".encode())
        return MAX_LINE - 2 - head - mask
