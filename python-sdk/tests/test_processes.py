"""Whole worker processes: the example, Ctrl-C, and a worker that is killed while it handles a message."""

from __future__ import annotations

import os
import signal as signals
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from bridge_double import PATIENCE_S, BridgeDouble, wait_until
from builders import quote
from mycelium import _control as control
from mycelium import _layout as layout
from mycelium.messages import Quote, Signal

ROOT = Path(__file__).parent.parent
MakeBridge = Callable[..., BridgeDouble]

STUCK_WORKER = """
import signal
import mycelium
from mycelium.messages import Side, Signal

with mycelium.connect() as channel:
    publisher = channel.publisher(Signal)
    for quote in channel:
        publisher.send(Signal(worker="stuck", side=Side.HOLD, quote_sequence=quote.sequence))
        if quote.sequence == 3:
            signal.pause()
"""


def start(bridge: BridgeDouble, *command: str) -> subprocess.Popen[bytes]:
    """Starts a worker as a bridge does."""
    fd = bridge.peer_sock.fileno()
    environment = {**os.environ, "MYCELIUM_FD": str(fd), "MYCELIUM_WORKER": "echo", "PYTHONPATH": str(ROOT / "src")}
    process = subprocess.Popen([sys.executable, *command], pass_fds=[fd], env=environment)
    bridge.peer_sock.close()
    return process


def test_the_example_answers_every_quote_and_ends_with_the_bridge(bridge: BridgeDouble, transport: str) -> None:
    process = start(bridge, str(ROOT / "examples" / "echo.py"))
    assert bridge.over_shm == (transport == "shm")
    wait_until(lambda: control.Advertise.TOPIC_ID in bridge.names(), "the publisher")
    for number in range(1, 101):
        bridge.send(quote(number))
    answers = bridge.take(Signal, 100)
    assert [answer.quote_sequence for answer in answers] == list(range(1, 101))
    assert {answer.worker for answer in answers} == {"echo"}
    bridge.send_control(control.Shutdown(deadline_ms=10_000, reason="done"))
    assert process.wait(PATIENCE_S) == 0
    wait_until(bridge.hung_up.is_set, "hang-up")
    assert bridge.names()[-1] == control.Goodbye.TOPIC_ID
    assert bridge.acknowledged == 100 * (8 + Quote.SIZE)


def test_an_interrupt_ends_a_sleeping_worker_with_a_goodbye(bridge: BridgeDouble) -> None:
    process = start(bridge, str(ROOT / "examples" / "echo.py"))
    wait_until(lambda: control.Advertise.TOPIC_ID in bridge.names(), "the publisher")
    bridge.send(quote(1))
    assert len(bridge.take(Signal, 1)) == 1
    process.send_signal(signals.SIGINT)
    assert process.wait(PATIENCE_S) == 130
    wait_until(bridge.hung_up.is_set, "hang-up")
    assert control.Goodbye.TOPIC_ID in bridge.names()
    if bridge.over_shm:
        assert bridge.segment is not None
        ring = bridge.segment.ring(layout.RING_TO_PEER)
        assert ring.views.u64[ring.control + layout.RING_CONSUMER_PARKED_OFFSET // 8] == 0


def test_a_killed_worker_leaves_the_message_in_its_hands_to_its_successor(make_bridge: MakeBridge) -> None:
    first = make_bridge()
    process = start(first, "-c", STUCK_WORKER)
    for number in range(1, 6):
        first.send(quote(number))
    assert [answer.quote_sequence for answer in first.take(Signal, 3)] == [1, 2, 3]
    process.kill()
    process.wait(PATIENCE_S)
    wait_until(first.hung_up.is_set, "hang-up")
    assert control.Goodbye.TOPIC_ID not in first.names()
    second = make_bridge(segment_fd=first.segment_fd)
    with second.connect() as channel:
        seen = [channel.recv(timeout=30).sequence]
        while seen[-1] < 5:
            seen.append(channel.recv(timeout=30).sequence)
    assert seen == list(range(seen[0], 6))
    assert seen[0] <= 3


def test_no_wakeup_is_lost_when_both_sides_sleep_between_messages(make_bridge: MakeBridge, transport: str) -> None:
    bridge = make_bridge(transport=transport, spin_us=0)
    process = start(bridge, str(ROOT / "examples" / "echo.py"))
    wait_until(lambda: control.Advertise.TOPIC_ID in bridge.names(), "the publisher")
    for number in range(1, 301):
        bridge.send(quote(number))
        assert bridge.take(Signal, 1)[0].quote_sequence == number
    bridge.send_control(control.Shutdown(deadline_ms=10_000, reason="done"))
    assert process.wait(PATIENCE_S) == 0


def test_a_stream_through_small_rings_keeps_order_in_both_directions(make_bridge: MakeBridge, transport: str) -> None:
    bridge = make_bridge(transport=transport, capacity=4096)
    process = start(bridge, str(ROOT / "examples" / "echo.py"))
    wait_until(lambda: control.Advertise.TOPIC_ID in bridge.names(), "the publisher")
    sender = threading.Thread(target=lambda: [bridge.send(quote(number)) for number in range(1, 5001)])
    sender.start()
    answers = bridge.take(Signal, 5000)
    sender.join()
    assert [answer.quote_sequence for answer in answers] == list(range(1, 5001))
    process.kill()
    process.wait(PATIENCE_S)
