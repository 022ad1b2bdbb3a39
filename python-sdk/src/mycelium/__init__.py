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

from typing import TYPE_CHECKING as _TYPE_CHECKING

from . import events, exceptions, messages
from ._batch import Batch
from ._connect import connect
from ._delivery import Delivery
from ._differences import ContractDifference
from ._dynamic import DynamicMessage
from ._publisher import Publisher, Reservation
from ._reconnect import Reconnect
from ._statistics import Statistics
from ._worker import Worker, WorkerStatistics
from ._worker_publisher import AsyncWorkerPublisher, WorkerPublisher
from .channel import Channel
from .exceptions import (
    AddressError,
    ChannelClosed,
    ChannelError,
    ChannelFull,
    ContractMismatch,
    DeliveryRefused,
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

if _TYPE_CHECKING:
    from . import aio

__version__ = "0.1.0"

__all__ = [
    "AddressError",
    "AsyncWorkerPublisher",
    "Batch",
    "Channel",
    "ChannelClosed",
    "ChannelError",
    "ChannelFull",
    "ContractDifference",
    "ContractMismatch",
    "Delivery",
    "DeliveryRefused",
    "DynamicMessage",
    "FrameTooLarge",
    "HandshakeRefused",
    "LinkFailed",
    "MessageError",
    "PeerLost",
    "ProtocolError",
    "Publisher",
    "Reconnect",
    "Reservation",
    "SchemaRefused",
    "SegmentCorrupt",
    "StaleMessageError",
    "Statistics",
    "TransportUnavailable",
    "UnknownTopic",
    "Worker",
    "WorkerPublisher",
    "WorkerStatistics",
    "aio",
    "connect",
    "events",
    "exceptions",
    "messages",
]


def __getattr__(name: str) -> object:
    """Imports :mod:`mycelium.aio` when it is asked for: asyncio alone takes longer than all the rest."""
    if name != "aio":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return import_module(".aio", __name__)
