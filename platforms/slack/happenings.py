"""Envelopes to what the core takes: decoding, whose workspace it was, and what people are called."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import msgspec

from hermes.errors import PlatformRefused
from hermes.events import InboundEvent
from platforms.slack.people import People
from platforms.slack.translate import View, commanded, happened, message_event, people_in, pressed
from platforms.slack.wire import Envelope, Message, decode_callback, decode_command, decode_interaction
from platforms.slack.workspaces import Workspace, Workspaces

log = logging.getLogger(__name__)


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
        self.malformed = 0

    def following(self, follows: Callable[[str, str], bool]) -> None:
        """Which threads are followed is known by whoever receives."""
        self._view = replace(self._view, follows=follows)

    async def translate(self, envelope: Envelope) -> InboundEvent | None:
        """What an envelope is to the core; None for nothing, and for what is not as documented, which is counted.

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
            self.malformed += 1
            sample = bytes(envelope.payload)[:300].decode("utf-8", "replace")
            log.warning("%s is not as documented and is left out: %s: %s", envelope.type, exc, sample)
        return None

    async def message(self, found: Message, channel: str, space: Workspace) -> InboundEvent | None:
        """A message of a history as an event, or None."""
        names = await self._people.names(space, people_in(found))
        return message_event(found, channel, space, replace(self._view, names=names))


def _say_strange(team: str | None) -> None:
    """The app is installed in a workspace that the account has no token of: its events come to whoever listens."""
    log.warning("an event of the workspace %s was left out: `bot_token` has no token of it", team)
