"""Mails that could not be read when it was their turn: how often that was tried, and when it is tried again. Pure.

A server that cannot hand out one mail, or breaks at it, would be asked for it for ever, and whatever came after it would never be
read. So after a few tries in a row such a mail is set aside: the cursor moves past it, and it is tried again at growing intervals,
at last its head alone. It is given up only if it fails on while others can be read: otherwise it is the server, not the mail.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

CURSOR = "aside"
IN_A_ROW = 3  # tries before others have their turn
WHOLE = 5  # of all tries, those for the whole mail
TRIES = 10
MOST = 20  # mails that are set aside; with more it is the server
FIRST_S, MOST_S = 60.0, 3600.0  # from one try to the next


class Failing(msgspec.Struct, frozen=True, array_like=True):
    """A mail that could not be read: its UID, how often that failed, when it is tried again, whether others could be read since."""

    uid: int
    times: int
    again_at: float = 0.0
    others_read: bool = False

    @property
    def is_aside(self) -> bool:
        """Whether the mails after it do not wait for it."""
        return self.times >= IN_A_ROW

    @property
    def is_whole(self) -> bool:
        """Whether all of it is asked for at the next try."""
        return self.times < WHOLE

    @property
    def is_hopeless(self) -> bool:
        """Whether it is the mail and will not change."""
        return self.times >= TRIES and self.others_read


class Aside(msgspec.Struct, frozen=True, array_like=True):
    """The cursor: whose mailbox, its UIDVALIDITY, and the mails that could not be read."""

    whose: str
    validity: int
    mails: tuple[Failing, ...] = ()

    def of(self, uid: int) -> Failing | None:
        """What is known of a mail; None if nothing ever went wrong with it."""
        return next((each for each in self.mails if each.uid == uid), None)

    def waiting(self, uids: Sequence[int]) -> list[int]:
        """Those of these mails that were not set aside."""
        aside = {each.uid for each in self.mails if each.is_aside}
        return [uid for uid in uids if uid not in aside]

    def due(self, now: float) -> list[int]:
        """The mails that were set aside and are to be tried again."""
        return [each.uid for each in self.mails if each.is_aside and each.again_at <= now]

    def failed(self, uid: int, now: float) -> Aside:
        """After a mail could not be read once more."""
        before = self.of(uid) or Failing(uid, 0)
        full = sum(each.is_aside for each in self.mails) >= MOST
        times = min(before.times + 1, TRIES)
        if full and not before.is_aside:
            times = min(times, IN_A_ROW - 1)
        wait_s = min(MOST_S, FIRST_S * 4.0 ** max(0, times - IN_A_ROW))
        now_failing = msgspec.structs.replace(before, times=times, again_at=now + wait_s)
        return self._with(*(each for each in self.mails if each is not before), now_failing)

    def read(self, uids: Sequence[int], *, proven: bool) -> Aside:
        """After these mails were read, or are gone; `proven`: the server handed one of them out."""
        left = (each for each in self.mails if each.uid not in uids)
        return self._with(*(msgspec.structs.replace(each, others_read=each.others_read or proven) for each in left))

    def without(self, uid: int) -> Aside:
        """After a mail was given up, or is gone."""
        return self._with(*(each for each in self.mails if each.uid != uid))

    def _with(self, *mails: Failing) -> Aside:
        return Aside(self.whose, self.validity, mails)


_decode = msgspec.json.Decoder(Aside).decode


def read_aside(cursors: Mapping[str, bytes], whose: str, validity: int) -> Aside:
    """What was committed of this mailbox, with this UIDVALIDITY; nothing, if it was of another."""
    nothing = Aside(whose, validity)
    try:
        found = _decode(cursors[CURSOR])
    except (KeyError, msgspec.DecodeError):
        return nothing
    return found if (found.whose, found.validity) == (whose, validity) else nothing


def write_aside(aside: Aside) -> dict[str, bytes]:
    """It as it is committed."""
    return {CURSOR: msgspec.json.encode(aside)}
