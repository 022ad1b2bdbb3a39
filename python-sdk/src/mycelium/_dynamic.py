"""Dynamic messages: payloads that are encoded as a whole, as JSON, MessagePack or plain bytes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar

from . import _layout as layout
from ._views import STALE, Views
from .exceptions import FrameTooLarge, MessageError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["DynamicMessage", "encode_payload", "require_codec"]

_NAMES = {layout.ENCODING_JSON: "json", layout.ENCODING_MSGPACK: "msgpack", layout.ENCODING_RAW: "raw"}


class DynamicMessage:
    """A message whose payload is not laid out by the contract but encoded as a whole.

    A received one is a window into the ring and decodes its value when that is first asked for. One that is made from
    a value can be sent; so can the bare value.

    Args:
        value: What ``json.dumps`` or ``msgpack.packb`` takes, or bytes, as the contract says.
    """

    __slots__ = ("_length", "_payload", "_value", "_views", "_word")

    NAME: ClassVar[str]
    TOPIC: ClassVar[str]
    TOPIC_ID: ClassVar[int]
    ENCODING: ClassVar[int]
    """Encoding of the payload, as in the frame's flags: 1 MessagePack, 2 JSON, 3 raw bytes."""
    MAX_SIZE: ClassVar[int]
    """Largest payload in bytes."""
    DELIVERY: ClassVar[str]
    """Default policy of a subscription: ``block``, ``drop_newest``, ``drop_oldest`` or ``conflate``."""
    LOG_PAYLOAD: ClassVar[bool]
    """Whether values may be shown in logs and error texts."""
    LAYOUT_DIGEST: ClassVar[bytes]
    SCHEMA_DIGEST: ClassVar[bytes]

    _views: Views | None
    _payload: memoryview | None

    def __init__(self, value: Any) -> None:
        self._views = None
        self._word = 0
        self._length = 0
        self._payload = None
        self._value = value

    @classmethod
    def _received(cls, views: Views, word: int, length: int) -> Self:
        """A window on a payload of so many bytes that starts at a word; nothing is looked at."""
        message = object.__new__(cls)
        message._views = views
        message._word = word
        message._length = length
        message._payload = None
        return message

    @property
    def value(self) -> Any:
        """The payload as an object: what JSON or MessagePack say, or bytes. Decoded once; stays valid.

        Raises:
            MessageError: The payload is not what its encoding asks for; names topic and sizes.
            StaleMessageError: The message was released before its value was asked for.
        """
        try:
            return self._value
        except AttributeError:
            self._value = self._decode()
            return self._value

    @property
    def payload(self) -> memoryview:
        """The bytes in the ring, without a copy; released together with the message.

        Raises:
            StaleMessageError: The message was released.
        """
        if self._payload is None:
            if self._views is None:
                self._payload = memoryview(encode_payload(type(self), self._value)).toreadonly()
            else:
                start = self._word * 8
                self._payload = self._views.raw[start : start + self._length].toreadonly()
        elif self._views is STALE:
            _ = STALE.raw  # raises, as every use of a released message
        return self._payload

    def to_bytes(self) -> bytes:
        """Returns a copy of the payload."""
        return bytes(self.payload)

    def copy(self) -> Self:
        """Returns a copy that stays valid: of the bytes, or of the reference to a value that was decoded already."""
        data = self.to_bytes()
        copied = type(self)._received(Views(bytes(data) + bytes(-len(data) % 8)), 0, len(data))
        if hasattr(self, "_value"):
            copied._value = self._value
        return copied

    def _decode(self) -> Any:
        cls, payload = type(self), self.payload
        try:
            if cls.ENCODING == layout.ENCODING_JSON:
                return json.loads(bytes(payload))
            if cls.ENCODING == layout.ENCODING_MSGPACK:
                return require_codec(cls).unpackb(payload)
        except ImportError:
            raise
        except Exception as error:  # the decoders have many kinds
            shown = str(error) if cls.LOG_PAYLOAD else type(error).__name__
            raise MessageError(
                f"payload of {cls.NAME} is not readable as {_NAMES[cls.ENCODING]}: topic_id={cls.TOPIC_ID} "
                f"payload_len={len(payload)} max_size={cls.MAX_SIZE}: {shown}"
            ) from (error if cls.LOG_PAYLOAD else None)
        return bytes(payload)

    def _release(self) -> None:
        """Makes a received message stale; a value that was decoded stays."""
        if self._views is not None:
            self._views = STALE
            payload, self._payload = self._payload, None
            if payload is not None:
                payload.release()

    def __repr__(self) -> str:
        name = type(self).__name__
        if self._views is STALE:
            return f"<{name} stale>"
        if self._views is not None:
            return f"<{name} payload_len={self._length}>"
        return f"{name}({self._value!r:.200})" if type(self).LOG_PAYLOAD else f"<{name} payload not logged>"


def require_codec(contract: type[DynamicMessage]) -> Any:
    """Returns the package that MessagePack needs.

    Raises:
        ImportError: It is not installed.
    """
    try:
        import msgpack  # type: ignore[import-untyped,unused-ignore]
    except ImportError as error:
        raise ImportError(
            f"{contract.NAME} is written as msgpack, and the package msgpack is missing; "
            "install it with pip install 'mycelium[msgpack]'"
        ) from error
    return msgpack


def encode_payload(contract: Any, value: Any) -> bytes:
    """Writes a value as the contract says.

    Raises:
        MessageError: The value cannot be written.
        FrameTooLarge: It is longer than the contract allows.
    """
    if isinstance(value, contract):
        if value._views is not None:
            return bytes(value.payload)
        value = value._value
    encoding = contract.ENCODING
    try:
        if encoding == layout.ENCODING_JSON:
            payload = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
        elif encoding == layout.ENCODING_MSGPACK:
            payload = require_codec(contract).packb(value)
        else:
            payload = bytes(memoryview(value))
    except ImportError:
        raise
    except Exception as error:
        shown = f": {error}" if contract.LOG_PAYLOAD else ""
        raise MessageError(
            f"{contract.NAME} cannot be written as {_NAMES[encoding]}: topic_id={contract.TOPIC_ID} "
            f"type={type(value).__name__}{shown}",
            value=value if contract.LOG_PAYLOAD else None,
        ) from (error if contract.LOG_PAYLOAD else None)
    check_size(contract, len(payload))
    return payload


def check_size(contract: Any, payload_len: int) -> None:
    """Raises FrameTooLarge where a payload is longer than the contract allows."""
    if payload_len > contract.MAX_SIZE:
        raise FrameTooLarge(
            f"frame too large: message={contract.NAME} topic_id={contract.TOPIC_ID} payload_len={payload_len}, "
            f"legal: 0..={contract.MAX_SIZE}; send less or raise max_size in the contracts file",
            payload_len=payload_len,
            max_payload=contract.MAX_SIZE,
        )
