"""The e-mail platform ended at each of its steps: nothing stays, nothing committed is lost, what was accepted is sent once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

from hermes.errors import PlatformUnavailable, SendUncertain
from hermes.events import Address, AttachmentRef, Content
from hermes.platform import ReadsBack, Secret
from hermes.testing import cancel_at_every_step
from hermes.testing.fake_mail import ANNA, PASSWORD, TRUSTED, USER, FakeMail, letter, open_fake_mail
from hermes.testing.host import RecordingInbox, open_test_host
from platforms.email import platform as spec
from platforms.email.config import EmailConfig

TO = Address("email", ANNA)
FILE = b"x" * 1000


def config(fake: FakeMail, sent_copy: str) -> EmailConfig:
    return EmailConfig(
        address=USER, password=Secret(PASSWORD), imap_host="127.0.0.1", imap_port=fake.imap_port, imap_security="none",
        smtp_host="127.0.0.1", smtp_port=fake.smtp_port, smtp_security="none", authserv_id=TRUSTED, sent_copy=sent_copy,
        sent_copy_s=0.0,
    )  # fmt: skip


@pytest.mark.wall_clock_s(120)
async def test_opening_sending_finding_and_fetching_ended_at_each_step_leave_nothing(
    full: bool, record: Callable[..., None]
) -> None:
    async with open_fake_mail() as fake, open_test_host("email") as host:
        fake.keeps_copies = True
        fake.arrive(b"Content-Type: application/x\nContent-Disposition: attachment\n\n" + FILE)
        settings = config(fake, "server")
        ref = AttachmentRef(kind="document", ref="1000/1/1/n/")

        async def scenario() -> None:
            async with spec.open(settings, host) as platform:
                await platform.send(TO, Content(text="same"), key=f"k{len(fake.accepted)}", reply=None)
                assert isinstance(platform, ReadsBack)
                await platform.find(TO, key="k0", since=0.0)
                async with platform.fetch(ref, max_bytes=2000) as pieces:
                    assert b"".join([piece async for piece in pieces]).startswith(FILE)

        async def check() -> None:
            """What was accepted is found; what is not found was not accepted."""
            count = len(fake.accepted)
            async with spec.open(settings, host) as platform:
                assert isinstance(platform, ReadsBack)
                for number in range(max(0, count - 2), count):
                    assert await platform.find(TO, key=f"k{number}", since=0.0) is not None
                assert await platform.find(TO, key=f"k{count}", since=0.0) is None

        report = await cancel_at_every_step(
            scenario, check=check, ways=("cancel", "deadline", "sibling"), stride=1 if full else 5
        )
        record(
            "Cancellation matrix",
            "e-mail: opening sending finding and fetching ended at each step leave nothing",
            steps=report.steps,
            endings=report.runs,
        )
        assert report.runs > 20
        await fake.until(lambda: fake.connections == {"imap": 0, "smtp": 0})


@pytest.mark.wall_clock_s(120)
@pytest.mark.parametrize("idle", [True, False])
async def test_receiving_ended_at_each_step_loses_nothing(full: bool, idle: bool, record: Callable[..., None]) -> None:
    async with open_fake_mail() as fake, open_test_host("email") as host:
        if not idle:
            fake.capabilities.remove("IDLE")
        settings = config(fake, "append")
        inbox = RecordingInbox(account="email")
        sent: list[str] = []

        def write() -> None:
            sent.append(f"m{len(sent)}@people.test")
            fake.arrive(letter("hello", number=sent[-1].partition("@")[0]))

        async def until_received() -> None:
            async with spec.open(settings, host) as platform, trio.open_nursery() as nursery:
                nursery.start_soon(platform.receive, inbox, dict(inbox.cursors))
                await inbox.until(lambda: inbox.cursors and len(inbox.events) >= len(sent))
                nursery.cancel_scope.cancel()

        async def scenario() -> None:
            write()
            write()
            await until_received()

        async def check() -> None:
            await until_received()
            assert [event.id for event in inbox.events] == sent
            assert not inbox.breaches

        await until_received()
        report = await cancel_at_every_step(
            scenario, check=check, ways=("cancel", "sibling"), stride=1 if full else 5, tolerate=(PlatformUnavailable,)
        )
        record(
            "Cancellation matrix",
            f"e-mail: receiving {'by IDLE' if idle else 'by polling'} ended at each step loses nothing",
            steps=report.steps,
            endings=report.runs,
        )
        assert report.runs > 10
        await fake.until(lambda: fake.connections == {"imap": 0, "smtp": 0})


@pytest.mark.wall_clock_s(120)
async def test_a_copy_ended_at_each_step_leaves_nothing_and_a_doubt_at_most(
    full: bool, record: Callable[..., None]
) -> None:
    async with open_fake_mail() as fake, open_test_host("email") as host:
        settings = config(fake, "append")
        keys: list[str] = []
        known: list[str] = []

        async def scenario() -> None:
            keys.append(f"k{len(keys)}")
            async with spec.open(settings, host) as platform:
                await platform.send(TO, Content(text="x"), key=keys[-1], reply=None)
                known.append(keys[-1])

        async def check() -> None:
            async with spec.open(settings, host) as platform:
                assert isinstance(platform, ReadsBack)
                if known and known[-1] == keys[-1]:
                    assert await platform.find(TO, key=keys[-1], since=0.0) is not None
                else:
                    try:
                        found = await platform.find(TO, key=keys[-1], since=0.0)
                        assert found is not None
                    except SendUncertain:
                        pass

        report = await cancel_at_every_step(scenario, check=check, ways=("cancel",), stride=1 if full else 4)
        record(
            "Cancellation matrix",
            "e-mail: a copy ended at each step leaves nothing and a doubt at most",
            steps=report.steps,
            endings=report.runs,
        )
        assert report.runs > 10
        assert len(fake.accepted) == len({str(each.message["Message-ID"]) for each in fake.accepted})
