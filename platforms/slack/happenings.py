"""Envelopes to what the core takes: decoding, whose workspace it was, and what people are called."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import replace

import msgspec

from hermes.errors import PlatformRefused
from hermes.events import InboundEvent
from hermes.platform import Inbox
from platforms.slack.people import People
from platforms.slack.translate import View, commanded, happened, message_event, people_in, pressed
from platforms.slack.wire import Envelope, Message, decode_callback, decode_command, decode_interaction
from platforms.slack.workspaces import Workspace, Workspaces

log = logging.getLogger(__name__)

_SECRETS = re.compile(r'"(token|response_url)"\s*:\s*"[^"]*"')


class Happenings:
    """What is needed to understand envelopes.

    Args:
        spaces: where the app is.
        people: their names.
        view: how the account looks at it.
        clock: seconds since the epoch.
    """

    def __init__(self, spaces: Workspaces, people: People, view: View, clock: Callable[[], float]) -> None:
        self._spaces = spaces
        self._people = people
        self._view = view
        self._clock = clock
        self._inbox: Inbox | None = None

    def begin(self, inbox: Inbox, follows: Callable[[str, str], bool]) -> None:
        """Somebody receives: they are told of what cannot be read, and know which threads are followed."""
        self._inbox = inbox
        self._view = replace(self._view, follows=follows)

    def unreadable(self, what: str, found: object) -> None:
        """Count what is not as documented, and pass over it."""
        sample = bytes(found) if isinstance(found, msgspec.Raw) else found
        if isinstance(sample, bytes):
            sample = _SECRETS.sub(r'"\1":"***"', sample[:2000].decode("utf-8", "replace"))
        if self._inbox is not None:
            self._inbox.quarantine(what, sample)

    async def translate(self, envelope: Envelope) -> InboundEvent | None:
        """What an envelope is to the core; None for nothing, and for what cannot be read.

        Raises:
            PlatformRefused: the app was removed.
        """
        try:
            if envelope.type == "events_api":
                callback = decode_callback(envelope.payload)
                space = self._spaces.of(callback.team_id)
                if space is None:
                    _say_strange(callback.team_id)
                    return None
                if callback.event.type == "app_uninstalled" and len(self._spaces) == 1:
                    raise PlatformRefused(f"the app was removed from the workspace {space.name}: install it again")
                names = await self._people.names(space, people_in(callback.event))
                return happened(callback, space, replace(self._view, names=names))
            if envelope.type == "slash_commands":
                command = decode_command(envelope.payload)
                space = self._spaces.of(command.team_id)
                if space is None:
                    _say_strange(command.team_id)
                    return None
                return commanded(command, space, self._view, self._clock())
            if envelope.type == "interactive":
                interaction = decode_interaction(envelope.payload)
                space = self._spaces.of(interaction.team.id if interaction.team else None)
                return pressed(interaction, space, self._view) if space is not None else None
        except msgspec.DecodeError as exc:
            self.unreadable(f"{envelope.type[:40]} is not as documented: {exc}", envelope.payload)
        return None

    async def message(self, found: Message, channel: str, space: Workspace) -> InboundEvent | None:
        """A message of a history as an event, or None."""
        names = await self._people.names(space, people_in(found))
        return message_event(found, channel, space, replace(self._view, names=names))


def _say_strange(team: str | None) -> None:
    """The app is installed in a workspace that the account has no token of: its events come to whoever listens."""
    log.warning("an event of the workspace %s was left out: `bot_token` has no token of it", team)
