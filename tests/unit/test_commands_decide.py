"""The decisions inside commands: which exchange is the last, which conversation is meant, what people read."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes.commands import NAMES, texts
from hermes.commands.run import _RUN, choose, count
from hermes.store.conversations import MAX_EXCHANGES, Outcome, exchange_start
from hermes.store.rows import SessionRow

History = list[tuple[int, str, str]]


def told(*turns: str) -> History:
    """A history, newest first, from turns written as `name:roles` with u, a, t for user, assistant, tool."""
    roles = {"u": "user", "a": "assistant", "t": "tool"}
    found: History = []
    for turn in turns:
        name, _, letters = turn.partition(":")
        found += [(len(found) + number, name, roles[each]) for number, each in enumerate(letters, 1)]
    return [(place, name, role) for place, (_, name, role) in enumerate(found, 1)][::-1]


@pytest.mark.parametrize(
    ("turns", "start"),
    [
        ([], None),
        (["1:ua"], 1),
        (["1:ua", "2:ua"], 3),
        (["1:ua", "2:uatata"], 3),
        (["1:ua", "2:uatuata"], 3),  # something was said into the turn
        (["1:ua", "2:uuua"], 3),  # a burst, or what was said to others
        (["1:ua", "2:u", "3:ua"], 3),  # begun anew with a newer message
        (["1:ua", "2:uat", "3:a"], 3),  # gone on with after a death
        (["1:ua", "2:uat", "3:atua"], 3),  # the same, and something was said into it
        (["1:uat"], 1),
        (["1:a"], 1),
    ],
)
def test_where_the_last_exchange_begins(turns: list[str], start: int | None) -> None:
    assert exchange_start(told(*turns)) == start


TURNS = st.lists(st.from_regex(r"\A(u{1,3}(at)*a|u|(at)*a|u(at){1,2}u(at)?a)\Z"), max_size=6)


@given(TURNS)
def test_what_is_left_of_a_history_ends_with_an_answer_or_is_nothing(turns: list[str]) -> None:
    history = told(*(f"{number}:{letters}" for number, letters in enumerate(turns)))
    start = exchange_start(history)
    if not history:
        assert start is None
        return
    assert start is not None
    left = [each for each in history if each[0] < start]
    dropped = [each for each in history if each[0] >= start]
    assert not left or left[0][2] != "user"
    assert {turn for _, turn, _ in left}.isdisjoint({turn for _, turn, _ in dropped})
    if left:
        assert dropped[-1][2] == "user"
    rest = 0
    while history:  # each exchange goes as a whole, and together they are everything
        start = exchange_start(history)
        assert start is not None
        history = [each for each in history if each[0] < start]
        rest += 1
    assert rest <= max(1, len(turns))


def row(session_id: str, title: str | None = None) -> SessionRow:
    return SessionRow(
        id=session_id, key="k", source="s", principal="p", title=title, model=None, instructions=None, parent_id=None,
        created_at=0, updated_at=0, ended_at=None, end_reason=None, expires_at=None, turns=0, messages=0, has_prefix=False,
        input_tokens=0, output_tokens=0,
    )  # fmt: skip


ROWS = [
    row("sess_0000aaaaaa", "Rome"),
    row("sess_0000bbbbbb", "2"),
    row("sess_0000cccccc"),
    row("sess_0000dddddd", "rome"),
]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("1", [0]), ("2", [1]), (" 4 ", [3]), ("0", []), ("5", []), ("ROME", [0, 3]), ("bbbbbb", [1]), ("bbbbb", []),
        ("sess_0000cccccc", [2]), ("\u0661", []), ("", []), ("%", []), ("99999999", []),
    ],
)  # fmt: skip
def test_which_conversation_is_meant(wanted: str, found: list[int]) -> None:
    assert choose(ROWS, wanted) == [ROWS[each] for each in found]


@given(st.lists(st.builds(row, st.text(max_size=3), st.none() | st.text(max_size=3)), max_size=4), st.text(max_size=4))
def test_only_what_was_offered_is_chosen(rows: list[SessionRow], wanted: str) -> None:
    assert all(each in rows for each in choose(rows, wanted))


@given(st.text(max_size=5) | st.integers().map(str))
def test_how_many_is_a_number_within_bounds(text: str) -> None:
    found = count(text)
    assert found is None or 1 <= found <= MAX_EXCHANGES
    assert (found is None) == (text != "" and text not in {f"{n:0{w}}" for n in range(1, 21) for w in (1, 2, 3)})


@given(st.text(max_size=300))
def test_words_of_a_person_are_one_line_without_markup(text: str) -> None:
    shown = texts.plain(text)
    assert "\n" not in shown
    assert not re.search(r"(?<!\\)[`*_<>\[\]#|]", shown.replace("\\\\", ""))
    assert "`" not in texts.code(text)[1:-1]


@given(st.lists(st.text(max_size=300) | st.none(), max_size=12))
def test_each_of_the_first_conversations_has_a_button_that_any_service_takes(titles: list[str | None]) -> None:
    rows = [row(f"sess_{number:030x}", title) for number, title in enumerate(titles)]
    shown = texts.session_buttons(rows)
    assert all(len(row) == 2 for row in shown[:-1])
    found = [each for row in shown for each in row]
    assert [choose(rows, each.data.removeprefix("/resume ")) for each in found] == [[each] for each in rows[:8]]
    for number, each in enumerate(found, 1):
        assert each.text.startswith(f"{number}.")
        assert len(each.text) <= 24
        assert len(each.data.encode()) <= 64


def test_a_conversation_whose_id_no_button_can_carry_has_none() -> None:
    shown = texts.session_buttons([row("s" * 57, "long"), row("s" * 56, "fits")])
    assert [[each.text for each in row] for row in shown] == [["2. fits"]]


def test_every_command_is_run_and_every_outcome_has_words() -> None:
    assert _RUN.keys() == NAMES
    for what in ("done", "nothing", "busy", "unknown", "same", "elsewhere"):
        done = Outcome(what=what, number=1)  # type: ignore[arg-type]
        for say in (texts.anew, texts.resumed, texts.branched, texts.undone, texts.retried):
            assert say(done)
        assert texts.titled(done, asked=True)
