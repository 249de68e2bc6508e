"""Slack's mrkdwn, by examples; the properties are in `test_rendering_properties.py`."""

from __future__ import annotations

import pytest

from hermes.platform import Capabilities
from hermes.rendering import render
from hermes.testing.slack_text import BadMrkdwn, visible

J, Z = "\u2060", "\u200b"  # the joiner that disarms a sign, the space that lets one work inside of a word

EXAMPLES = (
    ("Some **bold *and em* text**, ~~gone~~.", "Some *bold _and em_ text*, ~gone~."),
    ("a & b < c > d", "a &amp; b &lt; c &gt; d"),
    ("<!here> <@U123> \\<http://x.org>", "&lt;!here&gt; &lt;@U123&gt; &lt;http://x.org&gt;"),
    ("@here @channel", "@here @channel"),
    ("[words & **more**](https://e.org/?a=1&b=2|3)", "<https://e.org/?a=1&amp;b=2%7C3|words &amp; more>"),
    ("[a](mailto:a@b.co) [b](x.md)", "a (mailto:a@b.co) b (x.md)"),
    ("<https://e.org/a_b_>", "<https://e.org/a_b_|https://e.org/a_b_>"),
    ("*https://e.org/a* **at (https://e.org/b).**", "_<https://e.org/a>_ *at (<https://e.org/b>).*"),
    ("~~x~~ https://e.org/a\\~\\~b\\~\\~c?d&e.", "~x~ <https://e.org/a~~b~~c?d&amp;e>."),
    ("http://e.org/a_(b) as it is", "http://e.org/a_(b) as it is"),
    ("ahttps://e.org/a\\~\\~b\\~\\~", f"ahttps://e.org/a{J}~{J}{J}~{J}b{J}~{J}{J}~{J}"),
    ("# One\n## **Two**", "*One*\n*Two*"),
    ("- a\n  - [x] b\n  - [ ] c\n1. d", "• a\n  ◦ ☑ b\n  ◦ ☐ c\n1. d"),
    ("> a\n> > b\n\nc", "> a\n> &gt; b\n\nc"),
    ("```py\na < b & c\n```", "```\na &lt; b &amp; c\n```"),
    ("````\na ``` b\n````", f"```\na `{Z}`{Z}` b\n```"),
    ("- a\n\n  ```\n  x\n  ```", "• a\n\n```\nx\n```"),
    ("`a & b`", "`a &amp; b`"),
    ("``a ` b``", f"a {J}`{J} b"),
    ("un**believ**able", f"un{Z}*believ*{Z}able"),
    ("**a***b*", f"*a*{Z}_b_"),
    ("\\*no\\* and \\_no\\_", f"{J}*{J}no{J}*{J} and {J}_{J}no{J}_{J}"),
    ("2 * 3 * 4, snake_case_name, ~5 minutes", "2 * 3 * 4, snake_case_name, ~5 minutes"),
    ("\\> no quote", f"{J}&gt; no quote"),
    ("||hidden||", "hidden"),
    ("**two\\\nlines**", "*two*\n*lines*"),
    ("[two\nlines](https://e.org)", "<https://e.org|two lines>"),
    ("| a | b |\n|:-:|--:|\n| ä | `22` |", "```\na   b\n─  ──\nä  22\n```"),
)  # fmt: skip


@pytest.mark.parametrize(("markdown", "mrkdwn"), EXAMPLES)
def test_examples(markdown: str, mrkdwn: str) -> None:
    assert render(markdown, Capabilities(dialect="slack")) == (mrkdwn,)


def test_a_long_text_keeps_its_marks_and_the_limit() -> None:
    parts = render("> **" + "word & " * 300 + "end.**", Capabilities(dialect="slack", max_text=300))
    assert len(parts) > 3
    assert all(len(each) <= 300 and each.startswith("> *") and each.endswith("*") for each in parts)
    assert " ".join(map(visible, parts)).split() == (["word", "&"] * 300 + ["end."])


def test_a_long_code_has_fences_in_each_part() -> None:
    code = "".join(f"if a < {number}:\n" for number in range(100))
    parts = render(f"Look:\n```py\n{code}```\nend", Capabilities(dialect="slack", max_text=400))
    assert all(each.count("```") in (0, 2) and len(each) <= 400 for each in parts)


def test_the_reader_knows_what_slack_would_take_for_control_characters() -> None:
    assert visible("<https://e.org|a> &lt;b&gt; *c* `d` <@U1> <!here>") == "a <b> c d @U1 @here"
    for bad in ("a < b", "a > b", "a & b", "`a < b`"):
        with pytest.raises(BadMrkdwn):
            visible(bad, strict=True)
    assert visible("a*b*c 2*3*4 * a *") == "a*b*c 2*3*4 * a *"
