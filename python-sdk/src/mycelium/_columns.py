"""Batches as NumPy arrays, straight over the memory that the records lie in.

An array may live longer than its batch, and nobody can take it back. So the memory under it stays as it is until the
last array over it dies: ``head`` of a ring is not published past the batch (:class:`Pins`), a receive buffer is left to
its arrays. The base object of the arrays (:class:`_Memory`) also keeps the mapping, so that no address dangles. When
the channel is closed first, the pages under its arrays become memory of this process alone, because the bridge may hand
the ring to a successor.

NumPy is imported by the first array, and never before.
"""

from __future__ import annotations

import ctypes
import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from ._layout import FRAME_HEADER_LEN
from ._message import Message
from ._numpy import dtype_of, numpy_module
from ._views import Views

if TYPE_CHECKING:
    import numpy
    import numpy.typing

    from ._batch import Run

    Array = numpy.typing.NDArray[numpy.void]

__all__ = ["Pin", "Pins", "address_of", "copy_runs", "memory_array", "view_run"]

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
        wake: Called once the last array is gone after the batch, from whatever thread; None where nobody waits for it.
    """

    __slots__ = ("alive", "end", "released", "start", "wake")

    def __init__(self, start: int, end: int) -> None:
        self.start = start
        self.end = end
        self.alive = True
        self.released = False
        self.wake: Callable[[], None] | None = None


class Pins:
    """The pins of one receiving end, oldest first.

    An array dies in whatever thread and at whatever moment, so its end is nothing but ``pin.alive = False``; the thread
    of the channel looks at it when it publishes.

    Attributes:
        wake: What new pins get as theirs.
    """

    __slots__ = ("_pins", "_warned", "wake")

    def __init__(self) -> None:
        self._pins: deque[Pin] = deque()
        self._warned = False
        self.wake: Callable[[], None] | None = None

    def add(self, start: int, end: int) -> Pin:
        """Pins the bytes between two positions."""
        pin = Pin(start, end)
        pin.wake = self.wake
        self._pins.append(pin)
        return pin

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

    def warn_if_much(self, withheld: int, capacity: int) -> None:
        """Logs, once, that arrays keep the bridge from going on.

        Args:
            withheld: Bytes that are read and cannot be given back.
            capacity: Bytes of the ring.
        """
        if self._warned:
            return
        batches, held = self.held()
        if batches >= _MANY_BATCHES or (batches and withheld > capacity // 2):
            self._warned = True
            _log.warning(
                "arrays of released batches keep ring space: batches=%d bytes=%d withheld=%d capacity=%d; "
                "take columns(..., copy=True) to keep data, or let the arrays go",
                batches,
                held,
                withheld,
                capacity,
            )

    def clear(self) -> None:
        """Forgets all pins: nobody publishes any more, or the memory is the arrays' own now."""
        for pin in self._pins:
            pin.wake = None
        self._pins.clear()


def address_of(buffer: Any) -> int:
    """Returns where the bytes of a writable buffer lie."""
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


class _Memory:
    """Base object of arrays: keeps the mapping or buffer, and says when the last array has died."""

    __slots__ = ("__array_interface__", "_kept", "_pin")

    def __init__(self, buffer: Any, offset: int, length: int, pin: Pin) -> None:
        self._kept = memoryview(buffer)  # an export: the mapping is not unmapped, the buffer not resized
        self._pin = pin
        self.__array_interface__ = {
            "version": 3,
            "shape": (length,),
            "typestr": "|u1",
            "data": (address_of(buffer) + offset, True),
        }

    def __del__(self) -> None:
        pin = self._pin
        pin.alive = False
        if pin.released and pin.wake is not None:
            pin.wake()


def memory_array(views: Views, word: int, end: int, pin: Pin) -> Any:
    """Returns the bytes between two words as a read-only array; with the last array over it the pin's life ends."""
    memory = _Memory(views.raw.obj, word * 8, (end - word) * 8, pin)
    return numpy_module().asarray(memory)


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
