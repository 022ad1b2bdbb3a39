"""Doorbells and waiting: eventfds, and how long to spin before parking."""

from __future__ import annotations

import os
import time

__all__ = ["Doorbell", "SpinBudget"]


class Doorbell:
    """An eventfd that one side of a channel rings and the other polls.

    Args:
        fd: The descriptor; the doorbell owns it from here on.
    """

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd

    def fileno(self) -> int:
        """Returns the descriptor; -1 after :meth:`close`."""
        return self._fd

    def notify(self) -> None:
        """Wakes the side that polls; one system call."""
        try:
            os.eventfd_write(self._fd, 1)
        except BlockingIOError:
            pass  # The counter is full, so it is readable: the peer will wake anyway.

    def drain(self) -> bool:
        """Takes all pending notifications; True if there were any."""
        try:
            os.eventfd_read(self._fd)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Closes the descriptor; may be called again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


_NEAR_MISS = 4
"""A park that ends within this many full budgets says that spinning would have been worth it."""


class SpinBudget:
    """How long to spin before parking, in nanoseconds.

    Halved when spinning was in vain, down to a sixteenth; restored when it paid, or when the park after it was so short
    that a full spin might have spared it. In a process that may use one CPU only it is 0: the peer cannot make progress
    while this side spins.

    Args:
        max_us: Longest time to spin, in microseconds; 0 parks at once.
    """

    __slots__ = ("_floor_ns", "_max_ns", "current_ns")

    def __init__(self, max_us: int) -> None:
        if hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) == 1:
            max_us = 0
        self._max_ns = max_us * 1000
        self._floor_ns = self._max_ns // 16
        self.current_ns = self._max_ns

    def succeeded(self) -> None:
        """Spinning found something."""
        self.current_ns = self._max_ns

    def failed(self) -> None:
        """Spinning was in vain."""
        self.current_ns = max(self.current_ns >> 1, self._floor_ns)

    def parked_for(self, elapsed_ns: int) -> None:
        """Tells how long the park lasted that followed a vain spin."""
        if elapsed_ns <= self._max_ns * _NEAR_MISS:
            self.current_ns = self._max_ns


def deadline_after(timeout: float | None) -> int | None:
    """Returns when a timeout in seconds ends, on the clock of :func:`time.monotonic_ns`; None for never."""
    return None if timeout is None else time.monotonic_ns() + int(max(timeout, 0.0) * 1e9)
