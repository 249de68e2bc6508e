"""Slack's envelopes as events, from samples of what the service sends, and from anything else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes.commands import NAMES
from hermes.errors import SendRejected
from hermes.events import InboundEvent, ReplyRef
from hermes.platform import Secret
from platforms.slack.api import Token
from platforms.slack.cursors import MAX_BYTES, Newest, Read, thread_key
from platforms.slack.translate import View, commanded, happened, pressed
from platforms.slack.wire import Envelope, decode_callback, decode_command, decode_envelope, decode_interaction
from platforms.slack.words import command, mentioned, plain, slash
from platforms.slack.workspaces import Workspace, Workspaces, is_stamp

SAMPLES = sorted((Path(__file__).parents[1] / "samples" / "slack").glob("*.json"))
TOKEN = Token(Secret("xoxb-x"), "bot_token")
SPACE = Workspace(id="T0HERMES", name="Hermes", token=TOKEN, user="U0HERMES", bot="B0HERMES", home=True)
OTHER = Workspace(id="T0OTHER", name="Other", token=TOKEN, user="U0US", bot="B0US")
VIEW = View(account="slack", commands=frozenset(NAMES), names={"U0ALICE": "Alice"})
NOW = 1_700_000_000.0


def translated(envelope: Envelope, space: Workspace = SPACE, view: View = VIEW) -> InboundEvent | None:
    if envelope.type == "events_api":
        return happened(decode_callback(envelope.payload), space, view)
    if envelope.type == "slash_commands":
        return commanded(decode_command(envelope.payload), space, view, NOW)
    return pressed(decode_interaction(envelope.payload), space, view)


def sample(name: str) -> Envelope:
    return decode_envelope((SAMPLES[0].parent / f"{name}.json").read_bytes())


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_is_translated(path: Path) -> None:
    expected = json.loads(path.read_bytes())["event"]
    event = translated(decode_envelope(path.read_bytes()))
    if expected is None:
        assert event is None
        return
    assert event is not None
    assert {
        "chat": event.address.chat,
        "thread": event.address.thread,
        "text": event.text,
        "kind": event.kind,
        "to_us": event.to_us,
        "chat_kind": event.chat_kind,
        "sender": event.sender.name,
        "bot": event.sender.bot,
        "id": event.id,
        "attachments": [[each.kind, each.name, each.media_type] for each in event.attachments],
        "edits": event.edits,
    } == expected


def test_there_are_samples() -> None:
    assert len(SAMPLES) >= 25


def test_a_mention_that_comes_as_two_events_is_one() -> None:
    one, other = translated(sample("mention_in_channel")), translated(sample("mention_as_app_mention"))
    assert one is not None
    assert one == other


def test_ids_of_another_workspace_name_it() -> None:
    event = translated(sample("reply_in_a_thread_of_others"), OTHER)
    assert event is not None
    assert (event.address.chat, event.sender.id) == ("T0OTHER/C02NDBPP4E8", "T0OTHER/U0ALICE")
    assert event.address.thread == "1652635000.000100"
    file = translated(sample("file_share"), OTHER)
    assert file is not None
    assert file.attachments[0].ref == "T0OTHER/F05ABCDEF12"
    spaces = Workspaces([SPACE, OTHER])
    assert spaces.locate("T0OTHER/C1") == (OTHER, "C1")
    assert spaces.locate("C1") == (SPACE, "C1")
    assert (spaces.of("T0OTHER"), spaces.of("T0NOBODY"), spaces.of(None)) == (OTHER, None, None)
    assert Workspaces([SPACE]).of("T0ANY") is SPACE
    for bad in ("", "c1", "C/../x", "T0NOBODY/C1", "C1\n", "Ä1"):
        with pytest.raises(SendRejected):
            spaces.locate(bad)


def test_a_thread_that_is_followed_needs_no_more_mentions_until_somebody_else_is_named() -> None:
    follows = View(account="slack", follows=lambda chat, thread: (chat, thread) == ("C02NDBPP4E8", "1652635000.000100"))
    assert not _said("I think", "1652635000.000100", VIEW).to_us
    assert _said("I think", "1652635000.000100", follows).to_us
    assert not _said("I think", "1652635000.000200", follows).to_us
    assert not _said("<@U0BOB> you?", "1652635000.000100", follows).to_us
    assert _said("<@U0BOB> or <@U0HERMES>?", "1652635000.000200", follows).to_us


def _said(text: str, thread: str, view: View) -> InboundEvent:
    tree = json.loads((SAMPLES[0].parent / "thread_broadcast.json").read_bytes())
    tree["payload"]["event"] |= {"text": text, "thread_ts": thread}
    event = translated(decode_envelope(json.dumps(tree).encode()), view=view)
    assert event is not None
    return event


def test_without_threads_of_its_own_a_mention_is_answered_in_the_channel() -> None:
    event = translated(sample("mention_in_channel"), view=View(account="slack", thread_replies=False))
    assert event is not None
    assert (event.to_us, event.address.thread) == (True, None)


def test_a_command_may_be_answered_by_its_url_for_half_an_hour() -> None:
    event = translated(sample("slash_command"))
    assert event is not None
    assert event.reply == ReplyRef(token="https://hooks.slack.com/commands/T0HERMES/1/abc", until=NOW + 1700)


def test_a_button_of_a_message_that_one_person_alone_sees_can_be_answered_there() -> None:
    tree = json.loads((SAMPLES[0].parent / "button.json").read_bytes())
    seen = translated(decode_envelope(json.dumps(tree).encode()))
    del tree["payload"]["message"]
    event = translated(decode_envelope(json.dumps(tree).encode()))
    assert event == seen
    assert event is not None
    assert event.reply is not None
    assert event.reply.token == tree["payload"]["response_url"]
    assert event.reply.until == float(tree["payload"]["actions"][0]["action_ts"]) + 1700


def test_a_button_that_carries_too_much_is_none() -> None:
    tree = json.loads((SAMPLES[0].parent / "button.json").read_bytes())
    tree["payload"]["actions"][0]["value"] = "ä" * 33
    assert translated(decode_envelope(json.dumps(tree).encode())) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<@U0HERMES>", ""),
        ("<@U0HERMES>: <@U0HERMES|hermes>, hello <@U0HERMES>", "hello"),
        ("hello <@U0HERMES> there", "hello @U0HERMES there"),
        ("<https://e.org|https://e.org> <http://e.org|e.org> <https://e.org/|a b>", "https://e.org http://e.org a b (https://e.org/)"),
        ("<!date^1392734382^{date}|Feb 18>, <!subteam^S1>", "Feb 18, @subteam"),
        ("&amp;lt; a &lt;b&gt;", "&lt; a <b>"),
        ("a <b", "a <b"),
        ("<>", ""),
    ],
)  # fmt: skip
def test_words(text: str, words: str) -> None:
    assert plain(text, "U0HERMES", {}) == words


def test_commands_in_their_three_forms() -> None:
    assert command("!stop", NAMES) == "/stop"
    assert command("!Queue say this", NAMES) == "/Queue say this"
    assert command("!nonsense", NAMES) == "!nonsense"
    assert command("no !stop", NAMES) == "no !stop"
    for name, text, typed in (
        ("/hermes-stop", "", "/stop"),
        ("/stop", "", "/stop"),
        ("/mybot-queue", "a b", "/queue a b"),
        ("/hermes", "new title", "/new title"),
        ("/hermes", "/new title", "/new title"),
        ("/hermes", "write a poem", "write a poem"),
        ("/hermes", "  ", "/help"),
    ):
        assert slash(name, text, NAMES) == typed


@given(st.text(st.sampled_from("<>@!#|&;ampltgU0A* \n^C1"), max_size=60))
def test_any_text_is_words(text: str) -> None:
    found = plain(text, "U0A", {"U0A": "<@U0A>"})
    assert len(found) <= 3 * len(text) + 60
    assert all(len(each) <= 40 for each in mentioned(text))


# --- how far was read


STAMPS = st.integers(0, 10**16).map(lambda n: f"{n // 1_000_000}.{n % 1_000_000:06d}")
PLACES = st.sampled_from([f"C{number:09d}" for number in range(300)] + [f"T0/C{n}:1.000000" for n in range(100)])


@given(st.lists(st.tuples(PLACES, STAMPS), max_size=500))
def test_the_newest_are_kept_within_their_bound_and_read_as_they_were_written(noted: list[tuple[str, str]]) -> None:
    newest = Newest()
    for place, stamp in noted:
        newest.note(place, stamp)
    value = newest.write()
    assert len(value) <= MAX_BYTES
    again = Newest(value)
    assert again.write() == value
    assert again.places() == newest.places()
    if noted:
        last = noted[-1][0]
        assert newest.places()[0] == last
        assert (
            float(newest.of(last)) == max(float(stamp) for place, stamp in noted[-1:] if place == last)
            or len(noted) > 1
        )


def test_what_was_heard_never_goes_back() -> None:
    newest = Newest()
    newest.note("C1", "2.000000")
    newest.note("C1", "1.000000")
    assert (newest.of("C1"), newest.of("C2")) == ("2.000000", "0.000000")
    newest.forget("C1")
    newest.forget("C1")
    assert (len(newest), newest.write()) == (0, b"")


STEPS = st.lists(
    st.tuples(st.sampled_from(("heard", "begin", "read", "begins")), st.sampled_from(("C1", "C1:1.000000"))),
    max_size=30,
)


@given(STEPS)
def test_no_place_counts_as_read_beyond_what_is_still_to_be_read(steps: list[tuple[str, str]]) -> None:
    read, now = Read({}), 1
    read.heard("C1", "1.000000", unread=False)
    unread: dict[str, float] = {}  # place -> the stamp from which on it is to be read
    newest: dict[str, float] = {"C1": 1.0}
    for step, place in steps:
        now += 1
        stamp = f"{now}.000000"
        if step == "heard":
            read.heard(place, stamp, unread=place in unread)
            newest[place] = now
        elif step == "begin" and place in newest:
            unread.setdefault(place, float(read.table(place).of(place)))
        elif step == "read" and place in unread:
            del unread[place]
            read.caught_up(place)
        elif step == "begins" and place != "C1":  # the history of the channel shows where the thread begins
            read.go_back(place, "1.000000")
            unread[place] = 1.0
            newest.setdefault(place, 1.0)
        for each, since in unread.items():
            assert float(read.table(each).of(each)) <= since
    for place, last in newest.items():
        read.caught_up(place)
        assert float(read.table(place).of(place)) <= last
    assert float(read.table("C1").of("C1")) == newest["C1"]


@given(st.binary(max_size=200))
def test_a_cursor_that_is_none_is_nothing(value: bytes) -> None:
    read = Read({"channels": value, "threads": value})
    assert all(len(each) <= MAX_BYTES for each in read.cursors().values())


def test_stamps_and_places() -> None:
    assert is_stamp("1652635099.971779")
    assert not any(map(is_stamp, (None, "", "1", "1.0", "a.000000", "1.00000a", "-1.000000", "1.000000\n")))
    assert thread_key("C1", "1.000000") == "C1:1.000000"


def test_what_cannot_be_an_id_is_not_decoded() -> None:
    tree: dict[str, Any] = json.loads((SAMPLES[0].parent / "direct.json").read_bytes())
    for name, bad in (("channel", "../x"), ("ts", "1"), ("user", "U1\n"), ("thread_ts", "x.000000"), ("text", 5)):
        changed = json.loads(json.dumps(tree))
        changed["payload"]["event"][name] = bad
        with pytest.raises(msgspec.DecodeError):
            decode_callback(decode_envelope(json.dumps(changed).encode()).payload)
