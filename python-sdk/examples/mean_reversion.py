"""Mean reversion: sells what is unusually dear and buys what is unusually cheap, measured against its recent past."""

from __future__ import annotations

from mycelium.messages import Side
from replay import Decision, Row, main

WEIGHT = 2 / (512 + 1)
# Enter at this many standard deviations from the mean, leave when back within the second number of them.
ENTER = 2.5
LEAVE = 0.5


class MeanReversion:
    """Exponentially weighted mean and variance of the mid price over 512 quotes."""

    def __init__(self) -> None:
        self._mean = 0.0
        self._variance = 0.0
        self._side = Side.HOLD

    def decide(self, rows: list[Row], *, every: bool) -> list[Decision]:
        """Returns BUY, SELL or HOLD when that changes, or for every quote."""
        decisions: list[Decision] = []
        mean, variance, side = self._mean, self._variance, self._side
        if not mean:
            mean = (rows[0][2] + rows[0][3]) / 2
        enter, leave = ENTER * ENTER, LEAVE * LEAVE
        for sequence, timestamp_ns, bid, ask in rows:
            mid = (bid + ask) / 2
            distance = mid - mean
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
                decisions.append((sequence, timestamp_ns, mid, side, strength))
        self._mean, self._variance, self._side = mean, variance, side
        return decisions


if __name__ == "__main__":
    main(MeanReversion())
