"""Replacing an exact piece of a text: hermes.tools.patching."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hermes.errors import ToolError
from hermes.tools.patching import apply_patch

TEXT = "def one():\n    return 1\n\ndef two():\n    return 2\n"
texts = st.text(st.sampled_from("ab \n\r\t"), max_size=30)


def test_a_piece_that_occurs_once_is_replaced() -> None:
    patched = apply_patch(TEXT, "    return 2", "    return 3")
    assert patched.text == TEXT.replace("2", "3")
    assert patched.lines == (5,)


def test_every_occurrence_if_that_was_asked() -> None:
    patched = apply_patch(TEXT, "return", "yield", replace_all=True)
    assert patched.text.count("yield") == 2
    assert patched.lines == (2, 5)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("", "x", "old is empty"),
        ("return 1", "return 1", "nothing to do"),
        ("return", "yield", r"occurs 2 times \(at lines 2, 5\)"),
        ("  return 1\n\n", "x", None),
        ("\treturn 1\n\tpass", "x", "at line 2 except for white space"),
        ("def thwo():", "x", "nearest is line 4: 'def two\\(\\):'"),
        ("class Nothing", "x", "Nothing in the file is similar"),
        ("\n\n\n\n", "x", "holds only white space"),
    ],
)
def test_what_cannot_be_done_says_what_to_do(old: str, new: str, complaint: str | None) -> None:
    if complaint is None:
        assert apply_patch(TEXT, old, new).lines == (2,)
        return
    with pytest.raises(ToolError, match=complaint):
        apply_patch(TEXT, old, new)


def test_line_ends_of_a_dos_file_are_kept() -> None:
    patched = apply_patch("a\r\nb\r\nc\r\n", "a\nb", "a\nx\nb")
    assert patched.text == "a\r\nx\r\nb\r\nc\r\n"


def test_a_file_of_mixed_line_ends_is_taken_as_it_is() -> None:
    with pytest.raises(ToolError, match="not found"):
        apply_patch("a\r\nb\nc", "a\nb", "x")


@given(texts, texts, texts, texts)
def test_one_occurrence_is_replaced_and_nothing_else_changes(before: str, old: str, after: str, new: str) -> None:
    text = before + old + after
    assume(old and old != new and text.count(old) == 1 and text.find(old, text.find(old) + 1) < 0)
    assert apply_patch(text, old, new).text == before + new + after


@given(texts, texts, texts, st.booleans())
def test_a_patch_is_what_replace_does_or_a_refusal(text: str, old: str, new: str, everywhere: bool) -> None:
    try:
        patched = apply_patch(text, old, new, replace_all=everywhere)
    except ToolError:
        assert not old or old == new or old not in text or text.count(old) > 1
        return
    if old in text:
        assert patched.text == text.replace(old, new)
        assert len(patched.lines) == text.count(old)
        assert [text.split("\n")[line - 1] for line in patched.lines]  # each is a line of the text
    else:
        assert "\r\n" in text  # the one liberty that is taken


@given(texts, texts)
def test_a_patch_can_be_undone(old: str, new: str) -> None:
    assume(old and new and old != new)
    text = f"<<{old}>>"
    assume(text.count(old) == 1)
    there = apply_patch(text, old, new).text
    assume(there.count(new) == 1)
    assert apply_patch(there, new, old).text == text
