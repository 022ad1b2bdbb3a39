"""The asyncio channel over both transports, against the bridge's double."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

import mycelium
from bridge_double import PATIENCE_S, BridgeDouble, wait_until
from builders import quote, signal
from mycelium import _control as control
from mycelium import messages
from mycelium.aio import AsyncChannel
from mycelium.messages import Quote, ReplayMark, Side, Signal

RECORD = 72
MakeBridge = Callable[..., BridgeDouble]


def run(main: Coroutine[Any, Any, None]) -> None:
    """Runs a test's coroutine with the watchdog."""
    asyncio.run(asyncio.wait_for(main, PATIENCE_S))


async def open_channel(bridge: BridgeDouble, **options: Any) -> AsyncChannel:
    """The peer's side, connected inside of the loop."""
    settings = {"contracts": messages, "timeout": PATIENCE_S, "spin_us": 0, **options}
    channel = AsyncChannel(**{key: value for key, value in settings.items() if key not in ("name", "transport")})
    opening = {key: value for key, value in settings.items() if key in ("name", "transport")}
    await channel._drive(channel._open_steps(bridge.peer_sock, **opening))
    return channel


async def in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    """Runs what the bridge does while the loop goes on."""
    return await asyncio.get_running_loop().run_in_executor(None, lambda: function(*arguments))


async def until(condition: Callable[[], Any]) -> None:
    """Lets the loop run until the condition holds; the watchdog is the one of the test."""
    while not condition():
        await asyncio.sleep(0)


def test_messages_arrive_in_order_and_a_shutdown_ends_the_loop(bridge: BridgeDouble) -> None:
    taken: list[int] = []

    async def main() -> None:
        async with await open_channel(bridge, name="alpha") as channel:
            assert channel.name == "alpha"
            await channel.subscribe(Quote, ReplayMark)

            def send() -> None:
                for number in range(1, 2001):
                    bridge.send(quote(number))
                bridge.send_control(control.Shutdown(deadline_ms=5000, reason="maintenance"))

            sending = asyncio.ensure_future(in_thread(send))
            assert [message.sequence async for message in channel] == list(range(1, 2001))
            await sending
            with pytest.raises(mycelium.ChannelClosed) as caught:
                await channel.recv(timeout=5)
            assert caught.value.reason == "maintenance"
            assert channel.statistics().frames_in == 2000
            taken.append(channel.statistics().bytes_in)
        with pytest.raises(mycelium.ChannelClosed):
            await channel.recv()
        assert [message async for message in channel] == []

    run(main())
    wait_until(bridge.hung_up.is_set, "hang-up")
    assert control.Goodbye.TOPIC_ID in bridge.names()
    assert [bridge.acknowledged] == taken


def test_every_sleeping_receiver_is_woken(make_bridge: MakeBridge, transport: str) -> None:
    for fenced in (False, True):
        bridge = make_bridge(transport=transport, fenced=fenced)

        async def main(bridge: BridgeDouble = bridge) -> None:
            async with await open_channel(bridge) as channel:
                signals = await channel.publisher(Signal)
                for number in range(1, 101):
                    receiving = asyncio.ensure_future(channel.recv())
                    parks = channel.statistics().parks
                    await until(lambda parks=parks: channel.statistics().parks > parks)
                    await in_thread(bridge.send, quote(number))
                    assert (await receiving).sequence == number
                    await signals.send(signal(number))
                    assert (await in_thread(bridge.take, Signal, 1))[0].quote_sequence == number
                await in_thread(bridge.hang_up)
                with pytest.raises(mycelium.PeerLost):
                    await channel.recv()

        run(main())


def test_a_cancelled_receive_takes_nothing_and_acknowledges_nothing(bridge: BridgeDouble) -> None:
    async def main() -> None:
        async with await open_channel(bridge) as channel:
            for number in range(1, 51):
                receiving = asyncio.ensure_future(channel.recv())
                await asyncio.sleep(0)
                sending = asyncio.ensure_future(in_thread(bridge.send, quote(number)))
                if number % 2:
                    await sending
                    await asyncio.sleep(0)  # The doorbell may have been handled, and the task not yet have run.
                receiving.cancel()
                (outcome,) = await asyncio.gather(receiving, return_exceptions=True)
                await sending
                if isinstance(outcome, asyncio.CancelledError):
                    outcome = await channel.recv()
                assert outcome.sequence == number
            with pytest.raises(TimeoutError):
                await channel.recv(timeout=0.001)
            with pytest.raises(TimeoutError):
                await channel.recv(timeout=0)

    run(main())


def test_a_message_in_hand_is_not_acknowledged_when_the_task_is_cancelled(bridge: BridgeDouble) -> None:
    async def main() -> None:
        async def handle() -> None:
            async with await open_channel(bridge) as channel:
                async for message in channel:
                    if message.sequence == 3:
                        reached.set()
                        await asyncio.Event().wait()

        reached = asyncio.Event()
        for number in range(1, 6):
            bridge.send_later(quote(number))
        task = asyncio.ensure_future(handle())
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())
    wait_until(bridge.hung_up.is_set, "hang-up")
    assert bridge.acknowledged == 2 * RECORD


def test_a_full_link_suspends_the_senders_until_there_is_room(bridge: BridgeDouble) -> None:
    async def main() -> None:
        async with await open_channel(bridge) as channel:
            signals = await channel.publisher(Signal)
            bridge.pause_reading()
            sent = 0
            with pytest.raises(mycelium.ChannelFull):
                while True:
                    signals.send_nowait(signal(sent + 1))
                    sent += 1
            with pytest.raises(mycelium.ChannelFull):
                await signals.send(signal(sent + 1), timeout=0.01)
            cancelled = asyncio.ensure_future(signals.send(signal(0)))
            await asyncio.sleep(0)
            cancelled.cancel()
            waiting = [asyncio.ensure_future(signals.send(signal(sent + 1)))]
            await asyncio.sleep(0)
            bridge.resume_reading()
            taken = await in_thread(bridge.take, Signal, sent + 1)
            await asyncio.gather(*waiting)
            assert [message.quote_sequence for message in taken] == list(range(1, sent + 2))
            async with signals.reserve() as reserved:
                reserved.set(
                    worker="w", quote_sequence=7, quote_timestamp_ns=0, strength=0.0, price=0.0, side=Side.HOLD
                )
            assert (await in_thread(bridge.take, Signal, 1))[0].quote_sequence == 7

    run(main())


def test_many_tasks_send_and_each_keeps_its_order(make_bridge: MakeBridge, transport: str) -> None:
    bridge = make_bridge(transport=transport, capacity=4096)

    async def main() -> None:
        async with await open_channel(bridge) as channel:
            signals = await channel.publisher(Signal)

            async def send(task: int) -> None:
                for number in range(200):
                    await signals.send(signal(task * 1000 + number))

            sending = [asyncio.ensure_future(send(task)) for task in range(5)]
            taken = await in_thread(bridge.take, Signal, 1000)
            await asyncio.gather(*sending)
            for task in range(5):
                mine = [it.quote_sequence for it in taken if it.quote_sequence // 1000 == task]
                assert mine == [task * 1000 + number for number in range(200)]

    run(main())


def test_requests_go_on_beside_a_sleeping_receiver(bridge: BridgeDouble) -> None:
    async def main() -> None:
        async with await open_channel(bridge) as channel:
            receiving = asyncio.ensure_future(channel.recv())
            await until(lambda: channel.statistics().parks > 0)
            await asyncio.gather(channel.subscribe(Quote), channel.subscribe(Quote), channel.subscribe(ReplayMark))
            await channel.unsubscribe(ReplayMark)
            with pytest.raises(RuntimeError, match="another task"):
                await channel.recv()
            bridge.send(quote(1))
            assert (await receiving).sequence == 1

    run(main())


def test_batches_come_whole(bridge: BridgeDouble) -> None:
    async def main() -> None:
        async with await open_channel(bridge) as channel:
            for number in range(1, 101):
                await in_thread(bridge.send, quote(number))
            seen: list[int] = []
            async for batch in channel.batches(limit=7):
                assert len(batch) <= 7
                seen += [message.sequence for message in batch]
                if len(seen) == 100:
                    break
            assert seen == list(range(1, 101))
            with pytest.raises(TimeoutError):
                await channel.recv_batch(timeout=0)
            with pytest.raises(ValueError, match="limit=0"):
                await channel.recv_batch(limit=0)

    run(main())


def test_closing_wakes_whoever_waits(bridge: BridgeDouble) -> None:
    async def main() -> None:
        channel = await open_channel(bridge)
        receiving = asyncio.ensure_future(channel.recv())
        await until(lambda: channel.statistics().parks > 0)
        await channel.close()
        await channel.close()
        with pytest.raises(mycelium.ChannelClosed):
            await receiving
        assert channel.fileno() == -1

    run(main())


def test_a_garbled_control_frame_reaches_the_program(make_bridge: MakeBridge) -> None:
    bridge = make_bridge(transport="shm")

    async def main() -> None:
        async with await open_channel(bridge) as channel:
            receiving = asyncio.ensure_future(channel.recv())
            await until(lambda: channel.statistics().parks > 0)
            bridge.send_raw(b"\x00" * 7 + b"\x01" + b"\x00" * 8)
            with pytest.raises(mycelium.ProtocolError):
                await receiving

    run(main())


def test_connecting_by_address_in_both_ways(make_bridge: MakeBridge, tmp_path: Path) -> None:
    path = tmp_path / "bridge.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        async def main() -> None:
            make_bridge(listener=listener)
            async with mycelium.aio.connect(f"unix:{path}", name="one") as channel:
                assert channel.name == "one"
                assert "AsyncChannel" in repr(channel)
            make_bridge(listener=listener)
            channel = await mycelium.aio.connect(f"unix:{path}", name="two")
            assert channel.name == "two"
            await channel.close()
            with pytest.raises(mycelium.PeerLost):
                await mycelium.aio.connect(f"unix:{tmp_path}/nobody")
            with pytest.raises(mycelium.AddressError):
                await mycelium.aio.connect()

        run(main())
