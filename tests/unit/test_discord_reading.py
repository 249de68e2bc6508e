"""How Discord's clients read what is written: examples of what they are known to show."""

from __future__ import annotations

import re

import pytest

from hermes.rendering.discord_reading import seen

CASES = [
    ("**a** *b* ***c*** __d__ _e_ ~~f~~ ||g||", "a b c d e f g"),
    ("`a*b*` ``c ` d`` `` `e` ``", "a*b* c ` d `e`"),
    ("\\*a\\* \\`b\\` \\\\ \\a \\é", "*a* `b` \\ \\a é"),
    ("a * b * c", "a * b * c"),
    ("2*3*4", "234"),
    ("snake_case_name my_var and `foo_`", "snake_case_name myvar and `foo`"),  # marks are blind to code
    ("**a `**` b**", "a `` b**"),
    ("# a\n### b #\n#### c\n#d\n-# e", "a\nb\n#### c\n#d\ne"),
    ("> a **b\n> c** d\ne", "a b\nc d\ne"),
    ("> > a", "> a"),
    (">>> a\nb", "a\nb"),
    (">a", ">a"),
    ("- a\n  - *b\n    c*\n7. d", "a\nb\nc\n7. d"),
    ("- > a", "a"),
    ("```py\n**a**\n```", "**a**"),
    ("```a b```", "a b"),
    ("> ```\n> a\n> ```", "a"),
    ("[a *b*](https://e.org/(x)) [c](<https://e.org>)", "a b c"),
    ("[https://e.org](https://e.org) [a](mailto:a@b.co)", "[https://e.org](https://e.org) [a](mailto:a@b.co)"),
    ("<https://e.org/_a_> https://e.org/_a_b_", "https://e.org/_a_ https://e.org/_a_b_"),
    ("ahttps://e.org/_a_ b", "ahttps://e.org/_a_ b"),
    ("<@123> @\u200beveryone <:name:45>", "<@123> @\u200beveryone <:name:45>"),
    ("| a | b |", "| a | b |"),
]


@pytest.mark.parametrize(("content", "shown"), CASES)
def test_what_is_seen(content: str, shown: str) -> None:
    assert re.sub(r"\s*\n\s*", "\n", seen(content)).strip() == shown


@pytest.mark.parametrize("piece", ["*", "**", "_", "||", "~~", "`", "[", "[a](", "> ", "- ", "> - ", "*a ", "**a"])
def test_no_message_takes_long(piece: str) -> None:
    """It is read as it stands, whatever its signs: this ends, within the guard of a test."""
    assert len(seen(piece * (2000 // len(piece)))) <= 2000
