"""Rendering loses no word, keeps every limit, and writes nothing that a service refuses, whatever the markdown."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from nasty_markdown import BLOCKS, MARKDOWN, ROOMS, SOUP, UNITS
from what_is_said import Dialect, Reading, says, shown

from hermes.platform import Capabilities
from hermes.rendering import plain_text, render
from hermes.rendering.plainly import as_it_is
from hermes.rendering.splitting import split
from hermes.rendering.units import is_visible, size, well_formed
from hermes.testing.telegram_text import MAX_RAW_BYTES, check_text, parse_html, units

pytestmark = pytest.mark.wall_clock_s(900)
MESSAGES = 5000 if os.environ.get("HERMES_FULL") == "1" else 400
# Found by earlier searches: a cell that nobody sees; the end of a direction cut from its words; signs in what is no address.
UNSEEN_CELL = "a\n\n| a | [**a** `a`](https://example.com) |\n| --- | --- |\n| \u0301 | \u200d |"
CUT_DIRECTION = (
    "> > - a\n> > - a\n> > - a\n> >   a  \n> >   a  \n> >   a  \n> >   "
    + "👩‍🚀" * 40
    + "  \n> >   **a<b>c**  \n> >   *-*\n> >\n> > | ***\u202bab\u202c** \u202bab\u202c* a | a |\n"
    + "> > | --- | --- |\n> > | a | a "
    + "é" * 90
    + " |"
)
BEGUN_DIRECTION = (
    "> a\n> \n> ```\n> \n> a n\u0303o **"
    + "x" * 70
    + "** **:-- *inner* :--** ``#hash ` #hash`` @here [a](http://e.org/a_b_(c)) \u202bab\u202c a a"
)
NO_ADDRESS = "```\n```\n\nahttps://example.com/a?b=1&c=2~~Hello,~~a"
ALIKE = MESSAGES == 400  # each short run searches the same markdown; the whole one searches further


@example(UNSEEN_CELL, 160)
@given(MARKDOWN, ROOMS)
@settings(max_examples=MESSAGES, derandomize=ALIKE)
def test_telegram_takes_every_part_and_shows_every_word(markdown: str, room: int) -> None:
    parts = render(markdown, Capabilities(dialect="telegram_html", max_text=room, unit="utf16"))
    for part in parts:
        seen, _ = check_text(part, "HTML")
        assert 0 < units(seen) <= units(parse_html(part)[0]) <= room
        assert len(part.encode()) <= MAX_RAW_BYTES
        assert "<b></b>" not in part
    text = well_formed(markdown)
    assert says([shown(each, "telegram_html") for each in parts], Reading(text, "telegram_html").found if parts else [])


@pytest.mark.parametrize("dialect", ["plain", "discord", "markdown", "slack"])
@example(UNSEEN_CELL, 160, "utf16")
@example(CUT_DIRECTION, 160, "byte")
@example(BEGUN_DIRECTION, 160, "utf16")
@example(NO_ADDRESS, 160, "utf16")
@given(MARKDOWN, ROOMS, UNITS)
@settings(max_examples=MESSAGES // 5, derandomize=ALIKE)
def test_other_dialects_keep_limits_and_words(dialect: Dialect, markdown: str, room: int, unit: Any) -> None:
    parts = render(markdown, Capabilities(dialect=dialect, max_text=room + 20, unit=unit), suffix_room=20)
    assert all(0 < size(each, unit) <= room and is_visible(each) for each in parts)
    text = well_formed(markdown)
    assert says([shown(each, dialect) for each in parts], Reading(text, dialect, room).found if parts else [])


@given(
    st.text(st.sampled_from("ab. ,!?'\"()%$€é日א😀1\n@:/-+="), max_size=80),
    st.sampled_from(("plain", "telegram_html", "discord", "markdown", "slack")),
)
@settings(max_examples=MESSAGES // 5, derandomize=ALIKE)
def test_the_short_way_leads_to_the_same(text: str, dialect: Dialect) -> None:
    """What is passed on as it is, is what the parser and the dialect would have made of it."""
    short = as_it_is(text, "utf16", 4096)
    if short is not None and is_visible(text):
        assert split(text, dialect, "utf16", 4096) == (short,)


@given(MARKDOWN)
@settings(max_examples=MESSAGES // 10)
def test_plain_text_has_all_words_in_one_piece(markdown: str) -> None:
    found = plain_text(markdown)
    assert says([found], Reading(well_formed(markdown), "plain").found if found else [])


@given(
    st.lists(st.one_of(BLOCKS, SOUP), min_size=20, max_size=40), st.sampled_from(("telegram_html", "discord", "slack"))
)
@settings(max_examples=max(3, MESSAGES // 500), phases=[Phase.generate])
def test_a_hundred_kilobytes(blocks: list[str], dialect: Dialect) -> None:
    whole = "\n\n".join(blocks)
    text = "\n\n".join([whole] * (100_000 // (len(whole) + 2) + 1))[:100_000]
    parts = render(text, Capabilities(dialect=dialect, max_text=2000, unit="utf16"))
    for part in parts:
        assert units(check_text(part, "HTML")[0] if dialect == "telegram_html" else part) <= 2000
    assert says(
        [shown(each, dialect) for each in parts], Reading(well_formed(text), dialect, 2000).found if parts else []
    )


HOSTILE = {
    "brackets": "[",
    "pairs of brackets": "[a](",
    "images": "![",
    "stars": "*a **b ",
    "backticks": "`a",
    "spoilers": "||a ",
    "lines": "a\n",
    "items": "- a\n",
    "deep items": "- ",
    "quotes": ">",
    "definitions": "[a]: b\n",
    "heads": "# a\n",
    "fences": "```\n",
    "rows": "|a|b|\n",
    "flags": "🇩🇪",
    "marks": "e\u0301",
    "one word": "x",
    "entities": "&#35;",
    "strikes": "~~a ",
    "tables": "|a|b|\n|-|-|\n|c|d|\n\n",
}


@pytest.mark.parametrize("piece", HOSTILE.values(), ids=HOSTILE)
def test_four_times_the_text_takes_no_more_than_a_few_times_the_steps(piece: str) -> None:
    """Linear, counted in calls of functions: time would say more of the machine."""

    def calls(length: int) -> int:
        count = 0

        def note(_frame: Any, event: str, _argument: Any) -> None:
            nonlocal count
            count += event in ("call", "c_call")

        text = piece * (length // len(piece))
        sys.setprofile(note)
        try:
            render(text, Capabilities(dialect="telegram_html", unit="utf16"))
        finally:
            sys.setprofile(None)
        return count

    calls(100)
    assert calls(24_000) < 7 * calls(6_000) + 20_000
