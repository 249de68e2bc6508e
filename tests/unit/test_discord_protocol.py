"""The gateway's state machine, its close codes, cursors, compression and limits: every property without a network."""

from __future__ import annotations

import json
import zlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes.errors import RateLimited
from platforms.discord.buckets import Buckets, Route
from platforms.discord.closing import CODES, MESSAGE_CONTENT, Ending, meaning
from platforms.discord.cursors import MAX_CHANNELS, Followed, Newest, read_session, write_session
from platforms.discord.inflate import Inflater, TooLarge
from platforms.discord.protocol import (
    Action,
    Alive,
    Beat,
    Began,
    End,
    Event,
    Identify,
    Resumed,
    Send,
    Session,
    State,
    beat,
    committed,
    opened,
    step,
)
from platforms.discord.rest import route_of
from platforms.discord.wire import decode_frame

OLD = Session(id="old", url="ws://old", sequence=41)


def frame(op: int, d: Any = None, s: int | None = None, t: str | None = None) -> Any:
    return decode_frame(json.dumps({"op": op, "d": d, "s": s, "t": t}).encode())


HELLO = frame(10, {"heartbeat_interval": 41_250})
READY = frame(0, {"session_id": "new", "resume_gateway_url": "ws://new", "user": {"id": "1000"}}, 1, "READY")


def after(state: State, *frames: Any) -> tuple[State, list[Action]]:
    found: list[Action] = []
    for each in frames:
        state, actions = step(state, each)
        found += actions
    return state, found


def test_a_fresh_connection_identifies_and_lives() -> None:
    state, actions = after(opened(None), HELLO)
    assert actions == [Beat(41.25), Identify()]
    state, actions = after(state, READY)
    assert actions == [Began(Session(id="new", url="ws://new", sequence=1), "1000")]
    assert state.phase == "live"
    state, actions = after(state, frame(0, {"x": 1}, 2, "MESSAGE_CREATE"))
    assert [(each.name, each.sequence) for each in actions if isinstance(each, Event)] == [("MESSAGE_CREATE", 2)]
    assert (state.received, state.session and state.session.sequence) == (2, 1)


def test_a_session_is_resumed_from_what_was_committed() -> None:
    state, actions = after(opened(OLD), HELLO)
    assert actions == [Beat(41.25), Send({"op": 6, "d": {"session_id": "old", "seq": 41}})]
    state, actions = after(state, frame(0, {}, 42, "MESSAGE_CREATE"), frame(0, {}, 43, "RESUMED"))
    assert [type(each) for each in actions] == [Event, Resumed]
    assert state.session == OLD  # nobody has said yet that it was committed
    assert committed(state, 43).session == Session(id="old", url="ws://old", sequence=43)
    assert committed(state, 7).session == OLD


def test_heartbeats_name_what_was_committed_and_one_without_an_answer_is_the_end() -> None:
    state, _ = after(opened(OLD), HELLO, frame(0, {}, 99, "MESSAGE_CREATE"))
    state, actions = beat(state)
    assert actions == (Send({"op": 1, "d": 41}),)
    state, more = after(state, frame(11))
    assert more == [Alive()]
    state, actions = beat(state)
    state, actions = beat(state)
    assert [each.ending.keep for each in actions if isinstance(each, End)] == [True]
    assert state.phase == "over"
    assert beat(state) == (state, ())


def test_the_service_may_ask_for_a_heartbeat() -> None:
    _, actions = after(opened(OLD), HELLO, frame(1))
    assert actions[-1] == Send({"op": 1, "d": 41})


@pytest.mark.parametrize(("d", "keep"), [(True, True), (False, False), (None, False), ("?", False)])
def test_an_invalid_session_is_forgotten_unless_the_service_says_otherwise(d: Any, keep: bool) -> None:
    state, actions = after(opened(OLD), HELLO, frame(9, d))
    assert isinstance(actions[-1], End)
    assert (actions[-1].ending.keep, actions[-1].ending.pause) == (keep, True)
    assert state.session == (OLD if keep else None)


def test_a_reconnect_keeps_the_session() -> None:
    state, actions = after(opened(OLD), HELLO, frame(7))
    assert actions[-1] == End(Ending(words="Discord asked us to reconnect", asked=True))
    assert state.session == OLD


@pytest.mark.parametrize(
    "hello", [None, {}, {"heartbeat_interval": 0}, {"heartbeat_interval": 1e9}, {"heartbeat_interval": "x"}]
)
def test_a_hello_without_a_usable_interval_ends_it(hello: Any) -> None:
    _, actions = after(opened(None), frame(10, hello))
    assert [type(each) for each in actions] == [End]


frames = st.builds(
    frame,
    st.sampled_from([0, 1, 7, 9, 10, 11, 99]),
    st.sampled_from([
        None, True, False, {}, {"heartbeat_interval": 5000},
        {"session_id": "new", "resume_gateway_url": "ws://new", "user": {"id": "1"}},
    ]),
    st.none() | st.integers(-5, 200),
    st.sampled_from([None, "", "READY", "RESUMED", "MESSAGE_CREATE"]),
)  # fmt: skip


@given(st.lists(st.one_of(frames, st.just("beat"), st.just("commit")), max_size=40), st.sampled_from([None, OLD]))
def test_whatever_comes_the_invariants_hold(script: list[Any], session: Session | None) -> None:
    state, identified, ended = opened(session), 0, False
    for each in script:
        before = state
        if each == "beat":
            state, actions = beat(state)
        elif each == "commit":
            state, actions = committed(state, state.received), ()
        else:
            state, actions = step(state, each)
        assert not (ended and actions), "an ended connection does nothing"
        assert state.received >= (state.session.sequence if state.session else 0)
        for action in actions:
            identified += isinstance(action, Identify)
            ended = ended or isinstance(action, End)
            if isinstance(action, Identify):
                assert before.session is None
            if isinstance(action, Send) and action.payload["op"] == 6:
                assert before.session is not None
                assert action.payload["d"] == {"session_id": before.session.id, "seq": before.session.sequence}
            if isinstance(action, Send) and action.payload["op"] == 1 and state.session is not None:
                assert (action.payload["d"] or 0) <= state.session.sequence
            if isinstance(action, Event):
                assert state.session is not None
        assert (state.phase == "over") == ended
    assert identified <= 1


@pytest.mark.parametrize("code", [*range(4000, 4016), 1000, 1001, 1006, 1011, 4999])
def test_every_close_code_has_a_meaning(code: int) -> None:
    found = meaning(code, "why", MESSAGE_CONTENT)
    assert found.refused == (code in {4004, 4010, 4011, 4012, 4013, 4014})
    assert found.keep == (not found.refused and code not in {4007, 4009})
    assert found.words
    assert set(CODES) == {*range(4000, 4014)} - {4006}


def test_missing_intents_are_named_with_where_to_switch_them_on() -> None:
    words = meaning(4014, "", 1 | MESSAGE_CONTENT).words
    assert "Message Content Intent" in words
    assert "Privileged Gateway Intents" in words
    assert "https://discord.com/developers/applications" in words


# --- cursors ---------------------------------------------------------------------------------------------------------


@given(st.text(max_size=50), st.text(max_size=50), st.integers(0, 1 << 53))
def test_a_session_comes_back_from_its_cursor(id_: str, url: str, sequence: int) -> None:
    session = Session(id=id_, url=url, sequence=sequence)
    assert read_session(write_session(session)) == session
    assert read_session(write_session(None)) is None


@given(st.binary(max_size=60))
def test_no_cursor_is_too_broken_to_read(value: bytes) -> None:
    assert read_session(value) is None or True
    assert len(Newest(value)) <= 3
    assert len(Followed(value).write()) <= 60


@given(st.lists(st.integers(1, 1 << 65), max_size=600))
def test_the_threads_that_are_followed_are_bounded_and_come_back(threads: list[int]) -> None:
    followed = Followed()
    for thread in threads:
        followed.note(str(thread))
    assert len(value := followed.write()) <= 4096
    known = [each for each in threads if each < 1 << 64]
    for each in known[-400:]:
        assert str(each) in Followed(value)


@given(st.lists(st.tuples(st.integers(1, 400), st.integers(1, 1 << 63)), max_size=600))
def test_the_newest_messages_are_bounded_and_come_back(pairs: list[tuple[int, int]]) -> None:
    newest = Newest()
    for channel, message in pairs:
        newest.note(str(channel), str(message))
    value = newest.write()
    assert len(newest) <= MAX_CHANNELS
    assert len(value) <= 4096
    again = Newest(value)
    assert again.channels() == newest.channels()
    if pairs:
        last = str(pairs[-1][0])
        assert newest.channels()[0] == last
        assert again.of(last) >= pairs[-1][1]


# --- compression -----------------------------------------------------------------------------------------------------


@given(st.lists(st.binary(min_size=1, max_size=2000), min_size=1, max_size=8), st.integers(1, 700))
def test_a_stream_inflates_whatever_its_pieces(messages: list[bytes], size: int) -> None:
    compressor, inflater = zlib.compressobj(), Inflater(10_000)
    for message in messages:
        data = compressor.compress(message) + compressor.flush(zlib.Z_SYNC_FLUSH)
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        found = [inflater.feed(piece) for piece in pieces]
        assert b"".join(each for each in found if each) == message


def test_a_bomb_and_rubbish_are_refused() -> None:
    compressor = zlib.compressobj()
    bomb = compressor.compress(b"\0" * 10_000_000) + compressor.flush(zlib.Z_SYNC_FLUSH)
    for data in (bomb, b"rubbish\x00\x00\xff\xff", b"x" * 100_001):
        with pytest.raises(TooLarge):
            Inflater(100_000).feed(data)


# --- limits ----------------------------------------------------------------------------------------------------------

ROUTE = Route("POST /channels/:id/messages", "1", "address")


def headers(remaining: int, after_s: float, bucket: str = "b") -> dict[str, str]:
    return {
        "x-ratelimit-bucket": bucket, "x-ratelimit-remaining": str(remaining), "x-ratelimit-reset-after": str(after_s)
    }  # fmt: skip


def test_an_empty_bucket_sends_nothing_until_it_is_full_again() -> None:
    buckets = Buckets()
    buckets.take(ROUTE, 0)
    buckets.note(ROUTE, headers(1, 5), 0)
    buckets.take(ROUTE, 1)
    with pytest.raises(RateLimited) as caught:
        buckets.take(ROUTE, 2)
    assert (caught.value.retry_after_s, caught.value.scope) == (3, "address")
    buckets.take(Route(ROUTE.name, "2", "address"), 2)  # another channel has its own
    buckets.take(ROUTE, 5)


def test_a_429_blocks_its_bucket_or_everything() -> None:
    buckets = Buckets()
    assert buckets.refused(ROUTE, headers(0, 2), 2.0, everywhere=False, now=0).scope == "address"
    with pytest.raises(RateLimited):
        buckets.take(ROUTE, 1)
    other = Route("GET /users/@me")
    buckets.take(other, 1)
    assert buckets.refused(ROUTE, {}, 1.5, everywhere=True, now=10).scope == "account"
    with pytest.raises(RateLimited) as caught:
        buckets.take(other, 11)
    assert caught.value.scope == "account"
    buckets.take(other, 11.6)
    assert buckets.refused(ROUTE, {"retry-after": "9"}, None, everywhere=False, now=20).retry_after_s == 9


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0.01, 10), st.sampled_from("abc")), max_size=50))
def test_no_more_leave_than_the_service_said(answers: list[tuple[int, float, str]]) -> None:
    buckets, now = Buckets(), 0.0
    for remaining, after_s, bucket in answers:
        buckets.note(ROUTE, headers(remaining, after_s, bucket), now)
        for _ in range(remaining):
            buckets.take(ROUTE, now)
        with pytest.raises(RateLimited) as caught:
            buckets.take(ROUTE, now)
        assert caught.value.retry_after_s <= after_s + 1e-6
        now += 100


@pytest.mark.parametrize(
    ("method", "path", "route"),
    [
        ("POST", "/channels/12/messages", Route("POST /channels/:id/messages", "12", "address")),
        ("PATCH", "/channels/12/messages/34", Route("PATCH /channels/:id/messages/:id", "12", "address")),
        ("PUT", "/channels/1/messages/2/reactions/%F0/@me",
         Route("PUT /channels/:id/messages/:id/reactions/:emoji/@me", "1", "address")),
        ("GET", "/users/@me", Route("GET /users/@me", "", "method")),
    ],
)  # fmt: skip
def test_routes_are_named_without_their_ids(method: str, path: str, route: Route) -> None:
    assert route_of(method, path) == route


def test_the_token_of_an_interaction_is_part_of_no_name() -> None:
    token = "t" * 60
    route = route_of("PATCH", f"/webhooks/1000/{token}/messages/@original")
    assert token not in route.name
    assert token in route.major


def test_a_frame_that_is_none_is_a_decode_error() -> None:
    for data in (b"", b"[]", b'{"op":"x"}', b'{"d":1}'):
        with pytest.raises(msgspec.DecodeError):
            decode_frame(data)
