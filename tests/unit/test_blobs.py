"""Blobs are there whole or not at all, and go when nobody uses them; what a file claims to be is not believed."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes.blobs import BlobNotWritten, Blobs, BlobTooLarge
from hermes.messages import Image, Message, Text, user
from hermes.pictures import BLOB, GONE, LEFT_OUT, SHOWN_BYTES, UNSEEN, Pictures, Sight, picture_type

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
NOW = 2_000_000_000.0


async def put(blobs: Blobs, content: bytes, most: int = 1_000_000) -> str:
    async with blobs.writing(most) as writer:
        for start in range(0, len(content), 100_000):
            await writer.write(content[start : start + 100_000])
        return await writer.commit()


def files(root: Path) -> list[Path]:
    return sorted(each for each in root.rglob("*") if each.is_file())


async def test_a_blob_is_named_by_its_content_and_read_back(tmp_path: Path) -> None:
    blobs, content = Blobs(tmp_path / "blobs"), os.urandom(700_001)
    digest = await put(blobs, content)
    assert digest == hashlib.sha256(content).hexdigest() == await put(blobs, content)
    assert files(tmp_path) == [tmp_path / "blobs" / digest[:2] / digest] == [blobs.find(digest)]
    assert await blobs.read(digest, 700_001) == content
    assert await blobs.read(digest, 700_000) is None
    assert stat.S_IMODE(files(tmp_path)[0].stat().st_mode) == 0o600
    assert {stat.S_IMODE(each.parent.stat().st_mode) for each in files(tmp_path)} == {0o700}


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "a" * 63, "A" * 64, "g" * 64, "a" * 65])
async def test_what_is_no_digest_names_nothing(tmp_path: Path, name: str) -> None:
    blobs = Blobs(tmp_path)
    assert blobs.find(name) is None
    assert await blobs.read(name, 10) is None


async def test_what_is_not_committed_leaves_nothing(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "blobs")
    with pytest.raises(BlobTooLarge):
        await put(blobs, bytes(300_001), most=300_000)
    async with blobs.writing(10) as writer:
        await writer.write(b"half")
    assert files(tmp_path) == []


async def test_a_disk_that_takes_nothing_is_said(tmp_path: Path) -> None:
    (tmp_path / "blobs").write_bytes(b"a file where the directory should be")
    with pytest.raises(BlobNotWritten):
        await put(Blobs(tmp_path / "blobs"), b"x")


async def test_what_was_not_used_goes_and_what_dead_processes_left(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "blobs")
    old, used = await put(blobs, b"old"), await put(blobs, b"used")
    left, new = tmp_path / "blobs" / "new-dead", tmp_path / "blobs" / "new-now"
    for path in (left, new):
        path.write_bytes(b"half")
    for file, at in ((blobs.find(old), NOW - 100), (blobs.find(used), NOW - 100), (left, NOW - 4000), (new, NOW - 10)):
        assert file is not None
        os.utime(file, (at, at))
    assert await blobs.read(used, 10) == b"used"  # its last use is now
    now = blobs.find(used)
    assert now is not None
    os.utime(now, (NOW, NOW))
    assert await blobs.forget(NOW - 50, NOW) == 2
    assert await blobs.forget(NOW - 50, NOW) == 0
    assert files(tmp_path / "blobs") == sorted([now, new])


async def test_reading_is_a_use(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "blobs")
    path = blobs.find(digest := await put(blobs, b"x"))
    assert path is not None
    os.utime(path, (1.0, 1.0))
    assert await blobs.forget(2.0, 2.0) == 1
    assert await put(blobs, b"x") == digest
    os.utime(path, (1.0, 1.0))
    assert await blobs.read(digest, 1) == b"x"
    assert await blobs.forget(2.0, 2.0) == 0


async def test_nothing_to_forget_where_there_never_was_a_blob(tmp_path: Path) -> None:
    assert await Blobs(tmp_path / "blobs").forget(NOW, NOW) == 0


# --- what a file is


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "image/jpeg"), (PNG, "image/png"), (b"GIF89a......", "image/gif"),
        (b"GIF87a......", "image/gif"), (b"RIFF\x10\0\0\0WEBPVP8 ", "image/webp"), (b"RIFF\x10\0\0\0WAVEfmt ", None),
        (b"<html><body>", None), (b"", None), (b"%PDF-1.7", None), (b"<svg xmlns=", None), (b"\xff\xd8", None),
    ],
)  # fmt: skip
def test_a_picture_is_known_by_its_first_bytes(head: bytes, expected: str | None) -> None:
    assert picture_type(head) == expected


@given(st.binary(max_size=16))
def test_no_other_bytes_are_taken_for_a_picture(head: bytes) -> None:
    if (found := picture_type(head)) is not None:
        assert head[:3] in (b"\xff\xd8\xff", b"\x89PN", b"GIF", b"RIF")
        assert found.startswith("image/")


# --- what a model sees


def picture(digest: str) -> Message:
    return Message(role="user", parts=(Text("look"), Image(BLOB + digest)))


def seen(messages: object) -> list[str]:
    return [
        part.url if isinstance(part, Image) else part.text.strip()
        for message in messages  # type: ignore[attr-defined]
        for part in message.parts
        if part != Text("look")
    ]


async def test_a_model_sees_the_picture_and_rows_never_hold_it(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    digest, page, gone = await put(blobs, PNG), await put(blobs, b"<html>"), "0" * 64
    sight = Sight(sees=True)
    link = Message(role="user", parts=(Image("https://example.org/a.png"),))
    messages = [picture(digest), user("words"), picture(page), picture(gone), link]
    found = await Pictures(blobs).show(messages, sight)
    first, words, *rest = seen(found)
    assert first.startswith("data:image/png;base64,iVBORw0KGgo")
    assert [words, *rest] == ["words", GONE, GONE, "https://example.org/a.png"]
    assert messages[0] == picture(digest)
    assert (sight.left, sight.full) == (SHOWN_BYTES - len(PNG), False)


async def test_one_that_cannot_see_is_told(tmp_path: Path) -> None:
    digest = await put(blobs := Blobs(tmp_path), PNG)
    assert seen(await Pictures(blobs).show([picture(digest)], Sight(sees=False))) == [UNSEEN]


async def test_the_newest_pictures_take_the_room_also_when_one_is_sent_often(tmp_path: Path) -> None:
    digest = await put(blobs := Blobs(tmp_path), PNG)
    sight = Sight(sees=True, left=2 * len(PNG) + 5)
    found = seen(await Pictures(blobs).show([picture(digest) for _ in range(4)], sight))
    assert found[:2] == [LEFT_OUT, LEFT_OUT]
    assert all(each.startswith("data:") for each in found[2:])
    assert sight.full
