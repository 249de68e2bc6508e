"""Markdown with everything in it, half-open and nested, for Hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

WORDS = st.sampled_from(
    (
        "a",
        "word",
        "Hello,",
        "end.",
        "x_y_z",
        "2*3",
        "e.g.",
        "שלום",
        "مرحبا",
        "عليكم",
        "日本語のとても長い文章。続き",
        "e\u0301",
        "n\u0303o",
        "\u202bab\u202c",
        "👩‍👩‍👧‍👦",
        "👍🏽",
        "🇩🇪🇫🇷",
        "1️⃣",
        "क्षि",
        "zalgo\u0300\u0301\u0302",
        "<b>",
        "</i>",
        "&amp;",
        "&lt",
        "&",
        "<",
        ">",
        "a<b>c",
        "\\",
        "\\*",
        "#",
        "#hash",
        "1.",
        "2)",
        "-",
        "+",
        "=",
        "|",
        "||",
        "a|b",
        "*",
        "_",
        "~~",
        "`",
        "``",
        "[",
        "]",
        "[x]",
        "[ ]",
        "](",
        "!",
        "!",
        "@everyone",
        "@here",
        "<@123>",
        "https://example.com/a?b=1&c=2",
        "snake_case",
        "_under",
        "under_",
        "'quote'",
        '"quoted"',
        "C++",
        "...",
        "---",
        "&copy;",
        "&#0;",
        "x" * 70,
        "é" * 90,
        "👩‍🚀" * 40,
        "https://e.org/" + "p" * 200,
        ":--",
        "```",
        "~~~",
        "\u00a0",
        "tab\there",
        "||hid||",
    )
)
ADDRESSES = st.sampled_from(
    (
        "https://example.com",
        "http://e.org/a_b_(c)",
        "tg://resolve?domain=x",
        "mailto:a@b.co",
        "/relative",
        "http://localhost:80/x",
        "",
        'https://q.org/?a="b"&c=<d>',
        "javascript:alert(1)",
        "https://u.example/" + "y" * 120,
        "file.md",
        "ftp://f.org/x",
    )
)


@st.composite
def lines(draw: st.DrawFn, most: int = 14) -> str:
    out = []
    for word in draw(st.lists(WORDS, min_size=1, max_size=most)):
        how = draw(st.integers(0, 24))
        if how < 12:
            out.append(word)
        elif how < 18:
            mark = ("**", "*", "_", "~~", "`", "||")[how - 12]
            out.append(f"{mark}{word}{mark}")
        elif how == 18:
            out.append(f"[{word}]({draw(ADDRESSES)})")
        elif how == 19:
            out.append(f"![{word}](<{draw(ADDRESSES)}>)")
        elif how == 20:
            out.append(f"**{word} *inner* {word}**")
        elif how == 21:
            out.append(f"<{draw(ADDRESSES)}>")
        elif how == 22:
            out.append(f"``{word} ` {word}``")
        elif how == 23:
            out.append(f"***{word}** {word}*")
        else:
            out.append(f"[**{word}** `{word}`]({draw(ADDRESSES)})")
    glue = draw(st.sampled_from((" ", " ", " ", "", "\n", "  \n", "\\\n")))
    return glue.join(out)


@st.composite
def codes(draw: st.DrawFn) -> str:
    fence = draw(st.sampled_from(("```", "~~~~", "``````")))
    body = draw(
        st.lists(
            st.sampled_from(
                (
                    "x = 1",
                    "  if a < b && c:",
                    "",
                    "\t# <tag> &amp;",
                    "```",
                    "`" * 5,
                    "long " * 40,
                    "y" * 300,
                    "é日本" * 30,
                )
            ),
            max_size=9,
        )
    )
    language = draw(st.sampled_from(("", "python", "c++", "<x>", "a b c", "x" * 40)))
    end = draw(st.sampled_from((fence, fence, "")))
    return "\n".join((fence + language, *body, end))


@st.composite
def tables(draw: st.DrawFn) -> str:
    columns = draw(st.integers(1, 5))
    cells = lines(most=draw(st.integers(1, 6))).map(lambda text: text.replace("\n", " "))
    rows = [[draw(cells) for _ in range(columns)] for _ in range(draw(st.integers(1, 4)))]
    rule = draw(st.lists(st.sampled_from(("---", ":-:", "--:", ":--")), min_size=columns, max_size=columns))
    return "\n".join("| " + " | ".join(row) + " |" for row in (rows[0], rule, *rows[1:]))


def quoted(block: str) -> str:
    return "\n".join("> " + line for line in block.split("\n"))


@st.composite
def listed(draw: st.DrawFn, inner: st.SearchStrategy[str]) -> str:
    marker = draw(st.sampled_from(("-", "*", "1.", "7)", "- [ ]", "- [x]", "12345.")))
    items = draw(st.lists(inner, min_size=1, max_size=3))
    space = " " * (len(marker.split()[0]) + 1)
    gap = draw(st.sampled_from(("\n", "\n\n")))
    return gap.join(f"{marker} " + each.replace("\n", "\n" + space) for each in items)


LEAVES = st.one_of(
    lines(),
    lines(),
    lines(),
    codes(),
    tables(),
    st.sampled_from(("---", "***", "", "    indented <code>", "[a]: http://x.y", "<div>\nx")),
    st.builds(lambda level, text: "#" * level + " " + text, st.integers(1, 7), lines(5)),
    lines(4).map(lambda text: text + "\n==="),
)
BLOCKS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        inner.map(quoted),
        listed(inner),
        st.tuples(inner, inner).map("\n\n".join),
        st.tuples(inner, inner).map("\n".join),
    ),
    max_leaves=8,
)
SOUP = st.text(st.sampled_from("*_`[]()<>|~#-+.!\\&:=\n\n  \t1ab€é😀\u0301\u200d\ud83d\x00\r"), max_size=150)
MARKDOWN = st.one_of(
    st.lists(BLOCKS, min_size=1, max_size=4).map("\n\n".join),
    BLOCKS,
    SOUP,
    st.lists(st.one_of(BLOCKS, SOUP), max_size=5).map("\n".join),
)
ROOMS = st.sampled_from((160, 170, 200, 300, 1000, 2000, 4096))
UNITS = st.sampled_from(("utf16", "codepoint", "byte"))
