"""Workers with functions that await."""

from __future__ import annotations

import asyncio
import math
import signal as signals
from collections.abc import Iterator
from typing import Any

import pytest

import mycelium
from builders import quote, signal
from mycelium import events, testing
from mycelium.messages import Quote, ReplayMark, Signal


@pytest.fixture
def bridge(transport: str) -> Iterator[testing.Bridge]:
    with testing.Bridge(transport=transport, settings={"window": 20}) as bridge:
        yield bridge


def test_awaiting_and_plain_functions_work_side_by_side(bridge: testing.Bridge) -> None:
    worker = mycelium.Worker()
    plain = worker.publisher(Signal)
    awaited = worker.async_publisher(Signal)
    seen: list[Any] = []

    @worker.on_start
    async def start() -> None:
        await asyncio.sleep(0)
        seen.append(worker.settings["window"])

    @worker.on(Quote)
    async def on_quote(message: Quote) -> None:
        await asyncio.sleep(0)
        seen.append(message.sequence)  # still valid
        if message.sequence % 2:
            await awaited.send(signal(message.sequence))
        else:
            async with awaited.reserve() as answer:
                answer.set(worker="w", quote_sequence=message.sequence, side=mycelium.messages.Side.HOLD)

    @worker.on(ReplayMark)
    def on_mark(message: ReplayMark) -> None:
        plain.send(signal(100 + message.phase), 5.0)
        assert plain.send_many([signal(200)], timeout=5.0) == 1
        with plain.reserve(5.0) as answer:
            answer.set(worker="w", quote_sequence=300, side=mycelium.messages.Side.HOLD)

    @worker.on_shutdown
    async def stop(left: float) -> None:
        await asyncio.sleep(0)
        seen.append(0 < left <= 5.0)
        awaited.send_nowait(signal(99))

    bridge.publish(quote(1), quote(2), ReplayMark(phase=7, action=1, mode=1, worker=""), quote(3))
    assert bridge.run(worker) == 0
    assert seen == [20, 1, 2, 3, True]
    assert [answer.quote_sequence for answer in bridge.published(Signal)] == [1, 2, 107, 200, 300, 3, 99]
    assert worker.statistics() == mycelium.WorkerStatistics("stopped", 4, 0, 0, 0, 0)
    assert bridge.unacknowledged == 0


def test_batches_and_timers_run_in_the_loop(bridge: testing.Bridge) -> None:
    worker = mycelium.Worker()
    seen: list[int] = []
    ticks = 0

    @worker.on_batch(Quote, limit=7)
    async def on_quotes(batch: mycelium.Batch) -> None:
        await asyncio.sleep(0.001)
        seen.extend(batch.column(Quote, "sequence"))

    @worker.every(0.002)
    async def tick() -> None:
        nonlocal ticks
        ticks += 1

    bridge.publish(*map(quote, range(1, 51)))
    assert bridge.run(worker, until=lambda: ticks >= 3 and len(seen) == 50) == 0
    assert seen == list(range(1, 51))
    assert worker.statistics().timer_runs == ticks


def test_an_exception_leaves_the_message_to_the_successor(
    bridge: testing.Bridge, caplog: pytest.LogCaptureFixture
) -> None:
    worker = mycelium.Worker()

    @worker.on(Quote)
    async def on_quote(message: Quote) -> None:
        await asyncio.sleep(0)
        if message.sequence == 2:
            raise ZeroDivisionError

    bridge.publish(quote(1), quote(2))
    assert bridge.run(worker, check=False) == 1
    assert "sequence=2" in caplog.text
    channel = bridge.connect()
    channel.subscribe(Quote)
    assert channel.recv(timeout=30).sequence == 2


def test_a_timer_that_fails_ends_the_handler_that_waits(bridge: testing.Bridge) -> None:
    worker = mycelium.Worker()
    began = False

    @worker.on(Quote)
    async def on_quote(message: Quote) -> None:
        nonlocal began
        began = True
        await asyncio.sleep(3600)

    @worker.every(0.001)
    def tick() -> None:
        if began:
            raise KeyError("tick")

    bridge.publish(quote(1))
    with pytest.raises(KeyError):
        bridge.run(worker)
    assert bridge.unacknowledged == 1


def test_stop_lets_the_handler_finish(bridge: testing.Bridge) -> None:
    worker = mycelium.Worker()
    ends: list[float] = []

    @worker.on(Quote)
    async def on_quote(message: Quote) -> None:
        while not worker.statistics().timer_runs:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.005)
        ends.append(message.sequence)

    worker.every(0.002)(worker.stop)
    worker.on_shutdown(ends.append)
    bridge.publish(quote(1), quote(2))
    assert bridge.run(worker) == 0
    assert ends == [1, math.inf]
    assert bridge.unacknowledged == 1


def test_an_interrupt_ends_a_waiting_worker(bridge: testing.Bridge) -> None:
    worker = mycelium.Worker()
    ends: list[float] = []

    @worker.on_start
    async def start() -> None:
        signals.setitimer(signals.ITIMER_REAL, 0.02)

    worker.on(Quote)(lambda message: None)
    worker.on_shutdown(ends.append)
    before = signals.signal(signals.SIGALRM, lambda *_: signals.raise_signal(signals.SIGINT))
    try:
        assert bridge.run(worker, until=lambda: False) == 130
    finally:
        signals.signal(signals.SIGALRM, before)
    assert ends == [math.inf]


def test_a_plain_publisher_does_not_hold_up_the_loop(bridge: testing.Bridge) -> None:
    worker = mycelium.Worker()
    publisher = worker.publisher(Signal)
    full: list[mycelium.ChannelFull] = []

    @worker.on(Quote)
    async def on_quote(message: Quote) -> None:
        with bridge.paused():
            try:
                for number in range(1_000_000):
                    publisher.send(signal(number))
            except mycelium.ChannelFull as error:
                full.append(error)

    bridge.publish(quote(1))
    assert bridge.run(worker) == 0
    assert full[0].needed == 8 + Signal.SIZE


@pytest.mark.parametrize("asynchronous", [False, True])
def test_events_reach_the_worker(bridge: testing.Bridge, asynchronous: bool) -> None:
    worker = mycelium.Worker()
    seen: list[events.Event] = []
    worker.on_event(seen.append)
    worker.on(Quote)(lambda message: None)

    async def ready() -> None:
        """Makes the worker async."""

    if asynchronous:
        worker.on_start(ready)
    bridge.publish(quote(1))
    assert bridge.run(worker) == 0
    assert [type(event) for event in seen] == [events.ShuttingDown]
    with pytest.raises(TypeError, match=r"event handler is async: handler=.*ready; make it a plain function"):
        worker.on_event(ready)


def test_a_closed_channel_in_a_handler_is_its_failure(bridge: testing.Bridge) -> None:
    for asynchronous in (False, True):
        worker = mycelium.Worker()

        async def refuse(message: Quote) -> None:
            raise mycelium.ChannelClosed("bridge takes nothing more")

        def refuse_plainly(message: Quote) -> None:
            raise mycelium.ChannelClosed("bridge takes nothing more")

        worker.on(Quote)(refuse if asynchronous else refuse_plainly)
        bridge.publish(quote(1))
        assert bridge.run(worker, check=False) == 1
        assert bridge.unacknowledged >= 1


def test_publishers_are_asked_for_before_the_run(bridge: testing.Bridge) -> None:
    worker = mycelium.Worker()

    @worker.on_start
    def start() -> None:
        with pytest.raises(RuntimeError, match="worker runs already: message=Signal"):
            worker.publisher(Signal)

    assert bridge.run(worker) == 0
    awaited = worker.async_publisher(Signal)
    with pytest.raises(RuntimeError, match="worker is not connected: message=Signal"):
        asyncio.run(awaited.send(signal(1)))
    for use in (lambda: awaited.send_nowait(signal(1)), awaited.reserve):
        with pytest.raises(RuntimeError, match="worker is not connected: message=Signal"):
            use()
