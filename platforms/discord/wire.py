"""Discord's JSON as values: what is read of gateway frames, messages, channels and interactions. Unknown fields are ignored.

Source: Discord's reference, "Gateway Events", "Message", "Channel", "Interactions".
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

EPOCH_MS = 1_420_070_400_000  # a snowflake counts its milliseconds from 2015
MAX_TEXT = 65_536

Snowflake = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,20}\Z")]
Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]
Name = Annotated[str, msgspec.Meta(max_length=1000)]
Link = Annotated[str, msgspec.Meta(max_length=4000)]


class Wire(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that comes from the service."""


class Frame(Wire, frozen=True):
    """One message of the gateway: operation, data, sequence number and the event's name."""

    op: int
    d: msgspec.Raw = msgspec.Raw(b"null")
    s: int | None = None
    t: str | None = None


class Hello(Wire, frozen=True):
    heartbeat_interval: float


class User(Wire, frozen=True):
    id: Snowflake
    username: Name = ""
    global_name: Name | None = None
    bot: bool = False


class Application(Wire, frozen=True):
    id: Snowflake
    name: Name = ""
    flags: int = 0
    approximate_guild_count: int | None = None


class Ready(Wire, frozen=True):
    session_id: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    resume_gateway_url: Link
    user: User


class Member(Wire, frozen=True):
    nick: Name | None = None
    user: User | None = None


class File(Wire, frozen=True):
    id: Snowflake
    url: Link
    filename: Name = ""
    content_type: Name | None = None
    size: Annotated[int, msgspec.Meta(ge=0)] | None = None


class EmbedField(Wire, frozen=True):
    name: Text = ""
    value: Text = ""


class Embed(Wire, frozen=True):
    title: Text | None = None
    description: Text | None = None
    url: Link | None = None
    fields: tuple[EmbedField, ...] = ()


class Sticker(Wire, frozen=True):
    id: Snowflake
    name: Name = ""
    format_type: int = 1


class Reference(Wire, frozen=True):
    type: int = 0
    message_id: Snowflake | None = None
    channel_id: Snowflake | None = None


class Forwarded(Wire, frozen=True):
    content: Text = ""
    attachments: tuple[File, ...] = ()
    embeds: tuple[Embed, ...] = ()


class Snapshot(Wire, frozen=True):
    message: Forwarded


class Reacted(Wire, frozen=True):
    """The emoji of a reaction, and whether one of them is ours."""

    emoji: dict[str, Any]
    me: bool = False


class Named(Wire, frozen=True):
    """Of a message, which it is."""

    id: Snowflake
    channel_id: Snowflake


class Message(Wire, frozen=True):
    id: Snowflake
    channel_id: Snowflake
    author: User
    type: int = 0
    content: Text = ""
    guild_id: Snowflake | None = None
    webhook_id: Snowflake | None = None
    edited_timestamp: str | None = None
    flags: int = 0
    member: Member | None = None
    mentions: tuple[User, ...] = ()
    attachments: tuple[File, ...] = ()
    embeds: tuple[Embed, ...] = ()
    sticker_items: tuple[Sticker, ...] = ()
    message_reference: Reference | None = None
    message_snapshots: tuple[Snapshot, ...] = ()
    referenced_message: Message | None = None
    reactions: tuple[Reacted, ...] = ()
    thread: Channel | None = None


class Channel(Wire, frozen=True):
    id: Snowflake
    type: int
    guild_id: Snowflake | None = None
    parent_id: Snowflake | None = None
    last_message_id: Snowflake | None = None


class Guild(Wire, frozen=True):
    id: Snowflake
    channels: tuple[Channel, ...] = ()
    threads: tuple[Channel, ...] = ()


class Threads(Wire, frozen=True):
    """THREAD_LIST_SYNC."""

    threads: tuple[Channel, ...] = ()


class Option(Wire, frozen=True):
    name: Name
    value: Any = None
    options: tuple[Option, ...] = ()


class Pressed(Wire, frozen=True):
    """The `data` of an interaction: a command with its options, or a component."""

    name: Name = ""
    custom_id: Name = ""
    options: tuple[Option, ...] = ()


class Interaction(Wire, frozen=True):
    id: Snowflake
    application_id: Snowflake
    type: int
    token: Annotated[str, msgspec.Meta(min_length=1, max_length=2000)]
    data: Pressed | None = None
    channel_id: Snowflake | None = None
    channel: Channel | None = None
    guild_id: Snowflake | None = None
    member: Member | None = None
    user: User | None = None
    message: Message | None = None


class SessionStartLimit(Wire, frozen=True):
    remaining: int
    reset_after: float
    total: int = 1000
    max_concurrency: int = 1


class GatewayBot(Wire, frozen=True):
    url: Link
    session_start_limit: SessionStartLimit
    shards: int = 1


class Fault(Wire, frozen=True):
    """The body of an error."""

    code: int = 0
    message: Text = ""
    retry_after: float | None = None
    # "global" is a word of Python
    everywhere: bool = msgspec.field(name="global", default=False)


decode_frame = msgspec.json.Decoder(Frame).decode


def sent_at(snowflake: str) -> float:
    """When the thing of this id was made, in seconds since the epoch."""
    return ((int(snowflake) >> 22) + EPOCH_MS) / 1000
