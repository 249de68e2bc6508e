"""Files both ways: shown by an upload in three steps, of which only the last is seen, and fetched with our token.

Source: https://docs.slack.dev/messaging/working-with-files
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from hermes.errors import PlatformUnavailable, RateLimited, SendRejected
from hermes.platform import Address, AttachmentRef, ByteStream, Content, Receipt, UploadPart
from platforms.slack import payload
from platforms.slack.api import Failed, SlackApi, wait_of
from platforms.slack.uploads import Uploads
from platforms.slack.workspaces import Workspace, Workspaces, is_stamp

UPLOAD_S = 600.0
HOST = "slack.com"  # and everything below it


class Files:
    """Files of one app.

    Args:
        api: the Web API.
        spaces: where the app is.
        uploads: what was uploaded for what.
    """

    def __init__(self, api: SlackApi, spaces: Workspaces, uploads: Uploads) -> None:
        self._api = api
        self._spaces = spaces
        self._uploads = uploads

    async def show(
        self, space: Workspace, channel: str, thread: str | None, to: Address, content: Content, *, key: str
    ) -> Receipt:
        """Upload a file and show it with its caption. The receipt names the file: Slack does not name the message."""
        file = content.file
        assert file is not None
        channel = await self.conversation(space, channel)
        wanted = {"filename": file.name or "file", "length": str(file.size_bytes)}
        body = await self._api.ask("files.getUploadURLExternal", wanted, space.token)
        url, id_ = body.get("upload_url"), body.get("file_id")
        if not isinstance(url, str) or not isinstance(id_, str) or not trusted(url, self._api.base_url):
            raise PlatformUnavailable("Slack did not say where it wants the file")
        part = UploadPart(name="file", content=file, file_name=file.name or "file", media_type=file.media_type)
        answer = await self._api.put(url, (part,), UPLOAD_S)
        if answer.status == 413:
            raise SendRejected("the file is larger than Slack takes")
        if answer.status != 200:
            raise PlatformUnavailable(f"Slack answered {answer.status} to the file's upload")
        await self._uploads.note(key, id_)
        params = payload.completion(id_, channel, thread, content)
        await self._api.ask("files.completeUploadExternal", params, space.token, shows=True)
        return Receipt(message_id=id_, address=Address(to.account, space.outside(channel), to.thread), extra="file")

    async def conversation(self, space: Workspace, channel: str) -> str:
        """The channel of a chat: a person's is opened."""
        if channel[0] not in "UW":
            return channel
        body = await self._api.ask("conversations.open", {"users": channel}, space.token)
        opened = body.get("channel")
        id_ = opened.get("id") if isinstance(opened, dict) else None
        if not isinstance(id_, str):
            raise PlatformUnavailable("Slack did not say where the person can be written to")
        return id_

    async def message_of(self, space: Workspace, channel: str, file: str) -> str | None:
        """The message that shows a file in a channel; None if there is none (yet)."""
        try:
            info = await self._info(space, file)
        except Failed as failed:
            if failed.error in ("file_not_found", "file_deleted"):
                return None
            raise failed.meaning from None
        shares = info.get("shares")
        for kind in ("public", "private"):
            places = shares.get(kind) if isinstance(shares, dict) else None
            shown = places.get(channel) if isinstance(places, dict) else None
            for each in shown if isinstance(shown, list) else ():
                stamp = each.get("ts") if isinstance(each, dict) else None
                if isinstance(stamp, str) and is_stamp(stamp):
                    return stamp
        return None

    async def _info(self, space: Workspace, file: str) -> dict[str, Any]:
        found = (await self._api.call("files.info", {"file": file}, space.token)).get("file")
        return found if isinstance(found, dict) else {}

    @asynccontextmanager
    async def open(self, attachment: AttachmentRef, max_bytes: int) -> AsyncIterator[ByteStream]:
        """As `Platform.fetch`."""
        space, id_ = self._spaces.locate(attachment.ref)
        try:
            info = await self._info(space, id_)
        except Failed as failed:
            raise failed.meaning from None
        url, size = info.get("url_private_download") or info.get("url_private"), info.get("size")
        if not isinstance(url, str) or not trusted(url, self._api.base_url):
            raise SendRejected("the file is not at one of Slack's own hosts")
        if isinstance(size, int) and size > max_bytes:
            raise SendRejected(f"the file has {size} bytes, more than {max_bytes}")
        headers = {"authorization": "Bearer " + space.token.secret.reveal()}
        async with self._api.http.stream("GET", url, headers=headers, timeout_s=self._api.timeout_s) as (answer, body):
            if answer.status == 429:
                raise RateLimited("Slack asks to wait before more files", retry_after_s=wait_of(answer), scope="method")
            if answer.status >= 500:
                raise PlatformUnavailable(f"Slack answered {answer.status} for a file")
            if answer.status != 200:
                raise SendRejected(f"the file is gone (Slack answered {answer.status})")
            page = answer.headers.get("content-type", "").startswith("text/html")
            if page and not str(info.get("mimetype", "")).startswith("text/html"):  # where one can sign in
                raise SendRejected("Slack does not give the file to the app: it lacks the scope files:read")
            async with aclosing(_bounded(body, max_bytes)) as pieces:
                yield pieces


def trusted(url: str, base_url: str) -> bool:
    """Whether a URL that Slack gave leads to Slack, or to where the Web API is."""
    try:
        found, base = urlsplit(url), urlsplit(base_url)
        same = (found.scheme, found.hostname, found.port) == (base.scheme, base.hostname, base.port)
        host = found.hostname or ""
        theirs = found.scheme == "https" and (host == HOST or host.endswith(f".{HOST}")) and found.port in (None, 443)
    except ValueError:
        return False
    return (same or theirs) and found.username is None


async def _bounded(body: ByteStream, max_bytes: int) -> AsyncGenerator[bytes, None]:
    left = max_bytes
    async for piece in body:
        left -= len(piece)
        if left < 0:
            raise SendRejected(f"the file has more than {max_bytes} bytes")
        yield piece
