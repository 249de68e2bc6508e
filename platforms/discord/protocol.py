"""The gateway's protocol as a pure state machine: `step(state, frame) -> (state, actions)`. No I/O, no clock, no chance.

A state belongs to one connection; what outlives it is the session, handed on by whoever opens the next one. Version 10;
source: Discord's reference, "Gateway" and "Gateway Events".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import msgspec

from platforms.discord.closing import Ending
from platforms.discord.wire import Frame, Hello, Ready

DISPATCH, HEARTBEAT, IDENTIFY, RESUME, RECONNECT, INVALID_SESSION, HELLO, ACK = 0, 1, 2, 6, 7, 9, 10, 11
SHORTEST_BEAT_S, LONGEST_BEAT_S = 1.0, 600.0
MAX_SEQUENCE = 1 << 53

_hello = msgspec.json.Decoder(Hello).decode
_ready = msgspec.json.Decoder(Ready).decode
_flag = msgspec.json.Decoder(bool | None).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What a connection can resume: the service's id of it, where, and the last sequence number that was committed."""

    id: str
    url: str
    sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """One connection.

    Args:
        phase: `connecting` until the service said hello, `greeted` until it has begun or resumed the session, `live`,
            and `over`.
        session: None until there is one; its sequence is what was committed, never more.
        received: the highest sequence number seen; at least what was committed.
        unanswered: a heartbeat of ours has not been acknowledged.
    """

    phase: Literal["connecting", "greeted", "live", "over"] = "connecting"
    session: Session | None = None
    received: int = 0
    unanswered: bool = False


@dataclass(frozen=True, slots=True)
class Beat:
    """Send heartbeats, so many seconds apart; the first after a random part of that."""

    every_s: float


@dataclass(frozen=True, slots=True)
class Identify:
    """Begin a session. It costs one of the day's identifies, which must be counted first."""


@dataclass(frozen=True, slots=True)
class Send:
    """Send this payload."""

    payload: dict[str, object]


@dataclass(frozen=True, slots=True)
class Alive:
    """A heartbeat was acknowledged."""


@dataclass(frozen=True, slots=True)
class Began:
    """A new session has begun: what happened before it is not replayed."""

    session: Session
    user_id: str


@dataclass(frozen=True, slots=True)
class Resumed:
    """Everything missed has been replayed."""

    sequence: int


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened."""

    name: str
    data: msgspec.Raw
    sequence: int


@dataclass(frozen=True, slots=True)
class End:
    """Leave this connection."""

    ending: Ending


Action = Beat | Identify | Send | Alive | Began | Resumed | Event | End


def opened(session: Session | None) -> State:
    """The state of a fresh connection that shall resume this session, or begin one."""
    return State(session=session, received=session.sequence if session else 0)


def step(state: State, frame: Frame) -> tuple[State, tuple[Action, ...]]:
    """What a frame does."""
    if state.phase == "over":
        return state, ()
    if frame.op == DISPATCH:
        return _dispatch(state, frame)
    if frame.op == HELLO:
        return _greet(state, frame)
    if frame.op == HEARTBEAT:
        return replace(state, unanswered=True), (_heartbeat(state),)
    if frame.op == ACK:
        return replace(state, unanswered=False), (Alive(),)
    if frame.op == RECONNECT:
        return _end(state, Ending(words="Discord asked us to reconnect", asked=True))
    if frame.op == INVALID_SESSION:
        return _invalid(state, frame)
    return state, ()


def beat(state: State) -> tuple[State, tuple[Action, ...]]:
    """A heartbeat is due. One that was not acknowledged means that nobody is there any more."""
    if state.phase == "over":
        return state, ()
    if state.unanswered:
        return _end(state, Ending(words="the gateway did not acknowledge a heartbeat"))
    return replace(state, unanswered=True), (_heartbeat(state),)


def committed(state: State, sequence: int) -> State:
    """Everything up to this sequence number is in the store."""
    if state.session is None or sequence <= state.session.sequence:
        return state
    return replace(state, session=replace(state.session, sequence=sequence))


def _end(state: State, ending: Ending) -> tuple[State, tuple[Action, ...]]:
    return replace(state, phase="over", session=state.session if ending.keep else None), (End(ending),)


def _heartbeat(state: State) -> Send:
    """It names what was committed: the service may drop what we say we have."""
    sequence = state.session.sequence if state.session else None
    return Send({"op": HEARTBEAT, "d": sequence or None})


def _greet(state: State, frame: Frame) -> tuple[State, tuple[Action, ...]]:
    if state.phase != "connecting":
        return state, ()
    try:
        every_s = _hello(frame.d).heartbeat_interval / 1000
    except msgspec.ValidationError:
        every_s = 0.0
    if not SHORTEST_BEAT_S <= every_s <= LONGEST_BEAT_S:
        return _end(state, Ending(words="the gateway greeted us with no usable heartbeat interval"))
    first: Action = Identify() if state.session is None else _resume(state.session)
    return replace(state, phase="greeted"), (Beat(every_s), first)


def _resume(session: Session) -> Send:
    """The token is added where it is sent."""
    return Send({"op": RESUME, "d": {"session_id": session.id, "seq": session.sequence}})


def _invalid(state: State, frame: Frame) -> tuple[State, tuple[Action, ...]]:
    try:
        keep = bool(_flag(frame.d)) and state.session is not None
    except msgspec.ValidationError:
        keep = False
    return _end(state, Ending(words="Discord says the session is invalid", keep=keep, pause=True))


def _dispatch(state: State, frame: Frame) -> tuple[State, tuple[Action, ...]]:
    if state.phase == "connecting" or frame.s is None or not 0 <= frame.s < MAX_SEQUENCE or not frame.t:
        return state, ()  # nothing of the protocol: neither believed nor counted
    state = replace(state, received=max(state.received, frame.s))
    if frame.t == "READY":
        try:
            ready = _ready(frame.d)
        except msgspec.ValidationError as exc:
            return _end(state, Ending(words=f"the gateway began a session that makes no sense: {exc}", keep=False))
        session = Session(id=ready.session_id, url=ready.resume_gateway_url, sequence=frame.s)
        state = replace(state, phase="live", session=session, received=frame.s)
        return state, (Began(session, ready.user.id),)
    if frame.t == "RESUMED":
        return replace(state, phase="live"), (Resumed(frame.s),)
    if state.session is None:
        return state, ()  # before a session has begun there are no events
    return state, (Event(frame.t, frame.d, frame.s),)
