"""What `hermes chat` shows: text of others, wrapped words, tools and their state, on a screen that is really drawn."""

from __future__ import annotations

from itertools import pairwise

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from hermes.cli.chat.conversation import Completed, Failed, Finished, Started, Step, Thoughts, Words, title_of
from hermes.cli.chat.editor import Editor
from hermes.cli.chat.keys import Key
from hermes.cli.chat.painter import Painter
from hermes.cli.chat.reply import Reply
from hermes.cli.chat.terminal import Terminal
from hermes.cli.chat.text import Wrapper, clean, cut, from_home, joined, one_line, short_arguments, width_of
from hermes.testing.screen import Screen


def wrapped(pieces: list[str], width: int) -> str:
    wrapper = Wrapper(lambda: width)
    return "".join(map(wrapper.feed, pieces)) + wrapper.flush()


@given(st.text())
def test_text_of_others_steers_nothing(text: str) -> None:
    shown = clean(text)
    assert all(letter == "\n" or (letter >= " " and letter not in "\x7f\x9b\u202e\u2066") for letter in shown)
    assert clean(shown) == shown
    assert one_line(text) == " ".join(shown.split())


def test_an_escape_sequence_is_text() -> None:
    assert clean("a\x1b[31mb\x1b]0;title\x07c\r\nd\te") == "a[31mb]0;titlec\nd    e"


@given(st.lists(st.text(st.sampled_from("ab \n|`\u4e16"), max_size=30)), st.integers(5, 30))
def test_wrapping_breaks_between_words_only_and_does_not_depend_on_pieces(pieces: list[str], width: int) -> None:
    whole = "".join(pieces)
    shown = wrapped(pieces, width)
    assert shown == wrapped([whole], width)
    assert shown.split() == whole.split()
    if "`" not in whole and "|" not in whole and "    " not in whole:
        for line in map(str.rstrip, shown.split("\n")):
            first = line[: len(line) - len(line.lstrip()) + len(line.split()[0])] if line else ""
            assert width_of(line) <= width or width_of(first) > width  # the terminal itself breaks such a word


def test_code_and_tables_keep_their_lines() -> None:
    code = "```\nfor a in range(10): print(a)\n```\nand so on and on\n| a | b | c | d | e |\n    indented code here\n"
    assert wrapped([code], 12) == code.replace("and so on and on", "and so on\nand on")


@given(st.text(st.sampled_from("ab\u4e16\u0301"), max_size=20), st.integers(1, 20))
def test_cut_text_fits(text: str, width: int) -> None:
    assert width_of(cut(text, width)) <= width
    assert cut(text, 100) == text


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ('{"command": "ls -la"}', "ls -la"),
        ('{"kind": "name", "pattern": "*"}', "* kind=name"),
        ('{"path": "a.py", "old": "x\\ny", "all": true}', "a.py old=x y all=true"),
        ('{"command": "cut off', '{"command": "cut off'),
        ("[1, 2]", "[1, 2]"),
        ("", ""),
    ],
)
def test_arguments_in_a_few_words(arguments: str, shown: str) -> None:
    assert short_arguments(arguments) == shown


@given(st.lists(st.text("ab\u4e16 ", min_size=1, max_size=9), min_size=1, max_size=6), st.integers(1, 40))
def test_parts_share_lines_where_they_fit(parts: list[str], width: int) -> None:
    lines = joined(parts, " + ", width)
    assert " + ".join(lines) == " + ".join(parts)
    assert all(width_of(line) <= width or line in parts for line in lines)
    assert all(width_of(f"{line} + {after.split(' + ')[0]}") > width for line, after in pairwise(lines))


def test_a_path_under_the_home_directory_begins_with_a_tilde() -> None:
    assert from_home("/home/ann/work", "/home/ann") == "~/work"
    assert from_home("/home/ann", "/home/ann/") == "~"
    assert from_home("/home/anna/work", "/home/ann") == "/home/anna/work"
    assert from_home("/srv", "") == from_home("/srv", "/") == "/srv"


def test_titles() -> None:
    assert title_of("  what\nis this ") == "what is this"
    assert len(title_of("word " * 50)) <= 60


def painter(screen: Screen, *, colour: bool = True) -> Painter:
    return Painter(lambda: (screen.columns, screen.rows), control=True, colour=colour)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("words"), st.text(st.sampled_from("ab \n\u4e16"), max_size=30)),
            st.tuples(st.just("line"), st.text("xyz", max_size=15)),
            st.tuples(st.just("below"), st.lists(st.text("01 ", max_size=60), max_size=5)),
            st.tuples(st.just("end"), st.none()),
        ),
        max_size=25,
    )
)
def test_what_changes_leaves_no_trace_and_what_stays_stays(steps: list[tuple[str, object]]) -> None:
    def draw(with_below: bool) -> Screen:
        screen = Screen(24, 50)
        show = painter(screen)
        for name, value in steps:
            match name, value:
                case "words", str(text):
                    screen.feed(show.words(text))
                case "line", str(text):
                    screen.feed(show.line(show.style(text, "bold")))
                case "below", list(lines) if with_below:
                    screen.feed(show.below(lines))
                case "end", _:
                    screen.feed(show.end_words())
        screen.feed(show.end_words())
        assert screen.unknown == []
        return screen

    assert draw(with_below=True).text.rstrip("\n") == draw(with_below=False).text.rstrip("\n")


@given(st.lists(st.sampled_from(["a", "word ", "\u4e16", "newline", "left", "up", "backspace", "home"]), max_size=60))
def test_the_message_on_the_screen_is_the_one_in_the_editor(keys: list[str]) -> None:
    screen = Screen(20, 60)
    show = painter(screen)
    screen.feed(show.line("above"))
    editor = Editor(["old message"])
    names = {"newline", "left", "up", "backspace", "home"}
    for key in keys:
        editor.press(Key(key) if key in names else Key("text", key))
        view = editor.view("> ", ". ", screen.columns)
        screen.feed(show.edit(view, "> ", ". "))
        assert screen.lines == ["above", *(row.rstrip() for row in view.rows)]
        assert (screen.row - 1, screen.column) == (view.row, view.column)
    screen.feed(show.end_edit() + show.line("below"))
    assert "below" in screen.lines


def test_a_message_larger_than_the_screen_shows_where_the_cursor_is() -> None:
    screen = Screen(20, 5)
    show = painter(screen)
    editor = Editor([])
    editor.press(Key("paste", "\n".join(f"line {number}" for number in range(30))))
    screen.feed(show.edit(editor.view("> ", ". ", 20), "> ", ". "))
    assert screen.lines == [f". line {number}" for number in (26, 27, 28, 29)]
    for _ in range(20):
        editor.press(Key("up"))
    screen.feed(show.edit(editor.view("> ", ". ", 20), "> ", ". "))
    assert screen.lines[0] == ". line 9"
    assert (screen.row, screen.column) == (0, 8)


def test_styles_only_where_they_are_wanted() -> None:
    screen = Screen()
    assert "\x1b" in painter(screen).line(painter(screen).style("a", "bad"))
    assert painter(screen, colour=False).style("a", "bad") == "a"
    plain = Painter(lambda: (80, 24), control=False, colour=True)
    text = plain.words("a\x1bb") + plain.below(["x"]) + plain.line(plain.style("c", "bad")) + plain.end_words()
    assert text == "ab\nc\n"


class Shown(Terminal):
    """A terminal whose output goes to a screen."""

    def __init__(self, screen: Screen) -> None:
        super().__init__({})
        self.screen = screen
        self.painter = painter(screen)

    def put(self, text: str) -> None:
        self.screen.feed(text)


@pytest.fixture
def clock() -> trio.testing.MockClock:
    return trio.testing.MockClock()


async def test_a_turn_as_it_is_seen(clock: trio.testing.MockClock) -> None:
    terminal = Shown(Screen(60, 40))
    reply = Reply(terminal, reasoning=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reply.animate)
        await trio.testing.wait_all_tasks_blocked()
        clock.jump(3.05)
        await trio.testing.wait_all_tasks_blocked()
        assert "thinking  3 s" in terminal.screen.text
        reply.show(Thoughts("not shown"))
        reply.show(Words("I will look."))
        assert reply.show(Started("1", "terminal", '{"command": "ls"}'))
        reply.show(Started("2", "read_file", '{"path": "a\x1b[2J"}'))
        clock.jump(2.0)
        await trio.testing.wait_all_tasks_blocked()
        assert terminal.screen.lines[0] == "I will look."
        assert [line[2:] for line in terminal.screen.lines[1:]] == ["terminal  ls  2.0 s", "read_file  a[2J  2.0 s"]
        reply.show(Finished("2", "read_file", False, 0.25, "no such\nfile"))
        reply.show(Finished("1", "terminal", True, 123.0, "a\nb"))
        reply.show(Step(2))
        reply.show(Words("\n\nDone."))
        reply.show(Completed("length"))
        nursery.cancel_scope.cancel()
    reply.end()
    assert terminal.screen.lines == [
        "I will look.",
        "● read_file  a[2J  failed 0.2 s",
        "  no such file",
        "● terminal  ls  ok 123 s",
        "Done.",
        "(cut at the model's length limit)",
        "",
    ]


def test_a_turn_that_is_left_shows_what_was_not_finished() -> None:
    async def main() -> list[str]:
        terminal = Shown(Screen(60, 40))
        reply = Reply(terminal, reasoning=True)
        reply.show(Thoughts("Hm. "))
        reply.show(Words("So"))
        reply.show(Started("1", "terminal", "{}"))
        assert not reply.show(Failed("the model\nleft"))
        reply.end()
        return terminal.screen.lines

    assert trio.run(main) == ["Hm.", "So", "✗ the model left", "● terminal  not finished", ""]
