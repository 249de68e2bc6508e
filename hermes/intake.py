"""What goes into a session's mailbox and what comes out of a turn: the values between the doors, the sessions and the store."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from hermes.agent.calls import CallOptions
from hermes.events import AttachmentRef, ReplyRef
from hermes.messages import Message, Usage

Mode = Literal["attended", "detached", "job"]
Busy = Literal["queue", "interrupt", "steer"]
TurnState = Literal["running", "done", "failed", "interrupted", "superseded"]
RowState = Literal[
    "pending", "live", "answered", "merged", "superseded", "stopped", "command", "context", "refused", "interrupted", "quarantined"
]  # fmt: skip
HTTP = "http"  # the account of those who ask over HTTP and of `hermes chat`: their answers go back the way they came
FINAL_ROW_STATES: tuple[RowState, ...] = (
    "answered", "merged", "superseded", "stopped", "command", "context", "refused", "interrupted", "quarantined"
)  # fmt: skip


class ClientTool(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A function that the client runs itself; the model's calls of it are handed back."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = {}
    strict: bool | None = None


class ResponseRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a `/v1/responses` request asked to be remembered; written in the turn's own last transaction."""

    id: str
    conversation: str | None = None
    previous_id: str | None = None
    instructions: str | None = None
    request: dict[str, Any] = {}  # the fields that the response object echoes


class Payload(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The durable content of an inbox row.

    Args:
        messages: what is new: user messages, or the results of the client's own tools.
        instructions: system text for this turn alone.
        model: the name the client asked for; None = the session's or the configured one.
        tools: functions of the client's own.
        builtin_tools: whether Hermes' own tools are offered.
        options: sampling and form.
        response: for `/v1/responses`.
        attachments: the files that came with it, as their sender describes them; they are fetched while the row waits.
        message_id: the service's own id of the message, for signs that are shown on it.
    """

    messages: tuple[Message, ...]
    instructions: str | None = None
    model: str | None = None
    tools: tuple[ClientTool, ...] = ()
    builtin_tools: bool = True
    options: CallOptions = CallOptions()
    response: ResponseRecord | None = None
    attachments: tuple[AttachmentRef, ...] = ()
    message_id: str | None = None


class IdempotencyKey(msgspec.Struct, frozen=True, kw_only=True):
    """A client's promise that two requests are one: per principal and route; `fingerprint` is a digest of the body."""

    route: str
    key: str
    fingerprint: bytes


class Intake(msgspec.Struct, frozen=True, kw_only=True):
    """One thing for a session to answer, before it is committed.

    Args:
        session_key: the mailbox. For HTTP callers it is the session's id.
        session_id: the id of the conversation if this event makes it; the key where empty.
        event_id: unique within (account, chat, kind); a repeat is absorbed.
        mode: attended = somebody waits on a connection; detached = a person will be told.
        principal: who asks, a stable id.
        source: the door: `chat.completions`, `responses`, `sessions`, `runs`, `chat`.
        payload: the content.
        account, chat, thread: where it came from; `http` and no chat for HTTP callers.
        reply: how an answer is tied to it, where its service has that.
        kind: `message`, or what `InboundEvent.kind` says.
        busy: what to do when the session is in a turn.
        part_of: parts of one message share it: the id of an album, or `continues` for a text that is likely to go on.
        merge_window_s: how long more parts are waited for.
        fetch_s: how long its files are waited for; 0 = none is to be fetched.
        prefix: the client's own history, which becomes the session's when the session is made by this event.
        ephemeral: the session serves this one request: nothing stays live and its rows are kept a day.
        existing: the session must exist already (404 otherwise), under `session_id` if that is given.
        after: the session must hold exactly so many messages, and nothing may wait in it (409 `session_moved` otherwise).
        may_change: whether tools with side effects are offered to this caller.
        idempotency: the client's key.
        max_queued: rows that may wait in this mailbox, this one included; None = no limit of the door's own.
    """

    session_key: str
    event_id: str
    mode: Mode
    principal: str
    source: str
    payload: Payload
    session_id: str = ""
    account: str = HTTP
    chat: str = ""
    thread: str | None = None
    reply: ReplyRef | None = None
    kind: str = "message"
    busy: Busy = "queue"
    part_of: str | None = None
    merge_window_s: float = 0.0
    fetch_s: float = 0.0
    prefix: tuple[Message, ...] = ()
    ephemeral: bool = False
    existing: bool = False
    after: int | None = None
    may_change: bool = False
    idempotency: IdempotencyKey | None = None
    max_queued: int | None = None


class Failure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a turn or a row did not end well, as its OpenAI-shaped error: HTTP status, code, words."""

    status: int
    code: str
    message: str
    kind: str = "server_error"
    retry_after_s: float | None = None


class TurnEnd(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a turn ended; the same value is stored in its row and handed to whoever waits, so that a replay is exact.

    Args:
        event_id: the inbox row that was answered.
        turn_id: empty when no turn was started for the row.
        session_id: the conversation.
        state: `done`, `failed`, `interrupted`, `superseded`.
        message: the last assistant message; `tool_calls` are the client's own calls to run.
        finish_reason: `stop`, `tool_calls`, `length`, `content_filter`.
        usage: of all model calls together.
        model: as the provider named it.
        created_at: seconds since the epoch at which the turn began.
        failure: for every state but `done`.
        transcript: what the turn added to the history, the last message included.
    """

    event_id: str
    session_id: str
    state: TurnState
    turn_id: str = ""
    message: Message | None = None
    finish_reason: str = "stop"
    usage: Usage = Usage()
    model: str = ""
    created_at: float = 0.0
    failure: Failure | None = None
    transcript: tuple[Message, ...] = ()


class TextEvent(msgspec.Struct, frozen=True, tag="text"):
    """More words of the reply."""

    text: str


class ReasoningEvent(msgspec.Struct, frozen=True, tag="reasoning"):
    """More of what the model thinks aloud."""

    text: str


class Pieces(msgspec.Struct, frozen=True, tag="pieces"):
    """Neighbouring pieces of one kind as a run keeps them: the text, and where in it each number ended."""

    kind: Literal["text", "reasoning"]
    text: str
    ends: tuple[int, ...]

    def after(self, last: int, number: int) -> TextEvent | ReasoningEvent:
        """What comes after a number, as one event.

        Args:
            last: the number of the last piece.
            number: below `last`.
        """
        skipped = number - (last - len(self.ends))
        text = self.text if skipped <= 0 else self.text[self.ends[skipped - 1] :]
        return TextEvent(text) if self.kind == "text" else ReasoningEvent(text)


class StepEvent(msgspec.Struct, frozen=True, tag="step"):
    """A new model call begins; what was shown so far was an earlier step's text."""

    number: int


class CallEvent(msgspec.Struct, frozen=True, tag="call"):
    """A piece of a tool call that the client will run itself, as it is written."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


class ToolStarted(msgspec.Struct, frozen=True, tag="tool_started"):
    """One of our tools begins."""

    call_id: str
    name: str
    arguments: str


class ToolFinished(msgspec.Struct, frozen=True, tag="tool_finished"):
    """One of our tools ended; `preview` is a bounded piece of its result."""

    call_id: str
    name: str
    ok: bool
    seconds: float
    preview: str


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """The last event of every feed, after the commit."""

    end: TurnEnd


TurnEvent = TextEvent | ReasoningEvent | StepEvent | CallEvent | ToolStarted | ToolFinished | Ended

encode_payload = msgspec.json.Encoder().encode
decode_payload = msgspec.json.Decoder(Payload).decode
encode_end = msgspec.json.Encoder().encode
decode_end = msgspec.json.Decoder(TurnEnd).decode
encode_event = msgspec.json.Encoder().encode
decode_event = msgspec.json.Decoder(TurnEvent | Pieces).decode
