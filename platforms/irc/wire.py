"""The stream of one connection: lines out at the pace that the server bears, lines in to whom they concern.

Two tasks share it: one reads, one writes. Neither raises: what ends the connection is kept in `over`, and everybody who waits is
told. What is asked is answered in one of two ways. With `labeled-response` each line has a label, which its answer repeats. Without
it a `PING` follows, and since a server answers in order, its `PONG` says that what was asked before has been done or refused.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import trio

from hermes.errors import ConnectionEnded, PlatformError, PlatformRefused, PlatformUnavailable
from platforms.irc.batches import Batch, Batches
from platforms.irc.faults import ABOUT_COMMANDS, ABOUT_TARGETS, of_closing
from platforms.irc.flood import Bucket
from platforms.irc.lines import EMPTY, MAX_LINE, MAX_TAGS, BadLine, Line, build, parse

MAX_ASKED = 512  # answers that are waited for
MAX_QUEUED = 4096  # lines that are to be written
MAX_BAD = 8  # lines in a row that are none: then this is no IRC server
RECEIVE_BYTES = SEND_BYTES = 65_536
PLAYBACK = ("chathistory", "draft/chathistory-targets")  # what a server tells of the past, asked or not

Handler = Callable[[Line], None]
Fold = Callable[[str], str]


class Unanswered(Exception):
    """A question that was not answered.

    Args:
        why: what became of the connection, or that the time was over.
        sent: the question may have left.
    """

    def __init__(self, why: PlatformError, *, sent: bool) -> None:
        super().__init__(str(why))
        self.why = why
        self.sent = sent


@dataclass(eq=False, slots=True)
class Asked:
    """A question.

    Args:
        command: of its lines.
        target: of its lines, folded: whom answers without a label may concern.
        tokens: labels of its lines, or the token of the `PING` behind them.
        waits: those that were not answered yet.
        lines: what was answered.
        begun: a line of it has been taken to be written.
    """

    command: str
    target: str
    tokens: tuple[str, ...]
    waits: set[str]
    lines: list[Line] = field(default_factory=list)
    begun: bool = False
    done: trio.Event = field(default_factory=trio.Event)


class Wire:
    """One connection.

    Args:
        stream: connected; whoever opened it closes it.
        server: its name, for people.
        bucket: the pace.
        timeout_s: for an answer.

    Attributes:
        handler: is given each line that is no answer.
        fold: how names are compared.
        me: our nick, folded.
        labels: answers have labels.
        over: why the connection is over; None while it is not.
        ended: set with it.
        stamped: the server's time of the last line that had one; empty before.
    """

    def __init__(self, stream: trio.abc.Stream, server: str, bucket: Bucket, timeout_s: float) -> None:
        self.handler: Handler = lambda _: None
        self.fold: Fold = str.lower
        self.me = ""
        self.labels = False
        self.over: PlatformError | None = None
        self.ended = trio.Event()
        self.stamped = ""
        self.bucket = bucket
        self._stream = stream
        self._server = server
        self._timeout_s = timeout_s
        self._queue: deque[tuple[bytes, Asked | None]] = deque()
        self._urgent: deque[bytes] = deque()
        self._work = trio.Event()
        self._asked: dict[Asked, None] = {}
        self._tokens: dict[str, Asked] = {}
        self._batches = Batches()
        self._serial = 0
        self._bad = 0
        self._refused: PlatformError | None = None

    # What goes out.

    @property
    def waiting(self) -> int:
        """Lines that are not written yet."""
        return len(self._queue)

    def put(self, *lines: bytes) -> None:
        """Write lines when it is their turn; nobody is told whether they were. Plain."""
        if self.over is None and len(self._queue) + len(lines) <= MAX_QUEUED:
            self._queue.extend((line, None) for line in lines)
            self._work.set()

    def leave(self, last: bytes) -> None:
        """Write this, and nothing of what waits. Plain."""
        self._queue.clear()
        self._urgent.append(last)
        self._work.set()

    async def ask(
        self,
        command: str,
        parts: Sequence[tuple[str, ...]],
        *,
        tags: Mapping[str, str] = EMPTY,
        first: bool = False,
    ) -> list[Line]:
        """Write lines of one command to one target, and wait until the server has dealt with all of them.

        Args:
            command: such as `PRIVMSG`; `PING` without parts only asks whether the server is there.
            parts: the parameters of each line; the first of them is the target.
            tags: of each line.
            first: before all that waits to be written, which may take minutes.

        Returns:
            what it answered.

        Raises:
            Unanswered: the connection is over, or the time is.
            BadLine: this cannot be written, and nothing was.

        Cancellation: what was not taken yet is not written.
        """
        if self.over is not None:
            raise Unanswered(ConnectionEnded(str(self.over)), sent=False)
        if len(self._asked) >= MAX_ASKED or len(self._queue) >= MAX_QUEUED:
            raise Unanswered(PlatformUnavailable(f"{self._server} answers too slowly"), sent=False)
        asked, raw = self._prepared(command, parts, tags)
        before = 0 if first else len(self._queue)
        within_s = self._timeout_s + self.bucket.interval_s * (len(raw) + before)
        self._asked[asked] = None
        self._tokens.update(dict.fromkeys(asked.tokens, asked))
        if first:
            self._queue.extendleft((line, asked) for line in reversed(raw))
        else:
            self._queue.extend((line, asked) for line in raw)
        self._work.set()
        try:
            with trio.move_on_after(within_s):
                await asked.done.wait()
        finally:
            if not asked.begun:
                self._queue = deque(each for each in self._queue if each[1] is not asked)
            if not asked.begun or self.labels or not asked.waits:
                self._forget(asked)  # another stays, so that what is refused later is not taken for a younger one's
        if asked.waits:
            late = PlatformUnavailable(f"{self._server} did not answer in {within_s:g} s")
            raise Unanswered(self.over or late, sent=asked.begun)
        return asked.lines

    def _prepared(
        self, command: str, parts: Sequence[tuple[str, ...]], tags: Mapping[str, str]
    ) -> tuple[Asked, list[bytes]]:
        tokens, raw = list[str](), list[bytes]()
        for params in parts:
            if self.labels:
                tokens.append(self._token())
                raw.append(build(command, *params, tags={**tags, "label": tokens[-1]}))
            else:
                raw.append(build(command, *params, tags=tags))
        if not tokens:
            tokens.append(self._token())
            raw.append(build("PING", tokens[-1]))
        return Asked(command, self.fold(parts[0][0]) if parts else "", tuple(tokens), set(tokens)), raw

    def cost(self, lines: int) -> int:
        """How many lines it takes to have so many answered."""
        return lines if self.labels else lines + 1

    def _token(self) -> str:
        self._serial += 1
        return f"h{self._serial}"

    def _forget(self, asked: Asked) -> None:
        self._asked.pop(asked, None)
        for token in asked.tokens:
            self._tokens.pop(token, None)

    async def write(self) -> None:
        """Write what is to be written, for ever or until the connection is over."""
        try:
            while True:
                while self._urgent or self._queue:
                    now = trio.current_time()
                    wait_s = 0.0 if self._urgent else self.bucket.wait_s(1, now)
                    if wait_s:
                        await trio.sleep(wait_s)
                    else:
                        await self._stream.send_all(self._taken(now))
                self._work = trio.Event()
                await self._work.wait()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.end(ConnectionEnded(f"the connection to {self._server} broke: {error.__cause__ or error}"))

    def _taken(self, now: float) -> bytes:
        """What may be written now."""
        data = bytearray()
        while self._urgent:
            data += self._urgent.popleft()
            self.bucket.take(now)
        while self._queue and len(data) < SEND_BYTES and not self.bucket.wait_s(1, now):
            line, asked = self._queue.popleft()
            if asked is not None:
                asked.begun = True
            data += line
            self.bucket.take(now)
        return bytes(data)

    # What comes in.

    async def read(self) -> None:
        """Read until the connection is over."""
        buffer, skipping = bytearray(), False
        try:
            while self.over is None and (data := await self._stream.receive_some(RECEIVE_BYTES)):
                buffer += data
                *lines, rest = bytes(buffer).split(b"\n")
                buffer[:] = rest
                if skipping and lines:
                    skipping = False
                    del lines[0]
                for raw in lines:
                    self._take(raw.rstrip(b"\r"))
                if len(buffer) > MAX_TAGS + MAX_LINE:
                    skipping = True
                if skipping:
                    buffer.clear()
            self.end(self._refused or ConnectionEnded(f"{self._server} closed the connection"))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            broke = ConnectionEnded(f"the connection to {self._server} broke: {error.__cause__ or error}")
            self.end(self._refused or broke)

    def end(self, why: PlatformError) -> None:
        """The connection is over: whoever waits is told. Plain."""
        if self.over is None:
            self.over = why
            self.ended.set()
            for asked in self._asked:
                asked.done.set()

    def _take(self, raw: bytes) -> None:
        if not raw.strip():
            return
        try:
            line = parse(raw)
            self.stamped = line.tags.get("time", self.stamped)
            found = self._batches.take(line)
            if isinstance(found, Line):
                self._line(found)
            elif found is not None:
                self._batch(found)
        except BadLine as bad:  # or what it asks for can be put into none
            self._bad += 1
            if self._bad >= MAX_BAD:
                self.end(ConnectionEnded(f"{self._server} does not speak IRC: {bad} ({raw[:80]!r})"))
            return
        self._bad = 0

    def _line(self, line: Line) -> None:
        asked = self._tokens.get(line.tags.get("label", "")) if self.labels else None
        if asked is not None:
            asked.lines.append(line)
            self._answered(asked, line.tags["label"])
        match line.command:
            case "PING":
                self._urgent.append(build("PONG", line.words))
                self._work.set()
            case "PONG":
                if (fenced := self._tokens.get(line.words)) is not None:
                    self._answered(fenced, line.words)
            case "ERROR":
                why = of_closing(line.words, self._server)
                over = ConnectionEnded(str(why), retry_after_s=getattr(why, "retry_after_s", None))
                self._refused = self._refused or (why if isinstance(why, PlatformRefused) else over)
            case "465":
                self._refused = PlatformRefused(
                    f"{self._server} has banned us: {line.words}. Ask the network's staff; then `hermes platform retry`"
                )
            case _ if asked is None and not self._given(line):
                self.handler(line)

    def _given(self, line: Line) -> bool:
        """Give a line without a label to the question that it answers, if there is one."""
        if line.command in ABOUT_TARGETS:
            key, at = self.fold(line.param(1)), "target"
        elif line.command in ABOUT_COMMANDS or line.command == "FAIL":
            key, at = line.param(0 if line.command == "FAIL" else 1).upper(), "command"
        elif self.fold(line.nick) == self.me and line.command in ("PRIVMSG", "NOTICE"):
            key, at = self.fold(line.param(0)), "target"
        else:
            return False
        for asked in self._asked:
            if asked.waits and asked.begun and getattr(asked, at) == key:
                asked.lines.append(line)
                return True
        return False

    def _batch(self, batch: Batch) -> None:
        asked = self._tokens.get(batch.label) if self.labels and batch.label else None
        if asked is not None:
            asked.lines.extend(batch.lines)
            self._answered(asked, batch.label)
        elif batch.kind in PLAYBACK:
            for each in self._asked:
                if each.command == "CHATHISTORY":  # one at a time is asked
                    each.lines.extend(batch.lines)
                    return
        else:
            for line in batch.lines:
                self._line(line)

    def _answered(self, asked: Asked, token: str) -> None:
        asked.waits.discard(token)
        if not asked.waits:
            asked.done.set()
            self._forget(asked)
