"""What each dialect makes of markdown, case by case."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hermes.platform import Capabilities
from hermes.rendering import MIN_ROOM, plain_text, render
from hermes.rendering.units import fitting, size, well_formed
from hermes.testing.telegram_text import parse_html


def one(markdown: str, dialect: str) -> str:
    (part,) = render(markdown, Capabilities(dialect=dialect, max_text=4096, unit="utf16"))  # type: ignore[arg-type]
    return part


CASES = [
    ("Some **bold *and em* text**, ~~gone~~.", "telegram_html", "Some <b>bold <i>and em</i> text</b>, <s>gone</s>."),
    ("||hid|| and a || b || c", "telegram_html", "<tg-spoiler>hid</tg-spoiler> and a || b || c"),
    ("**`x` y**", "telegram_html", "<code>x</code><b> y</b>"),
    ('[**b** `c`](<https://e.org/?a=1&b="2">)', "telegram_html", '<a href="https://e.org/?a=1&amp;b=%222%22"><b>b</b> c</a>'),
    ("[a](http://localhost/x) [b](mailto:a@b.co) [c](x.md)", "telegram_html", "a (http://localhost/x) b (mailto:a@b.co) c (x.md)"),
    ("[a](javascript:alert(1))", "telegram_html", "[a](javascript:alert(1))"),
    ("![alt](https://e.org/x.png)", "telegram_html", '<a href="https://e.org/x.png">alt</a>'),
    ("<b>not</b> & <script>", "telegram_html", "&lt;b&gt;not&lt;/b&gt; &amp; &lt;script&gt;"),
    ("# One\n## Two", "telegram_html", "<b>One</b>\n<b>Two</b>"),
    ("```py\na < b\n```", "telegram_html", '<pre><code class="language-py">a &lt; b</code></pre>'),
    ("> a\n> > b\n\nc", "telegram_html", "<blockquote>a\n&gt; b</blockquote>\n\nc"),
    ("- a\n  - [x] b\n  - [ ] c\n1. d", "telegram_html", "• a\n  ☑ b\n  ☐ c\n1. d"),
    ("3. a\n3. b", "telegram_html", "3. a\n4. b"),
    ("a\\\nb  \nc\nd", "telegram_html", "a\nb\nc\nd"),
    ("[a]: https://e.org", "telegram_html", "[a]: https://e.org"),
    ("# One\n#### Four\n- # in item", "discord", "# One\n**Four**\n- **in item**"),
    ("@everyone and <@123> @here", "discord", "@\u200beveryone and <@123> @\u200bhere"),
    ("a_b_c \\_x\\_ 2\\*3 \\# no \\`t\\`", "discord", "a\\_b\\_c \\_x\\_ 2\\*3 # no \\`t\\`"),
    ("\\# no\n\\- no\n1\\. no\n\\> no\n\\-# no", "discord", "\\# no\n\\- no\n1\\. no\n\\> no\n\\-# no"),
    ("see https://e.org/a_b_c_ and <https://e.org>", "discord", "see https://e.org/a_b_c_ and https://e.org"),
    ("**<https://e.org>**", "discord", "**<https://e.org>**"),
    ("[see https://a.org](https://b.org) [https://c.org](https://c.org)", "discord", "see https://a.org (https://b.org) https://c.org"),
    ("**a `**` b**", "discord", "a `**` b"),
    ("`a``b` [`x[0]` y](https://e.org)", "discord", "a\\`\\`b [x\\[0\\] y](https://e.org)"),
    ("> **a\n> b**", "discord", "> **a**\n> **b**"),
    ("> > # a", "discord", "> > **a**"),
    ("\\<https://e.org> https://e.org/x`y`", "discord", "\\<https:\\//e.org> https:\\//e.org/x`y`"),
    ("| a |\n|---|\n| [b](https://e.org) |", "telegram_html", '• <b>a</b>: <a href="https://e.org">b</a>'),
    ("5. > a\n   >\n   > b", "markdown", "5. > a\n   >\n   > b"),
    ("1. |   |\n   |---|\n2. b", "plain", "1.\n\n2. b"),
    ("```\na ``` b\n```", "discord", "```\na `\u200b`\u200b` b\n```"),
    ("- a\n\n  ```py\n  x\n  ```", "discord", "- a\n\n```py\nx\n```"),
    ("> ```\n> x\n> ```", "discord", "> ```\n> x\n> ```"),
    ("| a | b |\n|:-:|--:|\n| ä | `22` |", "discord", "```\na   b\n─  ──\nä  22\n```"),
    ("a  \nb", "markdown", "a\\\nb"),
    ("* a\n* b\n\n  c", "markdown", "- a\n- b\n\n  c"),
    ("| a | b |\n|---|--:|\n| x\\|y | **z** |", "markdown", "| a    | b     |\n| ---- | ----: |\n| x\\|y | **z** |"),
    ("A\n===\n\n***\n~~~\n`\n~~~", "markdown", "# A\n\n***\n\n```\n`\n```"),
    ("> a\n\n> b", "plain", "> a\n\n> b"),
    ("[a](https://e.org) **b** `c` <https://e.org>", "plain", "a (https://e.org) b c https://e.org"),
    ("שלום **עולם** 👩‍👩‍👧 e\u0301", "plain", "שלום עולם 👩‍👩‍👧 e\u0301"),
]  # fmt: skip


@pytest.mark.parametrize(("markdown", "dialect", "expected"), CASES)
def test_one_part(markdown: str, dialect: str, expected: str) -> None:
    assert one(markdown, dialect) == expected


def test_a_wide_table_is_a_list_that_repeats_its_head() -> None:
    table = "| Name | What it is for |\n|---|---|\n" + "| a | a text that is much too long for a telephone |\n| b | |\n"
    assert one(table, "telegram_html") == (
        "• <b>Name</b>: a\n  <b>What it is for</b>: a text that is much too long for a telephone\n• <b>Name</b>: b"
    )


def test_a_wide_head_without_rows_is_shown_by_itself() -> None:
    table = "| " + "Name " * 6 + "| " + "Purpose " * 6 + "|\n|---|---|\n| | |\n"
    assert one(table, "plain") == "Name Name Name Name Name Name\nPurpose Purpose Purpose Purpose Purpose Purpose"


def test_what_nobody_sees_is_no_part() -> None:
    assert render("> \u200d", Capabilities(dialect="telegram_html", unit="utf16")) == ()


def test_code_is_continued_in_fences_with_its_language() -> None:
    code = "".join(f"line {number}\n" for number in range(100))
    parts = render(f"Look:\n```py\n{code}```\nend", Capabilities(dialect="discord", max_text=400))
    assert len(parts) > 2
    assert all(each.count("```") == 2 and "```py\n" in each for each in parts)
    assert parts[0].startswith("Look:\n```py\nline 0\n")
    assert (
        "".join(each.replace("```py\n", "").replace("\n```", "\n") for each in parts).split()
        == f"Look: {code} end".split()
    )


def test_quotes_and_styles_go_on_in_the_next_part() -> None:
    parts = render("> **" + "word " * 200 + "end.**", Capabilities(dialect="telegram_html", max_text=300, unit="utf16"))
    assert len(parts) == 4
    for part in parts:
        text, entities = parse_html(part)
        assert {(each.type, each.length) for each in entities} == {("blockquote", len(text)), ("bold", len(text))}


def test_a_part_ends_with_a_block_if_it_can_else_with_a_sentence() -> None:
    paragraph = "This is a sentence of words. " * 5
    parts = render("\n\n".join([paragraph] * 3), Capabilities(max_text=200))
    assert parts == (paragraph.strip(),) * 3
    parts = render("# Head of it\n\n".join([paragraph + "\n\n", paragraph]), Capabilities(max_text=200))
    assert parts == (paragraph.strip(), "Head of it\n\n" + paragraph.strip())
    parts = render(paragraph * 3, Capabilities(max_text=200))
    assert all(each.endswith("words.") for each in parts)


@pytest.mark.parametrize("letter", ["👩‍👩‍👧‍👦", "👍🏽", "🇩🇪", "e\u0301\u0323", "क्षि", "1️⃣", "\u1112\u1161\u11ab"])
@pytest.mark.parametrize("unit", ["utf16", "codepoint", "byte"])
def test_what_one_sees_as_a_letter_is_never_cut(letter: str, unit: str) -> None:
    capabilities = Capabilities(max_text=MIN_ROOM + 1, unit=unit)  # type: ignore[arg-type]
    parts = render("x" + letter * 300, capabilities)
    assert "".join(parts) == "x" + letter * 300
    assert len(parts) > 1
    assert all(each.removeprefix("x").replace(letter, "") == "" for each in parts)


def test_a_letter_that_is_longer_than_a_part_is_cut_all_the_same() -> None:
    assert fitting("e" + "\u0301" * 50, 10, 1, "codepoint") == 10


@pytest.mark.parametrize("nothing", ["", " \n\t", "\u200b\u200d\ufeff", "\u2800\u3164", "\u0301", "```\n```", "> \n> "])
def test_what_shows_nothing_has_no_parts(nothing: str) -> None:
    assert render(nothing, Capabilities(dialect="telegram_html")) == ()


def test_limits_are_kept_to_the_unit_and_leave_room_for_a_suffix() -> None:
    text = "😀" * 1000
    for unit in ("utf16", "codepoint", "byte"):
        parts = render(text, Capabilities(max_text=400, unit=unit), suffix_room=40)  # type: ignore[arg-type]
        assert all(350 < size(each, unit) <= 360 for each in parts[:-1])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="room"):
        render("a", Capabilities(max_text=MIN_ROOM), suffix_room=1)


def test_the_bytes_of_html_are_bounded_too() -> None:
    many = " ".join(f"[a](https://example.com/{'x' * 500}{number})" for number in range(300))
    parts = render(many, Capabilities(dialect="telegram_html", unit="utf16"))
    assert len(parts) > 4
    assert all(len(each.encode()) <= 32_768 for each in parts)


def test_deep_nesting_loses_nothing() -> None:
    for deep in ("> " * 100 + "end", "".join("  " * depth + f"- i{depth}\n" for depth in range(60))):
        assert plain_text(deep).split()[-1] in ("end", "i59")


def test_surrogates_and_line_ends_are_made_whole() -> None:
    assert well_formed("a\ud83d\r\nb\rc") == "a\ufffd\nb\nc"
    assert render("\ud83d x", Capabilities()) == ("\ufffd x",)


def test_the_parser_is_imported_with_the_first_markup_only() -> None:
    script = (
        "import sys; from hermes.rendering import render; from hermes.platform import Capabilities;"
        "render('plain words', Capabilities()); print('markdown_it' in sys.modules, end=' ');"
        "render('*x*', Capabilities()); print('markdown_it' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
