"""The rules every history obeys before it is sent, by whole lists and message by message."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes.agent.calls import ModelRequest, ToolDefinition
from hermes.agent.validate import HistoryGuard, HistoryInvalid, check_history, check_tools
from hermes.agent.wire_chat import encode_request
from hermes.messages import Entry, Image, Message, Text, ToolCall, assistant, tool_result, user
from hermes.settings import Endpoint
from hermes.testing.fake_wire import Refused, check_chat

CALL, OTHER = ToolCall(id="c1", name="f", arguments="{}"), ToolCall(id="c2", name="f", arguments="{}")
SYSTEM = Message(role="system", parts=(Text("be kind"),))


def calling(*calls: ToolCall) -> Message:
    return Message(role="assistant", tool_calls=calls)


GOOD = {
    "one question": [user("hi")],
    "system first": [SYSTEM, SYSTEM, user("hi")],
    "two users": [user("hi"), user("there")],
    "results in another order": [user("x"), calling(CALL, OTHER), tool_result(OTHER, "b"), tool_result(CALL, "a")],
    "a call after a call": [user("x"), calling(CALL), tool_result(CALL, "a"), calling(OTHER), tool_result(OTHER, "b")],
    "the same id in a later step": [user("x"), calling(CALL), tool_result(CALL, "a"), calling(CALL), tool_result(CALL, "b")],
    "ends with the assistant": [user("x"), assistant("y")],
}  # fmt: skip
BAD = {
    "empty": ([], None),
    "only a system message": ([SYSTEM], None),
    "system in the middle": ([user("x"), SYSTEM], 1),
    "an orphaned result": ([user("x"), tool_result(CALL, "a")], 1),
    "a result twice": ([user("x"), calling(CALL), tool_result(CALL, "a"), tool_result(CALL, "a")], 3),
    "a result of another call": ([user("x"), calling(CALL), tool_result(OTHER, "a")], 2),
    "a user between": ([user("x"), calling(CALL), user("y")], 2),
    "a missing result": ([user("x"), calling(CALL, OTHER), tool_result(CALL, "a")], 2),
    "two assistants": ([user("x"), assistant("a"), assistant("b")], 2),
    "two calls of one id": ([user("x"), calling(CALL, CALL)], 1),
    "a call without an id": ([user("x"), calling(ToolCall(id="", name="f", arguments="{}"))], 1),
    "a user who calls": ([Message(role="user", tool_calls=(CALL,))], 0),
    "a result without an id": ([user("x"), calling(CALL), Message(role="tool", parts=(Text("a"),))], 2),
    "a result that calls": ([user("x"), calling(CALL), Message(role="tool", tool_call_id="c1", tool_calls=(OTHER,))], 2),
}  # fmt: skip


def entries(messages: list[Message]) -> list[Entry]:
    return [Entry(message) for message in messages]


@pytest.mark.parametrize("name", GOOD)
def test_a_good_history_passes_both_ways(name: str) -> None:
    check_history(entries(GOOD[name]))
    guard = HistoryGuard(entries(GOOD[name]))
    check_history(guard)
    assert [entry.message for entry in guard] == GOOD[name]


@pytest.mark.parametrize("name", BAD)
def test_a_bad_history_is_refused_both_ways_and_names_the_message(name: str) -> None:
    messages, index = BAD[name]
    with pytest.raises(HistoryInvalid) as whole:
        check_history(entries(messages))
    with pytest.raises(HistoryInvalid) as stepwise:
        HistoryGuard(entries(messages)).check_sendable()
    assert whole.value.index == stepwise.value.index == index
    assert whole.value.reason == stepwise.value.reason


def test_a_refused_message_leaves_the_guard_as_it_was() -> None:
    guard = HistoryGuard(entries([user("x"), calling(CALL)]))
    with pytest.raises(HistoryInvalid):
        guard.append(Entry(user("y")))
    assert guard.open_calls == {"c1"}
    guard.append(Entry(tool_result(CALL, "a")))
    guard.check_sendable()
    assert (len(guard), guard[-1].message.role, len(guard[1:])) == (3, "tool", 2)


def test_count_and_size_are_bounded() -> None:
    guard = HistoryGuard(max_messages=2)
    guard.append(Entry(user("a")))
    guard.append(Entry(user("b")))
    with pytest.raises(HistoryInvalid, match="more than 2"):
        guard.append(Entry(user("c")))
    big = Message(role="user", parts=(Image(url="data:," + "x" * 2000),))
    with pytest.raises(HistoryInvalid, match="larger"):
        HistoryGuard([Entry(big)], max_bytes=1000)


def test_tool_names_are_unique_and_such_as_providers_take() -> None:
    def tool(name: str) -> ToolDefinition:
        return ToolDefinition(name=name, description="", parameters={"type": "object"})

    check_tools([tool("a"), tool("b-2_C")])
    for names in (["a", "a"], ["with space"], [""], ["x" * 65], ["é"]):
        with pytest.raises(HistoryInvalid):
            check_tools([tool(name) for name in names])


messages = st.lists(
    st.one_of(
        st.just(user("u")),
        st.just(SYSTEM),
        st.just(assistant("a")),
        st.lists(st.sampled_from([CALL, OTHER]), min_size=1, max_size=2).map(lambda calls: calling(*calls)),
        st.sampled_from([tool_result(CALL, "r"), tool_result(OTHER, "r")]),
    ),
    max_size=8,
)


@given(messages)
def test_what_passes_is_what_a_strict_provider_takes(history: list[Message]) -> None:
    listed = entries(history)
    try:
        check_history(listed)
    except HistoryInvalid:
        with pytest.raises(HistoryInvalid):
            HistoryGuard(listed).check_sendable()
        return
    HistoryGuard(listed).check_sendable()
    body = json.loads(encode_request(ModelRequest(system="", history=listed), Endpoint(model="m")))
    roles = [message.role for message in history]
    if ("user", "user") in itertools.pairwise(roles):  # neighbours are joined before they become history
        with pytest.raises(Refused, match="two user messages"):
            check_chat(body)
    else:
        check_chat(body)
