"""Momentum: buys while the fast average of the mid price is above the slow one, sells while it is below."""

from __future__ import annotations

from mycelium.messages import Side
from replay import Decision, Row, main

FAST = 2 / (32 + 1)
SLOW = 2 / (256 + 1)
# The averages have to be apart by this much of the price, so that noise does not flip the side back and forth.
BAND = 2e-5


class Momentum:
    """Two exponential moving averages, of 32 and 256 quotes."""

    def __init__(self) -> None:
        self._fast = 0.0
        self._slow = 0.0
        self._side = Side.HOLD

    def decide(self, rows: list[Row], *, every: bool) -> list[Decision]:
        """Returns BUY, SELL or HOLD when that changes, or for every quote."""
        decisions: list[Decision] = []
        fast, slow, side = self._fast, self._slow, self._side
        if not slow:
            fast = slow = (rows[0][2] + rows[0][3]) / 2
        for sequence, timestamp_ns, bid, ask in rows:
            mid = (bid + ask) / 2
            fast += FAST * (mid - fast)
            slow += SLOW * (mid - slow)
            gap = fast - slow
            band = BAND * mid
            now = Side.BUY if gap > band else Side.SELL if gap < -band else Side.HOLD
            if now is not side or every:
                side = now
                strength = min(1.0, abs(gap) / (4 * band))
                decisions.append((sequence, timestamp_ns, mid, side, strength))
        self._fast, self._slow, self._side = fast, slow, side
        return decisions


if __name__ == "__main__":
    main(Momentum())
