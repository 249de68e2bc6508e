"""The workspaces of one app: each has a token, a bot user, and ids of its own. Pure.

Slack's ids are unique in a workspace only. Those of the first workspace are used as they are; of any other the workspace's id
stands before them, `T0123/C0456`, so that no two chats and no two people are one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hermes.errors import SendRejected
from platforms.slack.api import Token

SEPARATOR = "/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """One workspace.

    Args:
        id: of the team.
        name: for people.
        token: of our bot there.
        user: our user id there.
        bot: our bot id there, empty if Slack did not say.
        home: ids of this one are used as they are.
    """

    id: str
    name: str
    token: Token
    user: str
    bot: str = ""
    home: bool = False

    def outside(self, id_: str) -> str:
        """An id of this workspace as the rest of the gateway knows it."""
        return id_ if self.home else f"{self.id}{SEPARATOR}{id_}"

    def is_us(self, user: str | None, bot: str | None) -> bool:
        """Whether we wrote something."""
        return user == self.user or (bool(bot) and bot == self.bot)


class Workspaces:
    """All of them, by what events and addresses say."""

    def __init__(self, spaces: Sequence[Workspace]) -> None:
        self._by_id = {each.id: each for each in spaces}
        self.home = next(each for each in spaces if each.home)

    def __iter__(self) -> Iterator[Workspace]:
        return iter(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)

    def of(self, team: str | None) -> Workspace | None:
        """The workspace that an event came from; of a single one everything does."""
        if len(self._by_id) == 1:
            return self.home
        return self._by_id.get(team or "")

    def locate(self, outside: str) -> tuple[Workspace, str]:
        """The workspace of an id of ours, and the id as Slack knows it.

        Raises:
            SendRejected: it is no id, or of a workspace that the account has no token for.
        """
        team, slash, id_ = outside.rpartition(SEPARATOR)
        space = self._by_id.get(team) if slash else self.home
        if space is None:
            raise SendRejected(f"the account has no token for the workspace {team[:40]!r}")
        if not is_id(id_):
            raise SendRejected(f"{id_[:40]!r} is no id of Slack's")
        return space, id_


def is_id(text: str) -> bool:
    """Whether a text can be an id of Slack's."""
    return 1 < len(text) <= 40 and text.isascii() and text.isalnum() and text.upper() == text


def is_stamp(text: str | None) -> bool:
    """Whether a text can name a message: seconds and microseconds, which are unique in a channel."""
    seconds, dot, micro = (text or "").partition(".")
    return (
        bool(dot)
        and seconds.isascii()
        and seconds.isdigit()
        and micro.isascii()
        and micro.isdigit()
        and len(micro) == 6
    )
