"""Everything that was received or reserved, after its ring space was given back: an error, and never other bytes."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

import mycelium
from bridge_double import BridgeDouble
from builders import quote
from mycelium.messages import Quote
from test_dynamic import Blob

USES: dict[str, Callable[[Any], object]] = {
    "number": lambda message: message.bid,
    "text": lambda message: message.symbol,
    "set": lambda message: setattr(message, "bid", 1.0),
    "set_many": lambda message: message.set(bid=1.0),
    "bytes": lambda message: message.to_bytes(),
    "dict": lambda message: message.to_dict(),
    "copy": lambda message: message.copy(),
    "deepcopy": copy.deepcopy,
    "pickle": pickle.dumps,
    "validate": lambda message: message.validate(),
    "equal": lambda message: message == quote(1),
}


def assert_stale(message: Any) -> None:
    for name, use in USES.items():
        with pytest.raises(mycelium.StaleMessageError, match=r"no longer valid.*use \.copy\(\) to keep"):
            pytest.fail(f"{name}: {use(message)}")
    assert repr(message) == "<Quote: no longer valid>"


@pytest.mark.parametrize("end", ["next", "acknowledge", "close"])
def test_a_received_message(bridge: BridgeDouble, end: str) -> None:
    with bridge.connect() as channel:
        bridge.send(quote(1))
        bridge.send(quote(2))
        message = channel.recv(timeout=30)
        kept = message.copy()
        if end == "next":
            channel.recv(timeout=30)
        else:
            getattr(channel, end)()
        assert_stale(message)
        assert kept == quote(1)


@pytest.mark.parametrize("end", ["release", "next", "close"])
def test_messages_of_a_batch_and_its_running_iterator(bridge: BridgeDouble, end: str) -> None:
    with bridge.connect() as channel:
        for number in (1, 2, 3):
            bridge.send(quote(number))
        batch = channel.recv_batch(limit=2, timeout=30)
        running = iter(batch)
        first = next(running)
        rows, column, frames = batch.rows(Quote), batch.column(Quote, "sequence"), batch.to_bytes()
        kept = [first.copy(), *rows]
        if end == "next":
            channel.recv_batch(timeout=30)
        else:
            getattr({"release": batch, "close": channel}[end], end)()
        assert_stale(first)
        uses: tuple[Callable[[], object], ...] = (
            lambda: next(running),
            lambda: next(iter(batch)),
            lambda: batch.rows(Quote),
            lambda: batch.column(Quote, "sequence"),
            lambda: batch.columns(Quote),
            lambda: batch.column_runs(Quote),
            batch.to_bytes,
        )
        for use in uses:
            with pytest.raises(mycelium.StaleMessageError):
                use()
        assert kept[0] == quote(1)
        assert (rows[0][1], column[0], frames[8:72]) == (1, 1, quote(1).to_bytes()), "what was copied out stays"


def test_a_window_of_a_dynamic_message(bridge: BridgeDouble) -> None:
    with bridge.connect() as channel:
        channel.subscribe(Blob)
        for payload in (b"first one", b"second one"):
            bridge.send_frame(len(payload) | Blob.TOPIC_ID << 32 | Blob.ENCODING << 49, payload)
        message = channel.recv(timeout=30)
        payload = message.payload
        assert bytes(payload) == b"first one"
        channel.recv(timeout=30)
        with pytest.raises(mycelium.StaleMessageError):
            _ = message.value
        with pytest.raises(mycelium.StaleMessageError):
            _ = message.payload
        with pytest.raises(ValueError, match="released"):
            bytes(payload)


def test_a_reserved_message_after_its_block(bridge: BridgeDouble) -> None:
    with bridge.connect() as channel:
        publisher = channel.publisher(Quote)
        with publisher.reserve(timeout=30) as committed:
            committed.symbol = "A"
        assert_stale(committed)
        with pytest.raises(KeyError), publisher.reserve(timeout=30) as dropped:
            raise KeyError
        assert_stale(dropped)
        assert [message.symbol for message in bridge.take(Quote, 1)] == ["A"]
        for use in (publisher.send, lambda message: publisher.send_many([message])):
            with pytest.raises(mycelium.StaleMessageError):
                use(committed)
