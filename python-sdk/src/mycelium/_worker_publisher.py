"""Publishers of a worker: asked for before there is a connection, bound once there is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from ._publisher import Publisher

if TYPE_CHECKING:
    from ._aio_publisher import AsyncPublisher, AsyncReservation
    from ._publisher import Reservation

__all__ = ["AsyncWorkerPublisher", "WorkerPublisher"]

MessageT = TypeVar("MessageT")


class _Unbound(Generic[MessageT]):
    def __init__(self, contract: type[MessageT]) -> None:
        self.contract = contract

    def _take(self, publisher: object, *names: str) -> None:
        # Bound methods on the instance: calling one costs what it costs on the publisher itself.
        for name in names:
            setattr(self, name, getattr(publisher, name))

    def _not_connected(self) -> NoReturn:
        name = getattr(self.contract, "NAME", self.contract)
        raise RuntimeError(f"worker is not connected: message={name}; publish in a handler or in @worker.on_start")


def _never_waiting(method: Callable[..., Any], publisher: object, takes: int) -> Callable[..., Any]:
    """The method with a timeout of 0, whatever comes behind its first arguments."""

    def call(*arguments: Any, timeout: float | None = None) -> Any:
        return method(publisher, *arguments[:takes], timeout=0)

    return call


class WorkerPublisher(_Unbound[MessageT]):
    """Publishes one kind of message from plain functions; made by :meth:`Worker.publisher`.

    ``send`` and the rest are those of :class:`mycelium.Publisher`, at the same cost. In a worker that runs in an event
    loop they never wait, as that would hold up everything: they raise :class:`ChannelFull` at once.

    Attributes:
        contract: The message class.
    """

    def _bind(self, publisher: Publisher[MessageT]) -> None:
        self._take(publisher, "send", "send_raw", "send_many", "reserve")

    def _bind_async(self, publisher: AsyncPublisher[MessageT]) -> None:
        for name in ("send", "send_raw", "send_many", "reserve"):
            takes = int(name != "reserve")
            setattr(self, name, _never_waiting(getattr(Publisher, name), publisher, takes))

    def send(self, message: Any, timeout: float | None = None) -> None:
        """As :meth:`mycelium.Publisher.send`."""
        self._not_connected()

    def send_raw(self, payload: bytes | bytearray | memoryview, timeout: float | None = None) -> None:
        """As :meth:`mycelium.Publisher.send_raw`."""
        self._not_connected()

    def send_many(self, messages: Any, timeout: float | None = None) -> int:
        """As :meth:`mycelium.Publisher.send_many`."""
        self._not_connected()

    def reserve(self, timeout: float | None = None) -> Reservation[MessageT]:
        """As :meth:`mycelium.Publisher.reserve`."""
        self._not_connected()


class AsyncWorkerPublisher(_Unbound[MessageT]):
    """Publishes one kind of message from ``async def`` functions; made by :meth:`Worker.async_publisher`.

    The methods are those of :class:`mycelium.aio.AsyncPublisher`.

    Attributes:
        contract: The message class.
    """

    def _bind_async(self, publisher: AsyncPublisher[MessageT]) -> None:
        self._take(publisher, "send", "send_nowait", "send_raw", "send_many", "reserve")

    async def send(self, message: Any, timeout: float | None = None) -> None:
        """As :meth:`mycelium.aio.AsyncPublisher.send`."""
        self._not_connected()

    def send_nowait(self, message: Any) -> None:
        """As :meth:`mycelium.aio.AsyncPublisher.send_nowait`."""
        self._not_connected()

    async def send_raw(self, payload: bytes | bytearray | memoryview, timeout: float | None = None) -> None:
        """As :meth:`mycelium.aio.AsyncPublisher.send_raw`."""
        self._not_connected()

    async def send_many(self, messages: Any, timeout: float | None = None) -> int:
        """As :meth:`mycelium.aio.AsyncPublisher.send_many`."""
        self._not_connected()

    def reserve(self, timeout: float | None = None) -> AsyncReservation[MessageT]:
        """As :meth:`mycelium.aio.AsyncPublisher.reserve`."""
        self._not_connected()
