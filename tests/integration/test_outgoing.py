"""Files on their way out: only from where they may come, as they were when they were asked for, once, through outages and deaths."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import trio

from hermes.blobs import Blobs
from hermes.delivery import open_delivery
from hermes.errors import ToolDenied, ToolError
from hermes.events import Address, StoredContent
from hermes.ids import new_id
from hermes.outgoing import Outgoing, find_in, media_type
from hermes.platform import Capabilities
from hermes.settings import DeliveryConfig, MediaConfig
from hermes.store import Store, open_store
from hermes.testing import cancel_at_every_step
from hermes.testing.fake_platform import FakeConnections, FakePlatform, Mood
from hermes.testing.spine import config_for
from hermes.testing.tools import turn_context
from hermes.tools.sending import sending_tools
from hermes.toolset import resolve, run_tool

A = Address(account="one", chat="a")
CAN = Capabilities(files=1_000_000, max_caption=200, max_text=500, edits=True)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)


def render(text: str, can: Capabilities) -> Sequence[StoredContent]:
    return [StoredContent(text=text[at : at + can.max_text]) for at in range(0, len(text), can.max_text)]


@dataclass(frozen=True)
class Bench:
    outgoing: Outgoing
    store: Store
    platform: FakePlatform
    connections: FakeConnections
    workspace: Path

    async def until_sent(self, parts: int) -> None:
        while True:
            rows = await self.store.database.read(lambda con: con.execute("SELECT state FROM outbox").fetchall())
            if len(rows) == parts and {state for (state,) in rows} == {"sent"}:
                return
            await trio.sleep(0.005)

    def files(self) -> list[tuple[str, str, bytes, str]]:
        """What arrived: name, media type, bytes, caption."""
        return [
            (each.file.name, each.file.media_type, each.file.path.read_bytes(), each.text)
            for each in (message.content for message in self.platform.messages.values()) if each.file is not None
        ]  # fmt: skip


@asynccontextmanager
async def opened(
    tmp_path: Path, *, platform: FakePlatform | None = None, can: Capabilities = CAN, media: MediaConfig | None = None
) -> AsyncIterator[Bench]:
    home, folder = tmp_path / "home", tmp_path / "folder"
    for each in (home / "workspace", folder):
        each.mkdir(parents=True, exist_ok=True)
    settings = media or MediaConfig(send_from=(folder,))
    config = replace(config_for(home, media=settings), workspace=home / "workspace")
    blobs = Blobs(home / "blobs")
    platform = platform if platform is not None else FakePlatform(can)
    connections = FakeConnections(one=platform)
    async with (
        open_store(home / "hermes.db", config, new_id("boot")) as store,
        open_delivery(
            store, lease=connections.lease, wait_connected=connections.wait_connected, capabilities=lambda _: can,
            settings=DeliveryConfig, flush_by=trio.current_time, render=render, find_file=find_in(blobs),
        ) as delivery,
    ):  # fmt: skip
        outgoing = Outgoing(blobs, delivery, lambda: config, lambda _: can, render)
        yield Bench(outgoing, store, platform, connections, home / "workspace")


async def test_a_file_arrives_as_it_was_when_it_was_asked_for(tmp_path: Path) -> None:
    async with opened(tmp_path) as bench:
        bench.connections.down("one")
        report = bench.workspace / "out" / "report.txt"
        report.parent.mkdir()
        report.write_bytes(b"first")
        await bench.outgoing.send_one(A, "out/report.txt", "look")
        report.write_bytes(b"second")
        await bench.outgoing.send_one(A, str(report), "")
        report.unlink()
        bench.connections.back("one")
        await bench.until_sent(2)
        assert bench.files() == [
            ("report.txt", "text/plain", b"first", "look"), ("report.txt", "text/plain", b"second", "")
        ]  # fmt: skip


async def test_what_may_be_sent_and_what_not(tmp_path: Path) -> None:
    async with opened(tmp_path, media=MediaConfig(send_from=(tmp_path / "folder",), max_outbound_bytes=5000)) as bench:
        home, folder, work = tmp_path / "home", tmp_path / "folder", bench.workspace
        (tmp_path / "secret").write_text("secret")
        (folder / "good.png").write_bytes(PNG)
        (folder / "lie.png").write_bytes(b"<html>")
        (work / "big").write_bytes(bytes(5001))
        (work / "empty").write_bytes(b"")
        (work / "out").symlink_to(tmp_path / "secret")
        (work / "up").symlink_to("../config.yaml")
        (home / "config.yaml").write_text("secret")
        (work / "hard").hardlink_to(home / "hermes.db")
        (work / "fine").symlink_to("inner")
        (work / "inner").write_bytes(b"inner")
        (folder / "away").symlink_to(tmp_path)
        os.mkfifo(work / "pipe")
        denied = (
            "../config.yaml", str(home / "hermes.db"), str(tmp_path / "secret"), "/etc/passwd", "out", "up", "hard",
            str(folder / ".." / "secret"), str(folder / "away" / "secret"), "/proc/self/environ", "../../secret",
        )  # fmt: skip
        for path in denied:
            with pytest.raises(ToolDenied):
                await bench.outgoing.send_one(A, path, "")
        for path, why in (("big", "more than 5000"), ("empty", "is empty"), ("none", "no such file"), ("pipe", "regular"),
                          (".", "directory"), ("", "path"), ("a\0b", "path")):  # fmt: skip
            with pytest.raises(ToolError, match=why):
                await bench.outgoing.send_one(A, path, "")
        for path in (str(folder / "good.png"), str(folder / "lie.png"), "fine"):
            await bench.outgoing.send_one(A, path, "")
        await bench.until_sent(3)
        assert [each[:3] for each in bench.files()] == [
            ("good.png", "image/png", PNG), ("lie.png", "application/octet-stream", b"<html>"),
            ("fine", "application/octet-stream", b"inner"),
        ]  # fmt: skip
        assert len([each for each in (home / "blobs").rglob("*") if each.is_file()]) == 3


async def test_the_owner_sends_any_file_but_those_of_the_home(tmp_path: Path) -> None:
    async with opened(tmp_path) as bench:
        (tmp_path / "mine.csv").write_text("1,2")
        (bench.workspace / "made.md").write_text("# made")
        long = "word " * 60
        await bench.outgoing.send(A, [str(tmp_path / "mine.csv"), str(bench.workspace / "made.md")], long)
        await bench.until_sent(3)
        assert [each[:2] for each in bench.files()] == [("mine.csv", "text/csv"), ("made.md", "text/markdown")]
        assert [each.content.text for each in bench.platform.messages.values()] == ["", "", long]
        for paths in ([str(tmp_path / "home" / "hermes.db")], ["/proc/self/environ"], ["relative"], [], ["/x"] * 11,
                      [str(tmp_path / "mine.csv"), "/none"]):  # fmt: skip
            with pytest.raises(ToolError):
                await bench.outgoing.send(A, paths, "")
        await bench.until_sent(3)


async def test_a_service_without_files_is_said_to_be_one(tmp_path: Path) -> None:
    async with opened(tmp_path, can=Capabilities()) as bench:
        (bench.workspace / "a").write_text("a")
        with pytest.raises(ToolError, match="takes no files"):
            await bench.outgoing.send_one(A, "a", "")


async def test_a_blob_that_is_gone_is_a_dead_letter(tmp_path: Path) -> None:
    async with opened(tmp_path) as bench:
        bench.connections.down("one")
        (bench.workspace / "a").write_text("a")
        file, _ = await bench.outgoing.send_one(A, "a", "")
        (tmp_path / "home" / "blobs" / file.digest[:2] / file.digest).unlink()
        bench.connections.back("one")
        while True:
            rows = await bench.store.database.read(
                lambda con: con.execute("SELECT state, reason FROM outbox").fetchall()
            )
            if rows[0][0] == "rejected":
                break
            await trio.sleep(0.005)
        assert rows == [("rejected", "its file is not there any more")]


async def test_the_tool_is_for_chats_and_for_everybody_there(tmp_path: Path) -> None:
    asked: list[tuple[Address, str, str]] = []

    async def send(to: Address, path: str, caption: str) -> str:
        asked.append((to, path, caption))
        return "sent"

    (tool,) = sending_tools(send)
    assert resolve([tool], may_change=False, in_chat=True) == (tool,)
    assert resolve([tool], may_change=True, in_chat=False) == ()
    context = replace(turn_context(tmp_path), may_change=False, address=A)
    done = await run_tool(tool, context, '{"path": "a", "caption": "b"}')
    assert (done.ok, asked) == (True, [(A, "a", "b")])
    assert not (await run_tool(tool, replace(context, address=None), '{"path": "a"}')).ok
    assert not (await run_tool(tool, context, '{"path": 1}')).ok


@pytest.mark.parametrize(
    ("name", "head", "found"),
    [
        ("a.JPG", b"\xff\xd8\xff\xe0", "image/jpeg"), ("a.txt", PNG, "image/png"), ("a.jpg", b"GIF", "application/octet-stream"),
        ("a.opus", b"OggS", "audio/ogg"), ("a", b"", "application/octet-stream"), ("a.mp4", b"", "video/mp4"),
    ],
)  # fmt: skip
def test_pictures_are_known_by_their_bytes(name: str, head: bytes, found: str) -> None:
    assert media_type(name, head) == found


@pytest.mark.wall_clock_s(200)
async def test_ended_at_every_step_a_file_is_committed_whole_or_not_at_all(
    tmp_path: Path, seed: int, full: bool
) -> None:
    platform = FakePlatform(CAN)
    number = 0

    async def scenario() -> None:
        nonlocal number
        number += 1
        async with opened(tmp_path, platform=platform) as bench:
            (bench.workspace / "a.bin").write_bytes(b"%d " % number * 100_000)
            await bench.outgoing.send_one(A, "a.bin", str(number))
            await bench.until_sent(await rows(bench))

    async def rows(bench: Bench) -> int:
        found = await bench.store.database.read(lambda con: con.execute("SELECT count(*) FROM outbox").fetchone())
        return int(found[0])

    async def check() -> None:
        assert not list((tmp_path / "home" / "blobs").glob("new-*"))
        with trio.fail_after(10):
            async with opened(tmp_path, platform=platform) as bench:
                await bench.until_sent(await rows(bench))  # what was committed arrives
                for name, _, content, caption in bench.files():
                    assert (name, content) == ("a.bin", b"%d " % int(caption.rpartition("\n")[2]) * 100_000)

    await cancel_at_every_step(
        scenario, check=check, ways=("cancel", "deadline") if full else ("cancel",), seeds=(seed,), limit=300 if full else 40
    )  # fmt: skip


async def test_a_send_that_is_cut_is_repeated_with_a_mark(tmp_path: Path) -> None:
    platform = FakePlatform(CAN)
    platform.next("a", Mood(gate=trio.Event(), shows=True))
    async with opened(tmp_path, platform=platform) as bench:
        (bench.workspace / "a.txt").write_text("text")
        await bench.outgoing.send_one(A, "a.txt", "")
        while not platform.calls:  # noqa: ASYNC110  # an observable fact
            await trio.sleep(0.005)
    async with opened(tmp_path, platform=platform) as bench:
        await bench.until_sent(1)
        assert [each[2] for each in bench.files()] in ([b"text"], [b"text", b"text"])
        assert bench.files()[-1][3] == "(may be a duplicate)"
