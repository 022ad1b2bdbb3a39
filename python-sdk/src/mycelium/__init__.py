"""Mycelium: messages between this process and a bridge, over shared memory where possible.

::

    import mycelium
    from mycelium.messages import Quote, Side, Signal

    with mycelium.connect() as channel:
        channel.subscribe(Quote)
        signals = channel.publisher(Signal)
        for quote in channel:
            signals.send(Signal(worker="mine", side=Side.HOLD, price=quote.bid))

See :class:`Channel` for how long a message is valid, and :mod:`mycelium.exceptions` for what can go wrong.
"""

from . import exceptions, messages
from ._batch import Batch
from ._differences import ContractDifference
from ._dynamic import DynamicMessage
from ._publisher import Publisher, Reservation
from .channel import Channel, Statistics
from .exceptions import (
    AddressError,
    ChannelClosed,
    ChannelError,
    ChannelFull,
    ContractMismatch,
    FrameTooLarge,
    HandshakeRefused,
    LinkFailed,
    MessageError,
    PeerLost,
    ProtocolError,
    SchemaRefused,
    SegmentCorrupt,
    StaleMessageError,
    TransportUnavailable,
    UnknownTopic,
)
from .worker import connect

__version__ = "0.1.0"

__all__ = [
    "AddressError",
    "Batch",
    "Channel",
    "ChannelClosed",
    "ChannelError",
    "ChannelFull",
    "ContractDifference",
    "ContractMismatch",
    "DynamicMessage",
    "FrameTooLarge",
    "HandshakeRefused",
    "LinkFailed",
    "MessageError",
    "PeerLost",
    "ProtocolError",
    "Publisher",
    "Reservation",
    "SchemaRefused",
    "SegmentCorrupt",
    "StaleMessageError",
    "Statistics",
    "TransportUnavailable",
    "UnknownTopic",
    "connect",
    "exceptions",
    "messages",
]
