"""Parts of many lines on IRC: at the pace that a server bears, and where it takes some of the lines and others not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from hermes.errors import SendUncertain
from hermes.events import Address, Content
from hermes.testing import RecordingInbox, open_test_host
from hermes.testing.fake_irc import MODERN, PLAIN, FakeIrc, Said, open_fake_irc
from hermes.testing.fake_irc_commands import kick
from hermes.testing.service import Switch
from platforms.irc import IrcConfig
from platforms.irc import platform as spec

BOTH = pytest.mark.parametrize("offered", [MODERN, PLAIN], ids=["modern", "plain"])


class Signs(RecordingInbox):
    """An inbox that looks whether each sign of life came as soon as the one before had promised."""

    by: float = float("inf")
    late: float = 0.0

    def alive(self, path: str, *, next_within_s: float) -> None:
        self.late = max(self.late, trio.current_time() - self.by)
        self.by = trio.current_time() + next_within_s
        super().alive(path, next_within_s=next_within_s)


@BOTH
async def test_a_part_of_many_lines_keeps_nobody_from_seeing_that_we_are_alive(offered: Collection[str]) -> None:
    async def main() -> None:
        async with open_fake_irc(offered) as irc, open_test_host("irc", clock=irc.clock) as host:
            config = IrcConfig(server="127.0.0.1", port=irc.port, tls=False, nick="hermes", flood_interval_s=10.0)
            async with spec.open(config, host) as platform, trio.open_nursery() as nursery:
                inbox = Signs(account="irc")
                nursery.start_soon(platform.receive, inbox, {})
                await inbox.until(lambda: inbox.promises)
                lines = [f"{number}" for number in range(1, 26)]
                text = Content(text="\n".join(lines))
                await trio.sleep(59)  # until as much may be written at once as ever
                await platform.send(Address("irc", "friend"), text, key="k", reply=None)
                assert irc.shown["friend"] == lines
                assert inbox.late <= 0.0
                assert trio.current_time() <= inbox.by
                nursery.cancel_scope.cancel()

    await trio.to_thread.run_sync(lambda: trio.run(main, clock=MockClock(autojump_threshold=0.05)))


@asynccontextmanager
async def talking(offered: Collection[str]) -> AsyncIterator[tuple[FakeIrc, Callable[[str], Awaitable[None]]]]:
    """A server with #den, and what shows a text there."""
    async with open_fake_irc(offered) as irc, open_test_host("irc", clock=irc.clock) as host:
        config = IrcConfig(
            server="127.0.0.1", port=irc.port, tls=False, nick="hermes", channels=("#den",), flood_burst=1000
        )
        async with spec.open(config, host) as platform:

            async def say(text: str) -> None:
                await platform.send(Address("irc", "#den"), Content(text=text), key="k", reply=None)

            yield irc, say


def then(irc: FakeIrc, happens: Callable[[], None]) -> None:
    """Have something happen behind the next message."""
    pass_on = irc.pass_on

    def passed_on(*values: Any, **more: Any) -> Said:
        said = pass_on(*values, **more)
        happens()
        return said

    irc.pass_on = passed_on  # type: ignore[method-assign]


@BOTH
@pytest.mark.parametrize("day", ["limit", "fail"])
async def test_lines_of_which_some_were_taken_are_not_written_again_unmarked(
    offered: Collection[str], day: Switch
) -> None:
    async with talking(offered) as (irc, say):
        then(irc, lambda: setattr(irc, "day", day))
        with pytest.raises(SendUncertain):
            await say("one\ntwo\nthree")
        assert irc.shown["#den"] == ["one"]


@BOTH
async def test_whoever_is_put_out_between_two_lines_does_not_write_the_first_again_unmarked(
    offered: Collection[str],
) -> None:
    async with talking(offered) as (irc, say):
        then(irc, lambda: kick(irc, "#den", "hermes"))
        with pytest.raises(SendUncertain):
            await say("one\ntwo\nthree")


@BOTH
async def test_lines_without_codes_are_not_written_again_unmarked_for_those_that_have_some(
    offered: Collection[str],
) -> None:
    async with talking(offered) as (irc, say):
        irc.channels["#den"].bare_only = True
        with pytest.raises(SendUncertain):
            await say("plain\n\x02bold\x02\nplain again")
        await say("(may be a duplicate)\nplain\n\x02bold\x02\nplain again")
        assert irc.shown["#den"] == ["plain", "plain again", "(may be a duplicate)", "plain", "bold", "plain again"]


@BOTH
async def test_where_no_line_was_taken_for_its_codes_all_are_written_bare(offered: Collection[str]) -> None:
    async with talking(offered) as (irc, say):
        irc.channels["#den"].bare_only = True
        await say("\x02one\x02\n\x02two\x02")
        assert irc.shown["#den"] == ["one", "two"]
