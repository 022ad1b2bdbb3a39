"""What can go wrong, as one tree.

::

    ChannelError                        base class of everything that this package raises on purpose
    ├── AddressError (ValueError)       no address, or one that cannot be understood
    ├── ChannelClosed                   this side closed the channel, or it ended after a shutdown
    ├── PeerLost (ConnectionError)      the bridge vanished without a goodbye, or nobody listens
    ├── LinkFailed(code, name)          the bridge ended the link because this side broke a rule
    ├── ProtocolError                   the bridge sent a control frame that does not fit here
    ├── HandshakeRefused(code, name)    the bridge does not accept this peer
    │   └── SchemaRefused               … because both speak different contracts (is a ContractMismatch too)
    ├── ContractMismatch                the two sides disagree about a layout: ``topic_id``, ``expected``, ``actual``,
    │                                   ``differences``
    ├── TransportUnavailable(code, name)  shared memory was demanded and cannot be had
    ├── UnknownTopic (LookupError)      the bridge has no such topic
    ├── DeliveryRefused(code, name)     the bridge does not deliver that topic by the policy that was asked for
    ├── ChannelFull (TimeoutError)      no room for the frame before the timeout; send again later
    ├── FrameTooLarge (ValueError)      the payload can never fit; nothing was written
    ├── SegmentCorrupt                  a word in shared memory is outside its legal range
    ├── StaleMessageError (RuntimeError)  a message was used after its ring space was released
    └── MessageError (ValueError)       a field's value does not fit its contract

Waiting for a message that does not come raises the built-in :class:`TimeoutError`. Attributes carry the numbers;
the text is for people only and may change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._differences import ContractDifference

__all__ = [
    "AddressError",
    "ChannelClosed",
    "ChannelError",
    "ChannelFull",
    "ContractMismatch",
    "DeliveryRefused",
    "FrameTooLarge",
    "HandshakeRefused",
    "LinkFailed",
    "MessageError",
    "PeerLost",
    "ProtocolError",
    "SchemaRefused",
    "SegmentCorrupt",
    "StaleMessageError",
    "TransportUnavailable",
    "UnknownTopic",
]


def _name_of(enumeration: str, code: int) -> str:
    """The name of a code of the control frames, which are made of messages, which raise what stands here."""
    from . import _control

    try:
        return str(getattr(_control, enumeration)(code).name)
    except ValueError:
        return str(code)


class ChannelError(Exception):
    """Base class of all exceptions of this package. They can be pickled, attributes included.

    Attributes:
        sent: Messages that :meth:`Publisher.send_many` had sent before it raised this; 0 elsewhere.
    """

    sent: int = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, dict(vars(self)))


def _restore(kind: type[ChannelError], args: tuple[Any, ...], attributes: dict[str, Any]) -> ChannelError:
    error = kind.__new__(kind)
    error.args = args
    vars(error).update(attributes)
    return error


class AddressError(ChannelError, ValueError):
    """There is no address to connect to, or it cannot be understood.

    Attributes:
        address: The text that was given; empty where there was none.
    """

    def __init__(self, message: str, *, address: str = "") -> None:
        super().__init__(message)
        self.address = address


class ChannelClosed(ChannelError):
    """The channel is closed on this side, or has ended after the bridge's shutdown.

    Attributes:
        reason: The bridge's reason for the shutdown; empty where this side closed.
    """

    def __init__(self, message: str = "channel is closed", *, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class PeerLost(ChannelError, ConnectionError):
    """The bridge hung up without a shutdown, or could not be reached.

    Frames that were already in the ring have been handed out before this is raised.

    Attributes:
        address: Where nobody could be reached; empty where there was a connection.
        link: Name of the link that was lost; empty before it had one.
    """

    def __init__(self, message: str = "bridge is gone", *, address: str = "", link: str = "") -> None:
        super().__init__(message)
        self.address = address
        self.link = link


class LinkFailed(ChannelError):
    """The bridge ended the link, because this side broke a rule of the protocol or of the ring.

    Attributes:
        code: Number of the rule (``LinkError.code`` of the control frames).
    """

    def __init__(self, message: str, *, code: int) -> None:
        super().__init__(message)
        self.code = code

    @property
    def name(self) -> str:
        """The code's name, such as ``"CORRUPT_RECORD"``; the number where it has none."""
        return _name_of("LinkErrorCode", self.code)


class ProtocolError(ChannelError):
    """The bridge sent something that the protocol does not allow at this point.

    Attributes:
        topic_id: Topic of the frame in question; 0 where there is none.
    """

    def __init__(self, message: str, *, topic_id: int = 0) -> None:
        super().__init__(message)
        self.topic_id = topic_id


class HandshakeRefused(ChannelError):
    """The bridge does not accept this peer.

    Attributes:
        code: Why (``Refused.code`` of the control frames).
    """

    def __init__(self, message: str, *, code: int) -> None:
        super().__init__(message)
        self.code = code

    @property
    def name(self) -> str:
        """The code's name, such as ``"NOT_ALLOWED"``; the number where it has none."""
        return _name_of("RefusedCode", self.code)


class ContractMismatch(ChannelError):
    """The two sides were generated from different contracts.

    Attributes:
        topic_id: The topic that is refused; 0 where the link as a whole is.
        expected: Digest on the bridge's side; empty where the bridge only says that it differs.
        actual: Digest on this side.
        differences: What differs on that topic (:class:`mycelium.ContractDifference`); empty where only digests were
            compared.
    """

    def __init__(
        self,
        message: str,
        *,
        topic_id: int = 0,
        expected: bytes = b"",
        actual: bytes = b"",
        differences: tuple[ContractDifference, ...] = (),
    ) -> None:
        super().__init__(message)
        self.topic_id = topic_id
        self.expected = expected
        self.actual = actual
        self.differences = differences


class SchemaRefused(HandshakeRefused, ContractMismatch):
    """The handshake was refused because the contracts of both sides differ: a refusal and a mismatch in one."""

    def __init__(self, message: str, *, code: int, expected: bytes, actual: bytes) -> None:
        ChannelError.__init__(self, message)
        self.code = code
        self.topic_id = 0
        self.expected = expected
        self.actual = actual
        self.differences = ()


class TransportUnavailable(ChannelError):
    """``transport="shm"`` was demanded and shared memory cannot be used.

    Attributes:
        code: The fallback code (``Welcome.fallback_code`` of the control frames).
    """

    def __init__(self, message: str, *, code: int) -> None:
        super().__init__(message)
        self.code = code

    @property
    def name(self) -> str:
        """The code's name, such as ``"REMOTE"``; the number where it has none."""
        return _name_of("FallbackCode", self.code)


class UnknownTopic(ChannelError, LookupError):
    """The bridge has no such topic in its contracts.

    Attributes:
        topic_id: The topic.
    """

    def __init__(self, message: str, *, topic_id: int) -> None:
        super().__init__(message)
        self.topic_id = topic_id


class DeliveryRefused(ChannelError):
    """The bridge does not deliver that topic by the policy that was asked for; nothing is subscribed or changed.

    Attributes:
        topic_id: The topic.
        code: Why (``TopicReply.code`` of the control frames).
    """

    def __init__(self, message: str, *, topic_id: int, code: int) -> None:
        super().__init__(message)
        self.topic_id = topic_id
        self.code = code

    @property
    def name(self) -> str:
        """The code's name, such as ``"BAD_DELIVERY"``; the number where it has none."""
        return _name_of("TopicReplyCode", self.code)


class ChannelFull(ChannelError, TimeoutError):
    """There was no room for the frame before the timeout ended; it was not sent.

    Attributes:
        sent: Messages of :meth:`Publisher.send_many` that were sent before; 0 elsewhere.
        needed: Bytes that the record takes.
        free: Bytes that were free at the last look.
    """

    def __init__(self, message: str, *, needed: int, free: int) -> None:
        super().__init__(message)
        self.needed = needed
        self.free = free


class FrameTooLarge(ChannelError, ValueError):
    """The payload is longer than this link can ever take; nothing was written.

    Attributes:
        payload_len: Bytes of the payload.
        max_payload: Most bytes that a payload of this link may have.
    """

    def __init__(self, message: str, *, payload_len: int, max_payload: int) -> None:
        super().__init__(message)
        self.payload_len = payload_len
        self.max_payload = max_payload


class SegmentCorrupt(ChannelError):
    """A word in shared memory is outside its legal range; the link cannot go on.

    Attributes:
        field: Name of the field.
        value: What was found.
        legal: The legal range in words.
    """

    def __init__(self, *, field: str, value: object, legal: str, where: str = "") -> None:
        place = f" {where}" if where else ""
        super().__init__(f"segment corrupt: {field}={value}{place}, legal: {legal}; restart the bridge and this peer")
        self.field = field
        self.value = value
        self.legal = legal


class StaleMessageError(ChannelError, RuntimeError):
    """A message, batch or reservation was used after its ring space was given back."""

    def __init__(
        self,
        message: str = "the message is no longer valid: its ring space was released; use .copy() to keep a message",
    ) -> None:
        super().__init__(message)


class MessageError(ChannelError, ValueError):
    """A value does not fit the contract of its message.

    Attributes:
        field: Name of the field; empty where the message as a whole is wrong.
        value: The value that was refused.
    """

    def __init__(self, message: str, *, field: str = "", value: object = None) -> None:
        super().__init__(message)
        self.field = field
        self.value = value
