"""The classifier of model failures: every library exception has its row, every status its action, and the docs agree."""

from __future__ import annotations

import inspect
import re
import socket
import ssl
from pathlib import Path
from typing import Any

import httpcore2
import httpx2
import openai
import openai._exceptions
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes.agent import wire
from hermes.agent.classify import EXCEPTIONS, RULES, STATUS, Action, Failure, classify, error_of, retry_after
from hermes.agent.clients import CallFailed, ClientsClosing, EndpointUnusable
from hermes.agent.exchange import FAILURES
from hermes.agent.sse import SseOverflow
from hermes.errors import ContextOverflow, ModelError, ModelProtocolError, ModelRefused, ModelUnavailable
from hermes.net import HTTP_ERRORS
from hermes.net.errors import ERRORS

# Of features that no request of ours touches: webhooks, cookies.
NOT_USED = {"openai.InvalidWebhookSignatureError", "httpx2.CookieConflict"}
REQUEST = httpx2.Request("POST", "http://h/v1/chat/completions")


def status_error(status: int, body: Any = None, headers: dict[str, str] | None = None) -> Failure:
    """What the SDK raises for an answer with this status, classified."""
    client = openai.AsyncOpenAI(api_key="k", base_url="http://h/v1", http_client=httpx2.AsyncClient())
    content = body if isinstance(body, (bytes, str)) else None
    response = httpx2.Response(
        status, request=REQUEST, headers=headers, json=body if content is None else None, content=content
    )
    return classify(client._make_status_error_from_response(response))


def library_exceptions() -> list[type[BaseException]]:
    found: list[type[BaseException]] = []
    for module in (openai, openai._exceptions, httpx2):
        for _, value in inspect.getmembers(module, inspect.isclass):
            if issubclass(value, Exception) and not issubclass(value, Warning) and not value.__name__.startswith("_"):
                found.append(value)
    return sorted(set(found), key=str)


@pytest.mark.parametrize("kind", library_exceptions(), ids=lambda kind: kind.__name__)
def test_each_exception_class_of_the_libraries_has_its_own_row(kind: type[BaseException]) -> None:
    name = f"{kind.__module__.partition('.')[0]}.{kind.__name__}"
    assert name in EXCEPTIONS, f"{name} is new: decide what it means"
    assert EXCEPTIONS[name] in (*RULES, "status", "cause")
    assert issubclass(kind, (*HTTP_ERRORS, openai.OpenAIError)) or name in NOT_USED


def test_no_row_is_left_for_a_class_that_is_gone() -> None:
    names = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in library_exceptions()}
    assert set(EXCEPTIONS) <= names


def test_each_exception_of_httpcore2_is_translated() -> None:
    core = {value for value in vars(httpcore2).values() if inspect.isclass(value) and issubclass(value, Exception)}
    assert core - {httpcore2.ConnectionNotAvailable} == set(ERRORS)
    for source, target in ERRORS.items():
        assert source.__name__ == target.__name__


@pytest.mark.parametrize(
    ("status", "kind", "action", "error"),
    [
        (400, "bad_request", Action.STOP, ModelRefused), (401, "unauthorized", Action.NEXT, ModelRefused),
        (402, "payment_required", Action.NEXT, ModelRefused), (403, "forbidden", Action.NEXT, ModelRefused),
        (404, "not_found", Action.NEXT, ModelRefused), (408, "request_timeout", Action.AGAIN, ModelUnavailable),
        (409, "conflict", Action.AGAIN, ModelUnavailable), (413, "context_overflow", Action.STOP, ContextOverflow),
        (418, "bad_request", Action.STOP, ModelRefused), (422, "bad_request", Action.STOP, ModelRefused),
        (429, "rate_limited", Action.ELSEWHERE, ModelUnavailable), (500, "server_error", Action.AGAIN, ModelUnavailable),
        (502, "server_error", Action.AGAIN, ModelUnavailable), (503, "overloaded", Action.ELSEWHERE, ModelUnavailable),
        (504, "server_error", Action.AGAIN, ModelUnavailable), (529, "overloaded", Action.ELSEWHERE, ModelUnavailable),
        (301, "redirect", Action.NEXT, ModelRefused), (307, "redirect", Action.NEXT, ModelRefused),
    ],
)  # fmt: skip
def test_statuses(status: int, kind: str, action: Action, error: type[ModelError]) -> None:
    failure = status_error(status, {"error": {"message": "no"}})
    assert (failure.kind, failure.status, failure.rule.action) == (kind, status, action)
    raised = error_of(failure, endpoint="p/m", attempts=2, passed_on=False)
    assert type(raised) is error
    assert (raised.status, raised.endpoint) == (status, "p/m")
    assert "no (2 attempts)" in str(raised)


@pytest.mark.parametrize(
    ("message", "limit"),
    [
        ("This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.", 8192),
        ("prompt is too long: 215000 tokens > 200000 maximum", 200_000),
        ("Input tokens exceed the configured limit of 272000 tokens. Please reduce the length of the messages.", 272_000),
        ("Requested token count exceeds the model's maximum context length of 131072 tokens.", 131_072),
        ("The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).", 1_048_576),
        ("the request exceeds the available context size. try increasing the context size", None),
    ],
)  # fmt: skip
def test_an_overflow_is_told_from_other_bad_requests_with_its_limit(message: str, limit: int | None) -> None:
    failure = status_error(400, {"error": {"message": message}})
    assert (failure.kind, failure.limit) == ("context_overflow", limit)
    raised = error_of(failure, endpoint="e", attempts=1, passed_on=False)
    assert isinstance(raised, ContextOverflow)
    assert raised.limit == limit


def test_an_overflow_by_code_and_with_the_limit_in_a_field() -> None:
    assert status_error(400, {"error": {"code": "context_length_exceeded", "message": "x"}}).kind == "context_overflow"
    sized = {"error": {"type": "exceed_context_size_error", "message": "too big", "n_ctx": 4096}}
    assert status_error(400, sized).limit == 4096
    assert status_error(500, sized).kind == "context_overflow"


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [(400, {"code": "content_filter", "message": "x"}, "content_filter"),
     (403, {"message": "ResponsibleAIPolicyViolation"}, "content_filter"),
     (429, {"code": "insufficient_quota", "message": "x"}, "quota"), (429, {"message": "Your credit balance is too low"}, "quota"),
     (400, {"message": "temperature: must be at most 2"}, "bad_request")],
)  # fmt: skip
def test_words_that_make_a_difference(status: int, error: dict[str, Any], kind: str) -> None:
    assert status_error(status, {"error": error}).kind == kind


def test_error_bodies_of_other_shapes() -> None:
    assert (
        status_error(400, [{"error": {"message": "wrapped in an array", "status": "INVALID_ARGUMENT"}}]).detail
        == "wrapped in an array"
    )
    assert "gateway" in status_error(502, "<html>bad gateway</html>").detail
    assert status_error(500, b"").detail == "HTTP status 500"
    assert status_error(500, {"detail": "plain"}).kind == "server_error"


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [("server_error", "x", "server_error"), ("rate_limit_exceeded", "x", "rate_limited"), ("", "Overloaded", "server_error"),
     ("context_length_exceeded", "x", "context_overflow"), ("insufficient_quota", "x", "quota"),
     ("content_filter", "", "content_filter"),
     ("invalid_prompt", "x", "bad_request")],
)  # fmt: skip
def test_error_objects_in_a_stream_without_a_status(code: str, message: str, kind: str) -> None:
    assert classify(wire.UpstreamError(message, code=code)).kind == kind


def test_an_error_object_with_a_status_is_judged_by_it() -> None:
    assert classify(wire.UpstreamError("x", status=402)).kind == "payment_required"


@pytest.mark.parametrize(
    ("exc", "kind"),
    [(wire.NotProtocol("x"), "garbage"), (wire.StreamCut("x"), "cut"), (wire.ReplyTooLarge("x"), "too_large"),
     (SseOverflow("x"), "too_large"),
     (wire.Unsupported("x"), "unsupported"), (wire.RequestTooLarge("x"), "context_overflow"), (ClientsClosing("x"), "closing"),
     (EndpointUnusable("x"), "misconfigured"), (wire.UpstreamError("x"), "server_error")],
)  # fmt: skip
def test_our_own(exc: Exception, kind: str) -> None:
    assert classify(exc).kind == kind


def test_everything_an_exchange_may_raise_is_covered_here() -> None:
    ours = {
        wire.NotProtocol,
        wire.StreamCut,
        wire.ReplyTooLarge,
        wire.Unsupported,
        wire.RequestTooLarge,
        wire.UpstreamError,
    }
    assert set(FAILURES) == ours | {SseOverflow, ClientsClosing, EndpointUnusable, CallFailed}


def caused(exc: BaseException, *causes: BaseException) -> BaseException:
    first = exc
    for cause in causes:
        exc.__cause__ = cause
        exc = cause
    return first


@pytest.mark.parametrize(
    ("chain", "kind"),
    [
        ([httpx2.ConnectError("x"), OSError("x"), ConnectionRefusedError()], "refused"),
        ([httpx2.ConnectError("x"), socket.gaierror(-2, "unknown")], "dns"),
        ([httpx2.ConnectError("x"), OSError("x"), ExceptionGroup("x", [OSError(), socket.gaierror()])], "dns"),
        ([httpx2.ConnectError("x"), RuntimeError(), ssl.SSLCertVerificationError("x")], "tls"),
        ([httpx2.ConnectTimeout("x")], "connect_timeout"), ([httpx2.ProxyError("407")], "proxy"), ([httpx2.ReadError("x")], "cut"),
        ([httpx2.RemoteProtocolError("x")], "cut"), ([httpx2.ReadTimeout("x")], "stalled"),
        ([httpx2.UnsupportedProtocol("x")], "misconfigured"),
    ],
)  # fmt: skip
def test_why_a_connection_failed_bare_and_inside_what_the_sdk_makes_of_it(
    chain: list[BaseException], kind: str
) -> None:
    assert classify(caused(*chain)).kind == kind  # type: ignore[arg-type]
    inside = caused(openai.APIConnectionError(request=REQUEST), *chain)
    assert classify(inside).kind == kind
    assert classify(caused(CallFailed("x"), inside)).kind == kind


def test_a_connection_error_without_a_known_cause_is_a_cut() -> None:
    assert classify(openai.APIConnectionError(request=REQUEST)).kind == "cut"
    assert classify(caused(openai.APITimeoutError(request=REQUEST), httpx2.ReadTimeout("x"))).kind == "stalled"


def test_anything_else_is_a_bug_and_not_a_failure_of_the_model() -> None:
    with pytest.raises(TypeError):
        classify(KeyError("x"))


@pytest.mark.parametrize("kind", RULES)
def test_what_each_kind_raises_says_whether_content_was_passed_on(kind: str) -> None:
    failure = Failure(kind, "detail", status=400, retry_after_s=3.0, sample="<html>")
    raised = error_of(failure, endpoint="p/m", attempts=1, passed_on=True)
    assert raised.content_passed_on
    assert "detail" in str(raised)
    if isinstance(raised, ModelUnavailable):
        assert raised.retry_after_s == 3.0
    if isinstance(raised, ModelProtocolError):
        assert raised.sample == "<html>"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({"retry-after": "2"}, 2.0), ({"retry-after": "1.5"}, 1.5), ({"retry-after-ms": "250", "retry-after": "9"}, 0.25), ({}, None),
     ({"retry-after": "soon"}, None), ({"retry-after": "-1"}, None), ({"retry-after": "nan"}, None), ({"retry-after": "1e99"}, None),
     ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 30.0),
     ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT"}, None)],
)  # fmt: skip
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds
    assert status_error(429, {"error": {}}, headers).retry_after_s == seconds


@given(st.text(st.characters(max_codepoint=255), max_size=40), st.text(st.characters(max_codepoint=255), max_size=40))
def test_any_retry_after_is_a_number_or_nothing(value: str, date: str) -> None:
    seconds = retry_after({"retry-after": value, "date": date})
    assert seconds is None or 0 <= seconds < 1e9


def test_the_page_in_the_docs_is_this_table() -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "model-errors.md"
    rows = re.findall(
        r"^\| `(\w+)` \|.*\| (\w+) \| (yes|no) \| (yes|no) \| `(\w+)` \|$", page.read_text(), re.MULTILINE
    )
    says = {kind: (action, cools == "yes", retires == "yes", error) for kind, action, cools, retires, error in rows}
    assert says == {
        kind: (rule.action.name.lower(), rule.cools, rule.retires, rule.error.__name__) for kind, rule in RULES.items()
    }
    for status in STATUS:
        assert str(status) in page.read_text()
