"""Clause 8: the same input is the same events, always, and input that is like nothing known does no harm."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from hermes.errors import HermesError
from hermes.events import InboundEvent
from hermes.inbound import BadEvent, check_event
from hermes.testing.clauses.subject import Breach, Subject

IMPURE = frozenset(
    (
        "time",
        "posix",
        "_io",
        "io",
        "_socket",
        "select",
        "_random",
        "random",
        "_thread",
        "_ssl",
        "_sqlite3",
        "_posixsubprocess",
    )
)
IMPURE_METHODS = ("datetime.now", "datetime.utcnow", "datetime.today", "date.today")
PURE = frozenset(("gmtime", "strftime", "fspath"))  # of those modules
IN_MEMORY = ("StringIO", "BytesIO")
ALLOWED = (
    "logging",
    "hermes.observe",
    "importlib",
)  # to say what was odd, and to load a module or a codec at its first use
STRANGE: tuple[Any, ...] = (None, True, -1, 10**30, 1.5, "", "\ud800", "x" * 5000, [], {}, [[]])
MOST_CHANGES = 400  # of one sample
MOST_CUTS = 50


def pure_translation(subject: Subject) -> None:
    """Clause 8."""
    if not subject.samples:
        raise Breach("there is no sample: record what the service sends, and give it to the kit")
    first = {name: _translated(subject, name, sample) for name, sample in subject.samples.items()}
    second = {name: _translated(subject, name, subject.samples[name]) for name in reversed(first)}
    for name, events in first.items():
        if events != second[name]:
            raise Breach(
                f"the sample {name} was translated twice, and differently: {events!r:.300} and {second[name]!r:.300}"
            )
        for event in events:
            try:
                check_event(event, event.address.account)
            except BadEvent as error:
                raise Breach(f"the sample {name} became an event that cannot be kept: {error}") from None
    if not any(first.values()):
        raise Breach("no sample is an event")
    for name, sample in subject.samples.items():
        for changed in strange_versions(sample):
            try:
                subject.translate(changed)
            except HermesError:
                continue
            except Exception as error:
                what = f"something like the sample {name} raised {error!r:.200}"
                raise Breach(f"{what}; only errors of hermes.errors may come out: {changed[:300]!r}") from error


def _translated(subject: Subject, name: str, sample: bytes) -> Sequence[InboundEvent]:
    calls: list[str] = []
    try:
        with _watched(calls.append):
            events = tuple(subject.translate(sample))
    except Exception as error:
        raise Breach(f"the recorded sample {name} raised {error!r:.300}") from error
    if calls:
        raise Breach(f"to translate the sample {name}, {calls[0]} was called: that depends on more than the sample")
    return events


@contextmanager
def _watched(note: Callable[[str], None]) -> Iterator[None]:
    """Note each call of something that looks at the world: files, sockets, clocks, dice."""

    def look(frame: FrameType, event: str, called: Any) -> None:
        if event != "c_call" or _is_allowed(frame):
            return
        owner = getattr(called, "__self__", None)
        module = getattr(called, "__module__", None) or type(owner).__module__
        if called.__name__ in PURE or type(owner).__name__ in IN_MEMORY:
            return
        if module in IMPURE or getattr(called, "__qualname__", "") in IMPURE_METHODS:
            note(f"{module}.{getattr(called, '__qualname__', called)}")

    before, collects = sys.getprofile(), gc.isenabled()
    gc.disable()  # a finaliser of somebody else's would be taken for the translation's
    sys.setprofile(look)
    try:
        yield
    finally:
        sys.setprofile(before)
        if collects:
            gc.enable()


def _is_allowed(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith(ALLOWED):
            return True
        frame = frame.f_back
    return False


def strange_versions(sample: bytes) -> Iterator[bytes]:
    """Input that is almost a sample: cut off, and if it is JSON with each of its values replaced or taken away."""
    for cut in range(0, len(sample), max(1, len(sample) // MOST_CUTS)):
        yield sample[:cut]
    yield b"\xff\xfe" + sample
    yield b"[" * 5000
    try:
        tree = json.loads(sample)
    except ValueError:
        return
    changes = [(path, strange) for path in _paths(tree) for strange in STRANGE]
    for path, strange in changes[:: max(1, len(changes) // MOST_CHANGES)]:
        yield json.dumps(_with(tree, path, strange)).encode()
    for path in _paths(tree):
        if path:
            yield json.dumps(_without(tree, path)).encode()


Path = tuple[str | int, ...]


def _paths(tree: Any, here: Path = ()) -> list[Path]:
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [here, *(path for key, child in children for path in _paths(child, (*here, key)))]


def _with(tree: Any, path: Path, value: Any) -> Any:
    if not path:
        return value
    copy = tree.copy()
    copy[path[0]] = _with(tree[path[0]], path[1:], value)
    return copy


def _without(tree: Any, path: Path) -> Any:
    copy = tree.copy()
    if len(path) == 1:
        del copy[path[0]]
    else:
        copy[path[0]] = _without(tree[path[0]], path[1:])
    return copy
