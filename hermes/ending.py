"""How a turn ends, as one pure decision: its state, what is added to the history, what becomes of the inbox rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from hermes.agent.loop import LoopEnd
from hermes.intake import Failure, TurnEnd, TurnState
from hermes.messages import Message, Usage, assistant
from hermes.store.rows import Claim
from hermes.store.turns import Finish

CutReason = Literal["left", "stopped", "deadline", "restarted", "superseded", "draining"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Why a turn was ended from outside. `by` is the event that did it, where there was one."""

    reason: CutReason
    by: str = ""


@dataclass(frozen=True, slots=True)
class _Policy:
    words: str
    state: TurnState
    attended_rows: str
    other_rows: str
    status: int
    code: str


_POLICY: dict[CutReason, _Policy] = {
    "left": _Policy("the caller left", "interrupted", "interrupted", "interrupted", 499, "client_left"),
    "stopped": _Policy("stopped by request", "interrupted", "stopped", "stopped", 499, "stopped"),
    "deadline": _Policy("the turn took longer than it may", "interrupted", "interrupted", "interrupted", 504, "turn_timeout"),
    "restarted": _Policy("begun anew with a newer message", "superseded", "pending", "pending", 499, "superseded"),
    "superseded": _Policy("cut by a newer message", "superseded", "superseded", "superseded", 499, "superseded"),
    "draining": _Policy("the gateway stopped while this ran", "interrupted", "interrupted", "pending", 503, "gateway_stopped"),
}  # fmt: skip


def decide(
    claim: Claim,
    *,
    ended: LoopEnd | None,
    failure: Failure | None,
    cut: Cut | None,
    shown: str,
    events: Sequence[tuple[int, bytes]],
    usage: Usage,
) -> Finish:
    """The one way this turn ends.

    Args:
        ended: the loop's last word, where it came to one; it wins over a cut that came too late.
        failure: an error that ended it.
        cut: who ended it from outside.
        shown: words of the unfinished reply that somebody may have read; they stay in the history, marked.
        events: of a detached run, to keep.
        usage: of every model call that was answered, whatever came of the turn.
    """
    base = TurnEnd(
        event_id=claim.rows[-1].event_id, turn_id=claim.turn_id, session_id=claim.session.id, state="done",
        created_at=claim.started_at, usage=usage,
    )  # fmt: skip
    if ended is not None:
        end = msgspec.structs.replace(base, message=ended.message, finish_reason=ended.finish_reason, model=ended.model)
        messages = () if ended.await_step is not None else (ended.message,)
        return Finish(
            claim=claim, end=end, messages=messages, rows="answered", await_step=ended.await_step, run_events=events
        )
    if failure is not None:
        end = msgspec.structs.replace(base, state="failed", failure=failure)
        note = _note(shown, f"failed: {failure.message}", "failed")
        return Finish(
            claim=claim,
            end=end,
            messages=(note,),
            rows="answered",
            reason=failure.code,
            step_reason="the turn failed",
            run_events=events,
        )
    assert cut is not None
    policy = _POLICY[cut.reason]
    rows = policy.attended_rows if claim.rows[0].mode == "attended" else policy.other_rows
    end = msgspec.structs.replace(
        base,
        state=policy.state,
        failure=Failure(status=policy.status, code=policy.code, message=policy.words, kind="interrupted"),
    )
    kept = () if rows == "pending" else (_note(shown, f"interrupted: {policy.words}", "interrupted"),)
    reason = cut.reason if rows == "pending" else cut.by or policy.words
    return Finish(
        claim=claim, end=end, messages=kept, rows=rows, reason=reason, step_reason=policy.words, run_events=events
    )


def _note(shown: str, words: str, note: str) -> Message:
    """What stands in the history where no reply was: what was shown of it, and why it ends there."""
    return assistant(f"{shown}\n\n({words})" if shown else f"({words})", note=note)
