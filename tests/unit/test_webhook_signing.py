"""Signatures by each service's rules: documented examples hold, and nothing else does."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes.platform import Secret
from platforms.webhook.config import Route
from platforms.webhook.signing import prove, sign

SCHEMES = ("github", "gitlab", "stripe", "slack", "standard", "hmac", "bearer")
SLACK_BODY = (
    b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar"
    b"&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com"
    b"%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"
    b"&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
)


def route(signature: Any, secret: str = "a-secret", **more: Any) -> Route:
    if signature == "hmac":
        more.setdefault("header", "x-signature")
    return Route(name="r", signature=signature, secret=Secret(secret), answer=True, **more)


def test_githubs_documented_example() -> None:
    given_headers = {
        "x-hub-signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
        "x-github-delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
    }
    found = prove(route("github", "It's a Secret to Everybody"), given_headers, b"Hello, World!")
    assert found is not None
    assert (found.id, found.at) == ("72d3162e-cc78-11e3-81ab-4c9367dc0958", None)


def test_slacks_documented_example() -> None:
    given_headers = {
        "x-slack-request-timestamp": "1531420618",
        "x-slack-signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
    }
    found = prove(route("slack", "8f742231b10e8888abcd99yyyzzz85a5"), given_headers, SLACK_BODY)
    assert found is not None
    assert found.at == 1531420618.0


def test_the_example_of_standard_webhooks() -> None:
    given_headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,aGVsbG8= v1a,xyz v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    body = b'{"test": 2432232314}'
    found = prove(route("standard", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), given_headers, body)
    assert found is not None
    assert (found.id, found.at) == ("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330.0)


def test_stripe_may_show_two_signatures_while_a_secret_is_exchanged() -> None:
    one = route("stripe")
    signed = sign(one, b"{}", at=1000.0)["stripe-signature"]
    when, _, value = signed.partition(",")
    assert prove(one, {"stripe-signature": f"{when},v1={'0' * 64},{value},v0=1"}, b"{}") is not None
    assert prove(one, {"stripe-signature": f"{when},v1={'0' * 64}"}, b"{}") is None
    assert prove(one, {"stripe-signature": f"{when},v0={value[3:]}"}, b"{}") is None
    assert prove(one, {"stripe-signature": f"t=1001,{value}"}, b"{}") is None
    many = ",".join(f"v1={'0' * 64}" for _ in range(50))
    assert prove(one, {"stripe-signature": f"{when},{many},{value}"}, b"{}") is None


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"encoding": "base64"},
        {"algorithm": "sha512", "prefix": "sha512="},
        {"algorithm": "sha1", "timestamp_header": "x-time", "id_header": "x-id"},
    ],
)
def test_a_signature_of_ones_own_form(more: dict[str, Any]) -> None:
    own = route("hmac", **more)
    headers = sign(own, b"body", at=5.0, id="one")
    found = prove(own, headers, b"body")
    assert found is not None
    assert (found.id, found.at) == ("one", 5.0 if "timestamp_header" in more else None)
    large = {**headers, "x-signature": own.prefix + headers["x-signature"][len(own.prefix) :].upper()}
    if own.encoding == "hex":
        again = prove(own, large, b"body")
        assert again is not None
        assert again.mark == found.mark  # or it would be no repetition
    if own.timestamp_header:
        assert prove(own, {**headers, "x-time": "6"}, b"body") is None
        assert prove(own, {**headers, "x-time": ""}, b"body") is None


def test_a_bearer_token_stands_where_it_should() -> None:
    own = route("bearer", id_header="x-id")
    found = prove(own, {"authorization": "bearer  a-secret", "x-id": "7"}, b"")
    assert found is not None
    assert (found.id, found.mark) == ("7", "")
    for wrong in ("a-secret", "Basic a-secret", "Bearer", "Bearer ", "Bearer a-secre", "Bearer a-secrets", "Bearer ä"):
        assert prove(own, {"authorization": wrong}, b"") is None
    assert prove(route("bearer", header="x-token"), {"x-token": "a-secret"}, b"") is not None


@pytest.mark.parametrize("scheme", SCHEMES)
@given(body=st.binary(max_size=200), other=st.binary(max_size=200), secret=st.text("abcdef", min_size=1, max_size=20))
def test_only_who_knows_the_secret_signs(scheme: str, body: bytes, other: bytes, secret: str) -> None:
    own = route(scheme, "the-" + secret)
    headers = sign(own, body, at=1_700_000_000.0, id="x")
    assert prove(own, headers, body) is not None
    assert prove(route(scheme, "not-" + secret), headers, body) is None
    assert prove(own, {}, body) is None
    if scheme not in ("gitlab", "bearer") and other != body:
        assert prove(own, headers, other) is None


@pytest.mark.parametrize("scheme", SCHEMES)
@given(value=st.text(st.characters(max_codepoint=255), max_size=100))
def test_whatever_stands_in_a_header_is_only_wrong(scheme: str, value: str) -> None:
    own = route(scheme)
    names = sign(own, b"x", at=1.0, id="1")
    assert prove(own, dict.fromkeys(names, value), b"x") is None
