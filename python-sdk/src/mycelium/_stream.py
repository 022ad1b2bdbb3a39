"""The two ends of a channel over the socket, with the interface of the ends of a ring.

Received frames lie in a private buffer, one after the other, exactly as in a ring; the channel reads them with the same
loop. The word after the last received byte is kept 0, which reads as "nothing there yet". A frame that has not arrived
completely is hidden by zeroing its header word until more bytes come.

Control frames share the stream. They are cut out in order, or ahead of time (:meth:`StreamConsumer.scan_control`) while
a reply is awaited; then a marker takes their place, so that no data frame is lost or reordered.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

from . import _layout as layout
from ._columns import Pin, Pins
from ._control import Ack
from ._frame import CONTROL_PAYLOAD_MAX, FrameHeader, encode_frame, header_word, parse_header, record_len
from ._message import Views
from ._socket import SocketWriter
from .exceptions import ProtocolError

__all__ = ["StreamConsumer", "StreamProducer"]

_BUFFER_LEN = 256 * 1024
_BURST_LEN = 64 * 1024
_MARKER_FLAGS = 0x8000 | layout.FLAG_PAD


class StreamConsumer:
    """Reads records from the socket; see :class:`mycelium._ring.Consumer` for the interface.

    Args:
        sock: The non-blocking socket.
        max_payload: Longest payload that the bridge may send, in bytes.
        ack_window: Bytes of released records after which an acknowledgement is due at once.
        send_ack: Called with the word up to which one is due at once.
        rest: Bytes that came with the handshake.
    """

    __slots__ = (
        "_acked",
        "_buffer",
        "_buffer_pins",
        "_filled",
        "_hidden",
        "_largest",
        "_memory",
        "_origin",
        "_outcome",
        "_scanned",
        "_send_ack",
        "_sock",
        "_tail",
        "_window",
        "barrier",
        "end",
        "eof",
        "frames",
        "limit",
        "pins",
        "views",
        "word",
        "words",
    )

    def __init__(
        self,
        sock: socket.socket,
        *,
        max_payload: int,
        ack_window: int,
        send_ack: Callable[[int], None],
        rest: bytes = b"",
        buffer_len: int = _BUFFER_LEN,
    ) -> None:
        self._sock = sock
        self._largest = max_payload
        self._window = max(ack_window, 8)
        self._send_ack = send_ack
        self._buffer = bytearray(max(buffer_len, record_len(len(rest)) + 4096) & ~7)
        self._memory = Views(self._buffer)
        self.views = Views(self._buffer, readonly=True)
        self.words = self._memory.u64
        self.word = self.end = self._scanned = 0
        self.frames = 0
        self.barrier: Callable[[], None] | None = None
        self.pins = Pins()
        self._buffer_pins: list[Pin] = []  # those of the present buffer
        self.eof = False
        self._filled = 0
        self._hidden = 0
        self._tail: bytes | bytearray = b""
        # released bytes of application records = origin + word * 8
        self._origin = 0
        self._acked = 0
        self._memory.raw[: len(rest)] = rest
        self._outcome = [len(rest)] if rest else []
        self._set_limit()
        if rest:
            self._settle()

    @property
    def byte_count(self) -> int:
        """Bytes of application records taken."""
        return self._origin + self.word * 8

    @property
    def has_data(self) -> bool:
        """Whether a frame, complete or not, starts at :attr:`word` and has not been found incomplete."""
        return self.word < self.end and bool(self.words[self.word])

    @property
    def unsettled(self) -> bool:
        """Whether bytes came that are not taken into account, because a signal handler raised behind the call."""
        return bool(self._outcome) and not self.eof

    def released(self, word: int) -> int:
        """Bytes of application records before ``word``, which is :attr:`word` or the record in hand."""
        return self._origin + word * 8

    def unacknowledged(self, word: int) -> bool:
        """Whether records before ``word`` are released and not acknowledged."""
        return self._origin + word * 8 > self._acked

    def ack_due(self, word: int) -> bool:
        """Whether so much before ``word`` is not acknowledged that it cannot wait."""
        return self._origin + word * 8 - self._acked >= self._window

    def take_ack(self, word: int) -> bytes:
        """Returns the Ack frame for everything before ``word``; empty where nothing is new."""
        released = self._origin + word * 8
        if released <= self._acked:
            return b""
        self._acked = released
        return encode_frame(Ack.TOPIC_ID, Ack(bytes=released).to_bytes())

    def _set_limit(self) -> None:
        self.limit = min(self.end, (self._acked + self._window - self._origin) >> 3)

    def _hide(self) -> None:
        """Makes the incomplete frame at :attr:`word` look like nothing."""
        self._hidden = self.words[self.word]
        self.words[self.word] = 0

    def _unhide(self) -> None:
        if self._hidden:
            self.words[self.word] = self._hidden
            self._hidden = 0

    def fill(self, *, movable: bool) -> bool:
        """Receives what the socket has; never blocks.

        Args:
            movable: Nothing of the buffer is in the user's hands, so that the rest may be moved to its start.

        Returns:
            Whether bytes came. :attr:`eof` tells that no more will.
        """
        if self.eof:
            return False
        if not self._outcome:
            self._make_space(movable=movable)
            try:
                with self._memory.raw[self._filled : len(self._buffer) - 8] as space:
                    # The count is in the list even if a signal handler raises right behind the call.
                    self._outcome.extend(map(self._sock.recv_into, (space,)))
            except (BlockingIOError, InterruptedError):
                return False
            except OSError:
                self._outcome.append(0)
            except BaseException:
                if not isinstance(self._sock, socket.socket):
                    self._outcome.append(0)  # Over TLS nobody knows how far an interrupted call came.
                raise
        return self._settle()

    def _settle(self) -> bool:
        """Takes what was received into account: there is no call in it, so it happens as a whole or not at all."""
        count = self._outcome[0]
        if not count:
            self.eof = True
            return False
        words = self.words
        if self._hidden:
            words[self.word] = self._hidden
            self._hidden = 0
        self._memory.raw[self.end * 8 : self._filled] = self._tail
        filled = self._filled + count
        end = filled >> 3
        self._filled = filled
        self.end = end
        self._tail = self._buffer[end * 8 : filled]
        words[end] = 0
        del self._outcome[0]
        self._set_limit()
        return True

    def _make_space(self, *, movable: bool) -> None:
        length = len(self._buffer)
        if movable and self.word and (self.word == self.end or self._filled > length // 2):
            start = self.word * 8
            rest = bytes(self.views.raw[start : self._filled])
            scanned = max(self._scanned - self.word, 0)
            buffer, memory, views = self._buffer, self._memory, self.views
            if any(pin.alive for pin in self._buffer_pins):
                buffer = bytearray(length)
                memory, views = Views(buffer), Views(buffer, readonly=True)
            # No call from here to the limit, as in _settle(). The partial word lies in _tail.
            self.words[self.word] = 0
            self._buffer = buffer
            self._memory = memory
            self.views = views
            self.words = memory.u64
            self._buffer_pins = []
            memory.raw[: self._filled - start] = rest
            self.limit = -1
            self._filled -= start
            self._origin += start
            self._scanned = scanned
            self.word = 0
            self.end = self._filled >> 3
            self.words[self.end] = 0
            self._set_limit()
        if length - 8 - self._filled >= length // 4:
            return
        # Not enough space: an incomplete long frame, or data that came while a reply is awaited. A message in the
        # user's hands keeps the old buffer alive; whoever still reads that one finds nothing more and comes back here.
        buffer = bytearray(length * 2)
        buffer[:length] = self.views.raw
        memory, views = Views(buffer), Views(buffer, readonly=True)
        self.words[self.word] = 0
        self._buffer = buffer
        self._memory = memory
        self.views = views
        self.words = memory.u64
        self._buffer_pins = []

    def detach_arrays(self) -> bool:
        """Forgets what arrays keep, which is theirs already; True."""
        return self.pins.detach()

    def pin(self, word: int, end: int) -> Pin:
        """Keeps the bytes of the buffer as they are for as long as arrays over the words up to ``end`` live.

        Acknowledgements do not wait for that: the buffer is this side's own memory, and a new one takes its place.
        """
        pin = Pin(self._origin + word * 8, self._origin + end * 8, self._buffer, word * 8)
        self.pins.living()
        self.pins.add(pin)
        self._buffer_pins.append(pin)
        return pin

    def _header(self, word: int) -> FrameHeader:
        value = self.words[word]
        header = parse_header(value)
        control = header.topic_id <= layout.CORE_TOPIC_MAX
        largest = CONTROL_PAYLOAD_MAX if control else self._largest
        marker = header.topic_id == 0 and header.flags == _MARKER_FLAGS
        if not marker and (header.topic_id == 0 or header.is_pad):
            raise ProtocolError(f"not a frame: header_word={value:#018x}; the stream is out of step")
        if header.payload_len > largest:
            text = f"frame too long: topic_id={header.topic_id} payload_len={header.payload_len}, legal: 0..={largest}"
            raise ProtocolError(text)
        return header

    def inspect(self, _word: int) -> FrameHeader | None:
        """Validates the header at :attr:`word`, skips a marker, hides an incomplete frame.

        Returns:
            The header of a complete frame, control frames included; None: look again.

        Raises:
            ProtocolError: The bytes are no frame.
        """
        header = self._header(self.word)
        if self.word + record_len(header.payload_len) // 8 > self.end:
            self._hide()
            return None
        if header.topic_id == 0:
            self.skip_control(header)
            return None
        return header

    def skip_control(self, header: FrameHeader) -> None:
        """Moves over the control frame or marker at :attr:`word`; its bytes are not acknowledged."""
        length = record_len(header.payload_len)
        self._origin -= length
        self.word += length // 8
        self._set_limit()

    def payload(self, word: int, header: FrameHeader) -> bytes:
        """Copies the payload of the frame at ``word``."""
        return bytes(self.views.raw[word * 8 + 8 : word * 8 + 8 + header.payload_len])

    def scan_control(self) -> Iterator[tuple[FrameHeader, bytes]]:
        """Takes the control frames out of everything that has arrived, in order, and leaves markers."""
        word = max(self._scanned, self.word)
        self._unhide()
        while word < self.end:
            header = self._header(word)
            next_word = word + record_len(header.payload_len) // 8
            if next_word > self.end:
                break
            self._scanned = next_word
            if 0 < header.topic_id <= layout.CORE_TOPIC_MAX:
                payload = self.payload(word, header)
                self.words[word] = header_word(header.payload_len, 0, _MARKER_FLAGS)
                yield header, payload
            word = next_word

    def cross(self, word: int, next_word: int) -> int:
        """Takes the records from ``word`` to ``next_word``.

        Returns:
            The new :attr:`word`, or -1 if the record has not arrived completely.
        """
        if next_word > self.end:
            self._hide()
            return -1
        if self.ack_due(word):
            self._send_ack(word)
        self.word = next_word
        self._set_limit()
        return next_word

    def close(self) -> None:
        """Releases the views."""
        self._memory.release()
        self.views.release()


class StreamProducer:
    """Writes records to the socket; see :class:`mycelium._ring.Producer` for the interface.

    A record is built in a private buffer that always starts at word 0, and sent by :meth:`commit`.

    Args:
        writer: The socket's writer, shared with the control frames.
        take_ack: Returns the Ack frame that goes in front of the next record, or nothing.
    """

    __slots__ = (
        "_take_ack",
        "_writer",
        "bias",
        "byte_count",
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

    def __init__(self, writer: SocketWriter, *, take_ack: Callable[[], bytes]) -> None:
        self._writer = writer
        self._take_ack = take_ack
        self.views = Views(bytearray(8192))
        self.words = self.views.u64
        self.word = 0
        self.limit = -1  # Every record takes the long way: claim and commit.
        self.shut = False
        self.frames = self.byte_count = 0
        self.bias = self.tail_word = self.parked_word = 0
        self.notify: Callable[[], object] = lambda: None

    @property
    def free(self) -> int:
        """Bytes free at the last look: 0, as this is asked only when the socket takes nothing."""
        return 0

    def has_room(self, count: int) -> bool:
        """Whether the socket has taken everything so far."""
        if len(self.words) < count:
            self.views = Views(bytearray(count * 16))
            self.words = self.views.u64
        return self._writer.flush()

    def claim(self, count: int) -> int:
        """Prepares the buffer for a record of ``count`` words; -1 while older bytes are unsent."""
        # A lost peer is told by the channel, which looks at why there is no room.
        return 0 if self.has_room(count) and not self._writer.lost else -1

    def abandon(self) -> None:
        """Nothing was shut."""

    def extend(self, count: int, wanted: int) -> tuple[int, int]:
        """Returns the word of the first record and the number of records that go out together, at most ``wanted``."""
        number = max(min(wanted, _BURST_LEN // (count * 8)), 1)
        if len(self.words) < count * number:
            self.views = Views(bytearray(count * number * 8))
            self.words = self.views.u64
        return 0, number

    def commit_many(self, word: int, count: int, number: int, header: int) -> None:
        """Sends adjacent records of one kind; see :meth:`mycelium._ring.Producer.commit_many`."""
        for later in range(word + count, word + count * number, count):
            self.words[later] = header
        self.commit(word, word + count * number, header, number)

    def commit(self, word: int, next_word: int, header: int, frames: int = 1) -> None:
        """Sends the record, with the acknowledgement in front; what the socket does not take at once stays pending."""
        self.words[word] = header
        ack = self._take_ack()
        length = next_word * 8
        with self.views.raw[:length] as record:
            data = ack + record if ack else record
            writer = self._writer
            with writer.lock:
                # No call: what is counted is on its way, whatever a signal handler raises.
                writer.pending += data
                self.frames += frames
                self.byte_count += length
                writer.flush()

    def close(self) -> None:
        """Releases the views."""
        self.views.release()
