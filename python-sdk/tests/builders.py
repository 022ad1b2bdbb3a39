"""Messages for the tests."""

from __future__ import annotations

from typing import Any

from mycelium.messages import Quote, Side, Signal


def quote(sequence: int, symbol: str = "EUR/USD") -> Quote:
    """A quote whose fields follow from its sequence number."""
    return Quote(
        symbol=symbol,
        sequence=sequence,
        timestamp_ns=1_577_836_800_000_000_000 + sequence,
        bid=1.1 + sequence / 1e6,
        ask=1.2 + sequence / 1e6,
        volume=float(sequence),
    )


def signal(sequence: int) -> Signal:
    """A signal whose fields follow from its sequence number."""
    return Signal(
        worker="w",
        quote_sequence=sequence,
        quote_timestamp_ns=sequence * 10,
        strength=0.5,
        price=sequence / 8,
        side=Side.BUY,
    )


def signal_fields(sequence: int) -> dict[str, Any]:
    """The arguments of :func:`signal`'s message."""
    message = signal(sequence)
    return {name: getattr(message, name) for name in message.to_dict()}
