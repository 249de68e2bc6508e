"""Slash commands and buttons: how they are registered, and what they are as events. Pure.

Source: Discord's reference, "Application Commands" and "Receiving and Responding".
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from hermes.events import InboundEvent, ReplyRef
from hermes.platform import CommandSpec
from platforms.discord.places import Place
from platforms.discord.translate import person
from platforms.discord.wire import Interaction, Option, sent_at

COMMAND, COMPONENT = 2, 3  # types of interactions
DEFERRED_MESSAGE, DEFERRED_UPDATE = 5, 6  # types of first answers
ANSWER_WITHIN_S = 3.0
TOKEN_LASTS_S = 15 * 60.0
MAX_COMMANDS = 100
ARGUMENTS = "arguments"
_TEXT = 3  # the type of an option that is text


def registration(commands: tuple[CommandSpec, ...]) -> list[dict[str, Any]]:
    """The body of the request that replaces all global commands by these."""
    found = []
    for command in commands[:MAX_COMMANDS]:
        entry: dict[str, Any] = {
            "name": command.name,
            "description": (" ".join(command.help.split()) or command.name)[:100],
            "type": 1,
        }
        if command.arguments:
            description = " ".join(command.arguments.split())[:100] or ARGUMENTS
            entry["options"] = [{"type": _TEXT, "name": ARGUMENTS, "description": description, "required": False}]
        found.append(entry)
    return found


def digest(application: str, body: list[dict[str, Any]]) -> bytes:
    """What says whether the commands have changed since they were registered."""
    return hashlib.sha256(application.encode() + b"\0" + msgspec.json.encode(body)).hexdigest().encode()


def interaction_event(interaction: Interaction, place: Place, account: str) -> InboundEvent | None:
    """What somebody did with a command or a button; None for every other kind of interaction."""
    user = interaction.user or (interaction.member.user if interaction.member else None)
    data = interaction.data
    if user is None or data is None:
        return None
    sender = person(user, interaction.member)
    if interaction.type == COMMAND and data.name:
        return InboundEvent(
            id=interaction.id,
            address=place.address(account),
            chat_kind=place.chat_kind,
            sender=sender,
            text=f"/{data.name} {_arguments(data.options)}".strip(),
            to_us=True,
            reply=ReplyRef(token=interaction.token, until=sent_at(interaction.id) + TOKEN_LASTS_S),
            at=sent_at(interaction.id),
        )
    if interaction.type == COMPONENT and interaction.message is not None and data.custom_id:
        return InboundEvent(
            id=interaction.id,
            address=place.address(account),
            chat_kind=place.chat_kind,
            sender=sender,
            kind="button",
            text=data.custom_id,
            to_us=True,
            reply=ReplyRef(message_id=interaction.message.id),
            at=sent_at(interaction.id),
        )
    return None


def _arguments(options: tuple[Option, ...]) -> str:
    """The options as they would be typed: ours is one text, others (and groups of them) are named."""
    words = []
    for option in options:
        if option.options:
            words.append(f"{option.name} {_arguments(option.options)}")
        elif option.name == ARGUMENTS:
            words.append(str(option.value))
        elif option.value is not None:
            words.append(f"{option.name}:{option.value}")
        else:
            words.append(option.name)
    return " ".join(words).strip()


def deferral(interaction: Interaction) -> dict[str, Any]:
    """The first answer, which must come within three seconds: that another will follow."""
    return {"type": DEFERRED_MESSAGE if interaction.type == COMMAND else DEFERRED_UPDATE}
