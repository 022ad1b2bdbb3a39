"""A second mapping of a ring's data, for arrays: their pages can be made private without the ring noticing.

Linux only, as shared memory is; where a step is refused there is no alias, and arrays are copies.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable
from typing import Any

__all__ = ["Alias", "address_of"]

_MAYMOVE = 1
_FIXED = 2
_FAILED = ctypes.c_void_p(-1).value


def address_of(buffer: Any) -> int:
    """Returns where the bytes of a writable buffer lie."""
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


class _Calls:
    """The three system calls, looked up once."""

    def __init__(self) -> None:
        library = ctypes.CDLL(None)
        pointer, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
        self.map: Any = library.mmap
        self.map.restype, self.map.argtypes = pointer, [pointer, size, number, number, number, ctypes.c_long]
        self.remap: Any = library.mremap
        self.remap.restype, self.remap.argtypes = pointer, [pointer, size, size, number, pointer]
        self.unmap: Callable[[int, int], int] = library.munmap
        library.munmap.argtypes = [pointer, size]


_calls: _Calls | None = None


class Alias:
    """The bytes of a shared mapping at a second address, until the object dies.

    Attributes:
        address: Where they are.
    """

    __slots__ = ("_calls", "_length", "address")

    def __init__(self, calls: _Calls, address: int, length: int) -> None:
        self._calls = calls
        self._length = length
        self.address = address

    @classmethod
    def of(cls, buffer: Any, start: int, length: int) -> Alias | None:
        """Maps a part of a shared mapping again; None where that is impossible.

        Args:
            buffer: The mapping.
            start: First byte, on a page boundary.
            length: Bytes.
        """
        global _calls
        try:
            calls = _calls = _calls or _Calls()
        except (OSError, AttributeError):  # a C library without dlopen or without mremap()
            return None
        # Of a shared mapping, an old length of 0 makes a second one.
        address = calls.remap(address_of(buffer) + start, 0, length, _MAYMOVE, None)
        return None if address in (None, _FAILED) else cls(calls, address, length)

    def detach(self, start: int, end: int) -> bool:
        """Gives the pages under some bytes memory of their own, with the same content.

        From then on nobody else changes them. They change hands in one step, of which a reader sees nothing.

        Returns:
            False where that is refused; everything is as before then.
        """
        calls = self._calls
        start -= start % mmap.PAGESIZE
        length = min(end + -end % mmap.PAGESIZE, self._length) - start
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        pages = calls.map(None, length, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
        if pages in (None, _FAILED):
            return False
        place = self.address + start
        ctypes.memmove(pages, place, length)
        if calls.remap(pages, length, length, _MAYMOVE | _FIXED, place) != place:
            calls.unmap(pages, length)
            return False
        return True

    def __del__(self) -> None:
        self._calls.unmap(self.address, self._length)
