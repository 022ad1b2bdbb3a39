"""Several threads on one channel, and a process that forks."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

import mycelium
from bridge_double import PATIENCE_S, BridgeDouble, wait_until
from builders import quote, signal, signal_fields
from mycelium import _control as control
from mycelium import _ring
from mycelium.messages import Quote, Signal

MakeBridge = Callable[..., BridgeDouble]


def in_threads(*functions: Callable[[], Any]) -> list[threading.Thread]:
    """Starts one thread for each."""
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    return threads


@pytest.mark.parametrize("gil", [True, False], ids=["gil", "free-threaded"])
def test_threads_that_publish_beside_a_receiver_garble_nothing(
    make_bridge: MakeBridge, transport: str, gil: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_ring, "one_thread_at_a_time", lambda: gil)
    bridge = make_bridge(transport=transport, capacity=4096)
    channel = bridge.connect()
    shared = channel.publisher(Signal)
    threads_count, each = 4, 1500

    def publish(thread: int) -> None:
        publisher = shared if thread % 2 else own[thread]
        for number in range(each):
            if number % 10 == 3:
                with publisher.reserve() as reserved:
                    reserved.set(**signal_fields(thread * 10_000 + number))
            else:
                publisher.send(signal(thread * 10_000 + number))

    own = {thread: channel.publisher(Signal) for thread in range(threads_count)}
    received: list[int] = []
    receiver = in_threads(lambda: received.extend(channel.recv().sequence for _ in range(200)))
    threads = in_threads(*[lambda thread=thread: publish(thread) for thread in range(threads_count)])
    feeder = in_threads(lambda: [bridge.send(quote(number)) for number in range(200)])
    taken = bridge.take(Signal, threads_count * each)
    for thread in receiver + threads + feeder:
        thread.join(PATIENCE_S)
    assert received == list(range(200))
    for thread_number in range(threads_count):
        mine = [it for it in taken if it.quote_sequence // 10_000 == thread_number]
        assert mine == [signal(thread_number * 10_000 + number) for number in range(each)]
    assert channel.statistics().frames_out == threads_count * each
    channel.close()


def tracer(frame: Any, event: str, argument: object) -> Any:
    """Is called for every line of the package: a place where threads change."""
    return tracer if "mycelium" in frame.f_code.co_filename else None


def test_threads_that_publish_under_a_tracer_garble_nothing(make_bridge: MakeBridge, transport: str) -> None:
    before = sys.gettrace(), threading.gettrace(), sys.getswitchinterval()
    threading.settrace(tracer)
    sys.settrace(tracer)
    sys.setswitchinterval(1e-6)
    try:
        test_threads_that_publish_beside_a_receiver_garble_nothing(make_bridge, transport, True, pytest.MonkeyPatch())
    finally:
        sys.settrace(before[0])
        threading.settrace(before[1])  # type: ignore[arg-type]  # None is what it is without one
        sys.setswitchinterval(before[2])


@pytest.mark.parametrize("kind", ["settrace", "threading", "monitoring"])
def test_no_send_takes_the_short_way_while_something_traces(make_bridge: MakeBridge, kind: str) -> None:
    before = sys.gettrace(), threading.gettrace()
    monitoring: Any = getattr(sys, "monitoring", None)
    if kind == "monitoring" and monitoring is None:
        pytest.skip("a novelty of Python 3.12")
    sys.settrace(None)
    threading.settrace(None)  # type: ignore[arg-type]
    used = [] if monitoring is None else [it for it in range(6) if monitoring.get_tool(it)]
    if used:
        pytest.skip(f"something else traces: tools={used}")
    bridge = make_bridge(transport="shm")
    try:
        with bridge.connect() as channel:
            signals = channel.publisher(Signal)
            producer = channel._link.producer
            assert producer.limit > 0
            if kind == "settrace":
                sys.settrace(tracer)
            elif kind == "threading":
                threading.settrace(tracer)
            else:
                monitoring.use_tool_id(monitoring.DEBUGGER_ID, "test")
            producer._set_limit()
            assert producer.limit == -1
            signals.send(signal(1))
            with signals.reserve() as reserved:
                reserved.set(**signal_fields(2))
            assert producer.limit == -1
            sys.settrace(None)
            threading.settrace(None)  # type: ignore[arg-type]
            if kind == "monitoring":
                monitoring.free_tool_id(monitoring.DEBUGGER_ID)
            signals.send(signal(3))
            assert producer.limit > 0, "the short way is open again"
            assert bridge.take(Signal, 3) == [signal(1), signal(2), signal(3)]
    finally:
        if monitoring is not None:
            monitoring.free_tool_id(monitoring.DEBUGGER_ID)
        sys.settrace(before[0])
        threading.settrace(before[1])  # type: ignore[arg-type]


def test_a_second_thread_may_not_receive_until_it_takes_over_or_the_first_has_ended(bridge: BridgeDouble) -> None:
    channel = bridge.connect()
    for number in (1, 2, 3):
        bridge.send(quote(number))
    assert channel.recv(timeout=30).sequence == 1
    outcomes: list[Any] = []

    def elsewhere() -> None:
        for attempt in (
            channel.recv,
            lambda: next(iter(channel)),
            channel.acknowledge,
            lambda: channel.subscribe(Quote),
        ):
            try:
                outcomes.append(attempt())
            except RuntimeError as error:
                outcomes.append(str(error))
        channel.take_over()
        outcomes.append(channel.recv(timeout=30).sequence)

    in_threads(elsewhere)[0].join(PATIENCE_S)
    assert all("another thread receives" in it for it in outcomes[:4])
    assert outcomes[4] == 2
    assert channel.recv(timeout=30).sequence == 3, "the other thread has ended"
    channel.close()


def test_a_signal_handler_may_send_between_sends_and_is_refused_inside_of_one(bridge: BridgeDouble) -> None:
    with bridge.connect() as channel:
        signals = channel.publisher(Signal)
        with channel._gate:
            channel._in_gate = threading.get_ident()
            channel._link.producer.limit = -1
            with pytest.raises(RuntimeError, match="sending inside of a send"):
                signals.send(signal(1))
        signals.send(signal(2))
        assert bridge.take(Signal, 1)[0].quote_sequence == 2


def test_a_reservation_that_was_left_without_its_end_is_given_up(bridge: BridgeDouble) -> None:
    with bridge.connect() as channel:
        signals = channel.publisher(Signal)
        signals.reserve().__enter__()  # As if a signal handler had raised behind this.
        signals.send(signal(1))
        signals.reserve().__enter__()
        with signals.reserve() as reserved:
            reserved.set(**signal_fields(2))
            with pytest.raises(RuntimeError, match="a reservation is open"):
                signals.send(signal(0))
            with pytest.raises(RuntimeError, match="a reservation is open"):
                signals.reserve()
        assert bridge.take(Signal, 2) == [signal(1), signal(2)]


def child_says(script: Callable[[], str]) -> str:
    """Runs a function in a forked child and returns its text."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            text = script()
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(write, text.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        text = pipe.read().decode()
    assert os.waitpid(pid, 0)[1] == 0
    return text


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_gets_a_clear_error_and_the_parent_goes_on(bridge: BridgeDouble) -> None:
    channel = bridge.connect(name="alpha")
    signals = channel.publisher(Signal)
    for number in range(1, 8):
        bridge.send(quote(number))
    held = channel.recv(timeout=30)
    uses: dict[str, Callable[[], Any]] = {
        "recv": lambda: channel.recv(timeout=0),
        "iteration": lambda: next(iter(channel)),
        "batch": channel.recv_batch,
        "send": lambda: signals.send(signal(1)),
        "reserve": lambda: signals.reserve().__enter__(),
        "subscribe": lambda: channel.subscribe(Quote),
        "publisher": lambda: channel.publisher(Quote),
        "arm": channel.arm,
    }
    for name, use in uses.items():
        said = child_says(lambda use=use: str(use()))
        assert said.startswith("ChannelClosed: connection was inherited by a fork: link=alpha"), (name, said)
    assert child_says(lambda: str(held.sequence)).startswith("StaleMessageError")
    assert child_says(lambda: str((channel.close(), channel.closed, channel.fileno()))) == "(None, True, -1)"
    assert held.sequence == 1
    assert [channel.recv(timeout=30).sequence for _ in range(5)] == list(range(2, 7))
    signals.send(signal(5))
    assert bridge.take(Signal, 1) == [signal(5)]
    assert not bridge.hung_up.is_set()
    assert control.Goodbye.TOPIC_ID not in bridge.names()
    channel.close()
    wait_until(bridge.hung_up.is_set, "hang-up")


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_fork_inside_of_a_loop_ends_the_loop_of_the_child_with_the_error(bridge: BridgeDouble) -> None:
    with bridge.connect() as channel:
        for number in (1, 2, 3):
            bridge.send(quote(number))
        seen = []
        child = False
        try:
            for message in channel:
                seen.append(message.sequence)
                if len(seen) == 3:
                    break
                pid = os.fork()
                if pid == 0:
                    child = True
                    continue
                assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        except mycelium.ChannelClosed:
            os._exit(7 if child else 8)
        finally:
            if child:
                os._exit(9)
        assert seen == [1, 2, 3]


class Interrupt(Exception):
    """What a signal handler raises."""


def test_what_came_before_an_interrupt_is_found_without_another_wakeup(
    make_bridge: MakeBridge, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge = make_bridge(transport=transport)
    with bridge.connect() as channel:
        bridge.send_control(control.Shutdown(deadline_ms=60_000, reason="maintenance"))
        if transport == "socket":
            bridge.send(quote(1))
        link = channel._link
        place, name = (link._decoder, "feed_all") if transport == "shm" else (link.consumer, "_settle")

        def interrupted(*_: object) -> None:
            raise Interrupt

        # The bytes have left the socket, and nobody has looked at them.
        with monkeypatch.context() as patch:
            patch.setattr(type(place), name, interrupted)
            with pytest.raises(Interrupt):
                while True:
                    link.receive_control(ahead=False)
        assert link.unhandled
        if transport == "socket":
            assert channel.recv().sequence == 1
        with pytest.raises(mycelium.ChannelClosed):
            channel.recv()
