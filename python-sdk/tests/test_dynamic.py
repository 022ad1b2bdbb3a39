"""Dynamic messages: JSON, MessagePack and raw bytes, sent and received over both transports."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import ClassVar

import pytest

import mycelium
from bridge_double import BridgeDouble, wait_until
from builders import quote
from mycelium import _layout as layout
from mycelium import messages
from mycelium._frame import header_word
from mycelium.messages import Quote

MakeBridge = Callable[..., BridgeDouble]


class Dynamic(mycelium.DynamicMessage):
    """What the generated classes of these tests have in common."""

    __slots__ = ()

    TOPIC: ClassVar[str] = "notes"
    MAX_SIZE: ClassVar[int] = 100
    DELIVERY: ClassVar[str] = "block"
    LOG_PAYLOAD: ClassVar[bool] = True
    SCHEMA_DIGEST: ClassVar[bytes] = messages.SCHEMA_DIGEST


class Note(Dynamic):
    __slots__ = ()

    NAME: ClassVar[str] = "Note"
    TOPIC_ID: ClassVar[int] = 1500
    ENCODING: ClassVar[int] = layout.ENCODING_JSON
    LAYOUT_DIGEST: ClassVar[bytes] = b"1" * 32


class Packed(Dynamic):
    __slots__ = ()

    NAME: ClassVar[str] = "Packed"
    TOPIC_ID: ClassVar[int] = 1501
    ENCODING: ClassVar[int] = layout.ENCODING_MSGPACK
    LAYOUT_DIGEST: ClassVar[bytes] = b"2" * 32


class Blob(Dynamic):
    __slots__ = ()

    NAME: ClassVar[str] = "Blob"
    TOPIC_ID: ClassVar[int] = 1502
    ENCODING: ClassVar[int] = layout.ENCODING_RAW
    LAYOUT_DIGEST: ClassVar[bytes] = b"3" * 32


class Secret(Note):
    __slots__ = ()

    LOG_PAYLOAD: ClassVar[bool] = False


ALL = [Quote, Note, Packed, Blob]


def give(bridge: BridgeDouble, contract: type[Dynamic], payload: bytes, encoding: int | None = None) -> None:
    flags = (contract.ENCODING if encoding is None else encoding) << layout.FLAG_ENCODING_SHIFT
    bridge.send_frame(header_word(len(payload), contract.TOPIC_ID, flags), payload)


def sent(bridge: BridgeDouble) -> tuple[int, int, bytes]:
    """Topic, encoding and payload of the next frame of the peer."""
    wait_until(bridge._have_data, "a frame")
    header, payload = bridge._next()
    return header.topic_id, header.encoding, payload


def test_values_arrive_and_windows_die_with_their_message(bridge: BridgeDouble) -> None:
    with bridge.connect(contracts=ALL) as channel:
        give(bridge, Note, b'{"a":[1,null]}')
        give(bridge, Packed, b"\x81\xa1a\x01")
        give(bridge, Blob, b"\x00\xff")
        bridge.send(quote(1))
        note = channel.recv(timeout=30)
        assert type(note) is Note and note.value == {"a": [1, None]}
        window = note.payload
        assert bytes(window) == b'{"a":[1,null]}' and window.readonly and note.payload is window
        kept = note.copy()
        packed = channel.recv(timeout=30)
        with pytest.raises(mycelium.StaleMessageError):
            _ = note.payload
        with pytest.raises(ValueError, match="released"):
            bytes(window)
        assert note.value == {"a": [1, None]}, "a value that was decoded stays"
        assert kept.value == {"a": [1, None]} and bytes(kept.payload) == b'{"a":[1,null]}'
        assert type(packed) is Packed
        blob = channel.recv(timeout=30)
        with pytest.raises(mycelium.StaleMessageError):
            _ = packed.value
        assert type(blob) is Blob and blob.value == b"\x00\xff"
        assert channel.recv(timeout=30).sequence == 1
        assert channel.statistics().frames_in == 4


def test_they_come_in_loops_and_batches(bridge: BridgeDouble) -> None:
    with bridge.connect(contracts=ALL) as channel:
        give(bridge, Note, b"[]")
        bridge.send(quote(1))
        give(bridge, Note, b"[2]")
        seen = []
        for message in channel:
            seen.append(message)
            if len(seen) == 2:
                break
        with pytest.raises(mycelium.StaleMessageError):
            _ = seen[0].value
        batch = channel.recv_batch(timeout=30)
        (last,) = batch
        assert last.value == [2]
        assert batch.to_bytes()[8:11] == b"[2]"
        window = last.payload
        batch.release()
        with pytest.raises(ValueError, match="released"):
            bytes(window)


def test_values_messages_and_bytes_are_sent(bridge: BridgeDouble) -> None:
    with bridge.connect(contracts=ALL) as channel:
        notes, packed, blobs = (channel.publisher(contract) for contract in (Note, Packed, Blob))
        notes.send({"b": [1, None], "é": "ü"})
        assert sent(bridge) == (1500, layout.ENCODING_JSON, '{"b":[1,null],"é":"ü"}'.encode())
        notes.send(Note([1]))
        assert sent(bridge)[2] == b"[1]"
        packed.send({"a": 1})
        assert sent(bridge) == (1501, layout.ENCODING_MSGPACK, b"\x81\xa1a\x01")
        blobs.send(memoryview(b"xyz"))
        assert sent(bridge) == (1502, layout.ENCODING_RAW, b"xyz")
        notes.send_raw(b"[7]")
        assert sent(bridge)[2] == b"[7]"
        give(bridge, Note, b" [ 8 ] ")
        notes.send(channel.recv(timeout=30))
        assert sent(bridge)[2] == b" [ 8 ] ", "a received message is forwarded as it came"


def test_what_does_not_fit_is_refused_with_both_sizes(bridge: BridgeDouble) -> None:
    with bridge.connect(contracts=ALL) as channel:
        notes, blobs = channel.publisher(Note), channel.publisher(Blob)
        for send in (lambda: notes.send("x" * 100), lambda: notes.send_raw(b"x" * 102)):
            with pytest.raises(mycelium.FrameTooLarge, match="message=Note topic_id=1500") as caught:
                send()
            assert (caught.value.payload_len, caught.value.max_payload) == (102, 100)
        for publisher, value in ((notes, object()), (notes, float("nan")), (blobs, "text"), (blobs, 5)):
            with pytest.raises(mycelium.MessageError, match=f"topic_id={publisher.contract.TOPIC_ID}"):
                publisher.send(value)
        with pytest.raises(TypeError, match="no fixed layout"):
            notes.reserve()
        with pytest.raises(TypeError, match="fixed layout"):
            channel.publisher(Quote).send_raw(b"")
        assert channel.statistics().frames_out == 0


def test_what_cannot_be_read_names_topic_and_sizes(bridge: BridgeDouble) -> None:
    with bridge.connect(contracts=ALL) as channel:
        for contract, payload in (
            (Note, b"{"),
            (Note, b"\xff"),
            (Packed, b"\xc1"),
            (Packed, b"\x01\x02"),
            (Packed, b""),
        ):
            give(bridge, contract, payload)
            message = channel.recv(timeout=30)
            text = f"topic_id={contract.TOPIC_ID} payload_len={len(payload)} max_size=100"
            with pytest.raises(mycelium.MessageError, match=text):
                _ = message.value
            assert bytes(message.payload) == payload


def test_frames_of_another_encoding_or_size_are_skipped_and_told(
    bridge: BridgeDouble, caplog: pytest.LogCaptureFixture
) -> None:
    with bridge.connect(contracts=ALL) as channel:
        give(bridge, Note, b"\x01", layout.ENCODING_MSGPACK)
        give(bridge, Note, b"1" * 101)
        give(bridge, Note, b"1")
        assert channel.recv(timeout=30).value == 1
        assert channel.statistics().frames_skipped == 2
        (record,) = [record for record in caplog.records if "skipping" in record.message]
        assert "do not fit Note" in record.message


def test_a_secret_is_not_shown(bridge: BridgeDouble) -> None:
    with bridge.connect(contracts=[Secret]) as channel:
        give(bridge, Secret, b'"tok')
        message = channel.recv(timeout=30)
        with pytest.raises(mycelium.MessageError) as caught:
            _ = message.value
        secrets = channel.publisher(Secret)
        with pytest.raises(mycelium.MessageError) as other:
            secrets.send({"token": {1}})
        assert "tok" not in str(caught.value) + str(other.value).replace("type", "") and other.value.value is None
    assert "hush" not in repr(Secret("hush")) and "loud" in repr(Note("loud"))


def test_a_missing_package_is_named(bridge: BridgeDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "msgpack", None)
    with bridge.connect(contracts=ALL) as channel:
        with pytest.raises(ImportError, match=r"mycelium\[msgpack\]"):
            channel.publisher(Packed)
        give(bridge, Packed, b"\x01")
        with pytest.raises(ImportError, match="Packed"):
            _ = channel.recv(timeout=30).value


def test_closing_with_a_window_in_hand_is_no_error(bridge: BridgeDouble) -> None:
    channel = bridge.connect(contracts=ALL)
    give(bridge, Note, b"[1,2]")
    note = channel.recv(timeout=30)
    part = note.payload[1:2]
    channel.close()
    assert part.nbytes == 1
    with pytest.raises(mycelium.StaleMessageError):
        _ = note.value
