"""What a task of asyncio sleeps on: a future that goes on with its task at once.

An ordinary future asks the loop to run its task in the next round, which costs one more look at all descriptors, a
system call included. A :class:`Sleeper` is woken by a callback of the loop itself, where no task is running, so it can
run the step of its task right there. To the task it is a future like another one: tasks wait for whatever has the
attribute ``_asyncio_future_blocking``, by which asyncio knows the futures of other libraries.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Generator
from typing import Any

__all__ = ["Sleeper"]


class Sleeper:
    """A sleep of one task, which is awaited once.

    Args:
        loop: The loop of the task.
    """

    __slots__ = ("_asyncio_future_blocking", "_callback", "_cancelled", "_context", "_done", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._asyncio_future_blocking = False
        self._loop = loop
        self._callback: Callable[[Any], object] | None = None
        self._context: contextvars.Context | None = None
        self._done = False
        self._cancelled: tuple[Any, ...] | None = None

    def __await__(self) -> Generator[Any, None, None]:
        if not self._done:
            self._asyncio_future_blocking = True
            yield self
        self.result()

    def wake(self) -> None:
        """Ends the sleep and runs the task until it waits again. Only for callbacks of the loop."""
        if self._done:
            return
        self._done = True
        callback, self._callback = self._callback, None
        if callback is not None and self._context is not None:
            self._context.run(callback, self)

    def wake_soon(self) -> None:
        """Ends the sleep; the loop runs the task in its next round. For what is called by a task."""
        if self._done:
            return
        self._done = True
        callback, self._callback = self._callback, None
        if callback is not None:
            self._loop.call_soon(callback, self, context=self._context)

    # ---- what a task asks of a future

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The loop of the task."""
        return self._loop

    def done(self) -> bool:
        """Whether the sleep has ended."""
        return self._done

    def cancelled(self) -> bool:
        """Whether the task was cancelled in its sleep."""
        return self._cancelled is not None

    def cancel(self, msg: Any = None) -> bool:
        """Ends the sleep of a task that is cancelled; False if it has ended already."""
        if self._done:
            return False
        self._cancelled = () if msg is None else (msg,)
        self.wake_soon()
        return True

    def result(self) -> None:
        """Nothing.

        Raises:
            asyncio.CancelledError: The task was cancelled in its sleep.
        """
        if self._cancelled is not None:
            raise asyncio.CancelledError(*self._cancelled)

    def add_done_callback(
        self, callback: Callable[[Any], object], *, context: contextvars.Context | None = None
    ) -> None:
        """Keeps how the task goes on; there is one."""
        self._callback = callback
        self._context = contextvars.copy_context() if context is None else context

    def remove_done_callback(self, callback: Callable[[Any], object]) -> int:
        """Forgets how the task goes on; how many ways were forgotten."""
        if self._callback != callback:
            return 0
        self._callback = None
        return 1
