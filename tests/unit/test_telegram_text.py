"""The fake's reading of HTML: the service's rules and words, from its documentation and its server's source."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes.testing.telegram_text import BadRequest, Entity, check_text, parse_html, units

REFUSED = [
    ("<x>a</x>", 'Unsupported start tag "x" at byte offset 0'),
    ("é<x>a</x>", 'Unsupported start tag "x" at byte offset 2'),
    ("a < b", 'Unsupported start tag "" at byte offset 2'),
    ("<b", "Unclosed start tag at byte offset 0"),
    ("<b>a", 'Can\'t find end tag corresponding to start tag "b"'),
    ("a</b>", "Unexpected end tag at byte offset 1"),
    ("<b><i>a</b></i>", 'Unmatched end tag at byte offset 7, expected "</i>", found "</b>"'),
    ("<b>a</b", "Unclosed end tag at byte offset 4"),
    ("<b>a</b x>", "Unclosed end tag at byte offset 4"),
    ('<a href="x>a</a>', "Unclosed start tag at byte offset 0"),
    ("<a href=x/y>a</a>", "Unexpected end of name token at byte offset 8"),
    ('<a ="x">a</a>', 'Empty attribute name in the tag "a" at byte offset 0'),
    ("<span>a</span>", 'Tag "span" must have class "tg-spoiler" at byte offset 0'),
    ('<tg-emoji emoji-id="x">a</tg-emoji>', "Invalid custom emoji identifier specified"),
    (
        "&#xd800;",
        "Text contains invalid Unicode characters after decoding HTML entities, check for unmatched surrogate code units",
    ),
]


@pytest.mark.parametrize(("html", "words"), REFUSED)
def test_what_the_service_refuses(html: str, words: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_html(html)
    assert str(caught.value) == f"can't parse entities: {words}"


def shown(html: str) -> tuple[str, list[tuple[str, int, int]]]:
    text, entities = check_text(html, "HTML")
    return text, [(each.type, each.offset, each.length) for each in entities]


READ = [
    ("<b>a<i>b</i></b>", "ab", [("bold", 0, 2), ("italic", 1, 1)]),
    (
        "<STRONG>a</strong><ins>b</ins><del>c</del>",
        "abc",
        [("bold", 0, 1), ("underline", 1, 1), ("strikethrough", 2, 1)],
    ),
    ("😀<b>😀</>", "😀😀", [("bold", 2, 2)]),
    ("&lt;b&gt; &amp;amp; &quot;&#65;&#x42; &nbsp; &lt &copy; &", '<b> &amp; "AB &nbsp; < &copy; &', []),
    ("<b></b>a<i> </i>", "a", []),
    ("<b>a <code>b</code> c</b>", "a b c", [("bold", 0, 2), ("code", 2, 1), ("bold", 3, 2)]),
    ("<blockquote>a<blockquote>b</blockquote></blockquote>", "ab", [("blockquote", 0, 2)]),
    ("<blockquote expandable>a</blockquote>", "a", [("expandable_blockquote", 0, 1)]),
    ('<span class="tg-spoiler">a</span>', "a", [("spoiler", 0, 1)]),
    ('<a href="http://localhost/">a</a><a href="javascript:x">b</a><a>c.org</a>', "abc.org", [("text_link", 2, 5)]),
    ('<a href="tg://user?id=12">a</a>', "a", [("text_mention", 0, 1)]),
    (" \n a\tb\r\u202e <b> c</b> \n", "a b  c", [("bold", 4, 2)]),
]


@pytest.mark.parametrize(("html", "text", "entities"), READ)
def test_what_the_service_shows(html: str, text: str, entities: list[tuple[str, int, int]]) -> None:
    assert shown(html) == (text, entities)


def test_code_in_pre_names_its_language_either_way_around() -> None:
    expected = [Entity(type="pre", offset=0, length=1, language="py")]
    assert parse_html('<pre><code class="language-py">x</code></pre>')[1] == expected
    assert parse_html('<code class="language-py"><pre>x</pre></code>')[1] == expected
    assert parse_html('<code class="language-py">x</code>')[1] == [Entity(type="code", offset=0, length=1)]


LIMITS = [
    ("", "message text is empty"),
    (" \n", "text must be non-empty"),
    ("<b></b>", "text must be non-empty"),
    ("\u200b\u2800", "message text is empty"),
    ("😀" * 2049, "message is too long"),
    ("<b>" + "&lt;" * 4097 + "</b>", "message is too long"),
    ("&lt;" * 8193, "text is too long"),
    ("a\ud83d", "strings must be encoded in UTF-8"),
]


@pytest.mark.parametrize(("html", "words"), LIMITS)
def test_limits_count_what_is_shown_and_what_is_sent(html: str, words: str) -> None:
    with pytest.raises(BadRequest) as caught:
        check_text(html, "HTML")
    assert str(caught.value) == words
    assert check_text("&amp;" * 4096, "html")[0] == "&" * 4096
    assert check_text("", None, caption=True) == ("", [])


@given(st.text(st.sampled_from("<>/&;#x\"'= abipre\n\0é😀"), max_size=40))
def test_any_text_is_read_or_refused(html: str) -> None:
    try:
        text, entities = parse_html(html)
    except BadRequest as refused:
        text, entities = str(refused).removeprefix("can't parse entities: "), []
        words = str(refused)
    else:
        words = f"can't parse entities: {text}"
    assert words == f"can't parse entities: {text}"
    assert all(0 <= each.offset < each.end <= units(text) for each in entities)
