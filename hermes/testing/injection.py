"""How one run of a scenario is ended at a chosen step, and what is watched while it runs."""

from __future__ import annotations

import contextlib
import gc
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import trio
from trio._core import _run as trio_run


@dataclass(frozen=True, slots=True)
class Ending:
    """A way of its own to end a scenario, beside `cancel`, `deadline` and `sibling`.

    Args:
        name: how the report calls it, such as `soft stop` or `peer closes`.
        act: a plain function that starts the end; it runs inside trio's loop between two task steps, must not raise,
            and finds what it acts on in something that the scenario filled.
        tolerate: errors that the scenario may end with because of it.
    """

    name: str
    act: Callable[[], None]
    tolerate: tuple[type[BaseException], ...] = ()


class InjectedError(Exception):
    """What the sibling task raises when the way is `sibling`."""


class StepInjector(trio.abc.Instrument):
    """Counts the steps of a task and of everything spawned below it, and acts once, after a chosen step.

    Args:
        at: the step to act after, counted from 1; None only counts.
        act: what to do then.
    """

    def __init__(self, at: int | None, act: Callable[[], None]) -> None:
        self.at = at
        self.steps = 0
        self.place = ""
        self.tasks: set[trio.lowlevel.Task] = set()
        self._act = act

    def adopt(self, task: trio.lowlevel.Task) -> None:
        """Count this task from now on, and the tasks in its nurseries."""
        self.tasks.add(task)

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        """A child of a counted task is counted, whoever started it."""
        if task.parent_nursery is not None and task.parent_nursery.parent_task in self.tasks:
            self.tasks.add(task)

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        """Forget it."""
        self.tasks.discard(task)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """One step was made. The last step of a task is seen after its exit and not counted: nothing is left to end."""
        if task in self.tasks:
            self.steps += 1
            if self.steps == self.at:
                self.place = place_of(task)
                self._act()


def place_of(task: trio.lowlevel.Task, frames: int = 3) -> str:
    """Where a task waits: its name, its innermost frames outside trio, and what of trio it waits in, innermost last."""
    outside: list[str] = []
    inside = ""
    for frame, line in task.iter_await_frames():
        module = frame.f_globals.get("__name__", "")
        if module == "hermes.testing.cancellation":
            continue
        if module.startswith("trio."):
            inside = inside or f" > trio's {frame.f_code.co_qualname}"
        else:
            outside.append(f"{frame.f_code.co_qualname} ({_short(frame.f_code.co_filename)}:{line})")
            inside = ""
    return f"{task.name}: {' > '.join(outside[-frames:])}{inside}".removesuffix(": ")


def _short(path: str) -> str:
    return "/".join(path.split("/")[-2:])


@contextmanager
def deterministic_scheduling(seed: int | None) -> Iterator[None]:
    """Make trio choose the order of ready tasks from `seed`; None leaves its own random choice.

    trio has no public switch for this; the private one is used here and nowhere else.
    """
    if seed is None:
        yield
        return
    state, allowed = trio_run._r.getstate(), trio_run._ALLOW_DETERMINISTIC_SCHEDULING
    trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]  # trio marks it Final; its own pytest plugins set it
    trio_run._r.seed(seed)
    try:
        yield
    finally:
        trio_run._ALLOW_DETERMINISTIC_SCHEDULING = allowed  # type: ignore[misc]
        trio_run._r.setstate(state)


@dataclass(slots=True)
class Complaints:
    """What Python complained about outside the flow of exceptions."""

    lines: list[str] = field(default_factory=list)


@contextmanager
def collected_complaints() -> Iterator[Complaints]:
    """Collect ResourceWarnings, errors in finalisers and errors that ended a thread, instead of showing them.

    The collector runs at the end of the block, so that a complaint belongs to the run that made it.
    """
    complaints = Complaints()

    def unraisable(about: Any) -> None:
        complaints.lines.append(f"error in a finaliser: {about.exc_value!r} in {about.object!r}"[:300])

    def thread_died(about: Any) -> None:
        complaints.lines.append(f"thread {getattr(about.thread, 'name', '?')} died: {about.exc_value!r}"[:300])

    hooks = sys.unraisablehook, threading.excepthook
    sys.unraisablehook, threading.excepthook = unraisable, thread_died
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always", ResourceWarning)
            yield complaints
            gc.collect()
        for item in seen:
            if issubclass(item.category, ResourceWarning):
                complaints.lines.append(f"{item.category.__name__}: {item.message}"[:300])
            else:
                warnings.warn_explicit(item.message, item.category, item.filename, item.lineno)
    finally:
        sys.unraisablehook, threading.excepthook = hooks


@contextmanager
def collector_kept_quick() -> Iterator[None]:
    """Inside it `forget_for_collector()` may be called, so that the collector can afford to run after every step."""
    try:
        yield
    finally:
        gc.unfreeze()


def forget_for_collector() -> None:
    """Let the collector look only at objects made from here on: what was imported need not be walked each time."""
    gc.collect()
    gc.freeze()


class HangReporter(contextlib.AbstractContextManager["HangReporter"]):
    """A thread that says on stderr where a run waits that does not end; the test's own guard ends it.

    Args:
        limit_s: real seconds after which a run is called hung; it is said once, at the latest after twice that time.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._over = threading.Event()
        self._runs = 0
        self._label = ""
        self._injector: StepInjector | None = None
        self._token = trio.lowlevel.current_trio_token()
        self._thread = threading.Thread(target=self._watch, name="hang reporter", daemon=True)

    def __enter__(self) -> HangReporter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def begin(self, label: str, injector: StepInjector) -> None:
        """A run begins."""
        self._runs += 1
        self._label, self._injector = label, injector

    def _watch(self) -> None:
        last = said = 0
        while not self._over.wait(self._limit_s):
            if self._runs == last != said:
                said = last
                with contextlib.suppress(trio.RunFinishedError):
                    self._token.run_sync_soon(self._say, self._runs)
            last = self._runs

    def _say(self, run: int) -> None:
        if run == self._runs and self._injector is not None:
            where = "\n  ".join(map(place_of, self._injector.tasks))
            sys.stderr.write(f"{self._label}: this run does not end; its tasks wait at\n  {where}\n")
