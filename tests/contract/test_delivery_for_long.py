"""What a gateway that runs for months meets."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from hermes.delivery.content import MARK
from hermes.delivery.lane import SEND_S
from hermes.errors import AddressGone, PlatformUnavailable, SendRejected, SendUncertain
from hermes.events import Address, Content, Receipt, ReplyRef
from hermes.platform import Capabilities
from hermes.settings import RetentionConfig
from hermes.store import addresses, retention
from hermes.store.outbox import DEDUPLICATED_S
from hermes.testing.delivering import A, open_delivering
from hermes.testing.fake_platform import GOOD, FakeConnections, FakePlatform, Mood, refuses, shows_and_raises

B = Address(account="one", chat="b")


@pytest.fixture
def clock() -> MockClock:
    return MockClock(autojump_threshold=0)


@pytest.mark.parametrize("error", [SendRejected("no: \udcff"), AddressGone("left \ud83d"), SendUncertain("cut \udcff")])
async def test_words_that_cannot_be_stored_end_no_process(tmp_path: Path, clock: MockClock, error: Exception) -> None:
    async with open_delivering(tmp_path, clock, ambiguous="hold") as place:
        place.platform.next("a", refuses(error))
        await place.post("1")
        await place.post("2", at=B)
        await place.until_shown("2", chat="b")
        await place.until("held" if isinstance(error, SendUncertain) else "rejected", "sent")
        ((reason,), _) = await place.rows("reason")
        assert reason.isprintable()


async def test_a_send_that_never_ends_is_in_doubt_after_a_while_and_holds_nothing(
    tmp_path: Path, clock: MockClock
) -> None:
    async with open_delivering(tmp_path, clock) as place:
        place.platform.next("a", Mood(gate=trio.Event()))
        await place.post("1")
        await place.post("2")
        await place.until("sent", "sent")
        assert SEND_S <= trio.current_time() < SEND_S + 120
        assert place.platform.texts("a") == ["1", f"{MARK}\n1", "2"]  # it had been shown, who could know


async def test_an_address_that_is_written_to_each_day_is_tried_again_after_a_month(
    tmp_path: Path, clock: MockClock
) -> None:
    day = 86_400.0
    async with open_delivering(tmp_path, clock, sweep_s=day) as place:
        place.platform.next("a", refuses(AddressGone("the bot was blocked")))
        for number in range(int(addresses.GONE_KEPT_S / day) + 2):
            await place.post(str(number))
            now = place.store.clock()
            await place.store.database.write(lambda con, now=now: retention.sweep(con, RetentionConfig(), now))
            await trio.sleep(day)
        assert place.platform.texts("a"), "nobody ever looked whether somebody is there again"


class Nonsense(FakePlatform):
    """A service whose ids cannot be written down."""

    async def send(self, to: Address, content: Content, *, key: str, reply: ReplyRef | None) -> Receipt:
        """Show a message."""
        shown = await super().send(to, content, key=key, reply=reply)
        return Receipt(message_id=f"{shown.message_id}\ud83d", address=to)


async def test_a_receipt_that_cannot_be_stored_ends_no_process(tmp_path: Path, clock: MockClock) -> None:
    can = Capabilities(edits=True, drafts=True)
    connections = FakeConnections(one=Nonsense(can))
    async with open_delivering(tmp_path, clock, connections=connections) as place:
        await place.post("1")
        await place.until("sent")
        async with place.delivery.open_live(A, turn_id="turn") as live:
            live.update("so far")
            await place.until_shown("1", "so far")
        await place.finish(A, "turn", "whole")
        await place.until("sent", "sent")
        assert place.platform.texts("a")[-1].endswith("whole")


async def test_a_clock_that_is_set_back_makes_no_unmarked_repeat(tmp_path: Path, clock: MockClock) -> None:
    """What was tried tomorrow may be long ago: the service may have forgotten its key."""
    can = Capabilities(deduplicates=True)
    async with open_delivering(tmp_path, clock, capabilities=can) as place:
        place.platform.next("a", shows_and_raises(SendUncertain("cut")))
        place.platform.mood = lambda _: refuses(PlatformUnavailable("down"))
        await place.post("1")
        await trio.sleep(2 * DEDUPLICATED_S)
        assert await place.states() == ["ambiguous"]
        await place.store.database.write(lambda con: con.execute("UPDATE outbox SET tried_at = tried_at + 86400"))
        place.platform.mood = lambda _: GOOD
        await place.until("sent")
        assert place.platform.texts("a") == ["1", f"{MARK}\n1"]
