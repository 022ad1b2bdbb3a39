"""Answers every quote with a signal at its mid price, until the bridge shuts down.

Run it as a worker of a bridge, or with an address: ``python echo.py unix:/run/mycelium/bridge.sock``.
"""

from __future__ import annotations

import logging
import sys

import mycelium
from mycelium.messages import Quote, Side, Signal


def main() -> int:
    """Runs the worker; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    address = sys.argv[1] if len(sys.argv) > 1 else None
    try:
        with mycelium.connect(address) as channel:
            channel.subscribe(Quote)
            signals = channel.publisher(Signal)
            logging.info("connected: link=%s transport=%s", channel.name, channel.transport)
            for quote in channel:
                with signals.reserve() as signal:
                    signal.worker = channel.name[:16]
                    signal.quote_sequence = quote.sequence
                    signal.quote_timestamp_ns = quote.timestamp_ns
                    signal.side = Side.HOLD
                    signal.price = (quote.bid + quote.ask) / 2
        logging.info("done: %s", channel.statistics())
    except mycelium.ChannelError as error:
        logging.error("%s", error)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
