"""How this suite runs: async tests on trio, each under a wall-clock guard, loopback only, time virtual or by events."""

from __future__ import annotations

import faulthandler
import inspect
import signal
from collections.abc import Iterator
from typing import Any

import pytest
import trio

DEFAULT_GUARD_S = 30.0


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
