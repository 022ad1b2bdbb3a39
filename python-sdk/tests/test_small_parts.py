"""Frames, ordering, spinning, and the public surface."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import mycelium
from mycelium import _frame, _ordering, exceptions
from mycelium._doorbell import Doorbell, SpinBudget
from mycelium._frame import FrameDecoder, encode_frame, header_word, parse_header, record_len


def test_the_header_word_holds_its_parts() -> None:
    word = header_word(0xFFFF_FFFF, 0xFFFF, 0xFFFF)
    assert word == (1 << 64) - 1
    assert parse_header(word) == (0xFFFF_FFFF, 0xFFFF, 0xFFFF)
    header = parse_header(header_word(16, 1200, 4))
    assert (header.payload_len, header.topic_id, header.encoding, header.is_pad) == (16, 1200, 2, False)
    assert encode_frame(1200, b"abc").hex() == "03000000b00400006162630000000000"
    assert [record_len(n) for n in (0, 1, 8, 9)] == [8, 16, 16, 24]


def test_frames_are_cut_out_of_any_pieces() -> None:
    stream = b"".join(encode_frame(5, bytes(range(n))) for n in range(20))
    for size in (1, 7, 8, 100, len(stream)):
        decoder = FrameDecoder()
        got = []
        for at in range(0, len(stream), size):
            decoder.feed(stream[at : at + size])
            while (frame := decoder.next_frame()) is not None:
                got.append(frame[1])
        assert got == [bytes(range(n)) for n in range(20)]
        assert decoder.take_rest() == b""


@pytest.mark.parametrize("word", [header_word(1, 0), header_word(1, 1000), header_word(1, 5, 1), header_word(70000, 5)])
def test_what_is_no_control_frame_is_refused(word: int) -> None:
    decoder = FrameDecoder()
    decoder.feed(word.to_bytes(8, "little"))
    with pytest.raises(exceptions.ProtocolError):
        decoder.next_frame()


def test_this_machine_and_others_are_told_apart() -> None:
    assert _ordering.detect("linux", "x86_64") == _ordering.Ordering()
    assert _ordering.detect("darwin", "arm64").problem == "PLATFORM"
    assert _ordering.detect("linux", "riscv64").problem == "ORDERING"
    weak = _ordering.detect("linux", "aarch64")
    assert (weak.barrier is None) == (weak.problem == "ORDERING")
    if weak.barrier is not None:
        assert weak.barrier() is None


def test_the_heavy_fence_runs_where_it_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    if _ordering.membarrier_registered():
        assert _ordering.heavy_fence() is None
    monkeypatch.setenv("MYCELIUM_DISABLE", "shm, membarrier")
    assert _ordering.membarrier_registered() is False
    assert _ordering.disabled("shm")
    assert not _ordering.disabled("map")


def test_a_doorbell_keeps_its_notifications() -> None:
    bell = Doorbell(os.eventfd(0))
    assert bell.drain() is False
    bell.notify()
    bell.notify()
    assert bell.drain() is True
    assert bell.drain() is False
    bell.close()
    bell.close()
    assert bell.fileno() == -1


def test_spinning_in_vain_shortens_and_success_restores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    budget = SpinBudget(160)
    for expected in (80_000, 40_000, 20_000, 10_000, 10_000):
        budget.failed()
        assert budget.current_ns == expected
    budget.parked_for(1_000_000)
    assert budget.current_ns == 10_000
    budget.parked_for(640_000)
    assert budget.current_ns == 160_000
    budget.failed()
    budget.succeeded()
    assert budget.current_ns == 160_000
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert SpinBudget(160).current_ns == 0


def test_everything_public_is_exported_and_documented() -> None:
    assert list(mycelium.__all__) == sorted(mycelium.__all__)
    for name in mycelium.__all__:
        value = getattr(mycelium, name)
        assert inspect.getdoc(value) or typing.get_origin(value) is typing.Literal, name
    assert set(exceptions.__all__) <= set(mycelium.__all__)
    tree = exceptions.__doc__ or ""
    for name in exceptions.__all__:
        kind = getattr(exceptions, name)
        assert issubclass(kind, mycelium.ChannelError)
        assert name in tree
    modules = [name for name, value in vars(mycelium).items() if inspect.ismodule(value)]
    public = [name for name in vars(mycelium) if not name.startswith("_")]
    public = [name for name in public if name not in modules or name in mycelium.__all__]
    assert sorted(public) == sorted(mycelium.__all__)
    assert _frame.__all__ == sorted(_frame.__all__)


def test_the_package_imports_with_the_standard_library_alone() -> None:
    source = Path(mycelium.__file__).resolve().parent.parent
    script = f"import sys; sys.path.insert(0, {str(source)!r}); import mycelium; print(mycelium.Channel.__name__)"
    # -S leaves site-packages out, -I everything that the environment adds.
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("Channel", "")
