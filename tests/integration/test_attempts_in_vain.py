"""Five hundred attempts to connect to Telegram and to Discord fail in every way, and leave what the fiftieth left: nothing."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial

import pytest
import trio

from hermes.errors import PlatformError
from hermes.platform import Platform, Secret
from hermes.testing import LeakCensus
from hermes.testing.census import settle
from hermes.testing.fake_discord import Fault as DiscordFault
from hermes.testing.fake_discord import open_fake_discord
from hermes.testing.fake_http import Answered, answer_json
from hermes.testing.fake_telegram import TOKEN, open_fake_telegram
from hermes.testing.fake_telegram import Fault as TelegramFault
from hermes.testing.host import RecordingInbox, open_test_host
from platforms.discord import DiscordConfig
from platforms.discord import platform as discord_spec
from platforms.telegram import platform as telegram_spec
from platforms.telegram.config import TelegramConfig

ROUNDS = 500
Opening = Callable[[], AbstractAsyncContextManager[Platform]]


async def refused(opening: Opening) -> None:
    """There is no connection."""
    with pytest.raises(PlatformError):
        async with opening():
            pass


async def receives_in_vain(opening: Opening, spoil: Callable[[], object]) -> None:
    """There is one, and nothing is received by it."""
    async with opening() as platform:
        spoil()
        with pytest.raises((PlatformError, ExceptionGroup)):
            await platform.receive(RecordingInbox(), {})


async def cancelled(opening: Opening, asked: Callable[[], Awaitable[None]]) -> None:
    """Whoever wanted one leaves while it hangs."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_open, opening)
        await asked()
        nursery.cancel_scope.cancel()


async def _open(opening: Opening) -> None:
    async with opening():
        raise AssertionError("it was to hang")


async def raised(opening: Opening) -> None:
    """What is done with it fails."""
    with pytest.raises(KeyError):
        async with opening():
            raise KeyError("a bug")


async def attempts(kinds: list[Callable[[], Awaitable[None]]]) -> None:
    """Make them, and count what is open before and after."""
    before: LeakCensus | None = None
    for number, attempt in zip(range(ROUNDS), itertools.cycle(kinds), strict=False):
        if number == 50:
            before = LeakCensus.take()
        await attempt()
    assert before is not None
    await settle(lambda: LeakCensus.take().growth_since(before), 2.0)
    assert not LeakCensus.take().growth_since(before)


@pytest.mark.wall_clock_s(120)
async def test_telegram() -> None:
    async with open_fake_telegram() as fake, open_test_host("telegram") as host:

        def opening(token: str = TOKEN) -> AbstractAsyncContextManager[Platform]:
            return telegram_spec.open(TelegramConfig(token=Secret(token), base_url=fake.base_url), host)

        def failing(fault: TelegramFault) -> Callable[[], Awaitable[None]]:
            async def attempt() -> None:
                fake.fail("getMe", fault)
                await refused(opening)

            return attempt

        async def hangs() -> None:
            fake.fail("getMe", TelegramFault(hang=True))
            asked = fake.counts["getme"]

            async def until_asked() -> None:
                while fake.counts["getme"] == asked:  # noqa: ASYNC110  # an observable fact
                    await trio.sleep(0.001)

            await cancelled(opening, until_asked)

        await attempts(
            [
                partial(refused, partial(opening, "1:wrong")),
                failing(TelegramFault(code=503)),
                failing(TelegramFault(cut_after=10)),
                failing(TelegramFault(code=200, body=b"<")),
                failing(TelegramFault(code=429, parameters={"retry_after": 3})),
                partial(receives_in_vain, opening, lambda: fake.fail("getUpdates", TelegramFault(code=502))),
                partial(receives_in_vain, opening, lambda: fake.fail("getUpdates", TelegramFault(code=409))),
                hangs,
                partial(raised, opening),
            ]
        )


@pytest.mark.wall_clock_s(120)
async def test_discord() -> None:
    async with open_fake_discord() as discord, open_test_host("discord", clock=discord.clock) as host:

        def opening(token: str = discord.token) -> AbstractAsyncContextManager[Platform]:
            return discord_spec.open(DiscordConfig(token=Secret(token), base_url=discord.base_url), host)

        def failing(answer: Answered | None) -> Callable[[], Awaitable[None]]:
            async def attempt() -> None:
                discord.fail(DiscordFault(answer=answer))
                await refused(opening)

            return attempt

        async def is_refused_by_the_gateway() -> None:
            try:
                await receives_in_vain(opening, lambda: setattr(discord, "reject_auth", True))
            finally:
                discord.reject_auth = False

        await attempts(
            [
                partial(refused, partial(opening, "wrong")),
                failing(Answered(status=503)),
                failing(None),
                failing(Answered(body=b"<")),
                failing(answer_json({"retry_after": 3.0}, 429)),
                is_refused_by_the_gateway,
                partial(raised, opening),
            ]
        )
