"""The one name of an event: by it a repeat is known, also one that was stored by another version."""

from __future__ import annotations

from urllib.parse import quote

from hypothesis import example, given
from hypothesis import strategies as st

from hermes.events import event_key

PARTS = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("/%@:.+!$*_-~ \n"), max_size=20)


@given(PARTS, PARTS, PARTS, PARTS)
@example("a/b", "%2F", "message", "1\n")
@example("telegram", "-100", "message", "4242.50")
@example("é", "٣", "", "~")
def test_a_key_is_its_parts_quoted_and_joined(account: str, chat: str, kind: str, event: str) -> None:
    quoted = (quote(each, safe="@:.+!$*") for each in (account, chat, kind, event))
    assert event_key(account, chat, kind, event) == "/".join(quoted)


@given(st.tuples(PARTS, PARTS, PARTS, PARTS), st.tuples(PARTS, PARTS, PARTS, PARTS))
def test_no_two_events_have_the_same_key(one: tuple[str, str, str, str], other: tuple[str, str, str, str]) -> None:
    assert (event_key(*one) == event_key(*other)) == (one == other)
