"""One route: who calls is known by its signature, then by its time; then it is counted, read, committed, and answered.

The order is the point: the listener has bounded the body, and nothing that a stranger sends is looked at beyond its signature.
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass, field
from typing import Final

import msgspec
import trio

from hermes.errors import LeaseEnded, StoreUnavailable
from hermes.platform import Host, InboundEvent, Inbox, WebRequest, WebResponse
from platforms.webhook.answers import Answers
from platforms.webhook.limits import Rate, Seen
from platforms.webhook.signing import Proof, prove
from platforms.webhook.template import pick
from platforms.webhook.translate import Call, Plan, Unreadable, is_wanted, read_call, to_event

log = logging.getLogger(__name__)

RETRY_S: Final = 5.0
TELL_EVERY_S: Final = 60.0


def _json(code: int, *, retry_after_s: float | None = None, **fields: str) -> WebResponse:
    return WebResponse(
        status=code, body=msgspec.json.encode(fields), media_type="application/json", retry_after_s=retry_after_s
    )


UNSIGNED: Final = _json(401, error="the signature is missing or wrong")
TOO_OLD: Final = _json(401, error="the signed time is too far from now")
REPLAYED: Final = _json(409, error="this signature was used before, under another name")
IGNORED: Final = _json(200, status="ignored")
KNOWN: Final = _json(200, status="known")
NO_REPLY: Final = _json(409, error="this was received before, and its reply is not kept any more")
NOT_NOW: Final = _json(503, error="this cannot be kept now", retry_after_s=RETRY_S)
TOO_LATE: Final = _json(504, error="there was no reply in time")


@dataclass(slots=True)
class Refusals:
    """Counts what is refused, and tells of it now and then: whoever floods us does not fill the log."""

    route: str
    count: int = 0
    told_at: float | None = None

    def note(self, why: str, peer: str, now: float) -> None:
        """One more."""
        self.count += 1
        if self.told_at is None or now - self.told_at >= TELL_EVERY_S:
            log.warning("the route %s refused %d calls, the last from %s: %s", self.route, self.count, peer, why)
            self.count, self.told_at = 0, now


@dataclass(eq=False, slots=True)
class RouteHandling:
    """What stands behind one route as long as the account is connected; `handler` binds it to one run of `receive`."""

    plan: Plan
    host: Host
    answers: Answers
    seen: Seen = field(init=False)
    rate: Rate = field(init=False)
    refusals: Refusals = field(init=False)

    def __post_init__(self) -> None:
        route = self.plan.route
        self.seen = Seen(route.replay_window_s)
        self.rate = Rate(route.rate_per_minute)
        self.refusals = Refusals(route.name)

    async def handle(self, inbox: Inbox, request: WebRequest) -> WebResponse:
        """Answer a call.

        Cancellation: the caller left. What it asked for is ended with it, if nobody else waits for that.
        """
        now = trio.current_time()
        proof = prove(self.plan.route, request.headers, request.body)
        if proof is None:
            self.refusals.note("its signature is missing or wrong", request.peer, now)
            return UNSIGNED
        if proof.at is not None and abs(self.host.clock() - proof.at) > self.plan.route.replay_window_s:
            self.refusals.note("its signed time is too far from ours", request.peer, now)
            return TOO_OLD
        if self.seen.is_replay(proof.mark, proof.id or proof.mark, now):
            self.refusals.note("its signature was used under another name", request.peer, now)
            return REPLAYED
        if (wait_s := self.rate.wait_s(now)) > 0.0:
            self.refusals.note("too many in a minute", request.peer, now)
            return _json(429, error="too many calls in a minute", retry_after_s=wait_s)
        return await self._read(inbox, request, proof)

    async def _read(self, inbox: Inbox, request: WebRequest, proof: Proof) -> WebResponse:
        plan = self.plan
        try:
            call = read_call(plan.route, request.headers, request.body, proof)
        except Unreadable as error:
            return _json(400, error=str(error))
        if (challenge := _challenge(plan, call)) is not None:
            return WebResponse(body=challenge.encode())
        if not is_wanted(plan.route, call):
            return IGNORED
        event = to_event(plan, call, proof, account=self.host.account, fresh=secrets.token_hex(16))
        try:
            return await (self._wait(inbox, event) if plan.route.answer else self._take(inbox, event))
        except (StoreUnavailable, LeaseEnded):
            return NOT_NOW

    async def _take(self, inbox: Inbox, event: InboundEvent) -> WebResponse:
        if event.key in await inbox.deliver(event):
            return _json(202, status="accepted", id=event.id)
        return KNOWN

    async def _wait(self, inbox: Inbox, event: InboundEvent) -> WebResponse:
        """Have an event answered, and wait for that; a repetition waits for the same reply."""
        waiting, new = self.answers.join(event.key)
        try:
            if new:
                try:
                    waiting.committed = event.key in await inbox.deliver(event)
                except trio.Cancelled:
                    inbox.left(event.key)  # it may be there all the same
                    raise
                finally:
                    if not waiting.committed:
                        self.answers.break_off(event.key, waiting)
                if not waiting.committed:
                    return NO_REPLY
            with trio.move_on_after(self.plan.route.answer_timeout_s):
                await waiting.done.wait()
        finally:
            if self.answers.leave(event.key, waiting, goes_on=not event.attended):
                inbox.left(event.key)
        if not waiting.done.is_set():
            return TOO_LATE
        if waiting.text is None:
            return NOT_NOW
        if waiting.failed:
            return _json(500, id=event.id, error=waiting.text)
        return _json(200, id=event.id, reply=waiting.text)


def _challenge(plan: Plan, call: Call) -> str | None:
    """What Slack wants to hear before it sends anything (https://docs.slack.dev/reference/events/url_verification)."""
    if plan.route.signature != "slack" or "url_verification" not in call.names:
        return None
    challenge = pick(call.payload, ("challenge",))
    return challenge[:500] if isinstance(challenge, str) else None
