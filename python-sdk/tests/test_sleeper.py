"""What a task sleeps on: it is woken at once from the loop, cancelled like any other, and keeps its context."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from mycelium._sleeper import Sleeper

TASKS = [asyncio.Task, asyncio.tasks._PyTask]  # type: ignore[attr-defined]  # the one in Python, where C is missing


def sleeping(
    scenario: Callable[[Sleeper, asyncio.Task[list[str]], list[str]], Awaitable[None]], task_class: type[Any]
) -> tuple[asyncio.Task[list[str]], list[str]]:
    """Runs a scenario with a task that is asleep; returns the task and what was noted."""
    notes: list[str] = []

    async def main() -> asyncio.Task[list[str]]:
        loop = asyncio.get_running_loop()
        sleeper = Sleeper(loop)

        async def sleep() -> list[str]:
            notes.append("asleep")
            try:
                await sleeper
            except asyncio.CancelledError as error:
                notes.append(f"cancelled {error.args}")
                raise
            notes.append("awake")
            return notes

        task: asyncio.Task[list[str]] = task_class(sleep(), loop=loop)
        await asyncio.sleep(0)
        assert notes == ["asleep"]
        await scenario(sleeper, task, notes)
        await asyncio.wait([task])
        return task

    return asyncio.run(main()), notes


@pytest.mark.parametrize("task_class", TASKS)
def test_a_callback_of_the_loop_goes_on_with_the_task_before_it_returns(task_class: type[Any]) -> None:
    async def scenario(sleeper: Sleeper, task: asyncio.Task[list[str]], notes: list[str]) -> None:
        def callback() -> None:
            sleeper.wake()
            notes.append("callback is done")
            sleeper.wake()

        asyncio.get_running_loop().call_soon(callback)

    task, notes = sleeping(scenario, task_class)
    assert task.result() == notes == ["asleep", "awake", "callback is done"]


@pytest.mark.parametrize("task_class", TASKS)
def test_another_task_wakes_it_in_the_next_round(task_class: type[Any]) -> None:
    async def scenario(sleeper: Sleeper, task: asyncio.Task[list[str]], notes: list[str]) -> None:
        sleeper.wake_soon()
        sleeper.wake_soon()
        notes.append("other task goes on")

    _, notes = sleeping(scenario, task_class)
    assert notes == ["asleep", "other task goes on", "awake"]


@pytest.mark.parametrize("task_class", TASKS)
def test_cancelling_the_task_ends_its_sleep(task_class: type[Any]) -> None:
    async def scenario(sleeper: Sleeper, task: asyncio.Task[list[str]], notes: list[str]) -> None:
        assert task.cancel("enough")
        assert sleeper.done()
        assert sleeper.cancelled()
        sleeper.wake()  # The doorbell rings all the same: that is nothing to this task any more.

    task, notes = sleeping(scenario, task_class)
    assert task.cancelled()
    assert notes == ["asleep", "cancelled ('enough',)"]


def test_a_cancel_after_the_end_of_the_sleep_is_the_tasks_own() -> None:
    async def main() -> None:
        sleeper = Sleeper(asyncio.get_running_loop())
        sleeper.wake()
        assert not sleeper.cancel()
        await sleeper  # does not suspend
        assert not sleeper.cancelled()

    asyncio.run(main())


def test_the_task_keeps_its_context() -> None:
    variable = contextvars.ContextVar("variable", default="the loop's")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        sleeper = Sleeper(loop)

        async def sleep() -> str:
            variable.set("the task's")
            await sleeper
            return variable.get()

        task = asyncio.create_task(sleep())
        await asyncio.sleep(0)
        loop.call_soon(sleeper.wake)
        assert await task == "the task's"
        assert variable.get() == "the loop's"

    asyncio.run(main())


def test_wait_for_gives_up_and_leaves_nothing_behind() -> None:
    async def main() -> None:
        sleeper = Sleeper(asyncio.get_running_loop())

        async def sleep() -> None:
            await sleeper

        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(sleep(), 0.001)
        assert sleeper.cancelled()
        assert sleeper.remove_done_callback(print) == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
