"""What a failure of an account means, and when to try again: pure decisions, tested by themselves.

`classify` finds the kind of what was raised; `decide` says what its supervisor does about it, from a frozen history.
"""

from __future__ import annotations

import errno
import math
import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import trio

from hermes.errors import (
    ConfigError,
    ConnectionEnded,
    HermesError,
    PlatformConflict,
    PlatformError,
    PlatformRefused,
    PlatformUnavailable,
    RateLimited,
    StoreUnavailable,
    said,
)
from hermes.settings import SupervisionConfig

Kind = Literal["refused", "bug", "conflict", "limited", "unavailable", "store"]

# The most final first. A group of several failures is the one that says most about what will come of another attempt.
FINALITY: tuple[Kind, ...] = ("refused", "bug", "conflict", "limited", "unavailable", "store")

BUGS_MOST = 5  # so many within the window are a bug that restarts do not mend
BUGS_WINDOW_S = 600.0
RETRY_AFTER_MOST_S = 86_400.0  # a service may ask for a day (Discord's identify budget); more is garbage
MOST_DOUBLINGS = 32
MOST_LINKS = 200  # exceptions looked at behind one failure
LONGEST_REASON = 300

# What a closed or broken connection raises in whoever still uses it: beside a reason it is noise, alone it is a bug.
_NOISE = (OSError, EOFError, trio.BrokenResourceError, trio.ClosedResourceError, trio.EndOfChannel, trio.TooSlowError)
# The machine is short of something, which is nobody's bug and passes.
_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a connection ended or could not be opened.

    Args:
        kind: what it means for another attempt.
        reason: for people, at most 300 characters.
        retry_after_s: what the service asked for; None if it said nothing.
        path: the path that fell silent, of a connection that had become deaf.
        over: the connection itself is gone, for those who send as well.
    """

    kind: Kind
    reason: str
    retry_after_s: float | None = None
    path: str | None = None
    over: bool = False


@dataclass(frozen=True, slots=True)
class History:
    """What a supervisor remembers of an account, or of one path of it.

    Args:
        failures: in a row since it was last healthy.
        bugs: when the latest failures happened that are no PlatformError, on the monotonic clock; oldest first.
        parked: it was given up as a bug, and what runs since is a probe.
    """

    failures: int = 0
    bugs: tuple[float, ...] = ()
    parked: bool = False


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again after so many seconds."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class Park:
    """Stop trying until something changes; `probe_after_s` is when to look whether it did, None = never."""

    kind: Literal["refused", "bug"]
    probe_after_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one attempt ended.

    Args:
        failure: why.
        up_s: how long it was connected; 0 if it never was.
        progressed: whether something came of it: an event, an answered poll, a message sent.
    """

    failure: Failure
    up_s: float = 0.0
    progressed: bool = False


def full_jitter(failures: int, *, base_s: float, max_s: float, rng: random.Random) -> float:
    """A delay before the next attempt, anywhere between nothing and an exponentially growing bound.

    Args:
        failures: in a row so far (>= 0).
        base_s: the bound after the first one.
        max_s: the bound at most.

    Source: "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015), full jitter.
    """
    doublings = min(max(failures - 1, 0), MOST_DOUBLINGS)
    return rng.uniform(0.0, min(max_s, base_s * 2.0**doublings))


def decide(
    history: History, outcome: Outcome, *, now: float, rng: random.Random, settings: SupervisionConfig
) -> tuple[History, Retry | Park]:
    """What comes after an attempt that ended.

    Args:
        history: of the attempts before.
        outcome: of this one.
        now: the monotonic clock, seconds.
        settings: the bounds in force.

    Returns:
        the history for the next decision, and what to do. Only an attempt that was both connected for `healthy_after_s` and
        made progress makes the earlier ones forgotten; bugs are forgotten by age alone.
    """
    failure = outcome.failure
    if outcome.progressed and outcome.up_s >= settings.healthy_after_s:
        history = replace(history, failures=0, parked=False)
    if failure.kind == "store":  # nothing of the account's: neither counted nor forgotten
        return history, Retry(0.0)
    history = replace(history, failures=history.failures + 1)
    delay = full_jitter(history.failures, base_s=settings.backoff_base_s, max_s=settings.backoff_max_s, rng=rng)
    asked = sane_retry_after(failure.retry_after_s)
    match failure.kind:
        case "refused":
            return history, Park("refused", None)
        case "conflict":
            return history, Retry(max(settings.backoff_max_s, asked))
        case "bug":
            bugs = (*(each for each in history.bugs if now - each < BUGS_WINDOW_S), now)[-BUGS_MOST:]
            history = replace(history, bugs=bugs)
            if history.parked or len(bugs) >= BUGS_MOST:
                return replace(history, parked=True), Park("bug", settings.probe_s)
            return history, Retry(delay)
        case _:
            # Beyond what the service asked for, a little more, so that those who were told together do not come together.
            return history, Retry(max(delay, asked + rng.uniform(0.0, settings.backoff_base_s) if asked else 0.0))


def sane_retry_after(retry_after_s: float | None) -> float:
    """What a service asked for, as a number of seconds between 0 and a day; 0 for what makes no sense."""
    if retry_after_s is None or math.isnan(retry_after_s):
        return 0.0
    return min(max(retry_after_s, 0.0), RETRY_AFTER_MOST_S)


def classify(error: BaseException) -> Failure:
    """The failure that is meant by what was raised: over all leaves of groups and what each came from, the most final.

    What was raised on purpose (a PlatformError) says what is to be done; what it was made from only explains it. So
    among the causes and contexts only such errors count. A cleanup that fails while a PlatformRefused is on its way puts
    that one into its own context, where it is found; `raise … from None` directly over a PlatformError replaces it.
    A closed socket's complaints beside any such error are noise. Cancellations count for nothing.
    """
    bugs: list[BaseException] = []
    noise: list[BaseException] = []
    meant: list[tuple[Kind, BaseException]] = []
    for each, raised in _behind(error):
        kind = _kind_of(each)
        if kind is not None:
            meant.append((kind, each))
        elif raised and not isinstance(each, (BaseExceptionGroup, trio.Cancelled)):
            (noise if isinstance(each, _NOISE) else bugs).append(each)
    if not meant:
        bugs += noise
    found = [*meant, *(("bug", each) for each in bugs)]
    if not found:
        return Failure(kind="bug", reason=words_of(error))
    kind, chosen = min(found, key=lambda pair: FINALITY.index(pair[0]))
    silent = chosen.silent if isinstance(chosen, PlatformUnavailable) else None
    over = any(isinstance(each, ConnectionEnded) for _, each in meant)
    wait_s = _longest_wait(kind, meant)
    return Failure(kind=kind, reason=words_of(chosen), retry_after_s=wait_s, path=silent, over=over)


def words_of(error: BaseException) -> str:
    """An error for people: the words of one that we raise on purpose, else type, words and place."""
    text = said(error).strip()
    if isinstance(error, HermesError) and text:
        return text[:LONGEST_REASON]
    trace, place = error.__traceback__, ""
    while trace is not None:
        file = "/".join(trace.tb_frame.f_code.co_filename.rsplit("/", 2)[-2:])
        place = f" ({file}:{trace.tb_lineno})"
        trace = trace.tb_next
    return f"{type(error).__name__}{': ' if text else ''}{text}"[: LONGEST_REASON - len(place)] + place


def _kind_of(error: BaseException) -> Kind | None:
    """What an error means that says so by its class; None for all others."""
    match error:
        case PlatformRefused() | ConfigError():
            return "refused"
        case PlatformConflict():
            return "conflict"
        case RateLimited():
            return "limited"
        case PlatformError():
            return "unavailable"
        case StoreUnavailable():
            return "store"
        case OSError() if error.errno in _SHORTAGES:
            return "unavailable"
        case _:
            return None


def _longest_wait(kind: Kind, meant: list[tuple[Kind, BaseException]]) -> float | None:
    waits = [
        each.retry_after_s
        for found, each in meant
        if found == kind
        and isinstance(each, (PlatformUnavailable, PlatformConflict, RateLimited))
        and each.retry_after_s is not None
    ]
    return max(waits, key=sane_retry_after, default=None)


def _behind(error: BaseException) -> Iterator[tuple[BaseException, bool]]:
    """Everything behind an error, once each: leaves of groups, causes, contexts; and whether it was raised itself.

    Exceptions may refer to each other in circles, and be many; the walk is bounded.
    """
    seen: set[int] = set()
    waiting: deque[tuple[BaseException, bool]] = deque(
        [(error, True)]
    )  # those that were raised themselves on the right
    while waiting and len(seen) < MOST_LINKS:
        each, raised = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each, raised
        context = each.__context__
        if each.__suppress_context__ and each.__cause__ is None and isinstance(context, PlatformError):
            context = None  # replaced on purpose
        waiting.extendleft((other, False) for other in (each.__cause__, context) if other is not None)
        if isinstance(each, BaseExceptionGroup):
            (waiting.extend if raised else waiting.extendleft)((other, raised) for other in reversed(each.exceptions))
