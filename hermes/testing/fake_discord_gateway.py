"""The gateway of the fake Discord: sessions with sequence numbers, resume and replay, compression, and how it can fail."""

from __future__ import annotations

import copy
import json
import zlib
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest

if TYPE_CHECKING:
    from hermes.testing.fake_discord import FakeDiscord

REPLAYED = 1000  # events that a session keeps for a resume
WAITING = 4096


@dataclass(slots=True, eq=False)
class Session:
    """What one identify began."""

    id: str
    sequence: int = 0
    kept: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=REPLAYED))
    link: _Link | None = None


@dataclass(slots=True, eq=False)
class _Link:
    """One socket: what is to be sent goes through `outbox`, in order; bytes and text pass as they are."""

    socket: WebSocketConnection
    outbox: trio.MemorySendChannel[Any]
    compressor: Any
    session: Session | None = None
    left: bool = False  # we have closed it


class GatewaySide:
    """The gateway, and what it saw: `identifies`, `resumes`, `closes` (codes of clients), `heartbeats`."""

    def __init__(self, world: FakeDiscord) -> None:
        self._world = world
        self._links: set[_Link] = set()
        self.sessions: dict[str, Session] = {}
        self.identifies: list[dict[str, Any]] = []
        self.resumes: list[dict[str, Any]] = []
        self.closes: list[int] = []
        self.heartbeats: list[int | None] = []
        self.paths: list[str] = []

    @property
    def connections(self) -> int:
        """Sockets that are open."""
        return len(self._links)

    @property
    def live(self) -> bool:
        """Whether a client is identified or resumed."""
        return any(link.session is not None for link in self._links)

    # --- what a test does

    def dispatch(self, name: str, data: Any) -> None:
        """An event happens: every session gets it, those without a socket when they resume."""
        for session in self.sessions.values():
            session.sequence += 1
            frame = {"op": 0, "s": session.sequence, "t": name, "d": copy.deepcopy(data)}
            session.kept.append(frame)
            if session.link is not None and self._world.forwards:
                for _ in range(2 if self._world.duplicates else 1):
                    session.link.outbox.send_nowait(frame)
        self._world.touch()

    def send(self, frame: Any) -> None:
        """Send this to every client: a frame, or text or bytes as they are."""
        for link in self._links:
            link.outbox.send_nowait(frame)

    def close(self, code: int, reason: str = "", *, forget: bool = False) -> None:
        """Close every socket with this code; `forget`: their sessions cannot be resumed."""
        if forget:
            self.sessions.clear()
        for link in self._links:
            link.outbox.send_nowait((code, reason))

    async def drop(self) -> None:
        """Cut every connection without a word."""
        for link in list(self._links):
            await trio.aclose_forcefully(link.socket._stream)

    # --- serving

    async def connected(self, request: WebSocketRequest) -> None:
        """Serve one socket."""
        self.paths.append(request.path)
        if not self._world.greets:
            await request.accept()
            await trio.sleep_forever()
        socket = await request.accept()
        compressor = zlib.compressobj() if "compress=zlib-stream" in request.path else None
        sender, receiver = trio.open_memory_channel[Any](WAITING)
        link = _Link(socket, sender, compressor)
        self._links.add(link)
        self._world.touch()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write, link, receiver)
                link.outbox.send_nowait(
                    {
                        "op": 10,
                        "d": {"heartbeat_interval": self._world.heartbeat_s * 1000, "_trace": []},
                        "s": None,
                        "t": None,
                    }
                )
                try:
                    while True:
                        self._take(link, json.loads(await socket.get_message()))
                        self._world.touch()
                except ConnectionClosed as closed:
                    code = closed.reason.code if closed.reason is not None else 1006
                    if not link.left:
                        self.closes.append(code)
                        if code in (1000, 1001) and link.session is not None:
                            self.sessions.pop(link.session.id, None)  # such a close ends the session
                nursery.cancel_scope.cancel()
        finally:
            self._links.discard(link)
            if link.session is not None and link.session.link is link:
                link.session.link = None
            self._world.touch()

    async def _write(self, link: _Link, receiver: trio.MemoryReceiveChannel[Any]) -> None:
        async for frame in receiver:
            try:
                if isinstance(frame, tuple):
                    link.left = True
                    await link.socket.aclose(*frame)
                elif isinstance(frame, str | bytes):
                    await link.socket.send_message(frame)
                elif link.compressor is not None:
                    data = link.compressor.compress(json.dumps(frame).encode())
                    await link.socket.send_message(data + link.compressor.flush(zlib.Z_SYNC_FLUSH))
                else:
                    await link.socket.send_message(json.dumps(frame))
            except ConnectionClosed:
                return

    def _take(self, link: _Link, frame: dict[str, Any]) -> None:
        world = self._world
        data: Any = frame.get("d")
        if frame["op"] == 1:
            self.heartbeats.append(data)
            world.touch()
            if world.acks:
                link.outbox.send_nowait({"op": 11, "d": None, "s": None, "t": None})
        elif frame["op"] in (2, 6) and link.session is not None:
            link.outbox.send_nowait((4005, "Already authenticated."))
        elif frame["op"] == 2:
            self.identifies.append(data)
            self._identify(link, data)
        elif frame["op"] == 6:
            self.resumes.append(data)
            self._resume(link, data)
        elif link.session is None:
            link.outbox.send_nowait((4003, "Not authenticated."))

    def _identify(self, link: _Link, data: dict[str, Any]) -> None:
        world = self._world
        world.identifies_left -= 1
        if world.reject_auth or data["token"] != world.token:
            link.outbox.send_nowait((4004, "Authentication failed."))
            return
        if data["intents"] & ~world.allowed_intents:
            link.outbox.send_nowait((4014, "Disallowed intent(s)."))
            return
        session = Session(f"session-{len(self.identifies)}-{world.snowflake()}", link=link)
        self.sessions[session.id] = session
        link.session = session
        host = f"ws://127.0.0.1:{world.resume_port or world.socket_port}"
        bot = world.users["1000"]
        self._to(session, "READY", {
            "v": 10, "user": bot | {"verified": True, "email": None, "flags": 0, "mfa_enabled": False},
            "guilds": [{"id": "500", "unavailable": True}], "session_id": session.id, "resume_gateway_url": host,
            "session_type": "normal", "private_channels": [], "relationships": [], "presences": [],
            "application": {"id": bot["id"], "flags": 1 << 19}, "_trace": [],
        })  # fmt: skip
        self._to(session, "GUILD_CREATE", world.rest.guild())

    def _resume(self, link: _Link, data: dict[str, Any]) -> None:
        world = self._world
        if world.reject_auth or data["token"] != world.token:
            link.outbox.send_nowait((4004, "Authentication failed."))
            return
        session = self.sessions.get(data["session_id"])
        if world.invalid_sessions or session is None:
            world.invalid_sessions = max(0, world.invalid_sessions - 1)
            self.sessions.pop(data["session_id"], None)
            link.outbox.send_nowait({"op": 9, "d": False, "s": None, "t": None})
            return
        oldest = session.kept[0]["s"] if session.kept else 0
        if data["seq"] > session.sequence or data["seq"] + 1 < oldest:
            link.outbox.send_nowait((4007, "Invalid seq."))
            return
        link.session, session.link = session, link
        for frame in [each for each in session.kept if each["s"] > data["seq"]]:
            link.outbox.send_nowait(frame)
        self._to(session, "RESUMED", {"_trace": []})

    def _to(self, session: Session, name: str, data: Any) -> None:
        session.sequence += 1
        frame = {"op": 0, "s": session.sequence, "t": name, "d": data}
        session.kept.append(frame)
        if session.link is not None:
            session.link.outbox.send_nowait(frame)
