"""What is begun later: at its time, in order, unless it is forgotten before; and nothing is kept of what was forgotten."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from hermes.delivery.later import Later


@pytest.fixture
def clock() -> trio.testing.MockClock:
    return trio.testing.MockClock(autojump_threshold=0)


async def test_each_begins_at_its_time_and_what_is_forgotten_never(
    clock: trio.testing.MockClock,
) -> None:
    later, begun = Later(), list[tuple[str, float]]()

    def begins(name: str) -> None:
        begun.append((name, trio.current_time()))

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(later.run)
        later.at(began + 3, lambda: begins("late"))
        late = later.at(began + 1, lambda: begins("never"))
        await trio.sleep(0.5)
        soon = later.at(began + 0.7, lambda: begins("soon"))  # earlier than what is waited for
        assert later.forget(late)
        later.at(began, lambda: begins("now"))
        await trio.sleep(5)
        assert not later.forget(soon)
        later.at(began + 6, lambda: begins("again"))  # after a time with nothing to wait for
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    assert begun == [("now", began + 0.5), ("soon", began + 0.7), ("late", began + 3), ("again", began + 6)]


async def test_what_was_forgotten_is_not_kept() -> None:
    later = Later()
    for _ in range(1000):
        later.forget(later.at(trio.current_time() + 3600, lambda: None))
    assert len(later._due) < 100
    kept = [later.at(trio.current_time() + 3600, lambda: None) for _ in range(300)]
    assert all(later.forget(number) for number in kept)


async def test_nothing_wakes_up_for_what_was_forgotten(clock: trio.testing.MockClock) -> None:
    class Steps(trio.abc.Instrument):
        count = 0

        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            self.count += "run" in task.name

    later, steps = Later(), Steps()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(later.run)
        await trio.testing.wait_all_tasks_blocked()
        trio.lowlevel.add_instrument(steps)
        numbers = [later.at(trio.current_time() + after, lambda: None) for after in (1.0, 0.3)]
        assert [later.forget(number) for number in numbers] == [True, True]
        await trio.sleep(5)
        trio.lowlevel.remove_instrument(steps)
        assert steps.count == 0
        nursery.cancel_scope.cancel()
