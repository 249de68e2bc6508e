"""What people are called: Slack's events have ids only."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from itertools import islice

import msgspec
import trio

from hermes.errors import PlatformError
from platforms.slack.api import SlackApi
from platforms.slack.wire import User, converted
from platforms.slack.workspaces import Workspace

log = logging.getLogger(__name__)

MAX_KNOWN = 2000
MAX_ASKED = 8  # of one message
PAUSE_S = 3.0  # after names that did not come in time nobody is asked
ASK_S = 1.0  # of one message: an envelope must be acknowledged within three seconds


class People:
    """Names by id, the latest at most; a name that cannot be had is left out."""

    def __init__(self, api: SlackApi) -> None:
        self._api = api
        self._known: dict[str, str] = {}
        self._asks_at = -math.inf

    async def names(self, space: Workspace, ids: Iterable[str]) -> Mapping[str, str]:
        """The names of these people, each asked once, in a second at most."""
        found: dict[str, str] = {}
        unknown: list[tuple[str, str]] = []
        for id_ in islice(ids, MAX_ASKED):
            key = space.outside(id_)
            name = self._known.get(key)
            if name is None and id_ != space.user and id_[0] in "UW":
                unknown.append((id_, key))
            elif name:
                found[id_] = name
        if unknown and trio.current_time() >= self._asks_at:
            await self._add(space, unknown, found)
        return found

    async def _add(self, space: Workspace, unknown: list[tuple[str, str]], found: dict[str, str]) -> None:
        """Ask for the names of these, by their ids and as we know them, and add what is learnt in time."""
        with trio.move_on_after(ASK_S) as scope:
            for id_, key in unknown:
                name = self._known.get(key)  # another message may have asked meanwhile
                if name is None:
                    name = await self._ask(space, id_)
                if name is None:
                    break
                self._known[key] = name
                while len(self._known) > MAX_KNOWN:
                    del self._known[next(iter(self._known))]
                if name:
                    found[id_] = name
        if scope.cancelled_caught:
            self._asks_at = trio.current_time() + PAUSE_S

    async def _ask(self, space: Workspace, id_: str) -> str | None:
        """A name; empty if there is none, None if nobody can be asked now."""
        try:
            body = await self._api.ask("users.info", {"user": id_}, space.token)
            user: User = converted(body.get("user"), User)
        except msgspec.ValidationError:
            return ""
        except PlatformError as error:
            log.info("a name could not be asked: %s", error)
            return None
        return user.profile.display_name or user.profile.real_name or user.name
