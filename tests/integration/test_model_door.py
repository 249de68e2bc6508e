"""The model door over the loopback: the documented action for each failure, fallback, cool-down, and what is passed on."""

from __future__ import annotations

import gzip
import itertools
import json
import logging
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from hermes.agent.calls import CallOptions, Deadlines, Delta, ModelReply, ModelRequest, TextDelta
from hermes.agent.model import ModelDoor, open_model
from hermes.agent.validate import HistoryInvalid
from hermes.errors import ContextOverflow, ModelError, ModelProtocolError, ModelRefused, ModelUnavailable
from hermes.messages import Entry, ToolCall, assistant, user
from hermes.settings import Endpoint, ModelConfig, Secret
from hermes.testing import advance, frozen_clock, refusing_port
from hermes.testing.fake_model import Cut, FakeModel, Garbage, Gate, Hang, Raw, Stall, Status, Step, open_fake_model
from hermes.testing.fake_wire import Reply, chat_events

HI = ModelRequest(system="be kind", history=[Entry(user("hi"))])
PATIENT = Deadlines(first_byte_s=10.0, stall_s=5.0)
KEY = Secret("sk-very-secret")


@pytest.fixture
def clock() -> MockClock:
    return frozen_clock()


@pytest.fixture
def naps() -> list[float]:
    return []


def at(upstream: FakeModel, model: str = "m", **more: Any) -> Endpoint:
    return Endpoint(model=model, base_url=upstream.base_url, provider=model, **{"api_key": KEY, **more})


@asynccontextmanager
async def two(naps: list[float], **settings: Any) -> AsyncIterator[tuple[FakeModel, FakeModel, ModelDoor]]:
    """A primary, a fallback, and the door to both; backoffs are noted instead of slept."""

    async def nap(seconds: float) -> None:
        naps.append(seconds)
        await trio.lowlevel.checkpoint()

    async with (
        open_fake_model(default=Reply(text="first")) as one,
        open_fake_model(default=Reply(text="second")) as other,
    ):
        config = ModelConfig(primary=at(one, "one"), fallback=(at(other, "other"),), **settings)
        async with open_model(config, rng=random.Random(7), sleep=nap) as door:
            yield one, other, door


async def ask(door: ModelDoor, request: ModelRequest = HI, **more: Any) -> tuple[ModelReply, list[Delta]]:
    deltas: list[Delta] = []
    reply = await door.ask(request, **{"deadlines": PATIENT, "on_delta": deltas.append, **more})
    return reply, deltas


async def until(fact: Callable[[], object]) -> None:
    while not fact():
        await trio.lowlevel.checkpoint()


async def with_time(
    clock: MockClock, call: Callable[[], Awaitable[Any]], events: Callable[[], int], seconds: float
) -> None:
    """Run a call; whenever the number of events has grown, let so many seconds pass."""
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            await call()
            nursery.cancel_scope.cancel()

        nursery.start_soon(run)
        seen = 0
        while True:
            await until(lambda seen=seen: events() > seen)  # type: ignore[misc]
            seen = events()
            await advance(clock, seconds)


NEXT = (1, 1)
AGAIN = (2, 1)


async def answered_once(door: ModelDoor, upstream: FakeModel) -> None:
    """A client's first request is made by the SDK, the later ones with the head of the first."""
    upstream.default = Reply(text="known")
    assert (await ask(door))[0].message.text == "known"
    upstream.requests.clear()


@pytest.mark.parametrize("known", [False, True], ids=["first request", "later request"])
@pytest.mark.parametrize(
    ("fault", "requests"),
    [
        *((Status(code=code), NEXT) for code in (401, 402, 403, 404, 307, 429, 425, 503, 529)),
        *((Status(code=code), AGAIN) for code in (408, 409, 500, 502, 504)),
        (Status(code=429, error_code="insufficient_quota"), NEXT),
        (Garbage(), NEXT),
        (Garbage(body=b"data: not json\n\n", content_type="text/event-stream"), NEXT),
        (Garbage(body=b'{"unexpected": true}', content_type="application/json"), NEXT),
        (Garbage(body=b'data: {"error": {"code": 503, "message": "overloaded"}}\n\n'), NEXT),
        (Garbage(body=b'{"error": {"code": 401, "message": "who are you"}}', content_type="application/json"), NEXT),
        (Garbage(body=b'data: {"error": {"type": "server_error", "message": "boom"}}\n\n'), AGAIN),
        (Garbage(body=b"", content_type="text/event-stream"), AGAIN),
        (Cut(after_bytes=0), AGAIN),
        (Cut(after_bytes=150), AGAIN),
        (Raw(pieces=(b"",)), AGAIN),
        (Raw(pieces=(b"HTTP/1.1 nonsense\r\n\r\n",)), AGAIN),
    ],
)
async def test_a_failing_primary_is_replaced_as_documented(
    fault: Step, requests: tuple[int, int], known: bool, naps: list[float]
) -> None:
    async with two(naps) as (one, other, door):
        if known:
            await answered_once(door, one)
        one.default = fault
        reply, deltas = await ask(door)
        assert (len(one.requests), len(other.requests)) == requests
        assert deltas == [TextDelta("second")]
        assert (reply.message.text, reply.attempts, reply.endpoint, reply.model) == (
            "second",
            sum(requests),
            "other/other",
            "other",
        )
        assert len(naps) == (1 if requests == AGAIN else 0)
        assert all(0 <= nap <= 0.5 for nap in naps)
        # The next call passes the primary over.
        one.default = Reply(text="first")
        assert (await ask(door))[0].message.text == "second"
        assert set(door.passed_over()) == {"one/one"}


@pytest.mark.parametrize("known", [False, True], ids=["first request", "later request"])
@pytest.mark.parametrize("code", [400, 413, 418, 422])
async def test_what_would_fail_everywhere_is_not_asked_elsewhere(code: int, known: bool, naps: list[float]) -> None:
    async with two(naps) as (one, other, door):
        if known:
            await answered_once(door, one)
        one.default = Status(code=code, message="no such thing")
        with pytest.raises(ContextOverflow if code == 413 else ModelRefused, match="no such thing") as caught:
            await ask(door)
        assert (caught.value.status, caught.value.endpoint) == (code, "one/one")
        assert (len(one.requests), len(other.requests), naps, door.passed_over()) == (1, 0, [], {})


async def test_an_overflow_says_the_limit(naps: list[float]) -> None:
    async with two(naps) as (one, _, door):
        one.default = Status(code=400, message="This model's maximum context length is 8192 tokens.")
        with pytest.raises(ContextOverflow) as caught:
            await ask(door)
        assert caught.value.limit == 8192


async def test_silence_before_the_first_byte_and_between_bytes(clock: MockClock, naps: list[float]) -> None:
    async with two(naps) as (one, other, door):
        for fault, requests in ((Hang(), NEXT), (Stall(after_events=0), NEXT), (Stall(after_events=1), AGAIN)):
            one.default = fault
            one.requests.clear()
            other.requests.clear()
            await with_time(clock, lambda: ask(door), lambda: len(one.requests), 10.0)
            assert (len(one.requests), len(other.requests)) == requests, fault
            await advance(clock, 60.0)  # the primary has cooled down


async def test_refused_unresolved_and_untrusted_endpoints(naps: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    class Resolver(trio.abc.HostnameResolver):
        async def getaddrinfo(self, host: Any, *_: Any, **__: Any) -> Any:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")

        async def getnameinfo(self, *_: Any) -> Any:
            raise AssertionError

    async def not_tls(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some(4096)
            await stream.send_all(b"HTTP/1.0 400 Speak plainly\r\n\r\n")

    async with two(naps, retry_budget=2) as (_, other, door), trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, not_tls, 0)
        plain = listeners[0].socket.getsockname()[1]
        trio.socket.set_custom_hostname_resolver(Resolver())
        with refusing_port() as refusing:
            for url in (
                f"http://127.0.0.1:{refusing}/v1",
                "http://nowhere.invalid/v1",
                f"https://127.0.0.1:{plain}/v1",
            ):
                other.requests.clear()
                reply, _ = await ask(door, endpoint=Endpoint(model="x", provider="x", base_url=url))
                assert reply.message.text == "second", url
                assert len(other.requests) == 1
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("url", "proxy"),
    [("ftp://h/v1", None), ("http:///v1", None), ("http://h:99999/v1", None), ("http://h/v1", "gopher://p")],
)
async def test_an_endpoint_that_cannot_be_used_is_refused_and_replaced(
    url: str, proxy: str | None, naps: list[float]
) -> None:
    async with two(naps) as (_, _, door):
        wrong = Endpoint(model="x", provider="x", base_url=url, proxy=proxy)
        assert (await ask(door, endpoint=wrong))[0].message.text == "second"
        async with open_model(ModelConfig(primary=wrong)) as alone:
            with pytest.raises(ModelRefused, match="misconfigured"):
                await ask(alone)


async def test_nothing_is_retried_once_content_was_passed_on(clock: MockClock, naps: list[float]) -> None:
    words = len(
        b"".join(itertools.islice(chat_events(Reply(text=("one ", "two ", "three")), "one", include_usage=True), 2))
    )
    async with two(naps) as (one, other, door):
        late_error = b"".join(itertools.islice(chat_events(Reply(text="one "), "m", include_usage=True), 2))
        for fault, error in (
            (Cut(after_bytes=words + 20), ModelUnavailable),
            (
                Garbage(body=late_error + b'data: {"error": {"code": 429, "message": "slow down"}}\n\n'),
                ModelUnavailable,
            ),
            (Garbage(body=late_error + b"data: <html>\n\n"), ModelProtocolError),
            (Stall(after_events=2), ModelUnavailable),
        ):
            one.requests.clear()
            one.script(fault)
            deltas: list[Delta] = []

            async def fails(error: type[ModelError] = error, deltas: list[Delta] = deltas) -> None:
                with pytest.raises(error) as caught:
                    await door.ask(HI, deadlines=PATIENT, on_delta=deltas.append)
                assert caught.value.content_passed_on

            if isinstance(fault, Stall):
                await with_time(clock, fails, lambda deltas=deltas: len(deltas), 5.0)  # type: ignore[misc]
            else:
                await fails()
            assert deltas == [TextDelta("one ")]
            assert (len(one.requests), len(other.requests), naps) == (1, 0, [])
            await advance(clock, 60.0)


async def test_the_primary_is_tried_first_again_after_its_cool_down(clock: MockClock, naps: list[float]) -> None:
    async with two(naps, cool_down_s=30.0) as (one, other, door):
        one.script(Status(code=503))
        assert (await ask(door))[0].message.text == "second"
        await advance(clock, 29.0)
        assert (await ask(door))[0].message.text == "second"
        assert len(one.requests) == 1
        await advance(clock, 2.0)
        assert (await ask(door))[0].message.text == "first"
        assert (len(one.requests), len(other.requests), door.passed_over()) == (2, 2, {})


async def test_when_all_cool_down_the_one_that_is_ready_soonest_is_asked(clock: MockClock, naps: list[float]) -> None:
    async with two(naps, retry_budget=2, cool_down_s=30.0) as (one, other, door):
        one.script(Status(code=503))
        other.script(Status(code=503))
        with pytest.raises(ModelUnavailable):
            await ask(door)
        await advance(clock, 5.0)
        assert (await ask(door))[0].message.text == "first"


async def test_one_budget_for_all_endpoints(naps: list[float]) -> None:
    async with two(naps, retry_budget=4) as (one, other, door):
        one.default = other.default = Status(code=503, message="busy")
        with pytest.raises(ModelUnavailable, match=r"busy \(4 attempts\)"):
            await ask(door)
        assert (len(one.requests), len(other.requests)) == (2, 2)
        assert len(naps) == 2  # before the second round; a fresh endpoint is asked at once
        assert naps[0] <= 1.0
        assert naps[1] <= 2.0


async def test_retry_after_is_waited_for_and_one_too_long_is_handed_to_the_caller(naps: list[float]) -> None:
    async with open_fake_model() as upstream:

        async def nap(seconds: float) -> None:
            naps.append(seconds)
            await trio.lowlevel.checkpoint()

        async with open_model(ModelConfig(primary=at(upstream)), sleep=nap) as door:
            upstream.script(Status(code=429, retry_after="3"))
            assert (await ask(door))[0].attempts == 2
            assert 2.9 <= naps[0] <= 3.0
            upstream.script(Status(code=429, retry_after="11"))
            with pytest.raises(ModelUnavailable) as caught:
                await ask(door)
            assert caught.value.retry_after_s == 11.0
            assert len(naps) == 1


async def test_the_better_news_is_told_when_all_fail(naps: list[float]) -> None:
    async with two(naps, retry_budget=2) as (one, other, door):
        one.default, other.default = Status(code=503, message="busy"), Status(code=401, message="bad key")
        with pytest.raises(ModelUnavailable, match="busy"):
            await ask(door)


async def test_a_lone_endpoint_that_refuses_is_asked_once_and_one_that_is_busy_again(naps: list[float]) -> None:
    async with open_fake_model() as upstream:

        async def nap(seconds: float) -> None:
            naps.append(seconds)
            await trio.lowlevel.checkpoint()

        async with open_model(ModelConfig(primary=at(upstream)), sleep=nap) as door:
            upstream.script(Status(code=401, message="bad key"))
            with pytest.raises(ModelRefused):
                await ask(door)
            assert len(upstream.requests) == 1
            upstream.script(Status(code=503), Cut(after_bytes=0), Garbage())
            assert (await ask(door))[0].attempts == 4


async def test_an_alias_is_tried_first_and_then_the_fallbacks(naps: list[float]) -> None:
    async with two(naps) as (one, other, door), open_fake_model(default=Reply(text="third")) as third:
        alias = at(third, "alias")
        assert (await ask(door, endpoint=alias))[0].endpoint == "alias/alias"
        third.default = Status(code=503)
        assert (await ask(door, endpoint=alias))[0].message.text == "second"
        assert len(one.requests) == 0
        assert len(other.requests) == 1


@pytest.mark.parametrize("api", ["chat_completions", "responses"])
@pytest.mark.parametrize("whole", [False, True])
async def test_both_protocols_streamed_and_in_one_document(api: Any, whole: bool) -> None:
    script = Reply(text=("Hel", "lo"), calls=[("f", '{"x":1}')], reasoning="hm", item="sealed")
    async with open_fake_model(default=script, whole=whole) as upstream:
        async with open_model(ModelConfig(primary=at(upstream, api=api))) as door:
            reply, deltas = await ask(door)
        assert reply.message.text == "Hello"
        assert reply.message.tool_calls == (ToolCall("call_fake_0", "f", '{"x":1}'),)
        assert "".join(delta.text for delta in deltas if isinstance(delta, TextDelta)) == "Hello"
        assert reply.finish_reason == "tool_calls"
        assert reply.usage is not None
        assert not upstream.refused


async def test_a_reply_is_whole_even_if_its_end_mark_is_cut_off_or_never_comes(clock: MockClock) -> None:
    events = list(chat_events(Reply(text="all"), "m", include_usage=False))
    body = b"".join(events[:-1])
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    async with open_fake_model() as upstream, open_model(ModelConfig(primary=at(upstream))) as door:
        upstream.script(Raw(pieces=(head, b"%x\r\n%b\r\n" % (len(body), body))))
        reply, _ = await ask(door)
        assert (reply.message.text, reply.attempts) == ("all", 1)
        upstream.script(Stall(after_events=3, reply=Reply(text="all")))
        seen: list[Delta] = []
        replies: list[ModelReply] = []

        async def call() -> None:
            replies.append(await door.ask(HI, deadlines=PATIENT, on_delta=seen.append))

        await with_time(clock, call, lambda: len(seen), 5.0)
        assert (replies[0].message.text, replies[0].attempts) == ("all", 1)


async def test_a_server_that_compresses_although_it_was_asked_not_to() -> None:
    body = gzip.compress(b"".join(chat_events(Reply(text="packed"), "m", include_usage=True)))
    head = f"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    async with open_fake_model(default=Raw(pieces=(head, body))) as upstream:
        async with open_model(ModelConfig(primary=at(upstream))) as door:
            assert (await ask(door))[0].message.text == "packed"
        assert upstream.requests[0].headers["accept-encoding"] == "identity"


async def test_a_provider_is_not_told_what_machine_asks() -> None:
    async with (
        open_fake_model(default=Reply(text="hi")) as upstream,
        open_model(ModelConfig(primary=at(upstream))) as door,
    ):
        await ask(door)
    assert set(upstream.requests[0].headers) == {
        "host", "accept", "accept-encoding", "connection", "user-agent", "content-type", "content-length", "authorization",
    }  # fmt: skip


@pytest.mark.parametrize("api", ["chat_completions", "responses"])
async def test_a_later_request_has_the_head_of_the_first(api: Any) -> None:
    async with open_fake_model(default=Reply(text="hi")) as upstream:
        endpoint = replace(at(upstream, api=api), headers=(("X-Team", "blue"),))
        async with open_model(ModelConfig(primary=endpoint)) as door:
            for number in range(3):
                await ask(door, HI if number == 0 else replace(HI, system="Speak plainly." * number))
    first, *later = upstream.requests
    assert first.headers["x-team"] == "blue"
    for each in later:
        assert each.raw != first.raw
        assert int(each.headers["content-length"]) == len(each.raw)
        assert each.path == first.path
        assert {**each.headers, "content-length": ""} == {**first.headers, "content-length": ""}


async def test_a_stream_in_single_bytes_and_a_leading_blank() -> None:
    body = b"\r\n" + b"".join(chat_events(Reply(text=("Ä", "b")), "m", include_usage=True)).replace(b"\n", b"\r\n")
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body)
    async with open_fake_model(default=Raw(pieces=(head, *(bytes([byte]) for byte in body)))) as upstream:
        async with open_model(ModelConfig(primary=at(upstream))) as door:
            assert (await ask(door))[0].message.text == "Äb"


async def test_a_reply_over_the_bound_is_cut_and_refused(naps: list[float]) -> None:
    async with two(naps, max_output_bytes=1000) as (one, other, door):
        one.default = Reply(text=["x" * 100] * 50)
        with pytest.raises(ModelProtocolError, match="larger than 1000") as caught:
            await ask(door)
        assert caught.value.content_passed_on
        assert len(other.requests) == 0


async def test_what_a_protocol_cannot_express_is_asked_of_one_that_can(naps: list[float]) -> None:
    asking = ModelRequest(system="", history=HI.history, options=CallOptions(stop=("x",)))
    async with two(naps) as (one, _, door):
        responses = at(one, api="responses")
        assert (await ask(door, asking, endpoint=responses))[0].message.text == "second"
        async with open_model(ModelConfig(primary=responses)) as alone:
            with pytest.raises(ModelRefused, match="stop") as caught:
                await ask(alone, asking)
            assert caught.value.status == 400


async def test_an_invalid_history_never_leaves() -> None:
    async with open_fake_model() as upstream, open_model(ModelConfig(primary=at(upstream))) as door:
        with pytest.raises(HistoryInvalid):
            await ask(
                door, ModelRequest(system="", history=[Entry(user("x")), Entry(assistant("a")), Entry(assistant("b"))])
            )
        assert len(upstream.requests) == 0


async def test_keys_stay_out_of_errors_and_logs(naps: list[float], caplog: pytest.LogCaptureFixture) -> None:
    async with two(naps) as (one, other, door), open_model(door._settings) as _:
        echo = f"Incorrect API key provided: {KEY.reveal()} with header-secret"
        one.default = other.default = Status(code=401, message=echo)
        endpoint = at(one, headers=(("x-extra", "header-secret"),))
        with caplog.at_level(logging.DEBUG), pytest.raises(ModelRefused) as caught:
            await ask(door, endpoint=endpoint)
        told = str(caught.value) + caplog.text
        assert "Incorrect API key provided: ***" in told
        assert KEY.reveal() not in told
        assert one.requests[0].headers["x-extra"] == "header-secret"
        assert one.requests[0].headers["authorization"] == f"Bearer {KEY.reveal()}"


async def test_the_environment_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "OPENAI_API_KEY": "sk-env", "OPENAI_ADMIN_KEY": "sk-adm", "OPENAI_ORG_ID": "org-env", "OPENAI_PROJECT_ID": "proj-env",
        "OPENAI_BASE_URL": "http://127.0.0.1:1/", "OPENAI_CUSTOM_HEADERS": "X-Env: 1\nAuthorization: Bearer env",
        "HTTP_PROXY": "http://127.0.0.1:1", "ALL_PROXY": "http://127.0.0.1:1", "http_proxy": "http://127.0.0.1:1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    async with open_fake_model() as upstream:
        async with open_model(ModelConfig(primary=at(upstream, api_key=None))) as door:
            await ask(door)
        headers = upstream.requests[0].headers
        assert not {"authorization", "openai-organization", "openai-project", "x-env"} & set(headers)
        assert "env" not in json.dumps(headers)


async def test_a_call_that_is_cancelled_leaves_the_others_alone() -> None:
    gate = trio.Event()
    async with (
        open_fake_model(default=Gate(event=gate)) as upstream,
        open_model(ModelConfig(primary=at(upstream))) as door,
    ):
        replies: list[str] = []

        async def call() -> None:
            replies.append((await ask(door))[0].message.text)

        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as doomed:
                    doomed.start_soon(call)
                    nursery.start_soon(call)
                    await until(lambda: upstream.answering == 2)
                    scope.cancel()
            assert door.clients.statistics().leases == 1
            gate.set()
        assert replies == ["late"]


async def test_the_demo_model_needs_no_client() -> None:
    async with open_model(ModelConfig()) as door:
        await door.warm()
        reply, deltas = await ask(door)
        assert reply.endpoint == "demo/demo"
        assert reply.model == "hermes-demo"
        assert len(deltas) > 10
        assert door.clients.statistics().open == 0
        assert door.clients._openai is None
