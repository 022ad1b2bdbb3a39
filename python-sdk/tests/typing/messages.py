"""What type checkers infer about messages, and what they refuse. Nothing here is run."""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

import pickle
from typing import Any

import numpy
import numpy.typing
from grammar import CONTRACTS, MESSAGES, Colour, Numbers, Packed, Rules, RulesState, Texts, Vecs, Wide
from typing_extensions import assert_type

import mycelium
from mycelium.messages import Quote, Side, Signal


def properties(quote: Quote, signal: Signal, numbers: Numbers, wide: Wide, vecs: Vecs, rules: Rules) -> None:
    """A property has exactly the type of its field."""
    assert_type(quote.symbol, str)
    assert_type(quote.bid, float)
    assert_type(quote.sequence, int)
    assert_type(signal.side, Side)
    assert_type(numbers.g, bool)
    assert_type(numbers.f, float)
    assert_type(wide.b, int)
    assert_type(wide.e, bytes)
    assert_type(wide.f, tuple[bytes, ...])
    assert_type(wide.bytes, int)
    assert_type(vecs.plain, bytes)
    assert_type(vecs.addresses, tuple[bytes, ...])
    assert_type(vecs.prices, tuple[float, ...])
    assert_type(vecs.small, tuple[int, ...])
    assert_type(rules.state, RulesState)
    assert_type(rules.colour, Colour)


def writing(quote: Quote, signal: Signal, vecs: Vecs, array: numpy.typing.NDArray[numpy.float64]) -> None:
    """Setters, `set` and constructors take the same types."""
    quote.bid = 1
    quote.set(bid=1.0, symbol="EUR/USD")
    vecs.prices = [1.0, 2.0]
    vecs.prices = array
    vecs.set(prices=(price for price in (1.0, 2.0)), small=range(3))
    Vecs(odd_rows=[b"abc"], prices=(1.0,))
    Texts(odd="odd", venue="XNAS")
    quote.bid = "1"  # type: ignore[assignment]
    quote.set(bid="1")  # type: ignore[arg-type]
    quote.set(price=1.0)  # type: ignore[call-arg]
    signal.side = 1  # type: ignore[assignment]
    Signal(side=Side.BUY)  # type: ignore[call-arg]
    Signal("mine", side=Side.BUY)  # type: ignore[call-arg]
    vecs.small = [1.5]  # type: ignore[list-item]


def conversions(quote: Quote) -> None:
    """What comes out is of the same class."""
    assert_type(quote.copy(), Quote)
    assert_type(Quote.from_bytes(quote.to_bytes()), Quote)
    assert_type(Quote.from_dict({"symbol": "X"}), Quote)
    assert_type(quote.to_dict(), dict[str, Any])
    assert_type(Quote.dtype(), numpy.dtype[numpy.void])
    assert_type(Quote.from_array(Quote.to_array([quote])), list[Quote])
    pickle.dumps(quote)


def lists() -> None:
    """The contracts of a module."""
    assert_type(CONTRACTS.to_json(), str)
    assert_type(Packed.MAX_SIZE, int)
    for message in MESSAGES:
        assert_type(message.TOPIC_ID, int)
        assert_type(message.LOG_PAYLOAD, bool)


def channels(channel: mycelium.Channel) -> None:
    """A publisher knows its message."""
    with channel.publisher(Quote).reserve() as quote:
        assert_type(quote, Quote)
        quote.set(symbol="EUR/USD", bid=1.0)
