"""HTML whose tags have no end is read about as quickly as any other: one mail does not keep everybody else waiting."""

from __future__ import annotations

import pytest

from platforms.email.html_text import words_of_html


@pytest.mark.parametrize("piece", ["<a ", "<a b='", "<!--", "<!", "<?", "</", "<", "<![CDATA[", "&", '<b c="'])
def test_tags_without_end_cost_little(piece: str) -> None:
    assert words_of_html("<p>Hello</p>" + piece * (300_000 // len(piece))).startswith("Hello")


@pytest.mark.parametrize("size", [10, 100_000, 300_000])
def test_what_is_long_is_read_whole(size: int) -> None:
    image = f"<p>before</p><img src='data:image/png;base64,{'A' * size}' alt='a picture'><p>after</p>"
    assert words_of_html(image).split() == ["before", "a", "picture", "after"]
    style = f"<p>before</p><style>{'x' * size}</style>after<style>{'y' * size}"
    assert words_of_html(style).split() == ["before", "after"]
    assert words_of_html("<b>x &amp; y</b> " * (size // 10)).count("x & y") == size // 10
    assert words_of_html(f"<p>before</p><a {'x ' * size}").startswith("before")
