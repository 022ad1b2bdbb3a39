"""Batches as NumPy arrays, straight over the memory that the records lie in.

An array may live longer than its batch, and nobody can take it back. So the memory under it stays as it is until the
last array over it dies: ``head`` of a ring is not published past the batch (:class:`Pins`), a receive buffer is left to
its arrays. Nothing waits for that for ever: before the channel sleeps or closes, and when much of the ring is kept, the
arrays' pages become memory of their own, which :mod:`mycelium._alias` makes possible.

NumPy is imported by the first array, and never before.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ._alias import Alias, address_of
from ._layout import FRAME_HEADER_LEN
from ._message import Message
from ._numpy import dtype_of, numpy_module
from ._views import Views

if TYPE_CHECKING:
    import numpy
    import numpy.typing

    from ._batch import Run

    Array = numpy.typing.NDArray[numpy.void]

__all__ = ["Pin", "Pins", "copy_runs", "memory_array", "view_run"]

_log = logging.getLogger("mycelium")
_MANY_BATCHES = 2
"""A loop over batches keeps at most the array of the batch before; from here on it is a habit, not a loop."""


class Pin:
    """Memory of one batch that arrays lie over.

    Attributes:
        start: Position of the batch's first byte.
        end: Position behind its last.
        alive: Whether an array, or the batch itself, still needs the memory.
        released: Whether the batch is gone, so that arrays alone keep the memory.
        owner: What has to live as long as the arrays: the alias of a ring, or a receive buffer.
        offset: Where the batch lies in it, in bytes.
    """

    __slots__ = ("alive", "end", "offset", "owner", "released", "start")

    def __init__(self, start: int, end: int, owner: Alias | bytearray, offset: int) -> None:
        self.start = start
        self.end = end
        self.owner: Alias | bytearray | None = owner
        self.offset = offset
        self.alive = True
        self.released = False


class Pins:
    """The pins of one receiving end, oldest first.

    An array dies in whatever thread and at whatever moment, so its end is nothing but ``pin.alive = False``; the thread
    of the channel looks at it when it publishes.
    """

    __slots__ = ("_pins", "_warned")

    def __init__(self) -> None:
        self._pins: deque[Pin] = deque()
        self._warned = False

    def add(self, pin: Pin) -> None:
        """Adds the newest pin."""
        self._pins.append(pin)

    def floor(self, position: int) -> int:
        """Returns the position that may be published where ``position`` is wanted: not past living arrays."""
        pins = self._pins
        while pins and not pins[0].alive:
            pins.popleft()
        return min(position, pins[0].start) if pins else position

    def living(self) -> list[Pin]:
        """Returns the pins whose memory is needed, and forgets the others."""
        living = [pin for pin in self._pins if pin.alive]
        if len(living) < len(self._pins):
            self._pins = deque(living)
        return living

    def held(self) -> tuple[int, int]:
        """Returns how many released batches arrays lie over, and their bytes."""
        lengths = [pin.end - pin.start for pin in self.living() if pin.released]
        return len(lengths), sum(lengths)

    def detach(self) -> bool:
        """Gives all arrays memory of their own, so that they keep nothing; False where the system refuses."""
        batches, held = self.held()
        for pin in self.living():
            owner = pin.owner
            if isinstance(owner, Alias) and not owner.detach(pin.offset, pin.offset + pin.end - pin.start):
                self._warn("they keep it, because the system gives no memory", batches, held)
                return False
        if batches >= _MANY_BATCHES:
            self._warn("they got memory of their own", batches, held)
        self._pins.clear()
        return True

    def _warn(self, outcome: str, batches: int, held: int) -> None:
        if self._warned:
            return
        self._warned = True
        _log.warning(
            "arrays of released batches keep ring space: batches=%d bytes=%d; %s; "
            "take columns(..., copy=True) to keep data",
            batches,
            held,
            outcome,
        )


class _Memory:
    """Base object of arrays: keeps what they lie in, and says when the last one has died."""

    __slots__ = ("__array_interface__", "_kept", "_pin")

    def __init__(self, pin: Pin) -> None:
        owner, length = pin.owner, pin.end - pin.start
        pin.owner = owner if isinstance(owner, Alias) else None  # which is needed for making pages private
        # An exported buffer cannot be resized.
        self._kept = owner if isinstance(owner, Alias) else memoryview(owner)  # type: ignore[arg-type]
        self._pin = pin
        address = owner.address if isinstance(owner, Alias) else address_of(owner)
        self.__array_interface__ = {
            "version": 3,
            "shape": (length,),
            "typestr": "|u1",
            "data": (address + pin.offset, True),
        }

    def __del__(self) -> None:
        self._pin.owner = None
        self._pin.alive = False


def memory_array(pin: Pin) -> Any:
    """Returns the pinned bytes as a read-only array; with the last array over it the pin's life ends."""
    return numpy_module().asarray(_Memory(pin))


def view_run(memory: Any, start: int, run: Run) -> Array:
    """Returns the messages of a run as an array over its records.

    Args:
        memory: From :func:`memory_array`.
        start: Its first word.
        run: The run.
    """
    view: Array = numpy_module().ndarray(
        (run.length,),
        dtype_of(run.contract),
        buffer=memory,
        offset=(run.word - start) * 8 + FRAME_HEADER_LEN,
        strides=(run.stride * 8,),
    )
    return view


def copy_runs(views: Views, contract: type[Message], runs: Iterable[Run]) -> Array:
    """Returns the messages of all runs, in order, as one new array."""
    numpy, dtype = numpy_module(), dtype_of(contract)
    runs = list(runs)
    lengths = [run.length for run in runs]
    copy: Array = numpy.empty(sum(lengths), dtype)
    if not runs or not contract.SIZE:
        return copy
    words = numpy.frombuffer(views.raw.obj, "<u8")
    count = (contract.SIZE + 7) // 8
    first = runs[0].word + 1
    if len(runs) == 1:
        end = first + runs[0].stride * lengths[0] - 1
        rows = numpy.lib.stride_tricks.as_strided(words[first:end], (lengths[0], count), (runs[0].stride * 8, 8))
    else:
        # Number of the word where each payload starts: the run's first, and so many records further.
        before = numpy.cumsum(lengths) - lengths
        starts = numpy.repeat([run.word + 1 - run.stride * at for run, at in zip(runs, before)], lengths)
        starts += numpy.arange(len(copy)) * runs[0].stride
        rows = words[starts[:, None] + numpy.arange(count)]
    if contract.SIZE % 8:
        # as_strided, not view(): the rows of a single run are not contiguous.
        raw = numpy.lib.stride_tricks.as_strided(
            rows[:, :1].view("u1")[:, :1], (len(copy), contract.SIZE), (rows.strides[0], 1)
        )
        copy.view("u1").reshape(len(copy), contract.SIZE)[...] = raw
    else:
        copy.view("<u8").reshape(len(copy), count)[...] = rows
    return copy
