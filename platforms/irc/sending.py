"""Showing things: one part is the lines of one command, and what the server says to them.

A part is confirmed by the server's own answer to it: what it echoes, or that it has dealt with everything up to there. That the
message has reached the server of whom it is for, nobody says in this protocol.
"""

from __future__ import annotations

import trio

from hermes.errors import (
    AddressGone,
    PlatformError,
    PlatformRefused,
    PlatformUnavailable,
    RateLimited,
    SendRejected,
    SendUncertain,
)
from hermes.platform import Address, Content, Receipt, ReplyRef
from platforms.irc.faults import blocks_codes, meaning
from platforms.irc.lines import BadLine, Line
from platforms.irc.names import target_of
from platforms.irc.rooms import Room
from platforms.irc.session import Session
from platforms.irc.wire import Unanswered, Wire
from platforms.irc.wording import bare, wire_lines

MAX_BARE = 200  # channels
MIN_ROOM = 60  # bytes: a name that leaves less is none


class Sending:
    """What is shown through one connection.

    Args:
        wire: the connection.
        session: what is known of it.
        nonce: of this connection.
    """

    def __init__(self, wire: Wire, session: Session, nonce: str) -> None:
        self._wire = wire
        self._session = session
        self._nonce = nonce
        self._number = 0
        self._bare: dict[str, None] = {}  # channels that block codes

    async def send(self, to: Address, content: Content, reply: ReplyRef | None) -> Receipt:
        """Show one part; as `Platform.send`."""
        if content.file is not None:
            raise SendRejected("IRC carries no files")
        nick, message = _answered(reply)
        text = content.text
        target = target_of(to.chat)
        if self._session.config.address_people and self._session.server.is_channel(target) and nick:
            text = f"{nick}: {text}"
        if self._session.server.fold(target) in self._bare:
            text = bare(text)
        try:
            return await self._show(to, target, text, message)
        except SendRejected as error:
            if not blocks_codes(error) or bare(text) == text:
                raise
        return await self._show(to, target, bare(text), message)  # nothing was shown: the channel takes bare words only

    async def _show(self, to: Address, target: str, text: str, message: str) -> Receipt:
        room = self._session.room(target)
        if room < MIN_ROOM:
            raise SendRejected(f"{target[:40]!r} is too long for a name")
        lines = wire_lines(text, room)
        if not lines:
            raise SendRejected("there is nothing to be seen in it")
        self._may(target, self._wire.cost(len(lines)))
        tagged = message and "message-tags" in self._session.capabilities
        try:
            answers = await self._wire.ask(
                "PRIVMSG", [(target, line) for line in lines], tags={"+draft/reply": message} if tagged else {}
            )
        except Unanswered as unanswered:
            raise _failure(unanswered) from None
        except BadLine as bad:
            raise SendRejected(f"{target[:40]!r} is no name: {bad}") from None
        refused = [error for each in answers if (error := meaning(each, target)) is not None]
        if refused:
            raise self._refusal(refused[0], target, partly=len(refused) < len(lines))
        return Receipt(message_id=self._shown(answers), address=to)

    def _may(self, target: str, lines: int) -> None:
        """Raises RateLimited if the server would take so much for too much now, AddressGone for a channel that is closed to us."""
        now, wire = trio.current_time(), self._wire
        if wire.over is None and (wait_s := wire.bucket.wait_s(lines + wire.waiting, now)) > 0:
            raise RateLimited("lines are sent no faster than the server bears", retry_after_s=wait_s, scope="account")
        room = self._session.rooms.get(target)
        if room is not None and not room.joined and (room.tries == 0 or (room.tries == 1 and room.next_at > now)):
            raise _not_yet(room, now)

    def _refusal(self, error: PlatformError, target: str, *, partly: bool) -> PlatformError:
        """What a refusal means for the part; what would be repeated is in doubt if some lines of it were taken."""
        codes = blocks_codes(error)
        if codes:
            self._blocks_codes(target)
        room = self._session.rooms.get(target)
        if isinstance(error, SendRejected) and room is not None and not room.joined:
            if room.tries:
                return AddressGone(f"{error}; we are not in it: {room.why or 'nobody says why'}")
            error = _not_yet(room, trio.current_time())  # put out while this was under way
        if partly and (codes or isinstance(error, RateLimited | PlatformUnavailable)):
            return SendUncertain(f"some lines were taken, and others not: {error}")
        return error

    def _blocks_codes(self, target: str) -> None:
        self._bare[self._session.server.fold(target)] = None
        while len(self._bare) > MAX_BARE:
            del self._bare[next(iter(self._bare))]

    def _shown(self, answers: list[Line]) -> str:
        """The message's id; one of our own where the server gives none."""
        given = [found for each in answers if each.command == "PRIVMSG" and (found := each.tags.get("msgid"))]
        for message in given:
            self._session.wrote(message)
        self._number += 1
        return given[0][:512] if given else f"{self._nonce}.s{self._number}"


def _answered(reply: ReplyRef | None) -> tuple[str, str]:
    """The nick and the id of what is answered."""
    nick, _, message = ((reply.message_id if reply is not None else None) or "").partition(" ")
    return nick, message


def _failure(unanswered: Unanswered) -> PlatformError:
    if isinstance(unanswered.why, PlatformRefused) or not unanswered.sent:
        return unanswered.why
    return SendUncertain(str(unanswered.why))


def _not_yet(room: Room, now: float) -> RateLimited:
    """We are not in a channel, and have not tried to come back, or not for long: it is not closed to us as far as anybody knows."""
    wait_s = max(1.0, room.next_at - now)
    return RateLimited(f"{room.name}: {room.why or 'not joined yet'}", retry_after_s=wait_s, scope="address")
