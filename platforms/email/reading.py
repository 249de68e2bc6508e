"""How far the mailbox was read: the cursor, and which mails come next. Pure but for asking (RFC 9051, section 2.3.1.1).

UIDs ascend while the mailbox keeps its UIDVALIDITY. With another one they mean nothing; then what came since a day before the last
mail that was read is read again, and what was committed already is absorbed by its Message-ID.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import msgspec

from platforms.email.config import EmailConfig, login
from platforms.email.imap import Imap, Selected
from platforms.email.imap_syntax import day, moment
from platforms.email.threads import digest

CURSOR = "mailbox"
OVERLAP_S = 86_400.0
REMEMBERED_S = 172_800.0  # shorter than it is known which events were committed
MOST_HOLES = 64


class Position(msgspec.Struct, frozen=True, array_like=True):
    """The cursor: whose mailbox, its UIDVALIDITY, the last UID that was read, when the latest mail came (0: none did), and holes.

    Holes are the latest smaller UIDs under which there was no mail yet: one may be seen after its successor, where several are put
    into a mailbox at once.
    """

    whose: str
    validity: int
    uid: int
    at: float = 0.0
    holes: tuple[int, ...] = ()


_decode = msgspec.json.Decoder(Position).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Where reading stands in the mailbox as it is now.

    Args:
        position: what was read, of this UIDVALIDITY.
        since: the mailbox was made anew: mails since then are read again before anything else; None: it was not.
    """

    position: Position
    since: float | None = None


def whose(config: EmailConfig) -> str:
    """The mailbox's name in a cursor: with another server, user or folder a position says nothing."""
    return digest(f"{config.imap_host.lower()} {login(config)} {config.mailbox}")


def read_cursor(cursors: Mapping[str, bytes], config: EmailConfig) -> Position | None:
    """The position that was committed; None if there is none of this mailbox."""
    try:
        found = _decode(cursors[CURSOR])
    except (KeyError, msgspec.DecodeError):
        return None
    return found if found.whose == whose(config) else None


def write_cursor(position: Position) -> dict[str, bytes]:
    """The position as it is committed."""
    return {CURSOR: msgspec.json.encode(position)}


def begin(before: Position | None, mailbox: Selected, config: EmailConfig, now: float) -> Reading:
    """Where to begin: a newcomer reads what comes from now on."""
    if before is None:
        return Reading(position=Position(whose(config), mailbox.validity, mailbox.next_uid - 1, now))
    if before.validity == mailbox.validity:
        return Reading(position=before)
    latest = min(before.at, now)
    fresh = Position(before.whose, mailbox.validity, mailbox.next_uid - 1, latest)
    # Nobody knows any more that an old mail was answered: then what is as old as the latest is not read again.
    return Reading(position=fresh, since=latest - OVERLAP_S if now - latest < REMEMBERED_S else latest + 1)


def advanced(reading: Reading, uid: int, at: float | None, now: float) -> Reading:
    """After a mail was read; one that came in the future came now."""
    before = reading.position
    holes = tuple(each for each in before.holes if each != uid)
    if reading.since is None:
        holes += tuple(range(max(before.uid + 1, uid - MOST_HOLES), uid))
    latest = max(before.at, min(at or 0.0, now))
    position = Position(before.whose, before.validity, max(before.uid, uid), latest, holes[-MOST_HOLES:])
    return replace(reading, position=position)


async def next_uids(imap: Imap, reading: Reading) -> list[int]:
    """The UIDs of mails that were not read, ascending."""
    if reading.since is not None:
        since = max(0.0, reading.since - OVERLAP_S)  # SEARCH compares days, by the server's zone
        return await imap.search(f"SINCE {day(since)}".encode())
    after, holes = reading.position.uid + 1, reading.position.holes
    found = await imap.search(b"UID " + b"".join(b"%d," % uid for uid in holes) + b"%d:*" % after)
    return [uid for uid in found if uid >= after or uid in holes]  # `*` is the last one, read or not


async def came_at(imap: Imap, uid: int) -> tuple[float | None, int] | None:
    """When a mail came and its size; None if it is gone."""
    found = await imap.fetch(uid, b"INTERNALDATE RFC822.SIZE")
    if found is None:
        return None
    size = found.get("RFC822.SIZE")
    return moment(found.get("INTERNALDATE")), int(size) if isinstance(size, str) and size.isdigit() else 0
