"""From bytes to the head of a request: httptools, and the rules of RFC 9112 that it does not enforce.

Plain functions over bytes. What they refuse, and with which status, depends on the bytes alone, never on how these were
cut into pieces on their way: rules are applied in the order of the bytes they judge, and a head that is not complete
yet is refused only for what would also be refused later.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

import httptools

from hermes.http.listener.limits import Limits
from hermes.http.listener.refusal import Refused

REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~]+) HTTP/([0-9]\.[0-9])")
HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=:%\[\]-]*")
ABSOLUTE_TARGET = re.compile(rb"[Hh][Tt][Tt][Pp][Ss]?://([^/?]+)((?:[/?].*)?)")
LENGTH = re.compile(rb"[0-9]{1,19}")
LEGAL = b"\t\r\n" + bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100))
WITH_BODY = frozenset(("POST", "PUT", "PATCH"))
AROUND_TARGET = 32  # a method and a version, with room to spare
JUDGED = frozenset((b"host", b"content-length", b"transfer-encoding", b"connection", b"expect"))


@dataclass(slots=True)
class Head:
    """The head of one request.

    Args:
        method: as sent, one that httptools knows.
        raw_path: the path as sent, without the query; begins with `/`, or is `*`.
        path: `raw_path`, percent-decoded.
        query: after the `?`, as sent.
        version: `1.0` or `1.1`.
        headers: names in lower case, values without the white space around them, in the order sent.
        content_length: bytes of body; None when the body is chunked.
        keep_alive: whether the client lets the connection live on.
        expects_continue: whether the client waits for `100 Continue` before it sends the body.
    """

    method: str
    raw_path: bytes
    path: str
    query: bytes
    version: str
    headers: list[tuple[bytes, bytes]]
    content_length: int | None
    keep_alive: bool
    expects_continue: bool


def find_head(buffer: bytearray, scanned: int, limits: Limits) -> int:
    """Where the head at the start of `buffer` ends.

    Args:
        buffer: what the client sent, from the first byte of a request on.
        scanned: how much of `buffer` an earlier call has seen (0 at first).
        limits: of the server.

    Returns:
        the length of the head with the empty line that ends it; 0 while that has not arrived.

    Raises:
        Refused: 400, 414, 431, 501 or 505, as soon as the bytes cannot become a request any more.
    """
    end = buffer.find(b"\r\n\r\n", max(scanned - 3, 0), limits.max_head_bytes)
    if end >= 0:
        return end + 4
    if scanned < limits.max_url_bytes + AROUND_TARGET + 2:
        line = buffer.find(b"\r\n", 0, limits.max_url_bytes + AROUND_TARGET)
        _request_line(bytes(buffer[: line if line >= 0 else limits.max_url_bytes + AROUND_TARGET]), line >= 0, limits)
    _legal_bytes(bytes(buffer[max(scanned - 1, 0) : limits.max_head_bytes]))
    if len(buffer) >= limits.max_head_bytes:
        raise Refused(431, f"The request's head is longer than {limits.max_head_bytes} bytes.")
    return 0


def parse_head(head: bytes, limits: Limits) -> Head:
    """Understand a head that `find_head` has found.

    Args:
        head: with the empty line that ends it.
        limits: of the server.

    Returns:
        the request, with everything decided that its framing depends on.

    Raises:
        Refused: 400, 411, 413, 414, 417, 431, 501 or 505.
    """
    line = head.find(b"\r\n", 0, limits.max_url_bytes + AROUND_TARGET)
    method, target, version = _request_line(
        head[: line if line >= 0 else limits.max_url_bytes + AROUND_TARGET], line >= 0, limits
    )
    _legal_bytes(head)
    headers = _parse_headers(head)
    if len(headers) > limits.max_headers:
        raise Refused(431, f"The request has more than {limits.max_headers} header lines.")
    judged: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        if name in JUDGED:
            judged.setdefault(name, []).append(value)
    authority, raw_path, query = _split_target(target, method)
    _check_host(judged.get(b"host", ()), version)
    if authority is not None:
        headers = [(b"host", authority), *(header for header in headers if header[0] != b"host")]  # RFC 9112, 3.2.2
    length = _body_length(judged, version, method)
    if length is not None and length > limits.max_body_bytes:
        raise Refused(413, f"The request's body is longer than {limits.max_body_bytes} bytes.")
    return Head(
        method=method,
        raw_path=raw_path,
        path=unquote(raw_path) if b"%" in raw_path else raw_path.decode("ascii"),
        query=query,
        version=version,
        headers=headers,
        content_length=length,
        keep_alive=_keeps_alive(judged.get(b"connection", ()), version),
        expects_continue=_expects_continue(judged.get(b"expect", ()), version) and length != 0,
    )


def _legal_bytes(part: bytes) -> None:
    """Refuse control characters (NUL among them) and a CR or LF that is not half of a line's end (RFC 9112, 2.2)."""
    if part.translate(None, LEGAL):
        raise Refused(400, "The request's head holds a control character.")
    ends = part.count(b"\r\n")
    feeds, returns = part.count(b"\n"), part.count(b"\r")
    if part.startswith(b"\n"):  # its CR may stand before this part; if it did not, it was judged when the part began
        feeds -= 1
    if part.endswith(b"\r"):  # its LF may be on its way
        returns -= 1
    if feeds != ends or returns != ends:
        raise Refused(400, "The request's head holds a bare CR or LF.")


def _request_line(line: bytes, complete: bool, limits: Limits) -> tuple[str, bytes, str]:
    """Judge the first line, or as much of it as there is; the parts mean something only if it is complete."""
    if not complete:
        _legal_bytes(line)
        if line.startswith((b" ", b"\n")):
            raise Refused(400, "The request line is malformed.")
        if len(line) >= limits.max_url_bytes + AROUND_TARGET:
            raise Refused(414, f"The request's target is longer than {limits.max_url_bytes} bytes.")
        return "", b"", ""
    match = REQUEST_LINE.fullmatch(line)
    if match is None:
        _legal_bytes(line)
        raise Refused(400, "The request line is malformed.")
    method, target, version = match.groups()
    if version not in (b"1.1", b"1.0"):
        raise Refused(505, "Only HTTP/1.1 and HTTP/1.0 are spoken here.")
    if len(target) > limits.max_url_bytes:
        raise Refused(414, f"The request's target is longer than {limits.max_url_bytes} bytes.")
    if method == b"CONNECT":
        raise Refused(501, "This server is not a proxy.")
    return method.decode("ascii"), target, version.decode("ascii")


class _Collector:
    """What httptools calls back; one per request, as a parser that has seen a body's length would wait for the body."""

    __slots__ = ("complete", "headers")

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.complete = True


def _parse_headers(head: bytes) -> list[tuple[bytes, bytes]]:
    collector = _Collector()
    try:
        httptools.HttpRequestParser(collector).feed_data(head)
    except httptools.HttpParserUpgrade:
        pass  # an upgrade is an offer, and this server does not take it (RFC 9110, 7.8)
    except httptools.HttpParserInvalidMethodError:
        raise Refused(501, "The request's method is not known here.") from None
    except httptools.HttpParserError as error:
        if str(error).startswith("Invalid method"):  # a method of RTSP
            raise Refused(501, "The request's method is not known here.") from None
        raise Refused(400, f"The request's head is malformed: {error}.") from None
    if not collector.complete:
        raise Refused(400, "The request's head is malformed.")
    return collector.headers


def _split_target(target: bytes, method: str) -> tuple[bytes | None, bytes, bytes]:
    """Authority (of the absolute form only), path and query of a target (RFC 9112, 3.2)."""
    authority = None
    if not target.startswith(b"/"):
        if target == b"*" and method == "OPTIONS":
            return None, b"*", b""
        match = ABSOLUTE_TARGET.fullmatch(target)
        if match is None or not HOST.fullmatch(match[1]):
            raise Refused(400, "The request's target is malformed.")
        authority, target = match.groups()
        if not target.startswith(b"/"):
            target = b"/" + target
    if b"#" in target:
        raise Refused(400, "The request's target holds a fragment.")
    path, _, query = target.partition(b"?")
    return authority, path, query


def _check_host(hosts: list[bytes] | tuple[()], version: str) -> None:
    """RFC 9112, 3.2: exactly one Host on 1.1, never two, never a malformed one."""
    if len(hosts) > 1:
        raise Refused(400, "The request has more than one Host.")
    if not hosts:
        if version == "1.1":
            raise Refused(400, "The request has no Host.")
    elif not HOST.fullmatch(hosts[0]):
        raise Refused(400, "The request's Host is malformed.")


def _body_length(judged: dict[bytes, list[bytes]], version: str, method: str) -> int | None:
    """RFC 9112, 6: the length of the body, None for chunked; everything ambiguous is refused.

    A 1.1 request without either header has no body. On 1.0 it may have one that only the end of the connection would
    mark, so what usually has one must say how long it is (RFC 1945, 7.2.2).
    """
    codings, lengths = judged.get(b"transfer-encoding"), judged.get(b"content-length")
    if codings is not None:
        if lengths is not None:
            raise Refused(400, "The request has both Content-Length and Transfer-Encoding.")
        if version == "1.0":
            raise Refused(400, "Transfer-Encoding does not exist in HTTP/1.0.")
        if len(codings) > 1 or codings[0].lower() != b"chunked":
            raise Refused(501, "The only Transfer-Encoding known here is chunked.")
        return None
    if lengths is None:
        if version == "1.0" and method in WITH_BODY:
            raise Refused(411, "The request has no Content-Length.")
        return 0
    if len(lengths) > 1 or not LENGTH.fullmatch(lengths[0]):
        raise Refused(400, "The request's Content-Length is malformed.")
    return int(lengths[0])


def _keeps_alive(values: list[bytes] | tuple[()], version: str) -> bool:
    """RFC 9112, 9.3."""
    if not values:
        return version == "1.1"
    options = {option.strip().lower() for value in values for option in value.split(b",")}
    return b"close" not in options and (version == "1.1" or b"keep-alive" in options)


def _expects_continue(values: list[bytes] | tuple[()], version: str) -> bool:
    """RFC 9110, 10.1.1: the one expectation there is; a 1.0 client cannot have it."""
    if not values or version == "1.0":
        return False
    if len(values) > 1 or values[0].lower() != b"100-continue":
        raise Refused(417, "The only expectation known here is 100-continue.")
    return True
