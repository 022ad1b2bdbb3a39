"""Mean reversion with NumPy: sells what is unusually dear and buys what is unusually cheap.

Takes many quotes at once, as columns: a structured array straight over the ring, without an object per quote. One
worker follows one instrument::

    [worker.settings]
    symbol = "EUR/USD"
    window = 256       # quotes that mean and deviation are taken of
    enter = 2.0        # deviations from the mean
"""

from __future__ import annotations

import numpy as np

import mycelium
from mycelium.messages import Quote, Side, Signal

worker = mycelium.Worker()
signals = worker.publisher(Signal)
# What the next batch needs of those before it: the last prices, and the side that was told last.
recent = np.empty(0)
side = int(Side.HOLD)


@worker.on_batch(Quote, limit=4096)
def on_quotes(batch: mycelium.Batch) -> None:
    """Answers those quotes that change the side."""
    global recent, side
    window = int(worker.settings.get("window", 256))
    enter = float(worker.settings.get("enter", 2.0))
    symbol = str(worker.settings.get("symbol", "EUR/USD"))
    quotes = batch.columns(Quote)
    quotes = quotes[quotes["symbol"] == symbol.encode()]  # a copy, so nothing of it holds ring space afterwards
    if not len(quotes):
        return
    prices = np.concatenate([recent, (quotes["bid"] + quotes["ask"]) / 2])
    recent = prices[-window:].copy()
    if len(prices) <= window:
        return
    # Row i is the window before a price; the last window has no price behind it yet.
    windows = np.lib.stride_tricks.sliding_window_view(prices, window)[:-1]
    now = prices[window:]
    distance = now - windows.mean(axis=1)
    deviation = windows.std(axis=1)
    sides = np.full(len(now), int(Side.HOLD), np.uint8)
    sides[distance > enter * deviation] = Side.SELL
    sides[distance < -enter * deviation] = Side.BUY
    changes = np.flatnonzero(sides != np.concatenate([[side], sides[:-1]]))
    side = int(sides[-1])
    answered = quotes[len(quotes) - len(now) :][changes]
    answers = np.zeros(len(changes), Signal.dtype())
    name = worker.channel.name[:16].encode()
    answers["worker"], answers["worker.len"] = name, len(name)
    answers["quote_sequence"] = answered["sequence"]
    answers["quote_timestamp_ns"] = answered["timestamp_ns"]
    answers["side"] = sides[changes]
    answers["price"] = now[changes]
    answers["strength"] = np.minimum(1.0, np.abs(distance[changes]) / (4 * deviation[changes] + 1e-12))
    signals.send_many(answers)


if __name__ == "__main__":
    worker.run()
