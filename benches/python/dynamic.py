"""Python's part of `make bench-dynamic`: sends quotes in every encoding to an echo and reads them when they come back.

The standard input is the socket of the link. Arguments: rounds, messages of a round. Prints one JSON object per
round: nanoseconds per message by encoding.
"""

from __future__ import annotations

import json
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

import dynamic_messages as contracts

import mycelium
from mycelium._publisher import Publisher

rounds, count = map(int, sys.argv[1:])
BURST = 64
RAW = struct.Struct("<16sQQddd")
Values = tuple[str, int, int, float, float, float]


def values(sequence: int) -> Values:
    return "EUR/USD", sequence, 1_700_000_000_000_000_000 + sequence, 1.1212, 1.1217, sequence * 0.5


def send_contract(publisher: Any, quote: Values) -> None:
    symbol, sequence, timestamp_ns, bid, ask, volume = quote
    with publisher.reserve() as message:
        message.set(symbol=symbol, sequence=sequence, timestamp_ns=timestamp_ns, bid=bid, ask=ask, volume=volume)


def read_contract(message: Any) -> Values:
    return message.symbol, message.sequence, message.timestamp_ns, message.bid, message.ask, message.volume


def send_value(publisher: Any, quote: Values) -> None:
    symbol, sequence, timestamp_ns, bid, ask, volume = quote
    publisher.send(
        {
            "symbol": symbol,
            "sequence": sequence,
            "timestamp_ns": timestamp_ns,
            "bid": bid,
            "ask": ask,
            "volume": volume,
        }
    )


def read_value(message: Any) -> Values:
    value = message.value
    return value["symbol"], value["sequence"], value["timestamp_ns"], value["bid"], value["ask"], value["volume"]


def send_raw(publisher: Any, quote: Values) -> None:
    publisher.send(RAW.pack(quote[0].encode(), *quote[1:]))


def read_raw(message: Any) -> Values:
    symbol, sequence, timestamp_ns, bid, ask, volume = RAW.unpack(message.payload)
    return symbol.rstrip(b"\0").decode(), sequence, timestamp_ns, bid, ask, volume


WAYS: dict[str, tuple[Any, Callable[[Any, Values], None], Callable[[Any], Values]]] = {
    "contract": (contracts.FixedQuote, send_contract, read_contract),
    "json": (contracts.JsonQuote, send_value, read_value),
    "msgpack": (contracts.PackedQuote, send_value, read_value),
    "raw": (contracts.RawQuote, send_raw, read_raw),
}

with mycelium.connect(contracts=contracts) as channel:
    publishers = {name: Publisher(channel, contract) for name, (contract, _, _) in WAYS.items()}

    def check(name: str) -> None:
        _, send, read = WAYS[name]
        for sequence in range(BURST):
            send(publishers[name], values(sequence))
        for sequence in range(BURST):
            got = read(channel.recv(timeout=60))
            if got != values(sequence):
                raise SystemExit(f"{name} came back as {got}, sent {values(sequence)}")

    def measure(name: str) -> float:
        _, send, read = WAYS[name]
        publisher, quote = publishers[name], values(7)
        start = time.perf_counter_ns()
        for _ in range(count // BURST):
            for _ in range(BURST):
                send(publisher, quote)
            for _ in range(BURST):
                read(channel.recv())
        return (time.perf_counter_ns() - start) / (count // BURST * BURST)

    for name in WAYS:
        check(name)
        measure(name)
    for number in range(rounds):
        order = list(WAYS) if number % 2 == 0 else list(WAYS)[::-1]
        sys.stdout.write(json.dumps({name: measure(name) for name in order}) + "\n")
