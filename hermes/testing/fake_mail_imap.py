"""The IMAP server of the fake mail server (RFC 3501, RFC 2177, RFC 6154)."""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import Message
from typing import TYPE_CHECKING

import trio

from hermes.testing.fake_mail_wire import Fault, Line

if TYPE_CHECKING:
    from hermes.testing.fake_mail import FakeMail, Mailbox, Stored

_LITERAL = re.compile(rb"\{(\d+)(\+?)\}\Z")
_WORD = re.compile(rb'"((?:[^"\\]|\\.)*)"|(\([^()]*\))|([^\s"]+)')
_BODY = re.compile(r"BODY(?:\.PEEK)?\[([^\]]*)\](?:<(\d+)\.(\d+)>)?", re.IGNORECASE)
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class _Session:
    """One connection: who it is, and the mailbox that is open."""

    def __init__(self, mail: FakeMail, line: Line) -> None:
        self.mail = mail
        self.line = line
        self.known = False
        self.open: Mailbox | None = None
        self.writes = False
        self.told = 0  # of how many mails the client knows

    async def news(self) -> None:
        """Tell of mails that the client does not know of."""
        if self.open is not None and len(self.open.mails) != self.told:
            self.told = len(self.open.mails)
            await self.line.say(b"* %d EXISTS" % self.told)

    async def answer(self, name: str, words: list[bytes]) -> bytes:
        """What a command gets, without its tag."""
        if name == "CAPABILITY":
            await self.line.say(b"* CAPABILITY " + " ".join(self.mail.capabilities).encode())
            return b"OK done"
        if name == "NOOP":
            return b"OK done"
        if name == "LOGIN" and len(words) == 2:
            return self._enter(words[0], words[1])
        if name == "AUTHENTICATE":
            await self.line.say(b"+ ")
            _, user, password = base64.b64decode(await self.line.line()).split(b"\0")
            return self._enter(user, password)
        if not self.known:
            return b"BAD not logged in"
        return await self._inside(name, words)

    def _enter(self, user: bytes, password: bytes) -> bytes:
        self.known = (user.decode(), password.decode()) == (self.mail.user, self.mail.password)
        if not self.known:
            return b"NO [AUTHENTICATIONFAILED] invalid credentials"
        return b"OK [CAPABILITY %b] logged in" % " ".join(self.mail.capabilities).encode()

    async def _inside(self, name: str, words: list[bytes]) -> bytes:
        if name == "LIST":
            for name_of, each in self.mail.mailboxes.items():
                flags = f"\\HasNoChildren {each.special}".strip()
                await self.line.say(f'* LIST ({flags}) "/" "{_utf7(name_of)}"'.encode())
            return b"OK done"
        if name in ("SELECT", "EXAMINE"):
            return await self._select(words[0], name == "SELECT")
        if name == "APPEND":
            mailbox = self._named(words[0])
            if mailbox is None:
                return b"NO [TRYCREATE] no such mailbox"
            mailbox.add(
                words[-1], self.mail.clock(), *(words[1].decode().strip("()").split() if len(words) > 2 else ())
            )
            self.mail.changed()
            return b"OK appended"
        if self.open is None:
            return b"BAD no mailbox is open"
        if name == "UID SEARCH":
            uids = [str(stored.uid) for stored in self.open.mails if self._matches(stored, words)]
            await self.line.say(" ".join(["* SEARCH", *uids]).encode())
            return b"OK done"
        if name in ("UID FETCH", "UID STORE"):
            for number, stored in enumerate(self.open.mails, 1):
                if self._in(stored.uid, words[0]):
                    await (self._fetch(number, stored, words[1]) if name == "UID FETCH" else self._store(stored, words))
            return b"OK done"
        return b"BAD what?"

    async def _select(self, name: bytes, writes: bool) -> bytes:
        found = self._named(name)
        if found is None:
            self.open = None
            return b"NO [NONEXISTENT] no such mailbox"
        self.open, self.writes, self.told = found, writes, len(found.mails)
        await self.line.say(
            b"* FLAGS (\\Seen \\Answered \\Deleted)", b"* %d EXISTS" % self.told, b"* 0 RECENT",
            b"* OK [UIDVALIDITY %d] valid" % found.validity, b"* OK [UIDNEXT %d] next" % found.next_uid,
        )  # fmt: skip
        return b"OK [READ-WRITE] open" if writes else b"OK [READ-ONLY] open"

    def _named(self, name: bytes) -> Mailbox | None:
        return next((each for key, each in self.mail.mailboxes.items() if _utf7(key).encode() == name), None)

    def _in(self, uid: int, wanted: bytes) -> bool:
        assert self.open is not None
        last = self.open.mails[-1].uid if self.open.mails else 0
        for part in wanted.split(b","):
            low, colon, high = part.partition(b":")
            ends = sorted(last if end == b"*" else int(end) for end in ((low, high) if colon else (low, low)))
            if ends[0] <= uid <= ends[1]:
                return True
        return False

    def _matches(self, stored: Stored, words: list[bytes]) -> bool:
        at = 0
        while at < len(words):
            match words[at].upper():
                case b"UID":
                    if not self._in(stored.uid, words[at + 1]):
                        return False
                    at += 2
                case b"SINCE":
                    day, month, year = words[at + 1].decode().split("-")
                    since = datetime(int(year), MONTHS.index(month) + 1, int(day), tzinfo=UTC).timestamp()
                    if stored.at < since:
                        return False
                    at += 2
                case b"HEADER":
                    value = str(message_from_bytes(stored.raw)[words[at + 1].decode()] or "")
                    if words[at + 2].decode().lower() not in value.lower():
                        return False
                    at += 3
                case b"ALL":
                    at += 1
                case _:
                    return False
        return True

    async def _fetch(self, number: int, stored: Stored, items: bytes) -> None:
        found = [b"UID %d" % stored.uid]
        asked = items.decode()
        if "INTERNALDATE" in asked:
            when = datetime.fromtimestamp(stored.at, UTC)
            shown = f"{when.day:2d}-{MONTHS[when.month - 1]}-{when:%Y %H:%M:%S} +0000"
            found.append(f'INTERNALDATE "{shown}"'.encode())
        if "RFC822.SIZE" in asked:
            found.append(b"RFC822.SIZE %d" % len(stored.raw))
        if "FLAGS" in asked:
            found.append(f"FLAGS ({' '.join(sorted(stored.flags))})".encode())
        for section, start, length in _BODY.findall(asked):
            data = _section(stored.raw, section)
            origin = ""
            if start:
                data, origin = data[int(start) : int(start) + int(length)] if data is not None else None, f"<{start}>"
            name = f"BODY[{section}]{origin}".encode()
            found.append(name + (b" NIL" if data is None else b" {%d}\r\n%b" % (len(data), data)))
        await self.line.say(b"* %d FETCH (%b)" % (number, b" ".join(found)))

    async def _store(self, stored: Stored, words: list[bytes]) -> None:
        assert self.writes, "a mailbox that was opened to be read is not written"
        assert words[1].upper() == b"+FLAGS.SILENT"
        stored.flags |= set(words[2].decode().strip("()").split())
        self.mail.changed()

    async def idle(self, tag: bytes) -> None:
        """Tell of mails until the client has enough."""
        await self.line.say(b"+ idling")
        async with trio.open_nursery() as nursery:

            async def tell() -> None:
                while True:
                    await self.news()
                    await self.mail.change()

            nursery.start_soon(tell)
            done = await self.line.line()
            nursery.cancel_scope.cancel()
        await self.line.say(tag + (b" OK idled" if done.upper() == b"DONE" else b" BAD what?"))


def _section(raw: bytes, section: str) -> bytes | None:
    head, _, rest = raw.partition(b"\r\n\r\n")
    if section == "":
        return raw
    if section.upper() == "HEADER":
        return head + b"\r\n\r\n"
    part: Message = message_from_bytes(raw, policy=policy.compat32.clone(linesep="\r\n"))
    if section == "1" and not part.is_multipart():
        return rest
    for number in section.split("."):
        inner = part.get_payload()
        if not isinstance(inner, list) or not 1 <= int(number) <= len(inner):
            return None
        part = inner[int(number) - 1]  # type: ignore[assignment]
    return part.as_bytes(policy=policy.compat32.clone(linesep="\r\n", mangle_from_=False)).partition(b"\r\n\r\n")[2]


def _utf7(name: str) -> str:
    def coded(found: re.Match[str]) -> str:
        data = base64.b64encode(found[0].encode("utf-16-be")).decode().rstrip("=").replace("/", ",")
        return f"&{data}-"

    return re.sub(r"[^ -~]+", coded, name.replace("&", "&-"))


async def _command(line: Line) -> tuple[bytes, str, list[bytes]]:
    """A command with its literals."""
    found = await line.line()
    tag, _, rest = found.partition(b" ")
    words: list[bytes] = []
    while True:
        literal = _LITERAL.search(rest)
        bare = rest[: literal.start()] if literal else rest
        for quoted, group, atom in _WORD.findall(bare):
            words.append(re.sub(rb"\\(.)", rb"\1", quoted) if quoted or not (group or atom) else group or atom)
        if literal is None:
            break
        if not literal[2]:
            await line.say(b"+ go on")
        words.append(await line.exactly(int(literal[1])))
        rest = await line.line()
    name = words.pop(0).decode("ascii", "replace").upper() if words else ""
    if name == "UID" and words:
        name += " " + words.pop(0).decode("ascii", "replace").upper()
    return tag, name, words


def _poisoned(mail: FakeMail, name: str, words: list[bytes]) -> Fault | None:
    if mail.poison is None or name != "UID FETCH" or not words[0].isdigit():
        return None
    return mail.poison(int(words[0]), words[1].decode())


async def serve_imap(mail: FakeMail, line: Line) -> None:
    """One connection, until the client leaves."""
    session = _Session(mail, line)
    if (fault := line.look("greeting")) is not None:
        await line.suffer(fault)
    await line.say(b"* OK [CAPABILITY %b] hermes.test" % " ".join(mail.capabilities).encode())
    while True:
        tag, name, words = await _command(line)
        fault = line.look(name) or _poisoned(mail, name, words)
        if fault is not None and not fault.done:
            await line.suffer(fault, b"" if fault.answer.startswith(b"* ") else tag + b" ")
            continue
        if name == "IDLE":
            await session.idle(tag)
            continue
        if name == "LOGOUT":
            await line.say(b"* BYE", tag + b" OK bye")
            return
        said = await session.answer(name, words)
        if fault is not None:
            await line.suffer(fault, tag + b" ")
            continue
        await session.news()
        await line.say(tag + b" " + said)
