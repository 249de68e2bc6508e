"""Planted secrets never survive, in any form the sink may meet; ordinary text stays as it is."""

from __future__ import annotations

import base64
import json
import string
from dataclasses import dataclass
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hermes.observe.redact import MASK, SHORTEST_SECRET, Redactor, secrets_in
from hermes.settings import Config, Endpoint, HttpConfig, ModelConfig, Secret

OPAQUE = string.ascii_letters + string.digits + "-_.~+/=:!$&'()*,;@%\" \\<>é漢😀"
secrets = st.text(OPAQUE, min_size=8, max_size=60).filter(lambda text: text == text.strip() and len(set(text)) > 4)
prose = st.text(string.ascii_letters + " .,:;-\n/", max_size=80)


def in_every_form(secret: str) -> dict[str, str]:
    utf8 = secret.encode()
    return {
        "plain": secret,
        "percent": quote(secret, safe=""),
        "percent, lower case": "".join(f"%{byte:02x}" for byte in utf8),
        "percent twice": quote(quote(secret, safe=""), safe=""),
        "form": quote_plus(secret),
        "JSON": json.dumps({"a": secret}),
        "JSON, not ASCII": json.dumps(secret, ensure_ascii=False),
        "JSON in JSON": json.dumps(json.dumps({"a": secret})),
        "JSON with escaped slashes": json.dumps(secret).replace("/", "\\/"),
        "repr": repr(secret),
        "repr of bytes": repr(utf8),
        "repr in a repr": repr([repr(secret)]),
        "escapes": "".join(f"\\u{unit.hex()}" for unit in _units(secret)),
        "basic": base64.b64encode(b"user:" + utf8).decode(),
        "base64": base64.b64encode(utf8).decode(),
        "base64 shifted": base64.b64encode(b"ab" + utf8 + b"cd").decode(),
        "base64 for URLs": base64.urlsafe_b64encode(b"x" + utf8 + b"y").decode(),
    }


def _units(text: str) -> list[bytes]:
    raw = text.encode("utf-16-be")
    return [raw[i : i + 2] for i in range(0, len(raw), 2)]


@given(secret=secrets, before=prose, after=prose)
def test_a_known_secret_survives_in_no_form(secret: str, before: str, after: str) -> None:
    redactor = Redactor([secret])
    for form, text in in_every_form(secret).items():
        assume(len(secret.encode()) >= 8)
        redacted = redactor.redact(f"{before} {text} {after}")
        assert secret not in redacted, form
        if form not in ("basic", "base64", "base64 shifted", "base64 for URLs"):
            core = text.strip("\"'b{}a: []\\") if "JSON" in form or "repr" in form else text
            assert core not in redacted, form
        else:
            assert text[4:-4] not in redacted, form
        assert MASK in redacted


@given(text=prose, known=st.lists(secrets, max_size=3))
def test_text_without_secrets_is_not_changed(text: str, known: list[str]) -> None:
    assume(not any(secret in text for secret in known))
    assert Redactor(known).redact(text) == text


@given(st.text(max_size=300), st.lists(st.text(max_size=40), max_size=4))
def test_any_text_is_redacted_without_an_error_and_never_holds_a_known_value(text: str, known: list[str]) -> None:
    middle = text + "".join(known) + text
    redacted = Redactor(known).redact(middle)
    for secret in known:
        if len(secret) >= SHORTEST_SECRET and secret.strip("*") and MASK not in secret:
            assert secret not in redacted.replace(MASK, "\0")


TOKEN = "AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw-x9"
PLANTED = [
    "GET https://api.telegram.org/bot110201543:{}/getUpdates failed",
    "GET https://api.telegram.org/bot110201543%3A{}/getUpdates failed",
    "token 110201543:{} is not valid",
    "Authorization: Bearer {}",
    "authorization: Basic {}==",
    "Authorization: ApiKey {}",
    "Authorization: {}",
    "{{'Authorization': 'Bearer {}', 'Accept': '*/*'}}",
    "[(b'authorization', b'Bearer {}'), (b'accept', b'*/*')]",
    "('Authorization', 'Bot {}')",
    "curl -H 'Authorization: Bearer {}' http://x",
    'headers "{{\\"Authorization\\": \\"Bearer {}\\"}}"',
    "proxy-authorization: Basic {}",
    "Bearer {} was refused",
    "x-api-key: {}",
    "'X-Telegram-Bot-Api-Secret-Token': '{}'",
    "Cookie: {}",
    "https://host/path?key={}&a=b",
    "https://host/path?a=b&access_token={}",
    "wss://gateway/?v=10&token={}#x",
    "https://host/cb?code={}",
    "https://host/x?X-Amz-Signature={}",
    "https://user:{}@host/path",
    "https://{}@host/path",
    "socks5h://user:{}@10.0.0.1:1080",
    "postgresql+driver://u:{}@h/db",
    "api_key={}",
    "OPENAI_API_KEY={} hermes serve",
    "password = '{}'",
    '{{"api_key": "{}", "model": "m"}}',
    "{{'token': '{}'}}",
    '{{"a": "{{\\"client_secret\\": \\"{}\\"}}"}}',
    "-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n-----END OPENSSH PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\\n{}\\n",
    "Incorrect API key provided: sk-proj-{}.",
    "key sk-{}",
    "xoxb-123-456-{}",
    "xapp-1-A0-{}",
    "ghp_{}",
    "https://hooks.slack.com/services/T00000000/B00000000/{}",
    "https://discord.com/api/webhooks/123456789/{}",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.{}",
]


@pytest.mark.parametrize("line", PLANTED)
def test_what_looks_like_a_secret_needs_no_configuration(line: str) -> None:
    token = TOKEN.replace("-", "x") if line.startswith("ghp_") else TOKEN
    redacted = Redactor().redact(f"before {line.format(token)} after")
    assert token not in redacted
    assert token[:12] not in redacted
    assert token[-12:] not in redacted
    assert redacted.startswith("before ")
    assert MASK in redacted


def test_what_helps_to_understand_stays() -> None:
    redact = Redactor().redact
    assert (
        redact(f"https://api.telegram.org/bot123:{TOKEN}/sendMessage") == "https://api.telegram.org/bot***/sendMessage"
    )
    assert redact(f"https://u:{TOKEN}@proxy:3128/x") == "https://***@proxy:3128/x"
    assert redact(f"https://h/p?key={TOKEN}&alt=sse") == "https://h/p?key=***&alt=sse"
    assert redact(f'{{"token": "{TOKEN}", "chat": 5}}') == '{"token": "***", "chat": 5}'
    assert redact(f"Authorization: Bearer {TOKEN}") == "Authorization: Bearer ***"


ORDINARY = [
    "authorization failed for session 17",
    "the token limit of 4096 tokens was reached; max_tokens=4096",
    "invalid token: unexpected end of input",
    "risk-management-system-2024-review and task-sk-1",
    "the keyboard's key is stuck; monkey=banana; primary key (id)",
    "GET http://127.0.0.1:8642/v1/chat/completions 200 in 12 ms",
    "https://example.com/@user/page?id=5&sort=asc",
    "see https://example.com and write to me@example.com",
    "/bottom-of-page-2024/index.html",
    "12:30:45 2026-11-20T12:30:45.123Z",
    "a secret is best kept; basic understanding of bearer bonds",
    "/home/someone/hermes/turn.py:120 run_turn > hermes/agent/loop.py:80",
    "session=api:3f2b8c9d-1111-4222-8333-abcdefabcdef",
    "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "",
    "漢字 😀 \x00 \ud800",
]


@pytest.mark.parametrize("line", ORDINARY)
def test_ordinary_text_is_not_mangled(line: str) -> None:
    assert Redactor(["an-api-key-that-is-configured"]).redact(line) == line


def test_short_values_are_left_because_they_would_take_words_with_them() -> None:
    assert Redactor(["demo", "a", ""]).redact("the demo model") == "the demo model"


def test_each_line_of_a_long_secret_is_one() -> None:
    redactor = Redactor(["first-line-of-it\nsecond-line-of-it"])
    assert redactor.redact("only second-line-of-it was shown") == f"only {MASK} was shown"


def test_what_is_learned_later_counts_and_the_longest_goes_first() -> None:
    redactor = Redactor(["abcdef"])
    redactor.learn(["abcdefghij"])
    assert redactor.redact("x abcdefghij y abcdef z") == f"x {MASK} y {MASK} z"


def test_the_secrets_of_a_configuration_are_found_wherever_they_are() -> None:
    config = Config(
        home="/h",  # type: ignore[arg-type]
        workspace="/w",  # type: ignore[arg-type]
        http=HttpConfig(key=Secret("the-http-key-0123")),
        model=ModelConfig(
            primary=Endpoint(
                model="m",
                api_key=Secret("the-model-key"),
                proxy="http://user:the-proxy-password@proxy:1",
                headers=(("X-Api-Key", "the-header-key"), ("Accept", "application/json")),
            ),
            fallback=(Endpoint(model="n", api_key=Secret("the-fallback-key")),),
        ),
        platforms={
            "telegram": {"token": "the-bot-token", "allowed_users": [12345], "nested": [{"app_token": "the-app-token"}]}
        },
    )
    assert secrets_in(config) == {
        "the-http-key-0123",
        "the-model-key",
        "user:the-proxy-password",
        "the-proxy-password",
        "the-header-key",
        "the-fallback-key",
        "the-bot-token",
        "the-app-token",
    }


def test_values_that_are_no_secrets_are_not_taken_for_them() -> None:
    @dataclass(frozen=True)
    class Section:
        max_turn_tokens: int = 5
        keepalive: str = "every minute"
        monkey: str = "banana-banana"

    assert secrets_in(Section()) == set()


def test_redaction_is_linear_in_hostile_text() -> None:
    hostile = [
        "a." * 20_000,
        "token" * 10_000,
        "://" * 20_000,
        "-----BEGIN PRIVATE KEY" * 2_000,
        "key=" * 10_000,
        "sk-" * 20_000,
        "\\" * 50_000 + '"token"',
        "%25" * 20_000,
        "Authorization: " * 3_000,
        "eyJ" + "a" * 60_000,
    ]
    redactor = Redactor(["a-configured-secret", "%%%%%%%%", "\\\\\\\\\\\\\\\\"])
    assert all(isinstance(redactor.redact(text), str) for text in hostile)
