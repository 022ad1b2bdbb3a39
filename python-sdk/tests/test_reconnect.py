"""Coming back to a bridge that was away."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import mycelium
from bridge_double import BridgeDouble, wait_until
from builders import quote, signal, signal_fields
from mycelium import Reconnect, events
from mycelium import _control as control
from mycelium._reconnect import Backoff
from mycelium.messages import Quote, Signal
from test_aio import run

MakeBridge = Callable[..., BridgeDouble]
SOON = Reconnect(first_delay=0.001, max_delay=0.01)


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    """The address that bridges come and go at."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "bridge.sock"))
        sock.listen()
        yield sock


def address(listener: socket.socket) -> str:
    """The address as a program gives it."""
    return f"unix:{listener.getsockname()}"


def test_pauses_double_up_to_the_longest_and_are_shortened_at_random() -> None:
    plan = Reconnect(first_delay=1.0, max_delay=5.0)
    longest = Backoff(plan, lambda: 0.0)
    assert [longest.pause(0) for _ in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]
    shortest = Backoff(plan, lambda: 1.0)
    assert [shortest.pause(0) for _ in range(3)] == [0.5, 1.0, 2.0]


def test_attempts_and_deadline_end_it() -> None:
    few = Backoff(Reconnect(max_attempts=2))
    assert [few.pause(0) is None for _ in range(3)] == [False, False, True]
    late = Backoff(Reconnect(first_delay=1.0, deadline=3.0), lambda: 0.0)
    assert late.pause(2.5) == 0.5
    assert late.pause(3.0) is None


@pytest.mark.parametrize(
    "options", [{"first_delay": 0}, {"first_delay": 9.0}, {"max_attempts": 0}, {"deadline": 0}], ids=str
)
def test_plans_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="legal"):
        Reconnect(**options)


def test_an_inherited_connection_cannot_be_made_again() -> None:
    with pytest.raises(ValueError, match="cannot reconnect: address=None"):
        mycelium.connect(reconnect=True)


def test_subscriptions_and_publishers_survive(make_bridge: MakeBridge, transport: str, listener: socket.socket) -> None:
    heard: list[events.Event] = []
    first = make_bridge(transport=transport, listener=listener)
    with mycelium.connect(address(listener), name="alpha", reconnect=SOON, on_event=heard.append) as channel:
        channel.subscribe(Quote)
        signals = channel.publisher(Signal)
        signals.send(signal(1))
        assert first.take(Signal, 1) == [signal(1)]
        first.send(quote(1))
        seen = []
        for message in channel:
            seen.append(message.sequence)
            if len(seen) == 1:
                first.hang_up()
                second = make_bridge(transport=transport, listener=listener)
                second.send_later(quote(2))
            else:
                assert second.names().count(control.Subscribe.TOPIC_ID) == 1
                assert second.names().count(control.Advertise.TOPIC_ID) == 1
                assert second.hello is not None
                assert second.hello.name == "alpha"
                break
        assert seen == [1, 2]
        signals.send(signal(2))
        with signals.reserve() as reserved:
            reserved.set(**signal_fields(3))
        assert second.take(Signal, 2) == [signal(2), signal(3)]
        statistics = channel.statistics()
        assert (statistics.frames_in, statistics.frames_out, statistics.disconnects) == (2, 3, 1)
    assert [type(it) for it in heard] == [events.Disconnected, events.Reconnected]
    assert isinstance(heard[1], events.Reconnected)
    assert heard[1].attempts >= 1
    assert heard[1].transport == transport


def test_what_was_in_the_ring_is_counted(make_bridge: MakeBridge, listener: socket.socket) -> None:
    heard: list[events.Event] = []
    first = make_bridge(listener=listener)
    with mycelium.connect(address(listener), reconnect=SOON, on_event=heard.append) as channel:
        signals = channel.publisher(Signal)
        for number in range(5):
            signals.send(signal(number))
        first.take(Signal, 2)
        first.hang_up()
        second = make_bridge(listener=listener)
        second.send_later(quote(7))
        assert channel.recv(timeout=30).sequence == 7
        assert channel.statistics().frames_lost == 3
        with pytest.raises(TimeoutError):
            channel.recv(timeout=0)
    assert isinstance(heard[0], events.Disconnected)
    assert (heard[0].frames_unsent, heard[0].frames_unread) == (3, 0)


def test_a_timeout_while_the_bridge_is_away_interrupts_and_the_next_call_goes_on(
    make_bridge: MakeBridge, transport: str, listener: socket.socket
) -> None:
    first = make_bridge(transport=transport, listener=listener)
    plan = Reconnect(first_delay=0.02, max_delay=0.02)
    with mycelium.connect(address(listener), reconnect=plan) as channel:
        channel.subscribe(Quote)
        signals = channel.publisher(Signal)
        first.hang_up()
        with pytest.raises(TimeoutError, match="not connected in time"):
            channel.recv(timeout=0.001)
        with pytest.raises(mycelium.ChannelFull):
            signals.send(signal(1), timeout=0)
        second = make_bridge(transport=transport, listener=listener)
        second.send_later(quote(3))
        end = threading.Event()
        while not end.is_set():
            try:
                assert channel.recv(timeout=0.001).sequence == 3
                end.set()
            except TimeoutError:
                continue
        signals.send(signal(2))
        assert second.take(Signal, 1) == [signal(2)]


def test_a_sender_that_waits_for_room_comes_back(
    make_bridge: MakeBridge, transport: str, listener: socket.socket
) -> None:
    first = make_bridge(transport=transport, listener=listener)
    with mycelium.connect(address(listener), reconnect=SOON) as channel:
        signals = channel.publisher(Signal)
        first.pause_reading()
        with pytest.raises(mycelium.ChannelFull):
            while True:
                signals.send(signal(1), timeout=0)
        first.resume_reading()
        first.hang_up()
        second = make_bridge(transport=transport, listener=listener)
        signals.send(signal(2), timeout=30)
        assert second.take(Signal, 1) == [signal(2)]
        assert channel.statistics().disconnects == 1


def test_it_gives_up_and_stays_so(make_bridge: MakeBridge, listener: socket.socket) -> None:
    first = make_bridge(listener=listener)
    plan = Reconnect(first_delay=0.001, max_attempts=2)
    channel = mycelium.connect(address(listener), reconnect=plan)
    signals = channel.publisher(Signal)
    where = listener.getsockname()
    Path(where).unlink()
    first.hang_up()
    for _ in range(2):
        with pytest.raises(mycelium.PeerLost, match="gave up coming back: attempts=2"):
            channel.recv()
    with pytest.raises(mycelium.PeerLost):
        signals.send(signal(1))
    channel.close()


def test_an_orderly_shutdown_ends_the_loop_where_that_is_asked_for(
    make_bridge: MakeBridge, listener: socket.socket
) -> None:
    first = make_bridge(listener=listener)
    plan = Reconnect(first_delay=0.001, after_shutdown=False)
    with mycelium.connect(address(listener), reconnect=plan) as channel:
        first.send_control(control.Shutdown(deadline_ms=5000, reason="maintenance"))
        assert [message.sequence for message in channel] == []
    second = make_bridge(listener=listener)
    with mycelium.connect(address(listener), reconnect=SOON) as channel:
        second.send_control(control.Shutdown(deadline_ms=5000, reason="maintenance"))
        third = make_bridge(listener=listener)
        third.send_later(quote(4))
        assert channel.recv(timeout=30).sequence == 4
    wait_until(lambda: control.Goodbye.TOPIC_ID in second.names(), "the goodbye")


def test_asyncio_comes_back_with_a_receiver_and_senders(
    make_bridge: MakeBridge, transport: str, listener: socket.socket
) -> None:
    heard: list[events.Event] = []

    async def main() -> None:
        first = make_bridge(transport=transport, listener=listener)
        async with mycelium.aio.connect(address(listener), reconnect=SOON, on_event=heard.append) as channel:
            await channel.subscribe(Quote)
            signals = await channel.publisher(Signal)
            loop = asyncio.get_running_loop()
            receiving = asyncio.ensure_future(channel.recv())
            await asyncio.sleep(0)
            await loop.run_in_executor(None, first.hang_up)
            second = make_bridge(transport=transport, listener=listener)
            second.send_later(quote(2))
            assert (await receiving).sequence == 2
            await signals.send(signal(2))
            assert await loop.run_in_executor(None, second.take, Signal, 1) == [signal(2)]
            await channel.subscribe(Quote)
            await loop.run_in_executor(None, second.hang_up)
            with pytest.raises(TimeoutError):
                await channel.recv(timeout=0.01)
            assert channel.statistics().disconnects == 2
        with pytest.raises(mycelium.ChannelClosed):
            await channel.recv()

    run(main())
    assert [type(it) for it in heard][:2] == [events.Disconnected, events.Reconnected]
