"""Fetching, ended at every step: nothing is left open, no half of a file, and the next start has each picture in its message."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from hermes.access import AccessPolicy
from hermes.agent.transcription import Recording
from hermes.attached import Senses
from hermes.blobs import Blobs
from hermes.errors import PlatformUnavailable
from hermes.events import Address, AttachmentKind, AttachmentRef, InboundEvent, Person
from hermes.fetching import open_fetching
from hermes.filework import FileWork
from hermes.ids import new_id
from hermes.intake import decode_payload
from hermes.messages import Image
from hermes.pictures import BLOB
from hermes.settings import MediaConfig
from hermes.store import Store, open_store
from hermes.store.reception import Place
from hermes.testing import cancel_at_every_step
from hermes.testing.fake_platform import FakeConnections, FakePlatform, refuses
from hermes.testing.spine import config_for

OWNER = AccessPolicy(allowed_users=frozenset({"7"}), admins=frozenset({"7"}), admin_tools=True)
SENSES = Senses(hears=True)
PLACE = Place(
    account="one", platform="fake", access=OWNER, busy="queue", pairing_text=str, fetch_s=3600.0, senses=SENSES,
)  # fmt: skip
FILES = {
    "a": b"\xff\xd8\xff" + bytes(300_000),
    "b": b"GIF89a" + bytes(10),
    "voice": b"OggS" + bytes(10),
    "notes": b"milk",
}
KINDS: dict[str, AttachmentKind] = {"a": "image", "b": "image", "voice": "voice", "notes": "document"}


async def hear(recording: Recording) -> str:
    await trio.lowlevel.checkpoint()
    return f"{len(recording.content)} bytes"


def photos(number: int) -> InboundEvent:
    files = tuple(AttachmentRef(kind=KINDS[ref], ref=ref) for ref in FILES)
    return InboundEvent(
        id=str(number), address=Address("one", "7"), chat_kind="dm", sender=Person("7"), attachments=files
    )


async def pictures(store: Store) -> list[list[str]]:
    """The pictures of the messages that wait no more; they hold the rest as well."""
    rows = await store.database.read(
        lambda con: con.execute("SELECT payload FROM inbox WHERE fetch_until IS NULL ORDER BY id").fetchall()
    )
    for (body,) in rows:
        assert b"10 bytes" not in body
        assert all(each in body for each in (b"] 14 bytes", b"milk\\nEND-", b"saved in the workspace as received/"))
    return [
        [part.url for part in decode_payload(body).messages[-1].parts if isinstance(part, Image)] for (body,) in rows
    ]


@pytest.mark.wall_clock_s(400)
async def test_at_every_step(tmp_path: Path, seed: int, full: bool, record: Callable[..., None]) -> None:
    platform = FakePlatform(files=dict(FILES))
    blobs = Blobs(tmp_path / "blobs")
    committed: set[int] = set()
    life = 0

    async def fetch(number: int | None) -> None:
        connections = FakeConnections(one=platform)
        ready = trio.Event()
        async with (
            open_store(tmp_path / "hermes.db", config_for(tmp_path), new_id("boot")) as store,
            open_fetching(
                store, blobs, lease=connections.lease, wait_connected=connections.wait_connected, settings=MediaConfig,
                wake_session=lambda _: ready.set(),
                work=FileWork(blobs, lambda: SENSES, hear, lambda: (tmp_path / "workspace", tmp_path)),
            ) as fetcher,
        ):  # fmt: skip
            if number is not None:
                await store.inbox.deliver(PLACE, [photos(number)], {})
                committed.add(number)
                fetcher.wake()
                await ready.wait()
                return
            while await store.attachments.waiting(10):  # noqa: ASYNC110  # an observable fact
                await trio.sleep(0.005)
            found = await pictures(store)
            assert len(found) >= len(committed)
            assert all(len(each) == 2 and all(url.startswith(BLOB) for url in each) for each in found), found

    async def scenario() -> None:
        nonlocal life
        life += 1
        platform.queued.clear()
        await fetch(life)

    async def check() -> None:
        leftovers = [each.name for each in (tmp_path / "blobs").glob("new-*")]
        assert not leftovers
        with trio.fail_after(10):
            await fetch(None)

    report = await cancel_at_every_step(
        scenario,
        check=check,
        ways=("cancel", "deadline") if full else ("cancel",),
        seeds=(seed,),
        limit=400 if full else 40,
    )
    record("Cancellation matrix", "fetching files", steps=report.steps, endings=report.runs)
    assert len(committed) > report.runs / 4
    assert len([each for each in (tmp_path / "blobs").rglob("*") if each.is_file()]) == len(FILES)
    saved = [each for each in (tmp_path / "workspace").rglob("*") if each.is_file()]
    assert sorted(each.read_bytes() for each in saved) == sorted(FILES.values())


async def test_an_outage_is_cancelled_as_it_waits(tmp_path: Path) -> None:
    platform = FakePlatform(files=dict(FILES))
    platform.next("a", refuses(PlatformUnavailable("502")))
    connections = FakeConnections(one=platform)
    connections.down("one")
    with trio.fail_after(5):
        async with open_store(tmp_path / "hermes.db", config_for(tmp_path), new_id("boot")) as store:
            async with open_fetching(
                store, Blobs(tmp_path / "blobs"), lease=connections.lease, wait_connected=connections.wait_connected,
                settings=MediaConfig, wake_session=lambda _: None,
            ) as fetcher:  # fmt: skip
                await store.inbox.deliver(PLACE, [photos(1)], {})
                fetcher.wake()
                await trio.testing.wait_all_tasks_blocked(0.05)
            assert len(await store.attachments.waiting(10)) == 1
