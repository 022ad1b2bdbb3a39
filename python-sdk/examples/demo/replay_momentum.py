"""Momentum: buys while the fast average of the mid price is above the slow one, sells while it is below."""

from __future__ import annotations

import operator

from mycelium.messages import Side
from replay import Decision, main

FAST = 2 / (16 + 1)
SLOW = 2 / (128 + 1)
# The averages have to be apart by this part of the price, so that noise does not flip the side back and forth.
BAND = 2e-5


class Momentum:
    """Two exponential moving averages, of 16 and 128 quotes."""

    def __init__(self) -> None:
        self._fast = 0.0
        self._slow = 0.0
        self._side = Side.HOLD

    def decide(self, bids: list[float], asks: list[float], *, every: bool) -> list[Decision]:
        """Returns BUY, SELL or HOLD where that changes, or for every quote."""
        decisions: list[Decision] = []
        fast, slow, side = self._fast, self._slow, self._side
        if not slow:
            fast = slow = bids[0] + asks[0]
        buy, sell, hold = Side.BUY, Side.SELL, Side.HOLD
        # Twice the mid price serves as well: only proportions matter.
        for index, price in enumerate(map(operator.add, bids, asks)):
            fast += FAST * (price - fast)
            slow += SLOW * (price - slow)
            now = buy if fast > slow * (1 + BAND) else sell if fast < slow * (1 - BAND) else hold
            if now is not side or every:
                side = now
                strength = min(1.0, abs(fast / slow - 1) / (4 * BAND))
                decisions.append(Decision(index, side, strength))
        self._fast, self._slow, self._side = fast, slow, side
        return decisions


if __name__ == "__main__":
    main(Momentum())
