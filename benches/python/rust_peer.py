"""Python's end of a link whose other end is Rust, for `make bench-python`.

Each case is the loop that a program would write with the public interface. The other end keeps the time of `echo`; the
others keep it themselves. Every figure comes with what shows that all messages went through: their number and sums.
"""

from __future__ import annotations

import time

import measuring
import tick_messages as contracts
from measuring import CHECKED, check, fields, missing, report, tick
from tick_messages import Tick

import mycelium
from mycelium import Batch, Channel, Publisher

BATCH = 4096


def echo(channel: Channel, publisher: Publisher[Tick], messages: int, millis: int) -> None:
    for message in channel:
        publisher.send(message)
        if message.sequence == measuring.END:
            break
    report(parks=channel.statistics().parks)


def begin_reading(channel: Channel, publisher: Publisher[Tick]) -> int:
    """Reads the messages that are compared field by field, asks for the others, and looks at the clock."""
    publisher.send(tick(0))
    for sequence in range(CHECKED):
        check(fields(channel.recv()), sequence)
    publisher.send(tick(0))
    return time.perf_counter_ns()


def end_reading(channel: Channel, start: int, sequences: int, bids: float, batches: int = 0) -> None:
    elapsed = time.perf_counter_ns() - start
    seen = channel.statistics()
    count = seen.frames_in - CHECKED
    more = {"mean_batch": count / batches} if batches else {}
    report(rate=count * 1e9 / elapsed, count=count, sequences=sequences, bids=bids, parks=seen.parks, **more)


def accessor(channel: Channel, publisher: Publisher[Tick], messages: int, millis: int) -> None:
    sequences, bids = 0, 0.0
    start = begin_reading(channel, publisher)
    for message in channel:
        sequences += message.sequence
        bids += message.bid
    end_reading(channel, start, sequences, bids)


def rows(channel: Channel, publisher: Publisher[Tick], messages: int, millis: int) -> None:
    sequences, bids, batches = 0, 0.0, 0
    start = begin_reading(channel, publisher)
    for batch in channel.batches(BATCH):
        batches += 1
        for sequence, _, bid, _ in batch.rows(Tick):
            sequences += sequence
            bids += bid
    end_reading(channel, start, sequences, bids, batches)


def columns(channel: Channel, publisher: Publisher[Tick], messages: int, millis: int) -> None:
    try:
        Tick.dtype()
    except ImportError as error:
        raise missing(error) from error

    def sums(batch: Batch) -> tuple[int, float]:
        ticks = batch.columns(Tick)
        return int(ticks["sequence"].sum()), float(ticks["bid"].sum())

    sequences, bids, batches = 0, 0.0, 0
    start = begin_reading(channel, publisher)
    for batch in channel.batches(BATCH):
        batches += 1
        some_sequences, some_bids = sums(batch)
        sequences += some_sequences
        bids += some_bids
    end_reading(channel, start, sequences, bids, batches)


def begin_publishing(channel: Channel, publisher: Publisher[Tick]) -> int:
    """Sends the messages that are compared field by field, waits for the word that they came, looks at the clock."""
    for sequence in range(CHECKED):
        publisher.send(tick(sequence))
    check_count(channel, CHECKED)
    return time.perf_counter_ns()


def check_count(channel: Channel, messages: int) -> None:
    """Waits until the other end has told that it has read everything."""
    told = channel.recv().sequence
    if told != messages:
        raise SystemExit(f"another number of messages arrived: sent={messages} received={told}")


def end_publishing(channel: Channel, start: int, messages: int) -> None:
    check_count(channel, messages)
    elapsed = time.perf_counter_ns() - start
    report(rate=messages * 1e9 / elapsed, parks=channel.statistics().parks)


def send(channel: Channel, publisher: Publisher[Tick], messages: int, millis: int) -> None:
    start = begin_publishing(channel, publisher)
    for sequence in range(messages):
        publisher.send(Tick(sequence=sequence, timestamp_ns=7, bid=1.25, ask=1.5))
    end_publishing(channel, start, messages)


def send_again(channel: Channel, publisher: Publisher[Tick], messages: int, millis: int) -> None:
    message = Tick()
    start = begin_publishing(channel, publisher)
    for sequence in range(messages):
        message.sequence = sequence
        message.timestamp_ns = 7
        message.bid = 1.25
        message.ask = 1.5
        publisher.send(message)
    end_publishing(channel, start, messages)


def reserve(channel: Channel, publisher: Publisher[Tick], messages: int, millis: int) -> None:
    start = begin_publishing(channel, publisher)
    for sequence in range(messages):
        with publisher.reserve() as message:
            message.sequence = sequence
            message.timestamp_ns = 7
            message.bid = 1.25
            message.ask = 1.5
    end_publishing(channel, start, messages)


def send_many(channel: Channel, publisher: Publisher[Tick], messages: int, millis: int) -> None:
    try:
        import numpy
    except ImportError as error:
        raise missing(error) from error
    array = numpy.zeros(BATCH, Tick.dtype())
    array["timestamp_ns"], array["bid"], array["ask"] = 7, 1.25, 1.5
    numbers = numpy.arange(BATCH, dtype="u8")
    start = begin_publishing(channel, publisher)
    for first in range(0, messages, BATCH):
        count = min(BATCH, messages - first)
        numpy.add(numbers, first, out=array["sequence"])
        publisher.send_many(array[:count])
    end_publishing(channel, start, messages)


def idle(channel: Channel, publisher: Publisher[Tick], messages: int, millis: int) -> None:
    publisher.send(tick(0))
    start, used = time.monotonic_ns(), time.process_time_ns()
    try:
        channel.recv(timeout=millis / 1000)
    except TimeoutError:
        pass
    used = time.process_time_ns() - used
    elapsed = time.monotonic_ns() - start
    if elapsed < millis * 1_000_000:
        raise SystemExit(f"not idle: a message came after {elapsed} ns")
    report(cpu_percent=100 * used / elapsed, parks=channel.statistics().parks)


CASES = {case.__name__: case for case in (echo, accessor, rows, columns, send, send_again, reserve, send_many, idle)}


def main() -> None:
    given = measuring.arguments(__doc__ or "", list(CASES))
    with mycelium.connect(
        f"unix:{given.address}", contracts=contracts, transport=given.transport, spin_us=given.spin_us
    ) as channel:
        channel.subscribe(Tick)
        publisher = channel.publisher(Tick)
        measuring.pin(given.core)
        CASES[given.case](channel, publisher, given.messages, given.millis)


main()
