"""The door to the models: one call in, one reply out, through one retry loop with one budget over all endpoints."""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import trio

from hermes.agent import demo, transcription
from hermes.agent.calls import Deadlines, Delta, ModelReply, ModelRequest, OnDelta
from hermes.agent.classify import Action, Failure, classify, error_of
from hermes.agent.clients import CallFailed, ModelClient, ModelClients, open_model_clients
from hermes.agent.exchange import FAILURES, Exchange
from hermes.agent.validate import check_history
from hermes.agent.wire import Decoded
from hermes.errors import ModelError, ModelUnavailable
from hermes.net import Network
from hermes.settings import Endpoint, ModelConfig

log = logging.getLogger(__name__)


def endpoint_name(endpoint: Endpoint) -> str:
    """An endpoint as people and logs name it."""
    return f"{endpoint.provider}/{endpoint.model}"


class _Failed(Exception):
    """One request failed; what that means is in `failure`."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.kind)
        self.failure = failure


@dataclass(slots=True)
class _Candidate:
    """An endpoint in one call's chain."""

    endpoint: Endpoint
    tries: int = 0
    done: bool = False
    not_before: float = 0.0


class _Passing:
    """Hands deltas on and remembers that it did."""

    __slots__ = ("_to", "passed_on")

    def __init__(self, to: OnDelta) -> None:
        self._to = to
        self.passed_on = False

    def __call__(self, delta: Delta) -> None:
        self.passed_on = True
        self._to(delta)


class ModelDoor:
    """Asks models. Use `open_model()`.

    Args:
        settings: the endpoints and the bounds.
        clients: where clients are leased.
        rng: for jitter and for call ids that a provider left out.
        sleep: waits a number of seconds.
    """

    def __init__(
        self,
        settings: ModelConfig,
        clients: ModelClients,
        *,
        rng: random.Random | None = None,
        sleep: Callable[[float], Awaitable[object]] = trio.sleep,
    ) -> None:
        self._settings = settings
        self.clients = clients
        self._rng = rng or random.Random()
        self._sleep = sleep
        self._cool_until: dict[Endpoint, float] = {}

    def configure(self, settings: ModelConfig) -> None:
        """Take over the settings of a reload; calls that run keep theirs."""
        self._settings = settings
        self._cool_until.clear()
        self.clients.configure(settings)

    def passed_over(self) -> dict[str, float]:
        """Endpoints that are passed over because they failed, and for how many more seconds; for status pages."""
        now = trio.current_time()
        return {endpoint_name(known): until - now for known, until in self._cool_until.items() if until > now}

    async def warm(self) -> None:
        """Load what the first call needs, in worker threads, once the listener is ready. Nothing for the demo model."""
        endpoints = (self._settings.primary, *self._settings.fallback)
        if any(endpoint.api != "demo" for endpoint in endpoints):
            await self.clients.warm()

    async def ask(
        self,
        request: ModelRequest,
        *,
        endpoint: Endpoint | None = None,
        deadlines: Deadlines,
        on_delta: OnDelta,
    ) -> ModelReply:
        """One model call, with its retries and fallbacks.

        Args:
            request: what to send; its history must be valid (`hermes.agent.validate`).
            endpoint: tried first, before the configured fallbacks; None = the configured primary.
            deadlines: seconds of silence before the first byte (waiting for a client included) and between bytes, for
                each request. A provider's Retry-After longer than `first_byte_s` is not waited for.
            on_delta: called with each piece of the reply as it arrives. From its first call on nothing is retried.

        Raises:
            ModelUnavailable: no endpoint serves now; `retry_after_s` where one said so.
            ModelRefused: the request or the key is refused; `status` as the provider gave it.
            ContextOverflow: the history is too large; `limit` in tokens where the provider said it.
            ModelProtocolError: the answer is not the protocol, or larger than `max_output_bytes`.
            HistoryInvalid: the history may not be sent (a bug of the caller).

        Cancellation: closes the connection of the request that runs; no other call notices.
        """
        settings = self._settings
        check_history(request.history, request.tools)
        chain = self._chain(endpoint or settings.primary)
        passing = _Passing(on_delta)
        attempts = 0
        worst: ModelError | None = None
        candidate = _choose(chain, None, None)
        while candidate is not None:
            wait_s = self._wait(candidate, attempts)
            if wait_s > 0:
                await self._sleep(wait_s)
            candidate.tries += 1
            attempts += 1
            try:
                reply = await self._attempt(candidate.endpoint, request, deadlines, passing)
            except _Failed as exc:
                failure = exc.failure
            else:
                self._cool_until.pop(candidate.endpoint, None)
                return replace(reply, attempts=attempts)
            name = endpoint_name(candidate.endpoint)
            error = error_of(failure, endpoint=name, attempts=attempts, passed_on=passing.passed_on)
            self._note(candidate.endpoint, failure, attempts)
            if passing.passed_on or failure.rule.action is Action.STOP:
                raise error
            worst = _better(worst, error)
            if attempts >= settings.retry_budget:
                break
            patience_s = failure.retry_after_s or 0.0
            candidate.not_before = trio.current_time() + patience_s
            if failure.rule.action is Action.NEXT or patience_s > deadlines.first_byte_s:
                candidate.done = True
            candidate = _choose(chain, candidate, failure.rule.action)
        assert worst is not None
        raise worst

    async def transcribe(
        self, recording: transcription.Recording, *, endpoint: Endpoint, timeout_s: float, attempts: int = 2
    ) -> str:
        """The words of a recording.

        Args:
            endpoint: who transcribes.
            timeout_s: seconds for everything together, waiting for a client included.
            attempts: requests at most; a failure that will not pass is not tried again.

        Raises:
            ModelUnavailable: it does not serve now, or not in time.
            ModelRefused: the recording or the key is refused.
            ContextOverflow: it is too large for the service.
            ModelProtocolError: the answer is not the protocol.

        Cancellation: closes the connection of the request that runs; no other call notices.
        """
        attempt, name, failure = 0, endpoint_name(endpoint), Failure("no_first_byte", "no words came in time")
        with trio.move_on_after(timeout_s):
            while True:
                attempt += 1
                try:
                    return await self._transcribe_once(recording, endpoint)
                except _Failed as exc:
                    failure = exc.failure
                log.warning("transcription %s: %s (attempt %d): %s", name, failure.kind, attempt, failure.detail[:300])
                if attempt >= attempts or failure.rule.action in (Action.NEXT, Action.STOP):
                    break
                pause_s = self._rng.uniform(0.0, self._settings.backoff_base_s * 2.0**attempt)
                await self._sleep(max(failure.retry_after_s or 0.0, pause_s))
        raise error_of(failure, endpoint=name, attempts=attempt, passed_on=False)

    async def _transcribe_once(self, recording: transcription.Recording, endpoint: Endpoint) -> str:
        """One request. Raises _Failed."""
        client: ModelClient | None = None
        try:
            async with self.clients.lease(endpoint) as client:
                return await transcription.ask(client, endpoint, recording)
        except FAILURES as exc:
            failure = classify(exc)
            if failure.rule.retires and client is not None:
                self.clients.retire(client)
            raise _Failed(_without_secrets(failure, endpoint)) from None

    def _chain(self, first: Endpoint) -> list[_Candidate]:
        """The endpoints in the order of this call: those that cool down come last, the soonest ready first."""
        endpoints = dict.fromkeys((first, *self._settings.fallback))
        now = trio.current_time()
        for endpoint in [known for known, until in self._cool_until.items() if until <= now]:
            del self._cool_until[endpoint]
        cooling = self._cool_until
        ordered = sorted(endpoints, key=lambda endpoint: cooling.get(endpoint, 0.0))
        return [_Candidate(endpoint) for endpoint in ordered]

    def _note(self, endpoint: Endpoint, failure: Failure, attempts: int) -> None:
        """Remember that an endpoint failed, and say so once."""
        if failure.rule.cools:
            cool_s = max(self._settings.cool_down_s, min(failure.retry_after_s or 0.0, 3600.0))
            while len(self._cool_until) >= 64:
                del self._cool_until[next(iter(self._cool_until))]
            self._cool_until[endpoint] = trio.current_time() + cool_s
        log.warning(
            "model %s: %s (attempt %d): %s", endpoint_name(endpoint), failure.kind, attempts, failure.detail[:300]
        )

    def _wait(self, candidate: _Candidate, attempts: int) -> float:
        """How long to wait before an endpoint is asked again: full jitter, and what it asked for itself."""
        if not candidate.tries:
            return 0.0
        ceiling = min(self._settings.backoff_max_s, self._settings.backoff_base_s * 2.0 ** (attempts - 1))
        return max(candidate.not_before - trio.current_time(), self._rng.uniform(0.0, ceiling))

    # One request.

    async def _attempt(
        self, endpoint: Endpoint, request: ModelRequest, deadlines: Deadlines, passing: _Passing
    ) -> ModelReply:
        """Ask one endpoint once. Raises _Failed."""
        if endpoint.api == "demo":
            return _reply(await demo.answer(request, passing), endpoint)
        exchange = Exchange(endpoint, request, passing, self._settings.max_output_bytes, self._new_id)
        try:
            with trio.CancelScope(deadline=trio.current_time() + deadlines.first_byte_s) as silence:
                await exchange.run(self.clients, silence, deadlines.stall_s)
            if not exchange.complete and silence.cancelled_caught:
                raise _Failed(exchange.silent())
            return _reply(exchange.decoder.result(), endpoint)
        except FAILURES as exc:
            if exchange.complete and isinstance(
                exc, CallFailed
            ):  # cut after the last word: nothing is missing but the farewell
                return _reply(exchange.decoder.result(), endpoint)
            failure = classify(exc)
        except _Failed as exc:
            failure = exc.failure
        if failure.rule.retires and exchange.client is not None:
            self.clients.retire(exchange.client)
        raise _Failed(_without_secrets(failure, endpoint))

    def _new_id(self) -> str:
        return f"call_{self._rng.getrandbits(96):024x}"


def _reply(decoded: Decoded, endpoint: Endpoint) -> ModelReply:
    return ModelReply(
        message=decoded.message,
        finish_reason=decoded.finish_reason,
        usage=decoded.usage,
        model=decoded.model or endpoint.model,
        endpoint=endpoint_name(endpoint),
    )


def _without_secrets(failure: Failure, endpoint: Endpoint) -> Failure:
    """Providers quote the key in their error messages; ours go to logs and to people."""
    secrets = [value for _, value in endpoint.headers]
    if endpoint.api_key is not None:
        secrets.append(endpoint.api_key.reveal())
    if endpoint.proxy is not None:
        secrets.append(endpoint.proxy)
    detail, sample = failure.detail, failure.sample
    for secret in secrets:
        if len(secret) >= 4:
            detail, sample = detail.replace(secret, "***"), sample.replace(secret, "***")
    return failure._replace(detail=detail, sample=sample)


def _choose(chain: Sequence[_Candidate], last: _Candidate | None, action: Action | None) -> _Candidate | None:
    """Whom to ask next: the same again where the action says so, else whoever was asked least; None: nobody is left."""
    left = [candidate for candidate in chain if not candidate.done]
    if last is not None and action is Action.AGAIN and last.tries == 1 and not last.done:
        return last
    return min(left, key=lambda candidate: candidate.tries, default=None)


def _better(worst: ModelError | None, error: ModelError) -> ModelError:
    """Which of two failures the caller hears of: what may pass, rather than what will not; else the later one."""
    if isinstance(worst, ModelUnavailable) and not isinstance(error, ModelUnavailable):
        return worst
    return error


@asynccontextmanager
async def open_model(
    settings: ModelConfig,
    *,
    network: Network | None = None,
    rng: random.Random | None = None,
    sleep: Callable[[float], Awaitable[object]] = trio.sleep,
) -> AsyncIterator[ModelDoor]:
    """The door to the configured models, with its own clients.

    Args:
        settings: `model:` of the configuration.
        network: where HTTP clients come from; None opens one for this scope alone.
        rng: for jitter and for call ids that a provider left out.
        sleep: how a backoff waits a number of seconds.

    Lifetime: that of `open_model_clients()`.
    """
    async with open_model_clients(settings, network=network) as clients:
        yield ModelDoor(settings, clients, rng=rng, sleep=sleep)
