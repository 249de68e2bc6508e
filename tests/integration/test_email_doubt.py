"""Mails of ours of which nobody knows whether they were accepted: none is sent twice unmarked, by slow servers and late copies."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from email_account import NO_TLS, NOW, config

from hermes.errors import PlatformUnavailable, SendUncertain
from hermes.events import Address, Content
from hermes.testing.fake_mail import ANNA, FakeMail, open_fake_mail
from hermes.testing.fake_mail_wire import Fault
from hermes.testing.host import open_test_host
from platforms.email.connection import EmailPlatform, open_email

TO = Address("email", ANNA)
HELLO = Content(text="hello")


@pytest.fixture
def clock() -> trio.testing.MockClock:
    return trio.testing.MockClock(rate=1.0)


@asynccontextmanager
async def connected(fake: FakeMail, **more: Any) -> AsyncIterator[EmailPlatform]:
    async with (
        open_test_host("email", clock=lambda: NOW + trio.current_time(), tls=NO_TLS) as host,
        open_email(config(fake, **more), host) as found,
    ):
        yield found


async def test_a_server_that_takes_its_time_over_a_mail_is_heard_out(clock: trio.testing.MockClock) -> None:
    async with open_fake_mail() as fake, connected(fake, sent_copy="append") as found:
        fake.fail("smtp message", Fault(after_s=90.0, done=True, answer=b"250 2.0.0 ok"))
        clock.autojump_threshold = 0.05
        await found.send(TO, HELLO, key="k1", reply=None)
        assert fake.texts() == ["hello"]


async def test_a_later_attempt_has_as_much_time_for_its_copy(clock: trio.testing.MockClock) -> None:
    async with open_fake_mail() as fake, connected(fake, sent_copy="server") as found:
        clock.jump(1000)
        fake.fail("smtp message", Fault(cut=True, done=True))  # its copy is made later
        with pytest.raises(SendUncertain):
            await found.send(TO, HELLO, key="k1", reply=None)
        first_attempt = NOW  # that one was not accepted
        with pytest.raises(PlatformUnavailable, match="may yet") as caught:
            await found.find(TO, key="k1", since=first_attempt)
        assert caught.value.retry_after_s == pytest.approx(20.0, abs=1.0)
        clock.jump(21)
        assert await found.find(TO, key="k1", since=first_attempt) is None


async def test_what_was_cut_before_a_restart_has_as_much_time(clock: trio.testing.MockClock) -> None:
    async with open_fake_mail() as fake:
        clock.jump(1000)
        async with connected(fake, sent_copy="server") as found:
            with pytest.raises(PlatformUnavailable, match="may yet"):
                await found.find(TO, key="k1", since=NOW)
            clock.jump(21)
            assert await found.find(TO, key="k1", since=NOW) is None


async def test_many_mails_in_doubt_are_remembered_or_waited_for(clock: trio.testing.MockClock) -> None:
    async with open_fake_mail() as fake, connected(fake, sent_copy="server") as found:
        clock.jump(1000)
        fake.standing["smtp message"] = Fault(cut=True)
        for number in range(300):
            with pytest.raises(SendUncertain):
                await found.send(TO, HELLO, key=f"k{number}", reply=None)
        for key in ("k0", "k299"):
            with pytest.raises(PlatformUnavailable, match="may yet"):
                await found.find(TO, key=key, since=NOW)
