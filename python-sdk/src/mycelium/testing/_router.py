"""Moves messages on one link as a bridge would, in the double's thread."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from .. import _control as control
from .. import _layout as layout
from .. import _ordering
from .._frame import FrameHeader, record_len
from ._link import LinkDouble

__all__ = ["Frame", "Router"]

Frame = tuple[int, bytes]
"""Header word and payload."""

_OUTBOX_LEN = 65536
_LOOK_S = 0.002
"""How often a condition of a test is looked at while nothing else happens, in seconds."""


class Router(LinkDouble):
    """A link that delivers and takes messages on its own.

    Everything happens under :attr:`changed`, in the thread or in :meth:`settle`.

    Args:
        topics: Topic id -> layout digest of the contracts; None takes every topic.
        subscribed: Topics that the peer gets without asking for them.
        refused: Topic id -> the code that answers Subscribe and Advertise.
        policies: Topic id -> the policy of its contract, which a Subscribe without one gets.
        keyless: Topics that cannot be conflated.
        options: As :class:`LinkDouble`.

    Attributes:
        backlog: Frames that are not delivered yet.
        deliveries: Topic id -> the policy of the subscription, where the peer has subscribed itself.
        taken: Frames that the peer published and nobody has asked for yet.
        paused: Whether nothing is taken from the peer.
    """

    def __init__(
        self,
        *,
        topics: dict[int, bytes] | None,
        subscribed: frozenset[int],
        refused: dict[int, control.TopicReplyCode],
        policies: dict[int, control.Delivery] | None = None,
        keyless: frozenset[int] = frozenset(),
        **options: Any,
    ) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.backlog: deque[Frame] = deque()
        self.taken: list[tuple[FrameHeader, bytes]] = []
        self.paused = False
        self._topics = topics
        self._always = subscribed
        self._refused = refused
        self._policies = policies or {}
        self._keyless = keyless
        self.deliveries: dict[int, int] = {}
        self._subscribed = set(subscribed)
        self._unsubscribed: set[int] = set()
        self._flying: deque[tuple[int, Frame]] = deque()
        self._sent = 0
        self._outbox = bytearray()
        self._killed = False
        self._head_at_kill = self._tail_at_kill = 0
        self._shutdown: control.Shutdown | None = None
        self._shutdown_waits = False
        self._until: Callable[[], bool] | None = None
        self._until_end = 0.0
        self.until_missed = False
        self.until_problem: BaseException | None = None
        super().__init__(**options)

    # ---- what the test's thread does

    def wake(self) -> None:
        """Makes the thread look again."""
        if not self.hung_up.is_set():
            os.write(self._stop_w, b"w")

    def deliver(self, frames: list[Frame]) -> None:
        """Adds frames for the peer."""
        with self.changed:
            self.backlog.extend(frames)
            self.settle()

    def settle(self) -> None:
        """Does at once in this thread what the double's thread would do."""
        with self.changed:
            if not self.hung_up.is_set():
                self._work()
            self.wake()

    def shut_down(self, deadline_s: float, reason: str, *, waits: bool) -> None:
        """Sends Shutdown: now, or once everything is delivered."""
        with self.changed:
            self._shutdown = control.Shutdown(deadline_ms=int(deadline_s * 1000), reason=reason)
            self._shutdown_waits = waits
            self.settle()

    def stop_when(self, until: Callable[[], bool] | None, timeout: float) -> None:
        """Shuts down once the condition holds (None: everything was handled), or after so many seconds."""
        with self.changed:
            self._until_end = time.monotonic() + timeout
            self._until = self._all_handled if until is None else until
            self.until_missed = False
            self.until_problem = None
            self.wake()

    def kill(self) -> None:
        """From here on nothing that the peer does counts, until :meth:`next_session`."""
        with self.changed:
            self._work()
            self._forget_acknowledged()
            self._killed = True
            self._head_at_kill = self.released
            if self.segment is not None:
                ring = self.segment.ring(layout.RING_TO_BRIDGE)
                self._tail_at_kill = int(ring.views.u64[ring.control + layout.RING_TAIL_OFFSET // 8])

    def next_session(self) -> None:
        """Ends this session, and lets the next peer take over what the last one had not acknowledged."""
        self.end_session()
        self.peer_sock.close()
        if self.problem is not None:
            return
        self._take_back()
        self._killed = False
        self._outbox.clear()
        self._subscribed = set(self._always)
        self._unsubscribed.clear()
        self.deliveries.clear()
        self._shutdown = self._until = None
        self.start_session()

    @property
    def unacknowledged(self) -> int:
        """Messages that were delivered and that the peer has not acknowledged."""
        with self.changed:
            self._forget_acknowledged()
            return len(self._flying)

    # ---- the thread

    def on_command(self, command: bytes) -> bool:
        return command != b"x"

    def before_sleep(self) -> tuple[list[Any], list[Any], float | None]:
        with self.changed:
            readers: list[Any] = [self.sock]
            timeout = None if self._until is None else _LOOK_S
            if self._over_shm and not self._killed:
                readers.append(self.own_bell)
                if self._arm():
                    timeout = 0
            elif self.paused and self.attached is not None:
                readers = []
            return readers, [self.sock] if self._outbox else [], timeout

    def _arm(self) -> bool:
        """Raises the parked flags; True if there is something to do already."""
        waits_for_room = self._next_frame() is not None
        self.consumer.set_parked(not self.paused)
        self.producer.set_parked(waits_for_room)
        if _ordering.membarrier_registered():
            _ordering.heavy_fence()
        return (not self.paused and self.consumer.has_data) or (waits_for_room and self._has_room())

    def _disarm(self) -> None:
        if self._over_shm and not self._killed:
            self.consumer.set_parked(False)
            self.producer.set_parked(False)
            self.own_bell.drain()

    def turn(self) -> bool:
        with self.changed:
            self._disarm()
            alive = self._work()
            self.changed.notify_all()
            return alive

    def on_hang_up(self) -> None:
        with self.changed:
            if not self._killed and self.problem is None:
                self._take()
                self._forget_acknowledged()
            self.changed.notify_all()

    def _work(self) -> bool:
        reads = self._over_shm or self._killed or not self.paused or self.attached is None
        alive = super().turn() if reads else True
        if self._killed:
            self.received.clear()
            return alive
        self.send_raw(b"")  # what was left over
        self._take()
        if self.attached is not None and alive:
            self._feed()
        self._look_at_condition()
        ready = self.attached is not None and alive and not (self._shutdown_waits and self.backlog)
        if self._shutdown is not None and ready:
            self.send_control(self._shutdown)
            self._shutdown = None
        return alive

    # ---- moving

    @property
    def _over_shm(self) -> bool:
        return self.attached is not None and self.attached.transport == control.AttachedTransport.SHM

    def _take(self) -> None:
        if self.paused:
            return
        if self._over_shm:
            while (record := self.take_record()) is not None:
                self.taken.append(record)
        self.taken += self.received
        self.received.clear()

    def _next_frame(self) -> Frame | None:
        """The frame that is to be delivered next; None where there is none, or nobody has subscribed to it yet."""
        while self.backlog:
            topic_id = self.backlog[0][0] >> 32 & 0xFFFF
            if topic_id in self._subscribed:
                return self.backlog[0]
            if topic_id not in self._unsubscribed:
                return None
            self.backlog.popleft()
        return None

    def _has_room(self) -> bool:
        frame = self._next_frame()
        return frame is not None and self.producer.has_room(record_len(len(frame[1])) // 8)

    def _feed(self) -> None:
        while (frame := self._next_frame()) is not None:
            header, payload = frame
            if self._over_shm:
                if not self.put_record(header, payload):
                    return
                self._flying.append((self.producer.position, frame))
            else:
                if len(self._outbox) > _OUTBOX_LEN:
                    return
                data = header.to_bytes(8, "little") + payload + bytes(-len(payload) % 8)
                self._sent += len(data)
                self._flying.append((self._sent, frame))
                self.send_raw(data)
            self.backlog.popleft()

    def send_raw(self, data: bytes) -> None:
        """Sends bytes on the socket; what it does not take now goes out later, in order."""
        self._outbox += data
        with contextlib.suppress(BlockingIOError, OSError):
            while self._outbox:
                del self._outbox[: self.sock.send(self._outbox)]

    def _forget_acknowledged(self) -> None:
        if self._killed:
            return
        while self._flying and self._flying[0][0] <= self.released:
            self._flying.popleft()

    def _take_back(self) -> None:
        """Undoes what a killed peer did after its death, and puts unacknowledged frames of a socket back in front."""
        if self.segment is None:
            self.backlog.extendleft(frame for _, frame in reversed(self._flying))
            self._flying.clear()
            self._sent = 0
            return
        if not self._killed:
            return
        to_peer, to_bridge = (self.segment.ring(number) for number in (layout.RING_TO_PEER, layout.RING_TO_BRIDGE))
        to_peer.views.u64[to_peer.control + layout.RING_HEAD_OFFSET // 8] = self._head_at_kill
        words, tail = to_bridge.views.u64, self._tail_at_kill
        words[to_bridge.base + (tail & (to_bridge.capacity - 1)) // 8] = 0
        words[to_bridge.control + layout.RING_TAIL_OFFSET // 8] = tail

    # ---- requests and conditions

    def on_request(self, request: int, topic_id: int, digest: bytes) -> None:
        code, reason = control.TopicReplyCode.OK, ""
        if request != control.Unsubscribe.TOPIC_ID:
            if topic_id in self._refused:
                code, reason = self._refused[topic_id], "refused by the test"
            elif self._topics is not None and topic_id not in self._topics:
                code, reason = control.TopicReplyCode.UNKNOWN_TOPIC, f"not in the contracts: topic_id={topic_id}"
            elif self._topics is not None and digest != self._topics[topic_id]:
                code = control.TopicReplyCode.LAYOUT_MISMATCH
                reason = f"expected={self._topics[topic_id][:6].hex()} actual={digest[:6].hex()}"
            elif self.asked == control.Delivery.CONFLATE and topic_id in self._keyless:
                code, reason = control.TopicReplyCode.BAD_DELIVERY, "asked=conflate key=none; ask for drop_oldest"
        if code == control.TopicReplyCode.OK:
            if request == control.Subscribe.TOPIC_ID:
                self._subscribed.add(topic_id)
                self._unsubscribed.discard(topic_id)
                self.asked = self.asked or self._policies.get(topic_id) or control.Delivery.BLOCK
                self.deliveries[topic_id] = self.asked
            elif request == control.Unsubscribe.TOPIC_ID:
                self._subscribed.discard(topic_id)
                self._unsubscribed.add(topic_id)
                self.deliveries.pop(topic_id, None)
        self.reply(request, topic_id, code, reason)

    def waiting(self) -> list[int]:
        """Topics of frames that nobody has subscribed to."""
        with self.changed:
            return sorted({header >> 32 & 0xFFFF for header, _ in self.backlog} - self._subscribed)

    def _all_handled(self) -> bool:
        """Everything is acknowledged, or only arrays keep it: a peer that sleeps for more has seen what there is."""
        self._forget_acknowledged()
        return self.attached is not None and not self.backlog and (not self._flying or self.peer_sleeps)

    def _look_at_condition(self) -> None:
        until, self._until = self._until, None  # it may publish, which leads back to here
        if until is None:
            return
        try:
            if not until():
                if time.monotonic() < self._until_end:
                    self._until = until
                    return
                self.until_missed = True
        except BaseException as problem:  # of the test; raised in its own thread
            self.until_problem = problem
        self._shutdown = control.Shutdown(deadline_ms=5000, reason="the test is over")
        self._shutdown_waits = False
