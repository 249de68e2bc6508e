"""An IMAP client of as much as is needed (RFC 9051; RFC 3501 and RFC 2177 for servers that know no newer).

One connection is one task's. Whoever is cancelled in the middle of an answer leaves the connection; nobody goes on with half of one.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import trio

from hermes.errors import PlatformProtocolError, PlatformRefused, PlatformUnavailable, SendRejected
from hermes.platform import Host
from platforms.email.config import EmailConfig, login
from platforms.email.imap_syntax import Status, decoded_name, literal_size, mailbox_name, quoted, status, values
from platforms.email.wire import Wire, open_wire

MAX_LINE = 4_194_304  # of a list of UIDs
MAX_RESPONSES = 100_000  # to one command
SPARE = 1_048_576  # bytes that an answer may have beside the largest mail

# Codes of refusals that pass by themselves (RFC 5530, section 3).
PASSING = frozenset(("UNAVAILABLE", "INUSE", "LIMIT", "SERVERBUG", "OVERQUOTA"))
_PASSES = ("too many", "temporar", "try again", "unavailable", "rate limit", "exceeded")


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    """An open mailbox: its UIDVALIDITY, and the UID that the next mail will have."""

    validity: int
    next_uid: int


class Imap:
    """A connection that is logged in; made by `open_imap`.

    Attributes:
        capabilities: in upper case.
        news: mails may have come since this was last set to False.
    """

    def __init__(self, wire: Wire, most_bytes: int) -> None:
        self.capabilities: frozenset[str] = frozenset()
        self.news = False
        self._wire = wire
        self._most = most_bytes + SPARE
        self._number = 0
        self._last_size = 0
        self._validity = ""  # of the mailbox that is open

    def on_progress(self, moved: Callable[[], None]) -> None:
        """Have this called each time that much has come."""
        self._wire.moved = moved

    # --- before anything else

    async def greet(self) -> bool:
        """Read the greeting. Returns whether we are logged in already."""
        found = await self._response()
        if not isinstance(found, Status):
            raise self._strange("it does not greet")
        if found.kind == "BYE":
            raise PlatformUnavailable(f"{self._wire.where} does not serve now: {found.text}")
        if found.kind not in ("OK", "PREAUTH"):
            raise self._strange("it does not greet")
        self._learn(found)
        return found.kind == "PREAUTH"

    async def start_tls(self, host: Host, server: str) -> None:
        """Speak TLS from here on. Raises PlatformRefused if the server cannot."""
        done, _ = await self.call(b"STARTTLS", check=False)
        if done.kind != "OK":
            raise PlatformRefused(
                f"{self._wire.where} has no STARTTLS ({done.text}): set `imap_security` to `tls` and its port"
            )
        await self._wire.start_tls(host.tls, server)
        self.capabilities = frozenset()  # what was said before TLS counts for nothing

    async def log_in(self, config: EmailConfig) -> None:
        """Say who we are.

        Raises:
            PlatformRefused: the server does not believe it.
            PlatformUnavailable: it cannot tell now.
        """
        if not self.capabilities:
            await self.call(b"CAPABILITY")
        password = config.password.reveal()
        if "AUTH=PLAIN" in self.capabilities:
            secret = base64.b64encode(f"\0{login(config)}\0{password}".encode())
            done = await self._authenticate(secret)
        elif "LOGINDISABLED" in self.capabilities:
            raise PlatformRefused(f"{self._wire.where} takes no passwords on this connection: set `imap_security`")
        else:
            done, _ = await self.call(b"LOGIN " + quoted(login(config)) + b" " + quoted(password), check=False)
        if done.kind != "OK":
            raise self._not_in(done)
        self.capabilities = frozenset()
        self._learn(done)
        if not self.capabilities:
            await self.call(b"CAPABILITY")

    async def _authenticate(self, secret: bytes) -> Status:
        """AUTHENTICATE PLAIN (RFC 4616), in two steps, as every server knows it."""
        tag = await self._begin(b"AUTHENTICATE PLAIN")
        first = await self._until(tag, [], plus=True)
        if first is None:
            await self._wire.send(secret + b"\r\n")
            return await self._until(tag, []) or Status("BAD")
        return first

    def _not_in(self, done: Status) -> Exception:
        words = done.text.lower()
        if done.code_name in PASSING or (
            done.code_name != "AUTHENTICATIONFAILED" and any(each in words for each in _PASSES)
        ):
            return PlatformUnavailable(f"{self._wire.where} lets nobody in now: {done.text}")
        return PlatformRefused(
            f"{self._wire.where} does not let us in ({done.text}): check `address` (or `user`) and `password`; many providers want"
            " an app password, and IMAP switched on in their settings"
        )

    # --- mailboxes and mails

    async def select(self, mailbox: str, *, write: bool = False) -> Selected:
        """Open a mailbox. Raises PlatformRefused if it is not there."""
        self._validity = ""
        done, found = await self.call((b"SELECT " if write else b"EXAMINE ") + mailbox_name(mailbox), check=False)
        if done.kind != "OK":
            if done.code_name in PASSING:
                raise PlatformUnavailable(f"{self._wire.where} does not open {mailbox}: {done.text}")
            raise PlatformRefused(f"{self._wire.where} does not open the folder {mailbox}: {done.text}")
        codes = dict(each.code.upper().split(" ", 1) for each in found if isinstance(each, Status) and " " in each.code)
        try:
            validity, after = int(codes["UIDVALIDITY"]), int(codes.get("UIDNEXT", "0"))
        except (KeyError, ValueError):
            raise self._strange("it does not say the UIDVALIDITY of a mailbox") from None
        self._validity = str(validity)
        if not after:
            after = max(await self.search(b"UID *"), default=0) + 1
        self.news = False
        return Selected(validity=validity, next_uid=after)

    async def search(self, what: bytes) -> list[int]:
        """The UIDs of mails, ascending."""
        _, found = await self.call(b"UID SEARCH " + what)
        uids = [word for each in found if isinstance(each, list) and _is(each, "SEARCH") for word in each[1:]]
        return sorted({int(uid) for uid in uids if isinstance(uid, str) and uid.isascii() and uid.isdigit()})

    async def fetch(self, uid: int, items: bytes) -> dict[str, Any] | None:
        """Items of one mail by name; None if it is gone.

        Raises:
            SendRejected: it cannot be read.
        """
        done, found = await self.call(b"UID FETCH %d (UID %b)" % (uid, items), check=False)
        merged: dict[str, Any] = {}
        for each in found:
            if isinstance(each, list) and len(each) == 3 and each[1] == "FETCH":
                named = pairs_of(each[2])
                if named.get("UID") == str(uid):
                    merged |= named
        if done.kind == "BAD":
            raise self._strange(f"it does not understand a FETCH: {done.text}")
        if done.kind == "NO" and not merged:
            raise SendRejected(f"the mail cannot be read: {done.text}")
        return merged or None

    async def append(self, mailbox: str, message: bytes) -> None:
        """Put a mail, read, into a mailbox. Raises SendRejected if it is not taken."""
        tag = await self._begin(b"APPEND " + mailbox_name(mailbox) + b" (\\Seen) {%d}" % len(message))
        refused = await self._until(tag, [], plus=True)
        if refused is None:
            await self._wire.send(message + b"\r\n")
            refused = await self._until(tag, []) or Status("BAD")
        if refused.kind != "OK":
            raise SendRejected(f"{mailbox} does not take a copy: {refused.text}")

    async def call(self, command: bytes, *, check: bool = True) -> tuple[Status, list[Any]]:
        """Make a command. Returns its status and what came before that.

        Args:
            check: anything but OK is an error.

        Raises:
            PlatformUnavailable: NO, or the server ends the connection.
            PlatformProtocolError: BAD, or what comes is not IMAP.
        """
        tag = await self._begin(command)
        found: list[Any] = []
        done = await self._until(tag, found)
        assert done is not None
        if check and done.kind != "OK":
            name = command.split(b" ")[0].decode()
            if done.kind == "NO":
                raise PlatformUnavailable(f"{self._wire.where} does not do {name}: {done.text}")
            raise self._strange(f"it does not understand {name}: {done.text}")
        return done, found

    async def idle(self, within_s: float) -> None:
        """Wait until a mail may have come, for so long at most (RFC 2177)."""
        tag = await self._begin(b"IDLE")
        refused = await self._until(tag, [], plus=True)
        if refused is not None:
            raise PlatformUnavailable(f"{self._wire.where} does not do IDLE: {refused.text}")
        with trio.move_on_after(within_s):
            while not self.news:
                self._note(await self._response(within_s=within_s))
        await self._wire.send(b"DONE\r\n")
        await self._until(tag, [])

    # --- lines

    async def _begin(self, command: bytes) -> bytes:
        self._number += 1
        tag = b"h%d" % self._number
        await self._wire.send(tag + b" " + command + b"\r\n")
        return tag

    async def _until(self, tag: bytes, found: list[Any], *, plus: bool = False) -> Status | None:
        """Read up to the status with this tag; None for the server's invitation to go on, where that is awaited."""
        left = self._most
        for _ in range(MAX_RESPONSES):
            each = await self._response(tag, plus=plus, most=left)
            if each is None or (isinstance(each, _Done) and each.tag == tag):
                return None if each is None else each.status
            left -= self._last_size
            self._note(each)
            found.append(each)
        raise self._strange("its answer has no end")

    async def _response(
        self, tag: bytes = b"", *, plus: bool = False, within_s: float | None = None, most: int = SPARE
    ) -> Any:
        """One response: a list of values, a Status, a _Done, or None for `+`."""
        line = await self._wire.line(most=MAX_LINE, within_s=within_s)
        self._last_size = len(line)
        if line.startswith(b"+"):
            if plus:
                return None
            raise self._strange("it invites to what nobody wants")
        if tag and line.startswith(tag + b" "):
            found = status(line[len(tag) + 1 :])
            if found is None:
                raise self._strange("a command has no end")
            self._learn(found)
            return _Done(tag, found)
        if not line.startswith(b"* "):
            raise PlatformProtocolError(f"{self._wire.where} does not speak IMAP", sample=repr(line[:200]))
        if (said := status(line[2:])) is not None:
            if said.kind == "BYE" and tag:
                raise PlatformUnavailable(f"{self._wire.where} ends the connection: {said.text}")
            return said
        parts = [line[2:]]
        while (size := literal_size(parts[-1])) is not None:
            self._last_size += size
            if self._last_size > most:
                raise self._strange("its answer is larger than what was asked for")
            parts.append(await self._wire.exactly(size))
            parts.append(await self._wire.line(most=MAX_LINE))
        return values(parts)

    def _note(self, each: Any) -> None:
        if isinstance(each, Status):
            self._learn(each)
            if each.kind == "BYE":
                raise PlatformUnavailable(f"{self._wire.where} ends the connection: {each.text}")
        elif isinstance(each, list) and _is(each, "CAPABILITY"):
            self.capabilities = frozenset(str(name).upper() for name in each[1:])
        elif isinstance(each, list) and len(each) > 1 and str(each[1]).upper() in ("EXISTS", "RECENT"):
            self.news = True

    def _learn(self, found: Status) -> None:
        if self._validity and found.code_name == "UIDVALIDITY" and found.code.split()[1:] != [self._validity]:
            raise PlatformUnavailable(f"{self._wire.where}: the mailbox was made anew while it was open")
        if found.code_name == "CAPABILITY":
            self.capabilities = frozenset(found.code.upper().split()[1:])

    def _strange(self, what: str) -> PlatformProtocolError:
        return PlatformProtocolError(f"{self._wire.where}: {what}")


@dataclass(frozen=True, slots=True)
class _Done:
    tag: bytes
    status: Status


def _is(found: Sequence[Any], name: str) -> bool:
    return bool(found) and isinstance(found[0], str) and found[0].upper() == name


def pairs_of(found: Any) -> dict[str, Any]:
    """The items of a FETCH response by name in upper case, without a partial body's offset."""
    if not isinstance(found, list):
        return {}
    named = zip(found[::2], found[1::2], strict=False)
    return {name.upper().partition("<")[0]: value for name, value in named if isinstance(name, str)}


@asynccontextmanager
async def open_imap(config: EmailConfig, host: Host, *, timeout_s: float | None = None) -> AsyncIterator[Imap]:
    """A connection that is logged in.

    Lifetime: exit = its socket is closed.

    Raises:
        PlatformRefused: login or security are not right.
        PlatformError: as `hermes.errors` says.
    """
    async with open_wire(
        config, host, to=config.imap_host, port=config.imap_port, security=config.imap_security, timeout_s=timeout_s
    ) as wire:
        imap = Imap(wire, config.max_message_bytes)
        known = await imap.greet()
        if config.imap_security == "starttls":
            if known:
                raise PlatformRefused(f"{wire.where} knows us before TLS: set `imap_security`")
            await imap.start_tls(host, config.imap_host)
        if not known:
            await imap.log_in(config)
        yield imap


async def sent_mailbox(imap: Imap, config: EmailConfig) -> str | None:
    """The folder of what was sent: as configured, or as the server marks it (RFC 6154), or the one called Sent; None if none is."""
    if config.sent_mailbox is not None:
        return config.sent_mailbox
    _, found = await imap.call(b'LIST "" "*"')
    called = None
    for each in found:
        if not isinstance(each, list) or not _is(each, "LIST") or len(each) != 4 or not isinstance(each[1], list):
            continue
        name = each[3].decode("utf-8", "replace") if isinstance(each[3], bytes) else str(each[3])
        if any(str(flag).lower() == "\\sent" for flag in each[1]):
            return decoded_name(name)
        if name.lower() in ("sent", "inbox.sent", "inbox/sent"):
            called = name
    return called
