"""A worker whose functions are all plain: one loop, and waiting is sleeping."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ._connect import connect
from ._worker_publisher import WorkerPublisher
from .exceptions import ChannelClosed

if TYPE_CHECKING:
    from ._batch import Batch
    from ._worker import Worker
    from .channel import Channel

__all__ = ["run_blocking"]


def run_blocking(worker: Worker, address: str | None, options: dict[str, Any]) -> None:
    """Connects and works until the bridge shuts down, or the worker is stopped."""
    with connect(address, **options) as channel:
        try:
            worker._connected(channel)
            _serve(worker, channel)
        finally:
            worker._channel = None


def _serve(worker: Worker, channel: Channel) -> None:
    for publisher in worker._publishers:
        if isinstance(publisher, WorkerPublisher):
            publisher._bind(channel.publisher(publisher.contract))
    for function in worker._starts:
        worker._call(function)
    if worker._state == "new":
        worker.health("running")
    for delivery, contracts in worker._subscriptions():
        channel.subscribe(*contracts, delivery=delivery)
    try:
        if not worker._stopping:
            _loop(worker, channel)
    except ChannelClosed as closed:
        if closed is worker._told:
            raise
        # Otherwise a shutdown, and everything is handled.
    except KeyboardInterrupt:
        _end(worker, channel)
        raise
    _end(worker, channel)


def _end(worker: Worker, channel: Channel) -> None:
    worker.health("draining")
    for function in worker._shutdowns:
        worker._call(function, channel._seconds_left())


def _loop(worker: Worker, channel: Channel) -> None:
    worker._start_timers()
    if worker._largest_batch():
        _loop_of_batches(worker, channel)
    elif worker._timers:
        _loop_with_timers(worker, channel)
    else:
        find = worker._handlers.get
        for message in channel:
            handler = find(type(message))
            if handler is None:
                worker._no_handler(message)
                continue
            try:
                handler.function(message)
                worker._handled += 1
            except Exception as error:
                worker._on_exception(error, handler.function, handler.on_error, message)
            if worker._stopping:
                return


def _loop_with_timers(worker: Worker, channel: Channel) -> None:
    while not worker._stopping:
        left = _run_timers(worker, channel)
        if worker._stopping:
            return
        try:
            message = channel.recv(left)
        except TimeoutError:
            continue
        _handle(worker, message)


def _loop_of_batches(worker: Worker, channel: Channel) -> None:
    largest = worker._largest_batch()
    while not worker._stopping:
        left = _run_timers(worker, channel)
        if worker._stopping:
            return
        try:
            batch = channel.recv_batch(largest, left, one_class=True)
        except TimeoutError:
            continue
        _handle_batch(worker, batch)


def _handle(worker: Worker, message: Any) -> None:
    handler = worker._handlers.get(type(message))
    if handler is None:
        worker._no_handler(message)
        return
    try:
        handler.function(message)
        worker._handled += 1
    except Exception as error:
        worker._on_exception(error, handler.function, handler.on_error, message)


def _handle_batch(worker: Worker, batch: Batch) -> None:
    handler = worker._handlers.get(batch._first_class())
    if handler is None or not handler.limit:
        for message in batch:
            _handle(worker, message)
            if worker._stopping:
                return
        return
    try:
        handler.function(batch)
        worker._handled += len(batch)
    except Exception as error:
        worker._on_exception(error, handler.function, handler.on_error, batch)


def _run_timers(worker: Worker, channel: Channel) -> float | None:
    """Runs what is due; returns the seconds until the next timer."""
    if not worker._timers:
        return None
    now = time.monotonic_ns()
    first = min(timer.due_ns for timer in worker._timers)
    if first > now:
        return (first - now) / 1e9
    channel.acknowledge()  # What is handled is handled, whatever becomes of the timer.
    for timer in worker._timers:
        if timer.due_ns <= now:
            worker._timer_runs += 1
            worker._call(timer.function, on_error=worker._on_error)
            timer.advance(time.monotonic_ns())
    return max(min(timer.due_ns for timer in worker._timers) - time.monotonic_ns(), 0) / 1e9
