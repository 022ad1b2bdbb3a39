"""Timers of a worker: when which one is due. A value without a clock and without waiting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["Timer"]


class Timer:
    """One timer; it keeps to the grid of its start, whatever its function takes.

    Args:
        period_s: Time between two runs, in seconds.
        function: What is called.

    Attributes:
        due_ns: When the next run is due, on the clock of :func:`time.monotonic_ns`.
        missed: Runs that were left out because the ones before took too long.
    """

    __slots__ = ("_period_ns", "due_ns", "function", "missed")

    def __init__(self, period_s: float, function: Callable[[], Any]) -> None:
        if not 0.001 <= period_s <= 1e9:
            raise ValueError(f"timer period out of range: seconds={period_s}, legal: 0.001..=1e9")
        self.function = function
        self.missed = 0
        self._period_ns = int(period_s * 1e9)
        self.due_ns = 0

    def start(self, now_ns: int) -> None:
        """Makes the first run due one period from now."""
        self.due_ns = now_ns + self._period_ns

    def advance(self, now_ns: int) -> None:
        """After a run: moves on to the next point of the grid that is still ahead, and counts those that are not."""
        self.due_ns += self._period_ns
        if self.due_ns <= now_ns:
            late = (now_ns - self.due_ns) // self._period_ns + 1
            self.missed += late
            self.due_ns += late * self._period_ns
