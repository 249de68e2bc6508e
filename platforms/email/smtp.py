"""Submitting a mail by SMTP (RFC 5321, RFC 6409, RFC 4954), and what each answer means (RFC 3463).

A mail is accepted by the answer to its end and by nothing before: whatever goes wrong earlier, nobody will see it.
"""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

from hermes.errors import (
    AddressGone,
    PlatformError,
    PlatformProtocolError,
    PlatformRefused,
    PlatformUnavailable,
    RateLimited,
    SendRejected,
    SendUncertain,
    Unreachable,
)
from hermes.platform import Host
from platforms.email.config import EmailConfig, login
from platforms.email.wire import Wire, open_wire

MAX_LINE = 4096  # RFC 5321 allows 512
MAX_LINES = 200
# For the answer to the end of a mail: whoever leaves before has it sent twice. RFC 5321, section 4.5.3.2.6, asks for ten minutes;
# a platform's `send` has five.
END_S = 240.0
WAIT_S = 60.0
GREYLIST_S = 300.0  # for so long a stranger is usually turned away
QUOTA_S = 3600.0
_DOT = re.compile(rb"(?m)^\.")
_REPLY = re.compile(rb"([2-5]\d\d)([ -]|\Z)(.*)\Z", re.DOTALL)
_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?:\s|\Z)")
Phase = Literal["greeting", "login", "sender", "recipient", "data", "end"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer: its code and its lines."""

    code: int
    lines: tuple[str, ...]

    @property
    def enhanced(self) -> str:
        """The status code of RFC 3463 such as `5.1.1`; empty if there is none."""
        found = _ENHANCED.match(self.lines[0])
        return found[1] if found else ""

    def __str__(self) -> str:
        return f"{self.code} {' '.join(self.lines)}"[:300]


class Smtp:
    """A connection that may submit; made by `open_smtp`. One mail a connection.

    Attributes:
        extensions: what the server says it can do, by name in upper case, with its arguments.
    """

    def __init__(self, wire: Wire) -> None:
        self.extensions: dict[str, str] = {}
        self._wire = wire

    async def greet(self, name: str) -> None:
        """Read the greeting and introduce ourselves."""
        self._expect(await self._reply(), "greeting")
        await self.hello(name)

    async def hello(self, name: str) -> None:
        """EHLO."""
        found = self._expect(await self._ask(f"EHLO {name}"), "greeting")
        words = (line.partition(" ") for line in found.lines[1:])
        self.extensions = {keyword.upper(): arguments.upper() for keyword, _, arguments in words}

    async def start_tls(self, host: Host, server: str, name: str) -> None:
        """Speak TLS from here on. Raises PlatformRefused if the server cannot."""
        if "STARTTLS" not in self.extensions:
            raise PlatformRefused(f"{self._wire.where} has no STARTTLS: set `smtp_security` to `tls` and its port")
        self._expect(await self._ask("STARTTLS"), "greeting")
        await self._wire.start_tls(host.tls, server)
        await self.hello(name)

    async def log_in(self, config: EmailConfig) -> None:
        """Say who we are, where the server asks for it."""
        ways = self.extensions.get("AUTH", "").split()
        user, password = login(config).encode(), config.password.reveal().encode()
        if "PLAIN" in ways:
            done = await self._ask("AUTH PLAIN " + _coded(b"\0" + user + b"\0" + password))
        elif "LOGIN" in ways:
            done = await self._ask("AUTH LOGIN")
            for secret in (user, password):
                if done.code == 334:
                    done = await self._ask(_coded(secret))
        elif ways:
            raise PlatformRefused(
                f"{self._wire.where} takes no passwords, but {', '.join(ways)}: that is not supported"
            )
        else:
            return  # a relay that knows us by where we are
        self._expect(done, "login")

    async def submit(self, sender: str, recipient: str, message: bytes) -> None:
        """Hand over a mail.

        Args:
            sender, recipient: addresses in ASCII.
            message: with CRLF at each line's end.

        Raises:
            SendUncertain: it may have been accepted.
            PlatformError: it was not: as `failure` says, or Unreachable with `sent` False.
        """
        try:
            size = self.extensions.get("SIZE", "")
            if size.isdigit() and 0 < int(size) < len(message):
                raise SendRejected(f"the mail has {len(message)} bytes, and the server takes {size}")
            announced = f" SIZE={len(message)}" if "SIZE" in self.extensions else ""
            self._expect(await self._ask(f"MAIL FROM:<{sender}>{announced}"), "sender")
            self._expect(await self._ask(f"RCPT TO:<{recipient}>"), "recipient")
            begun = await self._ask("DATA")
            if begun.code != 354:
                raise failure(begun, "data", self._wire.where)
            await self._wire.send(_DOT.sub(b"..", message))
        except Unreachable as error:  # without its end it is no mail
            raise Unreachable(str(error), sent=False) from error
        try:
            await self._wire.send(b".\r\n" if message.endswith(b"\r\n") else b"\r\n.\r\n")
            done = await self._reply(within_s=END_S)
        except (Unreachable, PlatformProtocolError) as error:
            raise SendUncertain(f"the mail was handed over without an answer: {error}") from error
        self._expect(done, "end")

    async def leave(self) -> None:
        """Say goodbye; nobody waits for the answer. Raises nothing."""
        try:
            await self._wire.send(b"QUIT\r\n")
        except Unreachable:
            return

    def _expect(self, reply: Reply, phase: Phase) -> Reply:
        if 200 <= reply.code < 300:
            return reply
        raise failure(reply, phase, self._wire.where)

    async def _ask(self, command: str) -> Reply:
        await self._wire.send(command.encode("ascii") + b"\r\n")
        return await self._reply()

    async def _reply(self, *, within_s: float | None = None) -> Reply:
        lines: list[str] = []
        while len(lines) < MAX_LINES:
            line = await self._wire.line(most=MAX_LINE, within_s=within_s)
            found = _REPLY.match(line)
            if found is None:
                raise PlatformProtocolError(f"{self._wire.where} does not speak SMTP", sample=repr(line[:200]))
            lines.append(found[3].decode("utf-8", "replace"))
            if found[2] != b"-":
                return Reply(code=int(found[1]), lines=tuple(lines))
        raise PlatformProtocolError(f"{self._wire.where}: an answer of SMTP has no end", sample=lines[0][:200])


def _coded(secret: bytes) -> str:
    return base64.b64encode(secret).decode("ascii")


def failure(reply: Reply, phase: Phase, where: str) -> PlatformError:
    """What an answer means that is no success. Nothing was accepted.

    Args:
        phase: what was asked.
        where: host and port, for people.
    """
    words, status = f"{where}: {reply}", reply.enhanced
    if reply.code < 400:
        return PlatformProtocolError(f"{where} answers what nobody asked", sample=str(reply))
    if status in ("5.4.5", "4.4.5") or status.startswith("4.7."):  # a day's quota; too many, too fast, not known yet
        scope: Literal["address", "account"] = "address" if phase == "recipient" else "account"
        wait_s = QUOTA_S if status == "5.4.5" else GREYLIST_S if phase == "recipient" else WAIT_S
        return RateLimited(words, retry_after_s=wait_s, scope=scope)
    if reply.code < 500:
        if phase == "recipient" and reply.code != 421:
            return RateLimited(words, retry_after_s=GREYLIST_S, scope="address")
        return PlatformUnavailable(words)
    if phase == "greeting":
        return PlatformUnavailable(words, retry_after_s=GREYLIST_S)
    if phase == "login" or reply.code in (530, 534, 535, 538):
        return PlatformRefused(
            f"{where} does not let us in ({reply}): check `address` (or `user`) and `password`; many providers want an app password"
        )
    if phase == "sender" and reply.code != 552 and status != "5.3.4":
        return PlatformRefused(f"{where} does not let us send as this address ({reply}): check `address` and `user`")
    if phase == "recipient" and _nobody(reply.code, status):
        return AddressGone(words)
    return SendRejected(words)


def _nobody(code: int, status: str) -> bool:
    """Whether a refused recipient is not there, rather than not for us."""
    if status:
        return status.startswith(("5.1.", "5.2.1"))
    return code in (550, 551, 553)


@asynccontextmanager
async def open_smtp(config: EmailConfig, host: Host) -> AsyncIterator[Smtp]:
    """A connection that may submit a mail.

    Lifetime: exit = its socket is closed.

    Raises:
        PlatformRefused: login or security are not right.
        PlatformError: as `hermes.errors` says; nothing was sent.
    """
    name = "[127.0.0.1]"  # what our machine is called is nobody's concern, and checked by nobody after a login
    try:
        async with open_wire(
            config, host, to=config.smtp_host, port=config.smtp_port, security=config.smtp_security
        ) as wire:
            smtp = Smtp(wire)
            await smtp.greet(name)
            if config.smtp_security == "starttls":
                await smtp.start_tls(host, config.smtp_host, name)
            await smtp.log_in(config)
            yield smtp
    except Unreachable as error:
        if not error.sent:
            raise
        raise Unreachable(str(error), sent=False) from error
