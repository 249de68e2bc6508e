"""How this suite runs: async tests on trio, each under a wall-clock guard, loopback only, time virtual or by events."""

from __future__ import annotations

import faulthandler
import gc
import inspect
import json
import os
import random
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import trio

DEFAULT_GUARD_S = 30.0
MANY_OBJECTS = 100_000  # that the collector walks
FULL = os.environ.get("HERMES_FULL") == "1"
SEED = int(os.environ.get("HERMES_TEST_SEED") or random.SystemRandom().randrange(2**31))
os.environ["HERMES_TEST_SEED"] = str(SEED)  # the workers that this process starts choose alike

# A busy machine must not fail a property: no deadline for an example, no complaint about slow ones.
hypothesis.settings.register_profile(
    "hermes",
    deadline=None,
    print_blob=True,
    max_examples=1000 if FULL else 100,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("hermes")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """One seed for everything that is random, hypothesis included."""
    if config.getoption("hypothesis_seed", None) is None:
        config.option.hypothesis_seed = str(SEED)


def pytest_report_header() -> str:
    """How to run the same again."""
    return f"HERMES_TEST_SEED={SEED}" + (" HERMES_FULL=1" if FULL else "")


@pytest.fixture(scope="session")
def seed() -> int:
    """The seed of this run, for suites that choose at random; `.ci/run` prints it."""
    return SEED


@pytest.fixture(scope="session")
def full() -> bool:
    """Whether the whole matrix is wanted (`.ci/full`) and not its share of `.ci/run`."""
    return FULL


# What depends on who else uses the machine, by the unit in a figure's name.
QUIET_UNIT = re.compile(r"(^|_)(s|ms|us|mb)$|(^|_)per_s(_|$)")


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Keep a figure for `docs/reference/proof.md`: `record(table, row, name=value, ...)`; `.ci/full` collects them.

    A table is a heading, a row its first column; figures are numbers with their unit in the name, or short texts. One with a unit
    of time or of memory is taken only from a test that is marked `measured`: `.ci/full` runs those alone. Each process has a file of
    its own; the place of the test goes with each line, so that the page has one order however many processes there were.
    """
    path, line, _ = request.node.location
    at = [path, line, request.node.name]

    def keep(table: str, row: str, /, **figures: float | str) -> None:
        if request.node.get_closest_marker("measured") is None:
            assert not [name for name in figures if QUIET_UNIT.search(name)], (
                "measured beside other tests: mark it `measured`"
            )
        place = os.environ.get("HERMES_RECORDS")
        if place is not None:
            kept = json.dumps({"at": at, "table": table, "row": row, "figures": figures})
            with (Path(place) / f"{os.getpid()}.jsonl").open("a", encoding="utf-8") as records:
                records.write(kept + "\n")

    return keep


class TestOverran(BaseException):
    """A test ran longer than its wall-clock guard; not an Exception, so that no code under test can swallow it."""

    __test__ = False


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run `async def` tests with trio; a fixture named `clock` is the clock they run on."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in names}

    async def main() -> None:
        await pyfuncitem.obj(**arguments)

    trio.run(main, clock=arguments.get("clock"))
    return True


@pytest.fixture(autouse=True)
def collector_spared() -> None:
    """Before a test nothing is garbage and all that lives is set aside, so that a collection walks what the test made and no more.

    What was imported and collected here is half a million objects; walking them takes a third of a second, and every census of leaks
    begins with a collection. Once they are set aside it is done again only when something has given them back.
    """
    if len(gc.get_objects(generation=2)) > MANY_OBJECTS:
        gc.collect()
        gc.freeze()


@pytest.fixture(autouse=True)
def wall_clock_guard(request: pytest.FixtureRequest) -> Iterator[None]:
    """End a test that hangs by wall time, whatever its virtual clock says; the stacks go to stderr."""
    marker = request.node.get_closest_marker("wall_clock_s")
    seconds: float = marker.args[0] if marker else DEFAULT_GUARD_S

    def overran(*_: Any) -> None:
        faulthandler.dump_traceback()
        raise TestOverran(f"{request.node.nodeid} ran longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, overran)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
