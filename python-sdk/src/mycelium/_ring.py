"""The two ends of a ring (single producer, single consumer, byte-oriented, records of any size).

Positions are bytes since creation and never wrap; an index is a position modulo the capacity. This module counts in
*words* of 8 bytes over the whole mapping, because a cast memoryview is indexed by them: ``word = base + index / 8``.

A record is committed by its header word; a header word of 0 means that nothing is there yet. The producer zeroes the
header after a record before it commits that record. ``head`` is written by the consumer and is the acknowledgement;
``tail`` is written by the producer for observers and recovery only. The ring makes no system call: it calls ``notify``
when the other side has to be woken, and the channel puts a doorbell there.

Speed: :attr:`Consumer.limit` and :attr:`Producer.limit` fold all rare conditions of the hot loops (end of the data
area, no room, head has to be published, a fence is needed on this machine) into one comparison. Whoever stays
below may touch the words directly; whoever does not calls :meth:`Consumer.cross` or :meth:`Producer.claim`.

What this rests on is stated in ``_ordering.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import _layout as layout
from ._alias import Alias
from ._columns import Pin, Pins
from ._frame import FrameHeader, header_word, parse_header, record_len
from ._ordering import is_traced, one_thread_at_a_time
from ._segment import RingMemory
from .exceptions import SegmentCorrupt

__all__ = ["COMMITTING", "Consumer", "Producer", "max_payload"]

COMMITTING = -2
"""As :attr:`Producer.limit`: a commit has begun and is not noted. What sends next takes the long way and settles it."""
_POSITION_MAX = 1 << 62


def _nothing() -> None:
    """Notifies nobody."""


def max_payload(capacity: int) -> int:
    """Returns the most payload bytes that fit into one record of a ring of this capacity."""
    return capacity // layout.RING_RECORD_DIVISOR - layout.FRAME_HEADER_LEN


def _check_record(word: int, index: int, capacity: int, largest: int) -> FrameHeader:
    """Validates a non-zero header word that the peer wrote at this index."""
    header = parse_header(word)
    length = record_len(header.payload_len)
    room = capacity - index
    where = f"at index={index} header_word={word:#018x}"
    if header.is_pad:
        if header.topic_id:
            raise SegmentCorrupt(field="pad.topic_id", value=header.topic_id, legal="0", where=where)
        if index == 0 or length != room or length > capacity // layout.RING_RECORD_DIVISOR:
            legal = f"the room to the end {room}, at most {capacity // layout.RING_RECORD_DIVISOR}, and not at index 0"
            raise SegmentCorrupt(field="pad.record_len", value=length, legal=legal, where=where)
        return header
    if header.topic_id <= layout.CORE_TOPIC_MAX:
        legal = f"{layout.APP_TOPIC_MIN}..=65535"
        raise SegmentCorrupt(field="topic_id", value=header.topic_id, legal=legal, where=where)
    if header.payload_len > largest:
        raise SegmentCorrupt(field="payload_len", value=header.payload_len, legal=f"0..={largest}", where=where)
    if length > room:
        raise SegmentCorrupt(field="record_len", value=length, legal=f"8..={room}", where=where)
    return header


def _count_records(words: Any, base: int, capacity: int, position: int, end: int) -> int:
    """Counts the frames from one position to the other, or to where nothing sensible is."""
    count = 0
    while position < end:
        index = position & (capacity - 1)
        try:
            header = _check_record(words[base + index // 8], index, capacity, capacity)
        except SegmentCorrupt:
            break
        count += not header.is_pad
        position += record_len(header.payload_len)
    return count


class Consumer:
    """Reads records. The caller reads ``words[word]``, hands out the record, and moves on with :meth:`cross`.

    Attributes:
        views: Windows over the whole mapping that refuse to be written through.
        words: The same as 8-byte words, for the words of the ring itself.
        word: Word of the next record's header. Everything before it has been handed out.
        limit: A record that ends below this word may be taken by ``consumer.word = next_word`` alone.
        frames: Records taken, as counted by the channel.
        pins: What arrays keep of the ring.
        barrier: Orders loads on this machine where they are not ordered by themselves; None where they are.
    """

    __slots__ = (
        "_alias",
        "_base",
        "_bias",
        "_capacity",
        "_control",
        "_due",
        "_end",
        "_lag",
        "_largest",
        "_notify",
        "_published",
        "_start",
        "barrier",
        "frames",
        "limit",
        "pins",
        "views",
        "word",
        "words",
    )

    def __init__(
        self,
        ring: RingMemory,
        *,
        max_payload: int,
        barrier: Callable[[], None] | None = None,
        notify: Callable[[], object] = _nothing,
    ) -> None:
        words = ring.views.u64
        head = words[ring.control + layout.RING_HEAD_OFFSET // 8]
        if head % 8 or head > _POSITION_MAX:
            raise SegmentCorrupt(field="head", value=head, legal=f"a multiple of 8 in 0..={_POSITION_MAX}")
        index = head & (ring.capacity - 1)
        self.views = ring.read_only
        self.words = words
        self.frames = 0
        self.word = ring.base + index // 8
        self._base = ring.base
        self._end = ring.base + ring.capacity // 8
        self._capacity = ring.capacity
        self._control = ring.control
        self._largest = max_payload
        self._lag = ring.capacity // layout.RING_HEAD_LAG_DIVISOR
        self.barrier = barrier
        self._notify = notify
        # position = bias + word * 8, for words of the current lap
        self._bias = head - index - ring.base * 8
        self._published = self._start = head
        self._due = head + self._lag  # position from which on head has to be published
        self.pins = Pins()
        self._alias: Alias | None = None
        self._set_limit()

    @property
    def end(self) -> int:
        """Word after the last one that may hold a record."""
        return self._end

    @property
    def byte_count(self) -> int:
        """Bytes of records taken since this end was attached, padding included."""
        return self._bias + self.word * 8 - self._start

    @property
    def has_data(self) -> bool:
        """Whether a record is committed."""
        return bool(self.words[self.word])

    def _set_limit(self) -> None:
        limit = min(self._end, (self._due - self._bias) >> 3)
        self.limit = -1 if self.barrier is not None else limit

    def inspect(self, word: int) -> FrameHeader | None:
        """Validates a header word that is not known to be good, and skips it if it is padding.

        Returns:
            The header of a record at :attr:`word`; None if it was padding: look again.

        Raises:
            SegmentCorrupt: The peer wrote something impossible.
        """
        header = _check_record(word, (self.word - self._base) * 8, self._capacity, self._largest)
        if not header.is_pad:
            return header
        self._bias += self._capacity
        self.word = self._base
        self._set_limit()
        return None

    def cross(self, word: int, next_word: int) -> int:
        """Takes the records from ``word`` to ``next_word``, and does everything that is rarely due.

        Returns:
            The new :attr:`word`, or -1 if the record is not complete (which cannot happen in a ring).

        Raises:
            SegmentCorrupt: The record reaches over the end of the data area.
        """
        if next_word > self._end:
            header = self.words[word]
            where = f"at index={(word - self._base) * 8} header_word={header:#018x}"
            legal = f"8..={(self._end - word) * 8}"
            raise SegmentCorrupt(field="record_len", value=(next_word - word) * 8, legal=legal, where=where)
        if self.barrier is not None:
            self.barrier()
        if self._bias + next_word * 8 >= self._due:
            self.publish(word)
        if next_word == self._end:
            next_word = self._base
            self._bias += self._capacity
        self.word = next_word
        self._set_limit()
        return next_word

    def _position(self, word: int) -> int:
        """Position of :attr:`word` or of something in hand, which may have begun in the lap before."""
        return self._bias + word * 8 - (self._capacity if word > self.word else 0)

    def pin(self, word: int, end: int) -> Pin | None:
        """Keeps head from being published past ``word`` for as long as arrays over the words up to ``end`` live.

        Returns:
            None where arrays cannot be given memory of their own if need be, so that there must be none.
        """
        alias = self._alias
        if alias is None:
            alias = self._alias = Alias.of(self.views.raw.obj, self._base * 8, self._capacity)
            if alias is None:
                return None
        start = self._position(word)
        pin = Pin(start, start + (end - word) * 8, alias, (word - self._base) * 8)
        self.pins.add(pin)
        return pin

    def detach_arrays(self) -> bool:
        """Gives arrays memory that the producer cannot write to; False where the system refuses."""
        if not self.pins.living():
            return True
        if not self.pins.detach():
            return False
        self._alias = None  # some of its pages do not follow the ring any more
        return True

    def publish(self, word: int) -> None:
        """Publishes head: everything before ``word`` is released. ``word`` is :attr:`word` or the record in hand.

        Head stays in front of what arrays keep, unless that is half of the ring.
        """
        wanted = self._position(word)
        position = self.pins.floor(wanted)
        self._due = wanted + self._lag
        if wanted - position > self._capacity // 2 and self.detach_arrays():
            position = wanted
        if position == self._published:
            self._set_limit()
            return
        if self.barrier is not None:
            self.barrier()
        words = self.words
        words[self._control + layout.RING_HEAD_OFFSET // 8] = position
        self._published = position
        self._set_limit()
        parked = self._control + layout.RING_PRODUCER_PARKED_OFFSET // 8
        if words[parked]:
            words[parked] = 0
            self._notify()

    def unread(self) -> int:
        """Counts the frames that are there and were not taken."""
        position = self._bias + self.word * 8
        return _count_records(self.words, self._base, self._capacity, position, position + self._capacity)

    def set_parked(self, parked: bool) -> None:
        """Raises or lowers this side's parked flag. After raising it: heavy fence, look again, then sleep."""
        self.words[self._control + layout.RING_CONSUMER_PARKED_OFFSET // 8] = int(parked)


class Producer:
    """Writes records.

    Attributes:
        views: Windows over the whole mapping.
        words: The same as 8-byte words.
        word: Word where the next record starts; its header is 0.
        tail_word: Word of ``tail``.
        parked_word: Word of the consumer's parked flag.
        bias: ``tail = bias + word * 8`` for words of the current lap.
        limit: A record that ends at or below this word may be written without asking; :data:`COMMITTING` while one
            is being committed.
        shut: A record is claimed and not committed yet.
        frames: Records committed.
    """

    __slots__ = (
        "_barrier",
        "_base",
        "_before",
        "_capacity",
        "_careful",
        "_control",
        "_end",
        "_fenced",
        "_head",
        "_start",
        "bias",
        "frames",
        "limit",
        "notify",
        "parked_word",
        "shut",
        "tail_word",
        "views",
        "word",
        "words",
    )

    def __init__(
        self,
        ring: RingMemory,
        *,
        max_payload: int,
        barrier: Callable[[], None] | None = None,
        notify: Callable[[], object] = _nothing,
        fenced: bool = False,
    ) -> None:
        self.views = ring.views
        self.words = words = ring.views.u64
        self.notify = notify
        self.frames = 0
        self._base = ring.base
        self._end = ring.base + ring.capacity // 8
        self._before: tuple[int, int, int] | None = None  # word, bias and frames before a commit that may wrap
        self._capacity = ring.capacity
        self._control = ring.control
        self._barrier = barrier
        self._fenced = fenced
        self._careful = fenced or barrier is not None or not one_thread_at_a_time()
        self.shut = False
        self.tail_word = ring.control + layout.RING_TAIL_OFFSET // 8
        self.parked_word = ring.control + layout.RING_CONSUMER_PARKED_OFFSET // 8
        head = words[ring.control + layout.RING_HEAD_OFFSET // 8]
        tail = words[self.tail_word]
        if head % 8 or head > _POSITION_MAX:
            raise SegmentCorrupt(field="head", value=head, legal=f"a multiple of 8 in 0..={_POSITION_MAX}")
        if tail % 8 or tail > head + ring.capacity:
            legal = f"a multiple of 8 up to {head + ring.capacity}"
            raise SegmentCorrupt(field="tail", value=tail, legal=legal)
        self._head = head
        # A predecessor that died between a commit and its store of tail left tail behind, and the consumer may have
        # released that record since, so that head is the higher of the two.
        position = self._scan(max(head, tail), head + ring.capacity, max_payload)
        if position != tail:
            words[self.tail_word] = position
        index = position & (ring.capacity - 1)
        self.bias = position - index - ring.base * 8
        self.word = ring.base + index // 8
        self._start = position
        self._set_limit()

    def _scan(self, position: int, last: int, largest: int) -> int:
        """Skips the records that a predecessor committed after it last stored tail."""
        while True:
            index = position & (self._capacity - 1)
            word = self.words[self._base + index // 8]
            if word == 0:
                return position
            position += record_len(_check_record(word, index, self._capacity, largest).payload_len)
            if position > last:
                raise SegmentCorrupt(field="tail", value=position, legal=f"at most head + capacity = {last}")

    @property
    def position(self) -> int:
        """Bytes written since the ring was created."""
        return self.bias + self.word * 8

    @property
    def byte_count(self) -> int:
        """Bytes of records committed since this end was attached, padding included."""
        return self.position - self._start

    @property
    def free(self) -> int:
        """Bytes free at the last look; the consumer may have released more since."""
        return self._capacity - (self.position - self._head)

    def _set_limit(self) -> None:
        space = (self._head + self._capacity - 8 - self.bias) >> 3
        # A tracer is looked for here only: whenever the ring comes to its end, or seems full.
        self.limit = -1 if self._careful or self.shut or is_traced() else min(self._end - 1, space)

    def has_room(self, count: int) -> bool:
        """Whether a record of ``count`` words fits now, padding included; looks at head if need be.

        Raises:
            SegmentCorrupt: The consumer published an impossible head.
        """
        room = self._end - self.word
        need = (count + (room if count > room else 0)) * 8 + 8
        if self.position + need - self._head <= self._capacity:
            return True
        self._load_head()
        return self.position + need - self._head <= self._capacity

    def _load_head(self) -> None:
        # Done outside of the gate, too, while another thread commits: each load comes before what it is compared with.
        known = self._head
        head = self.words[self._control + layout.RING_HEAD_OFFSET // 8]
        position = self.position
        if head % 8 or not known <= head <= position:
            raise SegmentCorrupt(field="head", value=head, legal=f"a multiple of 8 in {known}..={position}")
        self._head = head

    def settle(self) -> None:
        """Completes what an exception, such as KeyboardInterrupt, cut short between a commit and the note of it.

        Everything that is committed stays committed and is counted, and a consumer that sleeps is woken.
        """
        if self.limit != COMMITTING:
            return
        words = self.words
        if self._before is not None:
            self.word, self.bias, self.frames = self._before
        word, bias, frames = self.word, self.bias, self.frames
        while (header := words[word]) != 0:
            record = _check_record(header, (word - self._base) * 8, self._capacity, self._capacity)
            frames += not record.is_pad
            word += record_len(record.payload_len) // 8
            if word == self._end:
                word = self._base
                bias += self._capacity
            if bias + word * 8 > self._head + self._capacity:
                legal = f"at most head + capacity = {self._head + self._capacity}"
                raise SegmentCorrupt(field="tail", value=bias + word * 8, legal=legal)
        self._before = word, bias, frames
        self.word, self.bias, self.frames = self._before
        words[self.tail_word] = bias + word * 8
        words[self.parked_word] = 0
        self.notify()
        self._before = None
        self._set_limit()

    def claim(self, count: int) -> int:
        """Makes room for a record of ``count`` words, header included, and writes padding where it is needed.

        Nothing is committed: the caller writes the payload and calls :meth:`commit`, or :meth:`reopen`. Until then
        :attr:`limit` is -1, so that nobody takes the short way meanwhile: no other thread, and no signal handler.

        Returns:
            The word of the record's header; -1 if the ring is full.
        """
        self.settle()
        self.shut = True
        self.limit = -1
        if not self.has_room(count):
            self.reopen()
            return -1
        words = self.words
        room = self._end - self.word
        if count > room:
            padding = header_word(room * 8 - layout.FRAME_HEADER_LEN, 0, layout.FLAG_PAD)
            self.limit = COMMITTING
            self._before = self.word, self.bias, self.frames
            words[self._base] = 0
            if self._barrier is not None:
                self._barrier()
            words[self.word] = padding
            self.bias += self._capacity
            self.word = self._base
            words[self.tail_word] = self.bias + self._base * 8
        self._before = None
        self._set_limit()
        return self.word

    def abandon(self) -> None:
        """Ends a :meth:`claim` that may not have come to its commit, or may have."""
        self.settle()
        self.reopen()

    def reopen(self) -> None:
        """Allows the short way again after a :meth:`claim`."""
        self.shut = False
        self._set_limit()

    def extend(self, count: int, wanted: int) -> tuple[int, int]:
        """Returns what :meth:`claim` has made room for: the word of the first record, and the number of records.

        Args:
            count: Words of a record, as given to :meth:`claim`.
            wanted: Most records.
        """
        self._load_head()
        space = (self._head + self._capacity - 8 - self.bias) >> 3
        return self.word, min(wanted, (min(self._end, space) - self.word) // count)

    def commit_many(self, word: int, count: int, number: int, header: int) -> None:
        """Makes adjacent records of one kind visible, all at once: the first one is committed last.

        Args:
            word: Word of the first record.
            count: Words of a record.
            number: How many records.
            header: The header word of all.
        """
        next_word = word + count * number
        if number > 1:
            later = memoryview(header.to_bytes(8, "little") * (number - 1)).cast("Q")
            self.words[word + count : next_word : count] = later
        self.commit(word, next_word, header, number)

    def commit(self, word: int, next_word: int, header: int, frames: int = 1) -> None:
        """Makes the record from ``word`` to ``next_word`` visible, and notifies the consumer if it sleeps."""
        words = self.words
        wraps = next_word == self._end
        start = self._base if wraps else next_word
        bias = self.bias + self._capacity if wraps else self.bias
        self._before = self.word, self.bias, self.frames
        self.limit = COMMITTING
        words[start] = 0
        if self._barrier is not None:
            self._barrier()
        # From the commit to the count there is no call and no jump: what is committed is counted.
        words[word] = header
        self.bias = bias
        self.word = start
        self.frames += frames
        words[self.tail_word] = bias + start * 8
        self._before = None
        self.reopen()
        # No call but the bell's, which is one of C: nothing comes between clearing the flag and ringing.
        if words[self.parked_word] or self._fenced:
            words[self.parked_word] = 0
            self.notify()

    def untaken(self) -> int:
        """Counts the frames that the consumer has not released."""
        head = self.words[self._control + layout.RING_HEAD_OFFSET // 8]
        if head % 8 or not self._head <= head <= self.position:
            return 0
        return _count_records(self.words, self._base, self._capacity, head, self.position)

    def set_parked(self, parked: bool) -> None:
        """Raises or lowers this side's parked flag. After raising it: heavy fence, look again, then sleep."""
        self.words[self._control + layout.RING_PRODUCER_PARKED_OFFSET // 8] = int(parked)
