"""A Slack for tests: Web API and Socket Mode on real sockets of the loopback, with the service's rules and faults on request.

In a test: `async with open_fake_slack() as slack:`, then `slack.base_url`, `slack.bot_token` and `slack.app_token` configure an
app, `slack.say("hi")` is a person who writes, and `slack.shown()` what the app has written. slack-sdk accepts it.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trio

from hermes.testing.fake_http import Answered, Asked, open_http_server
from hermes.testing.fake_slack_api import ApiSide
from hermes.testing.fake_slack_socket import SocketSide
from hermes.testing.slack_text import visible
from hermes.testing.websocket_server import open_websocket_server

KEPT = 10_000
TEAM, OTHER_TEAM = "T0HERMES", "T0OTHER"
ALICE, BOB, BOT, BOT_ID, OTHER_BOT = "U0ALICE", "U0BOB", "U0HERMES", "B0HERMES", "B0OTHER"
DM, CHANNEL, PRIVATE = "D0ALICE", "C0GENERAL", "G0SECRET"
SCOPES = (
    "app_mentions:read,assistant:write,channels:history,chat:write,commands,files:read,files:write,groups:history,"
    "im:history,im:write,mpim:history,reactions:read,reactions:write,users:read"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What the next requests that match are answered instead.

    Args:
        answer: sent; None = the request is served, but its answer is cut before its first byte.
        path: a regular expression that is searched in their path, such as `chat.postMessage`.
        times: how many it meets.
        serve: the request takes effect although its answer is this.
    """

    answer: Answered | None = None
    path: str = r".*"
    times: int = 1
    serve: bool = False


@dataclass(slots=True, eq=False)
class FakeSlack:
    """The world and its switches. Made by `open_fake_slack()`.

    Args:
        bot_token, app_token: of the app; `tokens` has those of further workspaces.
        reject_auth: nobody's token is accepted.
        socket_status: the HTTP status with which sockets are refused; 0 = they are taken.
        greets: a socket is said hello to.
        forwards: events go out; off, it is deaf.
        answers_pings: a socket shows signs of life.
        duplicates: each event goes out twice, in two envelopes.
        gives_up: what was not acknowledged is not brought again.
        scopes: what the token may.
        page: messages of a page of a history at most.
    """

    bot_token: str = "xoxb-fake-token"  # noqa: S105  # a fake one
    app_token: str = "xapp-fake-token"  # noqa: S105  # likewise
    reject_auth: bool = False
    socket_status: int = 0
    greets: bool = True
    forwards: bool = True
    duplicates: bool = False
    gives_up: bool = False
    scopes: str = SCOPES
    page: int = 200
    port: int = 0
    socket_port: int = 0
    clock: Callable[[], float] = time.time
    tokens: dict[str, str] = field(default_factory=dict)
    users: dict[str, dict[str, Any]] = field(default_factory=dict)
    channels: dict[str, dict[str, Any]] = field(default_factory=dict)
    messages: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    statuses: list[tuple[str, str, str]] = field(default_factory=list)
    responses: list[dict[str, Any]] = field(default_factory=list)
    requests: deque[Asked] = field(default_factory=lambda: deque(maxlen=KEPT))
    faults: list[Fault] = field(default_factory=list)
    _last: int = 0
    _changed: trio.Event = field(default_factory=trio.Event)
    api: ApiSide = field(init=False)
    sockets: SocketSide = field(init=False)

    def __post_init__(self) -> None:
        self.tokens.setdefault(self.bot_token, TEAM)
        for id_, name in ((ALICE, "alice"), (BOB, "bob"), (BOT, "hermes")):
            self.users[id_] = {
                "id": id_, "name": name, "team_id": TEAM, "is_bot": id_ == BOT, "deleted": False,
                "profile": {"display_name": name.title(), "real_name": f"{name.title()} Example"},
            }  # fmt: skip
        for channel in (DM, CHANNEL, PRIVATE):
            self.add_channel(channel)
        self.api = ApiSide(self)
        self.sockets = SocketSide(self)

    @property
    def base_url(self) -> str:
        """What to configure."""
        return f"http://127.0.0.1:{self.port}/api"

    # --- the world

    def stamp(self) -> str:
        """A new name for a message, greater than every one before."""
        self._last = max(self._last + 1, int(self.clock() * 1_000_000))
        return f"{self._last // 1_000_000}.{self._last % 1_000_000:06d}"

    def id(self, letter: str) -> str:
        """A new id."""
        return letter + self.stamp().replace(".", "")

    def add_channel(self, id_: str, *, member: bool = True) -> None:
        """A conversation that the app can see, of whichever kind its first letter says."""
        self.channels[id_] = {"id": id_, "member": member, "archived": False}
        self.messages.setdefault(id_, {})

    def add_message(self, channel: str, /, **fields: Any) -> dict[str, Any]:
        """A message that is there, without an event of it."""
        message = {"type": "message", "ts": self.stamp(), "text": ""} | fields
        self.messages[channel][message["ts"]] = message
        return message

    def say(
        self, text: str, /, channel: str = DM, user: str = ALICE, team: str = TEAM, **fields: Any
    ) -> dict[str, Any]:
        """Somebody writes; a mention of the app comes as two events."""
        message = self.add_message(channel, text=text, user=user, team=team, **fields)
        thread = message.get("thread_ts")
        parent = self.messages[channel].get(thread) if thread else None
        if parent is not None:
            message.setdefault("parent_user_id", parent.get("user"))
        kind = {"D": "im", "G": "group"}.get(channel[0], "channel")
        self.event({**message, "channel": channel, "channel_type": kind, "event_ts": message["ts"]}, team)
        if f"<@{BOT}>" in text and channel[0] != "D" and "bot_id" not in fields:
            self.event({**message, "type": "app_mention", "channel": channel, "event_ts": message["ts"]}, team)
        return message

    def change(self, message: dict[str, Any], text: str, channel: str = DM) -> None:
        """Somebody edits what they wrote."""
        before = dict(message)
        message |= {"text": text, "edited": {"user": message["user"], "ts": self.stamp()}}
        kind = {"D": "im", "G": "group"}.get(channel[0], "channel")
        self.event({
            "type": "message", "subtype": "message_changed", "hidden": True, "channel": channel, "channel_type": kind,
            "message": dict(message), "previous_message": before, "ts": self.stamp(), "event_ts": self.stamp(),
        })  # fmt: skip

    def event(self, event: dict[str, Any], team: str = TEAM) -> None:
        """Something happens that the Events API tells of."""
        payload = {
            "token": "verification", "team_id": team, "api_app_id": "A0HERMES", "event": event, "type": "event_callback",
            "event_id": self.id("Ev"), "event_time": int(self.clock()), "is_ext_shared_channel": False,
            "authorizations": [{"enterprise_id": None, "team_id": team, "user_id": BOT, "is_bot": True,
                                "is_enterprise_install": False}],
        }  # fmt: skip
        self.sockets.dispatch("events_api", payload, str(event.get("ts", "")))

    def command(self, name: str, text: str = "", channel: str = CHANNEL, user: str = ALICE) -> dict[str, Any]:
        """Somebody uses a slash command."""
        payload = {
            "token": "verification", "team_id": TEAM, "team_domain": "hermes", "channel_id": channel,
            "channel_name": "directmessage" if channel[0] == "D" else "general", "user_id": user,
            "user_name": self.users[user]["name"], "command": name, "text": text, "api_app_id": "A0HERMES",
            "is_enterprise_install": "false", "trigger_id": f"{self.stamp()}.trigger",
            "response_url": f"http://127.0.0.1:{self.port}/commands/{TEAM}/{self.stamp()}",
        }  # fmt: skip
        self.sockets.dispatch("slash_commands", payload, payload["trigger_id"], again=False)
        return payload

    def press(self, channel: str, message: dict[str, Any], place: int = 0, user: str = ALICE) -> dict[str, Any]:
        """Somebody presses a button under a message."""
        buttons = [each for block in message["blocks"] if block["type"] == "actions" for each in block["elements"]]
        button = buttons[place]
        payload = {
            "type": "block_actions", "team": {"id": TEAM, "domain": "hermes"}, "token": "verification",
            "user": {"id": user, "username": "alice", "name": "alice", "team_id": TEAM}, "api_app_id": "A0HERMES",
            "container": {"type": "message", "message_ts": message["ts"], "channel_id": channel, "is_ephemeral": False},
            "channel": {"id": channel, "name": "general"}, "message": dict(message), "trigger_id": f"{self.stamp()}.x",
            "response_url": f"http://127.0.0.1:{self.port}/actions/{TEAM}/{self.stamp()}",
            "actions": [{"type": "button", "action_id": button["action_id"], "block_id": "b1", "value": button["value"],
                         "text": button["text"], "action_ts": self.stamp()}],
        }  # fmt: skip
        self.sockets.dispatch("interactive", payload, message["ts"], again=False)
        return payload

    def add_file(
        self, name: str, content: bytes, media_type: str = "text/plain", id_: str | None = None, **fields: Any
    ) -> dict[str, Any]:
        """A file that somebody has uploaded."""
        id_ = id_ or self.id("F")
        self.contents[id_] = content
        self.files[id_] = {
            "id": id_, "name": name, "title": name, "mimetype": media_type, "size": len(content), "mode": "hosted",
            "user": ALICE, "shares": {},
            "url_private": f"http://127.0.0.1:{self.port}/files-pri/{TEAM}-{id_}/{name}",
            "url_private_download": f"http://127.0.0.1:{self.port}/files-pri/{TEAM}-{id_}/download/{name}",
        } | fields  # fmt: skip
        return self.files[id_]

    def ours(self, channel: str = DM) -> list[dict[str, Any]]:
        """The messages of the app in a channel."""
        return [each for each in self.messages.get(channel, {}).values() if each.get("bot_id") == BOT_ID]

    def shown(self, channel: str = DM) -> list[str]:
        """What people read of the app there. Raises BadMrkdwn for what Slack would show otherwise."""
        return [text_of(each) for each in self.ours(channel)]

    # --- watching and breaking

    def asked(self, path: str) -> list[Asked]:
        """The requests so far whose path has this regular expression in it."""
        return [each for each in self.requests if re.search(path, each.path)]

    def fail(self, *faults: Fault) -> None:
        """Answer the next requests that match so."""
        self.faults.extend(faults)

    def touch(self) -> None:
        """Something has changed."""
        self._changed.set()
        self._changed = trio.Event()

    async def until(self, fact: Callable[[], object]) -> None:
        """Wait until this is so."""
        while not fact():
            await self._changed.wait()


def text_of(message: dict[str, Any]) -> str:
    """What people read of a message: its blocks, where it has some, else its text."""
    sections = [each["text"] for each in message.get("blocks") or () if each["type"] == "section"]
    if message.get("blocks"):
        return "\n".join(
            visible(each["text"], strict=True) if each["type"] == "mrkdwn" else each["text"] for each in sections
        )
    return visible(message["text"], strict=True)


@asynccontextmanager
async def open_fake_slack(**switches: Any) -> AsyncIterator[FakeSlack]:
    """A fake Slack for the body; `switches` are fields of `FakeSlack`.

    Lifetime: leaving closes its ports and every connection.
    """
    slack = FakeSlack(**switches)
    async with open_http_server(slack.api.handle) as slack.port:
        async with open_websocket_server(slack.sockets.connected) as slack.socket_port:
            yield slack
