"""Where a service can be read back, a part in doubt is looked up before it is sent again."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from hermes.delivery.content import MARK
from hermes.errors import PlatformUnavailable, RateLimited, SendRejected, SendUncertain, Unreachable, WebSocketClosed
from hermes.events import Address
from hermes.platform import Capabilities
from hermes.testing.delivering import open_delivering
from hermes.testing.fake_platform import FakeConnections, FakePlatform, Mood, refuses, shows_and_raises

A = Address(account="one", chat="a")
FINDS = Capabilities(finds=True)
DOUBTS = (SendUncertain("cut"), Unreachable("cut", sent=True), WebSocketClosed(1006), RuntimeError("a bug"))


@pytest.fixture
def clock() -> MockClock:
    return MockClock(autojump_threshold=0)


@pytest.mark.parametrize("error", DOUBTS)
@pytest.mark.parametrize("shown", [True, False])
@pytest.mark.parametrize("ambiguous", ["resend_marked", "hold"])
async def test_what_is_found_is_sent_and_what_is_not_is_sent_again_without_a_mark(
    tmp_path: Path, clock: MockClock, error: Exception, shown: bool, ambiguous: str
) -> None:
    async with open_delivering(tmp_path, clock, capabilities=FINDS, ambiguous=ambiguous) as place:
        place.platform.next("a", shows_and_raises(error) if shown else refuses(error))
        await place.post("1", "2")
        await place.until("sent", "sent")
        assert place.platform.texts("a") == ["1", "2"]
        assert len(place.platform.asked("a", "send")) == (2 if shown else 3)
        assert len(place.platform.asked("a", "find")) == 1
        assert all(b'"message_id":"m' in receipt for (receipt,) in await place.rows("receipt"))


@pytest.mark.parametrize("error", [Unreachable("no", sent=True), PlatformUnavailable("502"), WebSocketClosed(1006)])
async def test_a_lookup_that_fails_is_made_again_and_spends_nothing(
    tmp_path: Path, clock: MockClock, error: Exception
) -> None:
    async with open_delivering(tmp_path, clock, capabilities=FINDS) as place:
        place.platform.next("a", shows_and_raises(SendUncertain("cut")), *[refuses(error)] * 5)
        await place.post("1")
        await place.until("sent")
        assert place.platform.texts("a") == ["1"]
        assert len(place.platform.asked("a", "find")) == 6
        assert await place.rows("attempts") == [(2,)]


async def test_a_limit_on_lookups_is_kept(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock, capabilities=FINDS) as place:
        limited = refuses(RateLimited("wait", retry_after_s=50.0))
        place.platform.next("a", shows_and_raises(SendUncertain("cut")), limited)
        await place.post("1")
        await place.until("sent")
        first, second = place.platform.asked("a", "find")
        assert second - first >= 50.0


@pytest.mark.parametrize("error", [SendUncertain("nobody knows"), SendRejected("may not read"), ValueError("a bug")])
async def test_where_it_cannot_be_told_the_setting_decides(tmp_path: Path, clock: MockClock, error: Exception) -> None:
    for name in ("marked", "held"):
        (tmp_path / name).mkdir()
    async with open_delivering(tmp_path / "marked", clock, capabilities=FINDS) as place:
        place.platform.next("a", shows_and_raises(SendUncertain("cut")), refuses(error))
        await place.post("1", "2")
        await place.until("sent", "sent")
        assert place.platform.texts("a") == ["1", f"{MARK}\n1", "2"]
    async with open_delivering(tmp_path / "held", clock, capabilities=FINDS, ambiguous="hold") as place:
        place.platform.next("a", shows_and_raises(SendUncertain("cut")), refuses(error))
        await place.post("1", "2")
        await place.until("held", "sent")
        assert (await place.rows("reason"))[0] == ("uncertain: it may have been shown",)


async def test_a_draft_in_doubt_that_is_found_is_brought_up_to_date(tmp_path: Path, clock: MockClock) -> None:
    can = Capabilities(finds=True, edits=True, drafts=True)
    async with open_delivering(tmp_path, clock, capabilities=can) as place:
        place.platform.next("a", shows_and_raises(SendUncertain("cut")))
        async with place.delivery.open_live(A, turn_id="turn") as live:
            live.update("half of it")
            while not place.platform.texts("a"):  # noqa: ASYNC110  # an observable fact
                await trio.sleep(0.05)
        await place.finish(A, "turn", "all of it")
        await place.until("sent")
        assert place.platform.texts("a") == ["all of it"]


async def test_a_process_that_died_while_it_sent_looks_at_the_next_start(tmp_path: Path, clock: MockClock) -> None:
    platform = FakePlatform(FINDS)
    async with open_delivering(tmp_path, clock, connections=FakeConnections(one=platform)) as place:
        platform.next("a", shows_and_raises(SendUncertain("cut")), refuses(PlatformUnavailable("later")))
        await place.post("1")
        await place.until("ambiguous")
    async with open_delivering(tmp_path, clock, connections=FakeConnections(one=platform)) as place:
        await place.until("sent")
        assert platform.texts("a") == ["1"]
        assert len(platform.asked("a", "send")) == 1


async def test_a_lookup_that_is_cut_leaves_the_doubt(tmp_path: Path, clock: MockClock) -> None:
    platform = FakePlatform(FINDS)
    async with open_delivering(tmp_path, clock, connections=FakeConnections(one=platform)) as place:
        platform.next("a", shows_and_raises(SendUncertain("cut")), Mood(gate=trio.Event(), shows=False))
        await place.post("1")
        while not platform.asked("a", "find"):  # noqa: ASYNC110  # an observable fact
            await trio.sleep(0.05)
    async with open_delivering(tmp_path, clock, connections=FakeConnections(one=platform)) as place:
        await place.until("sent")
        assert platform.texts("a") == ["1"]
        assert await place.rows("attempts") == [(2,)]
