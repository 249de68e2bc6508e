"""Statistics, slow steps, the tree of lifetimes, progress, the service manager: what an operator is shown is true."""

from __future__ import annotations

import json
import logging
import math
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from hermes.observe.notify import Notifier, open_notifier
from hermes.observe.scopes import scope_lines, scope_text, scope_tree
from hermes.observe.statistics import MOST_LABEL_SETS, Metrics
from hermes.observe.steps import watch_steps
from hermes.testing import advance, frozen_clock

# --- statistics ------------------------------------------------------------------------------------------------------


def test_the_text_format() -> None:
    metrics = Metrics()
    turns = metrics.counter("hermes_turns_total", "Turns\nthat ended.", "state")
    turns.of("done").add(3)
    turns.of('fa"il\\ed\n').add()
    metrics.gauge("hermes_live", "Live sessions.").of().set(2.5)
    seconds = metrics.histogram("hermes_turn_seconds", "Turns.", "source", bounds=(0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 7.0):
        seconds.of("chat").observe(value)
    metrics.reading("hermes_paths_seconds", "Since.", lambda: {"a": 1.0, "b": math.inf}, label="path")
    metrics.reading("hermes_tasks", "Tasks.", lambda: 5)
    assert metrics.render() == (
        "# HELP hermes_live Live sessions.\n# TYPE hermes_live gauge\nhermes_live 2.5\n"
        "# HELP hermes_paths_seconds Since.\n# TYPE hermes_paths_seconds gauge\n"
        'hermes_paths_seconds{path="a"} 1\nhermes_paths_seconds{path="b"} +Inf\n'
        "# HELP hermes_tasks Tasks.\n# TYPE hermes_tasks gauge\nhermes_tasks 5\n"
        "# HELP hermes_turn_seconds Turns.\n# TYPE hermes_turn_seconds histogram\n"
        'hermes_turn_seconds_bucket{source="chat",le="0.1"} 2\n'
        'hermes_turn_seconds_bucket{source="chat",le="1"} 3\n'
        'hermes_turn_seconds_bucket{source="chat",le="+Inf"} 4\n'
        'hermes_turn_seconds_sum{source="chat"} 7.65\nhermes_turn_seconds_count{source="chat"} 4\n'
        "# HELP hermes_turns_total Turns\\nthat ended.\n# TYPE hermes_turns_total counter\n"
        'hermes_turns_total{state="done"} 3\nhermes_turns_total{state="fa\\"il\\\\ed\\n"} 1\n'
    )


SAMPLE_LINE = re.compile(
    r'[a-z_]+(\{[a-z]+="(?:[^"\\\n]|\\["\\n])*"(,[a-z]+="(?:[^"\\\n]|\\["\\n])*")*\})? (?:[-+]?[0-9.e+-]+|\+Inf|-Inf|NaN)'
)


@given(st.lists(st.tuples(st.text(max_size=20), st.floats()), max_size=20))
def test_any_label_and_any_number_is_one_well_formed_line(children: list[tuple[str, float]]) -> None:
    metrics = Metrics()
    gauge = metrics.gauge("hermes_gauge", "Any.", "name")
    spread = metrics.histogram("hermes_spread", "Any.", "name")
    for label, number in children:
        gauge.of(label).set(number)
        spread.of(label).observe(number)
    text = metrics.render()
    text.encode()
    for line in text.removesuffix("\n").split("\n"):
        assert line.startswith("# ") or SAMPLE_LINE.fullmatch(line), line


def test_label_sets_are_bounded() -> None:
    metrics = Metrics()
    counter = metrics.counter("hermes_any_total", "Any.", "who")
    for number in range(MOST_LABEL_SETS * 3):
        counter.of(str(number)).add()
    assert counter.of("other").value == MOST_LABEL_SETS * 2
    assert metrics.render().count("\n") <= MOST_LABEL_SETS + 3


@pytest.mark.parametrize(
    "wrong",
    [
        lambda metrics: metrics.counter("hermes_turns", "No _total."),
        lambda metrics: metrics.gauge("9lives", "Not a name."),
        lambda metrics: metrics.gauge("hermes_x", "Not a label.", "a-b"),
        lambda metrics: metrics.gauge("hermes_taken", "Twice."),
        lambda metrics: metrics.histogram("hermes_h", "Falling.", bounds=(2.0, 1.0)),
        lambda metrics: metrics.histogram("hermes_h", "le is taken.", "le"),
        lambda metrics: metrics.gauge("hermes_x", "One label.", "a").of(),
    ],
)
def test_a_wrong_definition_is_refused(wrong) -> None:  # type: ignore[no-untyped-def]
    metrics = Metrics()
    metrics.gauge("hermes_taken", "Once.")
    with pytest.raises(ValueError, match=r"hermes_|9lives"):
        wrong(metrics)


# --- slow steps ------------------------------------------------------------------------------------------------------


class Clocks:
    """Clocks that a test moves: the time, and the thread's share of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall = self.cpu = 100.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.wall)
        monkeypatch.setattr(time, "thread_time", lambda: self.cpu)

    def work(self, cpu: float, waited: float = 0.0) -> None:
        self.wall += cpu + waited
        self.cpu += cpu


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    return Clocks(monkeypatch)


@pytest.fixture
def clock(clocks: Clocks) -> MockClock:
    return MockClock(autojump_threshold=0)


async def test_a_slow_step_is_named_and_a_stolen_processor_is_not(
    clocks: Clocks, caplog: pytest.LogCaptureFixture
) -> None:
    async def busy() -> None:
        clocks.work(0.2)
        await trio.lowlevel.checkpoint()

    async def robbed() -> None:
        clocks.work(0.001, waited=5.0)
        await trio.lowlevel.checkpoint()

    async def quick() -> None:
        for _ in range(100):
            clocks.work(0.01)
            await trio.lowlevel.checkpoint()

    with watch_steps(threshold_s=0.05) as seen:
        for each in (busy, robbed, quick):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(each, name=f"the {each.__name__} task")
    assert seen.slow == 1
    assert seen.longest_cpu_s == pytest.approx(0.2)
    assert seen.longest_wall_s == pytest.approx(5.001)
    assert seen.longest_task == "the busy task"
    slow = [message for message in caplog.messages if message.startswith("loop.slow_step")]
    assert len(slow) == 1
    assert "the busy task" in slow[0]
    assert "test_observe.py" in slow[0]


async def test_what_other_steps_of_the_same_round_took_is_not_charged_to_it(clocks: Clocks) -> None:
    async def small() -> None:
        clocks.work(0.04)

    async def robbed() -> None:
        clocks.work(0.001, waited=1.0)

    with watch_steps(threshold_s=0.05) as seen:
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(small)
            for _ in range(10):
                nursery.start_soon(robbed)
    assert seen.slow == 0
    assert seen.longest_cpu_s < 0.05


async def test_the_instrument_goes_with_its_block(clocks: Clocks) -> None:
    with watch_steps() as seen:
        pass
    clocks.work(1.0)
    await trio.lowlevel.checkpoint()
    assert seen.slow == 0


# --- the tree of lifetimes -------------------------------------------------------------------------------------------


async def test_the_tree_shows_tasks_nurseries_deadlines_and_places() -> None:
    async def waits_for_a_message() -> None:
        await trio.sleep_forever()

    with trio.CancelScope():
        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.deadline = trio.current_time() + 50
            nursery.start_soon(waits_for_a_message, name="session api:1")
            await trio.testing.wait_all_tasks_blocked()
            tree = scope_tree(stacks=True)
            text = scope_text(stacks=True)
            nursery.cancel_scope.cancel()
            cancelled = scope_tree()
    json.dumps(tree)
    session = found(tree, "session api:1")
    assert session is not None
    assert "test_observe.py" in session["waits"]
    assert session["waits"].endswith("waits_for_a_message")
    assert session["stack"][-1].endswith("wait_task_rescheduled") or "trio" in session["stack"][-1]
    assert tree["living"] == trio.lowlevel.current_statistics().tasks_living + 1
    deadlines = [each["expires_in_s"] for each in nurseries(tree) if each["expires_in_s"] is not None]
    assert deadlines == [pytest.approx(50, abs=5)]
    assert any(each["cancelled"] for each in nurseries(cancelled))
    assert re.search(
        r"nursery \([\d.]+ s left\)\n +session api:1  \[\S*test_observe.py:\d+ waits_for_a_message\]", text
    )
    assert "    | " in text


def found(tree: dict, name: str) -> dict | None:  # type: ignore[type-arg]
    if tree.get("name") == name:
        return tree
    for each in tree.get("nurseries", ()):
        for task in each["tasks"]:
            if hit := found(task, name):
                return hit
    return None


def nurseries(tree: dict) -> list[dict]:  # type: ignore[type-arg]
    here = list(tree.get("nurseries", ()))
    return here + [inner for each in here for task in each["tasks"] for inner in nurseries(task)]


async def test_the_tree_is_bounded_in_width_number_and_depth() -> None:
    async def deeper(levels: int) -> None:
        async with trio.open_nursery() as nursery:
            if levels:
                nursery.start_soon(deeper, levels - 1)
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        for _ in range(1500):
            nursery.start_soon(trio.sleep_forever, name="session")
        nursery.start_soon(deeper, 80, name="a deep one")
        await trio.testing.wait_all_tasks_blocked()
        tree = scope_tree()
        narrow = scope_tree(most_tasks=10)
        nursery.cancel_scope.cancel()
    wide = max(nurseries(tree), key=lambda each: len(each["tasks"]))
    assert len(wide["tasks"]) == 100
    assert wide["more"] == 1401
    assert tree["living"] > 1580
    assert len(json.dumps(tree)) < 100_000
    assert "and 1401 more" in "\n".join(scope_lines(tree))
    assert sum(len(each["tasks"]) for each in nurseries(narrow)) < 10


# --- the service manager ---------------------------------------------------------------------------------------------


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    abstract = request.param == "abstract"
    if abstract and not Path("/proc").exists():
        pytest.skip("abstract sockets are Linux's")
    address = f"@hermes-test-{tmp_path.name}-{time.monotonic_ns()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0" + address[1:] if abstract else address)
        listening.settimeout(10)
        yield address, listening


def test_states_reach_the_manager(manager: tuple[str, socket.socket]) -> None:
    address, listening = manager

    async def main() -> None:
        async with open_notifier(address) as notifier:
            notifier.ready("serving on\n127.0.0.1:8642")
            notifier.status("12 turns\nREADY=0")
            notifier.reloading()
            notifier.ready()
            notifier.stopping()

    trio.run(main)
    said = [listening.recv(4096).decode() for _ in range(5)]
    assert said[0] == "READY=1\nSTATUS=serving on 127.0.0.1:8642"
    assert said[1] == "STATUS=12 turns READY=0"
    assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+", said[2])
    assert said[3:] == ["READY=1", "STOPPING=1\nSTATUS=stopping"]


def test_the_watchdog_is_fed_by_progress_only(
    manager: tuple[str, socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    address, listening = manager
    listening.settimeout(0)
    clock = frozen_clock()
    healthy = [True]

    def heard() -> list[bytes]:
        datagrams = []
        while True:
            try:
                datagrams.append(listening.recv(4096))
            except BlockingIOError:
                return datagrams

    async def main() -> None:
        async with open_notifier(address, watchdog_s=20, healthy=lambda: healthy[0]):
            await advance(clock, 30.5)
            assert heard() == [b"WATCHDOG=1"] * 4
            healthy[0] = False
            await advance(clock, 100)
            assert heard() == []
            healthy[0] = True
            await advance(clock, 10)
            assert heard() == [b"WATCHDOG=1"]

    trio.run(main, clock=clock)
    assert [message.split()[0] for message in caplog.messages] == ["notify.silent"]


async def test_without_a_manager_nothing_happens_and_a_manager_that_is_gone_is_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_notifier(None, watchdog_s=1) as notifier:
        notifier.ready()
        assert notifier.send("READY=1") is False
    assert caplog.messages == []
    async with open_notifier(str(tmp_path / "nobody")) as notifier:
        notifier.ready()
    assert caplog.messages[0].startswith("notify.unreachable")
    path = str(tmp_path / "listens")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(path)
        async with open_notifier(path) as notifier:
            assert notifier.send("READY=1") is True
            listening.close()
            with caplog.at_level(logging.DEBUG):
                assert notifier.send("READY=1") is False


def test_a_full_queue_does_not_block(tmp_path: Path) -> None:
    path = str(tmp_path / "full")

    async def main() -> None:
        async with open_notifier(path) as notifier:
            results = [notifier.send("STATUS=" + "x" * 400) for _ in range(5000)]
            assert results[0] is True
            assert results[-1] is False

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(path)
        trio.run(main)
    assert Notifier(None).address is None
