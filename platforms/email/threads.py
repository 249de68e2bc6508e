"""Which conversation a mail belongs to, and how ours are tied to it. Pure (RFC 5322, section 3.6.4).

A conversation is named by a digest of the Message-ID it began with. Our own Message-IDs carry that name, so that whoever answers
one of ours is in the same conversation, whatever their program leaves out. What programs leave out otherwise (References, or
both) is made up for by a short memory of the latest conversations of a correspondent.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from platforms.email.headers import MAX_ID, answers, plain_subject

NEW = "0"  # in our Message-ID: it begins a conversation
BUCKETS = 128
MAX_BYTES = 4096  # of one value of the account's memory
MAX_SEEN = 8
MAX_TOKEN_IDS = 4
_OURS = re.compile(r"([a-z0-9]{1,25})\.([0-9a-f]{16}|0)@hermes\.[A-Za-z0-9.-]{1,253}\Z")


class Known(msgspec.Struct, frozen=True, array_like=True):
    """A conversation that is remembered: of whom, its name, its subject, the ids it began and went on with, digests of more."""

    who: str
    thread: str
    subject: str
    ids: tuple[str, ...] = ()
    seen: tuple[str, ...] = ()


class Tie(msgspec.Struct, frozen=True, array_like=True):
    """What a mail of ours needs to stand in its conversation: the subject, and ids from its first to its last."""

    subject: str
    ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What a mail says of its place."""

    id: str
    sender: str
    subject: str
    references: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()


_decode_known = msgspec.json.Decoder(list[Known]).decode
_decode_tie = msgspec.json.Decoder(Tie).decode


def digest(of: str) -> str:
    """Sixteen hexadecimal digits."""
    return hashlib.sha256(of.encode("utf-8", "replace")).hexdigest()[:16]


def our_id(key: str, thread: str | None, domain: str) -> str:
    """The Message-ID of what is sent with this key: the same for each attempt."""
    name = thread if thread is not None and re.fullmatch("[0-9a-f]{16}", thread) else NEW
    return f"{key}.{name}@hermes.{domain}"


def is_ours(message_id: str) -> bool:
    """Whether we, or a gateway like us, made this Message-ID."""
    return _OURS.match(message_id) is not None


def thread_of(head: Head, known: Sequence[Known]) -> str:
    """The conversation of a mail: by References, by In-Reply-To, then by its subject; else it begins one.

    Args:
        head: what it says.
        known: what is remembered of its sender's conversations.
    """
    related = (*head.references, *head.answers)
    for each in related:
        if (ours := _OURS.match(each)) is not None:
            return digest(each) if ours[2] == NEW else ours[2]
    theirs = [each for each in known if each.who == digest(head.sender)]
    for each in related:
        for conversation in theirs:
            if digest(each)[:8] in conversation.seen:
                return conversation.thread
    if related:
        return digest(head.references[0] if head.references else related[0])
    if answers(head.subject) and (wanted := plain_subject(head.subject).casefold()):
        for conversation in reversed(theirs):
            if plain_subject(conversation.subject).casefold() == wanted:
                return conversation.thread
    return digest(head.id)


def tie_of(head: Head) -> Tie:
    """How an answer to a mail is tied to it: the id it all began with, and the latest."""
    found = tuple(dict.fromkeys((*head.references, *(head.answers if not head.references else ()), head.id)))
    found = tuple(each for each in found if each and len(each) <= MAX_ID)
    return Tie(head.subject, found if len(found) <= MAX_TOKEN_IDS else (found[0], *found[1 - MAX_TOKEN_IDS :]))


def token(tie: Tie) -> str:
    """A tie as the token of a ReplyRef."""
    return msgspec.json.encode(tie).decode()


def read_token(found: str | None) -> Tie | None:
    """A tie out of it; None if there is none."""
    try:
        return _decode_tie(found) if found else None
    except msgspec.DecodeError:
        return None


def bucket(sender: str) -> str:
    """Where the conversations of a correspondent are remembered."""
    return f"threads.{int(digest(sender)[:8], 16) % BUCKETS}"


def read_known(found: bytes | None) -> list[Known]:
    """What is remembered there; nothing, if another version wrote it."""
    try:
        return _decode_known(found) if found else []
    except msgspec.DecodeError:
        return []


def remembered(known: Sequence[Known], thread: str, head: Head) -> list[Known]:
    """The memory after a mail of this conversation, the latest last."""
    tie, who = tie_of(head), digest(head.sender)
    before = next((each for each in known if each.thread == thread and each.who == who), None)
    new = [digest(each)[:8] for each in (*tie.ids, head.id) if each]
    old = [each for each in (before.seen if before is not None else ()) if each not in new]
    first = before.subject if before is not None else plain_subject(head.subject)
    now = Known(who, thread, first[:120], tie.ids, tuple((old + new)[-MAX_SEEN:]))
    return [*(each for each in known if each is not before), now]


def write_known(known: Sequence[Known]) -> bytes:
    """The memory as it is kept: of more than fits, the latest."""
    kept = list(known)
    while len(found := msgspec.json.encode(kept)) > MAX_BYTES:
        kept.pop(0)
    return found


def tie_in(known: Sequence[Known], who: str, thread: str) -> Tie | None:
    """How something is tied to a conversation that is remembered."""
    for each in known:
        if each.thread == thread and each.who == digest(who):
            return Tie(each.subject, each.ids)
    return None
