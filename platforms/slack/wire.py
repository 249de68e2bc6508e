"""Slack's JSON as values: what is read of envelopes, messages, commands and buttons. Unknown fields are ignored.

Source: Slack's reference, "Socket Mode", "message event", "Interactivity: block_actions payload", "Slash commands".
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

MAX_TEXT = 100_000

Id = Annotated[str, msgspec.Meta(pattern=r"^[A-Z0-9]{2,40}\Z")]
Stamp = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,12}\.[0-9]{6}\Z")]  # names a message in its channel
Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]
Name = Annotated[str, msgspec.Meta(max_length=1000)]
Link = Annotated[str, msgspec.Meta(max_length=4000)]


class Wire(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that comes from the service."""


class Envelope(Wire, frozen=True):
    """One message of a socket; `reason` is of a `disconnect`, the rest of what must be acknowledged."""

    type: Name
    envelope_id: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] | None = None
    reason: Name | None = None
    payload: msgspec.Raw = msgspec.Raw(b"null")


class File(Wire, frozen=True):
    id: Id
    name: Name | None = None
    mimetype: Name | None = None
    subtype: Name | None = None
    mode: Name | None = None
    size: Annotated[int, msgspec.Meta(ge=0, le=1 << 60)] | None = None


class Attachment(Wire, frozen=True):
    """What is shown beside a message's words: of a program, a link, a message that was shared."""

    pretext: Text | None = None
    title: Text | None = None
    text: Text | None = None
    fallback: Text | None = None
    is_share: bool = False
    is_msg_unfurl: bool = False


class Edited(Wire, frozen=True):
    ts: Stamp


class Message(Wire, frozen=True):
    """A message, inside of an event, of another message, or of a history (there without its channel)."""

    ts: Stamp | None = None
    type: Name = "message"
    subtype: Name | None = None
    channel: Id | None = None
    channel_type: Name | None = None
    user: Id | None = None
    bot_id: Id | None = None
    username: Name | None = None
    text: Text | None = None
    thread_ts: Stamp | None = None
    parent_user_id: Id | None = None
    edited: Edited | None = None
    files: tuple[File, ...] | None = None
    attachments: tuple[Attachment, ...] | None = None
    message: Message | None = None
    previous_message: Message | None = None
    old_channel_id: Id | None = None
    new_channel_id: Id | None = None
    event_ts: Stamp | None = None


class Callback(Wire, frozen=True):
    """The payload of an `events_api` envelope."""

    event: Message
    team_id: Id | None = None


class Command(Wire, frozen=True):
    """The payload of a `slash_commands` envelope."""

    command: Name
    trigger_id: Annotated[str, msgspec.Meta(min_length=1, max_length=400)]
    user_id: Id
    channel_id: Id
    text: Text = ""
    team_id: Id | None = None
    user_name: Name = ""
    response_url: Link | None = None


class Person(Wire, frozen=True):
    id: Id
    name: Name = ""
    username: Name = ""


class Team(Wire, frozen=True):
    id: Id


class Channel(Wire, frozen=True):
    id: Id


class Action(Wire, frozen=True):
    type: Name
    action_id: Name
    action_ts: Stamp
    value: Name | None = None


class Container(Wire, frozen=True):
    message_ts: Stamp | None = None
    thread_ts: Stamp | None = None


class Interaction(Wire, frozen=True):
    """The payload of an `interactive` envelope."""

    type: Name
    user: Person
    team: Team | None = None
    channel: Channel | None = None
    message: Message | None = None  # none of a message that one person alone sees
    container: Container = Container()
    response_url: Link | None = None
    actions: tuple[Action, ...] = ()


class Profile(Wire, frozen=True):
    display_name: Name | None = None
    real_name: Name | None = None


class User(Wire, frozen=True):
    id: Id
    name: Name = ""
    is_bot: bool = False
    profile: Profile = Profile()


decode_envelope = msgspec.json.Decoder(Envelope).decode
decode_callback = msgspec.json.Decoder(Callback).decode
decode_command = msgspec.json.Decoder(Command).decode
decode_interaction = msgspec.json.Decoder(Interaction).decode


def converted(found: Any, kind: Any) -> Any:
    """Part of an answer as a value. Raises msgspec.ValidationError."""
    return msgspec.convert(found, kind)
