"""Batches as NumPy arrays: views and copies, and arrays that live longer than what they lie over."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy
import pytest

import mycelium
from bridge_double import BridgeDouble, wait_until
from builders import quote, signal
from mycelium._batch import Run
from mycelium._columns import Pin, Pins, copy_runs
from mycelium._message import Message, Views
from mycelium.messages import MESSAGES, Quote, Signal
from test_dynamic import Blob
from test_vectors import golden

RECORD = 8 + Quote.SIZE
MakeBridge = Callable[..., BridgeDouble]


def send(bridge: BridgeDouble, numbers: Iterable[int]) -> None:
    for number in numbers:
        bridge.send(quote(number))


def whole_batch(channel: mycelium.Channel, count: int) -> mycelium.Batch:
    """A batch of so many messages, which have been sent; over a socket they may come in pieces."""
    if channel.transport == "socket":
        consumer = channel._consumer
        movable = channel._held() is None
        wait_until(
            lambda: consumer.end - consumer.word >= count * RECORD // 8 or (consumer.fill(movable=movable) and False),
            f"{count} messages",
        )
    return channel.recv_batch(limit=count, timeout=30)


def test_one_run_is_a_view_and_calculates_like_any_array(bridge: BridgeDouble) -> None:
    with bridge.connect() as channel:
        send(bridge, range(1, 101))
        with whole_batch(channel, 100) as batch:
            quotes = batch.columns(Quote)
            assert quotes.dtype == Quote.dtype()
            assert quotes["sequence"].tolist() == list(range(1, 101))
            assert (quotes["ask"] - quotes["bid"]).tolist() == [quote(n).ask - quote(n).bid for n in range(1, 101)]
            assert set(numpy.char.decode(numpy.unique(quotes["symbol"]), "utf-8")) == {"EUR/USD"}
            assert Quote.from_array(quotes) == [quote(number) for number in range(1, 101)]
            assert not quotes.flags.writeable
            with pytest.raises(ValueError, match="cannot set WRITEABLE flag to True"):
                quotes.flags.writeable = True
            assert numpy.shares_memory(quotes, batch.columns(Quote, copy=False))
            assert numpy.shares_memory(quotes, batch.column_runs(Quote)[0])
            copy = batch.columns(Quote, copy=True)
            assert copy.flags.writeable
            assert copy.flags.c_contiguous
            assert not numpy.shares_memory(quotes, copy)
            assert copy.tolist() == quotes.tolist()


def test_mixed_messages_are_gathered_in_order(bridge: BridgeDouble) -> None:
    with bridge.connect() as channel:
        for number in (1, 2, 3):
            bridge.send(quote(number))
        bridge.send(signal(4))
        bridge.send(quote(5))
        bridge.send(signal(6))
        send(bridge, (7, 8))
        with whole_batch(channel, 8) as batch:
            quotes, signals = batch.columns(Quote), batch.columns(Signal)
            with pytest.raises(ValueError, match="no view: message=Quote runs=3, legal: 1; other messages lie between"):
                batch.columns(Quote, copy=False)
            assert [run["sequence"].tolist() for run in batch.column_runs(Quote)] == [[1, 2, 3], [5], [7, 8]]
        assert quotes["sequence"].tolist() == [1, 2, 3, 5, 7, 8]
        assert quotes["bid"].tolist() == [quote(number).bid for number in (1, 2, 3, 5, 7, 8)]
        assert signals["quote_sequence"].tolist() == [4, 6]
        assert quotes.flags.writeable
        assert channel.statistics().arrays_held == 0


def test_what_is_not_in_the_batch_is_an_empty_array_and_the_rest_is_refused(bridge: BridgeDouble) -> None:
    with bridge.connect() as channel:
        bridge.send(quote(1))
        with channel.recv_batch(timeout=30) as batch:
            for copy in (None, True, False):
                nothing = batch.columns(Signal, copy)
                assert (nothing.dtype, len(nothing)) == (Signal.dtype(), 0)
            assert batch.column_runs(Signal) == []
            for use in (batch.columns, batch.column_runs):
                with pytest.raises(TypeError, match="no fixed layout: message=Blob; iterate over the batch"):
                    use(Blob)  # type: ignore[operator]
        for use in (batch.columns, batch.column_runs):
            with pytest.raises(mycelium.StaleMessageError):
                use(Quote)  # type: ignore[operator]


@pytest.mark.parametrize(
    "contract", [it for it in (*MESSAGES, *golden.MESSAGES) if hasattr(it, "FIELDS")], ids=lambda it: str(it.NAME)
)
def test_copies_of_every_layout_have_the_bytes_of_the_payloads(contract: type[Message]) -> None:
    stride = (contract.SIZE + 15) // 8
    chance = numpy.random.default_rng(contract.SIZE)
    memory = bytearray(chance.bytes(40 * stride * 8))
    for runs in ([], [(3, 5)], [(0, 1), (4, 7), (20, 2)], [(5, 1), (7, 1)]):
        found = copy_runs(Views(memory), contract, [Run(contract, at * stride, stride, n) for at, n in runs])
        starts = [(at + k) * stride * 8 + 8 for at, n in runs for k in range(n)]
        assert found.tobytes() == b"".join(bytes(memory[start : start + contract.SIZE]) for start in starts)
        assert found.dtype == contract.dtype()


def test_an_array_keeps_ring_space_until_it_dies(make_bridge: MakeBridge) -> None:
    bridge = make_bridge(capacity=4096)
    with bridge.connect() as channel:
        send(bridge, range(1, 11))
        batch = channel.recv_batch(limit=4, timeout=30)
        bids = batch.columns(Quote)["bid"][1:]  # what is kept need not be the array itself
        with channel.recv_batch(limit=6, timeout=30) as rest:
            assert [message.sequence for message in rest] == [5, 6, 7, 8, 9, 10]
        with pytest.raises(mycelium.StaleMessageError):
            batch.columns(Quote)
        channel.acknowledge()
        assert bridge.acknowledged == 0
        assert channel.statistics()[-2:] == (1, 4 * RECORD)
        send(bridge, range(11, 21))
        assert [channel.recv(timeout=30).sequence for _ in range(10)] == list(range(11, 21))
        assert bids.tolist() == [quote(number).bid for number in (2, 3, 4)]
        assert bridge.acknowledged == 0
        del bids
        channel.acknowledge()
        assert bridge.acknowledged == 20 * RECORD
        assert channel.statistics()[-2:] == (0, 0)
        for number in range(500, 600):  # round and round as before
            bridge.send(quote(number))
            assert channel.recv(timeout=30).sequence == number


def test_a_kept_array_gets_its_own_memory_before_it_stops_the_ring(make_bridge: MakeBridge) -> None:
    bridge = make_bridge(capacity=4096)
    with bridge.connect() as channel:
        send(bridge, range(1, 6))
        batch = channel.recv_batch(limit=5, timeout=30)
        kept = batch.columns(Quote)
        batch.release()
        for number in range(6, 400):
            bridge.send(quote(number))
            assert channel.recv(timeout=30).sequence == number
        assert kept["sequence"].tolist() == [1, 2, 3, 4, 5]
        assert channel.statistics().arrays_held == 0


def test_a_loop_whose_batches_fill_the_ring_goes_on_with_the_last_array_in_a_variable(make_bridge: MakeBridge) -> None:
    bridge = make_bridge(capacity=4096)
    with bridge.connect() as channel:
        sender = threading.Thread(target=lambda: send(bridge, range(2000)))
        sender.start()
        seen: list[int] = []
        for batch in channel.batches():
            quotes = batch.columns(Quote)
            seen += quotes["sequence"].tolist()
            if len(seen) == 2000:
                break
        sender.join()
        assert seen == list(range(2000))


def test_a_channel_that_sleeps_keeps_nothing_for_arrays(make_bridge: MakeBridge) -> None:
    bridge = make_bridge(capacity=4096, spin_us=0)
    channel = bridge.connect()
    send(bridge, range(1, 21))
    batch = channel.recv_batch(limit=20, timeout=30)
    kept = batch.columns(Quote)
    batch.release()
    assert bridge.acknowledged == 0

    def beside() -> None:
        wait_until(lambda: bridge.acknowledged == 20 * RECORD, "acknowledgement")
        send(bridge, range(21, 121))

    thread = threading.Thread(target=beside)
    thread.start()
    assert [channel.recv(timeout=30).sequence for _ in range(100)] == list(range(21, 121))
    thread.join()
    assert kept["sequence"].tolist() == list(range(1, 21))
    channel.close()


def test_a_blocked_sender_keeps_nothing_for_arrays_but_the_batch_in_hand(make_bridge: MakeBridge) -> None:
    bridge = make_bridge(capacity=4096, spin_us=0)
    with bridge.connect() as channel:
        publisher = channel.publisher(Quote)
        send(bridge, range(1, 21))
        before = channel.recv_batch(limit=10, timeout=30)
        kept = before.columns(Quote)
        in_hand = channel.recv_batch(limit=10, timeout=30)
        current = in_hand.columns(Quote)
        with pytest.raises(mycelium.ChannelFull):
            publisher.send_many([quote(number) for number in range(200)], timeout=0.01)
        assert bridge.acknowledged == 10 * RECORD
        again = in_hand.columns(Quote)
        in_hand.release()
        channel.acknowledge()
        assert bridge.acknowledged == 20 * RECORD
        for number in range(100, 200):
            bridge.send(quote(number))
            assert channel.recv(timeout=30).sequence == number
        assert kept["sequence"].tolist() == list(range(1, 11))
        assert current["sequence"].tolist() == again["sequence"].tolist() == list(range(11, 21))


def test_where_memory_cannot_be_mapped_twice_arrays_are_copies(
    make_bridge: MakeBridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mycelium._alias.Alias.of", lambda *_: None)
    bridge = make_bridge()
    with bridge.connect() as channel:
        send(bridge, range(1, 11))
        with channel.recv_batch(timeout=30) as batch:
            quotes = batch.columns(Quote)
            assert quotes.flags.writeable
            assert [run["sequence"].tolist() for run in batch.column_runs(Quote)] == [quotes["sequence"].tolist()]
            with pytest.raises(ValueError, match="no view: the system maps no memory twice"):
                batch.columns(Quote, copy=False)
        assert quotes["sequence"].tolist() == list(range(1, len(quotes) + 1))


def test_where_no_memory_is_to_be_had_arrays_keep_the_ring(
    make_bridge: MakeBridge, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("mycelium._alias.Alias.detach", lambda *_: False)
    bridge = make_bridge(capacity=4096)
    with bridge.connect() as channel:
        send(bridge, range(1, 41))
        batch = channel.recv_batch(limit=40, timeout=30)
        kept = batch.columns(Quote)
        batch.release()
        with pytest.raises(TimeoutError):
            channel.recv(timeout=0.01)
        assert bridge.acknowledged == 0
        assert "they keep it, because the system gives no memory" in caplog.text
        del kept
        with pytest.raises(TimeoutError):
            channel.recv(timeout=0.01)
        assert bridge.acknowledged == 40 * RECORD


def test_a_loop_over_batches_is_no_reason_to_warn_and_a_habit_is(
    make_bridge: MakeBridge, transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    bridge = make_bridge(transport=transport, capacity=1 << 16)
    caplog.set_level(logging.WARNING, "mycelium")
    with bridge.connect() as channel:
        total = 0
        for start in range(0, 300, 50):
            send(bridge, range(start, start + 50))
            with whole_batch(channel, 50) as batch:
                quotes = batch.columns(Quote)
                total += int(quotes["sequence"].sum())
        assert total == sum(range(300))
        assert not caplog.records
        kept = [quotes]
        for start in range(300, 600, 50):
            send(bridge, range(start, start + 50))
            with whole_batch(channel, 50) as batch:
                kept.append(batch.columns(Quote, copy=start % 100 == 0))
                channel.statistics()
        held = channel.statistics()
        assert (held.arrays_held, held.bytes_held) == (4, 200 * RECORD)
        for at, array in enumerate(kept):
            assert array["sequence"].tolist() == list(range(250 + at * 50, 300 + at * 50))
        if channel.transport == "shm":
            assert not caplog.records
            assert bridge.acknowledged == 250 * RECORD
            channel.arm()
            channel.disarm()
            assert bridge.acknowledged == 600 * RECORD
            text = f"batches=4 bytes={200 * RECORD}; they got memory of their own; take columns(..., copy=True)"
            assert [text in record.getMessage() for record in caplog.records] == [True]
            for at, array in enumerate(kept):
                assert array["sequence"].tolist() == list(range(250 + at * 50, 300 + at * 50))
        else:
            # A receive buffer is this side's own memory: nothing waits for the arrays.
            assert not caplog.records
        del kept, array, quotes
        channel.acknowledge()
        wait_until(lambda: bridge.acknowledged == 600 * RECORD, "acknowledgement")
        assert channel.statistics().arrays_held == 0


def test_arrays_survive_a_receive_buffer_that_is_used_again_and_grows(make_bridge: MakeBridge) -> None:
    bridge = make_bridge(transport="socket", capacity=1 << 20)
    with bridge.connect() as channel:
        kept = []
        sequence = 0
        while len(kept) < 100:
            send(bridge, range(sequence, sequence + 100))
            array = whole_batch(channel, 100).columns(Quote)
            kept.append((sequence, array["sequence"]))
            sequence += 100
        for start, column in kept:
            assert column.tolist() == list(range(start, start + len(column)))


def mappings() -> int:
    """How many pieces of the test's segments this process has mapped."""
    return Path("/proc/self/maps").read_text().count("mycelium-test")


def test_an_array_that_outlives_its_channel_keeps_its_bytes_and_the_mapping(make_bridge: MakeBridge) -> None:
    gc.collect()
    bridge = make_bridge(capacity=16384)
    channel = bridge.connect()
    assert bridge.over_shm
    before = mappings()
    send(bridge, range(1, 201))
    first = channel.recv_batch(limit=10, timeout=30).columns(Quote)
    channel.recv_batch(limit=80, timeout=30).release()
    in_hand = channel.recv_batch(limit=10, timeout=30).columns(Quote)
    channel.close()
    wait_until(bridge.hung_up.is_set, "hang-up")
    assert bridge.acknowledged == 90 * RECORD, "what is in hand goes to the successor, what is released does not"
    # A successor reads on, and the bridge writes over all of the ring.
    successor_bridge = make_bridge(capacity=16384, segment_fd=bridge.segment_fd)
    with successor_bridge.connect() as successor:
        assert [successor.recv(timeout=30).sequence for _ in range(110)] == list(range(91, 201))
        for number in range(1000, 1600):
            successor_bridge.send(quote(number))
            assert successor.recv(timeout=30).sequence == number
    assert first["sequence"].tolist() == list(range(1, 11))
    assert in_hand["sequence"].tolist() == list(range(91, 101))
    assert Quote.from_array(first)[3] == quote(4)
    successor_bridge.close()
    bridge.close()
    del first, in_hand, successor
    gc.collect()
    assert mappings() < before


def test_a_closed_channel_takes_its_mapping_along_where_no_array_is_left(bridge: BridgeDouble) -> None:
    channel = bridge.connect()
    send(bridge, range(1, 11))
    batch = channel.recv_batch(timeout=30)
    assert len(batch.columns(Quote)) >= 1
    held = mappings()
    batch.release()
    channel.close()
    if bridge.over_shm:
        assert mappings() < held
    assert channel.statistics().arrays_held == 0


def test_pins_are_forgotten_in_any_order() -> None:
    pins = Pins()
    first, second, third = (Pin(start, start + 8, bytearray(8), 0) for start in (0, 8, 16))
    for pin in (first, second, third):
        pins.add(pin)
    assert pins.floor(24) == 0
    second.alive = False
    assert pins.floor(24) == 0
    assert pins.living() == [first, third]
    first.alive = False
    assert pins.floor(24) == 16
    third.released = True
    assert pins.held() == (1, 8)
    assert pins.detach()
    assert (pins.floor(24), pins.held()) == (24, (0, 0))
