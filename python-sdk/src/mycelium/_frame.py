"""Frames: the header word, record lengths, and a decoder for streams of control frames.

Pure functions of bytes; no I/O. A frame is the same in a ring and on a socket: an 8-byte header word (u64,
little-endian: ``payload_len | topic_id << 32 | flags << 48``), the payload, and zeros up to a multiple of 8.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import NamedTuple, TypeVar

from . import _layout as layout
from ._message import Message
from .exceptions import MessageError, ProtocolError

__all__ = ["FrameDecoder", "FrameHeader", "decode_control", "encode_frame", "header_word", "parse_header", "record_len"]

_WORD = struct.Struct("<Q")
CONTROL_PAYLOAD_MAX = 65536
MessageT = TypeVar("MessageT", bound=Message)


class FrameHeader(NamedTuple):
    """The three parts of a header word."""

    payload_len: int
    topic_id: int
    flags: int

    @property
    def encoding(self) -> int:
        """How the payload is encoded: one of the ``ENCODING_*`` numbers."""
        return (self.flags & layout.FLAG_ENCODING_MASK) >> layout.FLAG_ENCODING_SHIFT

    @property
    def is_pad(self) -> bool:
        """Whether this is a padding record of a ring."""
        return bool(self.flags & layout.FLAG_PAD)


def header_word(payload_len: int, topic_id: int, flags: int = 0) -> int:
    """Returns the header word of a frame."""
    return payload_len | topic_id << 32 | flags << 48


def parse_header(word: int) -> FrameHeader:
    """Splits a header word; checks nothing."""
    return FrameHeader(word & 0xFFFF_FFFF, word >> 32 & 0xFFFF, word >> 48)


def record_len(payload_len: int) -> int:
    """Returns the bytes that a frame takes in any stream: header, payload, zeros up to a multiple of 8."""
    return (payload_len + layout.FRAME_HEADER_LEN + 7) & ~7


def encode_frame(topic_id: int, payload: bytes, flags: int = 0) -> bytes:
    """Returns the whole frame as bytes."""
    return _WORD.pack(header_word(len(payload), topic_id, flags)) + payload + bytes(-len(payload) % 8)


def decode_control(contract: type[MessageT], payload: bytes) -> MessageT:
    """Reads a control frame's payload.

    Raises:
        ProtocolError: It does not have the layout that it should have.
    """
    try:
        message = contract.from_bytes(payload)
        message.validate()
    except MessageError as error:
        raise ProtocolError(f"control frame garbled: message={contract.NAME} {error}") from error
    return message


class FrameDecoder:
    """Cuts a byte stream into frames, for control frames and the handshake (small and rare)."""

    __slots__ = ("_buffer", "_max_payload")

    def __init__(self, max_payload: int = CONTROL_PAYLOAD_MAX) -> None:
        self._buffer = bytearray()
        self._max_payload = max_payload

    def widened(self, max_payload: int) -> FrameDecoder:
        """Returns a decoder of the same bytes that takes longer frames."""
        decoder = FrameDecoder(max_payload)
        decoder.feed(self.take_rest())
        return decoder

    @property
    def unfinished(self) -> bool:
        """Whether there are bytes that are not cut into frames yet."""
        return bool(self._buffer)

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Adds received bytes."""
        self._buffer += data

    def feed_all(self, received: list[bytes]) -> None:
        """Adds what is in the list and empties it; a signal handler that raises in between loses or doubles nothing."""
        while received:
            self._buffer += received[0]
            del received[0]

    def frames_into(self, frames: deque[tuple[FrameHeader, bytes]]) -> None:
        """Moves all complete frames; a signal handler that raises in between loses or doubles none.

        Raises:
            ProtocolError: As :meth:`next_frame`.
        """
        while (found := self._find()) is not None:
            header, payload, length = found
            # No call from here to the end of the round.
            frames += ((header, payload),)
            del self._buffer[:length]

    def next_frame(self) -> tuple[FrameHeader, bytes] | None:
        """Returns the oldest complete frame, or None when more bytes are needed.

        Raises:
            ProtocolError: The header word is not one of a control frame.
        """
        found = self._find()
        if found is None:
            return None
        header, payload, length = found
        del self._buffer[:length]
        return header, payload

    def _find(self) -> tuple[FrameHeader, bytes, int] | None:
        """The oldest complete frame and its length in the stream."""
        buffer = self._buffer
        if len(buffer) < layout.FRAME_HEADER_LEN:
            return None
        word = _WORD.unpack_from(buffer)[0]
        header = parse_header(word)
        if not layout.CORE_TOPIC_MIN <= header.topic_id <= layout.CORE_TOPIC_MAX or header.is_pad:
            raise ProtocolError(
                f"not a control frame: topic_id={header.topic_id} header_word={word:#018x}, "
                f"legal: {layout.CORE_TOPIC_MIN}..={layout.CORE_TOPIC_MAX}; is the other end a bridge?",
                topic_id=header.topic_id,
            )
        if header.payload_len > self._max_payload:
            raise ProtocolError(
                f"control frame too long: topic_id={header.topic_id} payload_len={header.payload_len}, "
                f"legal: 0..={self._max_payload}"
            )
        length = record_len(header.payload_len)
        if len(buffer) < length:
            return None
        start = layout.FRAME_HEADER_LEN
        payload = bytes(buffer[start : start + header.payload_len])
        return header, payload, length

    def take_rest(self) -> bytes:
        """Returns and forgets the bytes that are not cut into frames yet."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest
