"""Mean reversion: sells what is unusually dear and buys what is unusually cheap, measured against its recent past."""

from __future__ import annotations

import operator

from mycelium.messages import Side
from replay import Decision, main

WEIGHT = 2 / (256 + 1)
# Enter at this many standard deviations from the mean, leave when back within the second number of them.
ENTER = 2.0
LEAVE = 0.5


class MeanReversion:
    """Exponentially weighted mean and variance of the price over 256 quotes."""

    def __init__(self) -> None:
        self._mean = 0.0
        self._variance = 0.0
        self._side = Side.HOLD

    def decide(self, bids: list[float], asks: list[float], *, every: bool) -> list[Decision]:
        """Returns BUY, SELL or HOLD where that changes, or for every quote."""
        decisions: list[Decision] = []
        mean, variance, side = self._mean, self._variance, self._side
        if not mean:
            mean = bids[0] + asks[0]
        enter, leave = ENTER * ENTER, LEAVE * LEAVE
        # Twice the mid price serves as well: only proportions matter.
        for index, price in enumerate(map(operator.add, bids, asks)):
            distance = price - mean
            # Squares are compared, which saves a root per quote.
            square = distance * distance
            now = side
            if square > enter * variance:
                now = Side.SELL if distance > 0 else Side.BUY
            elif square < leave * variance:
                now = Side.HOLD
            mean += WEIGHT * distance
            variance = (1 - WEIGHT) * (variance + WEIGHT * square)
            if now is not side or every:
                side = now
                strength = min(1.0, square / (4 * enter * variance)) if variance else 0.0
                decisions.append(Decision(index, side, strength))
        self._mean, self._variance, self._side = mean, variance, side
        return decisions


if __name__ == "__main__":
    main(MeanReversion())
