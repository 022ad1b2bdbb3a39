"""The segment: the shared memory of one channel, both rings included.

Python never creates a segment; it maps the one that the bridge passes, after checking everything in its header. The
values are copied here and never read from shared memory again. ``_layout`` holds every offset.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import mmap
import os
import stat
import struct
import time
import weakref
from typing import NamedTuple

from . import _layout as layout
from ._message import Views
from .exceptions import SegmentCorrupt

__all__ = ["RingMemory", "Segment"]

_F_GET_SEALS = 1034
_F_SEAL_SEAL = 1
_F_SEAL_SHRINK = 2
_F_SEAL_GROW = 4

_logger = logging.getLogger(__name__)

_FLOCK = struct.Struct("@hh4xqqi4x")
"""``struct flock`` of 64-bit Linux: type, whence, start, len, pid."""
_PEER_ENDS = (1, 2)
"""First byte and number of the bytes of the segment file that stand for the peer's ends: consumer of the ring to the
peer, producer of the ring to the bridge. ``shm-transport/src/segment/locks.rs`` uses the same."""
_PREDECESSOR_PATIENCE = 0.5
"""Seconds for which the kernel may still be ending a predecessor that holds the ends."""


class RingMemory(NamedTuple):
    """Where one ring lies in memory that is cast to words; all numbers are validated.

    Attributes:
        views: Windows over the whole mapping.
        read_only: The same, for what is handed out: received messages cannot be changed.
        control: Word index of the control block.
        base: Word index of the first data word.
        capacity: Bytes of ring data, a power of two.
    """

    views: Views
    read_only: Views
    control: int
    base: int
    capacity: int


class Segment:
    """A mapped and validated segment.

    Use :meth:`open`; :meth:`close` unmaps.
    """

    __slots__ = (
        "__weakref__",
        "_lock_fd",
        "_map",
        "_rings",
        "epoch",
        "read_only",
        "schema_digest",
        "total_len",
        "views",
    )

    def __init__(self, mapping: mmap.mmap, rings: tuple[tuple[int, int, int], ...]) -> None:
        self._map: mmap.mmap | None = mapping
        self._lock_fd = -1
        self._rings = rings
        self.views = Views(mapping)
        self.read_only = Views(mapping, readonly=True)
        self.total_len = len(mapping)
        self.epoch: int = self.views.u64[layout.SEGMENT_EPOCH_OFFSET // 8]
        start = layout.SEGMENT_SCHEMA_DIGEST_OFFSET
        self.schema_digest = bytes(mapping[start : start + 32])

    @classmethod
    def open(cls, fd: int) -> Segment:
        """Maps the segment behind a descriptor and checks it. The caller keeps the descriptor.

        Raises:
            SegmentCorrupt: A property of the file or a field of the header is outside its legal range.
            OSError: The file cannot be mapped.
        """
        total = os.fstat(fd).st_size
        if total < layout.SEGMENT_HEADER_LEN:
            raise SegmentCorrupt(field="file_len", value=total, legal=f"{layout.SEGMENT_HEADER_LEN} or more")
        _check_seals(fd)
        mapping = mmap.mmap(fd, total, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        try:
            return cls(mapping, _check_header(mapping[: layout.SEGMENT_HEADER_LEN], total))
        except BaseException:
            mapping.close()
            raise

    def claim_peer_ends(self, fd: int) -> None:
        """Takes the peer's ends of both rings for this process, until :meth:`close` or its death.

        The locks belong to an open file description, and the one of ``fd`` is shared with the bridge that passed it; so
        the file is opened anew. Where that is impossible the rings work without the protection, and the log says so.

        Args:
            fd: Descriptor of the segment.

        Raises:
            SegmentCorrupt: Another process has the ends.
        """
        try:
            self._lock_fd = os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            _logger.warning("a second process on one end of a ring will not be noticed: error=%s", error)
            return
        _lock_holders.add(self)
        deadline = time.monotonic() + _PREDECESSOR_PATIENCE
        lock = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, *_PEER_ENDS, 0)
        while True:
            try:
                fcntl.fcntl(self._lock_fd, fcntl.F_OFD_SETLK, lock)
                return
            except (BlockingIOError, PermissionError):
                if time.monotonic() >= deadline:
                    raise SegmentCorrupt(field="ends", value="taken by another process", legal="free") from None
                time.sleep(0.001)
            except OSError as error:
                _logger.warning("a second process on one end of a ring will not be noticed: error=%s", error)
                return

    def _give_back(self) -> None:
        lock_fd, self._lock_fd = self._lock_fd, -1
        if lock_fd >= 0:
            os.close(lock_fd)

    def ring(self, number: int) -> RingMemory:
        """Returns one of the two rings: ``RING_TO_PEER`` or ``RING_TO_BRIDGE``."""
        control, data, capacity = self._rings[number]
        return RingMemory(self.views, self.read_only, control // 8, data // 8, capacity)

    def close(self) -> None:
        """Releases the views and unmaps; may be called again and never raises BufferError."""
        self._give_back()
        self.views.release()
        self.read_only.release()
        mapping, self._map = self._map, None
        if mapping is None:
            return
        try:
            mapping.close()
        except BufferError:
            pass  # Somebody holds a memoryview of their own making; the mapping goes when that one does.


_lock_holders: weakref.WeakSet[Segment] = weakref.WeakSet()


def _forget_locks() -> None:
    """Closes a forked child's copies, which would keep the ends taken after the parent's death; the parent's stay."""
    for segment in list(_lock_holders):
        segment._give_back()


os.register_at_fork(after_in_child=_forget_locks)


def _check_seals(fd: int) -> None:
    """Refuses a file that may become shorter, unless its owner could end this process anyway.

    A file in a directory cannot be sealed; it is taken from the own user and from root. A memory file that could have
    been sealed, and was not, is refused.
    """
    need = _F_SEAL_SHRINK | _F_SEAL_GROW
    try:
        seals = fcntl.fcntl(fd, _F_GET_SEALS)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        seals = _F_SEAL_SEAL  # No file system but those in memory has seals.
    if seals & need == need:
        return
    if seals != _F_SEAL_SEAL:
        raise SegmentCorrupt(field="seals", value=f"{seals:#x}", legal="SHRINK and GROW set")
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise SegmentCorrupt(field="file_type", value=f"{status.st_mode:#o}", legal="a regular file")
    if status.st_uid not in (0, os.geteuid()):
        legal = f"{os.geteuid()} (this user) or 0, as the file is not sealed"
        raise SegmentCorrupt(field="owner", value=status.st_uid, legal=legal)


def _check_header(header: bytes, file_len: int) -> tuple[tuple[int, int, int], ...]:
    def read(offset: int, length: int = 8) -> int:
        return int.from_bytes(header[offset : offset + length], "little")

    exact = (
        ("magic", read(layout.SEGMENT_MAGIC_OFFSET), layout.SEGMENT_MAGIC),
        ("layout_version", read(layout.SEGMENT_VERSION_OFFSET, 4), layout.SEGMENT_LAYOUT_VERSION),
        ("ring_count", read(layout.SEGMENT_RING_COUNT_OFFSET, 4), layout.RING_COUNT),
        ("total_len", read(layout.SEGMENT_TOTAL_LEN_OFFSET), file_len),
    )
    for field, value, expected in exact:
        if value != expected:
            shown = (f"{value:#x}", f"{expected:#x}") if field == "magic" else (value, str(expected))
            raise SegmentCorrupt(field=field, value=shown[0], legal=str(shown[1]))
    if file_len % layout.PAGE_LEN:
        raise SegmentCorrupt(field="file_len", value=file_len, legal=f"a multiple of {layout.PAGE_LEN}")
    taken = [("header", 0, layout.SEGMENT_HEADER_LEN)]
    rings = []
    for number in range(layout.RING_COUNT):
        at = layout.SEGMENT_RINGS_OFFSET + number * layout.RING_DESCRIPTOR_LEN
        control = read(at + layout.RING_CONTROL_OFFSET_OFFSET)
        data = read(at + layout.RING_DATA_OFFSET_OFFSET)
        capacity = read(at + layout.RING_CAPACITY_OFFSET)
        _check_capacity(f"ring[{number}].capacity", capacity)
        areas = (("control_offset", control, layout.RING_CONTROL_LEN), ("data_offset", data, capacity))
        for field, offset, length in areas:
            _check_area(f"ring[{number}].{field}", offset, length, file_len, taken)
        rings.append((control, data, capacity))
    return tuple(rings)


def _check_capacity(field: str, capacity: int) -> None:
    low, high = layout.RING_CAPACITY_MIN, layout.RING_CAPACITY_MAX
    if not low <= capacity <= high or capacity & (capacity - 1):
        raise SegmentCorrupt(field=field, value=capacity, legal=f"a power of two in {low}..={high}")


def _check_area(field: str, offset: int, length: int, file_len: int, taken: list[tuple[str, int, int]]) -> None:
    if offset % layout.PAGE_LEN:
        raise SegmentCorrupt(field=field, value=offset, legal=f"a multiple of {layout.PAGE_LEN}")
    if offset + length > file_len:
        raise SegmentCorrupt(field=field, value=offset, legal=f"offset + {length} <= file_len {file_len}")
    for other, start, end in taken:
        if offset < end and start < offset + length:
            raise SegmentCorrupt(field=field, value=offset, legal=f"outside of {other} at {start}..{end}")
    taken.append((field, offset, offset + length))
