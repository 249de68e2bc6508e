"""Discord's messages and interactions as events, from samples of what the service sends, and from anything else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes.events import Address, ReplyRef
from hermes.platform import CommandSpec
from platforms.discord.interactions import digest, interaction_event, registration
from platforms.discord.places import MAX_PLACES, Place, Places, place_of
from platforms.discord.translate import message_event, plain
from platforms.discord.wire import Channel, Interaction, Message, sent_at

SAMPLES = sorted((Path(__file__).parents[1] / "samples" / "discord").glob("*.json"))
ME = "1000000000000000001"


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_is_translated(path: Path) -> None:
    sample = json.loads(path.read_bytes())
    message = msgspec.convert(sample["message"], Message)
    place = place_of(msgspec.convert(sample["place"], Channel))
    event = message_event(message, place, "discord", ME, auto_thread=True)
    expected = sample["event"]
    if expected is None:
        assert event is None
        return
    assert event is not None
    assert (event.text, event.chat_kind, event.to_us) == (expected["text"], expected["chat_kind"], expected["to_us"])
    assert event.address.thread == expected["thread"]
    assert (event.sender.name, event.sender.bot) == (expected["sender"], expected.get("bot", False))
    assert [[each.kind, each.name, each.media_type] for each in event.attachments] == expected.get("attachments", [])
    if "quoted" in expected:
        assert event.quoted is not None
        assert {"text": event.quoted.text, "ours": event.quoted.ours} == expected["quoted"]
    assert event.reply == ReplyRef(message_id=message.id)
    assert event.at == sent_at(message.id)


def test_there_are_samples() -> None:
    assert len(SAMPLES) >= 10


def test_what_a_webhook_says_is_said_by_a_program_whatever_its_author_says_of_itself() -> None:
    sample = json.loads((SAMPLES[0].parent / "webhook_with_embed.json").read_bytes())["message"]
    sample["author"] = {**sample["author"], "bot": False}
    event = message_event(msgspec.convert(sample, Message), Place(sample["channel_id"], 1), "a", ME)
    assert event is not None
    assert event.sender.bot


def test_an_edit_names_its_message_and_a_preview_is_none() -> None:
    sample = json.loads((SAMPLES[0].parent / "direct.json").read_bytes())["message"]
    place = Place(sample["channel_id"], 1)
    preview = msgspec.convert(sample, Message)
    assert message_event(preview, place, "a", ME, edited=True) is None
    edited = msgspec.convert(sample | {"edited_timestamp": "2026-03-01T12:00:05+00:00"}, Message)
    event = message_event(edited, place, "a", ME, edited=True)
    assert event is not None
    assert (event.kind, event.edits) == ("edited", sample["id"])
    assert event.id != sample["id"]  # each edit is an event of its own


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (f"<@{ME}> /new", "/new"),
        (f"<@!{ME}>: hi", "hi"),
        (f"hi <@{ME}>", "hi"),
        (f"ask <@{ME}> twice", f"ask @{ME} twice"),
        ("<a:dance:123456789012345678>", ":dance:"),
        ("<#1> <t:1> <x>", "<#1> <t:1> <x>"),
        (f"<@{ME}>", ""),
    ],
)
def test_the_words_are_read_as_a_person_reads_them(text: str, read: str) -> None:
    assert plain(text, (), ME) == read


@given(st.text(max_size=300))
def test_words_without_markup_stay_as_they_are(text: str) -> None:
    if "<" not in text:
        assert plain(text, (), ME) == text.strip()


def interaction(kind: int, data: Any, **more: Any) -> Interaction:
    whole = {
        "id": "1290000000000000001", "application_id": ME, "type": kind, "token": "t", "channel_id": "7", "data": data,
        "user": {"id": "8", "username": "nelly"},
    } | more  # fmt: skip
    return msgspec.convert(whole, Interaction)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"name": "stop"}, "/stop"),
        ({"name": "model", "options": [{"name": "arguments", "type": 3, "value": "gpt 5"}]}, "/model gpt 5"),
        ({"name": "x", "options": [{"name": "add", "type": 1, "options": [{"name": "n", "value": 3}]}]}, "/x add n:3"),
    ],
)
def test_a_command_is_what_would_have_been_typed(data: Any, text: str) -> None:
    event = interaction_event(interaction(2, data), Place("7", 1), "a")
    assert event is not None
    assert (event.text, event.to_us, event.kind) == (text, True, "message")
    assert event.reply == ReplyRef(token="t", until=sent_at("1290000000000000001") + 900)


def test_other_interactions_are_nothing_to_us() -> None:
    for each in (
        interaction(1, None),
        interaction(3, {"custom_id": "x"}),
        interaction(4, {"name": "stop"}),
        interaction(2, {"name": "x"}, user=None),
    ):
        assert interaction_event(each, Place("7", 1), "a") is None


def test_commands_are_registered_within_the_services_bounds() -> None:
    commands = tuple(CommandSpec(name=f"c{number}", help="h" * 300, arguments="a\nb" * 99) for number in range(120))
    body = registration(commands)
    assert len(body) == 100
    assert all(1 <= len(each["description"]) <= 100 for each in body)
    assert all(1 <= len(each["options"][0]["description"]) <= 100 for each in body)
    assert digest("1", body) != digest("2", body) != digest("1", body[1:])


@pytest.mark.parametrize(
    ("kind", "chat", "thread"),
    [(0, "5", None), (5, "5", None), (1, "5", None), (10, "9", "5"), (11, "9", "5"), (12, "9", "5")],
)
def test_only_a_thread_is_below_another_channel(kind: int, chat: str, thread: str | None) -> None:
    """The parent of an ordinary channel is its category, where nobody can write."""
    place = place_of(Channel(id="5", type=kind, parent_id="9"))
    assert place.address("a") == Address("a", chat, thread)
    assert place.threadable == (kind in (0, 5))


def test_places_are_bounded_and_the_latest_stay() -> None:
    places = Places()
    for number in range(MAX_PLACES + 10):
        places.note(Channel(id=str(number), type=0))
    assert places.get("0") is None
    assert places.get(str(MAX_PLACES + 9)) is not None
