"""What generated messages are made of: typed windows over memory, base classes, checked access.

A message is two attributes: the windows over the memory that it lies in, and the number of the 8-byte
word where its payload starts. Reading a number is one index into a window; nothing is parsed, copied or
allocated but the number itself. Setters check what they write; the checks of the contract live in them
alone, and `Message.validate` reuses them.
"""

from __future__ import annotations

import enum
import operator
import struct
import sys
from collections.abc import Iterable, Mapping
from itertools import repeat
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

from ._schema import Contracts, DynamicMessage, Field
from ._values import from_plain, joined, shown, to_plain
from ._views import FORMATS, RELEASED, STALE, Views
from .exceptions import MessageError, StaleMessageError

__all__ = [
    "CANNOT_PACK",
    "STALE",
    "TRUTH",
    "Contracts",
    "DynamicMessage",
    "Field",
    "Message",
    "Views",
    "read_byte_rows",
    "read_bytes",
    "read_number_rows",
    "read_rows",
    "read_text",
    "read_wide",
    "rejected",
    "single",
    "unnamed",
    "write_byte_rows",
    "write_bytes",
    "write_number_rows",
    "write_rows",
    "write_text",
    "write_wide",
]

if TYPE_CHECKING:
    import numpy
    import numpy.typing
    from typing_extensions import Self

if sys.byteorder != "little":
    raise ImportError("mycelium messages are little-endian in memory; this machine is big-endian")

_PREFIX: Final = 8
"""Bytes in front of a text or vec: u16 length, six zeros."""

_M = TypeVar("_M", bound="Message")
_SINGLE: Final = struct.Struct("<f")
_ROOM_LEN: Final = 4096
_ROOM_MESSAGES: Final = 64
"""Messages that share a buffer, unless they need more than `_ROOM_LEN` bytes."""

CANNOT_PACK: Final = (AttributeError, IndexError, OverflowError, TypeError, ValueError, struct.error)
"""What packing raises for values that do not fit; the setters then say which one. An IndexError: other threads have
taken every place meanwhile."""

_Place = tuple[Views, int, "memoryview[int]", int]
"""Memory for one new message: the windows over it, its first word, its bytes, and where they start."""


def empty_room() -> list[_Place]:
    """Makes the list that new messages of one class take their memory from."""
    return []


def make_room(room: list[_Place], size: int) -> list[_Place]:
    """Puts new places into the list, and returns it.

    They share a buffer, because one for each would take half of the time to make a message; it lives until the last of
    its messages has died. Taking a place is one call, so that no two threads get the same.

    Args:
        room: The list.
        size: Bytes of a message, filled up to whole words.
    """
    count = max(min(_ROOM_LEN // max(size, 8), _ROOM_MESSAGES), 1)
    # The first word is nobody's: only a message that has a buffer for itself lies at word 0.
    end = 8 + count * size
    views = Views(bytearray(end))
    room.extend(zip(repeat(views), range(1, end >> 3, size >> 3), repeat(views.raw), range(8, end, size)))
    return room


TRUTH: Final[dict[int, bool]] = {0: False, 1: True}


class Message:
    """A message of fixed layout: a view over its bytes, in a ring or in memory of its own.

    Two messages are equal if they are of the same class and have the same bytes, or the same values: a message with a
    NaN equals its copy, 0.0 equals -0.0, and padding does not count. A value that cannot be read, for example an enum
    without a name, equals only the same bytes. Messages can be changed, so they have no hash. They pickle as their
    bytes, and a view as a copy.
    """

    __slots__ = ("_views", "_word")

    _views: Views
    _word: int

    NAME: ClassVar[str]
    TOPIC: ClassVar[str]
    TOPIC_ID: ClassVar[int]
    SIZE: ClassVar[int]
    """Bytes of the payload."""
    HEADER_WORD: ClassVar[int]
    """Header word of a frame of this message."""
    ENCODING: ClassVar[int] = 0
    """Encoding of the payload, as in the frame's flags: 0, the layout of the contract."""
    DELIVERY: ClassVar[str]
    """Default policy of a subscription: ``block``, ``drop_newest``, ``drop_oldest`` or ``conflate``."""
    LOG_PAYLOAD: ClassVar[bool]
    """Whether values may be shown in logs, `repr` and error texts."""
    LAYOUT_DIGEST: ClassVar[bytes]
    SCHEMA_DIGEST: ClassVar[bytes]
    ROW_FORMAT: ClassVar[str]
    """Format of the `struct` module for the whole payload, padding included."""
    KEY: ClassVar[tuple[str, ...]]
    FIELDS: ClassVar[tuple[Field, ...]]

    @classmethod
    def _at(cls, views: Views, word: int) -> Self:
        """A view over somebody else's memory; nothing is checked."""
        message = object.__new__(cls)
        message._views = views
        message._word = word
        return message

    @classmethod
    def _owned(cls, data: bytes | None = None) -> Self:
        message = object.__new__(cls)
        message._allocate(data)
        return message

    def _allocate(self, data: bytes | None = None) -> None:
        """Gives the message memory of its own: zeros, or a copy of the payload."""
        buffer = bytearray(self.SIZE + 7 & ~7)
        if data is not None:
            buffer[: self.SIZE] = data
        self._views = Views(buffer)
        self._word = 0

    def _put(self, data: bytes) -> None:
        """Replaces the payload by a packed one, filled up to whole words."""
        start = self._word << 3
        self._views.raw[start : start + len(data)] = data

    def _clear(self) -> None:
        """Fills the payload with zeros, padding included."""
        start = self._word << 3
        self._views.raw[start : start + self.SIZE] = bytes(self.SIZE)

    @classmethod
    def from_bytes(cls, data: bytes | bytearray | memoryview[int]) -> Self:
        """Reads a payload.

        Args:
            data: Exactly `SIZE` bytes; they are copied.

        Raises:
            MessageError: The length is wrong, or a value breaks a rule of the contract.
        """
        message = _restore(cls, bytes(data), cls.LAYOUT_DIGEST)
        message.validate()
        return message

    def to_bytes(self) -> bytes:
        """The payload."""
        start = self._word << 3
        return self._views.raw[start : start + self.SIZE].tobytes()

    def copy(self) -> Self:
        """The same message in memory of its own, which stays valid."""
        return type(self)._owned(self.to_bytes())

    def validate(self) -> None:
        """Checks every field against its type and the rules of the contract.

        Raises:
            MessageError: The first field that breaks a rule, with its value and the legal range.
        """
        scratch = self._owned()
        for field in self.FIELDS:
            setattr(scratch, field.name, getattr(self, field.name))

    def to_dict(self, *, json: bool = False) -> dict[str, Any]:
        """All fields by name.

        Args:
            json: Give values that JSON knows: names instead of enum members, bytes as hexadecimal digits, lists instead
                of tuples. NaN and infinities stay floats, which ``json.dumps`` writes in its own way.

        Raises:
            MessageError: A value cannot be read, because the sender is broken.
        """
        values = {field.name: getattr(self, field.name) for field in self.FIELDS}
        return {name: to_plain(value) for name, value in values.items()} if json else values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Makes a message from its fields by name; both forms of `to_dict` are understood.

        Args:
            values: Every field that the constructor asks for; the others may be left out. Enum members by name, member
                or value; bytes as bytes or hexadecimal digits.

        Raises:
            MessageError: A name is unknown or missing, or a value does not fit its field.
        """
        if not isinstance(values, Mapping):
            raise MessageError(f"message '{cls.NAME}': not a mapping: type={type(values).__name__}; give a dict")
        fields = {field.name: field for field in cls.FIELDS}
        defaults = cls.__init__.__kwdefaults__ or {}
        unknown = [str(name) for name in values if name not in fields]
        missing = [name for name in fields if name not in values and name not in defaults]
        for problem, names in (("unknown", unknown), ("missing", missing)):
            if names:
                listed, legal = joined(names), joined(list(fields))
                raise MessageError(f"message '{cls.NAME}': {problem} fields: {listed}; legal: {legal}", field=names[0])
        given = {}
        for name, value in values.items():
            try:
                given[name] = from_plain(fields[name], value)
            except ValueError as failed:
                raise _refused(cls, name, value, str(failed)) from None
        return cls(**given)

    @classmethod
    def dtype(cls) -> numpy.dtype[numpy.void]:
        """The payload as a structured NumPy dtype; made once, and NumPy is only imported here.

        Numbers, enums (as integers) and bools are columns of their own type. A text is its bytes (``S16``) and a vec
        a row of its full length, zeros behind the used part; the length of ``name`` is the column ``"name.len"``.
        Arrays of bytes and integers of more than 64 bits are plain bytes (``V20``). Any frame payload can be read with
        it: ``numpy.frombuffer(payload, Quote.dtype())``. Nothing is validated.

        Raises:
            ImportError: NumPy is not installed.
        """
        from ._numpy import dtype_of

        return dtype_of(cls)

    @classmethod
    def to_array(cls, messages: Iterable[Self]) -> numpy.typing.NDArray[numpy.void]:
        """Copies messages of this class into a new array of `dtype`.

        Raises:
            ImportError: NumPy is not installed.
            MessageError: A message is of another class.
        """
        from ._numpy import array_of

        return array_of(cls, messages)

    @classmethod
    def from_array(cls, array: numpy.typing.NDArray[numpy.void]) -> list[Self]:
        """Copies the elements of an array of `dtype` into messages.

        Raises:
            ImportError: NumPy is not installed.
            MessageError: The array has another dtype, or an element breaks a rule of the contract.
        """
        from ._numpy import messages_of

        return messages_of(cls, array)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        if self.to_bytes() == other.to_bytes():
            return True
        try:
            return all(getattr(self, field.name) == getattr(other, field.name) for field in self.FIELDS)
        except MessageError:
            return False

    def __repr__(self) -> str:
        name = type(self).__name__
        try:
            stale = self._views.raw is RELEASED
        except StaleMessageError:
            stale = True
        if stale:
            return f"<{name}: no longer valid>"
        if not self.LOG_PAYLOAD:
            return f"<{name}: payload not logged, topic_id={self.TOPIC_ID} size={self.SIZE}>"
        return f"{name}({joined([f'{field.name}={self._shown(field.name)}' for field in self.FIELDS])})"

    def _shown(self, name: str) -> str:
        try:
            return shown(getattr(self, name))
        except MessageError as failed:
            return f"<{failed}>"

    def __copy__(self) -> Self:
        return self.copy()

    def __deepcopy__(self, memo: object) -> Self:
        return self.copy()

    def __reduce__(self) -> tuple[Any, ...]:
        return (_restore, (type(self), self.to_bytes(), self.LAYOUT_DIGEST))


def _restore(cls: type[_M], data: bytes, layout_digest: bytes) -> _M:
    """A message over a copy of its payload; nothing but the layout is checked."""
    if layout_digest != cls.LAYOUT_DIGEST:
        raise MessageError(
            f"message '{cls.NAME}': pickled with another layout: layout_digest={layout_digest.hex()[:12]}...,"
            f" expected={cls.LAYOUT_DIGEST.hex()[:12]}...; use the contracts that it was pickled with"
        )
    if len(data) != cls.SIZE:
        raise MessageError(
            f"wrong payload length for {cls.NAME}: len={len(data)}, expected={cls.SIZE};"
            " check that both sides use the same contracts"
        )
    return cls._owned(data)


def _error(message: Message | type[Message], name: str, text: str, value: object = None) -> MessageError:
    if not message.LOG_PAYLOAD:
        value = None
    return MessageError(f"message '{message.NAME}', field '{name}': {text}", field=name, value=value)


def _value_text(message: Message | type[Message], value: object) -> str:
    """A value in an error text; nothing of it where the contract says that payloads are not logged."""
    if not message.LOG_PAYLOAD:
        return "value not logged"
    return f"value={shown(value)}"


def _refused(message: Message | type[Message], name: str, value: object, remedy: str) -> MessageError:
    return _error(message, name, f"value out of range: {_value_text(message, value)}; {remedy}", value)


def _legal(legal: str | type[int]) -> str:
    if isinstance(legal, str):
        return legal
    if issubclass(legal, enum.Enum):
        return "one of " + ", ".join(f"{member.name}={member.value}" for member in legal)
    return "True or False"


def rejected(message: Message, name: str, value: object, legal: str | type[int]) -> MessageError:
    """The error for a value that a setter does not take; `legal` is a text, an enum or bool."""
    raw = message._views.raw
    if raw.readonly:
        return _error(message, name, "received messages cannot be changed; use .copy() and change the copy")
    return _refused(message, name, value, f"give {_legal(legal)}")


def unnamed(message: Message, name: str, unknown: KeyError, legal: type[int]) -> MessageError:
    """The error for a stored integer that has no name."""
    value = unknown.args[0]
    text = f"value out of range: {_value_text(message, value)}, legal {_legal(legal)}; the sender is broken"
    return _error(message, name, text, value)


def _stored_length(message: Message, offset: int, limit: int, name: str) -> tuple[memoryview[int], int, int]:
    """Bytes, start of the elements and their number; the number is checked."""
    views = message._views
    start = (message._word << 3) + offset
    length = views.u16[start >> 1]
    if length > limit:
        raise _error(message, name, f"length out of range: length={length}, max={limit}; the sender is broken")
    return views.raw, start + _PREFIX, length


def _checked_length(
    message: Message, name: str, length: int, minimum: int, limit: int, unit: str, value: object
) -> None:
    if not minimum <= length <= limit:
        legal = f"{minimum} to {limit} {unit}, not {length}"
        raise rejected(message, name, value, legal)


def _store(message: Message, offset: int, room: int, name: str, data: bytes, value: object, legal: str) -> None:
    """Writes bytes and zeros behind them."""
    start = (message._word << 3) + offset
    try:
        message._views.raw[start : start + room] = data.ljust(room, b"\0")
    except TypeError:
        raise rejected(message, name, value, legal) from None


def _prefixed(length: int, data: bytes) -> bytes:
    return length.to_bytes(8, "little") + data


def read_text(message: Message, offset: int, limit: int, name: str) -> str:
    """Reads a text."""
    views = message._views
    start = (message._word << 3) + offset
    length = views.u16[start >> 1]
    if length > limit:
        raise _error(message, name, f"length out of range: length={length}, max={limit}; the sender is broken")
    start += _PREFIX
    try:
        return views.raw[start : start + length].tobytes().decode()
    except UnicodeDecodeError as failed:
        text = f"text is not UTF-8: valid_up_to={failed.start}; the sender is broken"
        raise _error(message, name, text) from None


def write_text(
    message: Message,
    offset: int,
    limit: int,
    name: str,
    value: str,
    *,
    minimum: int = 0,
    no_prefix: bool = False,
) -> None:
    """Writes a text of bounded length."""
    legal = f"text of {minimum} to {limit} bytes in UTF-8"
    try:
        data = value.encode()
    except (AttributeError, UnicodeEncodeError):
        raise rejected(message, name, value, legal) from None
    if not minimum <= len(data) <= limit:
        raise rejected(message, name, value, f"{legal}, not {len(data)}")
    if no_prefix and value[:2].lower() == "0x":
        raise rejected(message, name, value, f"{legal} without the prefix 0x")
    room = _PREFIX + limit + (limit & 1)
    _store(message, offset, room, name, _prefixed(len(data), data), value, legal)


def _as_bytes(message: Message, name: str, value: object, legal: str) -> bytes:
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise rejected(message, name, value, legal)
    return bytes(value)


def read_bytes(message: Message, offset: int, size: int) -> bytes:
    """Reads an array of bytes."""
    start = (message._word << 3) + offset
    return message._views.raw[start : start + size].tobytes()


def write_bytes(message: Message, offset: int, size: int, name: str, value: bytes, *, not_zero: bool = False) -> None:
    """Writes an array of bytes of exactly this size."""
    legal = f"{size} bytes, not all zero" if not_zero else f"{size} bytes"
    data = _as_bytes(message, name, value, legal)
    if len(data) != size or (not_zero and not any(data)):
        raise rejected(message, name, value, legal)
    _store(message, offset, size, name, data, value, legal)


def read_wide(message: Message, word: int, *, signed: bool) -> int:
    """Reads a 128-bit integer."""
    start = (message._word + word) << 3
    return int.from_bytes(message._views.raw[start : start + 16], "little", signed=signed)


def write_wide(
    message: Message, word: int, name: str, value: int, minimum: int, maximum: int, *, not_zero: bool = False
) -> None:
    """Writes a 128-bit integer."""
    legal = f"an integer from {minimum} to {maximum}" + (", not zero" if not_zero else "")
    try:
        number = operator.index(value)
    except TypeError:
        raise rejected(message, name, value, legal) from None
    if not minimum <= number <= maximum or (not_zero and number == 0):
        raise rejected(message, name, value, legal)
    data = (number & (1 << 128) - 1).to_bytes(16, "little")
    _store(message, word << 3, 16, name, data, value, legal)


def read_byte_rows(message: Message, offset: int, limit: int, name: str) -> bytes:
    """Reads a vec of bytes."""
    raw, start, length = _stored_length(message, offset, limit, name)
    return raw[start : start + length].tobytes()


def write_byte_rows(message: Message, offset: int, limit: int, name: str, value: bytes, *, minimum: int = 0) -> None:
    """Writes a vec of bytes."""
    legal = f"{minimum} to {limit} bytes"
    data = _as_bytes(message, name, value, legal)
    _checked_length(message, name, len(data), minimum, limit, "bytes", value)
    room = _PREFIX + limit + (limit & 1)
    _store(message, offset, room, name, _prefixed(len(data), data), value, legal)


def _elements(message: Message, name: str, value: Iterable[Any], legal: str) -> tuple[Any, ...]:
    """The elements of anything that can be iterated, but for text and bytes, where that is a mistake."""
    try:
        if not isinstance(value, (bytes, bytearray, str)):
            return tuple(value)
    except TypeError:
        pass
    raise rejected(message, name, value, legal)


def read_rows(message: Message, offset: int, size: int, rows: int, name: str = "") -> tuple[bytes, ...]:
    """Reads arrays of bytes: exactly `rows`, or as many as are counted where the field has a name."""
    if name:
        raw, start, rows = _stored_length(message, offset, rows, name)
    else:
        raw, start = message._views.raw, (message._word << 3) + offset
    return tuple(raw[at : at + size].tobytes() for at in range(start, start + rows * size, size))


def write_rows(
    message: Message,
    offset: int,
    size: int,
    rows: int,
    name: str,
    value: Iterable[bytes],
    *,
    counted: bool = False,
    minimum: int = 0,
    not_zero: bool = False,
) -> None:
    """Writes arrays of bytes: exactly `rows`, or up to `rows` with their number in front."""
    least = minimum if counted else rows
    legal = f"{least} to {rows} values of {size} bytes" if counted else f"{rows} values of {size} bytes"
    elements = _elements(message, name, value, legal)
    _checked_length(message, name, len(elements), least, rows, f"values of {size} bytes", value)
    parts = [_as_bytes(message, name, part, legal) for part in elements]
    if any(len(part) != size for part in parts):
        raise rejected(message, name, value, legal)
    data = b"".join(parts)
    if not_zero and not any(data):
        raise rejected(message, name, value, f"{legal}, not all zero")
    room = rows * size
    if counted:
        room = _PREFIX + room + (room & 1)
        data = _prefixed(len(parts), data)
    _store(message, offset, room, name, data, value, legal)


def read_number_rows(message: Message, offset: int, limit: int, name: str, view: str, size: int) -> tuple[Any, ...]:
    """Reads a vec of numbers."""
    _, start, length = _stored_length(message, offset, limit, name)
    first = start // size
    return tuple(getattr(message._views, view)[first : first + length])


def write_number_rows(
    message: Message,
    offset: int,
    limit: int,
    name: str,
    value: Iterable[float],
    view: str,
    size: int,
    *,
    minimum: int = 0,
) -> None:
    """Writes a vec of numbers."""
    legal = f"{minimum} to {limit} values of type {view}"
    elements = _elements(message, name, value, legal)
    _checked_length(message, name, len(elements), minimum, limit, f"values of type {view}", value)
    code = "B" if view == "u8" else FORMATS[view]
    try:
        data = struct.pack(f"<{len(elements)}{code}", *elements)
    except (struct.error, OverflowError, TypeError):
        raise rejected(message, name, value, legal) from None
    room = _PREFIX + limit * size
    room += room & 1
    _store(message, offset, room, name, _prefixed(len(elements), data), value, legal)


def single(value: float) -> float:
    """The number as 32 bits hold it; refuses a finite number that would silently become infinite.

    Raises:
        ValueError: The number is too large.
    """
    try:
        rounded: float = _SINGLE.unpack(_SINGLE.pack(value))[0]
    except (OverflowError, struct.error):
        raise ValueError("too large for 32 bits, or not a number") from None
    return rounded
