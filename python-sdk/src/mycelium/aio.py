"""The channel for asyncio: the same names, awaited.

::

    import mycelium
    from mycelium.messages import Quote, Side, Signal

    async with mycelium.aio.connect() as channel:
        await channel.subscribe(Quote)
        signals = await channel.publisher(Signal)
        async for quote in channel:
            await signals.send(Signal(worker="mine", side=Side.HOLD, price=quote.bid))

The doorbell and the socket are readers of the event loop; there is no helper thread, and nothing polls (in FENCED mode
a sleep is bounded to 1 ms, as everywhere). A channel belongs to the loop that it was made in. One task receives; any
number of tasks may send.

Every await can be cancelled: a cancelled receive has taken nothing, and a cancelled send has sent nothing. A message
that is in hand is acknowledged when the program goes on to the next one, as in :class:`mycelium.Channel`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import time
from _thread import get_ident
from collections.abc import AsyncIterator, Callable, Generator, Iterable
from functools import partial
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from . import messages
from ._aio_publisher import AsyncPublisher
from ._batch import Batch
from ._connect import dialer, reconnect_plan
from ._core import _GOODBYE_NS, READY, ChannelCore
from ._delivery import Delivery
from ._doorbell import deadline_after
from ._link import Link
from ._reconnect import Reconnect, Recovery
from ._sleeper import Sleeper
from ._socket import TlsOptions
from ._waits import Blocking, Steps, Wait, parted
from .events import Event
from .exceptions import ChannelClosed, ChannelError, ChannelFull, PeerLost

if TYPE_CHECKING:
    import ssl

    from typing_extensions import Self

__all__ = ["AsyncChannel", "AsyncPublisher", "connect"]

T = TypeVar("T")
MessageT = TypeVar("MessageT")


class AsyncChannel(ChannelCore):
    """A connection to a bridge for one event loop; made by :func:`connect`. Its attributes are those of ``Channel``."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._loop = asyncio.get_running_loop()
        self._owner = get_ident()
        self._sleepers: list[Sleeper] = []
        self._requests = asyncio.Lock()
        self._receiving = False
        self._watched: dict[int, Callable[[int], Any]] = {}  # descriptor -> what ends watching it
        self._writing = False
        self._problem: ChannelError | None = None
        self._coming_back: asyncio.Task[None] | None = None

    # ---- sleeping

    async def _drive(self, steps: Steps[T]) -> T:
        """Runs a procedure in the event loop, and returns what it returns."""
        resume: Callable[[], Wait | Blocking] = partial(next, steps)
        try:
            while True:
                step = resume()
                resume = partial(next, steps)
                if isinstance(step, Blocking):
                    resume = await _called(self._loop, steps, step.function)
                elif self._established and step.sock is self._link.sock:
                    await self._sleep(step.timeout_ms, writing=bool(step.events & select.POLLOUT))
                else:
                    await _ready(self._loop, step)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # what the generator returned
        finally:
            steps.close()

    async def _sleep(self, timeout_ms: float | None, *, writing: bool = False) -> None:
        """Sleeps until the doorbell or the socket has something, or the time is over."""
        loop = self._loop
        sleeper = Sleeper(loop)
        self._sleepers.append(sleeper)
        self._watch(writing=writing)
        timeout_ms = self._link.bounded(timeout_ms)
        timer = None if timeout_ms is None else loop.call_later(timeout_ms / 1e3, sleeper.wake)
        try:
            await sleeper
        finally:
            self._sleepers.remove(sleeper)
            if timer is not None:
                timer.cancel()
        if self._problem is not None:
            raise self._problem

    def _wake_all(self) -> None:
        """Runs what sleeps; only for callbacks of the loop."""
        for sleeper in tuple(self._sleepers):
            sleeper.wake()

    def _watch(self, *, writing: bool = False) -> None:
        """Makes sure that the loop looks at the doorbell and the socket."""
        link, watched = self._link, self._watched
        doorbell, sock = link.doorbell_fileno(), link.sock.fileno()
        if doorbell >= 0 and doorbell not in watched:
            self._loop.add_reader(doorbell, self._on_doorbell)
            watched[doorbell] = self._loop.remove_reader
        if sock not in watched and not link.eof:
            self._loop.add_reader(sock, self._on_socket)
            watched[sock] = self._loop.remove_reader
        if (writing or link.writer.pending) and not self._writing:
            self._loop.add_writer(sock, self._on_writable)
            self._writing = True

    def _on_doorbell(self) -> None:
        link = self._link
        link.take_wakeup()
        self._wake_all()

    def _on_socket(self) -> None:
        link = self._link
        if not self._sleepers:
            # Nobody reads: what comes waits in the socket, and holds up the sender, until somebody does.
            self._unwatch_socket()
            return
        link.wakeups_received += link.doorbell_fileno() < 0
        try:
            link.receive_control(ahead=False)
        except ChannelError as problem:  # whoever sleeps has to know, and not the loop
            self._problem = problem
        if link.eof or self._problem is not None:
            self._unwatch_socket()
        self._wake_all()

    def _unwatch_socket(self) -> None:
        sock = self._link.sock.fileno()
        if self._watched.pop(sock, None) is not None:
            self._loop.remove_reader(sock)

    def _on_writable(self) -> None:
        if self._link.writer.flush():
            self._loop.remove_writer(self._link.sock.fileno())
            self._writing = False
        self._wake_all()

    def _unwatch(self) -> None:
        """Takes everything out of the loop; must come before the descriptors are closed."""
        for fd, remove in self._watched.items():
            remove(fd)
        self._watched.clear()
        if self._writing:
            self._loop.remove_writer(self._link.sock.fileno())
            self._writing = False

    async def _wait_for_data(self, deadline: int | None) -> None:
        """Waits until there is something to look at; raises as :meth:`recv`."""
        if self._receiving:
            raise RuntimeError("another task is receiving on this channel; one task receives, any number may send")
        link, consumer = self._link, self._consumer
        self._receiving = True
        try:
            if self._down and self._coming_back is not None:
                return await self._come_back(PeerLost("link lost"), deadline)
            while True:
                link.idle()
                if self._spin_for_data(deadline):
                    return None
                try:
                    left = self._before_sleep(deadline)
                except (PeerLost, ChannelClosed) as error:
                    if not self._loses(error):
                        raise
                    await self._come_back(error, deadline)
                    return None
                if left == READY:
                    return None
                try:
                    if link.arm():
                        link.parks += 1
                        await self._sleep(left)
                finally:
                    if not self._closed and link is self._link:
                        link.lower()
                self._check_open()
                if link is not self._link:
                    return None
                self._drain_control()
                if consumer.has_data:
                    return None
        finally:
            self._receiving = False

    def _repair(self, error: ChannelError, count: int, deadline: int | None) -> None:
        self._begin_to_come_back(error)
        raise self._full(count) from error

    def _begin_to_come_back(self, error: ChannelError) -> asyncio.Task[None]:
        """Starts the task that makes the link again, unless there is one."""
        if self._recovery is None:
            raise error
        if self._recovery.final is not None:
            raise self._recovery.final
        if self._coming_back is None or self._coming_back.done():
            self._coming_back = self._loop.create_task(self._drive(self._recovery.steps(error)))
        return self._coming_back

    async def _come_back(self, error: ChannelError, deadline: int | None) -> None:
        """Waits until the link is back.

        Raises:
            TimeoutError: The deadline passed; the rest as :meth:`Recovery.steps`.
        """
        task = self._begin_to_come_back(error)
        await asyncio.sleep(0)  # The task tells that the link is lost.
        self._deliver()
        left = self._left_ms(deadline)
        await asyncio.wait({task}, timeout=None if left is None else left / 1e3)
        self._check_open()
        self._deliver()
        if not task.done():
            raise TimeoutError(f"not connected in time: link={self.name}; the bridge is away")
        task.result()

    def _leave_link(self, successor: Link) -> None:
        self._unwatch()
        self._problem = None
        super()._leave_link(successor)
        for sleeper in self._sleepers:
            sleeper.wake_soon()

    async def _ask(self, make: Callable[[], Steps[None]]) -> None:
        """Makes a request; where the link is lost meanwhile and comes back, once more."""
        async with self._requests:
            while True:
                try:
                    return await self._drive(make())
                except PeerLost as error:
                    if not self._loses(error):
                        raise
                    await self._come_back(error, deadline_after(self._timeout))

    async def _await_room(self, needed: int, deadline: int | None, full: ChannelFull) -> None:
        """Waits until there may be room for so many bytes."""
        if self._down and self._coming_back is not None:
            try:
                await self._come_back(full, deadline)
            except TimeoutError:
                raise full from None
            return
        left = self._blocked(deadline)
        if left == 0:
            raise full
        link = self._link
        try:
            if link.arm_for_room(needed // 8):
                link.parks += 1
                await self._sleep(left, writing=link.doorbell_fileno() < 0)
        finally:
            if not self._closed and link is self._link:
                link.lower_for_room()

    def _flush(self, deadline: int | None) -> None:
        if not self._link.writer.pending:
            return
        if get_ident() == self._owner:
            self._watch(writing=True)
        else:
            self._loop.call_soon_threadsafe(partial(self._watch, writing=True))

    # ---- topics

    async def subscribe(self, *contracts: type[Any], delivery: Delivery | None = None) -> None:
        """As :meth:`Channel.subscribe`."""
        await self._ask(lambda: self._subscribe_steps(contracts, delivery))

    async def unsubscribe(self, *contracts: type[Any]) -> None:
        """As :meth:`Channel.unsubscribe`."""
        await self._ask(lambda: self._unsubscribe_steps(contracts))

    async def publisher(self, contract: type[MessageT]) -> AsyncPublisher[MessageT]:
        """As :meth:`Channel.publisher`; the publisher's :meth:`~AsyncPublisher.send` is awaited."""
        self._check_open()
        self._registry.check(contract)
        publisher = AsyncPublisher(self, contract)
        await self._ask(lambda: self._advertise_steps(contract))
        return publisher

    # ---- receiving

    async def recv(self, timeout: float | None = None) -> Any:
        """Returns the next message; the one before it becomes stale and is acknowledged.

        Where a message is there already, nothing is suspended. Prefer ``timeout`` to :func:`asyncio.wait_for`, which
        costs a task more, and up to Python 3.11 drops the result if it is cancelled at the moment of success.

        Args:
            timeout: Longest wait in seconds; None for ever, 0 to look once.

        Raises:
            RuntimeError: Another task is receiving; the rest as :meth:`Channel.recv`.
        """
        self._step()
        deadline: int | None = -1
        while True:
            message = self._take()
            if message is not None:
                return message
            if deadline == -1:
                deadline = deadline_after(timeout)
            consumer = self._consumer
            if not consumer.words[consumer.word]:
                await self._wait_for_data(deadline)
                continue
            message = self._look()
            if message is not None:
                return message

    async def recv_batch(self, limit: int = 1024, timeout: float | None = None, *, one_class: bool = False) -> Batch:
        """As :meth:`Channel.recv_batch`."""
        if limit < 1:
            raise ValueError(f"limit={limit}, legal: 1 or more")
        self._step()
        deadline: int | None = -1
        while True:
            batch = self._take_batch(limit, one_class)
            if batch is not None:
                return batch
            if deadline == -1:
                deadline = deadline_after(timeout)
            consumer = self._consumer
            word = consumer.word
            if not consumer.words[word]:
                await self._wait_for_data(deadline)
                continue
            dynamic = self._look()
            if dynamic is not None:
                batch = self._current = Batch(self, consumer.views, word, [], dynamic)
                return batch

    def _step(self) -> None:
        """Begins a receiving call: the message in hand is done with."""
        if self._receiving:
            raise RuntimeError("another task is receiving on this channel; one task receives, any number may send")
        self._check_open()
        self._check_thread()
        self._release_current()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        """The next message, valid until the next step; ends when the bridge has shut down and nothing is left.

        Raises:
            PeerLost: The bridge vanished, and nothing is left.
        """
        if self._closed:
            raise StopAsyncIteration
        try:
            return await self.recv()
        except ChannelClosed:
            raise StopAsyncIteration from None

    async def batches(self, limit: int = 1024) -> AsyncIterator[Batch]:
        """As :meth:`Channel.batches`."""
        while not self._closed:
            try:
                batch = await self.recv_batch(limit)
            except ChannelClosed:
                return
            yield batch

    def acknowledge(self) -> None:
        """Releases and acknowledges what is in hand, without going on to the next message."""
        self._check_open()
        self._release_current()
        self._link.acknowledge()

    # ---- the end

    async def close(self, reason: str = "") -> None:
        """As :meth:`Channel.close`; tasks that wait on this channel get :class:`ChannelClosed`."""
        if self._closed:
            return
        link = self._link
        try:
            self._farewell(reason)
            if self._coming_back is not None:
                self._coming_back.cancel()
                await asyncio.wait({self._coming_back})
            for sleeper in self._sleepers:
                sleeper.wake_soon()
            await self._drive(parted(link.writer, link.sock, time.monotonic_ns() + _GOODBYE_NS))
        finally:
            self._unwatch()
            self._give_back()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self._release_current()
        await self.close()


class _Connecting:
    """What :func:`connect` returns: awaited it is a channel, and ``async with`` closes that channel at its end."""

    __slots__ = ("_channel", "_open")

    def __init__(self, opening: Callable[[], Any]) -> None:
        self._open = opening
        self._channel: AsyncChannel | None = None

    def __await__(self) -> Generator[Any, None, AsyncChannel]:
        return self._open().__await__()  # type: ignore[no-any-return]  # of a coroutine

    async def __aenter__(self) -> AsyncChannel:
        self._channel = await self
        return self._channel

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._channel is not None:
            await self._channel.__aexit__(kind, error, traceback)


def connect(
    address: str | None = None,
    *,
    name: str | None = None,
    transport: str = "auto",
    contracts: ModuleType | Iterable[ModuleType | type[Any]] | None = messages,
    timeout: float = 5.0,
    spin_us: int = 0,
    token: str = "",
    on_event: Callable[[Event], object] | None = None,
    tls_ca: str | os.PathLike[str] | None = None,
    ssl_context: ssl.SSLContext | None = None,
    reconnect: bool | Reconnect = False,
) -> _Connecting:
    """Connects to a bridge: ``async with connect(...) as channel`` or ``channel = await connect(...)``.

    The connection itself is made in the loop's executor, where asyncio resolves names too; all else in the loop.

    Args:
        address: As for :func:`mycelium.connect`.
        name: As for :func:`mycelium.connect`.
        transport: As for :func:`mycelium.connect`.
        contracts: As for :func:`mycelium.connect`.
        timeout: As for :func:`mycelium.connect`.
        spin_us: Longest time to spin before sleeping, in microseconds. The whole event loop stands still meanwhile, so
            the bridge's advice is not followed: 0 unless it is given here.
        token: As for :func:`mycelium.connect`.
        on_event: As for :func:`mycelium.connect`; an ordinary function.
        tls_ca: As for :func:`mycelium.connect`.
        ssl_context: As for :func:`mycelium.connect`.
        reconnect: As for :func:`mycelium.connect`.

    Raises:
        As :func:`mycelium.connect`, when awaited.
    """
    tls = TlsOptions(tls_ca, ssl_context)
    name, dial = dialer(address, name=name, transport=transport, timeout=timeout, tls=tls)
    plan = reconnect_plan(address, reconnect)
    opening = {"name": name, "token": token, "transport": transport}

    async def opened() -> AsyncChannel:
        channel = AsyncChannel(contracts=contracts, timeout=timeout, spin_us=spin_us, on_event=on_event)

        def steps() -> Steps[None]:
            sock = yield Blocking(dial)
            yield from channel._open_steps(sock, **opening)

        await channel._drive(steps())
        if plan is not None:
            channel._recovery = Recovery(channel, plan, dial, opening)
        return channel

    return _Connecting(opened)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _ready(loop: asyncio.AbstractEventLoop, wait: Wait) -> None:
    """Waits for a socket that is no channel's yet, or only for a time."""
    future = loop.create_future()
    timer = None if wait.timeout_ms is None else loop.call_later(wait.timeout_ms / 1e3, _wake, future)
    fd = -1 if wait.sock is None else wait.sock.fileno()
    try:
        if wait.events & select.POLLIN:
            loop.add_reader(fd, _wake, future)
        if wait.events & select.POLLOUT:
            loop.add_writer(fd, _wake, future)
        await future
    finally:
        if timer is not None:
            timer.cancel()
        if wait.events & select.POLLIN:
            loop.remove_reader(fd)
        if wait.events & select.POLLOUT:
            loop.remove_writer(fd)


async def _called(
    loop: asyncio.AbstractEventLoop, steps: Steps[Any], function: Callable[[], Any]
) -> Callable[[], Wait | Blocking]:
    """Makes a blocking call in the executor; returns how the procedure goes on with its outcome."""
    call = loop.run_in_executor(None, function)
    try:
        return partial(steps.send, await asyncio.shield(call))
    except asyncio.CancelledError:
        call.add_done_callback(_close_result)
        raise
    except Exception as error:  # the procedure's to handle
        return partial(steps.throw, error)


def _close_result(call: asyncio.Future[Any]) -> None:
    """Closes the socket that nobody waits for any more."""
    if not call.cancelled() and call.exception() is None and isinstance(call.result(), socket.socket):
        with contextlib.suppress(OSError):
            call.result().close()
