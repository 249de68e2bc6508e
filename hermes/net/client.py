"""httpx2's client with a short way for what the gateway asks all day: bytes sent to a URL, the answer read as it comes.

Between `send()` and the transport httpx2 merges headers and URLs, looks for cookies, asks for authentication and follows
redirects: 0.4 ms a request, for which nothing here has a use. What is not that simple goes httpx2's own way.
"""

from __future__ import annotations

from typing import Any

import httpx2

from hermes.net.transport import NetTransport

MAX_URLS = 64
_UNSET = httpx2.USE_CLIENT_DEFAULT
_Merged = dict[bytes, tuple[bytes, bytes]]


class ParsedUrls:
    """URLs as httpx2 parses them (0.1 ms); the last `MAX_URLS` of one client are kept."""

    def __init__(self) -> None:
        self._kept: dict[str, httpx2.URL] = {}

    def __call__(self, url: str) -> httpx2.URL:
        """The parsed URL. Raises httpx2.InvalidURL."""
        parsed = self._kept.get(url)
        if parsed is None:
            if len(self._kept) >= MAX_URLS:
                self._kept.clear()
            parsed = self._kept[url] = httpx2.URL(url)
        return parsed


class NetClient(httpx2.AsyncClient):
    """An `httpx2.AsyncClient` over one transport of ours.

    Args:
        transport: closed with the client.
        timeout: httpx2's; None = none.
        headers: sent with each request that does not say otherwise.
    """

    def __init__(
        self, transport: NetTransport, *, timeout: httpx2.Timeout | None, headers: dict[str, str] | None
    ) -> None:
        super().__init__(transport=transport, trust_env=False, timeout=timeout, headers=headers)
        self._net = transport
        self.parsed = ParsedUrls()
        self._always: _Merged = {}
        _merge(self._always, self.headers)

    def build_request(self, method: str, url: httpx2.URL | str, **options: Any) -> httpx2.Request:
        """As httpx2's, whose arguments it takes."""
        parsed = self.parsed(url) if isinstance(url, str) else url
        content = options.get("content")
        merged = dict(self._always)
        simple = (
            isinstance(content, bytes)
            and parsed.is_absolute_url
            and not any(value for name, value in options.items() if name not in ("content", "headers", "timeout"))
            and _merge(merged, httpx2.Headers(options.get("headers")))
            and b"transfer-encoding" not in merged
        )
        if not simple:
            return super().build_request(method, url, **options)
        timeout = options.get("timeout", _UNSET)
        limits = self.timeout if timeout is _UNSET else httpx2.Timeout(timeout)
        merged[b"content-length"] = b"Content-Length", b"%d" % len(content or b"")
        host = merged.pop(b"host", (b"Host", parsed.netloc))
        return httpx2.Request(
            method,
            parsed,
            headers=[host, *merged.values()],
            stream=httpx2.ByteStream(content or b""),
            extensions={"timeout": limits.as_dict()},
        )

    def again(self, request: httpx2.Request, content: bytes) -> httpx2.Request:
        """A request like an earlier one of `build_request()`, with other bytes."""
        found = httpx2.Request(
            request.method,
            request.url,
            headers=request.headers,
            stream=httpx2.ByteStream(content),
            extensions=request.extensions,
        )
        found.headers["Content-Length"] = str(len(content))
        return found

    async def send(self, request: httpx2.Request, *, stream: bool = False, **options: Any) -> httpx2.Response:
        """As httpx2's. Of a streamed answer it is not known how long it took."""
        if not stream or self.is_closed or any(options.values()) or request.url.userinfo:
            return await super().send(request, stream=stream, **options)
        response = await self._net.handle_async_request(request)
        response.request = request
        return response


def _merge(merged: _Merged, headers: httpx2.Headers) -> bool:
    """Let headers, as they are written, take the place of those of the same name; False if two of them have one name."""
    found = {name.lower(): (name, value) for name, value in headers.raw}
    merged.update(found)
    return len(found) == len(headers.raw)
