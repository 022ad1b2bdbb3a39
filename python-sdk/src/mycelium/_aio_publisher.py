"""Publishers of the channel for asyncio; their waits are awaited, the rest is that of the other publishers."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ._burst import burst_of
from ._doorbell import deadline_after
from ._publisher import Publisher, Reservation
from .exceptions import ChannelFull

if TYPE_CHECKING:
    from .aio import AsyncChannel

__all__ = ["AsyncPublisher", "AsyncReservation"]

MessageT = TypeVar("MessageT")


class AsyncPublisher(Publisher[MessageT]):
    """Publishes one kind of message. Made by :meth:`AsyncChannel.publisher`."""

    __slots__ = ()
    _channel: AsyncChannel

    def send_nowait(self, message: Any) -> None:
        """Publishes a copy of a message without waiting; as :meth:`Publisher.send` with ``timeout=0``.

        Raises:
            ChannelFull: No room; the rest as :meth:`Publisher.send`.
        """
        super().send(message, 0)

    async def send(self, message: Any, timeout: float | None = None) -> None:  # type: ignore[override]  # awaited
        """Publishes a copy of a message; suspends only where there is no room.

        Args:
            message: As for :meth:`Publisher.send`.
            timeout: Longest wait for room, in seconds; None for ever, 0 not at all.

        Raises:
            ChannelFull: No room in time; the rest as :meth:`Publisher.send`.
        """
        deadline: int | None = -1
        while True:
            try:
                return super().send(message, 0)
            except ChannelFull as full:
                if deadline == -1:
                    deadline = deadline_after(timeout)
                await self._channel._await_room(full.needed, deadline, full)

    async def send_raw(  # type: ignore[override]  # awaited
        self, payload: bytes | bytearray | memoryview, timeout: float | None = None
    ) -> None:
        """As :meth:`Publisher.send_raw`; suspends only where there is no room."""
        deadline = deadline_after(timeout)
        while True:
            try:
                return super().send_raw(payload, 0)
            except ChannelFull as full:
                await self._channel._await_room(full.needed, deadline, full)

    async def send_many(self, messages: Any, timeout: float | None = None) -> int:  # type: ignore[override]  # awaited
        """As :meth:`Publisher.send_many`; suspends only where there is no room."""
        deadline = deadline_after(timeout)
        burst = burst_of(self, messages)
        while True:
            try:
                return burst.run(0)
            except ChannelFull as full:
                await self._channel._await_room(full.needed, deadline, full)

    def reserve(self, timeout: float | None = None) -> AsyncReservation[MessageT]:  # type: ignore[override]  # awaited
        """Reserves room for a message that is written in place::

            async with publisher.reserve() as signal:
                signal.price = 1.0

        As :meth:`Publisher.reserve`. Do not await inside of the block: nothing else can be sent on this channel
        meanwhile.
        """
        super().reserve(0)
        return AsyncReservation(self, self._reservation, timeout)


class AsyncReservation(Generic[MessageT]):
    """Room in the ring for one message; see :meth:`AsyncPublisher.reserve`."""

    __slots__ = ("_publisher", "_reservation", "_timeout")

    def __init__(
        self, publisher: AsyncPublisher[MessageT], reservation: Reservation[MessageT], timeout: float | None
    ) -> None:
        self._publisher = publisher
        self._reservation = reservation
        self._timeout = timeout

    async def __aenter__(self) -> MessageT:
        deadline = deadline_after(self._timeout)
        while True:
            try:
                return self._reservation.__enter__()
            except ChannelFull as full:
                await self._publisher._channel._await_room(full.needed, deadline, full)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._reservation.__exit__(kind, error, traceback)
