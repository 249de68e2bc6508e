"""The bytes of a file that somebody sent: from the service's own hosts, and no more than was asked for."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from urllib.parse import urlsplit

from hermes.errors import PlatformUnavailable, RateLimited, SendRejected
from hermes.platform import AttachmentRef, ByteStream, HttpClient
from platforms.discord.rest import AGENT

HOSTS = frozenset({"cdn.discordapp.com", "media.discordapp.net"})


def allowed(url: str, base_url: str) -> bool:
    """Whether a file may be fetched there: a link in a message must not lead us to another machine."""
    try:
        found, base = urlsplit(url), urlsplit(base_url)
        same = (found.scheme, found.hostname, found.port) == (base.scheme, base.hostname, base.port)
        ours = found.scheme == "https" and found.hostname in HOSTS and found.port in (None, 443)
    except ValueError:
        return False
    return (same or ours) and found.username is None


@asynccontextmanager
async def open_file(
    client: HttpClient, base_url: str, attachment: AttachmentRef, *, max_bytes: int, timeout_s: float
) -> AsyncIterator[ByteStream]:
    """As `Platform.fetch`. No token is sent: the link itself is the right to the file."""
    if not allowed(attachment.ref, base_url):
        raise SendRejected("the file is not at one of Discord's own hosts")
    async with client.stream("GET", attachment.ref, headers={"user-agent": AGENT}, timeout_s=timeout_s) as (
        answer,
        body,
    ):
        if answer.status == 429:
            after = answer.headers.get("retry-after", "")
            wait = float(after) if after.isdigit() else 5.0
            raise RateLimited("Discord asks to wait before more files", retry_after_s=wait, scope="method")
        if answer.status >= 500:
            raise PlatformUnavailable(f"Discord answered {answer.status} for a file")
        if answer.status != 200:
            raise SendRejected(f"the file is gone (Discord answered {answer.status})")
        length = answer.headers.get("content-length", "")
        if length.isdigit() and int(length) > max_bytes:
            raise SendRejected(f"the file has {length} bytes, more than {max_bytes}")
        async with aclosing(_bounded(body, max_bytes)) as pieces:
            yield pieces


async def _bounded(body: ByteStream, max_bytes: int) -> AsyncGenerator[bytes, None]:
    left = max_bytes
    async for piece in body:
        left -= len(piece)
        if left < 0:
            raise SendRejected(f"the file has more than {max_bytes} bytes")
        yield piece
