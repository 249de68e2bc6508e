"""Mails that no person wrote to us: they are never answered. Pure (RFC 3834, RFC 2919, RFC 3464)."""

from __future__ import annotations

from email.message import Message

from platforms.email.headers import own_id, sender, text, texts
from platforms.email.threads import is_ours

_MACHINES = (
    "mailer-daemon",
    "postmaster",
    "noreply",
    "no-reply",
    "no_reply",
    "donotreply",
    "do-not-reply",
    "bounce",
    "bounces",
)
_BULK = ("bulk", "junk", "list", "auto_reply", "auto-reply")
_MARKS = (
    "x-autoreply",
    "x-autorespond",
    "x-autoresponder",
    "x-auto-reply",
    "x-failed-recipients",
    "list-id",
    "list-post",
)


def why_automatic(message: Message, our_address: str) -> str:
    """Why a mail is none of a person to us, in words; empty if it may be one.

    Args:
        message: the mail.
        our_address: in lower case.
    """
    if is_ours(own_id(message)):
        return "a mail of a gateway like us"
    found = sender(message)
    if found is not None and found[0] == our_address:
        return "from our own address"
    if found is not None and found[0].partition("@")[0].partition("+")[0] in _MACHINES:
        return f"from {found[0].partition('@')[0]}"
    if any(each.partition(";")[0].strip().lower() != "no" for each in texts(message, "auto-submitted")):
        return "Auto-Submitted"
    if any(each.lower() in _BULK for each in texts(message, "precedence")):
        return "Precedence"
    if any(each.lower() not in ("", "none") for each in texts(message, "x-auto-response-suppress")):
        return "X-Auto-Response-Suppress"
    if any(each.replace(" ", "") == "<>" for each in texts(message, "return-path")):
        return "no return path"
    for mark in _MARKS:
        if text(message, mark):
            return mark
    if message.get_content_type() == "multipart/report":
        return "a report"
    return ""
