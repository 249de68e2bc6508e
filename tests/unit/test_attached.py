"""What is done with a file that somebody sent: by its claims, then by its bytes; whatever its name or content says."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes.attached import MAX_NAME_BYTES, READ_BYTES, Senses, as_text, file_name, quoted, sound_type, use_of
from hermes.events import AttachmentRef
from hermes.received import FOLDER, NotSaved, forget, save

ALL = Senses(sees=True, hears=True)
NONE = Senses(sees=False, hears=False)


@pytest.mark.parametrize(
    ("kind", "media_type", "size", "senses", "rights", "use"),
    [
        ("image", "", None, ALL, False, "see"),
        ("image", "", None, NONE, False, None),
        ("image", "", None, NONE, True, "save"),
        ("document", "image/png", None, ALL, True, "see"),
        ("voice", "audio/ogg", None, ALL, False, "hear"),
        ("voice", "audio/ogg", None, NONE, False, None),
        ("audio", "", None, NONE, True, "save"),
        ("document", "audio/flac", None, ALL, False, "hear"),
        ("document", "text/plain; charset=utf-8", 100, NONE, False, "read"),
        ("document", "application/ld+json", None, NONE, False, "read"),
        ("document", "", READ_BYTES, NONE, False, "read"),
        ("document", "text/csv", READ_BYTES + 1, NONE, False, None),
        ("document", "text/csv", READ_BYTES + 1, NONE, True, "read"),
        ("document", "application/pdf", None, NONE, False, None),
        ("document", "application/pdf", None, NONE, True, "read"),
        ("video", "video/mp4", None, ALL, False, None),
        ("video", "video/mp4", None, ALL, True, "save"),
        ("video", "video/mp4", None, Senses(saves=False), True, None),
    ],
)
def test_what_a_file_is_fetched_for(
    kind: str, media_type: str, size: int | None, senses: Senses, rights: bool, use: str | None
) -> None:
    file = AttachmentRef(kind=kind, ref="r", media_type=media_type, size_bytes=size)  # type: ignore[arg-type]
    assert use_of(file, senses, may_change=rights) == use


def test_text_is_what_is_text() -> None:
    assert as_text(b"\xef\xbb\xbfa\r\nb") == "a\nb"
    assert as_text("äö".encode("utf-16")) == "äö"
    assert as_text(b"") == ""
    for content in (b"a\0b", b"%PDF-1.7\n\xe2\xe3", b"\xff\xd8\xff", b"a\x01b", b"\xff\xfe\x00"):
        assert as_text(content) is None


@given(st.binary(max_size=300))
def test_any_bytes_are_text_or_not(content: bytes) -> None:
    text = as_text(content)
    assert text is None or "\0" not in text
    sound_type(content)


@given(st.text(max_size=300), st.integers(1, 200))
def test_a_file_cannot_end_its_own_quotation(text: str, most: int) -> None:
    digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
    shown = quoted("a name", text, digest, most)
    head, _, rest = shown.lstrip("\n").partition("]\n")
    mark = head.rpartition(" ")[2]
    assert rest == f"{text[:most]}\n{mark}"
    assert mark not in text
    assert ("the first" in head) == (len(text) > most)


@pytest.mark.parametrize(
    ("head", "extension"),
    [
        (b"OggS\0\2", "ogg"), (b"ID3\4\0", "mp3"), (b"\xff\xfb\x90", "mp3"), (b"fLaC", "flac"), (b"RIFF....WAVE", "wav"),
        (b"\0\0\0 ftypM4A ", "m4a"), (b"\x1aE\xdf\xa3", "webm"), (b"<html>", None), (b"", None), (b"\xff\xd8\xff", None),
    ],
)  # fmt: skip
def test_sound_is_known_by_its_bytes(head: bytes, extension: str | None) -> None:
    found = sound_type(head)
    assert (found[0] if found else None) == extension


@given(st.text(max_size=400))
def test_any_name_is_a_name_of_one_file(name: str) -> None:
    made = file_name(name, "document.bin")
    assert made not in ("", ".", "..")
    assert not made.startswith((".", "-"))
    assert not {"/", "\\", "\0", "\n", "[", "]"} & set(made)
    assert len(made.encode()) <= MAX_NAME_BYTES
    assert made.isprintable()


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("report.pdf", "report.pdf"), ("../../etc/passwd", "passwd"), ("C:\\x\\y.txt", "y.txt"), (".bashrc", "bashrc"),
        ("..", "document.bin"), ("", "document.bin"), ("a\nb.txt", "a_b.txt"), ("Grüße 1.md", "Grüße 1.md"),
    ],
)  # fmt: skip
def test_names(name: str, made: str) -> None:
    assert file_name(name, "document.bin") == made


def test_a_copy_is_put_into_the_workspace_and_goes_by_age(tmp_path: Path) -> None:
    home, blob = tmp_path / "home", tmp_path / "blob"
    workspace = home / "workspace"
    home.mkdir()
    blob.write_bytes(b"content")
    path = save(workspace, home, blob, "ab" * 32, "a.txt")
    assert path == f"{FOLDER}/{'ab' * 8}/a.txt"
    assert (workspace / path).read_bytes() == b"content"
    kept = save(workspace, home, blob, "cd" * 32, "a.txt")
    os.utime(workspace / path, (1000, 1000))
    (workspace / FOLDER / "mine.txt").write_text("not theirs")
    assert forget(workspace, home, 2000.0) == 1
    assert forget(workspace, home, 2000.0) == 0
    assert not (workspace / path).parent.exists()
    assert (workspace / kept).exists()
    assert (workspace / FOLDER / "mine.txt").exists()
    assert forget(tmp_path / "none", home, 2000.0) == 0


def test_a_link_in_the_workspace_leads_no_copy_out_of_it_and_nothing_outside_is_removed(tmp_path: Path) -> None:
    home, blob, outside = tmp_path / "home", tmp_path / "blob", tmp_path / "outside"
    workspace = home / "workspace"
    workspace.mkdir(parents=True)
    outside.mkdir()
    blob.write_bytes(b"content")
    (workspace / FOLDER).symlink_to(outside)
    with pytest.raises(NotSaved):
        save(workspace, home, blob, "ab" * 32, "a.txt")
    theirs = outside / ("ab" * 8)
    theirs.mkdir()
    (theirs / "a.txt").write_text("old")
    os.utime(theirs / "a.txt", (1000, 1000))
    assert forget(workspace, home, 2000.0) == 0
    (workspace / FOLDER).unlink()
    (workspace / FOLDER).mkdir()
    (workspace / FOLDER / ("ab" * 8)).symlink_to(theirs)
    assert forget(workspace, home, 2000.0) == 0
    with pytest.raises(NotSaved):
        save(workspace, home, blob, "ab" * 32, "a.txt")
    assert (theirs / "a.txt").read_text() == "old"
