"""How a message is written in `hermes chat`: keys, the editor, what is sent, and the history."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes.cli.chat.commands import complete, parse
from hermes.cli.chat.editor import Editor, is_open, message_of
from hermes.cli.chat.history import MAX_BYTES, MAX_ENTRIES, MAX_ENTRY, History
from hermes.cli.chat.keys import MAX_PASTE, MAX_SEQUENCE, Key, KeyReader
from hermes.cli.chat.text import width_of

NAMES = [
    "enter", "newline", "eof", "up", "down", "left", "right", "word-left", "word-right", "home", "end", "backspace",
    "delete", "kill-start", "kill-end", "kill-word", "kill-word-right", "yank", "tab", "clear",
]  # fmt: skip
WORDS = st.text(st.sampled_from('ab \\"\n\u00e9\u4e16\u0301/'), max_size=12)
KEYS = st.lists(
    st.one_of(
        st.builds(Key, st.sampled_from(NAMES)), st.builds(Key, st.just("text"), WORDS), st.builds(Key, st.just("paste"), WORDS)
    ),
    max_size=40,
)  # fmt: skip


def joined(keys: list[Key]) -> list[Key]:
    """Neighbouring words as one key."""
    found: list[Key] = []
    for key in keys:
        if key.name == "text" and found and found[-1].name == "text":
            found[-1] = Key("text", found[-1].text + key.text)
        else:
            found.append(key)
    return found


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (b"h\xc3\xa9\r", [Key("text", "h\u00e9"), Key("enter")]),
        (b"\x1b[A\x1bOB\x1b[1;5D\x1b[3~", [Key("up"), Key("down"), Key("word-left"), Key("delete")]),
        (b"\x1b\r\x1bb\n\x7f", [Key("newline"), Key("word-left"), Key("newline"), Key("backspace")]),
        (b"\x1b[200~a\r\nb\rc\x1b[201~d", [Key("paste", "a\nb\nc"), Key("text", "d")]),
        (b"\x1b[200~\x1b[A\x03\x1b[201~", [Key("paste", "\x1b[A\x03")]),  # nothing in a paste is a key
        (b"\x00\x1c\x1b[5~\x1b[99z\x1bQx", [Key("text", "x")]),
        (b"\x04\t\x0c", [Key("eof"), Key("tab"), Key("clear")]),
    ],
)
def test_keys(data: bytes, keys: list[Key]) -> None:
    assert KeyReader().feed(data) == keys
    reader = KeyReader()
    assert joined([key for byte in data for key in reader.feed(bytes([byte]))]) == keys


@given(st.lists(st.one_of(st.binary(max_size=20), st.sampled_from([b"\x1b[200~", b"\x1b[201~", b"\x1b[", b"\x1bO"]))))
def test_any_bytes_are_read_and_cuts_do_not_matter(pieces: list[bytes]) -> None:
    reader, whole = KeyReader(), KeyReader()
    found = [key for piece in pieces for key in reader.feed(piece)]
    assert joined(found) == joined(whole.feed(b"".join(pieces)))
    assert all(key.text == "" for key in found if key.name not in ("text", "paste"))


def test_what_never_ends_is_bounded() -> None:
    reader = KeyReader()
    assert reader.feed(b"\x1b[" + b"1" * MAX_SEQUENCE * 2)[0].text.startswith("[1")  # no sequence is so long
    for _ in range(10):
        assert reader.feed(b"\x1b[200~" + b"x" * MAX_PASTE) == []
    (paste,) = reader.feed(b"\x1b[201~")
    assert len(paste.text) == MAX_PASTE


@given(KEYS, st.integers(10, 40))
def test_the_editor_holds_together_whatever_is_pressed(keys: list[Key], width: int) -> None:
    editor = Editor(["first", "second\nline"], complete)
    for key in keys:
        outcome = editor.press(key)
        assert 0 <= editor.cursor <= len(editor.text)
        rows, row, column = editor.view("> ", ". ", width)
        assert all(width_of(each) <= width - 1 for each in rows)
        assert 0 <= row < len(rows)
        assert column <= width_of(rows[row])
        assert "".join(each[2:] for each in rows) == editor.text.replace("\n", "")
        if outcome == "submit":
            assert not is_open(editor.text)
            break


def press(editor: Editor, *keys: str) -> Editor:
    for key in keys:
        editor.press(Key(key) if key in NAMES else Key("text", key))
    return editor


def test_editing() -> None:
    editor = press(Editor([]), "one two", "word-left", "X", "home", "Y", "end", "Z", "left", "backspace")
    assert editor.text == "Yone XtwZ"
    assert press(editor, "home", "kill-end", "a", "yank", "kill-start").text == ""
    assert press(editor, "yank").text == "aYone XtwZ"
    assert press(editor, "kill-word").text == "aYone "
    assert press(editor, "home", "word-right", "kill-word-right", "delete").text == "aYone"
    assert press(editor, "eof").text == "aYone"  # at its end there is nothing to delete
    assert editor.press(Key("enter")) == "submit"
    assert Editor([]).press(Key("eof")) == "eof"


def test_up_and_down_go_through_lines_first_and_then_through_history() -> None:
    editor = press(Editor(["old", "older\nlines"]), "draft", "newline", "xy", "up")
    assert (editor.text, editor.cursor) == ("draft\nxy", 2)
    assert press(editor, "down").cursor == 8
    press(editor, "up", "up")
    assert editor.text == "older\nlines"
    assert press(editor, "up", "up").text == "old"
    assert press(editor, "up").text == "old"
    assert press(editor, "down", "down", "down").text == "draft\nxy"


def test_several_lines() -> None:
    editor = press(Editor([]), "one\\", "enter", "two")
    assert editor.text == "one\\\ntwo"
    assert message_of(editor.text) == "one\ntwo"
    block = press(Editor([]), '"""', "enter", 'say "hi"\\', "enter", '"""')
    assert block.press(Key("enter")) == "submit"
    assert message_of(block.text) == 'say "hi"\\'
    assert message_of("a\\\\\nb") == "a\\\\\nb"  # an escaped backslash joins nothing
    assert not is_open("a\\\\")
    assert is_open('"""')
    assert not is_open('"""a"""')
    assert message_of('  """a"""  ') == "a"


@given(st.text())
def test_a_message_is_text_without_edges(text: str) -> None:
    sent = message_of(text)
    assert len(sent) <= len(text)
    assert '"""' in text or sent == sent.strip()


def test_commands_are_told_from_messages() -> None:
    assert parse("/help") == ("help", "")
    assert parse("/Title  two words ") == ("title", "two words")
    assert parse("/nonsense now") == ("nonsense", "now")
    assert parse("/etc/hosts says what?") is None
    assert parse("what is /help?") is None
    assert parse("/ a") is None
    assert complete("/q") == "/quit"
    assert complete("/re") == "/resume "
    assert complete("/s") is None  # /sessions, /stop
    assert complete("quit") is None


def test_history_is_kept_privately_and_bounded(tmp_path: Path) -> None:
    path = tmp_path / "chat_history"
    history = History(path)
    history.load()
    before = os.umask(0)
    try:
        for text in ("one", "two\nlines", "two\nlines", " secret", "", "x" * (MAX_ENTRY + 1)):
            history.add(text)
    finally:
        os.umask(before)
    assert history.entries == ["one", "two\nlines"]
    assert path.stat().st_mode & 0o777 == 0o600
    again = History(path)
    again.load()
    assert again.entries == ["one", "two\nlines"]
    path.write_bytes(b'"ok"\n{"a": 1}\nnot json\n\xff\xfe\n' + b"".join(b'"%d"\n' % n for n in range(3 * MAX_ENTRIES)))
    again.load()
    assert again.entries == [str(n) for n in range(2 * MAX_ENTRIES, 3 * MAX_ENTRIES)]
    assert len(path.read_bytes().splitlines()) == MAX_ENTRIES
    path.write_bytes(b'"' + b"a" * (MAX_BYTES + 10) + b'"\n"last"\n')
    again.load()
    assert again.entries == ["last"]


def test_a_history_that_cannot_be_written_hinders_nobody(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    for path in (tmp_path / "absent" / "chat_history", tmp_path, tmp_path / "link"):
        history = History(path)
        history.load()
        history.add("kept in memory")
        assert history.entries == ["kept in memory"]
    assert (tmp_path / "target").read_text() == ""
