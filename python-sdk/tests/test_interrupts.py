"""Signals in real processes: Ctrl-C wherever a program can be, and storms of handlers that raise."""

from __future__ import annotations

import dis
import signal as signals
import sys
from collections.abc import Callable

import pytest

from bridge_double import PATIENCE_S, BridgeDouble, wait_until
from builders import quote
from mycelium import _control as control
from mycelium._publisher import Publisher, Reservation
from mycelium.messages import Signal
from test_processes import start

MakeBridge = Callable[..., BridgeDouble]

SENDING = """
import sys
import mycelium
from mycelium.messages import Side, Signal

with mycelium.connect() as channel:
    signals = channel.publisher(Signal)
    while True:
        signals.send(Signal(worker="w", side=Side.HOLD))
"""

RECEIVING = """
import mycelium
from mycelium.messages import Side, Signal

with mycelium.connect(spin_us={spin_us}) as channel:
    channel.publisher(Signal).send(Signal(worker="w", side=Side.HOLD))
    for message in channel:
        pass
"""

AWAITING = """
import asyncio
import mycelium
from mycelium.messages import Side, Signal

async def main():
    async with mycelium.aio.connect() as channel:
        await (await channel.publisher(Signal)).send(Signal(worker="w", side=Side.HOLD))
        async for message in channel:
            pass

asyncio.run(main())
"""

STORM = """
import signal
import mycelium
from mycelium.messages import Quote, Side, Signal

COUNT = {count}

class Storm(Exception):
    pass

armed = False
storms = 0

def handler(number, frame):
    global armed, storms
    storms += 1
    if armed:
        armed = False
        raise Storm

signal.signal(signal.SIGALRM, handler)
with mycelium.connect(spin_us={spin_us}) as channel:
    signals = channel.publisher(Signal)
    producer = channel._link.producer
    # A function, as CPython 3.13 does not find the handler in the frame of a loop whose jump back is interrupted.
    def work():
        global armed
        armed = {raises}
        while producer.frames < COUNT:
            number = producer.frames + 1
            {send}

    signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
    while producer.frames < COUNT:
        try:
            work()
        except Storm:
            pass
        armed = False
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert storms > 10, storms
    channel.close(str(storms))
"""

SEND = "signals.send(Signal(worker='w', quote_sequence=number, price=number / 8, side=Side.HOLD))"
RESERVE = """with signals.reserve() as signal_:
                signal_.set(worker="w", quote_sequence=number, price=number / 8, side=Side.HOLD)"""

ECHO = """
import signal
import mycelium
from mycelium.messages import Quote, Side, Signal

storms = 0

class Storm(Exception):
    pass

armed = False

def handler(number, frame):
    global armed, storms
    storms += 1
    if armed:
        armed = False
        raise Storm

signal.signal(signal.SIGALRM, handler)
with mycelium.connect(spin_us=0) as channel:
    signals = channel.publisher(Signal)
    signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)
    last = 0

    def work():
        global armed, last
        armed = {raises}
        for quote in channel:
            armed = False
            assert quote.volume == float(quote.sequence) and quote.sequence > last, (quote, last)
            last = quote.sequence
            signals.send(Signal(worker="w", quote_sequence=last, side=Side.HOLD))
            if last >= {count}:
                break
            armed = {raises}

    while last < {count}:
        try:
            work()
        except Storm:
            pass
        armed = False
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert storms > 10, storms
"""


@pytest.mark.parametrize("spin_us", [0, 10_000_000])
def test_an_interrupt_ends_a_receiver_that_sleeps_or_spins(bridge: BridgeDouble, spin_us: int) -> None:
    process = start(bridge, "-c", RECEIVING.format(spin_us=spin_us))
    bridge.take(Signal, 1)  # from here on it is in its loop, or about to be
    process.send_signal(signals.SIGINT)
    assert process.wait(PATIENCE_S) == -signals.SIGINT
    wait_until(bridge.hung_up.is_set, "hang-up")
    assert bridge.names()[-1] == control.Goodbye.TOPIC_ID


def test_an_interrupt_ends_a_sender_that_waits_for_room(bridge: BridgeDouble) -> None:
    process = start(bridge, "-c", SENDING)
    bridge.take(Signal, 1)
    bridge.pause_reading()
    if bridge.over_shm:
        # The sender asks to be woken once the ring is full.
        wait_until(bridge.producer_waits, "a full ring")
    process.send_signal(signals.SIGINT)
    assert process.wait(PATIENCE_S) == -signals.SIGINT
    bridge.resume_reading()
    wait_until(bridge.hung_up.is_set, "hang-up")


def test_an_interrupt_ends_an_event_loop_with_a_goodbye(bridge: BridgeDouble) -> None:
    process = start(bridge, "-c", AWAITING)
    bridge.take(Signal, 1)  # from here on it is in its loop, or about to be
    process.send_signal(signals.SIGINT)
    assert process.wait(PATIENCE_S) == -signals.SIGINT
    wait_until(bridge.hung_up.is_set, "hang-up")
    assert bridge.names()[-1] == control.Goodbye.TOPIC_ID


@pytest.mark.parametrize("send", [SEND, RESERVE], ids=["send", "reserve"])
@pytest.mark.parametrize("raises", [False, True], ids=["quiet", "raising"])
@pytest.mark.parametrize("spin_us", [0, 50])
def test_a_storm_of_signals_while_sending_neither_loses_nor_doubles(
    make_bridge: MakeBridge, transport: str, raises: bool, send: str, spin_us: int
) -> None:
    count = 8000
    bridge = make_bridge(transport=transport, capacity=4096)
    process = start(bridge, "-c", STORM.format(count=count, send=send, raises=raises, spin_us=spin_us))
    taken = bridge.take(Signal, count)
    assert process.wait(PATIENCE_S) == 0
    assert [(it.quote_sequence, it.price) for it in taken] == [(n, n / 8) for n in range(1, count + 1)]


@pytest.mark.parametrize("raises", [False, True], ids=["quiet", "raising"])
def test_a_storm_of_signals_while_receiving_garbles_nothing(
    make_bridge: MakeBridge, transport: str, raises: bool
) -> None:
    count = 3000
    bridge = make_bridge(transport=transport, capacity=4096)
    process = start(bridge, "-c", ECHO.format(count=count, raises=raises))
    for number in range(1, count + 1):
        bridge.send_later(quote(number))
    for _ in range(20 if raises else 0):
        bridge.send_later(quote(count))  # the last ones may be interrupted in the program's hands
    answers: list[int] = []
    while not answers or answers[-1] < count:
        answers.append(bridge.take(Signal, 1)[0].quote_sequence)
    assert process.wait(PATIENCE_S) == 0
    assert answers == sorted(set(answers))
    if not raises:
        assert answers == list(range(1, count + 1))


def calls_between(function: Callable[..., object], start_name: str, end_name: str) -> list[str]:
    """The instructions at which the interpreter may change threads or run signal handlers, between two attributes."""
    found: list[str] = []
    inside = False
    for step in dis.get_instructions(function):
        if inside and step.opname.startswith(("CALL", "JUMP_BACKWARD", "RESUME", "PRECALL", "FOR_ITER", "YIELD")):
            found.append(f"{step.opname} at {step.offset}")
        if step.opname in ("LOAD_ATTR", "STORE_ATTR", "LOAD_SLOT") and step.argval == start_name:
            inside = True
        if step.opname == "STORE_ATTR" and step.argval == end_name:
            return found
    raise AssertionError(f"{start_name} .. {end_name} not found in {function}")


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="the instructions are CPython's")
def test_the_short_way_of_a_send_has_no_place_for_a_signal_handler_or_another_thread() -> None:
    assert calls_between(Publisher.send, "_fast_type", "frames") != [], "the way out to _send_slowly is seen"
    assert calls_between(Publisher.send, "_producer", "frames") == []
    assert calls_between(Reservation.__exit__, "words", "frames") == []
