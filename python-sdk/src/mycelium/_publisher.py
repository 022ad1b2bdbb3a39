"""Publishing: copying a message into the ring, or writing it in place."""

from __future__ import annotations

from _thread import get_ident
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from . import _layout as layout
from ._burst import burst_of
from ._contracts import is_fixed
from ._dynamic import check_size, encode_payload, require_codec
from ._frame import header_word, record_len
from ._message import STALE
from ._ring import COMMITTING
from .exceptions import ChannelClosed, FrameTooLarge

if TYPE_CHECKING:
    from ._core import ChannelCore

__all__ = ["Publisher", "Reservation"]

MessageT = TypeVar("MessageT")
_new = object.__new__


class Publisher(Generic[MessageT]):
    """Publishes one kind of message. Made by :meth:`Channel.publisher`.

    Attributes:
        contract: The message class.
    """

    __slots__ = (
        "__weakref__",
        "_channel",
        "_count",
        "_fast_type",
        "_header",
        "_producer",
        "_reservation",
        "_size",
        "_zeros",
        "contract",
    )

    def __init__(self, channel: ChannelCore, contract: type[MessageT]) -> None:
        self.contract = contract
        self._channel = channel
        self._producer = channel._link.producer
        kind: Any = contract
        fixed = is_fixed(kind)
        self._size: int = kind.SIZE if fixed else kind.MAX_SIZE
        self._count = record_len(self._size) // 8
        self._header: int = kind.HEADER_WORD if fixed else 0
        # The short way copies whole words, so it is for payloads without padding behind them.
        self._fast_type = kind if fixed and self._size % 8 == 0 else None
        self._zeros: Any = None
        self._reservation: Reservation[MessageT] = Reservation(self)  # one is enough: only one can be open
        if not fixed and kind.ENCODING == layout.ENCODING_MSGPACK:
            require_codec(kind)
        if fixed:
            self._check_size(self._size)
            self._zeros = memoryview(bytes(self._count * 8)).cast("Q")  # of the payload, and of the header behind it
        channel._publishers.add(self)

    def _go_over(self, producer: Any, max_payload: int) -> None:
        """Takes the ring of another link, where messages may have become too large for the short way."""
        kind: Any = self.contract
        fits = is_fixed(kind) and self._size % 8 == 0 and self._size <= max_payload
        self._fast_type = kind if fits else None
        self._producer = producer

    def _check_size(self, payload_len: int) -> None:
        largest = self._channel.max_payload
        if payload_len > largest:
            name = getattr(self.contract, "NAME", "")
            text = f"frame too large: message={name} payload_len={payload_len}, legal: 0..={largest}"
            raise FrameTooLarge(f"{text}; enlarge ring_capacity", payload_len=payload_len, max_payload=largest)

    def send(self, message: Any, timeout: float | None = None) -> None:
        """Publishes a copy of a message; may be called from any thread.

        Cost: no system call, unless the ring is full or the bridge sleeps. Being safe for other threads costs nothing:
        the short way has no call between looking at the ring and the commit, and only at calls does the interpreter
        change threads or run signal handlers. The long way (a full ring, its end, dynamic messages, the socket) takes
        a lock. A thread other than the one that receives looks for room once a millisecond. On interpreters without a
        GIL every send takes the long way.

        Args:
            message: A message of this publisher's class; for a dynamic message also a bare value: what ``json.dumps``
                or ``msgpack.packb`` takes, or bytes, as the contract says.
            timeout: Longest wait for room, in seconds; None for ever, 0 not at all.

        Raises:
            ChannelFull: No room in time.
            PeerLost: The bridge is gone.
            FrameTooLarge: A dynamic message is longer than the link or its contract allows.
            MessageError: The value of a dynamic message cannot be written.
            StaleMessageError: The message is a received one that was released.
        """
        if type(message) is not self._fast_type:
            self._send_slowly(message, timeout)
            return
        payload = message._views.u64
        start = message._word
        if start:  # In a ring or buffer a header is in front of the payload: at word 0 the message owns its memory.
            payload = payload[start : start + self._count - 1]
        # From here to the last store there is no call, and (for 3.10) no jump that is taken: so no other thread and no
        # signal handler comes in between.
        producer: Any = self._producer
        word = producer.word
        next_word = word + self._count
        limit = producer.limit
        if next_word <= limit:
            words = producer.words
            words[word + 1 : next_word] = payload
            producer.limit = COMMITTING
            words[next_word] = 0
            words[word] = self._header
            producer.word = next_word
            producer.frames += 1
            words[producer.tail_word] = producer.bias + (next_word << 3)
            producer.limit = limit
            if words[producer.parked_word]:
                words[producer.parked_word] = 0
                producer.notify()
            return
        self._send_slowly(message, timeout)

    def _send_slowly(self, message: Any, timeout: float | None) -> None:
        contract: Any = self.contract
        if is_fixed(contract):
            if not isinstance(message, contract):
                raise TypeError(
                    f"wrong message: type={type(message).__name__}, expected={contract.__name__}; send that"
                )
            views, start = message._views, message._word * 8
            payload = bytes(views.raw[start : start + self._size])
            header, count = self._header, self._count
        else:
            payload = encode_payload(contract, message)
            header, count = self._dynamic_header(len(payload))
        self._write(payload, header, count, timeout)

    def send_raw(self, payload: bytes | bytearray | memoryview, timeout: float | None = None) -> None:
        """Publishes bytes that are a payload of a dynamic message already; whether they are is not looked at.

        Args:
            payload: The bytes.
            timeout: Longest wait for room, in seconds; None for ever, 0 not at all.

        Raises:
            TypeError: The message has a fixed layout.
            ChannelFull, PeerLost, FrameTooLarge: As :meth:`send`.
        """
        contract: Any = self.contract
        if is_fixed(contract):
            raise TypeError(f"fixed layout: message={contract.NAME}; use send(), or reserve() to write in place")
        data = bytes(payload)
        check_size(contract, len(data))
        header, count = self._dynamic_header(len(data))
        self._write(data, header, count, timeout)

    def _dynamic_header(self, payload_len: int) -> tuple[int, int]:
        contract: Any = self.contract
        self._check_size(payload_len)
        flags = contract.ENCODING << layout.FLAG_ENCODING_SHIFT
        return header_word(payload_len, contract.TOPIC_ID, flags), record_len(payload_len) // 8

    def _write(self, payload: bytes, header: int, count: int, timeout: float | None) -> None:
        data = payload + bytes(count * 8 - 8 - len(payload))
        self._channel._send_record(data, header, count, self._channel._deadline(timeout))

    def send_many(self, messages: Any, timeout: float | None = None) -> int:
        """Publishes copies of many messages, in order.

        From a structured array (of the dtype ``contract.dtype()``, or with the same columns in another order) they are
        copied all at once, some 15 ns each. All of it is checked first: the columns, and the values as far as others
        could not read them otherwise (lengths, enums, bools); the remaining rules of the contract are up to you, as
        with :meth:`reserve`. Fill ``"name.len"`` beside each text. Messages of an array, or of a list, become visible
        many at a time, with one notification. Of any other iterable, each is visible before the next one is asked for.

        Args:
            messages: A one-dimensional structured NumPy array, or an iterable of what :meth:`send` takes.
            timeout: Longest wait for room in all, in seconds; None for ever, 0 not at all.

        Returns:
            The number of messages.

        Raises:
            MessageError: The array has other columns, or an illegal value; nothing was sent.
            ChannelFull: No room in time; ``error.sent`` messages were sent.
            ChannelError: As :meth:`send`, with ``error.sent`` set likewise.
        """
        return burst_of(self, messages).run(timeout)

    def reserve(self, timeout: float | None = None) -> Reservation[MessageT]:
        """Reserves room for a message that is written in place::

            with publisher.reserve() as signal:
                signal.price = 1.0

        The fields start at zero. The message is committed at the end of the block, or dropped if the block raises;
        after that it is stale. Nothing else can be sent on this channel meanwhile. Fields are checked one by one as
        they are set; a field that is never set stays zero.

        Args:
            timeout: Longest wait for room, in seconds; None for ever, 0 not at all.

        Raises:
            ChannelFull: No room in time (when the block is entered).
        """
        if self._zeros is None:
            raise TypeError(f"no fixed layout: message={getattr(self.contract, 'NAME', '')}; use send()")
        if self._channel._reserved is not None:
            self._channel._check_reserved()
        reservation = self._reservation
        reservation._timeout = timeout
        return reservation


class Reservation(Generic[MessageT]):
    """Room in the ring for one message; see :meth:`Publisher.reserve`."""

    __slots__ = ("_limit", "_message", "_publisher", "_thread", "_timeout", "_word")

    def __init__(self, publisher: Publisher[MessageT]) -> None:
        self._publisher = publisher
        self._timeout: float | None = None
        self._message: Any = None
        self._word = -1
        self._limit = -1
        self._thread = 0

    def __enter__(self) -> MessageT:
        publisher = self._publisher
        channel = publisher._channel
        count = publisher._count
        me = get_ident()
        try:
            # As in send(): no call from here to the claim.
            producer: Any = publisher._producer
            word = producer.word
            limit = producer.limit
            if word + count <= limit:
                producer.shut = True
                producer.limit = -1  # Until the end of the block every other send takes the long way and looks at this:
                self._thread = me
                channel._reserved = self
                # With the header behind the record, which lies inside of the ring on this way.
                producer.words[word + 1 : word + count + 1] = publisher._zeros
            else:
                word, limit = channel._claim(count, channel._deadline(self._timeout), self), -1
                producer = publisher._producer
                producer.words[word + 1 : word + count] = publisher._zeros[1:]
            self._word = word
            self._limit = limit
            message: Any = _new(publisher.contract)
            message._views = producer.views
            message._word = word + 1
            self._message = message
        except BaseException:
            channel._give_up(self)
            raise
        return message  # type: ignore[no-any-return]  # built without its constructor

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        publisher = self._publisher
        channel = publisher._channel
        self._message._views = STALE
        if channel._closed or channel._reserved is not self:
            if kind is None:
                raise ChannelClosed("link was closed or lost during a reservation; nothing was sent")
            return
        producer: Any = publisher._producer
        word = self._word
        next_word = word + publisher._count
        if kind is not None:
            channel._give_up(self)
            return
        if next_word > self._limit:
            producer.commit(word, next_word, publisher._header)
            channel._reserved = None
            channel._flush(channel._deadline(self._timeout))
            return
        words = producer.words
        producer.limit = COMMITTING
        words[word] = publisher._header
        producer.word = next_word
        producer.frames += 1
        words[producer.tail_word] = producer.bias + (next_word << 3)
        producer.limit = self._limit
        producer.shut = False
        channel._reserved = None
        if words[producer.parked_word]:
            words[producer.parked_word] = 0
            producer.notify()
