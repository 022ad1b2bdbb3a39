"""Momentum: buys while the fast average of the mid price is above the slow one, and sells while it is below.

A worker of the bridge; its settings, all optional::

    [worker.settings]
    fast = 16          # quotes of the fast average
    slow = 128         # quotes of the slow one
    band = 2e-5        # by how much of the price they have to differ
"""

from __future__ import annotations

import mycelium
from mycelium.messages import Quote, Side, Signal

worker = mycelium.Worker()
signals = worker.publisher(Signal)


class Averages:
    """Two exponential moving averages of one instrument's price."""

    def __init__(self, price: float) -> None:
        self.fast = self.slow = price
        self.side = Side.HOLD

    def update(self, price: float) -> Side:
        """Takes the next price; returns what the averages say now."""
        settings = worker.settings
        self.fast += (price - self.fast) * 2 / (settings.get("fast", 16) + 1)
        self.slow += (price - self.slow) * 2 / (settings.get("slow", 128) + 1)
        distance = self.fast / self.slow - 1
        band = settings.get("band", 2e-5)
        return Side.BUY if distance > band else Side.SELL if distance < -band else Side.HOLD


averages: dict[str, Averages] = {}


@worker.on(Quote)
def on_quote(quote: Quote) -> None:
    """Answers a quote where it changes the side."""
    price = (quote.bid + quote.ask) / 2
    symbol = quote.symbol
    if symbol not in averages:
        averages[symbol] = Averages(price)
    state = averages[symbol]
    side = state.update(price)
    if side is state.side:
        return
    state.side = side
    # Written in place, straight into the ring; `signals.send(Signal(...))` does the same with a copy.
    with signals.reserve() as signal:
        signal.worker = worker.channel.name[:16]
        signal.quote_sequence = quote.sequence
        signal.quote_timestamp_ns = quote.timestamp_ns
        signal.side = side
        signal.strength = min(1.0, abs(state.fast / state.slow - 1) * 1e4)
        signal.price = price


if __name__ == "__main__":
    worker.run()
