"""The contract between the core and a messaging platform. A platform sees this, `hermes.events` and `hermes.errors`.

A platform is two lifetimes. `PlatformSpec.open` holds what sending needs: entered, it is authenticated and usable, or it has
raised and left nothing. `Platform.receive`, which the core runs inside it, holds what receiving needs. A platform translates;
it never retries, never waits for a limit, never decides who may speak: it raises what `hermes.errors` names, and the core does
the rest. The rules, and the kit that checks them: `hermes.testing.check_platform`.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Generic, Literal, NoReturn, Protocol, TypeVar, runtime_checkable

import trio

from hermes.decode import Rule, choice, flag, seconds, secret, text, texts, url, whole, word
from hermes.events import (
    Activity,
    Address,
    AttachmentKind,
    AttachmentRef,
    Button,
    ChatKind,
    Content,
    EventKind,
    InboundEvent,
    OutboundFile,
    Person,
    Quoted,
    Receipt,
    ReplyRef,
)
from hermes.nurseries import open_background_nursery
from hermes.routes import RouteHandler, Routes, WebRequest, WebResponse
from hermes.settings import Secret

__all__ = [
    "CONTRACT",
    "AccountMemory",
    "Activity",
    "Address",
    "AttachmentKind",
    "AttachmentRef",
    "Button",
    "ByteStream",
    "Capabilities",
    "ChatKind",
    "CheckReport",
    "CommandSpec",
    "Content",
    "EventKind",
    "Host",
    "HttpAnswer",
    "HttpClient",
    "HttpFactory",
    "InboundEvent",
    "Inbox",
    "OutboundFile",
    "Outbox",
    "Person",
    "Platform",
    "PlatformSpec",
    "Quoted",
    "ReadsBack",
    "Receipt",
    "ReplyRef",
    "RouteHandler",
    "Routes",
    "Secret",
    "StreamFactory",
    "UploadPart",
    "WebRequest",
    "WebResponse",
    "WebSocket",
    "WebSocketFactory",
    "choice",
    "flag",
    "open_background_nursery",
    "seconds",
    "secret",
    "setting",
    "text",
    "texts",
    "url",
    "whole",
    "word",
]

CONTRACT: Final = 1
"""The version of the contract; `docs/reference/platform-contract.md` says what may change within it."""

C = TypeVar("C")
ByteStream = AsyncIterator[bytes]
EMPTY: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a service can show and do.

    Args:
        dialect: how text is marked up: `plain`, `telegram_html`, `discord`, `markdown`, `slack`, `irc`.
        max_text: length of one message at most, in `unit`s of the text as it is sent.
        unit: `utf16` code units, `codepoint`s, or UTF-8 `byte`s.
        max_caption: the same for the text beside a file.
        edits: a message of ours can be changed.
        typing_every_s: how often `typing` must be repeated to stay visible; 0 = the service has none.
        reactions: messages can be reacted to.
        buttons: messages can have buttons.
        files: files can be sent, of at most so many bytes; 0 = none.
        drafts: a reply can be shown while it is written, by edits or otherwise.
        deduplicates: the service drops a second `send` with the same key for at least five minutes.
        native_commands: commands are registered with the service, from `Host.commands`.
        command_prefix: what people type before the name of a command, where their own program keeps the `/` for itself; an
            account's setting of this name holds before it.
        finds: the service can be asked whether it shows what an earlier `send` may have left: the platform is a `ReadsBack`.
    """

    dialect: Literal["plain", "telegram_html", "discord", "markdown", "slack", "irc"] = "plain"
    max_text: int = 4096
    unit: Literal["utf16", "codepoint", "byte"] = "codepoint"
    max_caption: int = 1024
    edits: bool = False
    typing_every_s: float = 0.0
    reactions: bool = False
    buttons: bool = False
    files: int = 0
    drafts: bool = False
    deduplicates: bool = False
    native_commands: bool = False
    finds: bool = False
    command_prefix: str = "/"


class Inbox(Protocol):
    """Where a platform puts what people did. Valid for one run of `receive`."""

    async def deliver(self, *events: InboundEvent, cursors: Mapping[str, bytes] = EMPTY) -> frozenset[str]:
        """Commit events in this order and how far the account has read, in one transaction; repeats are absorbed.

        Args:
            events: what happened, oldest first; their addresses name this account.
            cursors: name (1 to 100 characters) -> value (at most 4,096 bytes); each is stored over the one before.

        Returns: the `InboundEvent.key`s of those that are new and will be answered; the others were there before, are commands
            or context, or come from somebody who may not speak.

        When it returns, the service may be told that everything was received. Cancellation: committed, or not at all;
        the service repeats it.

        Raises:
            StoreUnavailable: nothing was committed. Leave it alone: the core waits, and calls `receive` again.
        """

    def alive(self, path: str, *, next_within_s: float) -> None:
        """Note progress that the core cannot see, such as an answered poll; silence beyond `next_within_s` is deafness.

        Args:
            path: `poll`, `heartbeat`, `event`, …: at most eight of 1 to 40 characters.
            next_within_s: seconds until the next sign at the latest; the generation is renewed otherwise.
        """

    def left(self, event_id: str) -> None:
        """Nobody waits any more for the attended event of this `InboundEvent.key`."""

    def quarantine(self, because: str, sample: object) -> None:
        """Tell of something that cannot be read and was passed over: it is counted, and a bounded piece of it is logged.

        Args:
            because: what is wrong with it.
            sample: what came, without secrets.
        """


class Platform(Protocol):
    """One live connection to one messaging service."""

    @property
    def capabilities(self) -> Capabilities:
        """What this connection can do; may be less than its spec says."""

    async def receive(self, inbox: Inbox, cursors: Mapping[str, bytes]) -> NoReturn:
        """Translate what happens into `inbox.deliver`, until cancelled; acknowledge only what was delivered.

        Args:
            inbox: for this run.
            cursors: what was committed by `deliver` last.

        It may be cancelled and called again while the connection lives. Cancellation: what was not delivered is not
        acknowledged.

        Raises:
            PlatformError: as `hermes.errors` names it; the core acts.
        """

    async def send(self, to: Address, content: Content, *, key: str, reply: ReplyRef | None) -> Receipt:
        """Show one part: one visible effect, by its last request. Several tasks may call it at once.

        Args:
            to: where.
            content: rendered and short enough.
            key: the same for each attempt at this part, for services that drop repeats; 1 to 25 of `[a-z0-9]`.
            reply: what it answers.

        Raises:
            SendError: `SendUncertain` if the request may have left and no complete answer came.
            PlatformError: the connection itself.
        """

    async def edit(self, receipt: Receipt, content: Content) -> Receipt:
        """Make a message of ours show this content. Idempotent: "not modified" is success. Raises as `send` does."""

    async def signal(self, to: Address, activity: Activity) -> None:
        """Show that we type, or react. Raises as `send` does; the core ignores it."""

    def fetch(self, attachment: AttachmentRef, *, max_bytes: int) -> AbstractAsyncContextManager[ByteStream]:
        """Open the bytes of a file that somebody sent.

        Raises, on entering or while it is read:
            SendRejected: it is gone, or larger than `max_bytes`.
            PlatformError: the connection itself.
        """


@runtime_checkable
class ReadsBack(Protocol):
    """What a platform is besides, if its capabilities say `finds`: it can look for what an earlier `send` may have left."""

    async def find(self, to: Address, *, key: str, since: float) -> Receipt | None:
        """Look for the message of a `send` whose outcome is not known. Shows and changes nothing.

        Args:
            to, key: of that `send`.
            since: seconds since the epoch at which it began, the earliest if there were several.

        Returns:
            its receipt; None only if it is certain that nothing is or will be shown: then it is sent again, unmarked.

        Raises:
            SendUncertain: nobody can tell; it is treated like a service that cannot be asked.
            PlatformError: the service cannot be asked now; it will be asked again.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandSpec:
    """A command that people may type: `/name arguments`.

    Args:
        name: 1 to 32 of `[a-z0-9_]`.
        help: one line.
        arguments: what follows it, for people; empty = nothing.
    """

    name: str
    help: str
    arguments: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """What the service says about an account.

    Args:
        identity: who we are there, for people, such as `@name (id 123)`.
        facts: what else is worth knowing, one line each.
        missing: what will not work and how to change that, one line each.
    """

    identity: str
    facts: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpAnswer:
    """A complete HTTP answer; `headers` have lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadPart:
    """One part of a multipart/form-data body: words, or a file's content."""

    name: str
    content: bytes | OutboundFile
    file_name: str | None = None
    media_type: str | None = None


class HttpClient(Protocol):
    """Requests over one connection pool."""

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] = EMPTY,
        content: bytes | None = None,
        parts: tuple[UploadPart, ...] = (),
        timeout_s: float,
        max_bytes: int = 16_777_216,
    ) -> HttpAnswer:
        """Send a request and read its whole answer, whatever its status. Redirects are not followed.

        Args:
            method: such as `POST`.
            url: absolute.
            headers: beside those that HTTP needs.
            content: the body.
            parts: instead of `content`, a multipart/form-data body; files are read as they are sent.
            timeout_s: for everything together.
            max_bytes: of the answer's body, after decoding.

        Raises:
            Unreachable: no complete answer came; `sent` says whether the request may have left.
            PlatformProtocolError: the answer is larger than `max_bytes` or cannot be decoded, or the URL is none.
            SendRejected: a file of `parts` cannot be read, or does not have `size_bytes` bytes; the service has no request.
        """

    def stream(
        self, method: str, url: str, *, headers: Mapping[str, str] = EMPTY, timeout_s: float
    ) -> AbstractAsyncContextManager[tuple[HttpAnswer, ByteStream]]:
        """Send a request and read its answer as it comes (`HttpAnswer.body` is empty). Raises as `request` does.

        Args:
            timeout_s: until the answer begins, and from each piece of it to the next.
        """


class HttpFactory(Protocol):
    """Makes HTTP clients over the gateway's TLS context."""

    def __call__(
        self, *, proxy: str | None = None, max_connections: int = 20
    ) -> AbstractAsyncContextManager[HttpClient]:
        """A client; its sockets are closed on exit.

        Args:
            proxy: `http://`, `https://`, `socks5://` or `socks5h://` URL; None = direct.
            max_connections: at once.
        """


class WebSocket(Protocol):
    """An open WebSocket. One task may send while another receives."""

    async def send(self, message: str | bytes) -> None:
        """Send one message. Raises WebSocketClosed."""

    async def receive(self) -> str | bytes:
        """The next message. Raises WebSocketClosed with the code and reason that ended it."""

    async def ping(self) -> None:
        """Ask the peer for a sign of life and wait for it; without a bound of its own. Raises WebSocketClosed."""

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close with this code, within a bound; afterwards it is closed whatever the peer does. Never raises."""


class WebSocketFactory(Protocol):
    """Opens WebSockets over the gateway's TLS context."""

    def __call__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] = EMPTY,
        proxy: str | None = None,
        max_message_bytes: int = 16_777_216,
        open_timeout_s: float = 20.0,
    ) -> AbstractAsyncContextManager[WebSocket]:
        """An open WebSocket; on exit it is closed, with 1000 if nobody closed it before. `open_timeout_s` begins with its turn.

        Raises:
            Unreachable: it could not be opened.
        """


class StreamFactory(Protocol):
    """Opens TCP connections over the gateway's network settings."""

    def __call__(
        self, host: str, port: int, *, tls: bool, proxy: str | None = None, open_timeout_s: float = 20.0
    ) -> AbstractAsyncContextManager[trio.abc.Stream]:
        """A connected stream; closed on exit. Raises Unreachable."""


class AccountMemory(Protocol):
    """A few values that an account keeps over restarts: at most 256 keys, of 100 characters; values of 4,096 bytes."""

    async def get(self, key: str) -> bytes | None:
        """The value, or None."""

    async def put(self, key: str, value: bytes | None) -> None:
        """Keep a value, committed on return; None forgets it."""


class Outbox(Protocol):
    """The way to other accounts, for a platform that has no chats of its own."""

    async def post(self, to: Address, markdown: str, *, key: str) -> None:
        """Have words shown at an address of any account of another platform, as a reply would be; committed on return.

        Args:
            to: where.
            markdown: as the model wrote it.
            key: the second call with one does nothing, for as long as what was sent is remembered (a week by default).

        Raises:
            SendRejected: the account is not configured, or is one of the caller's own platform.
            PlatformUnavailable: nothing was committed; the same call may succeed later.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """All that a platform may touch.

    Args:
        account: our id in the configuration, the `account` of every Address.
        commands: what people may type, to be registered with services that have that.
        routes: for webhooks.
        outbox: to the chats of other accounts.
        memory: for what must outlive a restart and is no cursor.
        http, websocket, tcp: the network.
        tls: for protocols that change to TLS on an open connection.
        clock: seconds since the epoch.
    """

    account: str
    commands: tuple[CommandSpec, ...]
    routes: Routes
    outbox: Outbox
    memory: AccountMemory
    http: HttpFactory
    websocket: WebSocketFactory
    tcp: StreamFactory
    tls: ssl.SSLContext
    clock: Callable[[], float]


def setting(default: Any = ..., *, rule: Rule | None = None, about: str) -> Any:
    """A field of a platform's configuration.

    Args:
        default: without one the key must be there.
        rule: what it takes, from `hermes.decode`; by default what the annotation says (Secret, str, bool, int, float).
        about: one line for `config check`, `hermes platform list` and the wizard.
    """
    metadata = {"rule": rule, "about": about}
    return field(metadata=metadata) if default is ... else field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformSpec(Generic[C]):
    """What a platform is, readable without importing anything heavy or opening anything.

    Args:
        name: 1 to 32 of `[a-z0-9_-]`; the value of `platform:` in the configuration.
        config: a frozen dataclass whose fields are made by `setting()`; the core reads it strictly.
        capabilities: what the service can do at most.
        secrets: fields of `config` that hold the account's identity at the service: no two accounts may share one. Empty
            where no secret is an identity; then nobody looks for twins.
        help: one paragraph: what the service is, and where its token comes from.
        open: enters one connection; see the module.
        check: asks the service who we are and what is missing, without sending anything.
        environment: environment variable -> field of `config` (or `allowed_users`): enough to configure an account alone.
            A needed one ends in `_TOKEN`, `_ADDRESS` or `_SERVER`: where no such variable is set, platforms are not looked for.
        manifest: for services that make an app from a description: what to paste there, as plain values, by the app's name and
            the commands that people may type. `hermes NAME manifest` prints it.
        access: what holds of the keys that say who may speak, where an account's section leaves them out. Only a platform whose
            every event was proven by a secret of the account may open itself here.
        contract: the version of this contract that it was written for.
        mistakes: what is wrong with an account's section though each setting is right by itself, as (key, words for a person): by
            the configuration, and the ids that the section names under `allowed_users`, `admins`, `allow_bots`, `allowed_chats`,
            `ignored_chats` and `free_response_chats` (`*` left out). Pure; such a section is refused before anything is opened.
    """

    name: str
    config: type[C]
    capabilities: Capabilities
    secrets: tuple[str, ...]
    help: str
    open: Callable[[C, Host], AbstractAsyncContextManager[Platform]]
    check: Callable[[C, Host], Awaitable[CheckReport]] | None = None
    environment: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    manifest: Callable[[str, tuple[CommandSpec, ...]], Mapping[str, Any]] | None = None
    access: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    contract: int = 1
    mistakes: Callable[[C, Mapping[str, frozenset[str]]], Iterable[tuple[str, str]]] | None = None
