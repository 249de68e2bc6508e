"""What a person wrote, without what they answered and without their signature. Pure.

Programs put the answered mail below or above the answer, or leave it around it. Below and above it goes; between a person's own
lines it stays, for there the lines answer it. What is forwarded stays: it is what the mail is about.
"""

from __future__ import annotations

import re

MAX_ATTRIBUTION = 4  # lines of "On Monday … wrote:", which programs wrap
_WROTE = re.compile(
    r"(?:^|\s|\W)(?:wrote|writes|schrieb|a écrit|écrit|escribió|escreveu|ha scritto|scrisse|schreef|skrev|kirjoitti|napisał(?:\(a\)|a)?"
    r"|napsal(?:\(a\)|a)?|написал\w?|пишет|写道|님이 작성|は書きました)[^\n]{0,120}[:\uff1a]\s*\Z",
    re.IGNORECASE,
)
_BEGINS = re.compile(
    r"\s*(?:on|am|le|el|em|il|op|den|dne|w dniu|\u0432|\u043e\u0442|于|在)\b.{0,300}\Z|\s*.{0,120}[<(]?[\w.+-]+@[\w.-]+[>)]?.{0,60}\Z",
    re.IGNORECASE,
)
_DIVIDER = re.compile(
    r"\s*-{2,}\s*(?:original message|original-nachricht|ursprüngliche nachricht|message d'origine|mensaje original|messaggio originale"
    r"|mensagem original|oorspronkelijk bericht|ursprungligt meddelande|oprindelig meddelelse|исходное сообщение)\s*-{2,}\s*\Z",
    re.IGNORECASE,
)
_FORWARD = re.compile(
    r"\s*(?:-{2,}\s*)?(?:forwarded message|begin forwarded message|weitergeleitete nachricht|message transféré|mensaje reenviado"
    r"|messaggio inoltrato|doorgestuurd bericht)(?:\s*-{2,}|\s*:)?\s*\Z",
    re.IGNORECASE,
)
_HEAD = re.compile(
    r"\s*\*?(?:from|sent|date|to|cc|subject|von|gesendet|datum|an|betreff|de|envoyé|à|objet|enviado|para|asunto|da|inviato|a|oggetto"
    r"|van|verzonden|aan|onderwerp)\s*:\*?\s*\S",
    re.IGNORECASE,
)
_RULE = re.compile(r"\s*_{10,}\s*\Z")


def own_words(text: str) -> str:
    """What the sender of a mail wrote: all of it, if nothing would be left."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    kept = _without_quote_above(_without_signature(_without_quote_below(lines)))
    found = re.sub(r"\n{3,}", "\n\n", "\n".join(line.rstrip() for line in kept)).strip("\n")
    return found if found.strip() else text.strip()


def _is_quoted(line: str) -> bool:
    return line.lstrip().startswith(">")


def _without_quote_below(lines: list[str]) -> list[str]:
    """Up to where the answered mail begins."""
    for number, line in enumerate(lines):
        if _FORWARD.match(line):
            return lines
        if _DIVIDER.match(line) or _begins_head(lines, number):
            return lines[:number]
    end = len(lines)
    while end and (not lines[end - 1].strip() or _is_quoted(lines[end - 1])):
        end -= 1
    quoted = any(map(_is_quoted, lines[end:]))
    at = _attribution_before(lines, end)
    return (
        lines[:at] if at is not None and (quoted or at == 0 or end == len(lines)) else lines[:end] if quoted else lines
    )


def _begins_head(lines: list[str], number: int) -> bool:
    """Whether an answered mail stands from here on with a head of its own, as Outlook writes it."""
    at = number + 1 if _RULE.match(lines[number]) else number
    block = [line for line in lines[at : at + 6] if line.strip()]
    heads = 0
    for line in block:
        if not _HEAD.match(line):
            break
        heads += 1
    return heads >= 3 and "@" in "".join(block[:heads])


def _attribution_before(lines: list[str], end: int) -> int | None:
    """Where the words "… wrote:" begin that end before this line; None if there are none."""
    last = end
    while last and not lines[last - 1].strip():
        last -= 1
    if not last or not _WROTE.search(lines[last - 1]):
        return None
    for first in range(last - 1, max(-1, last - 1 - MAX_ATTRIBUTION), -1):
        if not lines[first].strip():
            return first + 1
        if _BEGINS.match(lines[first]):
            return first
    return last - 1


def _without_signature(lines: list[str]) -> list[str]:
    """Up to the line that separates a signature (RFC 3676, section 4.3)."""
    for number in range(len(lines) - 1, -1, -1):
        if lines[number] in ("-- ", "--") and number and len(lines) - number <= 30:
            return lines[:number]
    return lines


def _without_quote_above(lines: list[str]) -> list[str]:
    """From where the answer begins, if the answered mail is wholly above it."""
    start = 0
    while start < len(lines) and not lines[start].strip():
        start += 1
    first = start
    while first < len(lines) and first - start < MAX_ATTRIBUTION and not _is_quoted(lines[first]):
        first += 1
    attributed = first > start and any(_WROTE.search(line) for line in lines[start:first])
    begin = first if attributed else start
    end = begin
    while end < len(lines) and (_is_quoted(lines[end]) or not lines[end].strip()):
        end += 1
    if end == begin or end == len(lines) or not any(map(_is_quoted, lines[begin:end])):
        return lines
    return lines if any(map(_is_quoted, lines[end:])) else lines[end:]
