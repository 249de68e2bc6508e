"""Gateway events to what the core takes: decoding, finding out where a channel is, and first answers to interactions."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TypeVar

import msgspec
import trio

from hermes.errors import PlatformError, SendError
from hermes.events import InboundEvent
from hermes.platform import Inbox
from platforms.discord.cursors import Followed
from platforms.discord.interactions import ANSWER_WITHIN_S, deferral, interaction_event
from platforms.discord.places import Place, Places
from platforms.discord.protocol import Event
from platforms.discord.rest import Failed, Rest
from platforms.discord.translate import message_event
from platforms.discord.wire import Channel, Guild, Interaction, Message, Named, Threads, User

log = logging.getLogger(__name__)

T = TypeVar("T")
MAX_DEFERRING = 32
CHANNELS = ("CHANNEL_CREATE", "CHANNEL_UPDATE", "THREAD_CREATE", "THREAD_UPDATE")
GONE = ("CHANNEL_DELETE", "THREAD_DELETE")
_NOWHERE = 0  # an ordinary channel of a server


@dataclass(frozen=True, slots=True)
class Found:
    """What an event came to."""

    event: InboundEvent | None = None
    message: Message | None = None
    interaction: Interaction | None = None


class Happenings:
    """What is needed to understand events.

    Args:
        rest: the API.
        account: our id in the configuration.
        me: our user id.
        auto_thread: answer mentions in threads of their own.
        follow_threads: who goes on in a thread with us speaks to us.

    Attributes:
        followed: the threads in which somebody has spoken to us.
        nursery, inbox: of the connection that is open.
    """

    def __init__(self, rest: Rest, account: str, me: str, *, auto_thread: bool, follow_threads: bool) -> None:
        self._rest = rest
        self._account = account
        self._me = me
        self._auto_thread = auto_thread
        self._follow_threads = follow_threads
        self.followed = Followed()
        self._places = Places()
        self._deferring = 0
        self.nursery: trio.Nursery | None = None
        self.inbox: Inbox | None = None

    async def translate(self, event: Event) -> Found:
        """What an event is to the core. Raises PlatformError if the service must be asked and does not answer."""
        if event.name in ("MESSAGE_CREATE", "MESSAGE_UPDATE"):
            message = self._decoded(event, Message)
            edited = event.name == "MESSAGE_UPDATE"
            if message is None:
                return Found(message=None if edited else _unreadable(event))
            return Found(await self.message(message, edited=edited), None if edited else message)
        if event.name == "INTERACTION_CREATE":
            interaction = self._decoded(event, Interaction)
            return Found() if interaction is None else await self._interaction(interaction)
        if event.name == "GUILD_CREATE":
            guild = self._decoded(event, Guild)
            if guild is not None:
                self._places.note(*guild.channels, *guild.threads)
        elif event.name == "THREAD_LIST_SYNC":
            threads = self._decoded(event, Threads)
            if threads is not None:
                self._places.note(*threads.threads)
        elif event.name in CHANNELS or event.name in GONE:
            channel = self._decoded(event, Channel)
            if channel is not None:
                self._places.forget(channel.id)
                if event.name in CHANNELS:
                    self._places.note(channel)
        return Found()

    async def message(self, message: Message, *, edited: bool = False) -> InboundEvent | None:
        """A message as an event, or None."""
        if message.author.id == self._me:
            return None
        place = await self.place(message.channel_id, in_server=message.guild_id is not None)
        event = message_event(
            message, place, self._account, self._me,
            edited=edited, auto_thread=self._auto_thread, follows=place.id in self.followed,
        )  # fmt: skip
        if event is not None and event.to_us and self._follow_threads and not event.sender.bot and event.address.thread:
            self.followed.note(event.address.thread)
        return event

    async def place(self, channel: str, *, in_server: bool) -> Place:
        """Where a channel is, asked once."""
        known = self._places.get(channel)
        if known is not None:
            return known
        try:
            self._places.note(await self._rest.read(f"/channels/{channel}", Channel))
        except Failed as failed:
            if not isinstance(failed.meaning, SendError):
                raise failed.meaning from None
        return self._places.get(channel) or Place(channel, _NOWHERE if in_server else 1)

    async def _interaction(self, interaction: Interaction) -> Found:
        if interaction.channel is not None:
            self._places.note(interaction.channel)
        channel = interaction.channel_id or (interaction.channel.id if interaction.channel else None)
        if channel is None:
            return Found()
        place = await self.place(channel, in_server=interaction.guild_id is not None)
        event = interaction_event(interaction, place, self._account)
        return Found(event, None, interaction if event is not None else None)

    async def defer(self, interaction: Interaction) -> None:
        """Tell the service that an answer follows, beside what else goes on; called when the event is committed."""
        if self.nursery is not None and self._deferring < MAX_DEFERRING:
            self.nursery.start_soon(self._defer, interaction)
        else:
            await self._defer(interaction)

    async def _defer(self, interaction: Interaction) -> None:
        self._deferring += 1
        try:
            await self._rest.ask(
                "POST",
                f"/interactions/{interaction.id}/{interaction.token}/callback",
                body=deferral(interaction),
                token=False,
                timeout_s=ANSWER_WITHIN_S,
            )
        except (Failed, PlatformError) as exc:
            # The answer then goes as an ordinary message; a replayed interaction has long been answered.
            log.info("an interaction could not be acknowledged: %s", exc)
        finally:
            self._deferring -= 1

    def _decoded(self, event: Event, kind: type[T]) -> T | None:
        """The event's data; what is not as documented is counted and left out, and nothing waits for it."""
        try:
            return msgspec.json.decode(event.data, type=kind)
        except msgspec.DecodeError as exc:
            sample = b"" if kind is Interaction else bytes(event.data)[:1000]  # an interaction holds a right to answer
            self.quarantine(f"{event.name} is not as documented: {exc}", sample)
            return None

    def quarantine(self, because: str, sample: object) -> None:
        """Tell of what was left out."""
        if self.inbox is not None:
            self.inbox.quarantine(because, sample)


def _unreadable(event: Event) -> Message | None:
    """What can be said of a message that is not as documented: that it came, or it would seem to have been kept from us."""
    try:
        named = msgspec.json.decode(event.data, type=Named)
    except msgspec.DecodeError:
        return None
    return Message(id=named.id, channel_id=named.channel_id, author=User(id="0"))
