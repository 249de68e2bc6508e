"""Every error of Hermes. A class is named for what its catcher should do; hints are fields.

HermesError
├ ConfigError(problems)                 refuse to start; exit 78; nothing has been opened
├ InstanceHeld(holder)                  another instance holds this home; exit 69
├ NoGateway(where)                      nobody answers at the control socket of this home
├ ControlFailed(status, code)           the gateway answered the control socket with an error
│ └ GatewayLeft                         it closed the connection before its answer was whole
├ ListenFailed(where)                   an address cannot be bound; exit 1
├ AccountDown(state, reason)            nobody is connected to send through: wait for the account
├ LeaseEnded(account)                   the connection was left while it was used: what was under way is uncertain
├ PlatformError                         a messaging service; the supervisor of its account decides
│ ├ PlatformUnavailable(retry_after_s)  reconnect with backoff
│ │ ├ Unreachable(sent)                 no complete answer; `sent`: the request may have left
│ │ ├ WebSocketClosed(code, reason)     a WebSocket has ended
│ │ └ ConnectionEnded                   the one connection that everything goes over is gone: open another
│ ├ PlatformConflict(retry_after_s)     somebody else receives with this token: slow, visible
│ ├ PlatformRefused(reason)             bad token, missing permission: one attempt, then parked
│ ├ PlatformProtocolError(sample)       what came is not the protocol: counted, quarantined, go on
│ └ SendError
│   ├ RateLimited(retry_after_s, scope) a limit: nothing more goes to what it names until it is over
│   ├ SendRejected(reason)              this content will never be shown there
│   ├ AddressGone(moved_to)             nobody is there any more
│   └ SendUncertain                     it may have been shown
├ ModelError
│ ├ ModelUnavailable(retry_after_s)     retry inside the budget, then the next endpoint
│ ├ ModelRefused(status)                a request or key the provider will not serve; no retry on this endpoint
│ ├ ContextOverflow(limit)              the history is too large for the model
│ └ ModelProtocolError(sample)          the provider answered something that is not its protocol
├ ToolError(text)                       goes back to the model as the tool's result
│ ├ ToolDenied
│ └ ToolTimeout
├ RequestError(status, code, param)     a client's request that is not served; a 4xx/5xx with this reason
├ StoreUnavailable(reason)              busy, full, read-only, io: nothing is acknowledged; wait, stay responsive, go on
└ StoreError                            ends the process
  ├ SchemaTooNew                        exit 78
  └ StoreCorrupt                        exit 1

`trio.Cancelled` is never part of this tree. A turn stopped by a person is a state, not an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal


class HermesError(Exception):
    """The root of every error that Hermes raises on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in the configuration: where it is and what is wrong, without any secret value."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}" if self.path else self.reason


class ConfigError(HermesError):
    """The configuration cannot be used; `problems` holds every mistake found, not only the first."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


class InstanceHeld(HermesError):
    """Another instance holds this home; `holder` is what its lock file says about it (text for people)."""

    def __init__(self, holder: str) -> None:
        super().__init__(f"another instance holds this home: {holder}")
        self.holder = holder


class NoGateway(HermesError):
    """Nobody answers at the control socket: no gateway runs for this home, or it is only just starting."""


class ControlFailed(HermesError):
    """The gateway answered a request on the control socket with an error, or with something that is no answer."""

    def __init__(self, message: str, *, status: int = 0, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class GatewayLeft(ControlFailed):
    """The gateway closed the connection before its answer was whole: it ended, or it was ended."""


class ListenFailed(HermesError):
    """An address to listen on cannot be bound; the words say which, why, and how to choose another."""


class AccountDown(HermesError):
    """An account has no live connection now.

    Args:
        account: its id.
        state: as in `hermes.accounts`, or `removed` for one that is not configured (any more).
        reason: for people.
    """

    def __init__(self, account: str, state: str, reason: str = "") -> None:
        super().__init__(f"{account} is not connected ({state}{f': {reason}' if reason else ''})")
        self.account = account
        self.state = state
        self.reason = reason


class LeaseEnded(HermesError):
    """The connection of an account was left while somebody used it; what was under way may or may not have happened."""

    def __init__(self, account: str) -> None:
        super().__init__(f"the connection of {account} was left while this was under way")
        self.account = account


class PlatformError(HermesError):
    """Something between us and a messaging service; the subclass says what is to be done."""


class PlatformUnavailable(PlatformError):
    """The service cannot be reached or does not serve now: try again, after `retry_after_s` if it said so.

    Args:
        silent: the path of `Inbox.alive` that a proof of flow found to bring nothing: the account counts as deaf until that
            path, or an event, is heard again.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None, silent: str | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.silent = silent


class Unreachable(PlatformUnavailable):
    """A request without a complete answer; `sent` is False only if nothing of it can have left."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class WebSocketClosed(PlatformUnavailable):
    """A WebSocket has ended. `code` as in RFC 6455, section 7.4; 1006 if the peer sent none."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(f"the WebSocket was closed ({code}{f': {reason[:200]}' if reason else ''})")
        self.code = code
        self.reason = reason[:200]


class ConnectionEnded(PlatformUnavailable):
    """The one connection over which a platform sends and receives is gone, with nothing of the request in it sent.

    The core opens another at once, as its backoff allows, and does not try to receive through this one again.
    """


class PlatformConflict(PlatformError):
    """Somebody else receives with the same token; `retry_after_s` is when the service may have noticed that they left."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class PlatformRefused(PlatformError):
    """The service will not have this account as it is: the message says, to a person, what is wrong and how to mend it."""


class PlatformProtocolError(PlatformError):
    """The service sent something that is not its protocol; `sample` is a bounded piece of it, without secrets."""

    def __init__(self, message: str, *, sample: str = "") -> None:
        super().__init__(message)
        self.sample = sample[:500]


class SendError(PlatformError):
    """One send or edit that did not succeed; the connection may well be fine."""


class RateLimited(SendError):
    """The service asks to wait.

    Args:
        retry_after_s: how long, in seconds.
        scope: what waits: `address` (this chat), `method` (this kind of request), `account` (everything).
    """

    def __init__(
        self, message: str, *, retry_after_s: float, scope: Literal["address", "method", "account"] = "address"
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.scope = scope


class SendRejected(SendError):
    """A definite no: this content will not be shown at this address, however often it is sent."""


class AddressGone(SendError):
    """The chat is not there for us: left, blocked, deleted; `moved_to` is its new id where the service said it."""

    def __init__(self, message: str, *, moved_to: str | None = None) -> None:
        super().__init__(message)
        self.moved_to = moved_to


class SendUncertain(SendError):
    """The request may have left and no complete answer came: it may have been shown, or may yet be."""


class ModelError(HermesError):
    """A model call that did not end in a usable reply.

    `status` is the provider's HTTP status where there was one; `endpoint` names the configured endpoint;
    `content_passed_on` says that part of the reply had already been shown, so that nothing may be retried.
    """

    def __init__(
        self, message: str, *, status: int | None = None, endpoint: str = "", content_passed_on: bool = False
    ) -> None:
        super().__init__(message)
        self.status = status
        self.endpoint = endpoint
        self.content_passed_on = content_passed_on


class ModelUnavailable(ModelError):
    """The endpoint does not serve now (refused, DNS, time-out, stall, cut, 408, 409, 429, 5xx)."""

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float | None = None,
        status: int | None = None,
        endpoint: str = "",
        content_passed_on: bool = False,
    ) -> None:
        super().__init__(message, status=status, endpoint=endpoint, content_passed_on=content_passed_on)
        self.retry_after_s = retry_after_s


class ModelRefused(ModelError):
    """The provider understood and will not serve this (400, 401, 402, 403, 404, 422, policy)."""


class ContextOverflow(ModelError):
    """The conversation does not fit into the model's window; `limit` in tokens where the provider said it."""

    def __init__(
        self, message: str, *, limit: int | None = None, status: int | None = None, endpoint: str = ""
    ) -> None:
        super().__init__(message, status=status, endpoint=endpoint)
        self.limit = limit


class ModelProtocolError(ModelError):
    """The provider's bytes are not the protocol; `sample` is a bounded piece of them."""

    def __init__(self, message: str, *, sample: str = "", endpoint: str = "", content_passed_on: bool = False) -> None:
        super().__init__(message, endpoint=endpoint, content_passed_on=content_passed_on)
        self.sample = sample[:500]


class ToolError(HermesError):
    """A tool that could not do what it was asked; its text is the result that the model reads."""


class ToolDenied(ToolError):
    """The tool refuses: outside the workspace, not for this caller."""


class ToolTimeout(ToolError):
    """The tool's own deadline passed."""


class RequestError(HermesError):
    """A client's request that is not served, with everything its OpenAI-shaped answer needs.

    Args:
        status: HTTP status, 400 to 599.
        message: for a person; never holds a secret.
        code: the machine-readable reason, such as `model_not_found`.
        param: the path of the offending field, such as `messages[0].content`.
        kind: OpenAI's `type` of the error.
        retry_after_s: seconds for a Retry-After header.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        kind: str = "invalid_request_error",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.kind = kind
        self.retry_after_s = retry_after_s


class StoreUnavailable(HermesError):
    """The database cannot be written or read now; the same call may succeed later."""

    def __init__(self, reason: Literal["busy", "full", "read-only", "io", "closed"], detail: str = "") -> None:
        super().__init__(f"the store is unavailable ({reason})" + (f": {detail}" if detail else ""))
        self.reason = reason
        self.detail = detail


class StoreError(HermesError):
    """The database cannot be used at all: the process ends."""


class SchemaTooNew(StoreError):
    """The database was written by a newer Hermes."""


class StoreCorrupt(StoreError):
    """The file is damaged, or it is not a Hermes database."""


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors inside groups, in order; the error itself if it is none."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from leaves(each)
    else:
        yield error


def said(error: BaseException) -> str:
    """What an error says, as every store and every answer can take it: half of a surrogate pair, which has no UTF-8, becomes `?`.

    What a service says may be quoted in it as it came, and what cannot be written down would end more than its request.
    """
    return str(error).encode("utf-8", "replace").decode()
