"""A link: the two ends of data, the control frames, and the waiting. One class per transport, one interface.

The channel decides *what* is waited for; a link knows *how*: which flag to raise, which descriptor to poll.
"""

from __future__ import annotations

import abc
import os
import select
import socket
import sys
import time
from _thread import get_ident
from collections import deque
from collections.abc import Callable
from itertools import repeat
from operator import length_hint

from . import _layout as layout
from . import _ordering as ordering
from ._doorbell import Doorbell
from ._frame import FrameDecoder, FrameHeader
from ._ring import Consumer, Producer, max_payload
from ._segment import Segment
from ._socket import SocketWriter
from ._stream import StreamConsumer, StreamProducer

__all__ = ["Link", "ShmLink", "StreamLink"]

_SPIN_ROUND = range(64)
_RECEIVE_LEN = 65536
_RINGS_MAX = sys.maxsize


class Link(abc.ABC):
    """What both transports share: the socket and the control frames on it.

    Attributes:
        control: Control frames that came and wait to be handled.
        eof: The bridge hung up.
        held: Returns the word of the record in the user's hands; None for nothing.
        receiver: The thread that receives; 0 for any. No other touches the consumer or reads the socket.
        parks: How often this side went to sleep.
        wakeups_received: Times that the doorbell (or, on the socket, a readable socket) ended a sleep.
    """

    transport: str
    consumer: Consumer | StreamConsumer
    producer: Producer | StreamProducer
    max_payload: int

    def __init__(self, sock: socket.socket, held: Callable[[], int | None]) -> None:
        self.sock = sock
        self.writer = SocketWriter(sock)
        self.control: deque[tuple[FrameHeader, bytes]] = deque()
        self.held = held
        self.parks = 0
        self.wakeups_received = 0
        self.receiver = 0
        self._poller = select.poll()

    @property
    def wakeups_sent(self) -> int:
        """Doorbell rings sent."""
        return 0

    @property
    def unhandled(self) -> bool:
        """Whether something came that an exception kept from being looked at; no descriptor tells of it any more."""
        return bool(self.control)

    def left_behind(self) -> tuple[int, int]:
        """Frames that are known to be unsent and unread when the link is lost; what the socket had is not known."""
        return 0, 0

    @property
    @abc.abstractmethod
    def eof(self) -> bool:
        """Whether the bridge hung up."""

    @abc.abstractmethod
    def fileno(self) -> int:
        """The descriptor that becomes readable when data comes."""

    def doorbell_fileno(self) -> int:
        """The doorbell; -1 where data comes over the socket."""
        return -1

    def released(self) -> int:
        """Word up to which records are released: the one in hand, or the next."""
        held = self.held()
        return self.consumer.word if held is None else held

    @abc.abstractmethod
    def idle(self) -> None:
        """Acknowledges what has to be acknowledged before reporting that nothing is there."""

    @abc.abstractmethod
    def acknowledge(self) -> None:
        """Acknowledges everything that is released."""

    @abc.abstractmethod
    def receive_control(self, *, ahead: bool) -> None:
        """Takes control frames from the socket into :attr:`control`; never blocks.

        Args:
            ahead: Also those that come behind data frames which are not read yet.
        """

    @abc.abstractmethod
    def spin(self, budget_ns: int) -> bool:
        """Looks for data until the budget is used up; True when there is some."""

    @abc.abstractmethod
    def arm(self) -> bool:
        """Makes the bridge wake this side when data comes; False if data is already there."""

    @abc.abstractmethod
    def lower(self) -> None:
        """Ends :meth:`arm` as far as the bridge sees it."""

    @abc.abstractmethod
    def arm_for_room(self, count: int) -> bool:
        """Makes the bridge wake this side when there may be room for so many words; False if there is."""

    @abc.abstractmethod
    def lower_for_room(self) -> None:
        """Ends :meth:`arm_for_room`."""

    @abc.abstractmethod
    def take_wakeup(self) -> bool:
        """Takes the wakeup off :meth:`fileno`; whether there was one."""

    @abc.abstractmethod
    def bounded(self, timeout_ms: float | None) -> float | None:
        """Cuts a sleep to what the link allows."""

    @abc.abstractmethod
    def sleep(self, timeout_ms: float | None, *, for_room: bool) -> None:
        """Sleeps until there may be data, room, a control frame, or the end of the time."""

    def park(self, timeout_ms: float | None) -> None:
        """Sleeps until there may be data, a control frame, or the end of the time."""
        try:
            if self.arm():
                self.sleep(timeout_ms, for_room=False)
        finally:
            self.lower()

    def park_for_room(self, count: int, timeout_ms: float | None) -> None:
        """Sleeps until there may be room for a record of so many words."""
        try:
            if self.arm_for_room(count):
                self.sleep(timeout_ms, for_room=True)
        finally:
            self.lower_for_room()

    def close(self) -> None:
        """Gives everything back to the system."""
        self.sock.close()


class ShmLink(Link):
    """Data in two rings of shared memory; the socket carries control frames only.

    Args:
        sock: The control socket.
        segment: The mapped segment; owned from here on.
        own: The doorbell that this side polls.
        peer: The doorbell that this side rings.
        fenced: FENCED mode.
        barrier: See :class:`mycelium._ordering.Ordering`.
        largest: Longest payload, from the handshake, in bytes.
        held: Returns the word of the record in hand.
        rest: Bytes that came with the handshake.
    """

    transport = "shm"
    consumer: Consumer
    producer: Producer

    def __init__(
        self,
        sock: socket.socket,
        segment: Segment,
        own: Doorbell,
        peer: Doorbell,
        *,
        fenced: bool,
        barrier: Callable[[], None] | None,
        largest: int,
        held: Callable[[], int | None],
        rest: bytes = b"",
    ) -> None:
        super().__init__(sock, held)
        self._segment = segment
        self._own = own
        self._peer = peer
        self._fenced = fenced
        self._eof = False
        self._both: select.epoll | None = None  # doorbell and socket as one descriptor, for loops of others
        self._received: list[bytes] = []
        self._decoder = FrameDecoder()
        self._decoder.feed(rest)
        rings = [segment.ring(layout.RING_TO_PEER), segment.ring(layout.RING_TO_BRIDGE)]
        largest_in, self.max_payload = (min(largest, max_payload(ring.capacity)) for ring in rings)
        self._rings_left = repeat(peer.fileno(), _RINGS_MAX)
        # One call into C: between clearing the flag and ringing there is no place where a signal handler could raise.
        notify = map(os.eventfd_write, self._rings_left, repeat(1)).__next__
        self.consumer = Consumer(rings[0], max_payload=largest_in, barrier=barrier, notify=notify)
        self.producer = Producer(rings[1], max_payload=self.max_payload, barrier=barrier, notify=notify, fenced=fenced)
        self.consumer.set_parked(False)  # A predecessor may have died asleep.
        self.producer.set_parked(False)
        # Or after it had cleared the bridge's flag and before it rang, so the flags cannot tell whether a ring is owed.
        peer.notify()
        self._poller.register(own.fileno(), select.POLLIN)
        self._poller.register(sock, select.POLLIN)

    @property
    def unhandled(self) -> bool:
        return bool(self.control or self._received or self._decoder.unfinished)

    def left_behind(self) -> tuple[int, int]:
        return self.producer.untaken(), self.consumer.unread()

    @property
    def wakeups_sent(self) -> int:
        return _RINGS_MAX - length_hint(self._rings_left)

    @property
    def eof(self) -> bool:
        return self._eof

    def fileno(self) -> int:
        if self._both is None:
            self._both = select.epoll()
            self._both.register(self._own.fileno(), select.EPOLLIN)
            self._both.register(self.sock, select.EPOLLIN)
        return self._both.fileno()

    def doorbell_fileno(self) -> int:
        return self._own.fileno()

    def idle(self) -> None:
        self.consumer.publish(self.released())

    def acknowledge(self) -> None:
        self.consumer.publish(self.released())

    def receive_control(self, *, ahead: bool) -> None:
        if self.writer.pending:
            self.writer.flush()
        received = self._received
        while not self._eof:
            try:
                # The outcome is in the list even if a signal handler raises right behind the call.
                received.extend(map(self.sock.recv, (_RECEIVE_LEN,)))
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                received.append(b"")
            self._eof = not received[-1]
            self._decoder.feed_all(received)
        self._decoder.feed_all(received)
        self._decoder.frames_into(self.control)

    def spin(self, budget_ns: int) -> bool:
        words, word = self.consumer.words, self.consumer.word
        clock = time.monotonic_ns
        end = clock() + budget_ns
        while True:
            for _ in _SPIN_ROUND:
                if words[word]:
                    return True
            if clock() >= end:
                return False

    def arm(self) -> bool:
        self.consumer.detach_arrays()  # Nobody knows how long they live, and the bridge may wait for their room.
        self.idle()
        self.consumer.set_parked(True)
        if not self._fenced:
            ordering.heavy_fence()
        return not self.consumer.has_data

    def lower(self) -> None:
        self.consumer.set_parked(False)

    def arm_for_room(self, count: int) -> bool:
        self.consumer.detach_arrays()
        self.consumer.publish(self.released())
        self.producer.set_parked(True)
        if not self._fenced:
            ordering.heavy_fence()
        return not self.producer.has_room(count)

    def lower_for_room(self) -> None:
        self.producer.set_parked(False)

    def take_wakeup(self) -> bool:
        woken = self._own.drain()
        self.wakeups_received += woken
        return woken

    def bounded(self, timeout_ms: float | None) -> float | None:
        if not self._fenced:
            return timeout_ms
        return layout.FENCED_PARK_MS if timeout_ms is None else min(timeout_ms, layout.FENCED_PARK_MS)

    def sleep(self, timeout_ms: float | None, *, for_room: bool) -> None:
        self.parks += 1
        for fd, _ in self._poller.poll(self.bounded(timeout_ms)):
            if fd == self._own.fileno():
                self.take_wakeup()
            else:
                self.receive_control(ahead=False)

    def close(self) -> None:
        if self._both is not None:
            self._both.close()
        self._segment.close()
        self._own.close()
        self._peer.close()
        super().close()


class StreamLink(Link):
    """Data and control frames on the socket.

    Args:
        sock: The socket.
        largest: Longest payload, from the handshake, in bytes.
        ack_window: From the handshake, in bytes.
        held: Returns the word of the record in hand.
        rest: Bytes that came with the handshake.
    """

    transport = "socket"
    consumer: StreamConsumer
    producer: StreamProducer

    def __init__(
        self, sock: socket.socket, *, largest: int, ack_window: int, held: Callable[[], int | None], rest: bytes = b""
    ) -> None:
        super().__init__(sock, held)
        self.max_payload = largest
        self._ack_at: int | None = None
        self.acks = 0
        self.consumer = StreamConsumer(
            sock, max_payload=largest, ack_window=ack_window, send_ack=self._acknowledge_up_to, rest=rest
        )
        self.producer = StreamProducer(self.writer, take_ack=self._take_ack)
        self._poller.register(sock, select.POLLIN)

    @property
    def eof(self) -> bool:
        return self.consumer.eof

    def fileno(self) -> int:
        return self.sock.fileno()

    @property
    def unhandled(self) -> bool:
        return bool(self.control) or self.consumer.unsettled

    def _acknowledge_up_to(self, word: int) -> None:
        ack = self.consumer.take_ack(word)
        if ack:
            self.acks += 1
            self.writer.write(ack)

    def _take_ack(self) -> bytes:
        if self.receiver not in (0, get_ident()):
            return b""
        ack = self.consumer.take_ack(self.released())
        self.acks += bool(ack)
        self._ack_at = None
        return ack

    def acknowledge(self) -> None:
        ack = self._take_ack()
        if ack:
            self.writer.write(ack)

    def idle(self) -> None:
        if not self.consumer.unacknowledged(self.released()):
            self._ack_at = None
            return
        now = time.monotonic_ns()
        if self._ack_at is None:
            self._ack_at = now + layout.SOCKET_ACK_DELAY_MS * 1_000_000
        if now >= self._ack_at or self.consumer.ack_due(self.released()):
            self.acknowledge()

    def receive_control(self, *, ahead: bool) -> None:
        if self.writer.pending:
            self.writer.flush()
        self.consumer.fill(movable=self.held() is None)
        if ahead:
            self.control.extend(self.consumer.scan_control())

    def spin(self, budget_ns: int) -> bool:
        consumer, clock = self.consumer, time.monotonic_ns
        end = clock() + budget_ns
        while not consumer.eof:
            if consumer.fill(movable=self.held() is None):
                return True
            if clock() >= end:
                break
        return False

    def arm(self) -> bool:
        return not self.consumer.has_data

    def lower(self) -> None:
        """Nothing was raised."""

    def arm_for_room(self, count: int) -> bool:
        return True

    def lower_for_room(self) -> None:
        """Nothing was raised."""

    def take_wakeup(self) -> bool:
        return False

    def bounded(self, timeout_ms: float | None) -> float | None:
        if self._ack_at is None:  # set by idle(): when a late acknowledgement is due
            return timeout_ms
        left = max(self._ack_at - time.monotonic_ns(), 0) / 1e6
        return left if timeout_ms is None else min(timeout_ms, left)

    def park(self, timeout_ms: float | None) -> None:
        self.idle()
        self.sleep(self.bounded(timeout_ms), for_room=False)

    def sleep(self, timeout_ms: float | None, *, for_room: bool) -> None:
        # Reading goes on while room is awaited, or two full sockets could wait for each other for ever.
        events = select.POLLIN | (select.POLLOUT if for_room or self.writer.pending else 0)
        self._poller.modify(self.sock, events)
        self.parks += 1
        ready = self._poller.poll(timeout_ms)
        if not ready:
            return
        self.wakeups_received += 1
        if ready[0][1] & ~select.POLLOUT:
            self.consumer.fill(movable=self.held() is None)
        self.writer.flush()

    def close(self) -> None:
        self.consumer.close()
        self.producer.close()
        super().close()


def close_fds(fds: list[int]) -> None:
    """Closes descriptors and empties the list."""
    while fds:
        os.close(fds.pop())
