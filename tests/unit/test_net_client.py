"""The short way through httpx2 makes the requests that httpx2 makes, and leaves to it what is not that simple."""

from __future__ import annotations

import ssl
from typing import Any

import httpx2
import pytest

from hermes.net.client import MAX_URLS, NetClient, ParsedUrls
from hermes.net.transport import NetTransport

HEADERS = {"accept": "application/json", "User-Agent": "us"}
URL = "http://host.example:8080/v1/chat?x=%20y"


@pytest.fixture
def both() -> tuple[NetClient, httpx2.AsyncClient]:
    transport = NetTransport(ssl.create_default_context(), proxy=None, limits=httpx2.Limits(), closed=lambda _: None)
    ours = NetClient(transport, timeout=httpx2.Timeout(None, connect=3), headers=HEADERS)
    theirs = httpx2.AsyncClient(trust_env=False, timeout=httpx2.Timeout(None, connect=3), headers=HEADERS)
    return ours, theirs


SIMPLE: list[dict[str, Any]] = [
    {"content": b"{}", "headers": [("Content-Type", "application/json"), ("ACCEPT", "text/event-stream")]},
    {"content": b"", "headers": {"Host": "other.example"}},
    {"content": b"x" * 100, "timeout": 5.0, "files": None, "params": None},
    {"content": b"{}", "timeout": None},
    {"content": b"{}", "headers": httpx2.Headers({"X-Title": "Hermes", "Content-Type": "application/json"})},
]
OTHERS: list[dict[str, Any]] = [
    {"json": {"a": 1}},
    {"data": {"a": "b"}},
    {
        "files": [("file", ("a.ogg", b"data", "audio/ogg"))],
        "headers": {"content-type": "multipart/form-data; boundary=b"},
    },
    {"content": b"{}", "params": {"q": "1"}},
    {"content": b"{}", "headers": [("X-Two", "a"), ("X-Two", "b")]},
    {"content": b"{}", "headers": {"Transfer-Encoding": "chunked"}},
    {"content": "text"},
    {},
]


@pytest.mark.parametrize("options", [*SIMPLE, *OTHERS], ids=str)
def test_a_request_is_what_httpx2_makes_of_it(
    both: tuple[NetClient, httpx2.AsyncClient], options: dict[str, Any]
) -> None:
    ours, theirs = (client.build_request("POST", URL, **options) for client in both)
    assert (ours.method, ours.url) == (theirs.method, theirs.url)
    assert sorted(ours.headers.raw) == sorted(theirs.headers.raw)  # not every server takes x-name for X-Name
    assert ours.extensions == theirs.extensions
    assert b"".join(ours.stream) == b"".join(theirs.stream)  # type: ignore[arg-type]


def test_urls_are_parsed_once_and_not_kept_for_ever() -> None:
    parsed = ParsedUrls()
    assert parsed(URL) is parsed(URL)
    for number in range(3 * MAX_URLS):
        assert parsed(f"http://host/{number}").path == f"/{number}"
        assert len(parsed._kept) <= MAX_URLS
    with pytest.raises(httpx2.InvalidURL):
        parsed("http://host:port/")
