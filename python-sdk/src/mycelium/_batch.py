"""Batches: everything that was in the ring at one look, released together."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from ._dynamic import DynamicMessage
from ._frame import encode_frame
from ._layout import FLAG_ENCODING_SHIFT, FRAME_HEADER_LEN
from ._message import STALE, Message, Views
from ._rows import column_format, row_format
from .exceptions import StaleMessageError

if TYPE_CHECKING:
    from typing_extensions import Self

    from .channel import Channel

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


def find_run(words: Any, header: int, word: int, end: int, count: int, limit: int) -> int:
    """Counts how many records in a row have this header word, the first being the one at ``word``.

    The look widens step by step, so that it costs no more than a few times what it finds; comparing is done in C.

    Args:
        words: The 8-byte words.
        header: The header word, loaded once and known to be good.
        word: Word of the first header.
        end: Word after the data area.
        count: Words of one record.
        limit: Most records to count.
    """
    most = min((end - word) // count, limit)
    found, step = 1, 15
    while found < most:
        step = min(step, most - found)
        start = word + found * count
        heads = words[start : start + step * count : count].tolist()
        equal = heads.count(header)
        # Words behind the last record may be left over from an earlier lap and look alike: only the run counts.
        while heads[:equal].count(header) != equal:
            equal = heads[:equal].count(header)
        found += equal
        if equal < step:
            break
        step *= 4
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

    Iterate over it, or take :meth:`rows`. Its ring space is released when the caller goes on.
    """

    __slots__ = ("_channel", "_own_views", "_runs", "_single", "_views", "_word")

    def __init__(
        self, channel: Channel, views: Views, word: int, runs: list[Run], single: DynamicMessage | None = None
    ) -> None:
        self._channel: Channel | None = channel
        self._views: Any = views  # STALE once released
        self._own_views: Views | None = None
        self._word = word + 1
        self._runs = runs
        self._single = single

    def __len__(self) -> int:
        return sum(run.length for run in self._runs) + (self._single is not None)

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
