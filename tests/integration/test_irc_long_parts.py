"""Parts of many lines on IRC."""

from __future__ import annotations

from collections.abc import Collection
import pytest
import trio
from trio.testing import MockClock

from hermes.events import Address, Content
from hermes.testing import RecordingInbox, open_test_host
from hermes.testing.fake_irc import MODERN, PLAIN, open_fake_irc
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
