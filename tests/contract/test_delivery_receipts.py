"""A message that waits has a reaction, and one that has ended has none; nothing waits for that, and nothing fails by it."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from hermes.delivery.receipts import CLOSE_S, EMOJI, FIRST_AFTER_S, LOOK_S, MAX_SIGNS, REQUEST_S
from hermes.errors import PlatformRefused, RateLimited, SendRejected, Unreachable
from hermes.events import Address
from hermes.intake import FINAL_ROW_STATES, RowState
from hermes.platform import Capabilities
from hermes.testing.delivering import Place, open_delivering
from hermes.testing.fake_platform import GOOD, FakeConnections, FakePlatform, Mood, refuses

REACTS = Capabilities(reactions=True, edits=True)
TWO = Address("two", "a")


@pytest.fixture
def clock() -> MockClock:
    return MockClock(autojump_threshold=0)


def asked(place: Place, chat: str = "a") -> list[tuple[str, str]]:
    """The requests for reactions: of which message, and which; empty = taken back."""
    return [
        (each.key, each.text) for each in place.platform.calls if each.method == "signal" and each.address.chat == chat
    ]


async def until_asked(place: Place, *wanted: tuple[str, str], chat: str = "a") -> None:
    while asked(place, chat) != list(wanted):  # noqa: ASYNC110  # an observable fact
        await trio.sleep(0.01)


@pytest.mark.parametrize("state", FINAL_ROW_STATES)
async def test_it_is_shown_while_a_message_waits_and_taken_back_whatever_its_end(
    tmp_path: Path, clock: MockClock, state: RowState
) -> None:
    async with open_delivering(tmp_path, clock, capabilities=REACTS, receipts="reaction") as place:
        await place.accept("m1")
        await until_asked(place, ("m1", EMOJI))
        assert trio.current_time() < 2 * FIRST_AFTER_S
        await trio.sleep(300)
        assert asked(place) == [("m1", EMOJI)]
        await place.end("m1", state=state)
        began = trio.current_time()
        await until_asked(place, ("m1", EMOJI), ("m1", ""))
        assert trio.current_time() - began < 1
        await trio.sleep(300)
        assert len(asked(place)) == 2


async def test_an_end_of_which_nobody_is_told_is_found(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock, capabilities=REACTS, receipts="reaction") as place:
        await place.accept("m1")
        await until_asked(place, ("m1", EMOJI))
        await place.store.database.write(lambda con: con.execute("UPDATE inbox SET state = 'refused'"))
        await trio.sleep(LOOK_S + 1)
        assert asked(place) == [("m1", EMOJI), ("m1", "")]


async def test_what_is_answered_at_once_has_none(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock, capabilities=REACTS, receipts="reaction") as place:
        await place.accept("m1")
        await place.end("m1")
        await trio.sleep(60)
        assert asked(place) == []


@pytest.mark.parametrize(("can", "receipts"), [(REACTS, "off"), (Capabilities(), "reaction")])
async def test_nothing_is_asked_where_it_is_off_and_where_the_service_has_none(
    tmp_path: Path, clock: MockClock, can: Capabilities, receipts: str
) -> None:
    async with open_delivering(tmp_path, clock, capabilities=can, receipts=receipts) as place:
        await place.accept("m1")
        await trio.sleep(60)
        await place.end("m1")
        await trio.sleep(60)
        assert asked(place) == []


async def test_a_reload_switches_it_on_and_off(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock, capabilities=REACTS) as place:
        await place.accept("m1")
        await trio.sleep(60)
        place.set(receipts="reaction")
        await place.accept("m2")
        await trio.sleep(5)
        assert asked(place) == [("m1", EMOJI), ("m2", EMOJI)]
        place.set(receipts="off")
        await trio.sleep(LOOK_S + 5)
        assert set(place.platform.reactions.values()) == {""}
        place.set(receipts="reaction")
        await place.accept("m3")
        await trio.sleep(5)
        assert set(place.platform.reactions.values()) == {EMOJI}


@pytest.mark.parametrize(
    ("mood", "requests"),
    [
        (refuses(SendRejected("REACTION_INVALID")), 1),
        (refuses(RateLimited("slow down", retry_after_s=3600, scope="account")), 1),
        (refuses(RateLimited("slow down", retry_after_s=3600, scope="chat")), 1),
        (refuses(PlatformRefused("no")), 1),
        (refuses(ZeroDivisionError("a bug")), 2),  # it may be shown, and is taken back
        (refuses(Unreachable("gone", sent=True)), 2),
        (Mood(gate=trio.Event(), shows=False), 2),
    ],
    ids=lambda each: type(each.raises).__name__ if isinstance(each, Mood) else None,
)
async def test_what_fails_or_hangs_is_dropped_and_delays_no_message(
    tmp_path: Path, clock: MockClock, mood: Mood, requests: int
) -> None:
    async with open_delivering(tmp_path, clock, capabilities=REACTS, receipts="reaction") as place:
        place.platform.mood = lambda call: mood if call.method == "signal" else GOOD
        await place.accept("m1")
        await until_asked(place, ("m1", EMOJI))
        await trio.sleep(0.1)
        began = trio.current_time()
        await place.post("an answer")
        await place.until_shown("an answer")
        assert trio.current_time() - began < 0.1
        await trio.sleep(REQUEST_S + 60)
        assert asked(place) == [("m1", EMOJI)]
        await place.end("m1")
        await trio.sleep(600)
        assert asked(place) == [("m1", EMOJI), ("m1", "")][:requests]


async def test_a_limit_pauses_reactions_alone(tmp_path: Path, clock: MockClock) -> None:
    limited = refuses(RateLimited("slow down", retry_after_s=20, scope="account"))
    async with open_delivering(tmp_path, clock, capabilities=REACTS, receipts="reaction") as place:
        moods = [limited]
        place.platform.mood = lambda call: moods.pop() if call.method == "signal" and moods else GOOD
        await place.accept("m1")
        await until_asked(place, ("m1", EMOJI))
        began = trio.current_time()
        await place.accept("m2")
        await place.post("one", at=Address("one", "b"))
        await place.until_shown("one", chat="b")
        assert trio.current_time() - began < 0.1
        await until_asked(place, ("m1", EMOJI), ("m2", EMOJI))
        assert trio.current_time() - began >= 19.9


async def test_one_request_at_a_time_in_a_chat_and_chats_do_not_wait_for_each_other(
    tmp_path: Path, clock: MockClock
) -> None:
    async with open_delivering(tmp_path, clock, capabilities=REACTS, receipts="reaction") as place:
        gate = trio.Event()
        place.platform.mood = lambda call: Mood(gate=gate) if call.address.chat == "a" else GOOD
        for name in ("m1", "m2", "m3"):
            await place.accept(name)
        await place.accept("m1", Address("one", "b", "topic"))
        await place.accept("m1", TWO)
        await until_asked(place, ("m1", EMOJI), chat="b")
        assert place.connections.platforms["two"].reactions == {("a", "m1"): EMOJI}
        assert asked(place) == [("m1", EMOJI)]
        gate.set()
        await until_asked(place, *((name, EMOJI) for name in ("m1", "m2", "m3")))
        assert place.platform.most_signals == 1


async def test_a_connection_that_is_gone_is_not_asked_and_later_everything_is_as_it_should_be(
    tmp_path: Path, clock: MockClock
) -> None:
    async with open_delivering(tmp_path, clock, capabilities=REACTS, receipts="reaction") as place:
        await place.accept("m1")
        await until_asked(place, ("m1", EMOJI))
        place.connections.down("one")
        await place.end("m1")
        await place.accept("m2")
        await trio.sleep(100)
        assert asked(place) == [("m1", EMOJI)]
        place.connections.back("one")
        await until_asked(place, ("m1", EMOJI), ("m1", ""), ("m2", EMOJI))
        place.connections.down("one")
        await place.end("m2")
        await trio.sleep(1000)  # nobody remembers it so long
        place.connections.back("one")
        await trio.sleep(100)
        assert len(asked(place)) == 3


async def test_the_next_start_takes_back_what_the_one_before_has_shown(tmp_path: Path, clock: MockClock) -> None:
    connections = FakeConnections(one=FakePlatform(REACTS))
    async with open_delivering(tmp_path, clock, connections=connections, receipts="reaction") as place:
        await place.accept("m1")
        await place.accept("m2")
        await until_asked(place, ("m1", EMOJI), ("m2", EMOJI))
    assert len(asked(place)) == 2  # they wait still
    async with open_delivering(tmp_path, clock, connections=connections, receipts="reaction") as place:
        await trio.sleep(0.1)
        await place.end("m1")
        await trio.sleep(5)
        assert connections.platforms["one"].reactions == {("a", "m1"): "", ("a", "m2"): EMOJI}
    connections.down("one")
    async with open_delivering(tmp_path, clock, connections=connections, receipts="reaction") as place:
        await place.end("m2")  # before this process could show it
        await trio.sleep(5)
        connections.back("one")
        await trio.sleep(LOOK_S + 5)
        assert set(connections.platforms["one"].reactions.values()) == {""}


@pytest.mark.parametrize("hangs", [False, True])
async def test_the_exit_takes_back_what_has_ended_within_a_bound(tmp_path: Path, clock: MockClock, hangs: bool) -> None:
    async with open_delivering(tmp_path, clock, capabilities=REACTS, receipts="reaction", flush_s=60) as place:
        await place.accept("m1")
        await place.accept("m2")
        await until_asked(place, ("m1", EMOJI), ("m2", EMOJI))
        if hangs:
            place.platform.mood = lambda _: Mood(gate=trio.Event())
        await place.end("m2")
        began = trio.current_time()
    assert asked(place)[2:] == [("m2", "")]
    assert trio.current_time() - began <= (CLOSE_S + 0.1 if hangs else 1)


async def test_of_very_many_the_first_have_one(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock, capabilities=REACTS, receipts="reaction") as place:
        for number in range(MAX_SIGNS + 5):
            await place.accept(str(number), Address("one", str(number)))
        await trio.sleep(300)
        assert len(place.platform.reactions) == MAX_SIGNS
        for number in range(10):
            await place.end(str(number), Address("one", str(number)))
        await trio.sleep(300)
        assert sum(each == EMOJI for each in place.platform.reactions.values()) == MAX_SIGNS - 5
