"""A Discord for tests: REST and gateway on real sockets of the loopback, with the service's rules and faults on request.

In a test: `async with open_fake_discord() as discord:`, then `discord.base_url` and `discord.token` configure a bot,
`discord.say("hi")` is a person who writes, and `discord.shown()` what the bot has written. discord.py accepts it.
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

from hermes.testing.fake_discord_gateway import GatewaySide
from hermes.testing.fake_discord_rest import RestSide
from hermes.testing.fake_http import Answered, Asked, open_http_server
from hermes.testing.websocket_server import open_websocket_server

EPOCH_MS = 1_420_070_400_000
KEPT = 10_000

GUILD, CHANNEL, DM, FORUM, THREAD = "500", "501", "502", "503", "504"
ALICE, BOT, OTHER_BOT = "900", "1000", "901"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What the next requests that match are answered instead.

    Args:
        answer: sent; None = the request is served, but its answer is cut before its first byte.
        method: of the requests that it meets.
        path: a regular expression that is searched in their path.
        times: how many it meets.
        serve: the request takes effect although its answer is this.
    """

    answer: Answered | None = None
    method: str = r".*"
    path: str = r".*"
    times: int = 1
    serve: bool = False


@dataclass(slots=True, eq=False)
class FakeDiscord:
    """The world and its switches. Made by `open_fake_discord()`.

    Args:
        token: the bot's.
        reject_auth: nobody's token is accepted, in REST and at the gateway.
        heartbeat_s: what the gateway asks for.
        greets: it says hello.
        acks: it acknowledges heartbeats.
        forwards: it sends events; off, it is deaf.
        duplicates: it sends each event twice, with the same sequence number.
        invalid_sessions: so many resumes are answered "invalid session".
        allowed_intents: what the application was granted; others are closed with 4014.
        identifies_left: of the day's budget.
        shards: how many connections it advises.
        resume_port: where `resume_gateway_url` leads instead; 0 = here.
        bucket: requests and seconds of each channel's message bucket; None = no limits.
    """

    token: str = "fake-token"  # noqa: S105  # a fake one
    reject_auth: bool = False
    heartbeat_s: float = 41.25
    greets: bool = True
    acks: bool = True
    forwards: bool = True
    duplicates: bool = False
    invalid_sessions: int = 0
    allowed_intents: int = (1 << 0) | (1 << 9) | (1 << 12) | (1 << 15)
    identifies_left: int = 1000
    shards: int = 1
    resume_port: int = 0
    bucket: tuple[int, float] | None = None
    port: int = 0
    socket_port: int = 0
    clock: Callable[[], float] = time.time
    users: dict[str, dict[str, Any]] = field(default_factory=dict)
    channels: dict[str, dict[str, Any]] = field(default_factory=dict)
    messages: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    denied: dict[str, int] = field(default_factory=dict)
    commands: list[dict[str, Any]] = field(default_factory=list)
    interactions: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    requests: deque[Asked] = field(default_factory=lambda: deque(maxlen=KEPT))
    reactions: list[tuple[str, str, str]] = field(default_factory=list)
    typing: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    _last_id: int = 0
    _changed: trio.Event = field(default_factory=trio.Event)

    def __post_init__(self) -> None:
        for id_, name, bot in ((ALICE, "alice", False), (BOT, "hermes", True), (OTHER_BOT, "otherbot", True)):
            self.users[id_] = {
                "id": id_, "username": name, "global_name": name.title(), "discriminator": "0", "avatar": None, "bot": bot
            }  # fmt: skip
        self.add_channel(CHANNEL, 0, name="general")
        self.add_channel(FORUM, 15, name="forum")
        self.add_channel(THREAD, 11, name="a post", parent=FORUM)
        self.add_channel(DM, 1)
        self.rest = RestSide(self)
        self.gateway = GatewaySide(self)

    rest: RestSide = field(init=False)
    gateway: GatewaySide = field(init=False)

    @property
    def base_url(self) -> str:
        """What to configure."""
        return f"http://127.0.0.1:{self.port}/api/v10"

    @property
    def gateway_url(self) -> str:
        """Where the gateway is."""
        return f"ws://127.0.0.1:{self.socket_port}"

    # --- the world

    def snowflake(self) -> str:
        """A new id, greater than every one before."""
        self._last_id = max(self._last_id + 1, (int(self.clock() * 1000) - EPOCH_MS) << 22)
        return str(self._last_id)

    def add_channel(self, id_: str, kind: int, *, name: str = "", parent: str | None = None) -> dict[str, Any]:
        """A channel, thread or conversation that the bot can see."""
        channel: dict[str, Any] = {"id": id_, "type": kind, "last_message_id": None}
        if kind == 1:
            channel["recipients"] = [self.users[ALICE]]
        else:
            channel |= {"guild_id": GUILD, "name": name, "position": 0, "permission_overwrites": [], "topic": None,
                        "nsfw": False, "rate_limit_per_user": 0}  # fmt: skip
            channel["parent_id"] = parent
        if kind in (10, 11, 12):
            channel |= {
                "owner_id": ALICE, "message_count": 0, "member_count": 1,
                "thread_metadata": {"archived": False, "auto_archive_duration": 1440, "locked": False,
                                    "archive_timestamp": "2026-01-01T00:00:00+00:00"},
            }  # fmt: skip
        self.channels[id_] = channel
        self.messages.setdefault(id_, {})
        return channel

    def add_message(self, channel: str, author: str, text: str, /, **fields: Any) -> dict[str, Any]:
        """A message that is there, without an event of it."""
        message: dict[str, Any] = {
            "id": self.snowflake(), "channel_id": channel, "author": self.users[author], "content": text, "type": 0,
            "timestamp": "2026-01-01T00:00:00+00:00", "edited_timestamp": None, "tts": False, "mention_everyone": False,
            "mentions": [self.users[each] for each in re.findall(r"<@!?(\d+)>", text) if each in self.users],
            "mention_roles": [], "attachments": [], "embeds": [], "pinned": False, "flags": 0, "components": [],
            "reactions": [],
        } | fields  # fmt: skip
        reference = message.get("message_reference")
        if reference and reference["message_id"] in self.messages[channel]:
            message |= {"type": 19, "referenced_message": self.messages[channel][reference["message_id"]]}
        self.messages[channel][message["id"]] = message
        self.channels[channel]["last_message_id"] = message["id"]
        return message

    def event_of(self, message: dict[str, Any]) -> dict[str, Any]:
        """A message as the gateway tells of it."""
        channel = self.channels[message["channel_id"]]
        if channel["type"] == 1:
            return message
        member: dict[str, Any] = {"nick": None, "roles": [], "joined_at": "2026-01-01T00:00:00+00:00", "deaf": False, "mute": False,
                  "flags": 0}  # fmt: skip
        return message | {"guild_id": GUILD, "member": member}

    def say(self, text: str, /, channel: str = DM, author: str = ALICE, **fields: Any) -> dict[str, Any]:
        """Somebody writes."""
        message = self.add_message(channel, author, text, **fields)
        self.gateway.dispatch("MESSAGE_CREATE", self.event_of(message))
        return message

    def change(self, message: dict[str, Any], text: str) -> None:
        """Somebody edits what they wrote."""
        message |= {"content": text, "edited_timestamp": "2026-01-01T00:00:01+00:00"}
        self.gateway.dispatch("MESSAGE_UPDATE", self.event_of(message))

    def interact(self, kind: int, data: dict[str, Any], channel: str = CHANNEL, **fields: Any) -> dict[str, Any]:
        """Somebody uses a command (2) or a button (3)."""
        id_ = self.snowflake()
        interaction: dict[str, Any] = {
            "id": id_, "application_id": BOT, "type": kind, "token": f"interaction-token-{id_}-" + "x" * 40, "version": 1,
            "data": data, "channel_id": channel, "channel": self.channels[channel], "user": self.users[ALICE],
            "locale": "en-GB", "entitlements": [], "authorizing_integration_owners": {}, "attachment_size_limit": 1,
        } | fields  # fmt: skip
        if self.channels[channel]["type"] != 1:
            interaction["guild_id"] = GUILD
            interaction["member"] = {"user": interaction.pop("user"), "roles": [], "permissions": "0", "flags": 0,
                                     "joined_at": "2026-01-01T00:00:00+00:00", "deaf": False, "mute": False}  # fmt: skip
        self.interactions[interaction["token"]] = {"interaction": interaction, "answer": None, "message": None}
        self.gateway.dispatch("INTERACTION_CREATE", interaction)
        return interaction

    def command(self, name: str, arguments: str | None = None, channel: str = CHANNEL) -> dict[str, Any]:
        """Somebody uses a slash command of ours."""
        options = [{"type": 3, "name": "arguments", "value": arguments}] if arguments is not None else []
        return self.interact(2, {"id": self.snowflake(), "type": 1, "name": name, "options": options}, channel)

    def press(self, message: dict[str, Any], data: str) -> dict[str, Any]:
        """Somebody presses a button under a message."""
        return self.interact(
            3, {"custom_id": data, "component_type": 2}, message["channel_id"], message=self.event_of(message)
        )

    def shown(self, channel: str = DM) -> list[str]:
        """What the bot has written there."""
        return [each["content"] for each in self.messages.get(channel, {}).values() if each["author"]["id"] == BOT]

    # --- watching and breaking

    def asked(self, method: str, path: str) -> list[Asked]:
        """The requests so far whose path has this regular expression in it."""
        return [each for each in self.requests if each.method == method and re.search(path, each.path)]

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


@asynccontextmanager
async def open_fake_discord(**switches: Any) -> AsyncIterator[FakeDiscord]:
    """A fake Discord for the body; `switches` are fields of `FakeDiscord`.

    Lifetime: leaving closes its ports and every connection.
    """
    discord = FakeDiscord(**switches)
    async with open_http_server(discord.rest.handle) as discord.port:
        async with open_websocket_server(discord.gateway.connected) as discord.socket_port:
            yield discord
