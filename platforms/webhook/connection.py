"""The routes of an account: calls come in, and replies go to whoever waits for them, or to chats of other accounts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import NoReturn

import trio

from hermes.errors import AddressGone, PlatformRefused, SendRejected
from hermes.platform import (
    Activity,
    Address,
    AttachmentRef,
    ByteStream,
    Capabilities,
    CheckReport,
    Content,
    Host,
    Inbox,
    Receipt,
    ReplyRef,
)
from platforms.webhook.answers import Answers
from platforms.webhook.config import CAPABILITIES, Route, WebhookConfig
from platforms.webhook.handling import RouteHandling
from platforms.webhook.translate import Plan


class WebhookPlatform:
    """A `Platform`; see `hermes.platform`."""

    def __init__(self, config: WebhookConfig, host: Host) -> None:
        self._host = host
        self._answers = Answers()
        self._routes = {each.name: RouteHandling(Plan.of(each), host, self._answers) for each in config.routes}

    @property
    def capabilities(self) -> Capabilities:
        """A reply is one piece, and is shown once."""
        return CAPABILITIES

    async def receive(self, inbox: Inbox, cursors: Mapping[str, bytes]) -> NoReturn:  # noqa: ARG002  # callers keep count
        """Serve the routes. What is not committed is answered with an error, and its caller repeats it.

        Raises:
            PlatformConflict: another account serves one of them.
        """
        async with trio.open_nursery() as nursery:
            for each in self._routes.values():
                nursery.start_soon(self._serve, each, inbox, name=f"route {each.plan.route.name}")
        raise AssertionError("routes are served until they are cancelled")

    async def _serve(self, handling: RouteHandling, inbox: Inbox) -> None:
        route = handling.plan.route
        handler = partial(handling.handle, inbox)
        async with self._host.routes.serve(route.name, handler, max_body_bytes=route.max_body_bytes):
            await trio.sleep_forever()

    async def send(self, to: Address, content: Content, *, key: str, reply: ReplyRef | None) -> Receipt:
        """Hand a reply to the call that waits for it, and have it shown where the route says.

        The commit for another account comes first: the call hears of it once, and it may be repeated under its key.
        """
        handling = self._routes.get(to.chat)
        if handling is None:
            raise AddressGone(f"there is no route {to.chat} any more")
        route = handling.plan.route
        if route.deliver is not None:
            await self._host.outbox.post(route.deliver, content.text, key=key)
        else:
            await trio.lowlevel.checkpoint_if_cancelled()
        waits = reply is not None and reply.token is not None
        heard = waits and self._answers.give(str(reply and reply.token), content.text, failed=content.failed)
        if not heard and route.deliver is None:
            raise SendRejected(f"nobody waits for a reply of {route.name} any more")
        return Receipt(message_id=key, address=to)

    async def edit(self, receipt: Receipt, content: Content) -> Receipt:  # noqa: ARG002
        """Raises SendRejected: what was answered has been read."""
        raise SendRejected("the answer to a call cannot be changed")

    async def signal(self, to: Address, activity: Activity) -> None:
        """Nothing: a program sees no typing."""

    def fetch(self, attachment: AttachmentRef, *, max_bytes: int) -> AbstractAsyncContextManager[ByteStream]:  # noqa: ARG002
        """Raises SendRejected: calls carry no files."""
        raise SendRejected(f"{attachment.ref[:100]} is no file of a call")


@asynccontextmanager
async def open_webhook(config: WebhookConfig, host: Host) -> AsyncIterator[WebhookPlatform]:
    """The routes of an account, not served yet.

    Raises:
        PlatformRefused: a route cannot be as it is configured.
    """
    for route in config.routes:
        if route.deliver is not None and route.deliver.account == host.account:
            raise PlatformRefused(
                f"the route {route.name} delivers to its own account, {host.account}, which has no chats"
            )
    await trio.lowlevel.checkpoint()
    yield WebhookPlatform(config, host)


async def check(config: WebhookConfig, host: Host) -> CheckReport:
    """Which routes there are; nobody is asked."""
    await trio.lowlevel.checkpoint()
    return CheckReport(
        identity=f"{len(config.routes)} routes of {host.account}", facts=tuple(map(_words, config.routes))
    )


def _words(route: Route) -> str:
    goes = [*(["the caller"] if route.answer else []), *([str(route.deliver)] if route.deliver is not None else [])]
    return f"POST /hooks/{route.name}, signed by {route.signature}; the reply goes to {' and '.join(goes)}"
