"""How Discord's clients read a message: by patterns, tried in turn from the left, blind to what is inside others. Pure.

There is no grammar to look up. The patterns are what the help page promises
(https://support.discord.com/hc/articles/210298617), read as the public libraries under the clients read them
(https://github.com/ariabuckles/simple-markdown, https://github.com/discord/SimpleAST).
"""

from __future__ import annotations

import re

_QUOTE = re.compile(r" *>>> (?P<all>.+)| *> [^\n]*(?:\n *> [^\n]*)*\n?", re.DOTALL)
_QUOTE_SIGN = re.compile(r"^ *> ", re.MULTILINE)
_HEADING = re.compile(r" *(?:#{1,3} +(?!#)|-# +(?!-#))(?P<inside>[^\n]+?)(?:(?<= )#+)? *(?=\n|\Z)")
_ITEM = re.compile(
    r"(?P<by> *)(?P<marker>[-*+]|[0-9]{1,9}\.) +(?P<inside>[^\n]+(?:\n(?P=by) {2}[^\n]+)*)(?=\n|\Z)",
)
_FENCED = re.compile(r"```(?:[a-z0-9_+.#-]+\n)?\n*(?=`*+[^`])(?P<literal>[^\n].*?)\n*```", re.DOTALL | re.IGNORECASE)
_CODE = re.compile(r"(`++)(?P<literal>.*?[^`])\1(?!`)", re.DOTALL)
_PADDING = re.compile(r"\A (?= *`)|(?<=`) \Z")
_ESCAPED = re.compile(r"\\(?P<literal>[^0-9A-Za-z\s])")
_AUTOLINK = re.compile(r"<(?P<literal>https?://[^ >]+)>")
_ADDRESS = re.compile(r"(?P<literal>https?://[^\s<]+[^<.,:;\"'\]\s])")
_LINK = re.compile(
    r"\[(?P<inside>(?:\\.|\[[^\]\\]*\]|[^\[\]\\])*)\]\(\s*<?https?://(?:\([^()\s]*\)|[^()\s\\]|\\.)*>?\s*\)",
    re.DOTALL,
)
_HAS_ADDRESS = re.compile(r"https?://", re.IGNORECASE)
_STRONG = re.compile(r"\*\*(?P<inside>(?:\\.|[^\\])+?)\*\*(?!\*)", re.DOTALL)
_UNDERLINED = re.compile(r"__(?P<inside>(?:\\.|[^\\])+?)__(?!_)", re.DOTALL)
_SLANTED = re.compile(r"\*(?=\S)(?P<inside>(?:\*\*|\\.|\s+(?:\\.|[^\s*\\]|\*\*)|[^\s*\\])+?)\*(?!\*)", re.DOTALL)
_SLANTED_WORD = re.compile(r"_(?P<inside>(?:__|\\.|[^\\_])+?)_(?![0-9A-Za-z_])", re.DOTALL)
_STRUCK = re.compile(r"~~(?P<inside>.+?)~~(?!_)", re.DOTALL)
_SPOILER = re.compile(r"\|\|(?P<inside>.+?)\|\|", re.DOTALL)
_PLAIN = re.compile(r"[0-9A-Za-z](?:(?!https?://)[0-9A-Za-z])*| +|.", re.DOTALL)
_BY_FIRST = {
    "\\": (_ESCAPED,),
    "<": (_AUTOLINK,),
    "h": (_ADDRESS,),
    "[": (_LINK,),
    "*": (_SLANTED, _STRONG),
    "_": (_SLANTED_WORD, _UNDERLINED),
    "~": (_STRUCK,),
    "|": (_SPOILER,),
    "`": (_FENCED, _CODE),
}
_LITERAL = (_ESCAPED, _AUTOLINK, _ADDRESS, _FENCED)
_MAX_DEPTH = 40  # no writer nests so deep; what does is read as it stands


def seen(text: str) -> str:
    """What a reader of a message sees of it: its words without the signs that a client takes for markup.

    Args:
        text: the content of a message.

    Returns:
        The same without marks, fences, signs of quotes and headings, bullets, and the addresses behind words. Numbers of
        items stay, and a mention is as it was written.
    """
    return _seen(text)


def _seen(text: str, *, fresh: bool = True, quoted: bool = False, depth: int = 0) -> str:
    """A text that begins where a line does (`fresh`), inside a quote (`quoted`), which holds no other."""
    if depth > _MAX_DEPTH:
        return text
    out: list[str] = []
    at = 0
    while at < len(text):
        block = _block(text, at, quoted=quoted, depth=depth + 1) if fresh else None
        if block is not None:
            at, words = block
            out.append(words)
            continue
        found = _marked(text, at)
        if found is None:
            plain = _PLAIN.match(text, at)
            assert plain is not None  # it takes any character
            at = plain.end()
            out.append(plain[0])
            fresh = plain[0] == "\n" or (fresh and plain[0].isspace())
            continue
        at = found.end()
        if found.re is _CODE:
            out.append(_PADDING.sub("", found["literal"]))
        elif found.re in _LITERAL:
            out.append(found["literal"])
        else:
            out.append(_seen(found["inside"], fresh=fresh, quoted=quoted, depth=depth + 1))
        fresh = False
    return "".join(out)


def _block(text: str, at: int, *, quoted: bool, depth: int) -> tuple[int, str] | None:
    """Where what begins with this line ends, and what it shows."""
    found = None if quoted else _QUOTE.match(text, at)
    if found is not None:
        inside = found["all"] or _QUOTE_SIGN.sub("", found[0])
        return found.end(), _seen(inside, quoted=True, depth=depth)
    found = _HEADING.match(text, at)
    if found is not None:
        return found.end(), _seen(found["inside"], quoted=quoted, depth=depth)
    found = _ITEM.match(text, at)
    if found is not None:
        number = f"{found['marker']} " if found["marker"][0].isdigit() else ""
        return found.end(), number + _seen(found["inside"], quoted=quoted, depth=depth)
    return None


def _marked(text: str, at: int) -> re.Match[str] | None:
    """What is marked here; of several that match, the longest."""
    found = [match for each in _BY_FIRST.get(text[at], ()) if (match := each.match(text, at)) is not None]
    if not found:
        return None
    if found[0].re is _LINK and _HAS_ADDRESS.search(found[0]["inside"]):
        return None  # a link that could pretend to be another is shown as it was written
    return found[0] if found[0].re is _FENCED else max(found, key=lambda match: match.end())
