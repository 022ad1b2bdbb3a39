"""Opening a segment on a real memfd, each field wrong in turn."""

from __future__ import annotations

import fcntl
import os
import struct
import tempfile

import pytest

from bridge_double import CAPACITY, create_segment, segment_header
from mycelium import _layout as layout
from mycelium._segment import Segment
from mycelium.exceptions import SegmentCorrupt, StaleMessageError

RING0 = layout.SEGMENT_RINGS_OFFSET
RING1 = RING0 + layout.RING_DESCRIPTOR_LEN
TOTAL = layout.SEGMENT_HEADER_LEN + 2 * (layout.RING_CONTROL_LEN + CAPACITY)


def test_a_correct_segment_opens_and_closes() -> None:
    fd = create_segment(segment_header(epoch=3))
    segment = Segment.open(fd)
    os.close(fd)
    assert segment.epoch == 3
    assert segment.total_len == TOTAL
    assert segment.ring(0).capacity == segment.ring(1).capacity == CAPACITY
    assert segment.ring(0).base * 8 == 8192
    held = segment.views.raw[0:8]
    segment.close()
    segment.close()
    assert bytes(held) == b"MYCLSHM1"
    with pytest.raises(StaleMessageError):
        _ = segment.views.u64[0]


WRONG = [
    (layout.SEGMENT_MAGIC_OFFSET, "<Q", 1, "magic"),
    (layout.SEGMENT_VERSION_OFFSET, "<I", 2, "layout_version"),
    (layout.SEGMENT_RING_COUNT_OFFSET, "<I", 3, "ring_count"),
    (RING0, "<Q", 4100, "ring[0].control_offset"),
    (RING0, "<Q", TOTAL, "ring[0].control_offset"),
    (RING0, "<Q", 0, "ring[0].control_offset"),
    (RING0 + 8, "<Q", 1 << 63, "ring[0].data_offset"),
    (RING0 + 8, "<Q", 4096, "ring[0].data_offset"),
    (RING0 + 8, "<Q", 8200, "ring[0].data_offset"),
    (RING0 + 16, "<Q", 12288, "ring[0].capacity"),
    (RING0 + 16, "<Q", 2048, "ring[0].capacity"),
    (RING0 + 16, "<Q", 1 << 31, "ring[0].capacity"),
    (RING1, "<Q", 4096, "ring[1].control_offset"),
    (RING1 + 8, "<Q", 8192, "ring[1].data_offset"),
    (RING1 + 16, "<Q", 2 * CAPACITY, "ring[1].data_offset"),
]


@pytest.mark.parametrize(("offset", "form", "value", "field"), WRONG)
def test_each_wrong_field_is_named_with_its_value(offset: int, form: str, value: int, field: str) -> None:
    header = segment_header()
    struct.pack_into(form, header, offset, value)
    fd = create_segment(header, length=TOTAL)
    with pytest.raises(SegmentCorrupt) as caught:
        Segment.open(fd)
    os.close(fd)
    assert caught.value.field == field
    assert caught.value.legal
    assert f"{field}=" in str(caught.value)


def test_the_length_of_the_file_has_to_match() -> None:
    for length, field in ((TOTAL + 4096, "total_len"), (100, "file_len")):
        fd = create_segment(segment_header(), length=length)
        with pytest.raises(SegmentCorrupt) as caught:
            Segment.open(fd)
        os.close(fd)
        assert caught.value.field == field


@pytest.mark.parametrize("seals", [0, fcntl.F_SEAL_SHRINK, fcntl.F_SEAL_GROW])
def test_a_segment_that_could_change_its_length_is_refused(seals: int) -> None:
    fd = create_segment(segment_header(), seals=seals)
    with pytest.raises(SegmentCorrupt) as caught:
        Segment.open(fd)
    os.close(fd)
    assert caught.value.field == "seals"


def plain_file(directory: object) -> int:
    fd = os.open(f"{directory}/plain", os.O_RDWR | os.O_CREAT, 0o600)
    os.ftruncate(fd, TOTAL)
    os.pwrite(fd, segment_header(), 0)
    return fd


@pytest.mark.parametrize("directory", [None, "/dev/shm"])
def test_a_file_of_the_own_user_needs_no_seals(tmp_path: object, directory: str | None) -> None:
    with tempfile.TemporaryDirectory(dir=directory) as place:
        fd = plain_file(place if directory else tmp_path)
        segment = Segment.open(fd)
        os.close(fd)
        assert segment.ring(layout.RING_TO_PEER).capacity == CAPACITY
        segment.close()


def test_a_file_of_another_user_needs_seals(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    fd = plain_file(tmp_path)
    owner = os.fstat(fd).st_uid
    if owner == 0:
        owner = 4711
        os.fchown(fd, owner, -1)
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(SegmentCorrupt) as caught:
        Segment.open(fd)
    os.close(fd)
    assert (caught.value.field, caught.value.value) == ("owner", owner)


def test_what_is_no_file_is_refused() -> None:
    reading, writing = os.pipe()
    with pytest.raises(SegmentCorrupt):
        Segment.open(reading)
    os.close(reading)
    os.close(writing)


def test_the_peers_ends_belong_to_one_holder_until_it_closes() -> None:
    fd = create_segment(segment_header())
    first, second = Segment.open(fd), Segment.open(fd)
    first.claim_peer_ends(fd)
    with pytest.raises(SegmentCorrupt) as caught:
        second.claim_peer_ends(fd)
    assert caught.value.field == "ends"
    first.close()
    second.close()
    third = Segment.open(fd)
    third.claim_peer_ends(fd)
    third.close()
    os.close(fd)


def test_a_forked_child_does_not_keep_the_ends_of_its_parent() -> None:
    fd = create_segment(segment_header())
    segment = Segment.open(fd)
    segment.claim_peer_ends(fd)
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(write_end)
        os.read(read_end, 1)  # Returns when the parent closes its end.
        os._exit(0)
    os.close(read_end)
    try:
        # Still ours while the child, which gave up its copy, lives.
        other = Segment.open(fd)
        with pytest.raises(SegmentCorrupt):
            other.claim_peer_ends(fd)
        other.close()
        segment.close()
        successor = Segment.open(fd)
        successor.claim_peer_ends(fd)
        successor.close()
    finally:
        os.close(write_end)
        os.waitpid(child, 0)
        os.close(fd)
