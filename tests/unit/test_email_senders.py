"""From whom a mail is, whether that is sure, and whether a person wrote it to us."""

from __future__ import annotations

from email import message_from_string
from email.message import Message

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platforms.email import headers
from platforms.email.authentication import authenticated, servers
from platforms.email.automatic import why_automatic

MX = "mx.example.org"
ANNA = "anna@people.test"


def mail(*heads: str) -> Message:
    return message_from_string("\n".join(heads) + "\n\nhello\n")


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("anna@people.test", (ANNA, "")),
        ("<Anna@People.Test>", (ANNA, "")),
        ("Anna <anna@people.test>", (ANNA, "Anna")),
        ('"Anna, \\"A\\"" <anna@people.test>', (ANNA, 'Anna, "A"')),
        ("=?utf-8?q?=C3=84nne?= <anna@people.test>", (ANNA, "Änne")),
        ("Anna\n <anna@people.test>", (ANNA, "Anna")),
        ("a.b+c@people.test", ("a.b+c@people.test", "")),
        ("", None),
        ("Anna", None),
        ("anna@people.test, eve@evil.test", None),
        ("anna@people.test <eve@evil.test>", None),
        ('"anna@people.test" <eve@evil.test>', ("eve@evil.test", "anna@people.test")),
        ("<anna@people.test> <eve@evil.test>", None),
        ("Anna <anna@people.test>, <eve@evil.test>", None),
        ("Group: anna@people.test;", None),
        ("anna@people.test)eve@evil.test(", None),
        ("anna@people.test\x00@evil.test", None),
        ("ånna@people.test", None),
        ("anna@people.test<eve@evil.test", None),
        ("x" * 70 + "@people.test", None),
        ("a" * 3000 + "@people.test", None),
    ],
)
def test_a_sender_is_beyond_doubt_or_nobody(line: str, found: tuple[str, str] | None) -> None:
    assert headers.sender(mail(f"From: {line}")) == found


def test_two_from_lines_are_nobody() -> None:
    assert headers.sender(mail(f"From: {ANNA}", "From: eve@evil.test")) is None
    assert headers.sender(mail("Subject: x")) is None


@given(st.text(max_size=80))
def test_whatever_stands_there_is_an_address_or_nobody(line: str) -> None:
    found = headers.sender(message_from_string("x: y\n\n") if not line else mail("From: " + line.replace("\n", " ")))
    assert found is None or headers.is_address(found[0])


@pytest.mark.parametrize(
    ("field", "sure"),
    [
        (f"{MX}; dmarc=pass header.from=people.test", True),
        (f"{MX.upper()}; dmarc=pass (p=REJECT sp=REJECT) header.from=People.Test", True),
        (f'"{MX}" 1; dmarc=pass header.from=people.test', True),
        (
            f"{MX};\n spf=pass smtp.mailfrom=x@evil.test;\n dkim=pass header.d=evil.test; dmarc=fail header.from=people.test",
            False,
        ),
        (f"{MX}; dmarc=pass header.from=evil.test", False),
        (f"{MX}; dmarc=fail header.from=people.test; dkim=pass header.d=people.test", False),
        (f"{MX}; dmarc=none header.from=people.test; dkim=pass header.d=people.test", True),
        (f"{MX}; dmarc=temperror; dkim=pass header.d=people.test", False),
        (f"{MX}; dkim=pass header.i=@people.test header.s=s1", True),
        (f"{MX}; dkim=pass header.d=test", False),
        (f"{MX}; dkim=pass header.d=ople.test", False),
        (f"{MX}; dkim=fail header.d=people.test; dkim=pass header.d=evil.test", False),
        (f"{MX}; spf=pass smtp.mailfrom=anna@people.test", True),
        (f"{MX}; spf=pass smtp.mailfrom=people.test", True),
        (f"{MX}; spf=softfail smtp.mailfrom=people.test", False),
        (f'{MX}; spf=pass smtp.mailfrom="@people.test"@evil.test', False),
        (f'{MX}; spf=pass smtp.mailfrom="x;dmarc=pass header.from=people.test"@evil.test', False),
        (
            f'{MX}; spf=pass smtp.mailfrom="a(b"@evil.test; dmarc=fail header.i="c)"@evil.test; dkim=pass header.d=people.test',
            False,
        ),
        (f"{MX}; none (dmarc=pass header.from=people.test)", False),
        (f"{MX}; dmarc=pass header.from=people.test (", False),
        (f'{MX}; dmarc=pass header.from=people.test "', False),
        (f"{MX}.evil.test; dmarc=pass header.from=people.test", False),
        (f"(x) {MX} (y); dmarc/1 = pass header.from=people.test", True),
        (f"evil.test; dmarc=pass header.from=people.test; {MX}", False),
        ("; dmarc=pass", False),
        ("", False),
        (f"{MX}; dmarc=pass header.from=people.test; x=" + "y" * 9000, False),
    ],
)
def test_only_what_the_trusted_server_found_counts(field: str, sure: bool) -> None:
    found = mail(f"Authentication-Results: {field}", f"From: {ANNA}")
    assert authenticated(found, ANNA, MX) is sure


def test_of_several_fields_of_that_name_the_topmost_counts() -> None:
    good, bad = f"{MX}; dmarc=pass header.from=people.test", f"{MX}; dmarc=fail header.from=people.test"
    other = "other.test; dmarc=pass header.from=people.test"
    line = "Authentication-Results: {}".format
    assert not authenticated(mail(line(bad), line(good)), ANNA, MX)
    assert authenticated(mail(line(good), line(bad)), ANNA, MX)
    assert not authenticated(mail(line(other)), ANNA, MX)
    assert not authenticated(mail("Subject: x"), ANNA, MX)
    assert not authenticated(mail(f"ARC-Authentication-Results: i=1; {good}"), ANNA, MX)
    assert authenticated(mail("Subject: x"), ANNA, "none")
    assert servers(mail(line(other), line(good))) == ["other.test", MX]


@given(st.text(max_size=200))
def test_no_field_of_another_name_is_believed(rest: str) -> None:
    field = "evil.test; " + " ".join(rest.split())
    assert not authenticated(mail(f"Authentication-Results: {field}"), ANNA, MX)


US = "agent@example.org"


@pytest.mark.parametrize(
    "line",
    [
        "Auto-Submitted: auto-replied",
        "Auto-Submitted: auto-generated; owner=x",
        "Precedence: bulk",
        "Precedence: List",
        "X-Auto-Response-Suppress: All",
        "X-Autoreply: yes",
        "Return-Path: <>",
        "Return-Path: < >",
        "List-Id: <list.example.org>",
        "X-Failed-Recipients: a@b.c",
        'Content-Type: multipart/report; report-type=delivery-status; boundary="x"',
        "Message-ID: <0abc123.0123456789abcdef@hermes.example.org>",
        "Message-ID: <0abc123.0@hermes.other.org>",
    ],
)
def test_what_no_person_wrote_is_seen(line: str) -> None:
    assert why_automatic(mail(f"From: {ANNA}", line), US)


@pytest.mark.parametrize("sender", [US, US.upper(), "MAILER-DAEMON@x.test", "no-reply@x.test", "noreply+1@x.test"])
def test_machines_are_known_by_their_address(sender: str) -> None:
    assert why_automatic(mail(f"From: X <{sender}>"), US)


@pytest.mark.parametrize(
    "line",
    [
        "Auto-Submitted: no",
        "Precedence: normal",
        "Return-Path: <anna@people.test>",
        "Message-ID: <1@people.test>",
        "X: y",
    ],
)
def test_a_person_is_one(line: str) -> None:
    assert why_automatic(mail(f"From: {ANNA}", line), US) == ""
