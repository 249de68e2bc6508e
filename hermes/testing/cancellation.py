"""End a scenario at each of its steps and look at what it leaves: exhaustive testing of cancellation.

A scenario is run to its end to count the steps of its task tree, then once for each step with an ending injected right
after that step, so that each state in which a task can be suspended is ended once.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import trio

from hermes.testing.census import LeakCensus, living_tasks, settle
from hermes.testing.injection import (
    Ending,
    HangReporter,
    InjectedError,
    StepInjector,
    collected_complaints,
    collector_kept_quick,
    deterministic_scheduling,
    forget_for_collector,
)

Way = Literal["cancel", "deadline", "sibling"] | Ending
Scenario = Callable[[], Awaitable[Any]]
Check = Callable[[], Awaitable[Any] | None]

SHOWN_FINDINGS = 12
NUMBERS = re.compile(
    r"\b((?:fd|r?addr|laddr|pid)=)[^,>)]*\)?"
)  # what differs from run to run in one and the same finding
MISSES_IN_A_ROW = 3  # runs that ended before the step: with real sockets the number of steps varies a little


@dataclass(frozen=True, slots=True)
class Report:
    """What was done.

    Args:
        scenario: its name.
        steps: the steps of the run that nothing ended; the largest of all seeds.
        runs: how often the scenario was ended by an injection.
        ways: the names of the ways.
    """

    scenario: str
    steps: int
    runs: int
    ways: tuple[str, ...]


@dataclass(slots=True)
class _Search:
    """The state of one search: the arguments that do not change, and what was found."""

    scenario: Scenario
    check: Check | None
    settle_s: float
    spare_sockets: int
    tolerate: tuple[type[BaseException], ...]
    hangs: HangReporter
    baseline: LeakCensus
    runs: int = 0
    findings: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def note(self, label: str, place: str, problems: list[str]) -> None:
        for problem in {NUMBERS.sub(r"\1…", problem) for problem in problems}:
            self.findings.setdefault((place, problem), []).append(label)


def _name(way: Way) -> str:
    return way if isinstance(way, str) else way.name


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


async def _run(search: _Search, label: str, at: int | None, way: Way) -> tuple[StepInjector, BaseException | None]:
    """One run of the scenario in a task of its own, ended after step `at` (0 = before the first)."""
    scope, raise_now = trio.CancelScope(), trio.Event()

    def act() -> None:
        if way == "cancel":
            scope.cancel("injected")
        elif way == "deadline":
            scope.deadline = -math.inf
        elif isinstance(way, Ending):
            way.act()
        else:
            raise_now.set()

    injector = StepInjector(at, act)
    failure: BaseException | None = None

    async def sibling() -> None:
        await raise_now.wait()
        raise InjectedError

    async def run() -> None:
        nonlocal failure
        injector.adopt(trio.lowlevel.current_task())
        try:
            with scope:
                if at == 0:
                    act()
                await search.scenario()
        except Exception as error:  # noqa: BLE001  # whatever the scenario raises is the finding
            failure = error
        beside.cancel_scope.cancel()

    search.hangs.begin(label, injector)
    trio.lowlevel.add_instrument(injector)
    try:
        async with trio.open_nursery() as beside:
            if way == "sibling":
                beside.start_soon(sibling)
            beside.start_soon(run, name="the scenario's task")
    except* InjectedError:
        pass
    finally:
        trio.lowlevel.remove_instrument(injector)
    return injector, failure


async def _judge(search: _Search, label: str, at: int | None, way: Way) -> int:
    """Run once, note everything that is wrong afterwards; the number of steps the run made."""
    with collected_complaints() as complaints:
        injector, failure = await _run(search, label, at, way)
        problems: list[str] = []
        tolerated = search.tolerate + (way.tolerate if isinstance(way, Ending) else ())
        if failure is not None:
            problems += [f"raised {leaf!r}"[:400] for leaf in _leaves(failure) if not isinstance(leaf, tolerated)]
        del failure  # its traceback holds the frames, and with them what a leak would hide behind
        left = await settle(lambda: _growth(search), search.settle_s)
        if left:
            problems += _with_task_names(left)
            search.baseline = _look()
        if search.check is not None:
            problems += await _checked(search.check)
    place = injector.place or ("before its first step" if at == 0 else "its own end")
    search.note(label, place, problems + complaints.lines)
    return injector.steps


def _look() -> LeakCensus:
    """A census cheap enough for every step: tasks are only counted, and the kernel's socket table is not read."""
    census = LeakCensus.take(tasks=False, tcp=False)
    living = trio.lowlevel.current_statistics().tasks_living
    return LeakCensus(census.descriptors, census.threads, ("a task",) * living, census.children, census.tcp)


def _growth(search: _Search) -> list[str]:
    return _look().growth_since(search.baseline, spare_sockets=search.spare_sockets)


def _with_task_names(left: list[str]) -> list[str]:
    others = [line for line in left if line != "task: a task"]
    tasks = len(left) - len(others)
    return others + ([f"{tasks} task(s) too many; all living: {', '.join(living_tasks())}"] if tasks else [])


async def _checked(check: Check) -> list[str]:
    try:
        result = check()
        if inspect.isawaitable(result):
            await result
    except Exception as error:  # noqa: BLE001  # a failed check is the finding
        return [f"the survivor does not work: {error!r}"[:400]]
    return []


async def cancel_at_every_step(
    scenario: Scenario,
    *,
    check: Check | None = None,
    ways: Sequence[Way] = ("cancel",),
    stride: int = 1,
    limit: int = 5000,
    seeds: Sequence[int | None] = (0,),
    settle_s: float = 1.0,
    spare_sockets: int = 0,
    tolerate: tuple[type[BaseException], ...] = (),
    hung_after_s: float = 8.0,
) -> Report:
    """End a scenario at each of its steps, in each way, and assert that it leaves nothing.

    After each run there must be no task, descriptor, thread or child process more than before, no ResourceWarning, no
    error in a finaliser or a thread, and no error other than the ending that was injected; then `check` runs. Steps are
    counted in the task that runs the scenario and in the nurseries below it; tasks elsewhere (a server that the
    scenario talks to) are not counted, but they too must be gone afterwards.

    Args:
        scenario: opens, uses and closes; it is called again for each run and must end by itself.
        check: whether what lives outside the scenario still works; raises if not. It runs after each run.
        ways: `cancel` (a scope is cancelled), `deadline` (its deadline passes), `sibling` (a task beside it raises), or
            an `Ending` of your own.
        stride: try every n-th step only (>= 1); a seed shifts where it begins.
        limit: runs per way and seed at most (>= 1); the stride grows until they fit.
        seeds: orders of the scheduler to try; None is trio's own random order.
        settle_s: real seconds that what is ending may take after each run.
        spare_sockets: sockets more that a pool outside the scenario may keep.
        tolerate: errors that the scenario may raise when it is ended.
        hung_after_s: real seconds after which a run that does not end is described on stderr.

    Returns:
        how many steps there were and how many runs were made.

    Raises:
        AssertionError: what was left, by the place where the ending was injected.
        ValueError: `stride` or `limit` below 1.
    """
    if stride < 1 or limit < 1:
        raise ValueError("stride and limit are at least 1")
    name = getattr(scenario, "__qualname__", repr(scenario))
    most = 0
    with collector_kept_quick(), HangReporter(hung_after_s) as hangs:
        search = _Search(scenario, check, settle_s, spare_sockets, tolerate, hangs, _look())
        for seed in seeds:
            with deterministic_scheduling(seed):
                await _run(search, f"{name}, first run", None, "cancel")  # warms caches, imports, pools
                await settle(lambda: _growth(search), settle_s)
                search.baseline = _look()
                forget_for_collector()
            with deterministic_scheduling(seed):
                steps = await _judge(search, f"{name}, not ended", None, "cancel")
            most = max(most, steps)
            for way in ways:
                await _search_way(search, way, seed, max(stride, math.ceil((steps + 1) / limit)), limit)
    if search.findings:
        raise AssertionError(_told(name, search, most))
    return Report(name, most, search.runs, tuple(map(_name, ways)))


async def _search_way(search: _Search, way: Way, seed: int | None, stride: int, limit: int) -> None:
    at, misses = (seed or 0) % stride, 0
    for _ in range(limit + MISSES_IN_A_ROW):
        label = f"step {at} by {_name(way)}" + (f", seed {seed}" if seed else "")
        with deterministic_scheduling(seed):
            steps = await _judge(search, label, at, way)
        misses = misses + 1 if steps < at else 0
        if misses == MISSES_IN_A_ROW:
            return
        search.runs += not misses
        at += stride


def _told(name: str, search: _Search, steps: int) -> str:
    lines = [f"{name}: {steps} steps, {search.runs} runs, {len(search.findings)} different findings"]
    for (place, problem), labels in list(search.findings.items())[:SHOWN_FINDINGS]:
        more = f" (and {len(labels) - 1} more)" if len(labels) > 1 else ""
        lines.append(f"  {labels[0]}{more}\n    at {place}\n    {problem}")
    if len(search.findings) > SHOWN_FINDINGS:
        lines.append(f"  and {len(search.findings) - SHOWN_FINDINGS} findings more")
    return "\n".join(lines)
