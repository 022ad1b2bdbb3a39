"""What was received belongs to the bridge until it is acknowledged, so it cannot be changed by mistake."""

from __future__ import annotations

from typing import Any

import pytest

from mycelium import testing
from mycelium.exceptions import MessageError
from mycelium.messages import Quote

CHANGES = {
    "number": lambda quote: setattr(quote, "bid", 9.0),
    "text": lambda quote: setattr(quote, "symbol", "other"),
    "many": lambda quote: quote.set(bid=9.0, ask=9.5),
}


@pytest.mark.parametrize("transport", ["shm", "socket"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("how", ["message", "loop", "batch"])
def test_a_received_message_cannot_be_changed_and_its_copy_can(transport: str, change: Any, how: str) -> None:
    with testing.Bridge(subscribe=[Quote], transport=transport) as bridge:
        bridge.publish(Quote(symbol="EUR/USD", bid=1.0, ask=1.5))
        channel = bridge.connect()
        quote = {
            "message": lambda: channel.recv(timeout=30),
            "loop": lambda: next(iter(channel)),
            "batch": lambda: next(iter(channel.recv_batch(timeout=30))),
        }[how]()
        before = quote.to_bytes()
        with pytest.raises(MessageError, match="received messages cannot be changed"):
            change(quote)
        assert quote.to_bytes() == before
        kept = quote.copy()
        change(kept)
        assert kept.bid == 9.0 or kept.symbol == "other"
