"""Segments as a bridge makes them; outside of tests Python never creates one."""

from __future__ import annotations

import fcntl
import os
import struct

from .. import _layout as layout

__all__ = ["create_segment", "segment_header"]


def segment_header(capacities: tuple[int, int], epoch: int = 1) -> bytearray:
    """Returns a correct segment header for two rings of these capacities in bytes."""
    header = bytearray(layout.SEGMENT_HEADER_LEN)
    offset = layout.SEGMENT_HEADER_LEN
    for number, capacity in enumerate(capacities):
        at = layout.SEGMENT_RINGS_OFFSET + number * layout.RING_DESCRIPTOR_LEN
        struct.pack_into("<QQQQ", header, at, offset, offset + layout.RING_CONTROL_LEN, capacity, 0)
        offset += layout.RING_CONTROL_LEN + capacity
    fixed = (layout.SEGMENT_MAGIC, layout.SEGMENT_LAYOUT_VERSION, layout.RING_COUNT, offset, epoch)
    struct.pack_into("<QIIQQ", header, 0, *fixed)
    return header


def create_segment(header: bytes | bytearray, *, length: int | None = None, seals: int | None = None) -> int:
    """Makes a sealed memfd that starts with this header; returns its descriptor, which the caller owns."""
    fd = os.memfd_create("mycelium-testing", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    total = struct.unpack_from("<Q", header, layout.SEGMENT_TOTAL_LEN_OFFSET)[0] if length is None else length
    os.ftruncate(fd, total)
    os.pwrite(fd, bytes(header)[:total], 0)
    wanted = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL if seals is None else seals
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, wanted)
    return fd
