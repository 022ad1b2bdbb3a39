"""A worker in an event loop."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import aio
from .exceptions import ChannelClosed

if TYPE_CHECKING:
    from ._timers import Timer
    from ._worker import Worker

__all__ = ["run"]


def run(worker: Worker, address: str | None, options: dict[str, Any]) -> None:
    """Connects and works until the bridge shuts down, or the worker is stopped."""
    asyncio.run(_run(worker, address, options))


async def _run(worker: Worker, address: str | None, options: dict[str, Any]) -> None:
    async with aio.connect(address, **options) as channel:
        try:
            worker._connected(channel)
            await _serve(worker, channel)
        finally:
            worker._channel = None


async def _serve(worker: Worker, channel: aio.AsyncChannel) -> None:
    for publisher in worker._publishers:
        publisher._bind_async(await channel.publisher(publisher.contract))
    for function in worker._starts:
        await _call(worker, function)
    if worker.statistics().state == "new":
        worker.health("running")
    for delivery, contracts in worker._subscriptions():
        await channel.subscribe(*contracts, delivery=delivery)
    if not worker._stopping:
        try:
            await _Loop(worker, channel).run()
        except asyncio.CancelledError:  # Ctrl-C
            await _end(worker, channel)
            raise
    await _end(worker, channel)


async def _end(worker: Worker, channel: aio.AsyncChannel) -> None:
    worker.health("draining")
    for function in worker._shutdowns:
        await _call(worker, function, channel._seconds_left())


async def _call(worker: Worker, function: Callable[..., Any], *arguments: Any, on_error: str = "exit") -> None:
    try:
        result = function(*arguments)
        if inspect.isawaitable(result):
            await result
    except Exception as error:
        worker._on_exception(error, function, on_error)


class _Loop:
    """Receiving, and one task per timer; the first that ends, ends all."""

    def __init__(self, worker: Worker, channel: aio.AsyncChannel) -> None:
        self._worker = worker
        self._channel = channel
        self._handling = False

    async def run(self) -> None:
        worker = self._worker
        worker._start_timers()
        receiver = asyncio.ensure_future(self._receive())
        tasks = [receiver, *(asyncio.ensure_future(self._tick(timer)) for timer in worker._timers)]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            failed = [task for task in tasks if task.done() and task.exception() is not None]
            if self._handling and not failed:
                await asyncio.wait([receiver])  # stop() was called beside it: it ends after its message
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
        for end in ends:
            if isinstance(end, BaseException) and not isinstance(end, asyncio.CancelledError):
                raise end

    async def _receive(self) -> None:
        worker, channel = self._worker, self._channel
        largest = worker._largest_batch()
        try:
            while not worker._stopping:
                if largest:
                    await self._take_batch(await channel.recv_batch(largest, one_class=True))
                else:
                    await self._take(await channel.recv())
        except ChannelClosed as closed:
            if closed is worker._told:
                raise
            # Otherwise a shutdown, and everything is handled.

    async def _take_batch(self, batch: Any) -> None:
        handler = self._worker._handlers.get(batch._first_class())
        if handler is not None and handler.limit:
            await self._handle(handler, batch, len(batch))
            return
        for message in batch:
            await self._take(message)
            if self._worker._stopping:
                return

    async def _take(self, message: Any) -> None:
        handler = self._worker._handlers.get(type(message))
        if handler is None:
            self._worker._no_handler(message)
        else:
            await self._handle(handler, message, 1)

    async def _handle(self, handler: Any, message: Any, count: int) -> None:
        self._handling = True
        try:
            result = handler.function(message)
            if inspect.isawaitable(result):
                await result
            self._worker._handled += count
        except Exception as error:
            self._worker._on_exception(error, handler.function, handler.on_error, message)
        finally:
            self._handling = False

    async def _tick(self, timer: Timer) -> None:
        worker = self._worker
        while not worker._stopping:
            await asyncio.sleep(max(timer.due_ns - time.monotonic_ns(), 0) / 1e9)
            worker._timer_runs += 1
            await _call(worker, timer.function, on_error=worker._on_error)
            timer.advance(time.monotonic_ns())
