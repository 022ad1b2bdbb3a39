"""Both ends of a ring on plain memory: against a list, at the wrap, after a crash, and with impossible words."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from mycelium import _layout as layout
from mycelium._frame import header_word, parse_header, record_len
from mycelium._message import Views
from mycelium._ring import Consumer, Producer, max_payload
from mycelium._segment import RingMemory
from mycelium.exceptions import SegmentCorrupt

CAPACITY = 4096
BASE = layout.RING_CONTROL_LEN // 8
LARGEST = max_payload(CAPACITY)
TOPIC = 1001


def ring_memory(start: int = 0) -> RingMemory:
    """A ring in a bytearray whose ends both stand at this position."""
    buffer = bytearray(layout.RING_CONTROL_LEN + CAPACITY)
    memory = RingMemory(Views(buffer), Views(buffer, readonly=True), 0, BASE, CAPACITY)
    memory.views.u64[layout.RING_HEAD_OFFSET // 8] = start
    memory.views.u64[layout.RING_TAIL_OFFSET // 8] = start
    return memory


def push(producer: Producer, payload: bytes, topic: int = TOPIC) -> bool:
    count = record_len(len(payload)) // 8
    word = producer.claim(count)
    if word < 0:
        return False
    producer.views.raw[word * 8 + 8 : word * 8 + 8 + len(payload)] = payload
    producer.commit(word, word + count, header_word(len(payload), topic))
    return True


def pop(consumer: Consumer) -> bytes | None:
    while (value := consumer.words[consumer.word]) != 0:
        header = consumer.inspect(value)
        if header is None:
            continue
        word = consumer.word
        start = word * 8 + 8
        payload = bytes(consumer.views.raw[start : start + header.payload_len])
        consumer.cross(word, word + record_len(header.payload_len) // 8)
        return payload
    consumer.publish(consumer.word)
    return None


def ends(memory: RingMemory, barrier: Callable[[], None] | None = None) -> tuple[Producer, Consumer]:
    return (
        Producer(memory, max_payload=LARGEST, barrier=barrier),
        Consumer(memory, max_payload=LARGEST, barrier=barrier),
    )


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("weak", [False, True])
def test_any_sequence_of_calls_behaves_like_a_list(seed: int, weak: bool) -> None:
    chance = random.Random(seed)
    barriers: list[int] = []
    producer, consumer = ends(ring_memory(8 * seed), (lambda: barriers.append(1)) if weak else None)
    model: list[bytes] = []
    written = 0
    for _ in range(4000):
        if chance.random() < 0.5:
            payload = chance.randbytes(chance.choice((0, 1, 7, 8, 64, 100, 500, LARGEST)))
            if push(producer, payload):
                model.append(payload)
                written += 1
        else:
            assert pop(consumer) == (model.pop(0) if model else None)
        head = consumer.words[layout.RING_HEAD_OFFSET // 8]
        assert head <= producer.position <= head + CAPACITY
        assert consumer.words[layout.RING_TAIL_OFFSET // 8] == producer.position
    while model:
        assert pop(consumer) == model.pop(0)
    assert pop(consumer) is None
    assert consumer.words[layout.RING_HEAD_OFFSET // 8] == producer.position
    assert producer.frames == written > 500
    assert producer.position > 10 * CAPACITY
    assert bool(barriers) == weak


def test_a_full_ring_takes_nothing_and_goes_on_after_a_release() -> None:
    producer, consumer = ends(ring_memory())
    count = 0
    while push(producer, bytes(56)):
        count += 1
    assert count == (CAPACITY - 8) // 64
    assert producer.free < 64 + 8
    for _ in range(count):
        assert pop(consumer) == bytes(56)
    assert pop(consumer) is None
    assert push(producer, b"again")
    assert pop(consumer) == b"again"


def test_head_lags_by_less_than_an_eighth_and_is_published_when_empty() -> None:
    producer, consumer = ends(ring_memory())
    for _ in range(40):
        assert push(producer, bytes(56))
    for released in range(40):
        lag = released * 64 - consumer.words[0]
        assert 0 <= lag < CAPACITY // layout.RING_HEAD_LAG_DIVISOR
        pop(consumer)
    assert pop(consumer) is None
    assert consumer.words[0] == 40 * 64


def test_a_record_that_does_not_fit_before_the_end_leaves_padding() -> None:
    producer, consumer = ends(ring_memory(CAPACITY - 64))
    assert push(producer, bytes(range(100)))
    pad = parse_header(producer.words[BASE + (CAPACITY - 64) // 8])
    assert (pad.is_pad, pad.topic_id, pad.payload_len) == (True, 0, 56)
    assert producer.position == CAPACITY + record_len(100)
    assert pop(consumer) == bytes(range(100))


def test_a_record_that_ends_with_the_data_area_leaves_none() -> None:
    producer, consumer = ends(ring_memory(CAPACITY - 64))
    assert push(producer, bytes(56))
    assert producer.word == BASE
    assert pop(consumer) == bytes(56)
    assert consumer.word == BASE
    assert pop(consumer) is None


def test_a_successor_producer_finds_what_was_committed_behind_tail() -> None:
    memory = ring_memory(CAPACITY - 200)
    producer, consumer = ends(memory)
    tail = producer.position
    for size in (56, 80, 120, 8):
        assert push(producer, bytes(size))
    end = producer.position
    memory.views.u64[layout.RING_TAIL_OFFSET // 8] = tail
    successor = Producer(memory, max_payload=LARGEST)
    assert successor.position == end
    assert memory.views.u64[layout.RING_TAIL_OFFSET // 8] == end
    assert push(successor, b"next")
    assert [len(pop(consumer) or b"") for _ in range(5)] == [56, 80, 120, 8, 4]


def test_a_successor_consumer_starts_with_the_first_unreleased_record() -> None:
    memory = ring_memory()
    producer, consumer = ends(memory)
    for number in range(3):
        push(producer, bytes([number]))
    assert pop(consumer) == b"\0"
    consumer.publish(consumer.word)
    assert pop(consumer) == b"\1"
    successor = Consumer(memory, max_payload=LARGEST)
    assert pop(successor) == b"\1"
    assert pop(successor) == b"\2"


def test_an_abandoned_claim_is_not_seen() -> None:
    producer, consumer = ends(ring_memory())
    word = producer.claim(4)
    producer.views.raw[word * 8 + 8 : word * 8 + 32] = b"\xff" * 24
    assert pop(consumer) is None
    assert push(producer, b"real")
    assert pop(consumer) == b"real"


@pytest.mark.parametrize("fenced", [False, True])
def test_a_commit_notifies_a_parked_consumer_once(fenced: bool) -> None:
    memory = ring_memory()
    calls: list[int] = []
    producer = Producer(memory, max_payload=LARGEST, notify=lambda: calls.append(1), fenced=fenced)
    consumer = Consumer(memory, max_payload=LARGEST)
    push(producer, b"a")
    assert len(calls) == int(fenced)
    consumer.set_parked(True)
    push(producer, b"b")
    push(producer, b"c")
    assert len(calls) == (3 if fenced else 1)
    assert memory.views.u64[layout.RING_CONSUMER_PARKED_OFFSET // 8] == 0


def test_publishing_head_notifies_a_parked_producer_once() -> None:
    memory = ring_memory()
    calls: list[int] = []
    producer = Producer(memory, max_payload=LARGEST)
    consumer = Consumer(memory, max_payload=LARGEST, notify=lambda: calls.append(1))
    push(producer, b"a")
    producer.set_parked(True)
    assert pop(consumer) == b"a"
    assert calls == []
    assert pop(consumer) is None
    assert calls == [1]
    assert memory.views.u64[layout.RING_PRODUCER_PARKED_OFFSET // 8] == 0


PAD = layout.FLAG_PAD
CORRUPT = [
    ("topic_id", 0, header_word(8, 0), "topic_id", 0),
    ("control topic", 0, header_word(8, 12), "topic_id", 12),
    ("longer than allowed", 0, header_word(LARGEST + 1, TOPIC), "payload_len", LARGEST + 1),
    ("all ones", 0, (1 << 64) - 2 - (1 << 48), "payload_len", 0xFFFF_FFFE),
    ("over the end", CAPACITY - 64, header_word(64, TOPIC), "record_len", 72),
    ("padding at the start", 0, header_word(CAPACITY - 8, 0, PAD), "pad.record_len", CAPACITY),
    ("padding that is too short", CAPACITY - 64, header_word(48, 0, PAD), "pad.record_len", 56),
    ("padding that is too long", CAPACITY - 2048, header_word(2040, 0, PAD), "pad.record_len", 2048),
    ("padding with a topic", CAPACITY - 64, header_word(56, TOPIC, PAD), "pad.topic_id", TOPIC),
]


@pytest.mark.parametrize(
    ("start", "word", "field", "value"), [case[1:] for case in CORRUPT], ids=[c[0] for c in CORRUPT]
)
def test_an_impossible_header_word_names_field_value_and_range(start: int, word: int, field: str, value: int) -> None:
    memory = ring_memory(start)
    consumer = Consumer(memory, max_payload=LARGEST)
    memory.views.u64[consumer.word] = word
    with pytest.raises(SegmentCorrupt) as caught:
        consumer.inspect(memory.views.u64[consumer.word])
    assert (caught.value.field, caught.value.value) == (field, value)
    assert f"{word:#018x}" in str(caught.value)
    with pytest.raises(SegmentCorrupt):
        Producer(memory, max_payload=LARGEST)


def test_a_known_message_that_reaches_over_the_end_is_caught_by_cross() -> None:
    memory = ring_memory(CAPACITY - 64)
    consumer = Consumer(memory, max_payload=LARGEST)
    memory.views.u64[consumer.word] = header_word(64, TOPIC)
    with pytest.raises(SegmentCorrupt) as caught:
        consumer.cross(consumer.word, consumer.word + 9)
    assert (caught.value.field, caught.value.value) == ("record_len", 72)


@pytest.mark.parametrize("head", [8, 4, CAPACITY * 2, 1 << 63])
def test_an_impossible_head_is_caught_by_the_producer(head: int) -> None:
    memory = ring_memory(64)
    producer = Producer(memory, max_payload=LARGEST)
    while producer.free >= 1024 + 8:
        push(producer, bytes(LARGEST))
    memory.views.u64[0] = head
    with pytest.raises(SegmentCorrupt) as caught:
        push(producer, bytes(LARGEST))
    assert (caught.value.field, caught.value.value) == ("head", head)


def test_a_successor_producer_starts_at_the_head_where_tail_stayed_behind_it() -> None:
    memory = ring_memory()
    memory.views.u64[layout.RING_HEAD_OFFSET // 8] = 128
    memory.views.u64[layout.RING_TAIL_OFFSET // 8] = 64
    assert Producer(memory, max_payload=LARGEST).position == 128
    assert memory.views.u64[layout.RING_TAIL_OFFSET // 8] == 128


@pytest.mark.parametrize(
    ("head", "tail", "field"),
    [(4, 8, "head"), (1 << 63, 1 << 63, "head"), (0, CAPACITY + 8, "tail"), (0, 4, "tail")],
)
def test_attaching_checks_head_and_tail(head: int, tail: int, field: str) -> None:
    memory = ring_memory()
    memory.views.u64[layout.RING_HEAD_OFFSET // 8] = head
    memory.views.u64[layout.RING_TAIL_OFFSET // 8] = tail
    with pytest.raises(SegmentCorrupt) as caught:
        Producer(memory, max_payload=LARGEST)
    assert caught.value.field == field
    if field == "head":
        with pytest.raises(SegmentCorrupt):
            Consumer(memory, max_payload=LARGEST)
