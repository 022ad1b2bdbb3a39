"""Workers: handlers, timers, the beginning and the end, and what an exception does."""

from __future__ import annotations

import logging
import math
import signal as signals
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import mycelium
from builders import quote, signal
from mycelium import testing
from mycelium._timers import Timer
from mycelium.messages import Quote, ReplayMark, Side, Signal


@pytest.fixture
def bridge(transport: str) -> Iterator[testing.Bridge]:
    with testing.Bridge(transport=transport, settings={"window": 20}) as bridge:
        yield bridge


def mark(phase: int) -> ReplayMark:
    return ReplayMark(phase=phase, action=1, mode=1, worker="")


def test_a_worker_calls_its_functions_in_their_order(bridge: testing.Bridge) -> None:
    worker = mycelium.Worker()
    answers = worker.publisher(Signal)
    seen: list[Any] = []

    @worker.on_start
    def start() -> None:
        seen.append(("start", worker.settings["window"], worker.channel.epoch))

    @worker.on(Quote)
    def on_quote(message: Quote) -> None:
        seen.append(message.sequence)
        answers.send(signal(message.sequence))

    @worker.on(ReplayMark)
    def on_mark(message: ReplayMark) -> None:
        seen.append(f"mark {message.phase}")

    @worker.on_shutdown
    def stop(left: float) -> None:
        seen.append("stop")
        assert 0 < left <= 5.0
        with answers.reserve() as last:
            last.set(worker="w", side=Side.HOLD)
            last.quote_sequence = 99

    bridge.publish(quote(1), mark(7), quote(2))
    assert bridge.run(worker) == 0
    assert seen == [("start", 20, 1), 1, "mark 7", 2, "stop"]
    assert [answer.quote_sequence for answer in bridge.published(Signal)] == [1, 2, 99]
    assert worker.statistics() == mycelium.WorkerStatistics("stopped", 3, 0, 0, 0, 0)
    assert bridge.unacknowledged == 0


def test_batches_are_of_one_class_and_keep_the_order(bridge: testing.Bridge) -> None:
    worker = mycelium.Worker()
    seen: list[Any] = []

    @worker.on_batch(Quote, limit=3)
    def on_quotes(batch: mycelium.Batch) -> None:
        rows = [sequence for (sequence,) in batch.rows(Quote, "sequence")]
        assert len(rows) == len(batch) <= 3
        seen.extend(rows)

    @worker.on(ReplayMark)
    def on_mark(message: ReplayMark) -> None:
        seen.append(f"mark {message.phase}")

    bridge.publish(quote(1), quote(2), mark(1), mark(2), *map(quote, range(3, 11)))
    assert bridge.run(worker) == 0
    assert seen == [1, 2, "mark 1", "mark 2", *range(3, 11)]
    assert worker.statistics().handled == 12


@pytest.mark.parametrize("batches", [False, True])
def test_a_message_whose_handler_raises_comes_again(
    bridge: testing.Bridge, batches: bool, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[int] = []
    fails = True

    def make() -> mycelium.Worker:
        worker = mycelium.Worker()

        def take(message: Any) -> None:
            numbers = [message.sequence] if isinstance(message, Quote) else message.column(Quote, "sequence")
            if fails and 2 in numbers:
                raise ZeroDivisionError("of no use")
            seen.extend(numbers)

        (worker.on_batch(Quote) if batches else worker.on(Quote))(take)
        return worker

    bridge.publish(*map(quote, range(1, 4)))
    assert bridge.run(make(), check=False) == 1
    assert bridge.unacknowledged >= 2
    text = caplog.text
    assert "handler failed: handler=" in text
    assert "Quote" in text
    assert "ZeroDivisionError: of no use" in text
    assert "it is not acknowledged and comes again" in text
    assert text.count("ZeroDivisionError: of no use") == 1
    with pytest.raises(ZeroDivisionError):
        bridge.run(make())
    fails = False
    assert bridge.run(make()) == 0
    assert seen[-2:] == [2, 3]


def test_a_message_can_be_skipped(bridge: testing.Bridge, caplog: pytest.LogCaptureFixture) -> None:
    worker = mycelium.Worker(on_error="skip")
    seen = []

    @worker.on(Quote)
    def on_quote(message: Quote) -> None:
        if message.sequence == 2:
            raise ValueError("not this one")
        seen.append(message.sequence)

    bridge.publish(*map(quote, range(1, 4)))
    assert bridge.run(worker) == 0
    assert seen == [1, 3]
    assert worker.statistics().failed == 1
    assert worker.statistics().handled == 2
    assert "skipped: it is acknowledged" in caplog.text
    assert "sequence=2" in caplog.text


def test_a_lost_bridge_is_not_skipped(bridge: testing.Bridge) -> None:
    worker = mycelium.Worker(on_error="skip")

    @worker.on(Quote)
    def on_quote(message: Quote) -> None:
        raise mycelium.PeerLost("gone")

    bridge.publish(quote(1))
    assert bridge.run(worker, check=False) == 1
    assert worker.statistics().state == "failed"


def test_a_vanished_bridge_is_exit_code_1(bridge: testing.Bridge, caplog: pytest.LogCaptureFixture) -> None:
    worker = mycelium.Worker()

    @worker.on_start
    def start() -> None:
        threading.Thread(target=bridge.hang_up).start()

    worker.every(3600)(lambda: None)
    worker.on(Quote)(lambda message: None)
    assert bridge.run(worker, until=lambda: False, check=False) == 1
    assert "worker failed: error=PeerLost: bridge hung up" in caplog.text
    assert "Traceback" not in caplog.text  # says nothing that the text does not


def test_timers_run_between_messages_and_while_nothing_comes(bridge: testing.Bridge) -> None:
    worker = mycelium.Worker()
    ticks = 0
    seen = []

    @worker.every(0.002)
    def tick() -> None:
        nonlocal ticks
        ticks += 1

    @worker.on(Quote)
    def on_quote(message: Quote) -> None:
        seen.append(message.sequence)

    bridge.publish(*map(quote, range(1, 101)))
    assert bridge.run(worker, until=lambda: ticks >= 5 and len(seen) == 100) == 0
    assert seen == list(range(1, 101))
    assert worker.statistics().timer_runs == ticks >= 5


def test_a_timer_that_raises_ends_the_worker_and_loses_nothing(bridge: testing.Bridge) -> None:
    worker = mycelium.Worker()
    seen = []

    @worker.every(0.001)
    def tick() -> None:
        if seen:
            raise KeyError("tick")

    @worker.on(Quote)
    def on_quote(message: Quote) -> None:
        seen.append(message.sequence)

    bridge.publish(quote(1))
    with pytest.raises(KeyError):
        bridge.run(worker, until=lambda: False)
    assert seen == [1]
    assert bridge.unacknowledged == 0


def test_a_timer_keeps_to_its_grid_and_counts_what_it_misses() -> None:
    timer = Timer(1.0, lambda: None)
    second = 1_000_000_000
    timer.start(100)
    assert timer.due_ns == second + 100
    timer.advance(second + 5000)  # a little late: no drift
    assert (timer.due_ns, timer.missed) == (2 * second + 100, 0)
    timer.advance(5 * second + 200)  # ran at 2, ended after 5: 3, 4 and 5 are over
    assert (timer.due_ns, timer.missed) == (6 * second + 100, 3)
    for period in (0, 0.0005, math.nan, math.inf):
        with pytest.raises(ValueError, match="timer period out of range"):
            Timer(period, lambda: None)


def test_stop_ends_the_run_after_the_function(bridge: testing.Bridge) -> None:
    worker = mycelium.Worker()
    ends = []

    @worker.on(Quote)
    def on_quote(message: Quote) -> None:
        if message.sequence == 2:
            worker.stop()

    worker.on_shutdown(ends.append)
    bridge.publish(*map(quote, range(1, 6)))
    assert bridge.run(worker) == 0
    assert ends == [math.inf]
    assert worker.statistics().handled == 2
    assert bridge.unacknowledged == 3


def test_messages_without_a_handler_are_told_once(transport: str, caplog: pytest.LogCaptureFixture) -> None:
    with testing.Bridge(transport=transport, subscribe=[Quote]) as bridge:
        worker = mycelium.Worker(contracts=mycelium.messages)
        worker.on(ReplayMark)(lambda message: None)
        bridge.publish(quote(1), mark(1), quote(2))
        assert bridge.run(worker) == 0
        assert worker.statistics().unhandled == 2
        assert worker.statistics().handled == 1
        assert caplog.text.count("no handler for a message: message=Quote topic_id=1001") == 1


def test_health_is_logged_where_it_changes(bridge: testing.Bridge, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mycelium.worker")
    worker = mycelium.Worker()
    worker.on_start(lambda: worker.health("warming up"))

    @worker.on(Quote)
    def on_quote(message: Quote) -> None:
        worker.health("trading")

    bridge.publish(quote(1), quote(2))
    assert bridge.run(worker) == 0
    states = [record.args for record in caplog.records if record.msg == "worker state: %s"]
    assert states == [("warming up",), ("trading",), ("draining",), ("stopped",)]


def test_mistakes_are_told_where_they_are_made() -> None:
    worker = mycelium.Worker()
    worker.on(Quote)(lambda message: None)
    with pytest.raises(ValueError, match="second handler for a message: message=Quote"):
        worker.on_batch(Quote)
    with pytest.raises(TypeError, match="not a message class: 5"):
        worker.on(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="no message class given"):
        worker.on()
    with pytest.raises(TypeError, match="not a message class"):
        worker.publisher(int)
    with pytest.raises(ValueError, match="on_error='retry', legal: exit, skip"):
        mycelium.Worker(on_error="retry")
    with pytest.raises(ValueError, match="limit=0"):
        worker.on_batch(Signal, limit=0)
    publisher = worker.publisher(Signal)
    for use in (lambda: publisher.send(signal(1)), publisher.reserve, lambda: publisher.send_raw(b"")):
        with pytest.raises(RuntimeError, match="worker is not connected: message=Signal"):
            use()
    with pytest.raises(RuntimeError, match="worker is not connected"):
        _ = worker.settings


PROGRAM = """
import mycelium
from mycelium import testing
from mycelium.messages import Quote

worker = mycelium.Worker()
bridge = testing.Bridge(settings=SETTINGS)

@worker.on(Quote)
def on_quote(quote):
    BODY

worker.on_shutdown(lambda left: print("end"))
bridge.publish(Quote(symbol="x", sequence=1))
with bridge.environment():
    bridge.shutdown()
    worker.run()
"""


def run_program(body: str, settings: str = "{}") -> tuple[int, str, str]:
    program = PROGRAM.replace("BODY", body).replace("SETTINGS", settings)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("body", "settings", "expected"),
    [
        ("print('seen')", "{}", (0, "seen\nend\n", "INFO mycelium.worker: worker state: draining")),
        ("print('seen')", "{'log_level': 'warning'}", (0, "seen\nend\n", "")),
        ("print('seen')", "{'log_level': 'loud'}", (1, "", "log level not understood: log_level='loud'")),
        ("raise KeyError(quote.symbol)", "{}", (1, "", "KeyError: 'x'")),
        ("import os, signal; os.kill(0 or os.getpid(), signal.SIGINT)", "{}", (130, "end\n", "worker ended")),
    ],
)
def test_the_exit_code_of_a_program_tells(body: str, settings: str, expected: tuple[int, str, str]) -> None:
    code, stdout, stderr = run_program(body, settings)
    assert (code, stdout) == expected[:2], stderr
    assert expected[2] in stderr


def test_a_worker_without_a_bridge_says_so() -> None:
    program = "import mycelium; mycelium.Worker().run()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "worker failed: error=AddressError: no bridge to connect to: MYCELIUM_FD=''" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_interrupt_while_nothing_comes_ends_the_worker(bridge: testing.Bridge) -> None:
    worker = mycelium.Worker()
    ends: list[float] = []
    worker.on_start(lambda: signals.setitimer(signals.ITIMER_REAL, 0.02))  # type: ignore[func-returns-value]
    worker.on(Quote)(lambda message: None)
    worker.on_shutdown(ends.append)
    before = signals.signal(signals.SIGALRM, signals.default_int_handler)
    try:
        assert bridge.run(worker, until=lambda: False) == 130
    finally:
        signals.signal(signals.SIGALRM, before)
    assert ends == [math.inf]
