"""A messaging service in memory for tests of delivery: what its chats show, what it was asked and when, and its moods."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Literal, NoReturn

import trio

from hermes.errors import AccountDown, LeaseEnded, SendRejected
from hermes.events import Activity, Address, AttachmentRef, Content, Receipt, ReplyRef
from hermes.platform import ByteStream, Capabilities, Inbox

DROPS_REPEATS_S = 300.0
PIECE = 65_536  # bytes of a file that come at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message as a person sees it in a chat."""

    id: str
    address: Address
    key: str
    content: Content
    reply: ReplyRef | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request that was made: when (trio's clock), of which kind, for which key or message."""

    at: float
    method: Literal["send", "edit", "find", "signal"]
    address: Address
    key: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mood:
    """How the service takes one request.

    Args:
        raises: what its platform raises.
        shows: whether the request has its effect first.
        gate: what it waits for before anything else; `math.inf`-like hanging is an event that nobody sets.
    """

    raises: Exception | None = None
    shows: bool = True
    gate: trio.Event | None = None


GOOD = Mood()


def refuses(error: Exception) -> Mood:
    """It says no, and shows nothing."""
    return Mood(raises=error, shows=False)


def shows_and_raises(error: Exception) -> Mood:
    """It shows the message, and its answer is lost."""
    return Mood(raises=error, shows=True)


@dataclass(slots=True)
class FakePlatform:
    """The service and the platform in one. Moods are taken one a request of a chat, then from `mood`.

    Args:
        capabilities: what it can do.
        mood: asked for each request for which no mood is queued.
        files: what can be fetched; moods are queued under their names. `fetched` is what was asked for.
        clock: when; trio's by default.
    """

    capabilities: Capabilities = field(default_factory=Capabilities)
    mood: Callable[[Call], Mood] = lambda _: GOOD
    messages: dict[str, Message] = field(default_factory=dict)  # in the order of their appearance
    calls: list[Call] = field(default_factory=list)
    queued: dict[str, deque[Mood]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    fetched: list[str] = field(default_factory=list)
    under_way: dict[str, int] = field(default_factory=dict)
    most_at_once: int = 0
    reactions: dict[tuple[str, str], str] = field(default_factory=dict)  # by chat and message; empty = taken back
    signals: Counter[str] = field(default_factory=Counter)  # under way, by chat
    most_signals: int = 0

    def next(self, chat: str, *moods: Mood) -> None:
        """Queue moods for the next requests of a chat, sends, edits and looks alike."""
        self.queued.setdefault(chat, deque(maxlen=1000)).extend(moods)

    def texts(self, chat: str) -> list[str]:
        """What a chat shows, in order."""
        return [each.content.text for each in self.messages.values() if each.address.chat == chat]

    def asked(self, chat: str, *methods: str) -> list[float]:
        """When requests of these kinds were made for a chat; of sends and edits without any."""
        wanted = methods or ("send", "edit")
        return [each.at for each in self.calls if each.address.chat == chat and each.method in wanted]

    async def receive(self, inbox: Inbox, cursors: Mapping[str, bytes]) -> NoReturn:  # noqa: ARG002  # the contract's
        """Nothing ever happens."""
        await trio.sleep_forever()
        raise AssertionError

    async def send(self, to: Address, content: Content, *, key: str, reply: ReplyRef | None) -> Receipt:
        """Show a message, as the mood is."""
        async with self._request(Call(at=trio.current_time(), method="send", address=to, key=key, text=content.text)) as (
            shows, at,
        ):  # fmt: skip
            known = self._repeated(key, at)
            if known is None and shows:
                message = Message(id=f"m{len(self.messages) + 1}", address=to, key=key, content=content, reply=reply)
                self.messages[message.id] = known = message
            return Receipt(message_id=known.id if known is not None else "none", address=to)

    async def edit(self, receipt: Receipt, content: Content) -> Receipt:
        """Change a message, as the mood is."""
        call = Call(
            at=trio.current_time(), method="edit", address=receipt.address, key=receipt.message_id, text=content.text
        )
        async with self._request(call) as (shows, _):
            message = self.messages.get(receipt.message_id)
            if message is None:
                raise SendRejected("there is no such message")
            if shows:
                self.messages[message.id] = replace(message, content=content)
            return receipt

    async def find(self, to: Address, *, key: str, since: float) -> Receipt | None:  # noqa: ARG002  # the contract's
        """The receipt of what is shown for a key."""
        async with self._request(Call(at=trio.current_time(), method="find", address=to, key=key)):
            known = next((each for each in self.messages.values() if each.key == key), None)
            return Receipt(message_id=known.id, address=to) if known is not None else None

    async def signal(self, to: Address, activity: Activity) -> None:
        """Show a sign; a reaction is kept under its message until it is taken back."""
        message = activity.reply.message_id if activity.reply is not None else None
        call = Call(at=trio.current_time(), method="signal", address=to, key=message or "", text=activity.emoji or "")
        self.signals[to.chat] += 1
        self.most_signals = max(self.most_signals, self.signals[to.chat])
        try:
            async with self._request(call) as (shows, _):
                if shows and message is not None:
                    self.reactions[to.chat, message] = activity.emoji or ""
        finally:
            self.signals[to.chat] -= 1

    @asynccontextmanager
    async def fetch(self, attachment: AttachmentRef, *, max_bytes: int) -> AsyncIterator[ByteStream]:  # noqa: ARG002
        """A file of `files`, in pieces, as the mood is; the bound is not kept, so that the core has to."""
        self.fetched.append(attachment.ref)
        queue = self.queued.get(attachment.ref)
        mood = queue.popleft() if queue else GOOD
        await trio.lowlevel.checkpoint()
        if mood.gate is not None:
            await mood.gate.wait()
        if mood.raises is not None:
            raise mood.raises
        if attachment.ref not in self.files:
            raise SendRejected("there is no such file")
        async with aclosing(_pieces(self.files[attachment.ref])) as pieces:
            yield pieces

    @asynccontextmanager
    async def _request(self, call: Call) -> AsyncIterator[tuple[bool, float]]:
        chat = call.address.chat
        queue = self.queued.get(chat) if call.method != "signal" else None
        mood = queue.popleft() if queue else self.mood(call)
        self.calls.append(call)
        if call.method != "signal":
            self.under_way[chat] = self.under_way.get(chat, 0) + 1
            self.most_at_once = max(self.most_at_once, self.under_way[chat])
        try:
            await trio.lowlevel.checkpoint()
            if mood.gate is not None and not mood.shows:
                await mood.gate.wait()
            yield mood.shows, call.at
            if mood.gate is not None and mood.shows:
                await mood.gate.wait()
            if mood.raises is not None:
                raise mood.raises
        finally:
            if call.method != "signal":
                self.under_way[chat] -= 1

    def _repeated(self, key: str, at: float) -> Message | None:
        if not self.capabilities.deduplicates:
            return None
        first = next((each.at for each in self.calls if each.method == "send" and each.key == key), at)
        known = next((each for each in self.messages.values() if each.key == key), None)
        return known if known is not None and at - first < DROPS_REPEATS_S else None


async def _pieces(content: bytes) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(content), PIECE):
        await trio.lowlevel.checkpoint()
        yield content[start : start + PIECE]


class FakeConnections:
    """Accounts that are up or down, and leases on them."""

    def __init__(self, **platforms: FakePlatform) -> None:
        self.platforms = platforms
        self.up = set(platforms)
        self.leases = 0
        self._scopes: dict[trio.CancelScope, str] = {}
        self._changed = trio.lowlevel.ParkingLot()

    @asynccontextmanager
    async def lease(self, account: str) -> AsyncIterator[FakePlatform]:
        """The use of an account's connection."""
        if account not in self.up:
            raise AccountDown(account, "down")
        scope = trio.CancelScope()
        self._scopes[scope] = account
        self.leases += 1
        try:
            with scope:
                yield self.platforms[account]
        finally:
            del self._scopes[scope]
        if scope.cancelled_caught:
            raise LeaseEnded(account)

    async def wait_connected(self, account: str) -> None:
        """Until it is up."""
        if account not in self.platforms:
            raise AccountDown(account, "removed")
        while account not in self.up:
            await self._changed.park()

    def capabilities(self, account: str) -> Capabilities:
        """What an account can do."""
        if account not in self.platforms:
            raise AccountDown(account, "removed")
        return self.platforms[account].capabilities

    def down(self, account: str) -> None:
        """Its connection is gone; who uses it is cancelled."""
        self.up.discard(account)
        for scope, of in self._scopes.items():
            if of == account:
                scope.cancel("the connection is gone")

    def back(self, account: str) -> None:
        """It is connected again."""
        self.up.add(account)
        self._changed.unpark_all()
