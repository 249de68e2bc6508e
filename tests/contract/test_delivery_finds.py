"""A service that can be asked what it shows: nothing is sent again that is there, and what is not there is sent unmarked."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from hermes.delivery.content import MARK
from hermes.errors import PlatformUnavailable, SendUncertain
from hermes.platform import Capabilities
from hermes.testing.delivering import EPOCH, Place, open_delivering
from hermes.testing.fake_platform import FakeConnections, FakePlatform, refuses, shows_and_raises

FINDS = Capabilities(finds=True)
CUT = SendUncertain("cut")


@pytest.fixture
def clock() -> MockClock:
    return MockClock(autojump_threshold=0)


def methods(place: Place) -> list[str]:
    return [each.method for each in place.platform.calls]


@pytest.mark.parametrize("ambiguous", ["resend_marked", "hold"])
async def test_what_is_shown_is_found_and_not_sent_again(tmp_path: Path, clock: MockClock, ambiguous: str) -> None:
    async with open_delivering(tmp_path, clock, capabilities=FINDS, ambiguous=ambiguous) as place:
        place.platform.next("a", shows_and_raises(CUT))
        await place.post("1")
        await place.until("sent")
        assert place.platform.texts("a") == ["1"]
        assert methods(place) == ["send", "find"]
        ((receipt,),) = await place.rows("receipt")
        assert b'"message_id":"m1"' in receipt


@pytest.mark.parametrize("ambiguous", ["resend_marked", "hold"])
async def test_what_is_not_there_is_sent_without_a_mark(tmp_path: Path, clock: MockClock, ambiguous: str) -> None:
    async with open_delivering(tmp_path, clock, capabilities=FINDS, ambiguous=ambiguous) as place:
        place.platform.next("a", refuses(CUT))
        await place.post("1")
        await place.until("sent")
        assert place.platform.texts("a") == ["1"]
        assert methods(place) == ["send", "find", "send"]
        assert len({each.key for each in place.platform.calls}) == 1


async def test_where_nobody_can_tell_it_is_sent_with_its_mark(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock, capabilities=FINDS) as place:
        place.platform.next("a", shows_and_raises(CUT), refuses(SendUncertain("the folder is gone")))
        await place.post("1")
        await place.until("sent")
        assert place.platform.texts("a") == ["1", f"{MARK}\n1"]


async def test_where_nobody_can_tell_it_is_held_if_that_is_wanted(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock, capabilities=FINDS, ambiguous="hold") as place:
        place.platform.next("a", refuses(CUT), refuses(SendUncertain("the folder is gone")))
        await place.post("1")
        await place.until("held")
        ((_, reason),) = await place.rows()
        assert "the folder is gone" in reason


async def test_a_service_that_cannot_be_asked_now_is_asked_again(tmp_path: Path, clock: MockClock) -> None:
    async with open_delivering(tmp_path, clock, capabilities=FINDS) as place:
        moods = [shows_and_raises(CUT), *[refuses(PlatformUnavailable("502"))] * 3]
        place.platform.next("a", *moods)
        await place.post("1")
        await place.until("sent")
        assert place.platform.texts("a") == ["1"]
        assert methods(place) == ["send", "find", "find", "find", "find"]


class Asked(FakePlatform):
    """Remembers the times that it was asked about."""

    since: float | None = None

    async def find(self, to, *, key, since):  # type: ignore[no-untyped-def]
        self.since = since
        return await super().find(to, key=key, since=since)


async def test_it_is_asked_from_the_first_attempt_in_doubt(tmp_path: Path, clock: MockClock) -> None:
    platform = Asked(FINDS)
    connections = FakeConnections(one=platform, two=FakePlatform())
    async with open_delivering(tmp_path, clock, connections=connections) as place:
        await trio.sleep(50)
        platform.next("a", refuses(CUT), refuses(PlatformUnavailable("502", retry_after_s=30)))
        await place.post("1")
        await place.until("sent")
        assert platform.since is not None
        assert platform.since - EPOCH == pytest.approx(50, abs=1)
        assert trio.current_time() > 80
