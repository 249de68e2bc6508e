"""Updates of Telegram as events: samples of what the service sends, and whatever else may come."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes.events import InboundEvent
from hermes.inbound import BadEvent, check_event
from platforms.telegram.reading import read
from platforms.telegram.translate import UPDATES, NoEvent, translate
from platforms.telegram.words import Me, units

ME = Me(id=42, username="our_bot", commands=frozenset({"new", "stop"}))
ANNA = {
    "id": 7,
    "is_bot": False,
    "first_name": "Anna",
    "last_name": "B\n[x]",
    "username": "anna",
    "language_code": "en",
}
US = {"id": 42, "is_bot": True, "first_name": "Hermes", "username": "our_bot"}
DM = {"id": 7, "first_name": "Anna", "type": "private"}
ROOM = {"id": -1001, "title": "Room", "type": "supergroup"}
FORUM = {**ROOM, "is_forum": True}


def message(**fields: Any) -> dict[str, Any]:
    return {"message_id": 5, "from": ANNA, "chat": DM, "date": 1_700_000_000, **fields}


def event(kind: str = "message", **fields: Any) -> InboundEvent:
    found = translate({"update_id": 1, kind: message(**fields)}, account="telegram", me=ME)
    assert found is not None
    check_event(found, "telegram")
    return found


def test_a_direct_message() -> None:
    found = event(text="hello")
    assert (found.id, found.text, found.chat_kind, found.to_us, found.at) == (
        f"{ME.id}.5",
        "hello",
        "dm",
        True,
        1_700_000_000.0,
    )
    assert (str(found.address), found.sender.id, found.sender.bot) == ("telegram:7", "7", False)
    assert found.reply is not None
    assert found.reply.message_id == "5"
    assert found.key == f"telegram/7/message/{ME.id}.5"


@pytest.mark.parametrize(
    ("fields", "to_us"),
    [
        ({"text": "hello all"}, False),
        ({"text": "😀 @Our_Bot hi", "entities": [{"type": "mention", "offset": 3, "length": 8}]}, True),
        ({"text": "@our_bot2", "entities": [{"type": "mention", "offset": 0, "length": 9}]}, False),
        ({"text": "you", "entities": [{"type": "text_mention", "offset": 0, "length": 3, "user": US}]}, True),
        ({"text": "yes", "reply_to_message": {"message_id": 3, "from": US, "chat": ROOM, "date": 1, "text": "?"}}, True),
        ({"text": "yes", "reply_to_message": {"message_id": 3, "from": ANNA, "chat": ROOM, "date": 1, "text": "?"}}, False),
        ({"text": "/new"}, True),
        ({"text": "/new@our_bot now"}, True),
        ({"text": "/new@our_bot\nand words below"}, True),
        ({"text": "/new@other_bot"}, False),
        ({"text": "/roll"}, False),
        ({"text": "/usr/bin/env"}, False),
        ({"text": "/newer"}, False),
        ({"text": "/new/old"}, False),
        ({"text": "/new@other_bot", "reply_to_message": {"message_id": 3, "from": US, "chat": ROOM, "date": 1, "text": "?"}}, False),
        ({"caption": "@our_bot", "caption_entities": [{"type": "mention", "offset": 0, "length": 8}],
          "photo": [{"file_id": "p", "width": 1, "height": 1}]}, True),
        ({"text": "x", "entities": [{"type": "mention", "offset": -1, "length": 99}, "nonsense", None]}, False),
    ],
)  # fmt: skip
def test_who_is_spoken_to_in_a_group(fields: dict[str, Any], to_us: bool) -> None:
    assert event(chat=ROOM, **fields).to_us is to_us


def test_our_name_is_taken_off_a_command_and_no_other() -> None:
    assert event(chat=ROOM, text="/new@our_bot now").text == "/new now"
    assert event(chat=ROOM, text="/new@other_bot").text == "/new@other_bot"


def test_what_people_write_to_a_channel_is_a_thread_of_its_own() -> None:
    direct = {"id": -1002, "title": "News", "type": "supergroup", "is_direct_messages": True}
    found = event(chat=direct, text="x", direct_messages_topic={"topic_id": 77, "user": ANNA})
    assert str(found.address) == "telegram:-1002:dm77"


def test_topics_are_threads_and_threads_of_answers_are_not() -> None:
    assert event(chat=FORUM, text="x", message_thread_id=9, is_topic_message=True).address.thread == "9"
    assert event(chat=ROOM, text="x", message_thread_id=9).address.thread is None
    assert event(text="x", message_thread_id=9, is_topic_message=True).address.thread == "9"


def test_what_opened_a_topic_is_no_quote() -> None:
    opened = {"message_id": 9, "from": US, "chat": FORUM, "date": 1, "forum_topic_created": {"name": "t"}}
    found = event(chat=FORUM, text="x", message_thread_id=9, is_topic_message=True, reply_to_message=opened)
    assert found.quoted is None
    assert not found.to_us


def test_a_quote_is_the_part_that_was_chosen() -> None:
    answered = {"message_id": 3, "from": US, "chat": DM, "date": 1, "text": "one two three"}
    quoted = event(text="which?", reply_to_message=answered, quote={"text": "two", "position": 4}).quoted
    assert quoted is not None
    assert (quoted.text, quoted.ours, quoted.message_id) == ("two", True, "3")


def test_a_quote_of_another_chat_is_kept() -> None:
    quoted = event(text="?", external_reply={"message_id": 9, "origin": {}}, quote={"text": "there"}).quoted
    assert quoted is not None
    assert (quoted.text, quoted.ours, quoted.message_id) == ("there", False, "9")
    assert event(text="?", external_reply={"origin": {}}, quote={"text": "there"}).quoted is None


def test_a_channel_and_an_anonymous_administrator_speak_as_their_chat() -> None:
    channel = {"id": -1009, "title": "News", "type": "channel"}
    post = {"message_id": 5, "chat": channel, "sender_chat": channel, "date": 1, "text": "hear"}
    found = translate({"update_id": 1, "channel_post": post}, account="a", me=ME)
    assert found is not None
    assert (found.chat_kind, found.sender.id, found.sender.bot) == ("channel", "-1009", False)
    anonymous = {"id": 1087968824, "is_bot": True, "first_name": "Group", "username": "GroupAnonymousBot"}
    assert event(chat=ROOM, text="x", **{"from": anonymous, "sender_chat": ROOM}).sender.id == "-1001"


def test_an_edit_names_what_it_changes_and_each_edit_is_an_event() -> None:
    edits = [{"update_id": n, "edited_message": message(text=text, edit_date=10)} for n, text in ((1, "a"), (2, "b"))]
    first, second, again = (translate(each, account="telegram", me=ME) for each in (*edits, edits[0]))
    assert first is not None
    assert second is not None
    assert (first.kind, first.edits, first.text, second.text) == ("edited", f"{ME.id}.5", "a", "b")
    assert first.key != second.key
    assert first == again


def test_who_shares_a_way_is_heard_once() -> None:
    place = {"location": {"latitude": 1, "longitude": 2, "live_period": 60}}
    assert event(**place).text == "[location: 1, 2]"
    moved = {"update_id": 1, "edited_message": message(**place, edit_date=10)}
    assert translate(moved, account="a", me=ME) is None


@pytest.mark.parametrize(
    ("fields", "kind", "ref", "media_type"),
    [
        ({"photo": [{"file_id": "s", "width": 9, "height": 9}, {"file_id": "l", "width": 90, "height": 90}]},
         "image", "l", "image/jpeg"),
        ({"voice": {"file_id": "v", "duration": 1, "mime_type": "audio/ogg"}}, "voice", "v", "audio/ogg"),
        ({"audio": {"file_id": "a", "duration": 1, "mime_type": "audio/mpeg"}}, "audio", "a", "audio/mpeg"),
        ({"video": {"file_id": "v", "width": 1, "height": 1, "duration": 1}}, "video", "v", "video/mp4"),
        ({"video_note": {"file_id": "n", "length": 1, "duration": 1}}, "video", "n", "video/mp4"),
        ({"animation": {"file_id": "g"}, "document": {"file_id": "g"}}, "video", "g", "video/mp4"),
        ({"document": {"file_id": "d", "file_name": "a.pdf", "mime_type": "application/pdf", "file_size": 10}},
         "document", "d", "application/pdf"),
        ({"sticker": {"file_id": "t", "emoji": "👍"}}, "sticker", "t", "image/webp"),
        ({"sticker": {"file_id": "t", "is_animated": True}}, "sticker", "t", "application/x-tgsticker"),
        ({"sticker": {"file_id": "t", "is_video": True}}, "sticker", "t", "video/webm"),
    ],
)  # fmt: skip
def test_files(fields: dict[str, Any], kind: str, ref: str, media_type: str) -> None:
    (file,) = event(**fields, media_group_id="g1").attachments
    assert (file.kind, file.ref, file.media_type) == (kind, ref, media_type)
    assert event(**fields, media_group_id="g1").album == "g1"


def test_a_file_that_lies_about_its_size_has_none() -> None:
    (file,) = event(document={"file_id": "d", "file_size": -5, "file_name": 7, "mime_type": None}).attachments
    assert (file.size_bytes, file.name, file.media_type) == (None, "", "")


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"location": {"latitude": 52.1, "longitude": 13.2}}, "[location: 52.1, 13.2]"),
        ({"contact": {"first_name": "Bo", "phone_number": "+1"}}, "[contact: Bo +1]"),
        ({"contact": {"first_name": "Bo]\n[x", "phone_number": {}}}, "[contact: Bo) (x ]"),
        ({"poll": {"question": "which?"}}, "[poll: which?]"),
        ({"poll": {"question": "which?", "options": [{"text": "a"}, "b", {"text": "c"}]}}, "[poll: which?; a; c]"),
        ({"checklist": {"title": "buy", "tasks": [{"id": 1, "text": "milk"}]}}, "[checklist: buy; milk]"),
        (
            {
                "venue": {"title": "Bar", "address": "Here 1", "location": {"latitude": 1, "longitude": 2}},
                "location": {},
            },
            "[place: Bar, Here 1; 1, 2]",
        ),
        ({"dice": {"emoji": "🎲", "value": 6}}, "[🎲 6]"),
        ({"story": {"id": 1}}, "[a story, which bots cannot see]"),
        ({"sticker": {"file_id": "t", "emoji": "👍"}}, "👍"),
        (
            {"text": "x", "forward_origin": {"type": "user", "sender_user": {"first_name": "C]\nD"}}},
            "[forwarded from C) D] x",
        ),
    ],
)
def test_what_has_no_words_of_its_own(fields: dict[str, Any], text: str) -> None:
    assert event(**fields).text == text


def test_a_button_is_an_event_of_whoever_pressed_it() -> None:
    query = {"id": "77", "from": ANNA, "message": message(**{"from": US}, chat=ROOM), "data": "yes"}
    found = translate({"update_id": 1, "callback_query": query}, account="a", me=ME)
    assert found is not None
    assert (found.kind, found.text, found.sender.id, found.to_us) == ("button", "yes", "7", True)


def test_a_group_that_becomes_a_supergroup_has_moved() -> None:
    found = event(chat={"id": -5, "type": "group", "title": "Room"}, migrate_to_chat_id=-1005)
    assert (found.kind, found.text, found.address.chat) == ("moved", "-1005", "-5")


def test_a_text_at_the_limit_goes_on() -> None:
    assert event(text="😀" * 2000).continues
    assert not event(text="x" * 3999).continues


@pytest.mark.parametrize(
    "update",
    [
        {"update_id": 1, "message": {"message_id": 5, "chat": ROOM, "from": ANNA, "new_chat_members": [ANNA]}},
        {"update_id": 1, "poll_answer": {}},
        {"update_id": 1},
    ],
)
def test_what_concerns_nobody_is_no_event(update: dict[str, Any]) -> None:
    assert translate(update, account="a", me=ME) is None


def test_a_malformed_update_is_passed_over_and_the_offset_moves_beyond_it() -> None:
    updates = [
        {"update_id": 10, "message": {"chat": 5}},
        "nonsense",
        {"message": message(text="no number")},
        {"update_id": True},
        {"update_id": 12, "message": message(text="good")},
    ]
    events, last, bad = read(updates, account="telegram", me=ME)
    assert [each.text for each in events] == ["good"]
    assert last == 12
    assert [sample for _, sample in bad] == updates[:4]
    assert read(["nonsense"], account="telegram", me=ME) == ([], None, [("it has no number", "nonsense")])


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(list(message()) + list(ANNA)), inner, max_size=4)
    ),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    [
        "message_id",
        "from",
        "chat",
        "date",
        "text",
        "caption",
        "entities",
        "caption_entities",
        "photo",
        "document",
        "sticker",
        "reply_to_message",
        "quote",
        "location",
        "venue",
        "contact",
        "poll",
        "dice",
        "forward_origin",
        "sender_chat",
        "message_thread_id",
        "is_topic_message",
        "media_group_id",
        "migrate_to_chat_id",
        "edit_date",
    ]
)


@given(st.sampled_from(UPDATES), st.dictionaries(FIELDS, ANYTHING, max_size=6))
def test_whatever_comes_is_an_event_or_is_none(kind: str, fields: dict[str, Any]) -> None:
    try:
        found = translate({"update_id": 1, kind: {**message(), **fields}}, account="telegram", me=ME)
    except NoEvent:
        return
    if found is not None:
        try:
            check_event(found, "telegram")
        except BadEvent:
            return
        assert found.id
        assert translate({"update_id": 1, kind: {**message(), **fields}}, account="telegram", me=ME) == found


@given(st.text())
def test_length_is_counted_as_the_service_counts(text: str) -> None:
    assert units(text) == len(text.encode("utf-16-le", "surrogatepass")) // 2
