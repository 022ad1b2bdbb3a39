"""Channels in loops of others, and what is left of a channel when it is closed."""

from __future__ import annotations

import gc
import os
import selectors
import threading
from collections.abc import Callable
from pathlib import Path

import mycelium
from bridge_double import PATIENCE_S, BridgeDouble
from builders import quote, signal
from mycelium.messages import Signal

MakeBridge = Callable[..., BridgeDouble]
CONNECTS = int(os.environ.get("MYCELIUM_LEAK_CONNECTS", "300"))


def test_several_channels_and_another_descriptor_in_one_loop(make_bridge: MakeBridge) -> None:
    bridges = [make_bridge(transport="shm"), make_bridge(transport="shm"), make_bridge(transport="socket")]
    channels = [bridge.connect() for bridge in bridges]
    read, write = os.pipe()
    count = 100

    def feed() -> None:
        for number in range(count):
            for bridge in bridges:
                bridge.send(quote(number))
            os.write(write, b"x")
        bridges[0].hang_up()  # which the descriptor has to show as well

    feeder = threading.Thread(target=feed)
    seen: dict[int, list[int]] = {id(channel): [] for channel in channels}
    ticks, lost = 0, []
    with selectors.DefaultSelector() as selector:
        for channel in channels:
            selector.register(channel, selectors.EVENT_READ)
        selector.register(read, selectors.EVENT_READ)
        feeder.start()
        while ticks < count or not lost or any(len(it) < count for it in seen.values()):
            armed = [channel.arm() for channel in channels if channel not in lost]
            waits = all(armed)
            ready = selector.select(PATIENCE_S if waits else 0)
            assert ready or not waits, "nothing woke the loop"
            if any(key.fileobj == read for key, _ in ready):
                ticks += len(os.read(read, 4096))
            for channel in channels:
                if channel in lost:
                    continue
                channel.disarm()
                try:
                    while True:
                        seen[id(channel)].append(channel.recv(timeout=0).sequence)
                except TimeoutError:
                    pass
                except mycelium.PeerLost:
                    lost.append(channel)
                    selector.unregister(channel)
    feeder.join()
    assert list(seen.values()) == [list(range(count))] * 3
    assert lost == [channels[0]]
    for channel in channels:
        channel.close()
    os.close(read)
    os.close(write)


def held() -> tuple[int, int]:
    """Open descriptors and mapped areas of this process."""
    gc.collect()
    maps = Path("/proc/self/maps").read_text().count("mycelium")
    return len(os.listdir("/proc/self/fd")), maps


def resident_kib() -> int:
    """Memory of this process, in KiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4


def test_connecting_again_and_again_leaves_nothing_behind(transport: str) -> None:
    def once() -> None:
        bridge = BridgeDouble(transport=transport)
        with bridge.connect() as channel:
            assert channel.fileno() >= 0
            channel.publisher(Signal).send(signal(1))
            bridge.send(quote(1))
            channel.recv(timeout=PATIENCE_S)
        bridge.close()

    for _ in range(30):
        once()
    before, objects, memory = held(), len(gc.get_objects()), resident_kib()
    for _ in range(CONNECTS):
        once()
    assert held() == before
    assert len(gc.get_objects()) - objects < CONNECTS, "less than one object each"
    assert resident_kib() - memory < 4096 + CONNECTS, "less than one KiB each, beside what the allocator keeps"
