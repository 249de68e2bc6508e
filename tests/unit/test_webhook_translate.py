"""Calls as events: recorded ones, templates, filters, names; and whatever else comes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes.commands import parse
from hermes.inbound import check_event
from hermes.platform import Address, InboundEvent, Secret
from platforms.webhook.config import Route
from platforms.webhook.signing import Proof
from platforms.webhook.template import MAX_WORDS, BadTemplate, parse_path, parse_template, render
from platforms.webhook.translate import Plan, Unreadable, is_like, is_wanted, read_call, to_event

SAMPLES = {
    path.stem: json.loads(path.read_text()) for path in sorted(Path(__file__).parents[1].glob("samples/webhook/*.json"))
}


def route(signature: Any = "github", **more: Any) -> Route:
    more.setdefault("deliver", Address("telegram", "1"))
    return Route(name="r", signature=signature, secret=Secret("s"), **more)


def event_of(own: Route, name: str, proof: Proof | None = None) -> InboundEvent | None:
    sample = SAMPLES[name]
    proof = proof or Proof(id=sample["headers"].get("x-github-delivery", sample["headers"].get("idempotency-key", "")))
    call = read_call(own, sample["headers"], json.dumps(sample["body"]).encode(), proof)
    return to_event(Plan.of(own), call, proof, account="hooks", fresh="fresh") if is_wanted(own, call) else None


def test_an_issue_of_github() -> None:
    own = route(
        events=("issues.opened",),
        prompt="{repository.full_name}#{issue.number} by {sender.login}: {issue.title} ({@event}, {{{issue.labels.0.name}}})",
        session="{repository.full_name}#{issue.number}",
    )
    event = event_of(own, "github_issue_opened")
    assert event is not None
    assert (
        event.text == "Codertocat/Hello-World#1 by Codertocat: Spelling error in the README file (issues.opened, {bug})"
    )
    assert event.address == Address("hooks", "r", "Codertocat/Hello-World#1")
    assert (event.id, event.attended, event.reply) == ("72d3162e-cc78-11e3-81ab-4c9367dc0958", False, None)
    assert event_of(own, "github_push") is None
    again = event_of(own, "github_comment")
    assert again is None


def test_a_push_of_gitlab() -> None:
    own = route("gitlab", events=("push",), prompt="{user_name} pushed {total_commits_count}: {commits.1.message|4}")
    event = event_of(own, "gitlab_push")
    assert event is not None
    assert event.text == "John Smith pushed 4: … (c"
    assert event.id == event.address.thread == "f5e5f430-f57b-4e6e-9fac-d9128cd7232f"
    assert event_of(route("gitlab", events=("Push Hook",)), "gitlab_push") is not None
    assert event_of(route("gitlab", events=("issue",)), "gitlab_push") is None


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ({"when": (("object_attributes.action", ("open", "reopen")),)}, True),
        ({"when": (("object_attributes.action", ("close",)),)}, False),
        ({"when": (("project.path_with_namespace", ("gitlabhq/*",)),)}, True),
        ({"when": (("object_attributes.confidential", ("false",)), ("object_attributes.weight", ("null",)))}, True),
        ({"when": (("object_attributes.iid", ("23",)),)}, True),
        ({"unless": (("user.username", ("root",)),)}, False),
        ({"unless": (("user.username", ("*bot*",)),)}, True),
        ({"when": (("not.there", ("*x",)),)}, False),
    ],
)
def test_filters(more: dict[str, Any], wanted: bool) -> None:
    assert (event_of(route("gitlab", **more), "gitlab_issue") is not None) == wanted


def test_without_a_template_the_fields_are_shown_and_a_trial_is_passed_over() -> None:
    event = event_of(route(), "github_push")
    assert event is not None
    assert event.text.startswith('A webhook came to r (push):\n\n{"ref":"refs/tags/simple-tag"')
    assert len(event.text) < 4100
    assert event_of(route(), "github_ping") is None
    assert event_of(route(events=("ping",)), "github_ping") is not None


def test_the_names_of_stripe_and_slack_are_in_what_they_sign() -> None:
    stripe = event_of(route("stripe", events=("charge.*",)), "stripe_charge", Proof(at=5.0, mark="m"))
    assert stripe is not None
    assert (stripe.id, stripe.at) == ("evt_1NG8Du2eZvKYlo2CUI79vXWy", 5.0)
    slack = event_of(route("slack", prompt="{event.text}"), "slack_mention", Proof(at=5.0, mark="m"))
    assert slack is not None
    assert (slack.id, slack.text) == ("Ev123ABC456", "What is the hour of the pearl, <@U0LAN0Z89>?")


NO_NAME = Proof()


def call_of(own: Route, body: bytes, proof: Proof = NO_NAME, media: str = "application/json") -> InboundEvent:
    call = read_call(own, {"content-type": media}, body, proof)
    return to_event(Plan.of(own), call, proof, account="hooks", fresh="fresh")


def test_a_call_without_a_name() -> None:
    assert call_of(route("hmac"), b"{}", Proof(mark="abc")).id == "abc"
    assert call_of(route("bearer"), b"{}").id == "fresh"
    same = [call_of(route("gitlab"), b'{"a":1}').id for _ in range(2)]
    assert same[0] == same[1] != "fresh"
    for odd in ("x" * 600, "a\nb", "\x00"):
        assert call_of(route("bearer"), b"{}", Proof(id=odd)).id != odd
        check_event(call_of(route("bearer"), b"{}", Proof(id=odd)), "hooks")


def test_forms_are_read_and_garbage_is_not() -> None:
    form = "application/x-www-form-urlencoded; charset=utf-8"
    own = route("slack", prompt="{text}|{a}")
    assert call_of(own, b"command=%2Fask&text=hello+there&a=", media=form).text == "hello there|"
    assert call_of(own, b"payload=%7B%22text%22%3A%22in+it%22%7D", media=form).text == "in it|"
    for body, media in (
        (b"", "application/json"), (b"5", "application/json"), (b'"x"', ""), (b"[" * 100_000, ""), (b"\xff", ""),
        (b'{"a":"\\ud800"}', ""), (b"payload=5", form), (b"\xff=1", form), (b"x", form), (b"&".join([b"a=1"] * 2000), form),
    ):  # fmt: skip
        with pytest.raises(Unreadable):
            read_call(own, {"content-type": media}, body, Proof())


def test_nobody_gives_commands_by_a_field() -> None:
    own = route(prompt="{text}")
    for text in ("/stop", "  /new please", "/restart", "\n/queue x", ""):
        event = call_of(own, json.dumps({"text": text}).encode())
        assert parse(event.text) is None
        assert event.text


def test_who_waits_for_an_answer_is_found_again() -> None:
    event = call_of(route("bearer", answer=True, deliver=None), b"[]", Proof(id="1"))
    assert event.attended
    assert event.reply is not None
    assert event.reply.token == event.key
    both = call_of(route("bearer", answer=True), b"[]", Proof(id="1"))
    assert not both.attended  # it is wanted elsewhere, whether the caller waits or not
    assert both.reply is not None


@pytest.mark.parametrize(
    "bad", ["{", "}", "{}", "{a b.}", "{a..b}", "{a|x}", "{a|0}", "{{a}", "x{a.{b}}", "{" + "a" * 200 + "}"]
)
def test_what_is_no_template_says_where(bad: str) -> None:
    with pytest.raises(BadTemplate) as raised:
        parse_template(bad)
    assert bad not in str(raised.value) or len(bad) < 3


def test_fields_are_never_read_as_templates_and_everything_has_a_bound() -> None:
    assert render(parse_template("{a}"), {"a": "{b}", "b": "secret"}) == "{b}"
    assert render(parse_template("{a.b.0.c}{x}{a}"), {"a": {"b": [{"c": None}]}}) == '{"b":[{"c":null}]}'
    assert len(render(parse_template("{a|999999}" * 3), {"a": "x" * 90_000})) == MAX_WORDS
    assert len(render(parse_template("{a}"), {"a": "x" * 90_000})) == 8000
    with pytest.raises(BadTemplate):
        parse_path("a|5")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=20) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
schemes = st.sampled_from(("github", "gitlab", "stripe", "slack", "standard", "hmac", "bearer"))


@given(
    value=json_values,
    scheme=schemes,
    own=st.text(max_size=30),
    template=st.sampled_from(("", "{a}", "{@payload} {0.a}")),
)
def test_whatever_comes_can_be_kept(value: Any, scheme: str, own: str, template: str) -> None:
    plan = route(scheme, prompt=template, session=template)
    proof = Proof(id=own, mark="m")
    try:
        call = read_call(plan, {}, json.dumps(value).encode(), proof)
    except Unreadable:
        return
    event = to_event(Plan.of(plan), call, proof, account="hooks", fresh="f")
    check_event(event, "hooks")
    assert event == to_event(Plan.of(plan), call, proof, account="hooks", fresh="f")
    is_wanted(route(scheme, when=(("a", ("*",)),)), call)


@given(text=st.text("ab", max_size=12), pattern=st.text("ab*", max_size=8))
def test_patterns(text: str, pattern: str) -> None:
    import re

    wanted = re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text, re.DOTALL)
    assert is_like(text, pattern) == (wanted is not None)
