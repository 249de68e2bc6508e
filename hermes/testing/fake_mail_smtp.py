"""The SMTP server of the fake mail server (RFC 5321, RFC 4954)."""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING

from hermes.testing.fake_mail_wire import Line

if TYPE_CHECKING:
    from hermes.testing.fake_mail import FakeMail

_PATH = re.compile(rb"(?:FROM|TO):<([^<>]*)>((?: [A-Z0-9]+(?:=[^ ]+)?)*)\Z", re.IGNORECASE)
OK = b"250 2.0.0 ok"
BAD_ORDER = b"503 5.5.1 bad sequence of commands"


class _Session:
    """One connection: who it is, and the mail that is being handed over."""

    def __init__(self, mail: FakeMail, line: Line) -> None:
        self.mail = mail
        self.line = line
        self.greeted = self.known = False
        self.sender: str | None = None
        self.recipients: list[str] = []

    async def answer(self, command: str, rest: bytes) -> bytes:
        """What a command gets."""
        match command:
            case "EHLO" | "HELO":
                self.greeted = True
                lines = [b"hermes.test", *(each.encode() for each in self.mail.extensions)]
                for each in lines[:-1]:
                    await self.line.say(b"250-" + each)
                return b"250 " + lines[-1]
            case "AUTH":
                return await self._auth(rest)
            case "MAIL" | "RCPT":
                return self._path(command, rest)
            case "DATA":
                return await self._data()
            case "RSET":
                self.sender, self.recipients = None, []
                return OK
            case "NOOP":
                return OK
        return b"502 5.5.2 command not recognised"

    async def _auth(self, rest: bytes) -> bytes:
        way, _, initial = rest.partition(b" ")
        try:
            if way.upper() == b"PLAIN":
                found = initial or await self._asked(b"")
                _, user, password = base64.b64decode(found, validate=True).split(b"\0")
            elif way.upper() == b"LOGIN":
                user = base64.b64decode(initial or await self._asked(b"VXNlcm5hbWU6"), validate=True)
                password = base64.b64decode(await self._asked(b"UGFzc3dvcmQ6"), validate=True)
            else:
                return b"504 5.5.4 unrecognised authentication type"
        except (ValueError, binascii.Error):
            return b"501 5.5.2 cannot decode"
        self.known = (user.decode(), password.decode()) == (self.mail.user, self.mail.password)
        return b"235 2.7.0 welcome" if self.known else b"535 5.7.8 authentication credentials invalid"

    async def _asked(self, prompt: bytes) -> bytes:
        await self.line.say(b"334 " + prompt)
        return await self.line.line()

    def _path(self, command: str, rest: bytes) -> bytes:
        found = _PATH.match(rest)
        if found is None:
            return b"501 5.5.4 syntax error in parameters"
        if not self.greeted or not self.known:
            return b"530 5.7.0 authentication required"
        address = found[1].decode("ascii", "replace")
        if command == "MAIL":
            self.sender, self.recipients = address, []
            return OK
        if self.sender is None:
            return BAD_ORDER
        if (no := self.mail.refused.get(address)) is not None:
            return no
        self.recipients.append(address)
        return OK

    async def _data(self) -> bytes:
        if not self.recipients or self.sender is None:
            return BAD_ORDER
        await self.line.say(b"354 end with a dot")
        lines = []
        while (line := await self.line.line()) != b".":
            if len(line) > 998:
                return b"500 5.5.2 line too long"
            lines.append(line.removeprefix(b"."))
        raw = b"\r\n".join([*lines, b""])
        fault = self.line.look("message")
        if fault is None or fault.done:
            for recipient in self.recipients:
                self.mail.accept(self.sender, recipient, raw)
        self.sender, self.recipients = None, []
        if fault is not None:
            await self.line.suffer(fault)
            return b""
        return OK


async def serve_smtp(mail: FakeMail, line: Line) -> None:
    """One connection, until the client leaves."""
    session = _Session(mail, line)
    if (fault := line.look("greeting")) is not None:
        await line.suffer(fault)
    await line.say(b"220 hermes.test ESMTP")
    while True:
        command, _, rest = (await line.line()).partition(b" ")
        name = command.decode("ascii", "replace").upper()
        if (fault := line.look(name)) is not None:
            await line.suffer(fault)
            continue
        if name == "QUIT":
            await line.say(b"221 2.0.0 bye")
            return
        if said := await session.answer(name, rest):
            await line.say(said)
