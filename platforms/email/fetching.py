"""The bytes of a file in a mail, piece by piece (RFC 9051, section 6.4.5)."""

from __future__ import annotations

import binascii
import quopri
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from hermes.errors import PlatformProtocolError, SendRejected
from hermes.platform import ByteStream, Host
from platforms.email.config import EmailConfig
from platforms.email.imap import Imap, open_imap

PIECE = 131_072  # encoded bytes
MAX_LINE = 1_048_576  # of quoted-printable
_REF = re.compile(r"(\d{1,10})/(\d{1,10})/(\d{1,4}(?:\.\d{1,4}){0,30})/([bqn])/(\d{0,12})\Z")

_NO_BASE64 = bytes(each for each in range(256) if not (chr(each).isalnum() and each < 128) and each not in b"+/=")


class _Decoder:
    """Takes the transfer encoding off, a piece at a time."""

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._rest = b""

    def feed(self, piece: bytes, *, last: bool) -> bytes:
        if self._encoding == "n":
            return piece
        if self._encoding == "q":
            whole, end, rest = (self._rest + piece).rpartition(b"\n")
            if last:
                whole, end, rest = self._rest + piece, b"", b""
            if len(rest) > MAX_LINE:
                raise SendRejected("the file is not what its encoding says")
            self._rest = rest
            return quopri.decodestring(whole + end)
        data = self._rest + piece.translate(None, _NO_BASE64)
        keep = 0 if last else len(data) % 4
        self._rest = data[len(data) - keep :]
        data = data[: len(data) - keep]
        try:
            return binascii.a2b_base64(data + b"=" * (-len(data) % 4))
        except binascii.Error:
            raise SendRejected("the file is not what its encoding says") from None


@asynccontextmanager
async def open_file(config: EmailConfig, host: Host, ref: str, max_bytes: int) -> AsyncIterator[ByteStream]:
    """A file's bytes as they come.

    Raises, on entering or while they are read:
        SendRejected: it is not there any more, or too large.
        PlatformError: the connection itself.
    """
    found = _REF.match(ref)
    if found is None:
        raise SendRejected("this names no file of a mail")
    validity, uid, section, encoding, size = found.groups()
    if size and int(size) > max_bytes:
        raise SendRejected(f"the file has {size} bytes, more than the {max_bytes} that are taken")
    async with open_imap(config, host) as imap:
        if (await imap.select(config.mailbox)).validity != int(validity):
            raise SendRejected("the mailbox was made anew, and the mail is not known there")
        pieces = _pieces(imap, int(uid), section, _Decoder(encoding), max_bytes, int(size) if size else None)
        try:
            yield pieces
        finally:
            await pieces.aclose()


async def _pieces(
    imap: Imap, uid: int, section: str, decoder: _Decoder, max_bytes: int, size: int | None
) -> AsyncGenerator[bytes, None]:
    at = taken = 0
    while True:
        found = await imap.fetch(uid, b"BODY.PEEK[%b]<%d.%d>" % (section.encode(), at, PIECE))
        if found is None:
            raise SendRejected("the mail is not there any more")
        piece = found.get(f"BODY[{section}]", b"")
        if not isinstance(piece, bytes):
            piece = b""
        if len(piece) > PIECE:
            raise PlatformProtocolError("the IMAP server sends more of a file than was asked for")
        at += len(piece)
        last = len(piece) < PIECE
        decoded = decoder.feed(piece, last=last)
        taken += len(decoded)
        if taken > max_bytes:
            raise SendRejected("the file is larger than what is taken")
        if decoded:
            yield decoded
        if last:
            break
    if size is not None and taken != size:
        raise SendRejected("the mailbox has other bytes there than the mail had when it came")
