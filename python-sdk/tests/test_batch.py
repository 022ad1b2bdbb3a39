"""Batches and rows over both transports."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

import mycelium
from bridge_double import BridgeDouble, wait_until
from builders import quote, signal
from mycelium import _control as control
from mycelium._batch import find_run
from mycelium._frame import encode_frame
from mycelium.messages import Quote, Signal
from test_dynamic import Blob

RECORD = 8 + Quote.SIZE


def test_batches_hold_everything_in_order(bridge: BridgeDouble) -> None:
    with bridge.connect() as channel:
        for number in range(1, 101):
            bridge.send(quote(number))
        bridge.send_control(control.Shutdown(deadline_ms=5000, reason="done"))
        seen: list[int] = []
        for batch in channel.batches(limit=7):
            assert 1 <= len(batch) <= 7
            batch_seen = [message.sequence for message in batch]
            assert len(batch_seen) == len(batch)
            seen += batch_seen
        assert seen == list(range(1, 101))
        assert channel.statistics().frames_in == 100


def test_rows_are_tuples_in_field_order(bridge: BridgeDouble) -> None:
    with bridge.connect() as channel:
        bridge.send(quote(1))
        bridge.send(quote(2, "zł/€"))
        bridge.send(signal(3))
        bridge.send(quote(4))
        rows: list[tuple[object, ...]] = []
        signals: list[tuple[object, ...]] = []
        some: list[tuple[object, ...]] = []
        while len(rows) + len(signals) < 4:
            with channel.recv_batch(timeout=30) as batch:
                rows += batch.rows(Quote)
                signals += batch.rows(Signal)
                some += batch.rows(Quote, "ask", "sequence")
        expected = [quote(1), quote(2, "zł/€"), quote(4)]
        assert rows == [tuple(message.to_dict().values()) for message in expected]
        assert signals == [("w", 3, 30, 0.5, 3 / 8, 1)]
        assert some == [(message.ask, message.sequence) for message in expected]


def test_a_column_has_one_number_of_every_message_of_a_class(bridge: BridgeDouble) -> None:
    with bridge.connect() as channel:
        for message in (quote(1), quote(2), signal(3), quote(4)):
            bridge.send(message)
        sequences: list[int] = []
        asks: list[float] = []
        sides: list[int] = []
        while len(sequences) + len(sides) < 4:
            with channel.recv_batch(timeout=30) as batch:
                sequences += batch.column(Quote, "sequence")
                asks += batch.column(Quote, "ask")
                sides += batch.column(Signal, "side")
                with pytest.raises(TypeError, match="no such field: message=Quote field=price, legal: symbol,"):
                    batch.column(Quote, "price")
                with pytest.raises(TypeError, match=r"no column of this kind: field=symbol type=String\(16\)"):
                    batch.column(Quote, "symbol")
        assert sequences == [1, 2, 4]
        assert asks == [quote(number).ask for number in (1, 2, 4)]
        assert sides == [signal(3).side]
        with pytest.raises(mycelium.StaleMessageError):
            batch.column(Quote, "ask")


def test_a_batch_as_bytes_is_its_frames(bridge: BridgeDouble) -> None:
    with bridge.connect() as channel:
        sent = [quote(1), signal(2), quote(3)]
        for message in sent:
            bridge.send(message)
        received = b""
        while len(received) < sum(8 + message.SIZE for message in sent):
            with channel.recv_batch(timeout=30) as batch:
                received += batch.to_bytes()
        assert received == b"".join(encode_frame(message.TOPIC_ID, message.to_bytes()) for message in sent)
        with pytest.raises(mycelium.StaleMessageError):
            batch.to_bytes()


def test_unknown_fields_are_named(bridge: BridgeDouble) -> None:
    with bridge.connect() as channel:
        bridge.send(quote(1))
        batch = channel.recv_batch(timeout=30)
        with pytest.raises(TypeError, match="bidd"):
            batch.rows(Quote, "bidd")


def test_corrupt_text_in_rows_is_named(bridge: BridgeDouble) -> None:
    with bridge.connect() as channel:
        bad = bytearray(quote(1).to_bytes())
        bad[0] = 17
        bridge.send_frame(Quote.HEADER_WORD, bytes(bad))
        bad[0:2], bad[8] = b"\1\0", 0xFF
        bridge.send_frame(Quote.HEADER_WORD, bytes(bad))
        rows: list[object] = []
        for _ in range(2):
            with channel.recv_batch(limit=1, timeout=30) as batch:
                with pytest.raises(mycelium.MessageError, match="symbol"):
                    batch.rows(Quote)
                rows += batch.rows(Quote, "sequence")
        assert rows == [(1,), (1,)]


def test_a_batch_and_its_messages_are_stale_after_the_next_one(bridge: BridgeDouble) -> None:
    channel = bridge.connect()
    for number in range(1, 7):
        bridge.send(quote(number))
    first = channel.recv_batch(limit=2, timeout=30)
    kept = list(first)
    assert [message.sequence for message in kept] == [1, 2]
    second = channel.recv_batch(limit=2, timeout=30)
    for use in (lambda: kept[1].bid, lambda: first.rows(Quote), lambda: next(iter(first)), lambda: kept[0].copy()):
        with pytest.raises(mycelium.StaleMessageError):
            use()
    last = next(iter(second))
    assert last.sequence == 3
    channel.close()
    for use in (lambda: last.bid, lambda: second.rows(Quote)):
        with pytest.raises(mycelium.StaleMessageError):
            use()
    wait_until(bridge.hung_up.is_set, "hang-up")
    assert bridge.acknowledged == 2 * RECORD


def test_leaving_a_batch_releases_it_unless_something_was_raised(bridge: BridgeDouble) -> None:
    with bridge.connect() as channel:
        bridge.send(quote(1))
        with channel.recv_batch(timeout=30) as batch:
            message = next(iter(batch))
        with pytest.raises(mycelium.StaleMessageError):
            _ = message.bid
        channel.acknowledge()
        wait_until(lambda: bridge.acknowledged == RECORD, "acknowledgement")
        bridge.send(quote(2))
        batch = channel.recv_batch(timeout=30)
        with pytest.raises(KeyError), batch:
            raise KeyError
        assert [message.sequence for message in batch] == [2]
        with pytest.raises(TimeoutError):
            channel.recv_batch(timeout=0)
        with pytest.raises(ValueError, match="limit=0"):
            channel.recv_batch(limit=0)


def test_a_message_that_never_fits_is_refused_before_anything_is_sent(bridge: BridgeDouble) -> None:
    with bridge.connect() as channel:
        huge = SimpleNamespace(size=channel.max_payload + 1)
        blob = type("Blob", (Blob,), {"MAX_SIZE": 1 << 20})
        blobs = channel.publisher(blob)
        with pytest.raises(mycelium.FrameTooLarge) as caught:
            blobs.send(bytes(huge.size))
        assert (caught.value.payload_len, caught.value.max_payload) == (huge.size, channel.max_payload)
        with pytest.raises(mycelium.MessageError):
            blobs.send("text")
        blobs.send(bytes(channel.max_payload))
        wait_until(bridge._have_data, "the blob")
        assert bridge._next()[1] == bytes(channel.max_payload)


@pytest.mark.parametrize("run", [1, 2, 15, 16, 17, 75, 76, 77, 300])
@pytest.mark.parametrize("behind", [0, 7, 99])
def test_a_run_ends_at_the_first_other_word(run: int, behind: int) -> None:
    words = [5, 1, 2] * run + [behind, 0, 0] + [5, 0, 0] * 400
    view = memoryview(bytearray(b"".join(word.to_bytes(8, "little") for word in words))).cast("Q")
    assert find_run(view, 5, 0, len(words), 3, 1024) == run
    assert find_run(view, 5, 0, len(words), 3, 10) == min(run, 10)
    assert find_run(view, 5, 0, run * 3, 3, 1024) == run
