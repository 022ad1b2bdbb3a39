"""Sending, and which thread may do what: the part of a channel that makes room and claims it.

Any thread may publish. From a claim to its commit a thread holds the gate, and the short way of all others is shut
(``Producer.limit``); nobody sleeps while holding it. Doorbell, socket and ``head`` belong to the thread that receives.
"""

from __future__ import annotations

import sys
import time
from _thread import get_ident
from threading import Lock
from typing import Any

from ._doorbell import SpinBudget, deadline_after
from ._inbox import Inbox
from ._reconnect import Recovery
from .exceptions import ChannelClosed, ChannelError, ChannelFull, FrameTooLarge, PeerLost

__all__ = ["LOOK_MS", "Outbox"]

_SPIN_ROUND = range(64)
LOOK_MS = 1
"""How often a thread looks that may not wait for the doorbell."""
_REFERENCES_WHEN_LEFT = 3
"""References to a reservation outside of its block: of its publisher, its channel, and the call that counts them."""


class Outbox(Inbox):
    """The part of a channel that sends; it is a base class of :class:`ChannelCore` only."""

    max_payload: int
    _spin: SpinBudget

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._reserved: Any = None  # the open reservation
        self._gate = Lock()  # held from a claim to its commit, and by nobody who sleeps
        self._in_gate = 0  # the thread that holds it
        self._owner = 0  # the thread that receives
        self._sleeper: dict[str, int] = {}  # the thread that waits for doorbell and socket, if one does
        self._recovery: Recovery | None = None
        self._down = False  # from the loss of a link until everything is restored

    def _loses(self, error: ChannelError) -> bool:
        """Whether the end of the link that this error tells of is to be repaired."""
        if self._recovery is None or self._closed:
            return False
        ended = self._shutdown is not None and self._recovery.plan.after_shutdown
        return isinstance(error, PeerLost) if self._shutdown is None else ended

    def _deadline(self, timeout: float | None) -> int | None:
        return deadline_after(timeout)

    def _left_ms(self, deadline: int | None) -> float | None:
        """Milliseconds until the deadline; 0 once it has passed, None for never."""
        return None if deadline is None else max(deadline - time.monotonic_ns(), 0) / 1e6

    def _seconds_left(self) -> float:
        """Seconds that the bridge's shutdown leaves; infinity without one."""
        left = self._left_ms(self._shutdown_at)
        return float("inf") if left is None else left / 1e3

    def _check_sendable(self, count: int) -> None:
        """Raises if a record of so many words cannot be sent by this thread now, room or not."""
        self._check_open()
        me = get_ident()
        self._check_reserved()
        if self._in_gate == me and self._gate.locked():
            raise RuntimeError("sending inside of a send, as a signal handler may do; leave it to the main program")
        payload_len = count * 8 - 8
        if payload_len > (self.max_payload + 7) & ~7:
            text = f"frame too large: payload_len={payload_len}, legal: 0..={self.max_payload}; enlarge ring_capacity"
            raise FrameTooLarge(text, payload_len=payload_len, max_payload=self.max_payload)

    def _check_reserved(self) -> None:
        """Raises where this thread is inside of the block of a reservation.

        A signal handler that raises can keep that block from being entered, or its end from being run. Then nobody but
        the publisher and this channel know the reservation any more, and nothing came of it.
        """
        if self._reserved is None or self._reserved._thread != get_ident():
            return
        if sys.getrefcount(self._reserved) > _REFERENCES_WHEN_LEFT:
            raise RuntimeError("a reservation is open on this channel; leave its block before sending")
        self._give_up(self._reserved)

    def _give_up(self, reservation: Any) -> None:
        """Ends a reservation of this thread that comes to nothing."""
        if self._reserved is reservation and reservation._thread == get_ident():
            self._link.producer.abandon()
            self._reserved = None

    def _try_claim(self, count: int) -> int:
        """Makes room, inside of the gate; -1 where there is none. The commit, or ``reopen()``, must follow."""
        self._in_gate = get_ident()
        producer = self._link.producer
        return -1 if self._reserved is not None or self._down else producer.claim(count)

    def _send_record(self, data: bytes, header: int, count: int, deadline: int | None) -> None:
        """Publishes a record of so many words, whose bytes behind the header are given; waits for room if need be."""
        while True:
            self._check_sendable(count)
            with self._gate:
                word = self._try_claim(count)
                if word >= 0:
                    producer = self._link.producer
                    producer.views.raw[word * 8 + 8 : (word + count) * 8] = data
                    producer.commit(word, word + count, header)
                self._in_gate = 0
            if word >= 0:
                return self._flush(deadline)
            self._wait_for_room(count, deadline)

    def _claim(self, count: int, deadline: int | None, reservation: Any) -> int:
        """Makes room for a reservation of this thread, waiting if need be; returns its word."""
        while True:
            self._check_sendable(count)
            with self._gate:
                word = self._try_claim(count)
                if word >= 0:
                    reservation._thread = self._in_gate
                    self._reserved = reservation
                self._in_gate = 0
            if word >= 0:
                return word
            self._wait_for_room(count, deadline)

    def _wait_for_room(self, count: int, deadline: int | None) -> None:
        """Waits until there may be room for a record of so many words.

        Raises:
            ChannelFull: The deadline has passed; the rest as :meth:`_blocked`.
        """
        if self._left_ms(deadline) != 0 and self._spin_for_room(count):
            return
        if self._owner not in (0, get_ident()) or not self._may_sleep():
            self._wait_elsewhere(count, deadline)
            return
        try:
            if self._down:  # another link may be there, but not everything is restored
                raise PeerLost(f"link lost: link={self.name}")
            left = self._blocked(deadline)
            if left == 0:
                raise self._full(count)
            self._link.park_for_room(count, left)
        except (PeerLost, ChannelClosed) as error:
            if not self._loses(error):
                raise
            self._slept()
            self._repair(error, count, deadline)
        finally:
            self._slept()

    def _repair(self, error: ChannelError, count: int, deadline: int | None) -> None:
        """Makes a lost link again, for a sender that waits."""
        raise error

    def _wait_elsewhere(self, count: int, deadline: int | None) -> None:
        """Waits in a thread that does not receive: doorbell, socket and head belong to the one that does."""
        link = self._link
        if self._failure is not None:
            raise self._failure
        if (link.eof or link.writer.lost) and self._recovery is None:
            raise PeerLost(f"bridge hung up: link={self.name} transport={self.transport}")
        if self._recovery is not None and self._recovery.final is not None:
            raise self._recovery.final
        left = self._left_ms(deadline)
        if left == 0:
            raise self._full(count)
        time.sleep((LOOK_MS if left is None else min(left, LOOK_MS)) / 1e3)

    def _full(self, count: int) -> ChannelFull:
        free = self._link.producer.free
        text = f"no room in time: link={self.name} needed={count * 8} free={free}"
        return ChannelFull(f"{text}; send again later or enlarge ring_capacity", needed=count * 8, free=free)

    # ---- threads

    def _check_thread(self, *, receives: bool = True) -> None:
        """Raises in a thread that may not receive here: two would take the same messages.

        Args:
            receives: Whether the caller becomes the one that receives, if nobody is.
        """
        owner, me = self._owner, get_ident()
        if owner in (me, 0):
            if receives:
                self._owner = self._link.receiver = me
        elif owner in sys._current_frames():
            raise RuntimeError(
                f"another thread receives on this channel: owner={owner} caller={me}; publishing is allowed from any "
                "thread, everything else after take_over() or when that thread has ended"
            )
        else:
            self._owner = self._link.receiver = me if receives else 0

    def take_over(self) -> None:
        """Makes the calling thread the one that receives; the thread that was must not be inside of a call."""
        self._check_open()
        self._owner = self._link.receiver = get_ident()

    def _may_sleep(self) -> bool:
        """Whether this thread may wait for doorbell and socket now; if so, it has to call :meth:`_slept`."""
        me = get_ident()
        return self._sleeper.setdefault("thread", me) == me  # the look and the store are one step

    def _slept(self) -> None:
        if self._sleeper.get("thread") == get_ident():
            self._sleeper.clear()

    def _blocked(self, deadline: int | None) -> float | None:
        """Milliseconds that a blocked sender may go on waiting, once the socket has been looked at.

        Raises:
            PeerLost, LinkFailed: Nothing will ever be taken.
            ChannelClosed: The time that the bridge's shutdown leaves is over.
        """
        link = self._link
        self._handle_control(ahead=True)
        if self._events:
            self._deliver()
        if self._failure is not None:
            raise self._failure
        if link.eof or link.writer.lost:
            text = f"bridge hung up: link={self.name} transport={self.transport}; look into its log"
            raise PeerLost(text, link=self.name)
        left = self._left_ms(deadline)
        ending = self._left_ms(self._shutdown_at)
        if self._shutdown is None or ending is None:
            return left
        if ending == 0:
            reason = self._shutdown.reason
            raise ChannelClosed(f"bridge is shutting down and takes nothing more: reason={reason!r}", reason=reason)
        return ending if left is None else min(left, ending)

    def _spin_for_room(self, count: int) -> bool:
        if self.transport != "shm":
            return False
        if self._reserved is not None:
            return False
        has_room = self._link.producer.has_room
        end = time.monotonic_ns() + self._spin.current_ns
        while time.monotonic_ns() < end:
            for _ in _SPIN_ROUND:
                if has_room(count):
                    return True
        return False

    def _flush(self, deadline: int | None) -> None:
        """Waits until the socket has taken the rest of a frame that it took in part (socket transport only)."""
        while self._link.writer.pending:
            try:
                self._wait_for_room(0, deadline)
            except ChannelFull:
                return
            self._link.writer.flush()
