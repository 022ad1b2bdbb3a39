"""Batches: everything that was in the ring at one look, released together."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from ._columns import Pin, copy_runs, memory_array, view_run
from ._contracts import is_fixed
from ._dynamic import DynamicMessage
from ._frame import encode_frame
from ._layout import FLAG_ENCODING_SHIFT, FRAME_HEADER_LEN
from ._message import STALE, Message, Views
from ._rows import column_format, row_format
from .exceptions import StaleMessageError

if TYPE_CHECKING:
    import numpy
    import numpy.typing
    from typing_extensions import Self

    from ._core import ChannelCore

__all__ = ["Batch", "Run", "find_run"]

_new = object.__new__


class Run(NamedTuple):
    """Records of one kind, one after the other.

    Attributes:
        contract: The message class.
        word: Word of the first record's header.
        stride: Words of one record.
        length: Number of records.
    """

    contract: type[Message]
    word: int
    stride: int
    length: int


_PATTERN_LEN = 4096
_PATTERNS_MAX = 64
_patterns: dict[int, memoryview[int]] = {}


def _pattern(header: int) -> memoryview[int]:
    """Returns words that are all this header, to compare with; a few are kept."""
    pattern = _patterns.get(header)
    if pattern is None:
        if len(_patterns) >= _PATTERNS_MAX:
            _patterns.clear()
        pattern = _patterns[header] = memoryview(header.to_bytes(8, "little") * _PATTERN_LEN).cast("Q")
    return pattern


def find_run(words: Any, header: int, word: int, end: int, count: int, limit: int) -> int:
    """Counts how many records in a row have this header word, the first being the one at ``word``.

    Header words are compared many at a time, in C, some 1.5 ns each. The look widens step by step, so that a short run
    costs little, and never goes past a word that differs: what lies behind it may be left over from an earlier lap.

    Args:
        words: The 8-byte words.
        header: The header word, loaded once and known to be good.
        word: Word of the first header.
        end: Word after the data area.
        count: Words of one record.
        limit: Most records to count.
    """
    most = min((end - word) // count, limit)
    if most <= 1 or words[word + count] != header:
        return 1
    pattern = _pattern(header)
    found, step = 2, 16
    while found < most:
        step = min(step, most - found)
        start = word + found * count
        if words[start : start + step * count : count] == pattern[:step]:
            found += step
            step = min(step * 4, _PATTERN_LEN)
            continue
        # One of these differs: halve until it is the next one.
        while step > 1:
            half = step >> 1
            if words[start : start + half * count : count] == pattern[:half]:
                found += half
                start += half * count
                step -= half
            else:
                step = half
        break
    return found


class _StaleViews(Views):
    """What the messages of a released batch see: their views change class all at once."""

    __slots__ = ()

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("__"):
            return object.__getattribute__(self, name)
        raise StaleMessageError


def _private_views(views: Views) -> Views:
    """Copies the windows, so that the messages of one batch can be made stale together."""
    copy: Views = _new(Views)
    for name in Views.__slots__:
        setattr(copy, name, getattr(views, name))
    return copy


class Batch:
    """Messages that are valid together, until the next batch or the end of ``with batch``.

    Iterate over it, or take :meth:`rows` or, with NumPy, :meth:`columns`. Its ring space is released when the caller
    goes on.
    """

    __slots__ = ("_channel", "_memory", "_own_views", "_pin", "_runs", "_single", "_views", "_word")

    def __init__(
        self, channel: ChannelCore, views: Views, word: int, runs: list[Run], single: DynamicMessage | None = None
    ) -> None:
        self._channel: ChannelCore | None = channel
        self._views: Any = views  # STALE once released
        self._own_views: Views | None = None
        self._memory: Any = None  # what the arrays lie over; made for the first one
        self._pin: Pin | None = None
        self._word = word + 1
        self._runs = runs
        self._single = single

    def __len__(self) -> int:
        return sum(run.length for run in self._runs) + (self._single is not None)

    def _first_class(self) -> type[Any]:
        return type(self._single) if self._single is not None else self._runs[0].contract

    def __repr__(self) -> str:
        if self._channel is None:
            return "<mycelium.Batch: no longer valid>"
        return f"<mycelium.Batch of {len(self)} messages, first {self._first_class().NAME}>"

    def __iter__(self) -> Iterator[Any]:
        """Yields the messages in order.

        Raises:
            StaleMessageError: The batch was released.
        """
        if self._channel is None:
            raise StaleMessageError
        if self._single is not None:
            yield self._single
            return
        if self._own_views is None:
            self._own_views = _private_views(self._views)
        views = self._own_views
        new = _new
        for contract, first, count, length in self._runs:
            for word in range(first + 1, first + 1 + count * length, count):
                message = new(contract)
                message._views = views
                message._word = word
                yield message
                if self._channel is None:
                    raise StaleMessageError

    def rows(self, contract: type[Message], *fields: str) -> list[tuple[Any, ...]]:
        """Returns all messages of one class as tuples, at C speed; they stay valid.

        Enum fields come as plain integers (which compare equal to the members), and nothing is validated beyond the
        lengths and UTF-8 of text. Messages of other classes are left out.

        Args:
            contract: The message class.
            fields: Names of the fields wanted; none means all, in the order of the contract. Leaving out text fields
                saves most of the time.

        Raises:
            StaleMessageError: The batch was released.
        """
        if self._channel is None:
            raise StaleMessageError
        unpack = row_format(contract, fields)
        raw = self._views.raw
        rows: list[tuple[Any, ...]] = []
        for run in self._runs:
            if run.contract is contract:
                with raw[run.word * 8 : (run.word + run.stride * run.length) * 8] as records:
                    rows += unpack(records)
        return rows

    def column(self, contract: type[Message], field: str) -> list[Any]:
        """Returns one number of every message of a class as a list, at C speed; it stays valid.

        Some 15 ns per message, a fraction of :meth:`rows`. Enum fields come as plain integers.

        Args:
            contract: The message class; messages of other classes are left out.
            field: Name of an integer, float, bool or enum field.

        Raises:
            TypeError: There is no such field, or it is not a number of at most 8 bytes.
            StaleMessageError: The batch was released.
        """
        if self._channel is None:
            raise StaleMessageError
        window, size, offset = column_format(contract, field)
        values = getattr(self._views, window)
        column: list[Any] = []
        for run in self._runs:
            if run.contract is contract:
                start = (run.word * 8 + FRAME_HEADER_LEN + offset) // size
                step = run.stride * 8 // size
                column += values[start : start + step * run.length : step].tolist()
        return column

    def columns(self, contract: type[Message], copy: bool | None = None) -> numpy.typing.NDArray[numpy.void]:
        """Returns all messages of one class as a structured NumPy array, in order; ``array["bid"]`` is a column.

        Where they lie one after the other, as they do when nothing else was published in between, the array is a view:
        nothing is copied, and it is read-only. Otherwise they are gathered into a new array, which may be written to;
        ``array.flags.writeable`` tells the two apart. The dtype is ``contract.dtype()``. Nothing is validated. Texts
        are bytes: compare with ``array["symbol"] == b"EUR/USD"``, and make strings of them with
        ``numpy.char.decode(array["symbol"], "utf-8")``, best of ``numpy.unique``.

        A view stays valid for as long as it lives, also after its batch and after ``close()``. Its ring space is not
        given back before it dies, or gets pages of its own, which are copied when the channel is going to sleep, is
        closed, or half of the ring is kept so (the log says so once, if it is many). So keep copies, not views.
        ``Channel.statistics().arrays_held`` counts the released batches whose space is kept.

        Args:
            contract: The message class; messages of other classes are left out.
            copy: None for a view where possible; True for a new array in any case; False for a view or an error.

        Raises:
            ImportError: NumPy is not installed.
            TypeError: The message has no fixed layout.
            ValueError: ``copy`` is False, and the messages do not lie one after the other.
            StaleMessageError: The batch was released.
        """
        runs = self._runs_of(contract)
        if copy is False and len(runs) > 1:
            text = f"no view: message={contract.NAME} runs={len(runs)}, legal: 1"
            raise ValueError(f"{text}; other messages lie between; use column_runs(), or leave copy=False away")
        if not copy and len(runs) == 1:
            memory = self._pinned()
            if memory is not None:
                return view_run(memory, self._word - 1, runs[0])
            if copy is False:
                raise ValueError("no view: the system maps no memory twice; leave copy=False away")
        return copy_runs(self._views, contract, runs)

    def column_runs(self, contract: type[Message]) -> list[numpy.typing.NDArray[numpy.void]]:
        """Returns the messages of one class as views as by :meth:`columns`, one for each uninterrupted run, in order.

        Args:
            contract: The message class.

        Raises:
            ImportError, TypeError, StaleMessageError: As :meth:`columns`.
        """
        runs = self._runs_of(contract)
        memory = self._pinned() if runs else None
        if memory is None:
            return [copy_runs(self._views, contract, [run]) for run in runs]
        return [view_run(memory, self._word - 1, run) for run in runs]

    def _runs_of(self, contract: type[Message]) -> list[Run]:
        if self._channel is None:
            raise StaleMessageError
        if not is_fixed(contract):
            raise TypeError(f"no fixed layout: message={getattr(contract, 'NAME', contract)}; iterate over the batch")
        return [run for run in self._runs if run.contract is contract]

    def _pinned(self) -> Any:
        """Memory of the whole batch for arrays to lie over; None where the system does not allow that."""
        channel = self._channel
        if self._memory is None and channel is not None:
            last = self._runs[-1]
            pin = channel._consumer.pin(self._word - 1, last.word + last.stride * last.length)
            if pin is not None:
                self._pin, self._memory = pin, memory_array(pin)
        return self._memory

    def to_bytes(self) -> bytes:
        """Returns a copy of all frames of the batch, headers included, in their order: for a checksum or a recording.

        Raises:
            StaleMessageError: The batch was released.
        """
        if self._channel is None:
            raise StaleMessageError
        if self._single is not None:
            single = self._single
            return encode_frame(single.TOPIC_ID, single.to_bytes(), single.ENCODING << FLAG_ENCODING_SHIFT)
        raw = self._views.raw
        return b"".join(raw[run.word * 8 : (run.word + run.stride * run.length) * 8] for run in self._runs)

    def release(self) -> None:
        """Makes the batch and its messages stale and lets its ring space go; may be called again."""
        channel, self._channel = self._channel, None
        if channel is not None:
            self._views = STALE
            self._memory = None
            if self._pin is not None and self._pin.alive:
                self._pin.released = True
            if self._single is not None:
                self._single._release()
            if self._own_views is not None:
                self._own_views.__class__ = _StaleViews
            channel._forget(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.release()
