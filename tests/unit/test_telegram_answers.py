"""What an answer of the Bot API means, and that none means anything unheard of."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes.errors import (
    AddressGone,
    PlatformConflict,
    PlatformError,
    PlatformProtocolError,
    PlatformRefused,
    PlatformUnavailable,
    RateLimited,
    SendRejected,
)
from hermes.platform import HttpAnswer
from platforms.telegram.api import GaveUp, result


def answer(status: int, body: object, **headers: str) -> HttpAnswer:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return HttpAnswer(status=status, headers={name.replace("_", "-"): value for name, value in headers.items()}, body=data)  # fmt: skip


def error(status: int, body: object, **headers: str) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        result(answer(status, body, **headers))
    return caught.value


def said(code: int, description: str, **parameters: Any) -> PlatformError:
    return error(code, {"ok": False, "error_code": code, "description": description, "parameters": parameters})


@pytest.mark.parametrize(
    "description",
    [
        "Bad Request: chat not found",
        "Bad Request: private chat not found",
        "Bad Request: message thread not found",
        "Bad Request: PEER_ID_INVALID",
        "Forbidden: bot was blocked by the user",
        "Forbidden: bot was kicked from the group chat",
        "Forbidden: bot was kicked from the supergroup chat",
        "Forbidden: bot is not a member of the channel chat",
        "Forbidden: user is deactivated",
        "Forbidden: the group chat was deleted",
        "Forbidden: bot can't initiate conversation with a user",
        "Forbidden: bot can't send messages to bots",
        "Forbidden: something new",
    ],
)
def test_nobody_is_there_any_more(description: str) -> None:
    found = said(403 if description.startswith("F") else 400, description)
    assert isinstance(found, AddressGone)
    assert found.moved_to is None


@pytest.mark.parametrize(
    "description",
    [
        "Bad Request: can't parse entities: Unsupported start tag",
        "Bad Request: message is too long",
        "Bad Request: not enough rights to send text messages to the chat",
        "Bad Request: have no rights to send a message",
        "Bad Request: CHAT_WRITE_FORBIDDEN",
        "Bad Request: TOPIC_CLOSED",
        "Bad Request: message to edit not found",
        "Bad Request: message can't be edited",
        "Not Found: method not found",
    ],
)
def test_this_will_not_be_shown_there(description: str) -> None:
    assert type(said(404 if description.startswith("N") else 400, description)) is SendRejected


def test_a_group_that_moved_says_where() -> None:
    moved = said(400, "Bad Request: group chat was upgraded to a supergroup chat", migrate_to_chat_id=-100123)
    assert isinstance(moved, AddressGone)
    assert moved.moved_to == "-100123"
    garbage = said(400, "Bad Request: group chat was upgraded to a supergroup chat", migrate_to_chat_id={"a": 1})
    assert isinstance(garbage, AddressGone)
    assert garbage.moved_to is None


@pytest.mark.parametrize(
    ("asked", "waits"), [(7, 7.0), (0, 0.0), (1.5, 1.5), (10**9, 86_400.0), (-1, 5.0), ("7", 5.0), (None, 5.0), (True, 5.0)]
)  # fmt: skip
def test_a_limit_says_how_long(asked: object, waits: float) -> None:
    limited = said(429, "Too Many Requests", retry_after=asked)
    assert isinstance(limited, RateLimited)
    assert (limited.retry_after_s, limited.scope) == (waits, "address")


def test_a_token_that_is_none_is_refused_with_what_to_do() -> None:
    for code, words in ((401, "Unauthorized"), (404, "Not Found")):
        refused = said(code, words)
        assert isinstance(refused, PlatformRefused)
        assert "@BotFather" in str(refused)
    assert "api-id" in str(
        said(401, "Unauthorized: invalid api-id/api-hash")
    )  # of a server of one's own: the token is good
    assert isinstance(said(421, "Misdirected Request: unallowed token specified"), PlatformRefused)


def test_another_poller_is_a_conflict_that_outlasts_a_poll() -> None:
    conflict = said(409, "Conflict: terminated by other getUpdates request")
    assert isinstance(conflict, PlatformConflict)
    assert conflict.retry_after_s is not None
    assert conflict.retry_after_s > 50


@pytest.mark.parametrize(
    ("status", "headers", "kind", "wait"),
    [
        (500, {}, PlatformUnavailable, None),
        (502, {"retry_after": "30"}, PlatformUnavailable, 30.0),
        (503, {"retry_after": "Fri, 31 Dec 1999 23:59:59 GMT"}, PlatformUnavailable, None),
        (504, {}, GaveUp, None),
        (429, {"retry_after": "9"}, RateLimited, 9.0),
        (429, {}, RateLimited, 5.0),
        (413, {}, SendRejected, None),
        (404, {}, PlatformProtocolError, None),
        (401, {}, PlatformProtocolError, None),
        (302, {}, PlatformProtocolError, None),
        (200, {}, PlatformProtocolError, None),
    ],
)
def test_what_stands_between_is_not_taken_for_the_service(
    status: int, headers: dict[str, str], kind: type[PlatformError], wait: float | None
) -> None:
    found = error(status, b"<html>nginx</html>", **headers)
    assert type(found) is kind
    assert getattr(found, "retry_after_s", None) == wait


def test_a_result_is_what_it_is() -> None:
    assert result(answer(200, {"ok": True, "result": [1]})) == [1]
    assert result(answer(200, {"ok": True})) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(["ok", "error_code", "description", "parameters", "result"])


@given(
    st.integers(100, 599),
    st.dictionaries(NAMES, JSON | st.fixed_dictionaries({"retry_after": JSON, "migrate_to_chat_id": JSON}))
    | st.binary(max_size=20),
    st.dictionaries(st.just("retry-after"), st.text(max_size=12)),
)
def test_whatever_comes_is_a_result_or_an_error_of_the_contract(
    status: int, body: Any, headers: dict[str, str]
) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    found: PlatformError | None = None
    try:
        result(HttpAnswer(status=status, headers=headers, body=data))
    except PlatformError as error:
        found = error
    assert len(str(found)) < 1000
    if isinstance(found, RateLimited):
        assert 0 <= found.retry_after_s <= 86_400
